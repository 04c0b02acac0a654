"""The GPUs of this host and who holds them: containers by what they were given, others by what they have open."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mlbox.cdi import Spec
from mlbox.engine.arch import host_arch
from mlbox.errors import ContainerError, MlboxError
from mlbox.gpu import nvml
from mlbox.gpu.choose import Unit, units
from mlbox.gpu.driver import driver_files, parse_capabilities
from mlbox.gpu.edits import cdi_spec
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.leases import FOLDER, Held, Leases
from mlbox.gpu.model import Gpu, Inventory, Roots
from mlbox.linux import process
from mlbox.runtime.containers import Containers

_SERVICES = frozenset(
    {"nvidia-persiste", "nvidia-powerd", "nv-fabricmanage", "nv-hostengine", "dcgm-exporter", "nvidia-smi", "Xorg"}
)
"""Programs that watch or set up GPUs without computing on them, by the 15 bytes of the name that the kernel keeps."""


class LeaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU that a container has leased."""

    gpu: str
    """As --gpus device= names it; its id when it is gone."""
    container: str
    name: str
    user: str
    since: float
    """Seconds since 1970."""
    until: float | None
    """When its time is over, None without an end."""
    shared: bool
    idle: bool
    """Whether nothing in the container has the GPU open."""
    busy: int | None
    """Percent of the time in which the GPU computed something; None when that is not known, as of MIG instances."""


class LeaseList(msgspec.Struct, frozen=True, kw_only=True):
    """All leases of this host, of containers in any store."""

    leases: tuple[LeaseRow, ...]
    waiting: int
    """How many containers wait for GPUs."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a GPU: a process that has it open, or a container that was given it and does not use it now."""

    container: str = ""
    """The container's name; empty for a process outside of mlbox's containers."""
    pid: int = 0
    """0 for a container in which nothing has the GPU open."""
    name: str = ""
    """Of the process, as ps shows it."""
    user: str = ""
    memory: int = 0
    """Bytes of the GPU, 0 when unknown."""


class GpuState(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU now."""

    gpu: Gpu
    use: nvml.Use | None = None
    """None where no driver library tells."""
    holders: tuple[Holder, ...] = ()


class GpuHost(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    inventory: Inventory
    gpus: tuple[GpuState, ...]


def look(containers: Containers, roots: Roots | None = None) -> GpuHost:
    """Return the host's GPUs, how much they are used, and by whom."""
    answer = nvml.ask(read_inventory(roots))
    gpus = answer.inventory.gpus
    running = containers.list(all=False) if gpus else []
    names = {one.id: one.name for one in running}
    given = _given(containers, names)
    opened = _opened({number for gpu in gpus for number in _numbers(gpu)})
    states = []
    for gpu in gpus:
        use = answer.use.get(gpu.pci)
        held = {pid: 0 for pid, numbers in opened.items() if numbers & _numbers(gpu)} | dict(
            use.processes if use else ()
        )
        holders = [_holder(pid, memory, names) for pid, memory in sorted(held.items())]
        busy = {holder.container for holder in holders}
        idle = [name for name, numbers in given.items() if numbers & _numbers(gpu) and name not in busy]
        states.append(GpuState(gpu=gpu, use=use, holders=(*(Holder(container=name) for name in idle), *holders)))
    return GpuHost(inventory=answer.inventory, gpus=tuple(states))


def leases(roots: Roots | None = None, folder: Path = FOLDER) -> LeaseList:
    """Return who has leased which GPU, and how many wait; raises ContainerError for whom the leases are closed."""
    found = Leases(folder)
    try:
        held, waiting = found.held(), found.waiting()
    except PermissionError as problem:
        raise ContainerError("only root sees the leases of GPUs", hint="run the same command with sudo") from problem
    answer = nvml.ask(read_inventory(roots)) if held else nvml.Answer(inventory=Inventory())
    known = {unit.id: unit for unit in units(answer.inventory)}
    opened = _opened({number for unit in known.values() for number in _unit_numbers(unit)})
    users = {pid: (numbers, process.groups_of(pid)) for pid, numbers in opened.items()}
    return LeaseList(
        leases=tuple(_row(one, known.get(one.id), users, answer.use) for one in held),
        waiting=waiting,
    )


_Users = Mapping[int, tuple[set[tuple[int, int]], tuple[str, ...]]]
"""By process: the devices it has open, and the control groups it is in."""


def _row(one: Held, unit: Unit | None, users: _Users, use: Mapping[str, nvml.Use]) -> LeaseRow:
    tenant = one.tenant
    group = f"/mlbox/{tenant.container}"
    numbers = _unit_numbers(unit) if unit else set()
    told = use.get(unit.gpu.pci) if unit and not unit.mig else None
    return LeaseRow(
        gpu=unit.label if unit else one.id,
        container=tenant.container,
        name=tenant.name,
        user=tenant.user,
        since=tenant.since,
        until=None if tenant.seconds is None else tenant.since + tenant.seconds,
        shared=tenant.shared,
        idle=not any(held & numbers and any(group in name for name in groups) for held, groups in users.values()),
        busy=told.busy if told else None,
    )


def cdi(capabilities: str = "", roots: Roots | None = None) -> Spec:
    """Return the CDI spec of this host's GPUs as they are now; raises ContainerError when there are none."""
    where = roots or Roots()
    inventory = read_inventory(where)
    if not inventory.gpus:
        raise ContainerError("this host has no GPU", hint="'mlbox doctor' says more")
    names = parse_capabilities(capabilities)
    version = inventory.driver.library_version if inventory.driver else None
    files = driver_files(version, names, host_arch(), where) if version else None
    return cdi_spec(inventory, names, files, where)


def in_use(found: Sequence[Unit]) -> set[str]:
    """Return the ids of those units that a program has open, services aside.

    Those in containers of ours too: it asks about units that nobody has leased, and --device gives nodes without that.
    """
    wanted = {unit.id: _unit_numbers(unit) for unit in found}
    busy: set[str] = set()
    for pid, numbers in _opened({number for one in wanted.values() for number in one}).items():
        if process.name_of(pid) not in _SERVICES:
            busy |= {id for id, own in wanted.items() if own & numbers}
    return busy


def _unit_numbers(unit: Unit) -> set[tuple[int, int]]:
    """Return the numbers that mean this unit alone: the instances of one GPU share its node."""
    return {(node.major, node.minor) for node in unit.mig.nodes} if unit.mig else _numbers(unit.gpu)


def _numbers(gpu: Gpu) -> set[tuple[int, int]]:
    """Return the numbers of the nodes that mean this GPU and no other: /dev/kfd is that of all of AMD's."""
    nodes = (*gpu.nodes, *(node for one in gpu.mig for node in one.nodes))
    return {(node.major, node.minor) for node in nodes if not node.path.endswith("/kfd")}


def _given(containers: Containers, names: Mapping[str, str]) -> dict[str, set[tuple[int, int]]]:
    """Return the device numbers that each running container was given, by its name."""
    given = {}
    for id, name in names.items():
        try:
            linux = containers.running(id)[1].load_spec().linux
        except MlboxError:
            continue  # it ended meanwhile
        given[name] = {(node.major or 0, node.minor or 0) for node in (linux.devices if linux else ())}
    return given


def _opened(wanted: set[tuple[int, int]]) -> dict[int, set[tuple[int, int]]]:
    """Return the processes that have any of these devices open; those of other users only root sees."""
    found: dict[int, set[tuple[int, int]]] = {}
    for pid in process.pids() if wanted else ():
        numbers = {(one.major, one.minor) for one in process.open_devices(pid) if not one.is_block}
        if held := numbers & wanted:
            found[pid] = held
    return found


def _holder(pid: int, memory: int, names: Mapping[str, str]) -> Holder:
    ids = (group.rpartition("/mlbox/")[2].partition("/")[0] for group in process.groups_of(pid) if "/mlbox/" in group)
    container = next((names[id] for id in ids if id in names), "")
    return Holder(container=container, pid=pid, name=process.name_of(pid), user=process.user_of(pid), memory=memory)
