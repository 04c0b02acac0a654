"""The dynamic loader's cache (/etc/ld.so.cache), as bytes; and what name the loader knows a library by.

The format is the one that glibc has read since 2.2 and written alone since 2.32 (dl-cache.h). What is left out: the
subdirectories glibc-hwcaps, whose libraries the loader then does not prefer, and the note who generated it.
"""

import os
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mlbox.errors import ArchiveError

MAGIC = b"glibc-ld.so.cache1.1"
_LITTLE_ENDIAN = 2
_HEADER = struct.Struct("<20sIIB3xI12x")
_ENTRY = struct.Struct("<iIIIQ")
MACHINES: dict[str, tuple[int, int]] = {"amd64": (62, 0x0303), "arm64": (183, 0x0A03)}
"""By architecture: the machine (e_machine of the ELF header), and the cache's flags (FLAG_ELF_LIBC6 and the ABI)."""

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_DYN = struct.Struct("<qQ")
_ET_DYN, _PT_LOAD, _PT_DYNAMIC, _DT_STRTAB, _DT_SONAME = 3, 1, 2, 5, 14
_LIMIT = 1 << 20


class Library(NamedTuple):
    """One line of the cache: asked for `name`, the loader opens `path`."""

    name: str
    path: str


def in_order(found: Iterable[Library]) -> list[Library]:
    """Return the lines in the cache's order, which the loader searches by halves."""
    return sorted(found, key=lambda library: order(library.name), reverse=True)


def cache_bytes(found: Sequence[Library], arch: str) -> bytes:
    """Return the cache file that holds the lines `found`, which must be in order."""
    flags = MACHINES[arch][1]
    start = _HEADER.size + _ENTRY.size * len(found)
    strings, offsets = bytearray(), dict[str, int]()
    entries = []
    for library in found:
        if library.path not in offsets:
            offsets[library.path] = start + len(strings)
            strings += os.fsencode(library.path) + b"\0"
        value = offsets[library.path]
        if library.path.endswith(library.name):  # the name is the end of the path, and needs no string of its own
            key = value + len(os.fsencode(library.path)) - len(os.fsencode(library.name))
        else:
            key = start + len(strings)
            strings += os.fsencode(library.name) + b"\0"
        entries.append(_ENTRY.pack(flags, key, value, 0, 0))
    header = _HEADER.pack(MAGIC, len(found), len(strings), _LITTLE_ENDIAN, 0)
    return header + b"".join(entries) + bytes(strings)


def read_soname(path: Path, machine: int) -> str | None:
    """Return the soname of the shared library at `path` ('' when it has none); None when it is no library for
    `machine`, whatever else it may be.
    """
    try:
        with path.open("rb") as file:
            return _soname(file.fileno(), machine)
    except (OSError, struct.error, OverflowError, StopIteration, ValueError):
        return None


def _soname(fd: int, machine: int) -> str | None:
    ident, kind, found, _, _, phoff, _, _, _, phentsize, phnum, *_ = _EHDR.unpack(os.pread(fd, _EHDR.size, 0))
    if ident[:6] != b"\x7fELF\x02\x01" or kind != _ET_DYN or found != machine or phentsize != _PHDR.size:
        return None
    headers = list(_PHDR.iter_unpack(os.pread(fd, _PHDR.size * phnum, phoff)))
    dynamic = next((h for h in headers if h[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return None
    raw = os.pread(fd, min(dynamic[5], _LIMIT), dynamic[2])
    tags: dict[int, int] = {}
    for tag, value in _DYN.iter_unpack(raw[: len(raw) // _DYN.size * _DYN.size]):
        if tag == 0:
            break
        tags.setdefault(tag, value)
    if _DT_SONAME not in tags:
        return ""
    address = tags.get(_DT_STRTAB, -1)
    segment = next(h for h in headers if h[0] == _PT_LOAD and h[3] <= address < h[3] + h[5])
    text = os.pread(fd, 4096, address - segment[3] + segment[2] + tags[_DT_SONAME])
    name, end, _ = text.partition(b"\0")
    return os.fsdecode(name) if end and b"/" not in name else None


def parse_cache(data: bytes, arch: str) -> list[Library]:
    """Return the lines of a cache for `arch`, whoever wrote it; raises ArchiveError when it is none.

    Lines for processors with special abilities are left out: without them the loader takes the ordinary library.
    """
    base = data.find(MAGIC)
    if base < 0 or len(data) < base + _HEADER.size:
        raise ArchiveError("not a loader's cache")
    _, count, *_ = _HEADER.unpack_from(data, base)
    if base + _HEADER.size + count * _ENTRY.size > len(data):
        raise ArchiveError("a loader's cache that is cut short")
    found = []
    for number in range(count):
        flags, key, value, _, capabilities = _ENTRY.unpack_from(data, base + _HEADER.size + number * _ENTRY.size)
        if flags == MACHINES[arch][1] and not capabilities:
            # Behind the cache of the old format, places are counted from where the new one begins.
            found.append(Library(_string(data, base + key), _string(data, base + value)))
    return found


def with_libraries(cache: bytes, added: Iterable[Library], arch: str) -> bytes:
    """Return `cache` with the lines `added`, which take the place of others of the same name; b"" is an empty one."""
    lines = {library.name: library for library in (parse_cache(cache, arch) if cache else ())}
    return cache_bytes(in_order((lines | {library.name: library for library in added}).values()), arch)


def _string(data: bytes, start: int) -> str:
    end = data.find(b"\0", start)
    if not 0 <= start < end:
        raise ArchiveError("a loader's cache whose names lie outside of it")
    return os.fsdecode(data[start:end])


def order(name: str) -> list[tuple[int, int]]:
    """Return what names are sorted by."""
    # Numbers compare as numbers and sort after everything else (_dl_cache_libcmp).
    return [(1, int(part)) if part[0].isdigit() else (0, ord(part)) for part in re.findall(r"[0-9]+|[^0-9]", name)]
