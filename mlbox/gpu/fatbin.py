"""Which GPU architectures a library has code for: the headers of the fat binaries in it, without reading the code.

nvcc puts device code into the ELF sections .nv_fatbin and __nv_relfatbin: one container after another, each a header of
16 bytes (magic, version, header size, size of what follows) and entries, each with a header of its own that says kind
(1 PTX, 2 machine code), architecture and size. NVIDIA documents none of it; the fields used here were compared with
what cuobjdump says of wheels of CUDA 11.8 to 13.5, which leaves out whether machine code is for a family.
"""

import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from mlbox.elf import sections
from mlbox.gpu.model import ComputeCapability

_SECTIONS = frozenset((b".nv_fatbin", b"__nv_relfatbin"))
_NAMED = re.compile(r"(sm|compute)_([0-9]{1,2})([0-9])([af]?)", re.ASCII)
_MAGIC = struct.pack("<I", 0xBA55ED50)
_CONTAINER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQIIHHIIIQ")
_KINDS: Mapping[int, Literal["ptx", "sass"]] = {1: "ptx", 2: "sass"}
_ARCH_SPECIFIC, _FAMILY = 0x100000, 0x200000
_MOST_HEADERS = 200_000
"""That are read of a library; the largest known has 6,000."""
_SPARSE = 0.5
"""An architecture with less than this share of the most common one's entries is there for a few kernels only."""


class Code(NamedTuple):
    """One kind of device code: machine code ('sass') or PTX, for an architecture."""

    kind: Literal["sass", "ptx"]
    major: int
    minor: int
    suffix: Literal["", "a", "f"] = ""
    """'a': this architecture and no other; 'f': its family."""

    def __str__(self) -> str:
        """Return it as compilers name it: 'sm_90a', 'compute_80'."""
        return f"{'sm' if self.kind == 'sass' else 'compute'}_{self.major}{self.minor}{self.suffix}"

    def runs_on(self, gpu: ComputeCapability) -> bool:
        """Whether a GPU runs this code (CUDA C++ Programming Guide, "Application Compatibility").

        Machine code runs on the same major version from its minor on, PTX is compiled for anything newer.
        """
        if self.suffix == "a":
            return (gpu.major, gpu.minor) == (self.major, self.minor)
        if self.suffix == "f" or self.kind == "sass":
            return gpu.major == self.major and gpu.minor >= self.minor
        return (gpu.major, gpu.minor) >= (self.major, self.minor)


class DeviceCode(NamedTuple):
    """The device code of a library."""

    counts: tuple[tuple[Code, int], ...]
    """How many entries there are of each, sorted."""

    @property
    def entries(self) -> int:
        """How many there are in all."""
        return sum(count for _, count in self.counts)

    @property
    def complete(self) -> tuple[Code, ...]:
        """What the library as a whole has code for: what only a few of its kernels have is left out."""
        # What only one architecture can run, 'a', may be several times as many kernels as others have.
        usual = [count for code, count in self.counts if not code.suffix] or [count for _, count in self.counts]
        most = max(usual, default=0)
        return tuple(code for code, count in self.counts if count >= _SPARSE * most)

    def runs_on(self, gpu: ComputeCapability) -> bool:
        """Whether the whole library runs on a GPU."""
        return any(code.runs_on(gpu) for code in self.complete)


def parse_code(text: str) -> Code | None:
    """Return the kind of code that 'sm_90a' or 'compute_80' names, None when it is none."""
    found = _NAMED.fullmatch(text)
    if found is None:
        return None
    suffix: Literal["", "a", "f"] = "a" if found[4] == "a" else "f" if found[4] else ""
    return Code("sass" if found[1] == "sm" else "ptx", int(found[2]), int(found[3]), suffix)


def device_code(path: Path) -> DeviceCode | None:
    """Return the device code of an ELF file; None when it has none, or is no ELF file of 64 bits.

    A damaged section ends the reading of that section, never more: files come from strangers.
    """
    with path.open("rb") as file:
        try:
            if not (places := list(sections(file.fileno(), _SECTIONS))):
                return None
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                codes = (code for start, end in places for code in _codes(data, start, end))
                counts = Counter(code for code in islice(codes, _MOST_HEADERS) if code is not None)
        except (OSError, ValueError, OverflowError, struct.error):
            return None
    return DeviceCode(tuple(sorted(counts.items()))) if counts else None


def _codes(data: mmap.mmap, position: int, end: int) -> Iterator[Code | None]:
    """Yield the code of every header, None for a header of something else."""
    # Between containers there are zeros, up to the next multiple of eight bytes or many more.
    while (position := data.find(_MAGIC, position, end)) >= 0 and position + _CONTAINER.size <= end:
        _, _, header, size = _CONTAINER.unpack_from(data, position)
        start = position + max(header, _CONTAINER.size)
        yield None
        yield from _entries(data, start, min(start + size, end))
        position = start + size


def _entries(data: mmap.mmap, position: int, end: int) -> Iterator[Code | None]:
    while position + 64 <= end:
        kind, _, header, size, _, _, _, _, arch, _, _, flags = _ENTRY.unpack_from(data, position)
        if header < 64 or position + header + size > end:
            return
        suffix: Literal["", "a", "f"] = "a" if flags & _ARCH_SPECIFIC else "f" if flags & _FAMILY else ""
        is_code = kind in _KINDS and 10 <= arch < 1000
        yield Code(_KINDS[kind], arch // 10, arch % 10, suffix) if is_code else None
        position += header + size
