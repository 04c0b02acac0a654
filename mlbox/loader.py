"""The dynamic loader's cache (/etc/ld.so.cache), as bytes.

The format is the one that glibc has read since 2.2 and written alone since 2.32 (dl-cache.h). What is left out: the
subdirectories glibc-hwcaps (but those in a cache that is added to stay), and the note who generated it.
"""

import os
import re
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mlbox.errors import ArchiveError

MAGIC = b"glibc-ld.so.cache1.1"
_LITTLE_ENDIAN = 2
_HEADER = struct.Struct("<20sIIB3xI12x")
_ENTRY = struct.Struct("<iIIIQ")
_EXTENSION = struct.Struct("<II")
_SECTION = struct.Struct("<IIII")
_EXTENSION_MAGIC, _HWCAPS = 0xEAA42174, 1
_OUTSIDE = "a loader's cache whose names lie outside of it"
_LONGEST = 1024
"""More bytes than any name in a cache has; every line of a hostile one may point at the same long string."""
MACHINES: dict[str, tuple[int, int]] = {"amd64": (62, 0x0303), "arm64": (183, 0x0A03)}
"""By architecture: the machine (e_machine of the ELF header), and the cache's flags (FLAG_ELF_LIBC6 and the ABI)."""


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


def parse_cache(data: bytes, arch: str) -> list[Library]:
    """Return the lines of a cache for `arch`, whoever wrote it; raises ArchiveError when it is none.

    Lines for processors with special abilities are left out: without them the loader takes the ordinary library.
    """
    base, lines = _raw(data)
    # Behind a cache of the old format, places are counted from where the new one begins.
    return [
        Library(_string(data, base + line.name), _string(data, base + line.path))
        for line in lines
        if line.flags == MACHINES[arch][1] and not line.capabilities
    ]


def with_libraries(cache: bytes, added: Iterable[Library], arch: str) -> bytes:
    """Return `cache` with the lines `added`, which take the place of others of the same name; b"" is an empty one.

    Every other line stays as it is: those of other ABIs, those for processors with special abilities, and the second
    of two with the same name, which counts for the loader only when the first is gone. Raises ArchiveError.
    """
    new = {library.name: library for library in added}
    base, old = _raw(cache) if cache else (0, [])
    kept = [
        (name, line)
        for line in old
        if (name := _string(cache, base + line.name)) not in new or line.flags != MACHINES[arch][1]
    ]
    begin = _HEADER.size + _ENTRY.size * (len(kept) + len(new))
    strings = bytearray(cache[base + _HEADER.size + _ENTRY.size * len(old) :])
    distance = begin - _HEADER.size - _ENTRY.size * len(old)
    lines = [(name, line.moved(distance)) for name, line in kept]
    for name, path in new.values():
        start, text = begin + len(strings), os.fsencode(name) + b"\0"
        strings += text + os.fsencode(path) + b"\0"
        lines.append((name, _Line(MACHINES[arch][1], start, start + len(text), 0, 0)))
    lines.sort(key=lambda line: order(line[0]), reverse=True)
    strings += bytes(-len(strings) % 4)
    extension = _moved_extension(cache[base:], distance, begin + len(strings))
    place = begin + len(strings) if extension else 0
    header = _HEADER.pack(MAGIC, len(lines), len(strings), _LITTLE_ENDIAN, place)
    return header + b"".join(_ENTRY.pack(*line) for _, line in lines) + bytes(strings) + extension


class _Line(NamedTuple):
    """A line as it stands in the file: what the two numbers point to begins there."""

    flags: int
    name: int
    path: int
    version: int
    capabilities: int

    def moved(self, distance: int) -> "_Line":
        return self._replace(name=self.name + distance, path=self.path + distance)


def _raw(data: bytes) -> tuple[int, list[_Line]]:
    """Return where the cache begins in `data` (behind one of the old format, or at once), and its lines."""
    base = data.find(MAGIC)
    if base < 0 or len(data) < base + _HEADER.size:
        raise ArchiveError("not a loader's cache")
    count = _HEADER.unpack_from(data, base)[1]
    end = base + _HEADER.size + count * _ENTRY.size
    if end > len(data):
        raise ArchiveError("a loader's cache that is cut short")
    lines = [_Line(*fields) for fields in _ENTRY.iter_unpack(data[base + _HEADER.size : end])]
    if any(not end <= base + place < len(data) for line in lines for place in (line.name, line.path)):
        raise ArchiveError(_OUTSIDE)
    return base, lines


def _moved_extension(cache: bytes, distance: int, place: int) -> bytes:
    """Return the names of special processors that lines of `cache` refer to, as they stand at `place` of another."""
    start = _HEADER.unpack_from(cache)[4] if cache else 0
    if not 0 < start <= len(cache) - _EXTENSION.size:
        return b""
    magic, count = _EXTENSION.unpack_from(cache, start)
    if magic != _EXTENSION_MAGIC or start + _EXTENSION.size + count * _SECTION.size > len(cache):
        return b""
    sections = (_SECTION.unpack_from(cache, start + _EXTENSION.size + n * _SECTION.size) for n in range(count))
    for tag, _, offset, size in sections:
        if tag == _HWCAPS and offset + size <= len(cache):
            names = struct.unpack_from(f"<{size // 4}I", cache, offset)
            if not all(-distance <= name < len(cache) for name in names):
                raise ArchiveError(_OUTSIDE)
            moved = struct.pack(f"<{len(names)}I", *(name + distance for name in names))
            head = _EXTENSION.pack(_EXTENSION_MAGIC, 1)
            return head + _SECTION.pack(_HWCAPS, 0, place + len(head) + _SECTION.size, len(moved)) + moved
    return b""


def _string(data: bytes, start: int) -> str:
    end = data.find(b"\0", start, start + _LONGEST)
    if not 0 <= start < end:
        raise ArchiveError(_OUTSIDE)
    return os.fsdecode(data[start:end])


def order(name: str) -> list[tuple[int, int]]:
    """Return what names are sorted by."""
    # Numbers compare as numbers and sort after everything else (_dl_cache_libcmp).
    return [(1, int(part)) if part[0].isdigit() else (0, ord(part)) for part in re.findall(r"[0-9]+|[^0-9]", name)]
