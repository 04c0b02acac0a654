"""Which libraries and programs a layer holds, and what the dynamic loader is asked for on behalf of each."""

import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from mlbox.elf import mentions, read_elf
from mlbox.oci.layer import Entry

_HEADER = 64
_LIBRARY = re.compile(r"\.so(?:\.[0-9A-Za-z_.+-]+)?$")
_RECORD = re.compile(r"(?:^|/)([A-Za-z0-9_.]+)-([^/-]+)\.dist-info/RECORD$")
_RECORD_LIMIT = 64 << 20
_GLIBC = re.compile(r"GLIBC_2\.([0-9]{1,3})(?:\.[0-9]+)?")
_RELATIVE_RELOCATIONS = ("GLIBC_ABI_DT_RELR", 36)
"""Not a symbol, but a promise that glibc makes since 2.36."""


class Binary(msgspec.Struct, frozen=True, array_like=True):
    """A file that the dynamic loader links."""

    path: str
    """In the image, without a leading slash."""
    size: int
    soname: str
    needed: tuple[str, ...]
    search: tuple[str, ...]
    """Where it says its libraries lie: '$ORIGIN/../lib'."""
    glibc: int = 0
    """The glibc whose symbols it needs: 34 for 2.34, 0 when it needs none."""
    is_module: bool = False
    """Whether Python can import it though its name does not say for which Python it is: '_x.so'."""
    package: str = ""
    """The Python distribution it belongs to: 'opencv-python 4.12.0', '' when no RECORD names it."""

    @property
    def folder(self) -> str:
        """The folder it lies in."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """Its file name."""
        return self.path.rpartition("/")[2]


def is_library(path: str) -> bool:
    """Whether a file is called as shared libraries are: 'libx.so.1', '_x.cpython-311-x86_64-linux-gnu.so'."""
    return bool(_LIBRARY.search(path))


def read_binaries(root: Path, entries: Iterable[Entry], machine: int) -> tuple[Binary, ...]:
    """Return what of the layer at `root` is linked on a `machine` (e_machine), in the order of `entries`."""
    entries = tuple(entry for entry in entries if entry.kind == "file")
    found = list(_binaries(root, entries, machine))
    owners = _owners(root, entries, {binary.path for binary in found}) if found else {}
    return tuple(msgspec.structs.replace(binary, package=owners.get(binary.path, "")) for binary in found)


def _binaries(root: Path, entries: Iterable[Entry], machine: int) -> Iterator[Binary]:
    for entry in entries:
        if not _may_be(entry):
            continue
        elf = read_elf(root / entry.path)
        if elf is not None and elf.machine == machine:
            glibc = max(map(_glibc, elf.versions), default=0)
            module = _is_module(root, entry)
            yield Binary(entry.path, entry.size, elf.soname, elf.needed, elf.search, glibc, module)


def _may_be(entry: Entry) -> bool:
    if entry.size < _HEADER:
        return False
    name = entry.path.rpartition("/")[2]
    return is_library(name) or bool(entry.mode & 0o100 and "." not in name)


def _is_module(root: Path, entry: Entry) -> bool:
    stem, ending, rest = entry.path.rpartition("/")[2].partition(".")
    if ending + rest != ".so" or stem.startswith("lib"):
        return False
    return mentions(root / entry.path, f"PyInit_{stem}")


def _glibc(version: str) -> int:
    if version == _RELATIVE_RELOCATIONS[0]:
        return _RELATIVE_RELOCATIONS[1]
    found = _GLIBC.fullmatch(version)
    return int(found[1]) if found else 0


def _owners(root: Path, entries: Iterable[Entry], wanted: set[str]) -> dict[str, str]:
    """Return the distribution of each of the `wanted` paths that a RECORD names."""
    found: dict[str, str] = {}
    for entry in entries:
        record = _RECORD.search(entry.path)
        if record is None or entry.size > _RECORD_LIMIT:
            continue
        package = f"{record[1].lower().replace('_', '-')} {record[2]}"
        site = entry.path.rpartition("/")[0].rpartition("/")[0]
        for line in (root / entry.path).read_text(errors="surrogateescape").splitlines():
            path = f"{site}/{line.rpartition(',')[0].rpartition(',')[0]}"
            if path in wanted or (".." in path and (path := posixpath.normpath(path)) in wanted):
                found[path] = package
    return found
