"""GPUs that a running container gives back: their nodes are taken away, and then the lease is let go of."""

from collections.abc import Sequence
from pathlib import Path

from mlbox.errors import ContainerError
from mlbox.gpu.choose import Request, Unit, candidates, units
from mlbox.gpu.inventory import read_inventory, render_nodes
from mlbox.gpu.leases import FOLDER, Leases, lease_file
from mlbox.gpu.model import Roots
from mlbox.gpu.nvml import ask
from mlbox.runtime import hotplug
from mlbox.runtime.containers import Containers

_Number = tuple[int | None, int | None]


def release(
    containers: Containers,
    reference: str,
    asked: Sequence[str] = (),
    *,
    force: bool = False,
    roots: Roots | None = None,
    folder: Path = FOLDER,
) -> tuple[str, ...]:
    """Take the GPUs `asked` for (as --gpus device= names them; default: all) from a running container; return them.

    They are free for others then. Raises ContainerError naming the programs that have one open, unless `force`.
    """
    container, files = containers.running(reference)
    where = roots or Roots()
    linux = files.load_spec().linux
    nodes = {(node.major, node.minor): node.path for node in (linux.devices if linux else ())}
    inventory = read_inventory(where)
    given = [unit for unit in units(inventory) if unit.nodes and set(_numbers(unit)) <= set(nodes)]
    if any(name.startswith("MIG-") for name in asked):
        inventory = ask(inventory).inventory
    wanted = {one.id for one in candidates(inventory, Request(devices=tuple(asked)))} if asked else None
    going = [unit for unit in given if wanted is None or unit.id in wanted]
    missing = (wanted or set()) - {unit.id for unit in going}
    if missing or not going:
        labels = ", ".join(unit.label for unit in given) or "none"
        raise ContainerError(f"{container.name} does not have these GPUs, it has {labels}", hint="'mlbox gpu ls'")
    kept = {number for unit in given if unit not in going for number in _all_numbers(unit, where)}
    paths = [nodes[number] for unit in going for number in _all_numbers(unit, where) if number in nodes.keys() - kept]
    hotplug.detach(files, container.state.pid, paths, force=force)
    return tuple(_let_go(containers, container.id, unit, Leases(folder)) for unit in going)


def _let_go(containers: Containers, id: str, unit: Unit, leases: Leases) -> str:
    leases.vacate(unit.id, id)
    if not containers.release(id, lease_file(unit.id)):
        raise ContainerError(
            f"GPU {unit.label} was taken away, but the container holds no lease of it",
            hint="it was given with --device or 'mlbox gpu attach'",
        )
    return unit.label


def _numbers(unit: Unit) -> list[_Number]:
    """Return the numbers that mean this unit: /dev/kfd is that of all of AMD's."""
    return [(node.major, node.minor) for node in unit.nodes if not node.path.endswith("/kfd")]


def _all_numbers(unit: Unit, roots: Roots) -> list[_Number]:
    return [*_numbers(unit), *((node.major, node.minor) for node in render_nodes(roots, unit.gpu))]
