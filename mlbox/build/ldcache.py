"""The dynamic loader's cache (/etc/ld.so.cache) of a root file system, made without running its ldconfig.

Written in the format that glibc has read since 2.2 and written alone since 2.32 (dl-cache.h). What is left out: the
subdirectories glibc-hwcaps, whose libraries the loader then does not prefer, and the note who generated it.
"""

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlbox.build.union import Union
from mlbox.lock.model import Arch

MAGIC = b"glibc-ld.so.cache1.1"
_LITTLE_ENDIAN = 2
_HEADER = struct.Struct("<20sIIB3xI12x")
_ENTRY = struct.Struct("<iIIIQ")
# Which machine (e_machine of the ELF header) and which flags (FLAG_ELF_LIBC6 and the ABI) an architecture has.
_MACHINES: dict[Arch, tuple[int, int]] = {"amd64": (62, 0x0303), "arm64": (183, 0x0A03)}
_BUILTIN = ("/lib", "/usr/lib")
_NAME = re.compile(r"(?:lib|ld-).*\.so.*|ld(?:64)?\.so.*")
_CONF_DEPTH = 10

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_DYN = struct.Struct("<qQ")
_ET_DYN, _PT_LOAD, _PT_DYNAMIC, _DT_STRTAB, _DT_SONAME = 3, 1, 2, 5, 14
_LIMIT = 1 << 20


class Library(NamedTuple):
    """One line of the cache: asked for `name`, the loader opens `path`."""

    name: str
    path: str


class _Shared(NamedTuple):
    """What a directory offers under one name: the file's own name, and whether that is a symlink."""

    name: str
    is_link: bool


def libraries(root: Union, arch: Arch) -> list[Library]:
    """Return the lines ldconfig would make of `root`, in its order."""
    found: list[Library] = []
    for directory, place in _directories(root):
        shared = _shared(root, place, _MACHINES[arch][0])
        found += [Library(soname, f"{directory}/{soname}") for soname in shared]
    return sorted(found, key=lambda library: _order(library.name), reverse=True)


def missing_links(root: Union, arch: Arch) -> dict[str, str]:
    """Return the symlinks (path: target) ldconfig would make: a library's soname, where the package has none."""
    links: dict[str, str] = {}
    for _directory, place in _directories(root):
        for soname, file in _shared(root, place, _MACHINES[arch][0]).items():
            if not file.is_link and root.entry(f"{place}/{soname}") is None:
                links[f"{place}/{soname}"] = file.name
    return links


def cache_bytes(found: list[Library], arch: Arch) -> bytes:
    """Return the cache file that holds the lines `found`, which must be in order."""
    flags = _MACHINES[arch][1]
    start = _HEADER.size + _ENTRY.size * len(found)
    strings, offsets = bytearray(), dict[str, int]()
    entries = []
    for library in found:
        if library.path not in offsets:
            offsets[library.path] = start + len(strings)
            strings += os.fsencode(library.path) + b"\0"
        value = offsets[library.path]
        # The name is the end of the path, so it needs no string of its own.
        key = value + len(os.fsencode(library.path)) - len(os.fsencode(library.name))
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


def _shared(root: Union, place: str, machine: int) -> dict[str, _Shared]:
    found: dict[str, _Shared] = {}
    for name in root.children(place):
        path = root.on_disk(f"{place}/{name}") if _NAME.fullmatch(name) else None
        soname = read_soname(path, machine) if path else None
        if soname is None:
            continue
        entry = root.entry(f"{place}/{name}")
        soname, is_link = _known_as(name, soname or name, entry is not None and entry.kind == "symlink")
        known, new = found.get(soname), _Shared(name, is_link)
        if known is None or _better(new, known):
            found[soname] = new
    return found


def _known_as(name: str, soname: str, is_link: bool) -> tuple[str, bool]:
    # A symlink counts under its own name only when that is the soname or the name that compilers look for
    # (libx.so for libx.so.1); any other symlink is one more name of the file.
    own = name == soname or (name.endswith(".so") and soname.startswith(name))
    return (name, True) if is_link and own else (soname, False)


def _better(new: _Shared, known: _Shared) -> bool:
    if new.is_link != known.is_link:
        return known.is_link
    return _order(known.name) < _order(new.name)


def _order(name: str) -> list[tuple[int, int]]:
    # Numbers compare as numbers and sort after everything else (_dl_cache_libcmp).
    return [(1, int(part)) if part[0].isdigit() else (0, ord(part)) for part in re.findall(r"[0-9]+|[^0-9]", name)]


def _directories(root: Union) -> Iterator[tuple[str, str]]:
    """Yield each directory that is searched, by the name it is configured under and by where it really lies."""
    seen: set[str] = set()
    for directory in (*_configured(root, "/etc/ld.so.conf", 0), *_BUILTIN):
        place = root.resolve(directory)
        if place and place not in seen:
            seen.add(place)
            yield directory, place


def _configured(root: Union, path: str, depth: int) -> Iterator[str]:
    text = (root.read(path) or b"").decode("utf-8", "replace")
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        word, _, pattern = line.partition(" ")
        if word == "include" and depth < _CONF_DEPTH:
            for included in _glob(root, pattern.strip()):
                yield from _configured(root, included, depth + 1)
        elif line.startswith("/"):
            yield line.partition("=")[0].rstrip("/ \t")


def _glob(root: Union, pattern: str) -> list[str]:
    import fnmatch

    folder, _, name = pattern.strip("/").rpartition("/")
    place = root.resolve(folder)
    names = root.children(place) if place else []
    return [f"{folder}/{found}" for found in sorted(names) if fnmatch.fnmatchcase(found, name)]
