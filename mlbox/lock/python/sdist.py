"""Reading build-system.requires (PEP 518) from a source archive or tree, without unpacking or running anything."""

import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from mlbox.codec import load_toml
from mlbox.errors import ArchiveError

_LIMIT = 1 << 20
_MEMBERS = 200_000
# What pip assumes when pyproject.toml is absent or has no [build-system] (PEP 517, PEP 518).
_LEGACY = ("setuptools>=40.8.0",)
# What these back ends ask for only when they run (get_requires_for_build_wheel) and find no program of that name.
_HIDDEN = {"scikit_build_core.build": ("cmake>=3.15", "ninja>=1.5"), "mesonpy": ("ninja>=1.8.2",)}


def build_requires(archive: Path, *, subdirectory: str = "") -> tuple[str, ...]:
    """Return the requirements for building `archive` (.tar.*, .zip)."""
    wanted = PurePosixPath(subdirectory) / "pyproject.toml"
    try:
        data = _from_zip(archive, wanted) if zipfile.is_zipfile(archive) else _from_tar(archive, wanted)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as problem:
        raise ArchiveError(f"{archive.name}: not a readable source archive: {problem}") from problem
    return requires_of(data, what=f"{archive.name}: pyproject.toml")


def build_requires_of_tree(folder: Path, *, what: str) -> tuple[str, ...]:
    """Return the requirements for building the source tree `folder`."""
    path = folder / "pyproject.toml"
    if path.is_symlink() or not path.is_file():
        return _LEGACY
    return requires_of(path.read_bytes()[: _LIMIT + 1], what=f"{what}: pyproject.toml")


def requires_of(data: bytes | None, *, what: str) -> tuple[str, ...]:
    """Return build-system.requires of a pyproject.toml, with pip's defaults."""
    if data is None:
        return _LEGACY
    if len(data) > _LIMIT:
        raise ArchiveError(f"{what}: larger than {_LIMIT} bytes")
    system: Any = load_toml(data, what=what, error=ArchiveError).get("build-system")
    if system is None:
        return _LEGACY
    requires = system.get("requires") if isinstance(system, dict) else None
    if not isinstance(requires, list) or not all(isinstance(line, str) for line in requires):
        raise ArchiveError(f"{what}: [build-system] has no list of requires")
    backend = system.get("build-backend") or ""
    hidden = _HIDDEN.get(backend if isinstance(backend, str) else "", ())
    return tuple(dict.fromkeys([*requires, *([] if backend else _LEGACY), *hidden]))


def _from_tar(archive: Path, wanted: PurePosixPath) -> bytes | None:
    with tarfile.open(archive, "r|*") as tar:
        for count, member in enumerate(tar):
            if count > _MEMBERS:
                raise ValueError(f"more than {_MEMBERS} members")
            if member.isfile() and _below_top(member.name) == wanted:
                file = tar.extractfile(member)
                return file.read(_LIMIT + 1) if file else None
    return None


def _from_zip(archive: Path, wanted: PurePosixPath) -> bytes | None:
    with zipfile.ZipFile(archive) as source:
        for info in source.infolist():
            if _below_top(info.filename) == wanted:
                with source.open(info) as file:
                    return file.read(_LIMIT + 1)
    return None


def _below_top(name: str) -> PurePosixPath:
    """Drop the one folder that every sdist has at its top."""
    return PurePosixPath(*PurePosixPath(name).parts[1:])
