"""How much the GPUs do right now, and for whom: what `mlbox gpu top` shows."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from mlbox.engine.gpus import GpuState, look
from mlbox.errors import ContainerError, MlboxError
from mlbox.gpu import nvml
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.leases import FOLDER, Leases
from mlbox.gpu.model import Driver, Roots
from mlbox.runtime.containers import Containers
from mlbox.runtime.record import Folder

_ENERGY = "energy.json"


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A container with GPUs, or a user's programs outside of containers."""

    container: str
    """Its name, '' for programs outside."""
    user: str
    gpus: tuple[int, ...]
    """Places in the list of GPUs."""
    memory: int
    """Bytes of the GPUs' memory, as far as the driver tells."""
    processes: tuple[str, ...]
    """'python (4711)'."""
    energy: float | None = None
    """Joules that the container's GPUs took since it started; None where others have them too, or nobody counted."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look."""

    driver: Driver | None
    gpus: tuple[GpuState, ...]
    tenants: tuple[Tenant, ...]
    problems: tuple[str, ...] = ()


def sample(containers: Containers, roots: Roots | None = None, folder: Path = FOLDER) -> Sample:
    """Look at the GPUs; raises ContainerError when there are none."""
    host = look(containers, roots)
    if not host.gpus:
        driver = "its driver is loaded" if host.inventory.driver else "no NVIDIA driver is loaded"
        raise ContainerError(
            f"this host has no GPU that could be watched: {'; '.join(host.inventory.problems) or driver}",
            hint="'mlbox doctor' says more",
        )
    return Sample(
        driver=host.inventory.driver,
        gpus=host.gpus,
        tenants=tuple(_tenants(containers, host.gpus, _users(folder))),
        problems=host.inventory.problems,
    )


def remember_energy(files: Folder, roots: Roots | None = None) -> None:
    """Write down how much energy each GPU had taken when a container started, where the driver tells."""
    counted = {pci: use.energy for pci, use in nvml.ask(read_inventory(roots)).use.items() if use.energy is not None}
    if counted:
        with suppress(OSError):  # it has ended, and was made with --rm
            files.write(_ENERGY, msgspec.json.encode(counted))


def _users(folder: Path) -> dict[str, str]:
    """Return for whom each container runs, as the leases say: its processes may all be root's."""
    with suppress(PermissionError):
        return {one.tenant.name: one.tenant.user for one in Leases(folder).held()}
    return {}


def _tenants(containers: Containers, states: tuple[GpuState, ...], users: Mapping[str, str]) -> Iterable[Tenant]:
    found: dict[tuple[str, str], list[tuple[int, int, str]]] = {}
    for place, state in enumerate(states):
        for one in state.holders:
            user = users.get(one.container, "" if one.container else one.user)
            process = f"{one.name} ({one.pid})" if one.pid else ""
            found.setdefault((one.container, user), []).append((place, one.memory, process))
    for (container, user), held in sorted(found.items()):
        places = tuple(dict.fromkeys(place for place, _, _ in held))
        yield Tenant(
            container=container,
            user=user,
            gpus=places,
            memory=sum(memory for _, memory, _ in held),
            processes=tuple(dict.fromkeys(process for _, _, process in held if process)),
            energy=_energy(containers, container, [states[place] for place in places]) if container else None,
        )


def _energy(containers: Containers, name: str, states: list[GpuState]) -> float | None:
    """Return the energy of GPUs since a container started that has them alone."""
    if any(holder.container != name for state in states for holder in state.holders):
        return None
    try:
        data = containers.files(containers.get(name)).read(_ENERGY)
        before = msgspec.json.decode(data, type=dict[str, float])
    except (MlboxError, msgspec.DecodeError):  # it has gone meanwhile, or was not started by run
        return None
    total = 0.0
    for state in states:
        now, then = state.use.energy if state.use else None, before.get(state.gpu.pci)
        if now is None or then is None or now < then:  # the driver was loaded anew
            return None
        total += now - then
    return total
