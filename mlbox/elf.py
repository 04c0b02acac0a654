"""What is read of ELF files of 64 bits: what the dynamic loader does (names, needs, folders), and where sections lie.

Files come from strangers: what is damaged or lies is no ELF file here, and never an error.
"""

import os
import struct
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

LIBRARY = 3
"""ET_DYN: a shared library, or a program that may lie anywhere in memory."""

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_DYN = struct.Struct("<qQ")
_VERNEED = struct.Struct("<HHIII")
_VERNAUX = struct.Struct("<IHHII")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_NEEDED, _STRTAB, _STRSZ, _SONAME, _RPATH, _RUNPATH, _VERNEED_AT, _VERNEED_COUNT = (
    1,
    5,
    10,
    14,
    15,
    29,
    0x6FFFFFFE,
    0x6FFFFFFF,
)
_DYNAMIC_LIMIT = 1 << 20
_VERSIONS_LIMIT = 64 << 10
_MOST_NEEDED = 2048
_LONGEST_NAME = 4096
_STRINGS_LIMIT = 16 << 20
_MOST_SECTIONS = 4096
_SECTION_NAMES_LIMIT = 1 << 20
_MAGIC = b"\x7fELF\x02\x01"
_DAMAGED = (OSError, struct.error, OverflowError, StopIteration, ValueError)


class Elf(NamedTuple):
    """A library or program that the dynamic loader loads."""

    machine: int
    """e_machine: 62 is x86-64, 183 is AArch64."""
    kind: int
    soname: str
    needed: tuple[str, ...]
    search: tuple[str, ...]
    """The folders of DT_RUNPATH, else of DT_RPATH, as they are written: '$ORIGIN/../lib'."""
    versions: tuple[str, ...]
    """The versions of symbols it needs, of all libraries, sorted: 'GLIBC_2.34'."""


class _Dynamic(NamedTuple):
    machine: int
    kind: int
    loads: list[tuple[int, ...]]
    tags: list[tuple[int, int]]

    def value(self, wanted: int) -> int | None:
        return next((value for tag, value in self.tags if tag == wanted), None)

    def offset(self, address: int) -> int:
        """Return where in the file lies what will be at `address` in memory; raises ValueError for nowhere."""
        for _, _, offset, start, _, size, _, _ in self.loads:
            if start <= address < start + size:
                return int(address - start + offset)
        raise ValueError("an address outside of the file")


def read_elf(path: Path) -> Elf | None:
    """Return what the loader reads of the file; None when it is no ELF file of 64 bits that the loader links."""
    try:
        with path.open("rb", buffering=0) as file:
            return _elf(file.fileno())
    except _DAMAGED:
        return None


def mentions(path: Path, symbol: str) -> bool:
    """Whether the ELF file has, or wants from others, a symbol of that name; one with very many is said not to."""
    try:
        with path.open("rb", buffering=0) as file:
            found = _dynamic(file.fileno())
            size = found.value(_STRSZ) if found else None
            if found is None or size is None or size > _STRINGS_LIMIT:
                return False
            return b"\0" + os.fsencode(symbol) + b"\0" in os.pread(file.fileno(), size, _strings(found))
    except _DAMAGED:
        return False


def read_soname(path: Path, machine: int) -> str | None:
    """Return the soname of the shared library at `path` ('' when it has none); None when it is no library for
    `machine`, whatever else it may be.
    """
    try:
        with path.open("rb", buffering=0) as file:
            fd = file.fileno()
            found = _dynamic(fd)
            if found is None or found.kind != LIBRARY or found.machine != machine:
                return None
            name = _soname(fd, found)
    except _DAMAGED:
        return None
    return name if "/" not in name else None


def is_elf(fd: int) -> bool:
    """Whether the open file begins as an ELF file of 64 bits does, least significant byte first."""
    return os.pread(fd, len(_MAGIC), 0) == _MAGIC


def sections(fd: int, wanted: Collection[bytes]) -> Iterator[tuple[int, int]]:
    """Yield where in the open file the sections with a name of `wanted` begin and end; nothing when it is no ELF file.

    Raises struct.error or OSError where what should be headers is not.
    """
    header = os.pread(fd, _EHDR.size, 0)
    if header[:6] != _MAGIC:
        return
    _, _, _, _, _, _, table, _, _, _, _, size, count, names = _EHDR.unpack(header)
    if size != _SHDR.size or count > _MOST_SECTIONS or names >= count:
        return
    headers = list(_SHDR.iter_unpack(os.pread(fd, size * count, table)))
    if len(headers) < count:
        raise struct.error("fewer section headers than there should be")
    strings = os.pread(fd, min(headers[names][5], _SECTION_NAMES_LIMIT), headers[names][4])
    length = os.fstat(fd).st_size
    for name, _, _, _, start, long, *_ in headers:
        if strings[name : strings.find(b"\0", name)] in wanted:
            yield start, min(start + long, length)


def _elf(fd: int) -> Elf | None:
    found = _dynamic(fd)
    if found is None:
        return None
    strings = _strings(found)
    needed = [value for tag, value in found.tags if tag == _NEEDED][:_MOST_NEEDED]
    where = found.value(_RUNPATH)
    search = where if where is not None else found.value(_RPATH)
    return Elf(
        machine=found.machine,
        kind=found.kind,
        soname=_soname(fd, found),
        needed=tuple(_string(fd, strings + value) for value in needed),
        search=tuple(filter(None, _string(fd, strings + search).split(":"))) if search is not None else (),
        versions=tuple(sorted(set(islice(_versions(fd, found, strings), _MOST_NEEDED)))),
    )


def _dynamic(fd: int) -> _Dynamic | None:
    ident, kind, machine, _, _, phoff, _, _, _, phentsize, phnum, *_ = _EHDR.unpack(os.pread(fd, _EHDR.size, 0))
    if ident[:6] != _MAGIC or phentsize != _PHDR.size:
        return None
    headers = list(_PHDR.iter_unpack(os.pread(fd, _PHDR.size * phnum, phoff)))
    dynamic = next((header for header in headers if header[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return None
    raw = os.pread(fd, min(dynamic[5], _DYNAMIC_LIMIT), dynamic[2])
    tags: list[tuple[int, int]] = []
    for tag, value in _DYN.iter_unpack(raw[: len(raw) // _DYN.size * _DYN.size]):
        if tag == 0:
            break
        tags.append((tag, value))
    return _Dynamic(machine, kind, [header for header in headers if header[0] == _PT_LOAD], tags)


def _strings(found: _Dynamic) -> int:
    address = found.value(_STRTAB)
    return found.offset(address) if address is not None else 0


def _soname(fd: int, found: _Dynamic) -> str:
    value = found.value(_SONAME)
    return _string(fd, _strings(found) + value) if value is not None else ""


def _string(fd: int, offset: int) -> str:
    for size in (256, _LONGEST_NAME):
        name, end, _ = os.pread(fd, size, offset).partition(b"\0")
        if end and (text := os.fsdecode(name)).isprintable():
            return text
    raise ValueError("no name, or none that people could read")


def _versions(fd: int, found: _Dynamic, strings: int) -> Iterator[str]:
    address = found.value(_VERNEED_AT)
    if address is None:
        return
    data = os.pread(fd, _VERSIONS_LIMIT, found.offset(address))
    position = 0
    for _ in range(min(found.value(_VERNEED_COUNT) or 0, _MOST_NEEDED)):
        _, count, _, auxiliary, following = _VERNEED.unpack_from(data, position)
        entry = position + auxiliary
        for _ in range(min(count, _MOST_NEEDED)):
            _, _, _, name, step = _VERNAUX.unpack_from(data, entry)
            yield _string(fd, strings + name)
            entry += step
        position += following
