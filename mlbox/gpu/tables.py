"""The reviewed tables in gpu/: which driver runs which CUDA, which GPU is which architecture."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from mlbox import resources
from mlbox.codec import load_toml
from mlbox.errors import MlboxError
from mlbox.gpu.model import ComputeCapability, Version, parse_capability, parse_version


class CudaTable(msgspec.Struct, frozen=True, kw_only=True):
    """CUDA toolkits and drivers (gpu/cuda.toml)."""

    drivers: tuple[tuple[Version, Version], ...]
    """A toolkit and the driver it came with, oldest toolkit first."""
    floors: dict[int, Version]
    """By CUDA's major version: the oldest driver that runs any toolkit of it, with limits."""
    architectures: tuple[tuple[Version, tuple[str, ...]], ...] = ()
    """A CUDA and what PyTorch's wheels of it have device code for ('8.0', '12.0+PTX'), oldest CUDA first."""

    def cuda_of(self, driver: Version) -> Version | None:
        """Return the newest CUDA (major, minor) that `driver` runs in full, None when it is older than the table."""
        known = [toolkit for toolkit, needed in self.drivers if needed <= driver]
        return known[-1].minor if known else None

    def driver_for(self, cuda: Version) -> Version | None:
        """Return the oldest driver known to run `cuda` in full; None for one that is newer than the table.

        '12.4' means any 12.4.x, so its first. What is between two toolkits, or older than all, the next one's runs.
        """
        wanted = cuda.parts
        return next((driver for toolkit, driver in self.drivers if toolkit.parts[: len(wanted)] >= wanted), None)

    def architectures_for(self, cuda: Version | None) -> tuple[str, ...]:
        """Return what to compile device code for with `cuda`: as the last one that is no newer, or the newest of all.

        Of a CUDA that is older than the table the first one's are returned.
        """
        fitting = [row for row in self.architectures if cuda is None or row[0] <= cuda]
        return (fitting or self.architectures[:1])[-1][1]

    def floor_for(self, cuda: Version) -> Version | None:
        """Return the oldest driver that runs `cuda` with the limits of minor-version compatibility."""
        return self.floors.get(cuda.parts[0])


@cache
def cuda_table() -> CudaTable:
    """Return the table that travels with mlbox."""
    return read_cuda_table(resources.folder("gpu") / "cuda.toml")


def read_cuda_table(path: Path) -> CudaTable:
    """Read a table; a version that is none raises MlboxError naming the file."""
    document = load_toml(path.read_bytes(), what=str(path))
    drivers = [(_version(toolkit, path), _version(driver, path)) for toolkit, driver in document["driver"].items()]
    floors = {int(major): _version(driver, path) for major, driver in document["floor"].items()}
    rows = document.get("architectures", {}).items()
    architectures = sorted((_version(cuda, path), tuple(known)) for cuda, known in rows)
    return CudaTable(drivers=tuple(sorted(drivers)), floors=floors, architectures=tuple(architectures))


@cache
def capability_of_name(name: str) -> ComputeCapability | None:
    """Return the architecture of the GPU that people call `name` ('RTX 5090', 'NVIDIA H200'), None when unknown.

    'sm_90' and '9.0' name themselves. Of gpu/devices.toml the longest name counts that stands in `name` as a word;
    a number alone may be the end of one.
    """
    if (direct := parse_capability(name)) is not None:
        return direct
    rows = _devices()["capability"]
    if known := _known(name, rows):
        return parse_capability(rows[known])
    if name.isdigit() and (short := [known for known in rows if known.endswith(f" {name}")]):
        return parse_capability(rows[short[0]])
    return None


def is_of_data_center(name: str) -> bool:
    """Whether NVIDIA lets the GPU called `name` be used through the libraries of a newer driver."""
    document = _devices()
    return _known(name, document["capability"]) in document["forward-compatibility"]["devices"]


def can_be_divided(name: str) -> bool:
    """Whether the GPU called `name` has a MIG mode."""
    document = _devices()
    return _known(name, document["capability"]) in document["mig"]["devices"]


@cache
def _devices() -> dict[str, Any]:
    path = resources.folder("gpu") / "devices.toml"
    return load_toml(path.read_bytes(), what=str(path))


def _known(name: str, rows: Iterable[str]) -> str:
    """Return the longest of `rows` that stands in `name` as a word, '' for none."""
    for known in sorted(rows, key=len, reverse=True):
        if re.search(rf"(?<![a-z0-9]){re.escape(known.lower())}(?![0-9])", name.lower()):
            return known
    return ""


def _version(text: str, path: Path) -> Version:
    version = parse_version(text)
    if version is None:
        raise MlboxError(f"{path}: not a version: {text!r}")
    return version
