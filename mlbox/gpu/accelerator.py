"""Which build of an environment suits a host: the newest CUDA that its driver runs, ROCm, Intel's, or none."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from mlbox.errors import UsageError
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.model import Inventory, Roots, Version, parse_version
from mlbox.gpu.tables import CudaTable, cuda_table

_CUDA = re.compile(r"cu(\d{2})(\d)")
_PLAIN = ("cpu", "default")
"""What needs no GPU, the preferred first."""


class Choice(NamedTuple):
    """An accelerator, and why it is the one."""

    name: str
    reason: str


def choose(names: Sequence[str], *, driver: Version | None = None, roots: Roots | None = None) -> Choice:
    """Return the one of the accelerators `names` that suits this host, or a host with that NVIDIA `driver`.

    Nothing but files of the kernel is read. Raises UsageError when none does.
    """
    inventory = Inventory() if driver else read_inventory(roots)
    if driver is None and inventory.driver:
        driver = inventory.driver.version
    return choose_for(names, driver, {gpu.vendor for gpu in inventory.gpus}, cuda_table())


def choose_for(names: Sequence[str], driver: Version | None, vendors: set[str], table: CudaTable) -> Choice:
    """Decide for a host with that NVIDIA driver (None: none) and GPUs of these vendors. Pure."""
    reasons: list[str] = []
    cuda = {version: name for name in names if (version := cuda_of(name))}
    if driver and cuda:
        found, why = _by_driver(cuda, driver, table)
        if found:
            return Choice(found, why)
        reasons.append(why)
    rocm = sorted((_numbers(name), name) for name in names if name.startswith("rocm"))
    if rocm and "amd" in vendors:
        return Choice(rocm[-1][1], "this host has GPUs of AMD")
    if "xpu" in names and "intel" in vendors:
        return Choice("xpu", "this host has GPUs of Intel")
    why = reasons[0] if reasons else f"this host has no {_gpus_for(names)}"
    for name in _PLAIN:
        if name in names:
            return Choice(name, why)
    raise UsageError(
        f"{why}, and what there is, is for {', '.join(names)}",
        hint=f"--accelerator {names[0]} takes it all the same; 'cpu' among the accelerators runs everywhere",
    )


def cuda_of(name: str) -> Version | None:
    """Return the CUDA that an accelerator is built for: 12.6 of cu126; None when it is none of NVIDIA's."""
    found = _CUDA.fullmatch(name)
    return parse_version(f"{found[1]}.{found[2]}") if found else None


def _by_driver(cuda: dict[Version, str], driver: Version, table: CudaTable) -> tuple[str, str]:
    """Return the newest that the driver runs in full, else the oldest that it runs at all."""
    newest = table.cuda_of(driver)
    full = [version for version in cuda if newest and version <= newest]
    if full:
        return cuda[max(full)], f"driver {driver} runs CUDA {newest}"
    limited = [version for version in cuda if (floor := table.floor_for(version)) and floor <= driver]
    runs = f"driver {driver} runs CUDA {newest}" if newest else f"driver {driver} is older than every CUDA known"
    if limited:
        best = min(limited)
        return cuda[best], f"{runs}, and {best} with the limits of minor-version compatibility"
    return "", runs if newest is None else f"{runs} and nothing newer"


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.removeprefix("rocm").split(".")))


def _gpus_for(names: Sequence[str]) -> str:
    """Return what would be needed: 'NVIDIA driver', 'GPU of AMD'."""
    needed = ["NVIDIA driver"] if any(map(cuda_of, names)) else []
    needed += ["GPU of AMD"] if any(name.startswith("rocm") for name in names) else []
    needed += ["GPU of Intel"] if "xpu" in names else []
    return " and no ".join(needed) or "GPU"
