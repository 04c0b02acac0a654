"""poetry.lock: 2.1 says of each package which groups and markers ask for it; older ones are walked from the project."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from mlbox.codec import load_toml
from mlbox.errors import LockError
from mlbox.lock.foreign.constraint import admits
from mlbox.lock.foreign.graph import Asked, Node, walk
from mlbox.lock.foreign.model import Imported, Selection
from mlbox.lock.foreign.reading import (
    Markers,
    Read,
    address,
    commit_of,
    filename_of,
    inside,
    name_of,
    read_toml,
    repository,
    sha256_of,
    subdirectory_of,
    version_of,
)
from mlbox.lock.foreign.requires import asked_by, asked_by_path
from mlbox.lock.python.model import SDISTS, File, Pinned

WHAT = "poetry.lock"
_LOCK_AGAIN = "run 'poetry lock'"
_MAIN = "main"
_HASHED = ("dependencies", "source", "extras", "dev-dependencies")
_HASHED_OF_PROJECT = ("requires-python", "dependencies", "optional-dependencies")


class _File(Read, frozen=True):
    file: str
    hash: str


class _Source(Read, frozen=True):
    type: str = ""
    url: str = ""
    reference: str = ""
    resolved_reference: str = msgspec.field(name="resolved_reference", default="")
    subdirectory: str = ""


class _Package(Read, frozen=True):
    name: str
    version: str
    optional: bool = False
    python_versions: str = "*"
    groups: tuple[str, ...] = ()
    markers: str | dict[str, str] = ""
    files: tuple[_File, ...] | None = None
    dependencies: dict[str, Any] = {}
    extras: dict[str, tuple[str, ...]] = {}
    source: _Source = _Source()


class _Metadata(Read, frozen=True):
    lock_version: str
    python_versions: str = "*"
    content_hash: str = ""
    files: dict[str, tuple[_File, ...]] = {}
    hashes: dict[str, tuple[str, ...]] = {}


class _Lock(Read, frozen=True):
    metadata: _Metadata
    package: tuple[_Package, ...] = ()
    extras: dict[str, tuple[str, ...]] = {}


def read_poetry(data: bytes, selection: Selection) -> Imported:
    """Return what `poetry install --only main` with the extras and groups would install."""
    lock = read_toml(data, _Lock, what=WHAT)
    major, minor = _lock_version(lock.metadata.lock_version)
    if not admits(lock.metadata.python_versions, selection.target.python_full):
        raise LockError(
            f"{WHAT} is for Python {lock.metadata.python_versions}, and the image has {selection.target.python_full}",
            hint="set another python in [tool.mlbox], or widen it in pyproject.toml and run 'poetry lock'",
        )
    known = set(map(name_of, lock.extras))
    if missing := sorted(set(selection.extras) - known):
        raise LockError(f"{WHAT}: knows no extra {', '.join(missing)}", hint=_LOCK_AGAIN)
    if selection.spec:
        _check_fresh(lock.metadata.content_hash, selection.spec)
    markers = Markers(selection.target)
    chosen = _by_groups(lock, selection, markers) if (major, minor) >= (2, 1) else _walked(lock, selection, markers)
    newer = f"is version {lock.metadata.lock_version}; what is newer than 2.1 in it was not read"
    return Imported(pins=_pins(lock, chosen, selection, markers), notes=(newer,) if (major, minor) > (2, 1) else ())


def _lock_version(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})", text)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (1, 0) <= version < (3, 0):
        raise LockError(
            f"{WHAT}: has version {text[:20]!r}, and this mlbox reads 1.x and 2.x",
            hint="upgrade mlbox, or lock with a Poetry that writes version 2.1",
        )
    return version


def _check_fresh(content_hash: str, spec: bytes) -> None:
    """Refuse a lock that was made from other requirements, by the hash that Poetry itself compares."""
    if not content_hash:
        return
    table = load_toml(spec, what="pyproject.toml", error=LockError)
    if content_hash not in {hashlib.sha256(text).hexdigest() for text in _hashed(table)}:
        raise LockError(f"{WHAT} does not fit pyproject.toml any more", hint=_LOCK_AGAIN)


def _hashed(table: dict[str, Any]) -> Iterator[bytes]:
    """Yield what Poetry hashes of pyproject.toml: since 2.3, since 2.0, and before."""
    project, groups = table.get("project"), table.get("dependency-groups")
    tool = table.get("tool")
    poetry = tool.get("poetry") if isinstance(tool, dict) else None
    poetry = poetry if isinstance(poetry, dict) else {}
    old = {key: poetry.get(key) for key in _HASHED} | ({"group": poetry["group"]} if "group" in poetry else {})
    project = project if isinstance(project, dict) else {}
    stated = {key: project[key] for key in _HASHED_OF_PROJECT if project.get(key) is not None}
    for with_groups in ({"dependency-groups": groups} if groups else {}), {}:
        whole: dict[str, Any] = ({"project": stated} if stated else {}) | with_groups
        if whole:
            whole["tool"] = {"poetry": {key: value for key, value in old.items() if value is not None}}
        yield json.dumps(whole or old, sort_keys=True, default=str).encode()
    yield json.dumps(old, sort_keys=True, default=str).encode()


def _by_groups(lock: _Lock, selection: Selection, markers: Markers) -> list[int]:
    """Return the packages of version 2.1 that one of the groups asks for on this machine."""
    groups = {_MAIN, *selection.groups}
    known = {name_of(group) for package in lock.package for group in package.groups}
    if missing := sorted(groups - known - {_MAIN}):
        raise LockError(f"{WHAT}: knows no group {', '.join(missing)}", hint=_LOCK_AGAIN)

    def counts(package: _Package) -> bool:
        for group in package.groups:
            if name_of(group) in groups:
                marker = package.markers if isinstance(package.markers, str) else package.markers.get(group, "")
                if marker == "*" or markers.hold(marker, selection.extras):
                    return True
        return False

    return [number for number, package in enumerate(lock.package) if counts(package)]


def _walked(lock: _Lock, selection: Selection, markers: Markers) -> list[int]:
    """Return the packages of an older lock that are reached from what the project asks for."""
    if lock.package and not selection.requirements:
        raise LockError(
            f"{WHAT}: version {lock.metadata.lock_version} does not say what the project asks for, and no"
            " pyproject.toml beside it does",
            hint="put it beside its pyproject.toml, or run 'poetry lock' with Poetry 2",
        )
    python = selection.target.python_full
    fitting = [number for number, package in enumerate(lock.package) if admits(package.python_versions, python)]
    nodes = [_node(lock.package[number], markers) for number in fitting]
    places = {
        inside(package.source.url, package.name, selection.above): name_of(package.name)
        for package in lock.package
        if package.source.type in ("file", "directory")
    }
    lines = selection.requirements
    roots = [*asked_by(lines, markers), *asked_by_path(lines, places, markers, what=WHAT)]
    reached = walk(roots, nodes, what=WHAT, hint=_LOCK_AGAIN)
    return sorted(fitting[number] for number in reached)


def _node(package: _Package, markers: Markers) -> Node:
    def asks(extra: str) -> Iterator[Asked]:
        for name, one in _dependencies(package):
            if _is_asked(package, name, one, extra, markers):
                yield Asked(name_of(name), str(one.get("version", "")), frozenset(map(name_of, one.get("extras", ()))))

    return Node(name_of(package.name), package.version, asks)


def _dependencies(package: _Package) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each dependency with its table, however short it is written."""
    for name, value in package.dependencies.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                yield name, {"version": one}
            elif isinstance(one, dict) and all(isinstance(one.get(key, ""), str) for key in ("version", "markers")):
                extras = one.get("extras", [])
                if not isinstance(extras, list) or not all(isinstance(extra, str) for extra in extras):
                    raise LockError(f"{WHAT}: {package.name}: the extras of {name[:80]!r} are no list")
                yield name, one
            else:
                raise LockError(f"{WHAT}: {package.name}: {name[:80]!r} is no dependency")


def _is_asked(package: _Package, name: str, one: Mapping[str, Any], extra: str, markers: Markers) -> bool:
    """Whether a package ('' ) or one of its extras asks for the dependency."""
    if not markers.hold(str(one.get("markers", "")), {extra} if extra else ()):
        return False
    wanted = name_of(name)
    listed = {name_of(key) for key, lines in package.extras.items() for line in lines if name_of(_head(line)) == wanted}
    return extra in listed if listed and one.get("optional") else not extra or "extra" in str(one.get("markers", ""))


def _head(line: str) -> str:
    found = re.match(r"\s*([A-Za-z0-9._-]+)", line)
    return found[1] if found else ""


def _pins(lock: _Lock, chosen: Sequence[int], selection: Selection, markers: Markers) -> tuple[Pinned, ...]:
    names = {name_of(lock.package[number].name) for number in chosen}
    asked = _extras_asked([lock.package[number] for number in chosen], selection)
    pins: dict[str, Pinned] = {}
    for number in chosen:
        package = lock.package[number]
        name = name_of(package.name)
        needed = {
            name_of(other)
            for other, one in _dependencies(package)
            if any(_is_asked(package, other, one, extra, markers) for extra in ("", *asked.get(name, ())))
        }
        pinned = _pinned(package, lock, tuple(sorted((needed & names) - {name})), selection.above)
        if name in pins:
            raise LockError(
                f"{WHAT}: {name} is there twice for this machine: {pins[name].version} and {pinned.version}",
                hint=_LOCK_AGAIN,
            )
        pins[name] = pinned
    return tuple(pins[name] for name in sorted(pins))


def _extras_asked(packages: Iterable[_Package], selection: Selection) -> dict[str, set[str]]:
    """Return the extras of each package that the project or another package asks for."""
    asked: dict[str, set[str]] = {}
    for package in packages:
        for name, one in _dependencies(package):
            asked.setdefault(name_of(name), set()).update(map(name_of, one.get("extras", ())))
    for root in asked_by(selection.requirements):
        asked.setdefault(root.name, set()).update(root.extras)
    return asked


def _pinned(package: _Package, lock: _Lock, requires: tuple[str, ...], above: int) -> Pinned:
    name, source = name_of(package.name), package.source
    common: dict[str, Any] = {"name": name, "version": version_of(package.version, name), "requires": requires}
    subdirectory = subdirectory_of(source.subdirectory, name)
    if source.type == "git":
        return Pinned(
            **common,
            kind="vcs",
            index="git",
            url=repository(source.url, name),
            commit=commit_of(source.resolved_reference, name),
            subdirectory=subdirectory,
        )
    if source.type == "directory":
        return Pinned(**common, kind="directory", index="direct", url=inside(source.url, name, above))
    if source.type in ("url", "file"):
        url = address(source.url, name) if source.type == "url" else inside(source.url, name, above)
        filename = filename_of(url, name)
        hashes = [sha256_of(one.hash) for one in _files(package, lock) if one.file == filename]
        file = File(filename=filename, url=url, sha256=hashes[0] if hashes else "")
        return Pinned(**common, kind="archive", index="direct", url=url, files=(file,), subdirectory=subdirectory)
    if source.type not in ("", "legacy"):
        raise LockError(f"{WHAT}: {name}: comes from {source.type[:20]!r}, which this mlbox does not know")
    files = [
        File(filename=filename_of(one.file, name), url="", sha256=sha256)
        for one in _files(package, lock)
        if (sha256 := sha256_of(one.hash))
    ]
    hashes = [] if files else [sha256_of(text) for text in lock.metadata.hashes.get(package.name, ())]
    index = address(source.url, name) if source.type == "legacy" else ""
    return Pinned(**common, index=index, files=tuple(files), hashes=tuple(filter(None, hashes)))


def _files(package: _Package, lock: _Lock) -> tuple[_File, ...]:
    """Return the files of a package; locks before 2.0 keep those of all its versions in one place."""
    if package.files is not None:
        return package.files
    files = lock.metadata.files.get(package.name, ())
    if sum(name_of(other.name) == name_of(package.name) for other in lock.package) == 1:
        return files
    return tuple(one for one in files if _is_of(one.file, package.version))


def _is_of(filename: str, version: str) -> bool:
    if filename.endswith(".whl"):
        parts = filename.split("-")
        return len(parts) > 1 and parts[1].replace("_", "-") == version
    return any(filename.endswith(f"-{version}{suffix}") for suffix in SDISTS)
