"""Reading from a source archive or tree what building it takes, without unpacking or running anything."""

import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mlbox.codec import load_toml
from mlbox.errors import ArchiveError
from mlbox.lock.python.native import languages_of
from mlbox.oci.tarstream import TarStream, unpacked

_LIMIT = 1 << 20
_MEMBERS = 200_000
_TOTAL = 16 << 30
# RuntimeError: zipfile's for members that are encrypted or packed in a way it does not know.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)
# What pip assumes when pyproject.toml is absent or has no [build-system] (PEP 517, PEP 518).
_LEGACY = ("setuptools>=40.8.0",)
# What these back ends ask for only when they run (get_requires_for_build_wheel) and find no program of that name.
_HIDDEN = {"scikit_build_core.build": ("cmake>=3.15", "ninja>=1.5"), "mesonpy": ("ninja>=1.8.2",)}


class Source(NamedTuple):
    """What building a source takes."""

    requires: tuple[str, ...]
    """build-system.requires (PEP 518), with pip's defaults and what back ends hide."""
    compiled: tuple[str, ...]
    """The languages in it that need a compiler."""


class _System(NamedTuple):
    requires: tuple[str, ...]
    backend: str


def read_archive(archive: Path, *, subdirectory: str = "") -> Source:
    """Return what building `archive` (.tar.*, .zip) takes; ArchiveError for one that is damaged or too large."""
    top = PurePosixPath(subdirectory)
    try:
        members = _of_zip(archive, top) if zipfile.is_zipfile(archive) else _of_tar(archive, top)
        data, paths = None, []
        for path, content in members:
            paths.append(path)
            data = content if content is not None else data
        if not paths:
            raise ValueError("it holds no file")
    except _DAMAGED as problem:
        raise ArchiveError(f"{archive.name}: not a readable source archive: {problem}") from problem
    return _source(data, paths, f"{archive.name}: pyproject.toml")


def read_tree(folder: Path, *, what: str) -> Source:
    """Return what building the source tree `folder` takes."""
    path = folder / "pyproject.toml"
    data = None if path.is_symlink() or not path.is_file() else path.read_bytes()[: _LIMIT + 1]
    paths = (os.path.relpath(Path(root) / name, folder) for root, _, names in os.walk(folder) for name in names)
    return _source(data, paths, f"{what}: pyproject.toml")


def _source(data: bytes | None, paths: Iterator[str] | list[str], what: str) -> Source:
    system = system_of(data, what=what)
    return Source(system.requires, languages_of(paths, system.backend, system.requires))


def system_of(data: bytes | None, *, what: str) -> _System:
    """Return the requirements and the back end that a pyproject.toml names, with pip's defaults."""
    if data is None:
        return _System(_LEGACY, "")
    if len(data) > _LIMIT:
        raise ArchiveError(f"{what}: larger than {_LIMIT} bytes")
    system: Any = load_toml(data, what=what, error=ArchiveError).get("build-system")
    if system is None:
        return _System(_LEGACY, "")
    requires = system.get("requires") if isinstance(system, dict) else None
    if not isinstance(requires, list) or not all(isinstance(line, str) for line in requires):
        raise ArchiveError(f"{what}: [build-system] has no list of requires")
    named = system.get("build-backend") or ""
    backend = named if isinstance(named, str) else ""
    hidden = _HIDDEN.get(backend, ())
    return _System(tuple(dict.fromkeys([*requires, *([] if named else _LEGACY), *hidden])), backend)


def _of_tar(archive: Path, top: PurePosixPath) -> Iterator[tuple[str, bytes | None]]:
    """Yield the path below `top` of every file, and the content of pyproject.toml."""
    total = 0
    with archive.open("rb") as file:
        tar = TarStream(unpacked(file), archive.name, _MEMBERS)
        for member in tar:
            total += member.size
            if total > _TOTAL:
                raise ValueError(f"more than {_TOTAL} bytes")
            path = _below(member.path, top)
            if member.kind == "file" and path:
                yield path, _beginning(tar.content()) if path == "pyproject.toml" else None


def _beginning(content: Iterator[bytes]) -> bytes:
    """Return at most one byte more than a pyproject.toml may have."""
    data = bytearray()
    while len(data) <= _LIMIT and (chunk := next(content, b"")):
        data += chunk
    return bytes(data[: _LIMIT + 1])


def _of_zip(archive: Path, top: PurePosixPath) -> Iterator[tuple[str, bytes | None]]:
    with zipfile.ZipFile(archive) as source:
        for info in source.infolist():
            path = _below(info.filename, top)
            if path == "pyproject.toml":
                with source.open(info) as file:
                    yield path, file.read(_LIMIT + 1)
            elif path and not info.is_dir():
                yield path, None


def _below(name: str, top: PurePosixPath) -> str:
    """Return the path below `top` in the one folder that every sdist has, '' for what lies elsewhere."""
    path = PurePosixPath(*PurePosixPath(name).parts[1:])
    return str(path.relative_to(top)) if path != top and path.is_relative_to(top) else ""
