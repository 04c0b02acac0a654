"""A host's GPUs as values, however they were found."""

from typing import Literal, NamedTuple

import msgspec

Vendor = Literal["nvidia", "amd", "intel"]

NAMED_CAPABILITIES = ("compute", "utility", "video", "graphics", "display", "ngx")
"""What NVIDIA_DRIVER_CAPABILITIES and --gpu-capabilities may name, besides 'all'."""


class Version(NamedTuple):
    """A version of a driver or of CUDA: '535.104.05' compares as (535, 104, 5)."""

    parts: tuple[int, ...]
    text: str

    def __str__(self) -> str:
        """Return the version as its maker writes it."""
        return self.text

    @property
    def minor(self) -> "Version":
        """The first two numbers: 12.4 of 12.4.1."""
        return Version(self.parts[:2], ".".join(map(str, self.parts[:2])))


class ComputeCapability(NamedTuple):
    """A GPU's architecture: 9.0 is sm_90."""

    major: int
    minor: int

    def __str__(self) -> str:
        """Return it as compilers name it."""
        return f"sm_{self.major}{self.minor}"


class DeviceNumber(NamedTuple):
    """A character device's node on the host."""

    path: str
    major: int
    minor: int


class MigInstance(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a GPU that is a GPU of its own: NVIDIA's Multi-Instance GPU."""

    uuid: str
    """'MIG-…', empty when no driver library could be asked."""
    gpu_instance: int
    compute_instance: int
    index: int
    """Place among the instances of its GPU, from 0."""
    profile: str = ""
    """'1g.10gb', empty when unknown."""
    memory: int = 0
    """Bytes, 0 when unknown."""
    nodes: tuple[DeviceNumber, ...] = ()
    """Its capability nodes (/dev/nvidia-caps), besides those of its GPU."""


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU."""

    vendor: Vendor
    index: int
    """Its number for people, in the order of the PCI bus, from 0 for each vendor."""
    uuid: str = ""
    """'GPU-…' for NVIDIA; empty when the host does not tell."""
    name: str = ""
    pci: str = ""
    """'0000:3b:00.0', lower case, domain of four digits."""
    minor: int = -1
    """Of /dev/nvidiaN or /dev/dri/renderDN: not always the index."""
    nodes: tuple[DeviceNumber, ...] = ()
    """What a container must be given to use this GPU alone, without what all GPUs of the vendor share."""
    capability: ComputeCapability | None = None
    memory: int = 0
    """Bytes, 0 when unknown."""
    mig_enabled: bool = False
    mig: tuple[MigInstance, ...] = ()


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """The NVIDIA driver that is loaded."""

    version: Version
    cuda: Version | None = None
    """The newest CUDA it runs, None when unknown."""
    library_version: Version | None = None
    """Of the libraries on the disk: another one than the module's means that the host wants a reboot."""


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has, at one moment."""

    driver: Driver | None = None
    gpus: tuple[Gpu, ...] = ()
    shared_nodes: tuple[DeviceNumber, ...] = ()
    """NVIDIA's nodes that every GPU container needs: nvidiactl, uvm."""
    problems: tuple[str, ...] = ()
    """What is wrong with the host's GPUs, for people, each with what mends it."""


class Roots(msgspec.Struct, frozen=True, kw_only=True):
    """Where a host's file systems lie; tests put other ones there."""

    proc: str = "/proc"
    sys: str = "/sys"
    dev: str = "/dev"
    driver: str = "/"
    """Where the driver's libraries are looked for."""


def parse_version(text: str) -> Version | None:
    """Return the version that `text` is, None when it is none."""
    parts = text.strip().split(".")
    if not parts or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return None
    return Version(tuple(map(int, parts)), text.strip())


def parse_capability(text: str) -> ComputeCapability | None:
    """Return the architecture that 'sm_90', 'compute_90', '9.0' or '90' names, None when it is none."""
    digits = text.strip().lower().removeprefix("sm_").removeprefix("compute_").rstrip("af")
    major, dot, minor = digits.partition(".") if "." in digits else (digits[:-1], ".", digits[-1:])
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        return None
    if len(major) > 2 or len(minor) > 1:  # 4090 is the name of a GPU
        return None
    return ComputeCapability(int(major), int(minor))
