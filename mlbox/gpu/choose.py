"""Which GPUs `--gpus` means. Pure."""

from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from mlbox.errors import ContainerError, UsageError
from mlbox.gpu.model import DeviceNumber, Gpu, Inventory, MigInstance

_HINT = (
    "--gpus all, --gpus 2, --gpus device=0,1, --gpus device=GPU-…, --gpus device=0:1 for a MIG instance, --gpus none"
)

_NODES_OF_INSTANCE = 2


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for: all of them, so many, or these."""

    all: bool = False
    count: int = 0
    devices: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is wanted."""
        return bool(self.all or self.count or self.devices)


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """What is given as a whole: a GPU, or one of its MIG instances."""

    gpu: Gpu
    mig: MigInstance | None = None

    @property
    def id(self) -> str:
        """A name that is the same for every mlbox on this host, however it counts: 'nvidia-3', 'nvidia-3-gi1-ci0'."""
        part = f"-gi{self.mig.gpu_instance}-ci{self.mig.compute_instance}" if self.mig else ""
        return f"{self.gpu.vendor}-{self.gpu.minor}{part}"

    @property
    def label(self) -> str:
        """What it is called in messages: '0', 'amd:1', '0:2'."""
        vendor = "" if self.gpu.vendor == "nvidia" else f"{self.gpu.vendor}:"
        return f"{vendor}{self.gpu.index}" + (f":{self.mig.index}" if self.mig else "")

    @property
    def nodes(self) -> tuple[DeviceNumber, ...]:
        """What a container needs to use it: an instance also needs its GPU's node."""
        return (*self.gpu.nodes, *(self.mig.nodes if self.mig else ()))

    @property
    def is_usable(self) -> bool:
        """Whether its device nodes are there; of an instance, its own and that of its place."""
        return bool(self.gpu.nodes) and (self.mig is None or len(self.mig.nodes) == _NODES_OF_INSTANCE)

    @property
    def uuid(self) -> str:
        """Its UUID, '' when the host does not tell."""
        return self.mig.uuid if self.mig else self.gpu.uuid


def parse_request(text: str) -> Request:
    """Return what `--gpus TEXT` asks for; raises UsageError."""
    text = text.strip().strip('"').strip("'")
    if text in ("", "none", "void"):
        return Request()
    if text == "all":
        return Request(all=True)
    if text.isascii() and text.isdigit() and len(text) < 5:
        return Request(count=int(text))
    key, equals, names = text.partition("=")
    devices = tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    if key not in ("device", "devices") or not equals or not all(devices):
        raise UsageError(f"--gpus {text[:100]!r}: not understood", hint=_HINT)
    return Request(devices=devices)


def units(inventory: Inventory) -> tuple[Unit, ...]:
    """Return all that can be given: whole GPUs, and the instances of those that are divided.

    Of a host with GPUs of several makers, NVIDIA's come first, then AMD's, then Intel's.
    """
    return tuple(
        Unit(gpu=gpu, mig=part) for gpu in inventory.gpus for part in (gpu.mig if gpu.mig_enabled else (None,))
    )


def candidates(inventory: Inventory, request: Request) -> tuple[Unit, ...]:
    """Return what may serve the request: exactly these for names and 'all', for a count those of one vendor.

    Raises ContainerError naming what there is not.
    """
    every = units(inventory)
    if not every:
        if undivided := [gpu for gpu in inventory.gpus if gpu.mig_enabled]:
            raise _without_instances(undivided[0])
        problems = "".join(f"\n  {problem}" for problem in inventory.problems)
        raise ContainerError(f"this host has no GPU that could be given{problems}", hint="'mlbox doctor' says more")
    if request.devices:
        named = [_named(inventory, every, name) for name in request.devices]
        return _usable({unit.id: unit for unit in named}.values())
    same = tuple(unit for unit in every if unit.gpu.vendor == every[0].gpu.vendor)
    if request.all:
        return _usable(same)
    same = tuple(unit for unit in same if unit.is_usable)
    if request.count > len(same):
        empty = [str(gpu.index) for gpu in inventory.gpus if gpu.mig_enabled and not gpu.mig]
        besides = f", besides {', '.join(empty)} in MIG mode without instances" if empty else ""
        raise ContainerError(
            f"--gpus {request.count}: this host has {len(same)} ({', '.join(unit.label for unit in same)}){besides}",
            hint="'mlbox gpu ls' lists them",
        )
    return same


def _usable(found: Iterable[Unit]) -> tuple[Unit, ...]:
    wanted = tuple(found)
    for unit in wanted:
        if not unit.is_usable:
            raise ContainerError(
                f"GPU {unit.label} has no device nodes on this host", hint="'mlbox gpu ls' says what makes them"
            )
    return wanted


def pick(found: Sequence[Unit], request: Request, taken: Collection[str]) -> tuple[Unit, ...] | None:
    """Return what is given when the units with ids in `taken` are held; None when too few are free now."""
    free = [unit for unit in found if unit.id not in taken]
    if request.count:
        return tuple(free[: request.count]) if len(free) >= request.count else None
    return tuple(found) if len(free) == len(found) else None


def _names(gpu: Gpu) -> tuple[str, ...]:
    return (str(gpu.index), f"{gpu.vendor}:{gpu.index}", gpu.uuid)


def _without_instances(gpu: Gpu) -> ContainerError:
    return ContainerError(
        f"GPU {gpu.index} is in MIG mode and has no instances, so nothing can be given of it",
        hint=f"'nvidia-smi mig -i {gpu.index} -cgi 0 -C' makes one, 'nvidia-smi -i {gpu.index} -mig 0' ends the mode",
    )


def _named(inventory: Inventory, every: Sequence[Unit], name: str) -> Unit:
    matches = list(_matching(every, name))
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ContainerError(f"--gpus device={name}: several GPUs begin with that", hint="give more of the UUID")
    if undivided := [gpu for gpu in inventory.gpus if gpu.mig_enabled and not gpu.mig and name in _names(gpu)]:
        raise _without_instances(undivided[0])
    divided = [unit for unit in every if unit.mig and name in (str(unit.gpu.index), unit.gpu.uuid)]
    if divided:
        parts = ", ".join(unit.label for unit in divided)
        raise ContainerError(f"GPU {name} is divided by MIG and cannot be given as a whole", hint=f"it has {parts}")
    known = ", ".join(unit.label for unit in every)
    raise ContainerError(f"--gpus device={name}: no such GPU (there are {known})", hint="'mlbox gpu ls' lists them")


def _matching(every: Sequence[Unit], name: str) -> Iterator[Unit]:
    exact = [unit for unit in every if name in (unit.label, unit.uuid) or name == f"{unit.gpu.vendor}:{unit.label}"]
    if exact:
        yield from exact
    elif len(name) >= 6 and name.startswith(("GPU-", "MIG-")):
        yield from (unit for unit in every if unit.uuid.startswith(name))
