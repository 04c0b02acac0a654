"""Device nodes that come to a running container and go again, until it stops: its spec, its rules, its /dev."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from mlbox.cdi import ContainerEdits, apply
from mlbox.errors import ContainerError
from mlbox.linux import cgroup, device, process
from mlbox.oci.runtime import Device, DeviceCgroupRule, Spec
from mlbox.runtime import access
from mlbox.runtime.guard import changing
from mlbox.runtime.record import Folder
from mlbox.runtime.spec import DEVICE_RULES


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process that has a device open."""

    pid: int
    name: str
    path: str
    """Of the device, as the process opened it."""


def attach(folder: Folder, pid: int, edits: ContainerEdits) -> tuple[str, ...]:
    """Give the device nodes of `edits` to the container whose first process is `pid`; return their paths.

    Variables, mounts and hooks cannot come to a program that runs: only nodes do. Raises ContainerError, and then
    nothing has changed.
    """
    with changing(folder):
        before = folder.load_spec()
        after = apply(ContainerEdits(device_nodes=edits.device_nodes), before, device.node)
        had = {node.path: node for node in _nodes(before)}
        new = [node for node in _nodes(after) if had.get(node.path) != node]
        _change(folder, before, after)
        try:
            process.in_root(pid, lambda: _make(new))
        except OSError as problem:
            _change(folder, after, before)
            raise ContainerError(f"the device node could not be made in the container: {problem.strerror}") from problem
    return tuple(node.path for node in new)


def detach(folder: Folder, pid: int, paths: Iterable[str], *, force: bool = False) -> tuple[str, ...]:
    """Take the device nodes at `paths` away again; return those that the container had.

    What is open stays open whatever the rules say: raises ContainerError naming who has it open, unless `force`.
    """
    with changing(folder):
        return _detach(folder, pid, set(paths), force=force)


def _detach(folder: Folder, pid: int, paths: Collection[str], *, force: bool) -> tuple[str, ...]:
    before = folder.load_spec()
    going = [node for node in _nodes(before) if node.path in paths]
    if not going:
        raise ContainerError("the container has no such device", hint="'mlbox gpu verify' lists its devices")
    held = holders(folder, going)
    if held and not force:
        who = ", ".join(f"{one.name} ({one.pid})" for one in held)
        raise ContainerError(
            f"{held[0].path} is open in {who}", hint="stop the program first; --force takes the node away all the same"
        )
    _change(folder, before, _without(before, going))
    process.in_root(pid, lambda: _remove(going))
    return tuple(node.path for node in going)


def holders(folder: Folder, nodes: Iterable[Device]) -> tuple[Holder, ...]:
    """Return the container's processes that have one of `nodes` open."""
    paths = {(node.type == "b", node.major, node.minor): node.path for node in nodes}
    found = []
    for pid in sorted(cgroup.processes(folder.cgroup, cgroup.hierarchies())):
        held = {paths[one] for one in process.open_devices(pid) if one in paths}
        found += [Holder(pid=pid, name=process.name_of(pid), path=path) for path in sorted(held)]
    return tuple(found)


def _change(folder: Folder, before: Spec, after: Spec) -> None:
    """Make `after` the spec and the kernel's rules; the guard of the container reads the spec, so it comes first."""
    folder.write("bundle/config.json", msgspec.json.encode(after))
    try:
        access.enforce(folder.cgroup, access.rules_of(after), cgroup.hierarchies())
    except OSError as problem:
        folder.write("bundle/config.json", msgspec.json.encode(before))
        raise ContainerError(f"the kernel refuses the device rules: {problem.strerror}") from problem


def _without(spec: Spec, going: Iterable[Device]) -> Spec:
    if spec.linux is None or spec.linux.resources is None:
        return spec
    paths = {node.path for node in going}
    kept = tuple(node for node in spec.linux.devices if node.path not in paths)
    gone = set(map(_number, spec.linux.devices)) - set(map(_number, kept))
    rules = tuple(rule for rule in spec.linux.resources.devices if rule in DEVICE_RULES or not _is_of(rule, gone))
    resources = msgspec.structs.replace(spec.linux.resources, devices=rules)
    return msgspec.structs.replace(spec, linux=msgspec.structs.replace(spec.linux, devices=kept, resources=resources))


def _number(node: Device) -> tuple[str, int | None, int | None]:
    return "b" if node.type == "b" else "c", node.major, node.minor  # to the kernel, 'u' is 'c'


def _is_of(rule: DeviceCgroupRule, gone: set[tuple[str, int | None, int | None]]) -> bool:
    return rule.allow and (rule.type, rule.major, rule.minor) in gone


def _nodes(spec: Spec) -> tuple[Device, ...]:
    return spec.linux.devices if spec.linux else ()


def _make(nodes: Iterable[Device]) -> None:
    made: list[Device] = []
    try:
        for node in nodes:
            path = Path(node.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            device.make_node(node.path, node.type, node.major or 0, node.minor or 0, node.file_mode or 0o666)
            made.append(node)
            os.chown(path, node.uid or 0, node.gid or 0)
    except OSError:
        _remove(made)
        raise


def _remove(nodes: Iterable[Device]) -> None:
    for node in nodes:
        Path(node.path).unlink(missing_ok=True)
