"""Which GPUs a host has, read from /proc, /sys and /dev. No driver library is loaded and nothing is changed.

NVIDIA's libraries make device nodes when root loads them without a driver; these files tell the same without that.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mlbox.gpu.model import DeviceNumber, Driver, Gpu, Inventory, MigInstance, Roots, Version, parse_version
from mlbox.gpu.tables import cuda_table
from mlbox.linux.device import node

_VERSION = re.compile(r"\b(\d+\.\d+(?:\.\d+)?)\b")
_PCI = re.compile(r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-9a-fA-F]")
_DISPLAY = ("0x0300", "0x0302", "0x0380", "0x1200")
"""PCI classes of what computes or draws: VGA, 3D, other display, processing accelerator."""
_INTEL = "0x8086"
LIBRARY_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/nvidia/current",
    "usr/lib/aarch64-linux-gnu/nvidia/current",
    "usr/lib64",
    "usr/lib",
    "usr/local/nvidia/lib64",
    "usr/lib/wsl/lib",
)
"""Where distributions put the driver's libraries, below the driver's root."""


def read_inventory(roots: Roots | None = None) -> Inventory:
    """Return the GPUs of the host as they are now."""
    where = roots or Roots()
    driver = read_driver(where)
    nvidia = tuple(_nvidia_gpus(where)) if driver else ()
    shared = tuple(nodes_of(where, "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")) if driver else ()
    gpus = (*nvidia, *_amd_gpus(where), *_intel_gpus(where))
    return Inventory(
        driver=driver, gpus=gpus, shared_nodes=shared, problems=tuple(_problems(where, driver, nvidia, shared))
    )


def read_driver(roots: Roots) -> Driver | None:
    """Return the NVIDIA driver whose kernel module is loaded, None when none is."""
    text = _read(f"{roots.proc}/driver/nvidia/version")
    # 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat …', or '… Open Kernel Module for x86_64  570…'
    found = _VERSION.search(text.partition("Module")[2])
    version = parse_version(found[1]) if found else None
    if version is None:
        return None
    return Driver(version=version, cuda=cuda_table().cuda_of(version), library_version=library_version(roots, version))


def library_version(roots: Roots, wanted: Version) -> Version | None:
    """Return the version of the driver's libraries on the disk, `wanted` among several; None when there are none."""
    versions = [
        version
        for folder in LIBRARY_FOLDERS
        for path in Path(roots.driver, folder).glob("libcuda.so.*.*")
        if (version := parse_version(path.name.removeprefix("libcuda.so."))) is not None
    ]
    return wanted if wanted in versions else max(versions, default=None)  # an update may leave old ones behind


def _nvidia_gpus(roots: Roots) -> Iterator[Gpu]:
    folder = Path(roots.proc, "driver/nvidia/gpus")
    found = sorted((_pci(path.name), path) for path in folder.iterdir()) if folder.is_dir() else []
    for index, (pci, path) in enumerate(found):
        fields = dict(_fields(_read(f"{path}/information")))
        digits = fields.get("Device Minor", "")
        minor = int(digits) if digits.isdecimal() else -1
        yield Gpu(
            vendor="nvidia",
            index=index,
            uuid=fields.get("GPU UUID", ""),
            name=fields.get("Model", ""),
            pci=pci,
            minor=minor,
            nodes=tuple(nodes_of(roots, f"nvidia{minor}")),
            mig_enabled=bool(instances := tuple(_mig(roots, minor))),
            mig=instances,
        )


def _mig(roots: Roots, minor: int) -> Iterator[MigInstance]:
    """Yield the MIG instances of the GPU /dev/nvidia<minor>: capabilities/gpu0/mig/gi1/ci0/access and its like."""
    folder = Path(roots.proc, f"driver/nvidia/capabilities/gpu{minor}/mig")
    numbers = sorted((_number(ci.parent.name), _number(ci.name), ci) for ci in folder.glob("gi*/ci*"))
    for index, (gpu_instance, compute_instance, path) in enumerate(numbers):
        minors = (_capability_minor(path.parent / "access"), _capability_minor(path / "access"))
        names = tuple(f"nvidia-caps/nvidia-cap{number}" for number in minors if number >= 0)
        yield MigInstance(
            uuid="",
            gpu_instance=gpu_instance,
            compute_instance=compute_instance,
            index=index,
            nodes=tuple(nodes_of(roots, *names)),
        )


def _amd_gpus(roots: Roots) -> Iterator[Gpu]:
    """Yield what the amdkfd driver lists: nodes of its topology that have a render node (CPUs have none)."""
    topology = Path(roots.sys, "class/kfd/kfd/topology/nodes")
    index = 0
    for path in sorted(topology.glob("[0-9]*"), key=lambda path: int(path.name)):
        lines = (line.partition(" ") for line in _read(f"{path}/properties").splitlines())
        properties = {name: int(value) for name, _, value in lines if value.strip().isdecimal()}
        minor = properties.get("drm_render_minor", 0)
        if minor <= 0:
            continue
        target = properties.get("gfx_target_version", 0)
        yield Gpu(
            vendor="amd",
            index=index,
            uuid=f"GPU-{properties['unique_id']:016x}" if properties.get("unique_id") else "",
            name=_read(f"{path}/name").strip() or f"gfx{target // 10000}{target // 100 % 100:x}{target % 100:x}",
            minor=minor,
            nodes=tuple(nodes_of(roots, f"dri/renderD{minor}", "kfd")),
        )
        index += 1


def _intel_gpus(roots: Roots) -> Iterator[Gpu]:
    index = 0
    for path in sorted(Path(roots.sys, "bus/pci/devices").glob("*")):
        kind = _read(f"{path}/class").strip()
        if _read(f"{path}/vendor").strip() != _INTEL or not kind.startswith(_DISPLAY):
            continue
        names = sorted(one.name for one in path.glob("drm/*") if one.name.startswith(("card", "renderD")))
        renders = [_number(name) for name in names if name.startswith("renderD")]
        if renders:
            nodes = tuple(nodes_of(roots, *(f"dri/{name}" for name in names)))
            pci = _pci(path.name)
            yield Gpu(vendor="intel", index=index, name="Intel GPU", pci=pci, minor=renders[0], nodes=nodes)
            index += 1


def _problems(
    roots: Roots, driver: Driver | None, gpus: tuple[Gpu, ...], shared: tuple[DeviceNumber, ...]
) -> Iterator[str]:
    if driver is None:
        if any(_is_nvidia(path) for path in Path(roots.sys, "bus/pci/devices").glob("*")):
            yield "there is an NVIDIA GPU, but its driver is not loaded: 'modprobe nvidia', or install the driver"
        return
    if driver.library_version and driver.library_version != driver.version:
        yield (
            f"the driver's libraries are {driver.library_version}, its kernel module is {driver.version}: "
            "reboot, or stop what uses the GPUs and reload the module"
        )
    if driver.library_version is None:
        yield "the driver is loaded, but its libraries (libcuda.so) are not found: install them"
    have = {one.path for one in shared}
    if f"{roots.dev}/nvidiactl" not in have:
        yield "/dev/nvidiactl is missing: 'nvidia-modprobe'"
    if f"{roots.dev}/nvidia-uvm" not in have:
        yield "/dev/nvidia-uvm is missing, so CUDA finds no GPU: 'nvidia-modprobe -c 0 -u'"
    for gpu in gpus:
        if not gpu.nodes:
            yield f"GPU {gpu.index} has no /dev/nvidia{gpu.minor}: 'nvidia-modprobe -c {gpu.minor}'"
        for instance in gpu.mig:
            if len(instance.nodes) < 2:
                yield f"MIG {gpu.index}:{instance.index} lacks nodes in /dev/nvidia-caps: 'nvidia-modprobe -f'"


def _is_nvidia(path: Path) -> bool:
    return _read(f"{path}/vendor").strip() == "0x10de" and _read(f"{path}/class").strip().startswith(_DISPLAY)


def nodes_of(roots: Roots, *names: str) -> Iterator[DeviceNumber]:
    """Yield those of the nodes `names` below /dev that are there."""
    for name in names:
        path = f"{roots.dev}/{name}"
        try:
            found = node(path)
        except OSError:
            continue
        if found and found.type == "c":
            yield DeviceNumber(path, found.major, found.minor)


def render_nodes(roots: Roots, gpu: Gpu) -> tuple[DeviceNumber, ...]:
    """Return the nodes by which `gpu` draws: /dev/dri/cardN and renderDN."""
    folder = Path(roots.sys, "bus/pci/devices", gpu.pci, "drm")
    names = sorted(path.name for path in folder.glob("*")) if gpu.pci else []
    return tuple(nodes_of(roots, *(f"dri/{name}" for name in names if name.startswith(("card", "renderD")))))


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip(), value.strip()


def _capability_minor(path: Path) -> int:
    digits = dict(_fields(_read(str(path)))).get("DeviceFileMinor", "")
    return int(digits) if digits.isdecimal() else -1


def _pci(text: str) -> str:
    """Return a PCI address with a domain of four digits; some files write eight."""
    if not _PCI.fullmatch(text):
        return text
    domain, rest = text.lower().split(":", 1)
    return f"{int(domain, 16):04x}:{rest}"


def _number(name: str) -> int:
    digits = name.lstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return int(digits) if digits.isdecimal() else -1


def _read(path: str) -> str:
    """Return the beginning of a file of the kernel, '' when it is not there or may not be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - paths are text here
            return file.read(1 << 16).decode("utf-8", "replace")
    except OSError:
        return ""


def is_loaded(roots: Roots | None = None) -> bool:
    """Whether NVIDIA's driver is there to be asked: only then may its libraries be loaded."""
    return os.path.exists(f"{(roots or Roots()).proc}/driver/nvidia/version")  # noqa: PTH110
