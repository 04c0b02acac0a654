"""What `--device` asks for, as CDI edits: device nodes by path, devices of any vendor by their CDI name."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mlbox.cdi import ContainerEdits, Device, DeviceNode, Name, Spec, parse_name, parse_spec
from mlbox.codec import decode_json
from mlbox.engine.allowance import refuse_nodes, user_now
from mlbox.errors import ContainerError, MlboxError
from mlbox.gpu.limits import SYSTEM
from mlbox.gpu.model import Roots
from mlbox.linux.cgroup import hierarchies
from mlbox.linux.device import node
from mlbox.runtime import access, hotplug
from mlbox.runtime.containers import Containers

FOLDERS = ("/etc/cdi", "/var/run/cdi")
"""Where CDI files lie; the definition in a later folder counts. MLBOX_CDI_PATH names others."""

_LARGEST = 8 << 20


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A device and the file that defines it."""

    spec: Spec
    device: Device
    path: Path


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel lets a running container do with devices, compared with what it was given."""

    id: str
    name: str
    devices: tuple[str, ...]
    """Paths of the nodes it was given, besides the standard ones."""
    rules: tuple[str, ...]
    """What is allowed, as 'c 195:0 rwm'."""
    problems: tuple[str, ...]
    """Where the kernel's rules differ."""
    warnings: tuple[str, ...] = ()
    """What its monitor saw and put right."""


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    """The CDI devices of a host."""

    devices: dict[Name, Found] = {}
    conflicts: dict[Name, tuple[Path, ...]] = {}
    """Defined by several files of one folder: nobody knows which is meant, so none of them is given."""
    problems: tuple[str, ...] = ()
    """Files that could not be read, and why."""


def edits_for(asked: Sequence[str], folders: Iterable[Path] | None = None) -> ContainerEdits:
    """Return the edits that the devices `asked` for bring; raises ContainerError for what there is not.

    'vendor.com/class=name' is a CDI device; 'HOST[:CONTAINER][:rwm]' a device node, or a folder of them.
    """
    named = [(text, parse_name(text)) for text in asked]
    devices = read_devices(cdi_folders() if folders is None else folders) if any(name for _, name in named) else None
    edits, specs = ContainerEdits(), set[Path]()
    for text, name in named:
        if name is None or devices is None:
            edits += ContainerEdits(device_nodes=tuple(_nodes(text)))
            continue
        found = _look_up(devices, name)
        common = ContainerEdits() if found.path in specs else found.spec.container_edits
        specs.add(found.path)
        edits += common + found.device.container_edits
    return edits


def verify(containers: Containers, reference: str) -> Access:
    """Read back what the kernel has for a running container; raises ContainerError when it does not run."""
    container, folder = containers.running(reference)
    spec = folder.load_spec()
    rules = access.rules_of(spec)
    nodes = tuple(one.path for one in spec.linux.devices) if spec.linux else ()
    mounted = hierarchies()
    # Where a program decides, that of a container without devices is the runtime's own, of any shape.
    comparable = nodes or not access.is_by_program(mounted)
    return Access(
        id=container.id,
        name=container.name,
        devices=nodes,
        rules=tuple(map(access.text, rules)),
        problems=access.problems(folder.cgroup, rules, mounted) if comparable else (),
        warnings=container.state.warnings,
    )


def attach(
    containers: Containers, reference: str, asked: Sequence[str], *, limits: Path = SYSTEM, roots: Roots | None = None
) -> tuple[str, ...]:
    """Give devices to a running container until it stops; return the paths of their nodes.

    Whoever has limits (/etc/mlbox/gpus.toml) gets no GPU in this way.
    """
    container, folder = containers.running(reference)
    edits = edits_for(asked)
    refuse_nodes(edits, user_now(), limits, roots)
    if not edits.device_nodes:
        raise ContainerError(f"{', '.join(asked)}: nothing that can come to a program that runs")
    return hotplug.attach(folder, container.state.pid, edits)


def detach(containers: Containers, reference: str, asked: Sequence[str], *, force: bool = False) -> tuple[str, ...]:
    """Take devices away from a running container; return the paths of their nodes.

    Raises ContainerError naming the programs that have one open, unless `force`.
    """
    container, folder = containers.running(reference)
    paths = [node.path for node in edits_for(asked).device_nodes]
    return hotplug.detach(folder, container.state.pid, paths, force=force)


def cdi_folders() -> tuple[Path, ...]:
    """Return the folders that hold CDI files, the least important first."""
    return tuple(Path(folder) for folder in (os.environ.get("MLBOX_CDI_PATH") or ":".join(FOLDERS)).split(":"))


def read_devices(folders: Iterable[Path]) -> Devices:
    """Return every device that the CDI files in `folders` define; a damaged file hides no other one's devices."""
    devices: dict[Name, Found] = {}
    conflicts: dict[Name, tuple[Path, ...]] = {}
    problems: list[str] = []
    for folder in folders:
        here: dict[Name, list[Found]] = {}
        for path in _files(folder):
            try:
                spec = parse_spec(_document(path), str(path))
            except MlboxError as problem:
                problems.append(problem.message)
                continue
            for device in spec.devices:
                here.setdefault(Name(spec.kind, device.name), []).append(Found(spec=spec, device=device, path=path))
        for name, found in here.items():
            conflicts.pop(name, None)
            devices.pop(name, None)
            if len(found) == 1:
                devices[name] = found[0]
            else:
                conflicts[name] = tuple(one.path for one in found)
    return Devices(devices=devices, conflicts=conflicts, problems=tuple(problems))


def _look_up(devices: Devices, name: Name) -> Found:
    if found := devices.devices.get(name):
        return found
    if files := devices.conflicts.get(name):
        raise ContainerError(
            f"device {name} is defined by {' and by '.join(map(str, files))}", hint="remove all but one of them"
        )
    known = ", ".join(sorted(map(str, devices.devices))) or "none"
    problems = "".join(f"\n  {problem}" for problem in devices.problems)
    raise ContainerError(f"no CDI device {name} (there are: {known}){problems}", hint="CDI files lie in " + _WHERE)


_WHERE = " and ".join(FOLDERS)


def _nodes(text: str) -> Iterable[DeviceNode]:
    host, target, access = _parts(text)
    try:
        is_node = node(host) is not None
        children = sorted(os.listdir(host)) if not is_node and Path(host).is_dir() else []  # noqa: PTH208 - names
        inside = [name for name in children if _is_node(f"{host}/{name}")]
    except OSError as problem:
        raise ContainerError(f"--device {text}: {problem.strerror}", hint="'ls -l /dev' shows what there is") from None
    if is_node:
        yield DeviceNode(path=target, host_path=host, permissions=access)
    elif not inside:
        raise ContainerError(f"--device {text}: {host} is no device, and no folder of devices")
    for name in inside:
        yield DeviceNode(path=f"{target}/{name}", host_path=f"{host}/{name}", permissions=access)


def _is_node(path: str) -> bool:
    try:
        return node(path) is not None
    except FileNotFoundError:
        return False  # a link to what was unplugged


def _parts(text: str) -> tuple[str, str, str]:
    host, *rest = text.split(":")
    access = rest.pop() if rest and rest[-1] and not set(rest[-1]) - set("rwm") else "rwm"
    target = (rest.pop() if rest else "") or host
    paths = (host, target)
    if rest or any(not path.startswith("/") or ".." in path.split("/") or path == "/" for path in paths):
        raise ContainerError(
            f"not a device: {text[:200]!r}", hint="--device /dev/fuse[:/dev/there][:rwm], or --device vendor.com/gpu=0"
        )
    return host.rstrip("/"), target.rstrip("/"), access


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in (".json", ".yaml") and path.is_file())


def _document(path: Path) -> object:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as problem:
        raise ContainerError(f"{path}: {problem.strerror}") from problem
    if len(data) > _LARGEST:
        raise ContainerError(f"{path}: more than {_LARGEST} bytes")
    if path.suffix == ".json":
        return decode_json(data, dict[str, Any], what=str(path), error=ContainerError)
    from ruamel.yaml import YAML  # 60 ms that a host without CDI files in YAML does not need
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(data)
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError) as problem:
        raise ContainerError(f"{path}: not YAML: {str(problem).splitlines()[0]}") from problem
