"""The runtime-spec's documents, field for field (runtime-spec v1.1, the part that Linux containers use)."""

from typing import Any

import msgspec

SPEC_VERSION = "1.0.2"


class Value(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of everything in config.json: keys in camelCase, what has its default is left out."""


class Box(Value, frozen=True, kw_only=True):
    """The size of a terminal, in characters."""

    height: int
    width: int


class User(Value, frozen=True, kw_only=True, rename={"additional_gids": "additionalGids"}):
    """Who the process is; numbers only, names are looked up before."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class Capabilities(Value, frozen=True, kw_only=True):
    """The five capability sets."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(Value, frozen=True, kw_only=True):
    """A resource limit, 'RLIMIT_NOFILE' and its kind."""

    type: str
    soft: int
    hard: int


class Process(Value, frozen=True, kw_only=True):
    """What runs in the container."""

    args: tuple[str, ...]
    cwd: str
    user: User = User()
    env: tuple[str, ...] = ()
    terminal: bool = False
    console_size: Box | None = None
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    selinux_label: str = ""


class Root(Value, frozen=True, kw_only=True):
    """Where the root file system lies."""

    path: str
    readonly: bool = False


class Mount(Value, frozen=True, kw_only=True):
    """One mount, made in the order of the list."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()


class Hook(Value, frozen=True, kw_only=True):
    """A program run at a point of the container's life; `args` has argv[0]."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(Value, frozen=True, kw_only=True):
    """The hooks, by the point at which they run."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Namespace(Value, frozen=True, kw_only=True):
    """A namespace to make, or to join when it has a path."""

    type: str
    path: str = ""


class IDMapping(Value, frozen=True, kw_only=True, rename={"container_id": "containerID", "host_id": "hostID"}):
    """`size` ids from `host_id` on are `container_id` and following inside."""

    container_id: int
    host_id: int
    size: int


class Device(Value, frozen=True, kw_only=True):
    """A device node to make."""

    type: str
    path: str
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class DeviceCgroupRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the device cgroup says of some nodes; a missing number means all."""

    allow: bool
    type: str | None = None
    major: int | None = None
    minor: int | None = None
    access: str | None = None


class Memory(Value, frozen=True, kw_only=True):
    """Bytes; `swap` is memory and swap together, -1 is no limit."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None


class CPU(Value, frozen=True, kw_only=True):
    """Microseconds of CPU time (`quota`) in each `period`; the CPUs and memory nodes that may be used."""

    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    cpus: str = ""
    mems: str = ""


class Pids(Value, frozen=True, kw_only=True):
    """How many tasks there may be."""

    limit: int


class Resources(Value, frozen=True, kw_only=True):
    """Limits of the container's cgroup."""

    devices: tuple[DeviceCgroupRule, ...] = ()
    memory: Memory | None = None
    cpu: CPU | None = None
    pids: Pids | None = None
    unified: dict[str, str] = {}


class SeccompArg(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A condition on one argument of a system call."""

    index: int
    value: int
    value_two: int = 0
    op: str


class SeccompRule(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens on these system calls when all conditions hold; a condition we do not know is an error."""

    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SeccompArg, ...] = ()


class Seccomp(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The system call filter."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[SeccompRule, ...] = ()


class Linux(Value, frozen=True, kw_only=True):
    """What only Linux has."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    cgroups_path: str = ""
    resources: Resources | None = None
    rootfs_propagation: str = ""
    seccomp: Seccomp | None = None
    sysctl: dict[str, str] = {}
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    intel_rdt: dict[str, Any] | None = None


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """config.json of a bundle."""

    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks | None = None
    linux: Linux | None = None
    annotations: dict[str, str] = {}


class State(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a runtime says of a container."""

    oci_version: str
    id: str
    status: str
    pid: int = 0
    bundle: str
    annotations: dict[str, str] = {}
