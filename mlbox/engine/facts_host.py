"""What explanations of failures need to know of this host. A fact that is not known is ''."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.model import Inventory, Roots
from mlbox.gpu.tables import capability_of_name
from mlbox.linux import process
from mlbox.units import mega

_TORCH_BUILDS = ("cu118", "cu121", "cu124", "cu126", "cu128", "cu129", "cu130", "cu132")
"""The accelerators that torch is built for, oldest first."""
_INSTRUCTIONS = {"avx": "AVX", "avx2": "AVX2"}
"""What wheels for x86-64 are built with; what is newer they look for before they use it."""
_DESKS = re.compile(r"\b(?:GeForce|GTX|RTX|TITAN|Quadro)\b")
_LISTENING = "0A"


class HostFacts:
    """This host; `folder` is where its containers lie."""

    def __init__(self, roots: Roots, folder: Path) -> None:
        self._roots = roots
        self._folder = folder

    @cached_property
    def inventory(self) -> Inventory:
        """The host's GPUs."""
        return read_inventory(self._roots)

    def mismatch(self) -> str:
        """Whether the driver's libraries are of another version than its module."""
        driver = self.inventory.driver
        if driver is None or driver.library_version is None:
            return ""
        return yes(driver.version != driver.library_version)

    def driver(self) -> str:
        """The version of the module that is loaded."""
        return str(self.inventory.driver.version) if self.inventory.driver else ""

    def libraries(self) -> str:
        """The version of the libraries on the disk."""
        driver = self.inventory.driver
        return str(driver.library_version or "") if driver else ""

    def cuda(self) -> str:
        """The newest CUDA that the driver runs in full."""
        driver = self.inventory.driver
        return str(driver.cuda.minor) if driver and driver.cuda else ""

    def accelerator(self) -> str:
        """The newest build of torch that the driver runs in full, as [tool.mlbox] names it."""
        driver = self.inventory.driver
        most = driver.cuda.parts[:2] if driver and driver.cuda else (0, 0)
        fitting = [name for name in _TORCH_BUILDS if (int(name[2:4]), int(name[4:])) <= most]
        return fitting[-1] if fitting else ""

    def names(self) -> str:
        """What the GPUs are called."""
        return ", ".join(dict.fromkeys(gpu.name for gpu in self.inventory.gpus if gpu.name))

    def for_desks(self) -> str:
        """Whether all GPUs are of the lines that NVIDIA sells for desktops, which run no other driver's libcuda."""
        return yes(all(_DESKS.search(gpu.name) for gpu in self.inventory.gpus)) if self.inventory.gpus else ""

    def architectures(self) -> str:
        """What NVIDIA's GPUs are for compilers: 'sm_90'."""
        found = [capability_of_name(gpu.name) for gpu in self.inventory.gpus if gpu.vendor == "nvidia"]
        return ", ".join(dict.fromkeys(str(one) for one in found if one))

    def missing_instructions(self) -> str:
        """What common wheels use and this processor lacks."""
        text = Path(self._roots.proc, "cpuinfo").read_text("utf-8", "replace")
        flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
        return " and ".join(name for flag, name in _INSTRUCTIONS.items() if flag not in flags) if flags else ""

    def disk_free(self) -> str:
        """What is left of the disk, for people."""
        return mega(self._disk()[0])

    def disk_full(self) -> str:
        """Whether less than one part in a hundred is left."""
        free, size = self._disk()
        return yes(free * 100 < size)

    def _disk(self) -> tuple[int, int]:
        status = os.statvfs(self._folder)
        return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize

    def port_holder(self, port: int) -> str:
        """Return the program that listens at a port, as 'name (pid)'."""
        inodes = set(_listening(port, self._roots))
        for pid in process.pids() if inodes else ():
            if inodes & _sockets(pid):
                return f"{process.name_of(pid)} ({pid})"
        return ""


def yes(answer: bool) -> str:
    """Return the answer as tables have it."""
    return "yes" if answer else "no"


def _listening(port: int, roots: Roots) -> list[str]:
    """Return the inodes of the sockets that listen at `port`."""
    found = []
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(roots.proc, "net", name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.append(fields[9])
    return found


def _sockets(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{name}").removeprefix("socket:[").removesuffix("]"))  # noqa: PTH115
    return found


OF_HOST: dict[str, Callable[[HostFacts], str]] = {
    "driver": HostFacts.driver,
    "driver_libraries": HostFacts.libraries,
    "driver_cuda": HostFacts.cuda,
    "mismatch": HostFacts.mismatch,
    "accelerator": HostFacts.accelerator,
    "gpu_names": HostFacts.names,
    "gpus_are_for_desks": HostFacts.for_desks,
    "architectures": HostFacts.architectures,
    "host_problems": lambda host: "; ".join(host.inventory.problems),
    "missing_instructions": HostFacts.missing_instructions,
    "machine": lambda _: os.uname().machine,
    "disk": lambda host: str(host._folder),
    "disk_free": HostFacts.disk_free,
    "disk_full": HostFacts.disk_full,
}
