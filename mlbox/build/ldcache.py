"""What ldconfig would find in a root file system, without running it there."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from mlbox.build.union import Union
from mlbox.elf import read_soname
from mlbox.loader import MACHINES, Library, in_order, order
from mlbox.lock.model import Arch

_BUILTIN = ("/lib", "/usr/lib")
_NAME = re.compile(r"(?:lib|ld-).*\.so.*|ld(?:64)?\.so.*")
_CONF_DEPTH = 10


class _Shared(NamedTuple):
    """What a directory offers under one name: the file's own name, and whether that is a symlink."""

    name: str
    is_link: bool


def libraries(root: Union, arch: Arch) -> list[Library]:
    """Return the lines ldconfig would make of `root`, in its order."""
    found: list[Library] = []
    for directory, place in _directories(root):
        shared = _shared(root, place, MACHINES[arch][0])
        found += [Library(soname, f"{directory}/{soname}") for soname in shared]
    return in_order(found)


def missing_links(root: Union, arch: Arch) -> dict[str, str]:
    """Return the symlinks (path: target) ldconfig would make: a library's soname, where the package has none."""
    links: dict[str, str] = {}
    for _directory, place in _directories(root):
        for soname, file in _shared(root, place, MACHINES[arch][0]).items():
            if not file.is_link and root.entry(f"{place}/{soname}") is None:
                links[f"{place}/{soname}"] = file.name
    return links


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
    return order(known.name) < order(new.name)


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
