"""Container Device Interface (CDI 1.1.0): specs of devices, and their edits applied to a runtime spec. Pure.

What stands in the file system is a value here: `apply` is told what the device nodes of the host are.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import msgspec

from mlbox.errors import ContainerError
from mlbox.oci.runtime import Device as DeviceToMake
from mlbox.oci.runtime import DeviceCgroupRule, Hook, Hooks, Linux, Mount, Process, Resources
from mlbox.oci.runtime import Spec as RuntimeSpec

VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
"""Those that the specification calls released, oldest first."""

_VENDOR = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_CLASS = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_HOOKS = {
    "prestart": "prestart",
    "createRuntime": "create_runtime",
    "createContainer": "create_container",
    "startContainer": "start_container",
    "poststart": "poststart",
    "poststop": "poststop",
}


class Value(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Base of what stands in a CDI file: a field that is not known may change what the others mean."""


class DeviceNode(Value, frozen=True, kw_only=True):
    """A device node in the container, from `host_path` (default: the same path)."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class CdiMount(Value, frozen=True, kw_only=True):
    """A file or folder of the host in the container."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


class CdiHook(Value, frozen=True, kw_only=True):
    """A program of the host that runs at `hook_name`; `args` has argv[0]."""

    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class IntelRdt(Value, frozen=True, kw_only=True, rename={"clos_id": "closID"}):
    """Cache and memory bandwidth of Intel's Resource Director Technology."""

    clos_id: str = ""
    l3_cache_schema: str = msgspec.field(default="", name="l3CacheSchema")
    mem_bw_schema: str = msgspec.field(default="", name="memBwSchema")
    schemata: tuple[str, ...] = ()
    enable_monitoring: bool = msgspec.field(default=False, name="enableMonitoring")


class NetDevice(Value, frozen=True, kw_only=True):
    """A network interface that moves into the container."""

    host_interface_name: str
    name: str


class ContainerEdits(Value, frozen=True, kw_only=True):
    """What a device changes about a container."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    net_devices: tuple[NetDevice, ...] = ()
    mounts: tuple[CdiMount, ...] = ()
    hooks: tuple[CdiHook, ...] = ()
    additional_gids: tuple[int, ...] = ()
    intel_rdt: IntelRdt | None = None

    def __add__(self, other: "ContainerEdits") -> "ContainerEdits":
        """Return both, the other's last."""
        return ContainerEdits(
            env=self.env + other.env,
            device_nodes=self.device_nodes + other.device_nodes,
            net_devices=self.net_devices + other.net_devices,
            mounts=self.mounts + other.mounts,
            hooks=self.hooks + other.hooks,
            additional_gids=self.additional_gids + other.additional_gids,
            intel_rdt=other.intel_rdt or self.intel_rdt,
        )


class Device(Value, frozen=True, kw_only=True):
    """A device of a spec."""

    name: str
    annotations: dict[str, str] = {}
    container_edits: ContainerEdits


class Spec(Value, frozen=True, kw_only=True):
    """A CDI file: devices of one kind ('vendor.com/class'), and the edits that any of them brings."""

    cdi_version: str
    kind: str
    annotations: dict[str, str] = {}
    devices: tuple[Device, ...]
    container_edits: ContainerEdits = ContainerEdits()


class Name(NamedTuple):
    """A qualified device name: 'vendor.com/class=name'."""

    kind: str
    device: str

    def __str__(self) -> str:
        """Return the name as it is typed."""
        return f"{self.kind}={self.device}"


class Node(Protocol):
    """What a device node of the host is; who owns it there does not matter, the container's user owns it inside."""

    @property
    def type(self) -> str:
        """Say 'c', 'b' or 'p'."""

    @property
    def major(self) -> int:
        """Say which driver it is."""

    @property
    def minor(self) -> int:
        """Say which of the driver's devices it is."""

    @property
    def mode(self) -> int:
        """Return its permission bits."""


NodeOf = Callable[[str], Node | None]
"""From a path of the host to the device node there, None when it is something else; raises OSError."""


def parse_name(text: str) -> Name | None:
    """Return the device that `text` names, None when it is no qualified name."""
    kind, equals, device = text.partition("=")
    return Name(kind, device) if equals and _is_kind(kind) and _NAME.fullmatch(device) else None


def parse_spec(document: object, what: str) -> Spec:
    """Return the spec in `document` (JSON or YAML, decoded); raises ContainerError naming the file `what`.

    An unknown version, a field that its version did not have yet, an odd name or path: all of it is an error, since
    a device that is only half understood must not be given to a container.
    """
    try:
        spec = msgspec.convert(document, Spec)
    except msgspec.ValidationError as problem:
        raise ContainerError(f"{what}: not a CDI spec: {problem}") from problem
    version = spec.cdi_version.removeprefix("v")
    if version not in VERSIONS:
        raise ContainerError(f"{what}: CDI version {spec.cdi_version[:20]!r} is not known", hint="known: " + _KNOWN)
    needed = minimum_version(spec)
    if VERSIONS.index(needed) > VERSIONS.index(version):
        raise ContainerError(f"{what}: says CDI {version}, but has what came with {needed}")
    if found := next(iter(problems_of(spec)), ""):
        raise ContainerError(f"{what}: {found}")
    return spec


_KNOWN = f"{VERSIONS[0]} to {VERSIONS[-1]}"


def minimum_version(spec: Spec) -> str:
    """Return the oldest version of CDI that has everything in `spec`: what a file should say, for old readers."""
    every = (spec.container_edits, *(device.container_edits for device in spec.devices))
    if any(edits.net_devices or (edits.intel_rdt and _has_new_rdt(edits.intel_rdt)) for edits in every):
        return "1.1.0"
    if any(edits.intel_rdt or edits.additional_gids for edits in every):
        return "0.7.0"
    if spec.annotations or any(device.annotations for device in spec.devices) or "." in spec.kind.partition("/")[2]:
        return "0.6.0"
    if any(device.name[:1].isdigit() for device in spec.devices) or any(
        node.host_path for edits in every for node in edits.device_nodes
    ):
        return "0.5.0"
    return "0.4.0" if any(mount.type for edits in every for mount in edits.mounts) else "0.3.0"


def problems_of(spec: Spec) -> Iterable[str]:
    """Yield what the specification forbids in `spec`."""
    if not _is_kind(spec.kind):
        yield f"not a kind of device: {spec.kind[:80]!r}"
    if not spec.devices:
        yield "no devices"
    names = [device.name for device in spec.devices]
    yield from (f"not a device name: {name[:80]!r}" for name in names if not _NAME.fullmatch(name))
    if len(set(names)) < len(names):
        yield "two devices have the same name"
    for edits in (spec.container_edits, *(device.container_edits for device in spec.devices)):
        yield from _edit_problems(edits)


def apply(edits: ContainerEdits, spec: RuntimeSpec, node_of: NodeOf) -> RuntimeSpec:
    """Return `spec` with the `edits`; `node_of` says what a device node of the host is.

    As the specification has it: a device node or mount at a path replaces an older one there, mounts are sorted so
    that what lies deeper comes later, a device belongs to the container's user, and exactly its minor is allowed.
    """
    process, linux = spec.process or Process(args=(), cwd="/"), spec.linux or Linux()
    if edits.net_devices:
        raise ContainerError(
            f"device needs network interface {edits.net_devices[0].host_interface_name} moved into the container",
            hint="this version of mlbox cannot move network interfaces",
        )
    made = [_device(node, process, node_of) for node in edits.device_nodes]
    return msgspec.structs.replace(
        spec,
        process=_process(edits, process),
        mounts=_mounts(edits, spec.mounts),
        hooks=_hooks(edits, spec.hooks),
        linux=msgspec.structs.replace(
            linux,
            devices=tuple({one.path: one for one in (*linux.devices, *(device for device, _ in made))}.values()),
            resources=_resources(linux.resources or Resources(), [rule for _, rule in made if rule]),
            intel_rdt=msgspec.to_builtins(edits.intel_rdt) if edits.intel_rdt else linux.intel_rdt,
        ),
    )


def _device(node: DeviceNode, process: Process, node_of: NodeOf) -> tuple[DeviceToMake, DeviceCgroupRule | None]:
    kind, major, minor, mode = node.type, node.major, node.minor, node.file_mode
    if not kind or (major is None and kind != "p"):
        found = _on_host(node.host_path or node.path, node_of)
        if kind and kind != found.type:
            raise ContainerError(f"device {node.path}: its CDI spec says type {kind}, the host has {found.type}")
        kind, major, minor = found.type, found.major, found.minor
        mode = found.mode if mode is None else mode
    user = process.user
    device = DeviceToMake(
        type=kind,
        path=node.path,
        major=None if kind == "p" else major,
        minor=None if kind == "p" else minor or 0,
        file_mode=mode,
        uid=node.uid if node.uid is not None else user.uid or None,
        gid=node.gid if node.gid is not None else user.gid or None,
    )
    if kind == "p" or node.permissions == "none":
        return device, None
    access = node.permissions or "rwm"
    # 'u' is a character device without buffering, which no kernel of today tells apart.
    cgroup_type = "b" if kind == "b" else "c"
    return device, DeviceCgroupRule(allow=True, type=cgroup_type, major=major, minor=minor or 0, access=access)


def _on_host(path: str, node_of: NodeOf) -> Node:
    try:
        found = node_of(path)
    except OSError as problem:
        raise ContainerError(f"device {path}: {problem.strerror}") from problem
    if found is None:
        raise ContainerError(f"{path} is no device node")
    return found


def _process(edits: ContainerEdits, process: Process) -> Process:
    env = dict(line.partition("=")[::2] for line in (*process.env, *edits.env))
    groups = dict.fromkeys((*process.user.additional_gids, *(gid for gid in edits.additional_gids if gid)))
    return msgspec.structs.replace(
        process,
        env=tuple(f"{key}={value}" for key, value in env.items()),
        user=msgspec.structs.replace(process.user, additional_gids=tuple(groups)),
    )


def _mounts(edits: ContainerEdits, mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    if not edits.mounts:
        return mounts
    added = {
        one.container_path: Mount(
            destination=one.container_path, type=one.type or "bind", source=one.host_path, options=_options(one)
        )
        for one in edits.mounts
    }
    kept = [one for one in mounts if one.destination not in added]
    return tuple(sorted((*kept, *added.values()), key=lambda one: len(one.destination.strip("/").split("/"))))


def _options(mount: CdiMount) -> tuple[str, ...]:
    plain = mount.type in ("", "bind") and not {"bind", "rbind"} & set(mount.options)
    return ("bind", *mount.options) if plain else mount.options


def _hooks(edits: ContainerEdits, hooks: Hooks | None) -> Hooks | None:
    if not edits.hooks:
        return hooks
    merged = hooks or Hooks()
    for one in edits.hooks:
        stage = _HOOKS[one.hook_name]
        hook = Hook(path=one.path, args=one.args, env=one.env, timeout=one.timeout)
        merged = msgspec.structs.replace(merged, **{stage: (*getattr(merged, stage), hook)})
    return merged


def _resources(resources: Resources, rules: list[DeviceCgroupRule]) -> Resources:
    new = [rule for rule in dict.fromkeys(rules) if rule not in resources.devices]
    return msgspec.structs.replace(resources, devices=(*resources.devices, *new))


def _is_kind(text: str) -> bool:
    vendor, slash, kind = text.partition("/")
    return bool(slash and _VENDOR.fullmatch(vendor) and _CLASS.fullmatch(kind))


def _has_new_rdt(rdt: IntelRdt) -> bool:
    return bool(rdt.schemata or rdt.enable_monitoring)


def _edit_problems(edits: ContainerEdits) -> Iterable[str]:
    yield from (f"not a variable: {line[:80]!r}" for line in edits.env if "=" not in line[1:] or "\0" in line)
    for node in edits.device_nodes:
        if not _is_path(node.path) or (node.host_path and not _is_path(node.host_path)):
            yield f"not a path of a device node: {(node.host_path or node.path)[:200]!r}"
        if node.type not in ("", "b", "c", "u", "p"):
            yield f"{node.path}: not a type of device: {node.type[:20]!r}"
        if node.permissions != "none" and set(node.permissions) - set("rwm"):
            yield f"{node.path}: not permissions: {node.permissions[:20]!r}"
        if min(node.major or 0, node.minor or 0, node.uid or 0, node.gid or 0) < 0:
            yield f"{node.path}: a number below zero"
    for mount in edits.mounts:
        is_bind = mount.type in ("", "bind")
        if not _is_path(mount.container_path) or not mount.host_path or (is_bind and not _is_path(mount.host_path)):
            yield f"not a mount: {mount.host_path[:200]!r} at {mount.container_path[:200]!r}"
    for hook in edits.hooks:
        if hook.hook_name not in _HOOKS:
            yield f"not a hook: {hook.hook_name[:40]!r}"
        if not hook.path.startswith("/"):
            yield f"a hook's program needs an absolute path: {hook.path[:200]!r}"


def _is_path(path: str) -> bool:
    return path.startswith("/") and ".." not in path.split("/") and "\0" not in path
