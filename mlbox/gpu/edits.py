"""What a container's spec needs for the GPUs it was given: CDI edits, made anew at every start."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

import msgspec

from mlbox.cdi import (
    VERSIONS,
    CdiHook,
    CdiMount,
    ContainerEdits,
    Device,
    DeviceNode,
    Spec,
    minimum_version,
)
from mlbox.gpu.choose import Unit, units
from mlbox.gpu.driver import DriverFiles, capability_table
from mlbox.gpu.inventory import nodes_of, render_nodes
from mlbox.gpu.model import DeviceNumber, Inventory, Roots
from mlbox.loader import Library

TARGET = "/usr/lib/mlbox/nvidia"
"""Where the driver's libraries lie in a container: a folder that no image has, found through the loader's cache."""
PARAMS = "proc/driver/nvidia/params"
_READ_ONLY = ("bind", "ro", "nosuid", "nodev")


def edits_of(
    chosen: Sequence[Unit],
    inventory: Inventory,
    capabilities: Iterable[str],
    files: DriverFiles | None,
    roots: Roots,
    *,
    params: str = "",
    target: str = TARGET,
) -> ContainerEdits:
    """Return the edits that give exactly the `chosen` GPUs, and NVIDIA's driver `files` when any is NVIDIA's.

    `params` is a file of the host that stands for /proc/driver/nvidia/params in the container: its libraries read
    there that they must make no device nodes. `target` is where the libraries lie.
    """
    rows = [capability_table()[name] for name in capabilities]
    nvidia = any(unit.gpu.vendor == "nvidia" for unit in chosen)
    nodes = [node for unit in chosen for node in unit.nodes]
    if nvidia:
        nodes += inventory.shared_nodes
        nodes += nodes_of(roots, "nvidia-modeset") if any(row.modeset for row in rows) else ()
    if any(row.direct_rendering for row in rows):
        nodes += [node for unit in chosen for node in render_nodes(roots, unit.gpu)]
    return ContainerEdits(
        # NVIDIA's own hook, where a host has it, must not add to this.
        env=("NVIDIA_VISIBLE_DEVICES=void",) if nvidia else (),
        device_nodes=tuple(_node(node, roots) for node in dict.fromkeys(nodes)),
        mounts=tuple(_mounts(files, target)) if files else (),
        hooks=(_masked(params),) if params else (),
    )


def cdi_spec(inventory: Inventory, capabilities: Sequence[str], files: DriverFiles | None, roots: Roots) -> Spec:
    """Return the CDI spec of all GPUs, for other tools: 'mlbox.dev/gpu=0', '=0:1' for a MIG instance, '=all'.

    Other tools do not add to a container's loader cache, so the libraries are named in LD_LIBRARY_PATH. The file is
    true as long as the driver and the MIG instances stay what they are now.
    """
    every = units(inventory)
    common = edits_of((), inventory, capabilities, files, roots)
    if files and files.libraries:
        common += ContainerEdits(env=("NVIDIA_VISIBLE_DEVICES=void", f"LD_LIBRARY_PATH={TARGET}"))
    devices = [
        Device(name=unit.label, container_edits=_alone((unit,), inventory, capabilities, roots)) for unit in every
    ]
    devices.append(Device(name="all", container_edits=_alone(every, inventory, capabilities, roots)))
    spec = Spec(cdi_version=VERSIONS[0], kind="mlbox.dev/gpu", devices=tuple(devices), container_edits=common)
    return msgspec.structs.replace(spec, cdi_version=minimum_version(spec))


def _alone(chosen: Sequence[Unit], inventory: Inventory, capabilities: Sequence[str], roots: Roots) -> ContainerEdits:
    nodes = edits_of(chosen, inventory, capabilities, None, roots).device_nodes
    # Numbers are left to whoever reads the file: they may be others after a restart.
    return ContainerEdits(
        device_nodes=tuple(DeviceNode(path=node.path, host_path=node.host_path, permissions="rw") for node in nodes)
    )


def libraries_of(files: DriverFiles, target: str = TARGET) -> tuple[Library, ...]:
    """Return what the loader's cache of a container must say."""
    return tuple(Library(name, f"{target}/{name}") for one in files.libraries for name in one.names)


def _node(node: DeviceNumber, roots: Roots) -> DeviceNode:
    inside = "/dev" + node.path.removeprefix(roots.dev)
    return DeviceNode(
        path=inside,
        host_path=node.path,
        type="c",
        major=node.major,
        minor=node.minor,
        file_mode=0o666,
        permissions="rw",
    )


def _mounts(files: DriverFiles, target: str) -> Iterator[CdiMount]:
    # A library is mounted once under each of its names: no link has to be made in the image, and all are one file.
    for one in files.libraries:
        for name in one.names:
            yield CdiMount(host_path=one.path, container_path=f"{target}/{name}", options=_READ_ONLY)
    for program in files.programs:
        yield CdiMount(host_path=program, container_path=f"/usr/bin/{PurePosixPath(program).name}", options=_READ_ONLY)
    for path, inside in files.files:
        yield CdiMount(host_path=path, container_path=inside, options=_READ_ONLY)
    for path in files.sockets:
        yield CdiMount(host_path=path, container_path=path, options=("bind", "nosuid", "nodev", "noexec"))


def _masked(params: str) -> CdiHook:
    # runc lets nothing be mounted in /proc but by a hook, which runs with the container's root as its folder.
    mount = ("mount", "-o", "bind,ro,nosuid,nodev", params, PARAMS)
    return CdiHook(hook_name="createContainer", path="/bin/mount", args=mount)
