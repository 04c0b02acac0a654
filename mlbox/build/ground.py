"""The system below an environment: which libraries the dynamic loader finds there, and whose they would be."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from mlbox.build.binaries import is_library
from mlbox.build.linking import Ground
from mlbox.build.union import Union
from mlbox.codec import load_toml
from mlbox.errors import ArchiveError
from mlbox.loader import parse_cache
from mlbox.lock.model import Arch
from mlbox.store.tree import Tree

_TRIPLETS: dict[Arch, str] = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
_BUILTIN = ("lib", "usr/lib", "lib64", "usr/lib64")


def read_ground(layers: Sequence[tuple[Path, Tree]], arch: Arch, path: str, glibc: int) -> Ground:
    """Return what the loader finds in `layers`, the lowest first; `path` is LD_LIBRARY_PATH, `glibc` 36 for 2.36."""
    root = Union.of_layers(layers)
    first = tuple(place for folder in path.split(":") if folder.startswith("/") and (place := root.resolve(folder)))
    names = {name for place in (*first, *_builtin(root, arch)) for name in root.children(place) if is_library(name)}
    with suppress(ArchiveError):
        names.update(line.name for line in parse_cache(root.read("etc/ld.so.cache") or b"", arch))
    return Ground(names=frozenset(names), files=dict(_files(root)), first=first, glibc=glibc)


def _builtin(root: Union, arch: Arch) -> Iterator[str]:
    for folder in _BUILTIN:
        for place in (root.resolve(folder), root.resolve(f"{folder}/{_TRIPLETS[arch]}")):
            if place:
                yield place


def _files(root: Union) -> Iterator[tuple[str, int]]:
    for path in root.paths():
        if is_library(path):
            end = root.resolve(path)
            entry = root.entry(end) if end else None
            if entry is not None and entry.kind in ("file", "link"):
                yield path, entry.size


@cache
def _table() -> dict[str, dict[str, str]]:
    path = Path(__file__).with_name("libraries.toml")
    return load_toml(path.read_bytes(), what=str(path))


def package_of(library: str, suite: str) -> str:
    """Return the package of the release `suite` ('trixie', 'noble') that has `library`, '' when it is not known."""
    table = _table()
    return table.get(suite, {}).get(library) or (table["all"].get(library, "") if suite in table else "")
