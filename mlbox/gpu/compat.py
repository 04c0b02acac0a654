"""CUDA's forward compatibility: libraries of a newer driver, in an image, that go with the host's older kernel module.

NVIDIA allows it on GPUs of data centres (CUDA Compatibility, "Forward Compatibility"). Which branches of the driver it
goes with stands in an ELF note of the image's libcuda; NVIDIA's own container toolkit decides by the same note.
"""

import os
import re
import stat
import struct
from contextlib import suppress
from pathlib import Path

import msgspec

from mlbox.elf import is_elf, sections
from mlbox.gpu.model import Version, parse_version
from mlbox.linux.mount import open_in_root
from mlbox.loader import Library

FOLDER = "usr/local/cuda/compat"
"""Where CUDA's images have the libraries."""
_VERSIONED = re.compile(r"libcuda\.so\.([0-9]+(?:\.[0-9]+)+)")
_LIBRARY = re.compile(r"lib[A-Za-z0-9_-]+\.so(?:\.[0-9.]+)?")
_NOTE = b".note.cuda.fwd_compatibility"
_NOTE_HEADER = struct.Struct("<III")
_LONGEST_NOTE = 64 << 10
_MOST_LIBRARIES = 200


class Compat(msgspec.Struct, frozen=True, kw_only=True):
    """The libraries of a driver in an image."""

    version: str
    """Of that driver."""
    branches: tuple[int, ...] = ()
    """The major versions of the host's driver they go with; empty when they do not say."""

    def goes_with(self, driver: Version) -> bool:
        """Whether they take the place of the host's libraries of that driver: they must be newer."""
        own, branch = parse_version(self.version), driver.parts[0]
        if own is None or own <= driver:
            return False
        return branch in self.branches if self.branches else own.parts[0] > branch


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    driver: tuple[int, ...] = ()


def version_in(name: str) -> str:
    """Return the driver's version when `name` is that of a libcuda with its version, else ''."""
    found = _VERSIONED.fullmatch(name)
    return found[1] if found else ""


def read_compat(fd: int, version: str) -> Compat | None:
    """Return what the open libcuda of that `version` goes with; None for what is none, or says it in no known way."""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        if not is_elf(fd):
            return None
        place = next(sections(fd, {_NOTE}), None)
        return Compat(version=version, branches=_branches(fd, *place) if place else ())
    except (OSError, ValueError, OverflowError, struct.error, msgspec.DecodeError):
        return None


def lines_in(root: Path, driver: Version) -> tuple[Library, ...]:
    """Return what the loader's cache of a container with that root must say besides the host's libraries.

    Nothing when the image has no libraries that go with `driver`. Links are followed inside `root` only.
    """
    names = _names(root)
    found = [version for name in names if (version := version_in(name))]
    for version in found[:1]:
        with suppress(OSError):
            fd = open_in_root(str(root), f"{FOLDER}/libcuda.so.{version}")
            try:
                compat = read_compat(fd, version)
            finally:
                os.close(fd)
            if compat and compat.goes_with(driver):
                return tuple(Library(name, f"/{FOLDER}/{name}") for name in names)
    return ()


def _names(root: Path) -> list[str]:
    try:
        fd = open_in_root(str(root), FOLDER)
    except OSError:
        return []
    try:
        names = sorted(os.listdir(fd))  # noqa: PTH208 - of a descriptor
    except NotADirectoryError:
        return []
    finally:
        os.close(fd)
    return [name for name in names if _LIBRARY.fullmatch(name)][:_MOST_LIBRARIES]


def _branches(fd: int, start: int, end: int) -> tuple[int, ...]:
    name, size, _ = _NOTE_HEADER.unpack(os.pread(fd, _NOTE_HEADER.size, start))
    begin = start + _NOTE_HEADER.size + (name + 3 & ~3)
    if size > _LONGEST_NOTE or begin + size > end:
        raise ValueError("a note that is longer than its section")
    return msgspec.json.decode(os.pread(fd, size, begin).rstrip(b"\0"), type=_Note).driver
