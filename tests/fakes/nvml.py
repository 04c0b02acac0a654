"""NVIDIA's library as its Python binding shows it, for the GPUs of a fake host."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fakes.gpu import FakeHost, uuid

MEMORY = 150_095_265_792


class NVMLError(Exception):
    """As pynvml's."""


class FakeNvml:
    """A module with the functions that mlbox calls; `broken` names one that fails, whatever it is asked."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, host: FakeHost, *, broken: str = "", processes: dict[int, dict[int, int]] | None = None) -> None:
        folder = Path(host.roots.proc, "driver/nvidia/gpus")
        self._pci = sorted(path.name for path in folder.iterdir())
        self._broken = broken
        self._processes = processes or {}
        self.running = False

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name == object.__getattribute__(self, "_broken"):
            return self._fail
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvml"):
            return self._fail  # this GPU does not tell
        raise AttributeError(name)

    def _fail(self, *_: object) -> Any:
        raise NVMLError("Not Supported")

    def nvmlInit(self) -> None:
        self.running = True

    def nvmlShutdown(self) -> None:
        self.running = False

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12040

    def nvmlDeviceGetCount(self) -> int:
        assert self.running
        return len(self._pci)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetPciInfo(self, handle: int) -> Any:
        domain, bus, rest = self._pci[handle].split(":")
        return SimpleNamespace(domain=int(domain, 16), bus=int(bus, 16), device=int(rest.partition(".")[0], 16))

    def nvmlDeviceGetName(self, handle: Any) -> str:
        return "NVIDIA H200" if isinstance(handle, int) else "NVIDIA H200 MIG 1g.18gb"

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        total = MEMORY if isinstance(handle, int) else MEMORY // 8
        return SimpleNamespace(total=total, used=total // 4)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return 9, 0

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        return [1, 1] if handle == 1 else [0, 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, index: int) -> Any:
        if index > 1:
            self._fail()
        return (handle, index)

    def nvmlDeviceGetGpuInstanceId(self, part: tuple[int, int]) -> int:
        return (1, 5)[part[1]]

    def nvmlDeviceGetComputeInstanceId(self, part: tuple[int, int]) -> int:
        return 0

    def nvmlDeviceGetUUID(self, part: tuple[int, int]) -> str:
        return "MIG-" + uuid(part[1])

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=37, memory=5)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 412_500

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self._processes.get(handle, {}).items()]
