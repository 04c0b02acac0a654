"""An image configuration and a user's options become a runtime-spec Spec. Pure: the host is a value here."""

from collections.abc import Iterable, Mapping

import msgspec

from mlbox.errors import ContainerError
from mlbox.oci.image import ContainerConfig
from mlbox.oci.runtime import (
    CPU,
    SPEC_VERSION,
    Box,
    Capabilities,
    DeviceCgroupRule,
    Linux,
    Memory,
    Mount,
    Namespace,
    Pids,
    Process,
    Resources,
    Rlimit,
    Root,
    Seccomp,
    Spec,
    User,
)
from mlbox.runtime.account import Account
from mlbox.runtime.options import PIDS_LIMIT, BindMount, RunOptions, TmpfsMount, Ulimit, parse_signal
from mlbox.runtime.seccomp import default_profile

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT = "/dev/init"

# Owning, entering and killing what is in the container, dropping to another user, low ports. Left out of what
# other tools give: MKNOD (device nodes beyond the listed ones), NET_RAW (with the host's network it reads the
# host's traffic), SETFCAP and SETPCAP (mean nothing under no-new-privileges), SYS_CHROOT, AUDIT_WRITE.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETUID",
)

# Kernel files that tell about, or act on, the whole machine and that no namespace covers.
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
# The last one: with cgroup v1 it is a tmpfs that runc leaves writable.
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys/fs/cgroup")

# null, zero, full, random, urandom, tty, console, ptmx, and the pseudo terminals: Documentation/admin-guide/devices.txt
_STANDARD_NODES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))
DEVICE_RULES = (
    DeviceCgroupRule(allow=False, access="rwm"),
    *(
        DeviceCgroupRule(allow=True, type="c", major=major, minor=minor, access="rwm")
        for major, minor in _STANDARD_NODES
    ),
)

_CPU_PERIOD = 100_000
# glibc gives each thread a stack of the soft limit; unlimited would turn that into 2 MiB and change how the
# kernel lays out memory. 64 MiB is what NVIDIA's containers ask for.
_STACK = 64 << 20
# Enough for hundreds of data loader workers that pass tensors as descriptors; programs that close every
# possible descriptor one by one still start quickly.
_NOFILE = 65536


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What of the host decides a spec: memory in bytes, limits as (soft, hard) with -1 for none, programs."""

    memory: int
    hostname: str
    limits: dict[str, tuple[int, int]]
    cpus: int = 1
    controllers: frozenset[str] = frozenset({"cpu", "memory", "pids"})
    swap_limit: bool = True
    init: str = ""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the pieces of one container lie: its root file system, its folder, its cgroup."""

    rootfs: str
    folder: str
    cgroup: str


def make_spec(
    config: ContainerConfig,
    options: RunOptions,
    host: HostFacts,
    place: Place,
    *,
    id: str,
    account: Account,
    profile: Seccomp | None = None,
    size: Box | None = None,
) -> Spec:
    """Return the spec of container `id`; everything not asked for is closed.

    `profile` is the system call filter that `--security-opt seccomp=FILE` names, read before. Raises
    ContainerError for what cannot be: no command, an unknown option, a limit the host lacks.
    """
    capabilities = held_capabilities(options)
    return Spec(
        oci_version=SPEC_VERSION,
        process=_process(config, options, host, account, capabilities, id=id, size=size),
        root=Root(path=place.rootfs, readonly=options.read_only),
        hostname=hostname(options, host, id),
        mounts=_mounts(options, host, place),
        linux=Linux(
            namespaces=tuple(Namespace(type=kind) for kind in _namespaces(options)),
            cgroups_path=place.cgroup,
            resources=_resources(options, host),
            rootfs_propagation="private",
            seccomp=_seccomp(options, capabilities, profile),
            masked_paths=MASKED,
            readonly_paths=READONLY,
        ),
    )


def command(config: ContainerConfig, options: RunOptions) -> tuple[str, ...]:
    """Return the argv: a command replaces the image's, an entrypoint replaces both."""
    if options.entrypoint is not None:
        argv = (*(word for word in options.entrypoint if word), *options.command)
    else:
        argv = (*(config.entrypoint or ()), *(options.command or config.cmd or ()))
    if not argv:
        raise ContainerError("no command: the image names none and none was given", hint="mlbox run IMAGE COMMAND")
    if any("\0" in word for word in argv):
        raise ContainerError("a word of the command has a NUL byte")
    return argv


def hostname(options: RunOptions, host: HostFacts, id: str) -> str:
    """Return the container's host name: on the host's network the host's own, so that it resolves."""
    return options.hostname or (host.hostname if options.network == "host" else id[:12])


def stop_signal(config: ContainerConfig, options: RunOptions) -> int:
    """Return the signal that asks the container to end."""
    return parse_signal(options.stop_signal or config.stop_signal or "TERM")


def held_capabilities(options: RunOptions) -> tuple[str, ...]:
    """Return the capabilities after --cap-drop and --cap-add, sorted."""
    dropped = {_capability(name) for name in options.cap_drop}
    added = {_capability(name) for name in options.cap_add}
    if "CAP_ALL" in added:
        raise ContainerError("--cap-add ALL is not offered", hint="add the capabilities that are needed by name")
    kept = set() if "CAP_ALL" in dropped else set(CAPABILITIES) - dropped
    return tuple(sorted(kept | added))


def clamp(wanted: Ulimit, host: HostFacts) -> Rlimit:
    """Return the limit as the host allows it: raising a hard limit needs CAP_SYS_RESOURCE, which root may lack."""
    most = host.limits.get(wanted.name, (-1, -1))[1]
    return Rlimit(
        type=f"RLIMIT_{wanted.name.upper()}",
        soft=_unsigned(_least(wanted.soft, most)),
        hard=_unsigned(_least(wanted.hard, most)),
    )


def environment(config: ContainerConfig, options: RunOptions, account: Account, host_name: str) -> tuple[str, ...]:
    """Return the variables as K=V: defaults, then the image's, then the options'."""
    defaults = {"PATH": PATH, "HOSTNAME": host_name, "HOME": account.home} | ({"TERM": "xterm"} if options.tty else {})
    image = dict(line.partition("=")[::2] for line in config.env)
    return environment_of((), {**defaults, **image, **options.env})


def environment_of(lines: Iterable[str], extra: Mapping[str, str]) -> tuple[str, ...]:
    """Return K=V lines with `extra` set in them."""
    env = dict(line.partition("=")[::2] for line in lines) | dict(extra)
    return tuple(f"{key}={value}" for key, value in env.items() if key and "\0" not in key + value)


def process_capabilities(held: tuple[str, ...], account: Account, added: Iterable[str]) -> Capabilities:
    """Return the sets: root has them all; another user has none but those asked for by name (ambient)."""
    if account.uid == 0:
        return Capabilities(bounding=held, effective=held, permitted=held)
    named = tuple(sorted(_capability(name) for name in added))
    return Capabilities(bounding=held, effective=named, permitted=named, inheritable=named, ambient=named)


def _process(
    config: ContainerConfig,
    options: RunOptions,
    host: HostFacts,
    account: Account,
    capabilities: tuple[str, ...],
    *,
    id: str,
    size: Box | None,
) -> Process:
    argv = command(config, options)
    return Process(
        args=(INIT, "--", *argv) if options.init else argv,
        cwd=working_dir(options.workdir or config.working_dir),
        user=User(uid=account.uid, gid=account.gid, additional_gids=account.groups),
        env=environment(config, options, account, hostname(options, host, id)),
        terminal=options.tty,
        console_size=size if options.tty else None,
        capabilities=process_capabilities(capabilities, account, options.cap_add),
        rlimits=_rlimits(options, host),
        no_new_privileges=_no_new_privileges(options),
    )


def working_dir(path: str) -> str:
    """Return `path` as the working directory; one that goes through /proc could name an open file of the runtime."""
    if not path:
        return "/"
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or ".." in parts or parts[:1] == ["proc"]:
        raise ContainerError(f"not a working directory: {path!r}", hint="an absolute path without '..', not in /proc")
    return "/" + "/".join(parts)


def _namespaces(options: RunOptions) -> tuple[str, ...]:
    kinds = ("pid", "ipc", "uts", "mount", "cgroup")
    return kinds if options.network == "host" else (*kinds, "network")


def _rlimits(options: RunOptions, host: HostFacts) -> tuple[Rlimit, ...]:
    defaults = (
        Ulimit(name="core", soft=0, hard=-1),
        Ulimit(name="memlock", soft=-1, hard=-1),
        Ulimit(name="nofile", soft=_NOFILE, hard=-1),
        Ulimit(name="stack", soft=_STACK, hard=-1),
    )
    chosen = {limit.name: limit for limit in (*defaults, *options.ulimits)}
    return tuple(clamp(chosen[name], host) for name in sorted(chosen))


def _least(wanted: int, most: int) -> int:
    if most == -1:
        return wanted
    return most if wanted == -1 else min(wanted, most)


def _unsigned(limit: int) -> int:
    return 2**64 - 1 if limit == -1 else limit


def _capability(name: str) -> str:
    word = "CAP_" + name.upper().removeprefix("CAP_")
    if not word.replace("_", "").isalnum() or not word.isascii():
        raise ContainerError(f"not a capability: {name!r}", hint="a name of capabilities(7), like SYS_NICE")
    return word


def _mounts(options: RunOptions, host: HostFacts, place: Place) -> tuple[Mount, ...]:
    wanted = sorted(options.mounts, key=lambda one: one.target.count("/"))
    asked = [_user_mount(one) for one in wanted]
    taken = {one.destination for one in asked}
    if len(taken) < len(asked):
        raise ContainerError("two mounts have the same target", hint="leave one of them out")
    standard = (*_kernel_mounts(options, host), *_file_mounts(options, host, place))
    return (*(one for one in standard if one.destination not in taken), *asked)


def _kernel_mounts(options: RunOptions, host: HostFacts) -> tuple[Mount, ...]:
    shm = options.shm_size or (options.memory or host.memory) // 2
    quiet = ("nosuid", "noexec", "nodev")
    return (
        Mount(destination="/proc", type="proc", source="proc", options=quiet),
        Mount(
            destination="/dev", type="tmpfs", source="tmpfs", options=("nosuid", "strictatime", "mode=755", "size=64k")
        ),
        Mount(
            destination="/dev/pts",
            type="devpts",
            source="devpts",
            options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        Mount(destination="/sys", type="sysfs", source="sysfs", options=(*quiet, "ro")),
        Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=(*quiet, "relatime", "ro")),
        Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=quiet),
        Mount(destination="/dev/shm", type="tmpfs", source="shm", options=(*quiet, "mode=1777", f"size={shm}")),  # noqa: S108
    )


def _file_mounts(options: RunOptions, host: HostFacts, place: Place) -> tuple[Mount, ...]:
    mode = "ro" if options.read_only else "rw"
    files = [
        Mount(
            destination=f"/etc/{name}",
            type="bind",
            source=f"{place.folder}/{name}",
            options=("rbind", "rprivate", "nosuid", "nodev", mode),
        )
        for name in ("hosts", "hostname", "resolv.conf")
    ]
    if options.init:
        if not host.init:
            raise ContainerError("--init needs a small init program on the host", hint="apt-get install tini")
        files.append(Mount(destination=INIT, type="bind", source=host.init, options=("bind", "rprivate", "ro")))
    return tuple(files)


def _user_mount(one: BindMount | TmpfsMount) -> Mount:
    if isinstance(one, BindMount):
        mode = "ro" if one.readonly else "rw"
        return Mount(
            destination=one.target,
            type="bind",
            source=one.source,
            options=("rbind", "rprivate", "nosuid", "nodev", mode),
        )
    options = ["nosuid", "nodev", f"mode={one.mode:o}"]
    options += [] if one.executable else ["noexec"]
    options += [] if one.size is None else [f"size={one.size}"]
    return Mount(destination=one.target, type="tmpfs", source="tmpfs", options=tuple(options))


def _resources(options: RunOptions, host: HostFacts) -> Resources:
    return Resources(
        devices=DEVICE_RULES,
        memory=_memory(options, host),
        cpu=_cpu(options, host),
        pids=_pids(options, host),
    )


def _pids(options: RunOptions, host: HostFacts) -> Pids | None:
    # The default is left out where there is no such controller; what was asked for is an error there.
    if options.pids_limit <= 0 or (options.pids_limit == PIDS_LIMIT and "pids" not in host.controllers):
        return None
    _need(host, "pids", "--pids-limit")
    return Pids(limit=options.pids_limit)


def _need(host: HostFacts, controller: str, option: str) -> None:
    if controller not in host.controllers:
        raise ContainerError(
            f"{option} cannot be kept: this host has no cgroup controller '{controller}'",
            hint=f"leave {option} out, or boot the host with the controller enabled",
        )


def _memory(options: RunOptions, host: HostFacts) -> Memory | None:
    if options.memory is None:
        if options.memory_swap is not None:
            raise ContainerError("--memory-swap needs --memory", hint="give both, or neither")
        return None
    _need(host, "memory", "--memory")
    if options.memory < 6 << 20:
        raise ContainerError("--memory below 6 MiB: nothing can start", hint="give at least 6m")
    swap = options.memory if options.memory_swap is None else options.memory_swap
    if swap != -1 and swap < options.memory:
        raise ContainerError("--memory-swap is memory and swap together: it cannot be below --memory")
    return Memory(limit=options.memory, swap=swap if host.swap_limit else None)


def _cpu(options: RunOptions, host: HostFacts) -> CPU | None:
    if options.cpus is None:
        return None
    _need(host, "cpu", "--cpus")
    if not 0.01 <= options.cpus <= host.cpus:
        raise ContainerError(f"--cpus {options.cpus:g}: this host has {host.cpus}", hint=f"0.01 to {host.cpus}")
    return CPU(quota=int(options.cpus * _CPU_PERIOD), period=_CPU_PERIOD)


def security(options: RunOptions) -> dict[str, str]:
    """Return --security-opt as keys and values; an unknown or repeated key raises ContainerError."""
    words: dict[str, str] = {}
    for item in options.security_opt:
        key, _, value = item.partition("=" if "=" in item else ":")
        if key not in ("seccomp", "no-new-privileges") or key in words:
            raise ContainerError(
                f"--security-opt {item!r} is not known",
                hint="known are seccomp=FILE, seccomp=unconfined and no-new-privileges=true|false, each once",
            )
        words[key] = value
    return words


def _seccomp(options: RunOptions, capabilities: tuple[str, ...], profile: Seccomp | None) -> Seccomp | None:
    asked = security(options).get("seccomp", "")
    if asked == "unconfined":
        return None
    return profile if asked and profile else default_profile(capabilities)


def _no_new_privileges(options: RunOptions) -> bool:
    word = security(options).get("no-new-privileges", "") or "true"
    if word not in ("true", "false"):
        raise ContainerError(f"--security-opt no-new-privileges={word}: true or false")
    return word == "true"
