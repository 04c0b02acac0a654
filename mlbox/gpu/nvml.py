"""What only NVIDIA's own library tells: memory, utilisation, MIG's UUIDs. Asked for only when the driver is loaded."""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from mlbox.gpu.model import ComputeCapability, Driver, Gpu, Inventory, MigInstance, parse_version


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a GPU is in use; None is what this GPU or driver does not tell."""

    memory_used: int | None = None
    """Bytes."""
    busy: int | None = None
    """Percent of the time in which something was computed."""
    power: float | None = None
    """Watts."""
    energy: float | None = None
    """Joules since the driver was loaded."""
    temperature: int | None = None
    """Degrees Celsius."""
    persistent: bool = True
    """Whether the driver keeps it ready when no program uses it; also where it does not tell."""
    processes: tuple[tuple[int, int], ...] = ()
    """Process ids on the host, with the bytes each holds (0 when unknown)."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An inventory with what the library knows, and the use of each NVIDIA GPU by PCI address."""

    inventory: Inventory
    use: dict[str, Use] = {}


def ask(inventory: Inventory) -> Answer:
    """Return `inventory` with what NVML knows of its NVIDIA GPUs; what it cannot say is a problem of the inventory."""
    if inventory.driver is None:
        # Initialising NVML without a driver would, as root, make device nodes.
        return Answer(inventory=inventory)
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as problem:
        note = f"the driver's library does not answer ({problem}): restart after a driver update, 'mlbox doctor'"
        return Answer(inventory=msgspec.structs.replace(inventory, problems=(*inventory.problems, note)))
    try:
        return _answer(inventory, pynvml)
    finally:
        pynvml.nvmlShutdown()


def with_mig_modes(inventory: Inventory, enabled: Collection[str]) -> Inventory:
    """Return `inventory` with the GPUs at these PCI addresses in MIG mode, and what is wrong where none is divided."""
    empty = [gpu for gpu in inventory.gpus if gpu.pci in enabled and not gpu.mig]
    problems = [
        f"GPU {gpu.index} is in MIG mode and has no instances, so nothing can be given of it: "
        f"'nvidia-smi mig -i {gpu.index} -cgi 0 -C' makes one, 'nvidia-smi -i {gpu.index} -mig 0' ends the mode"
        for gpu in empty
    ]
    gpus = tuple(
        msgspec.structs.replace(gpu, mig_enabled=True) if gpu.pci in enabled else gpu for gpu in inventory.gpus
    )
    return msgspec.structs.replace(inventory, gpus=gpus, problems=(*inventory.problems, *problems))


def _answer(inventory: Inventory, nvml: Any) -> Answer:  # noqa: ANN401 - a module without types
    handles = dict(_handles(nvml))
    gpus, use = [], {}
    for gpu in inventory.gpus:
        handle = handles.get(gpu.pci) if gpu.vendor == "nvidia" else None
        if handle is not None:
            gpus.append(_told(gpu, handle, nvml))
            use[gpu.pci] = _use(handle, nvml)
        else:
            gpus.append(gpu)
    told = msgspec.structs.replace(inventory, gpus=tuple(gpus), driver=_driver(inventory.driver, nvml))
    return Answer(inventory=with_mig_modes(told, {gpu.pci for gpu in gpus if gpu.mig_enabled}), use=use)


def _driver(driver: Driver | None, nvml: Any) -> Driver | None:  # noqa: ANN401
    number = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
    if driver is None or not number:
        return driver
    return msgspec.structs.replace(driver, cuda=parse_version(f"{number // 1000}.{number % 1000 // 10}"))


def _handles(nvml: Any) -> Iterator[tuple[str, object]]:  # noqa: ANN401
    for index in range(_ask(nvml, nvml.nvmlDeviceGetCount) or 0):
        handle = _ask(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
        pci = _ask(nvml, nvml.nvmlDeviceGetPciInfo, handle) if handle is not None else None
        if pci is not None:
            yield f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0", handle


def _told(gpu: Gpu, handle: object, nvml: Any) -> Gpu:  # noqa: ANN401
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    mode = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
    enabled = bool(mode and mode[0])
    return msgspec.structs.replace(
        gpu,
        name=_ask(nvml, nvml.nvmlDeviceGetName, handle) or gpu.name,
        memory=memory.total if memory else gpu.memory,
        capability=ComputeCapability(*capability) if capability else gpu.capability,
        mig_enabled=enabled,
        mig=_mig(gpu, handle, nvml) if enabled else gpu.mig,
    )


def _mig(gpu: Gpu, handle: object, nvml: Any) -> tuple[MigInstance, ...]:  # noqa: ANN401
    """Return the instances with the UUIDs, profiles and sizes of those that NVML lists."""
    known = {(one.gpu_instance, one.compute_instance): one for one in gpu.mig}
    for index in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        if part is None:
            continue
        place = (
            _ask(nvml, nvml.nvmlDeviceGetGpuInstanceId, part),
            _ask(nvml, nvml.nvmlDeviceGetComputeInstanceId, part),
        )
        if (one := known.get(place)) is not None:
            memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, part)
            known[place] = msgspec.structs.replace(
                one,
                uuid=_ask(nvml, nvml.nvmlDeviceGetUUID, part) or "",
                profile=(_ask(nvml, nvml.nvmlDeviceGetName, part) or "").rpartition(" MIG ")[2],
                memory=memory.total if memory else 0,
            )
    return tuple(sorted(known.values(), key=lambda one: one.index))


def _use(handle: object, nvml: Any) -> Use:  # noqa: ANN401
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _ask(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    power = _ask(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    energy = _ask(nvml, nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    running = _ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
    drawing = _ask(nvml, nvml.nvmlDeviceGetGraphicsRunningProcesses, handle) or ()
    return Use(
        memory_used=memory.used if memory else None,
        busy=rates.gpu if rates else None,
        power=None if power is None else power / 1000,
        energy=None if energy is None else energy / 1000,
        persistent=_ask(nvml, nvml.nvmlDeviceGetPersistenceMode, handle) != 0,
        temperature=_ask(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        processes=tuple(sorted({one.pid: one.usedGpuMemory or 0 for one in (*drawing, *running)}.items())),
    )


def _ask(nvml: Any, function: Any, *arguments: object) -> Any:  # noqa: ANN401
    """Return what `function` says, None when this GPU or this driver does not."""
    try:
        return function(*arguments)
    except nvml.NVMLError:
        return None
