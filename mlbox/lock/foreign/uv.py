"""uv.lock: one graph for all machines; what is installed is walked from the project, as `uv sync` does."""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlunsplit

from mlbox.errors import LockError
from mlbox.lock.foreign.graph import Edge, reach
from mlbox.lock.foreign.model import Imported, Selection
from mlbox.lock.foreign.reading import (
    Markers,
    Read,
    address,
    check_python,
    commit_of,
    filename_of,
    inside,
    name_of,
    read_toml,
    repository,
    sha256_of,
    split,
    subdirectory_of,
    version_of,
)
from mlbox.lock.foreign.requires import Wanted, check_wanted, wanted_by_pyproject
from mlbox.lock.model import Target
from mlbox.lock.python.model import File, Pinned
from mlbox.lock.python.target import best_file

WHAT = "uv.lock"
_LOCK_AGAIN = "run 'uv lock'"
_VERSION = 1


class _Dependency(Read, frozen=True):
    name: str
    version: str = ""
    source: dict[str, Any] = {}
    extra: tuple[str, ...] = ()
    marker: str = ""


class _File(Read, frozen=True):
    url: str = ""
    path: str = ""
    filename: str = ""
    hash: str = ""
    size: int = 0


class _Requirement(Read, frozen=True):
    name: str
    specifier: str = ""
    marker: str = ""
    extras: tuple[str, ...] = ()
    url: str = ""
    git: str = ""
    path: str = ""
    directory: str = ""
    editable: str = ""
    virtual: str = ""


class _Metadata(Read, frozen=True):
    requires_dist: tuple[_Requirement, ...] = ()
    provides_extras: tuple[str, ...] = ()
    requires_dev: dict[str, tuple[_Requirement, ...]] = {}


class _Package(Read, frozen=True):
    name: str
    version: str = ""
    source: dict[str, Any] = {}
    dependencies: tuple[_Dependency, ...] = ()
    optional_dependencies: dict[str, tuple[_Dependency, ...]] = {}
    dev_dependencies: dict[str, tuple[_Dependency, ...]] = {}
    sdist: _File | None = None
    wheels: tuple[_File, ...] = ()
    metadata: _Metadata = _Metadata()


class _Conflict(Read, frozen=True):
    package: str
    extra: str = ""
    group: str = ""


class _Manifest(Read, frozen=True):
    members: tuple[str, ...] = ()
    dependency_groups: dict[str, tuple[_Requirement, ...]] = {}


class _Lock(Read, frozen=True):
    version: int
    requires_python: str = ""
    supported_markers: tuple[str, ...] = ()
    conflicts: tuple[tuple[_Conflict, ...], ...] = ()
    manifest: _Manifest = _Manifest()
    package: tuple[_Package, ...] = ()


def read_uv(data: bytes, selection: Selection) -> Imported:
    """Return what `uv sync --no-default-groups` with the extras and groups would install."""
    lock = read_toml(data, _Lock, what=WHAT)
    if lock.version != _VERSION:
        raise LockError(
            f"{WHAT}: has version {lock.version}, and this mlbox reads version {_VERSION}",
            hint="upgrade mlbox, or lock with a uv that writes version 1",
        )
    check_python(lock.requires_python, selection.target, what=WHAT)
    markers = Markers(selection.target)
    if lock.supported_markers and not any(map(markers.hold, lock.supported_markers)):
        raise LockError(
            f"{WHAT}: was made only for {' or '.join(lock.supported_markers)[:300]}, and the image is none of them",
            hint="widen [tool.uv] environments, then run 'uv lock'",
        )
    return _Walk(lock, selection, markers).imported()


class _Walk:
    """From the project through its lock."""

    def __init__(self, lock: _Lock, selection: Selection, markers: Markers) -> None:
        self._lock = lock
        self._packages = lock.package
        self._selection = selection
        self._markers = markers
        self._numbers: dict[str, list[int]] = {}
        for number, package in enumerate(lock.package):
            self._numbers.setdefault(name_of(package.name), []).append(number)
        self._roots = self._find_roots()
        alone = len(self._roots) == 1 and self._is_at(self._roots[0], selection.folder)
        self._project = self._roots[0] if alone else None
        """None where the members of a workspace are what is installed."""
        self._active: frozenset[str] = frozenset()

    def imported(self) -> Imported:
        self._check_names()
        self._check_spec()
        found = self._settled()
        self._check_folders(found)
        pins: dict[str, Pinned] = {}
        for number, needed in found.items():
            package = self._packages[number]
            if number == self._project or "virtual" in package.source:
                continue
            names = {name_of(self._packages[one].name) for one in needed}
            pinned = _pinned(package, tuple(sorted(names - {name_of(package.name)})), self._selection.target)
            if pinned.name in pins:
                raise LockError(
                    f"{WHAT}: {pinned.name} is there twice for this machine:"
                    f" {pins[pinned.name].version} and {pinned.version}",
                    hint=_LOCK_AGAIN,
                )
            pins[pinned.name] = pinned
        return Imported(pins=tuple(pins[name] for name in sorted(pins)))

    def _find_roots(self) -> tuple[int, ...]:
        """Return the project, or all members where the lock's root is none."""
        folder = self._selection.folder
        if here := [number for number in range(len(self._packages)) if self._is_at(number, folder)]:
            return (here[0],)
        members = [
            number for member in self._lock.manifest.members for number in self._numbers.get(name_of(member), ())
        ]
        if folder != "." or not (members or self._lock.manifest.dependency_groups):
            raise LockError(f"{WHAT}: is not the lock of {folder if folder != '.' else 'a project'}", hint=_LOCK_AGAIN)
        return tuple(members)

    def _is_at(self, number: int, folder: str) -> bool:
        place = _place(self._packages[number].source)
        return place is not None and posixpath.normpath(place) == folder

    def _check_names(self) -> None:
        """Refuse extras and groups that do not exist, or that the lock says exclude one another."""
        roots = [self._packages[number] for number in self._roots]
        extras = {name_of(e) for p in roots for e in (*p.optional_dependencies, *p.metadata.provides_extras)}
        groups = {name_of(g) for p in roots for g in (*p.dev_dependencies, *p.metadata.requires_dev)}
        groups |= set(map(name_of, self._lock.manifest.dependency_groups))
        for kind, wanted, known in (
            ("extra", self._selection.extras, extras),
            ("group", self._selection.groups, groups),
        ):
            if missing := sorted(set(wanted) - known):
                raise LockError(f"{WHAT}: knows no {kind} {', '.join(missing)}", hint=_LOCK_AGAIN)

    def _check_spec(self) -> None:
        """Refuse a lock whose project asks for something else by now."""
        if not self._selection.spec:
            return
        metadata, name = _Metadata(), ""
        if self._project is not None:
            metadata, name = self._packages[self._project].metadata, name_of(self._packages[self._project].name)
        groups = metadata.requires_dev
        if self._selection.folder == ".":
            groups = groups | self._lock.manifest.dependency_groups
        locked = {name_of(group): [_wanted(one) for one in ones] for group, ones in groups.items()}
        if self._project is not None:
            locked[""] = [_wanted(one) for one in metadata.requires_dist]
        check_wanted(wanted_by_pyproject(self._selection.spec), locked, name=name, what=WHAT, hint=_LOCK_AGAIN)

    def _check_folders(self, found: Iterable[int]) -> None:
        """Refuse a lock when a folder of the repository asks for something else by now."""
        for package in (self._packages[number] for number in found if number != self._project):
            place = _place(package.source)
            spec = self._selection.specs.get(posixpath.normpath(place), b"") if place is not None else b""
            asked = wanted_by_pyproject(spec) if spec else None
            if asked and "" in asked:  # groups of those that are no members are not locked
                locked = {"": [_wanted(one) for one in package.metadata.requires_dist]}
                name, file = name_of(package.name), f"{place}/pyproject.toml"
                check_wanted({"": asked[""]}, locked, name=name, what=WHAT, hint=_LOCK_AGAIN, spec=file)

    def _settled(self) -> dict[int, set[int]]:
        """Walk until the extras that conflicts speak of are those that the walk itself asks for."""
        self._active = frozenset(self._of_project())
        while True:
            reached: set[str] = set(self._active)
            found = self._walk(reached)
            if frozenset(reached) == self._active:
                break
            self._active = frozenset(reached)
        for conflict in self._lock.conflicts:
            clash = [one for one in conflict if _encoded(one) in self._active]
            if len(clash) > 1:
                names = " and ".join(f"{'extra' if one.extra else 'group'} {one.extra or one.group}" for one in clash)
                raise LockError(f"{WHAT}: {names} exclude one another", hint="ask for one of them")
        return found

    def _of_project(self) -> Iterator[str]:
        for number in self._roots:
            name = name_of(self._packages[number].name)
            yield f"project-{len(name)}-{name}"
            yield from (_extra_key(name, extra) for extra in self._selection.extras)
            yield from (f"group-{len(name)}-{name}-{group}" for group in self._selection.groups)

    def _walk(self, reached: set[str]) -> dict[int, set[int]]:
        def edges(number: int, extra: str) -> Iterable[Edge]:
            package = self._packages[number]
            if extra:
                reached.add(_extra_key(name_of(package.name), extra))
                return self._edges(_table(package.optional_dependencies, extra))
            needed = list(self._edges(package.dependencies))
            if number in self._roots:
                for group in self._selection.groups:
                    needed += self._edges(_table(package.dev_dependencies, group))
            return needed

        asked = frozenset(self._selection.extras)
        roots = [Edge(number, asked) for number in self._roots]
        for group in self._selection.groups:
            roots += self._edges_of_requirements(self._lock.manifest.dependency_groups.get(group, ()))
        return reach(roots, edges)

    def _edges(self, dependencies: Iterable[_Dependency]) -> Iterator[Edge]:
        for dependency in dependencies:
            if self._markers.hold(dependency.marker, self._active):
                yield Edge(self._meant(dependency), frozenset(map(name_of, dependency.extra)))

    def _edges_of_requirements(self, requirements: Iterable[_Requirement]) -> Iterator[Edge]:
        for one in requirements:
            if self._markers.hold(one.marker, self._active):
                yield Edge(self._meant(_Dependency(name=one.name)), frozenset(map(name_of, one.extras)))

    def _meant(self, dependency: _Dependency) -> int:
        """Return the package that a dependency means; the lock says which where there are several."""
        found = [
            number
            for number in self._numbers.get(name_of(dependency.name), ())
            if dependency.version in ("", self._packages[number].version)
            and (not dependency.source or dependency.source == self._packages[number].source)
        ]
        if len(found) != 1:
            how = "has no package" if not found else "does not say which"
            raise LockError(
                f"{WHAT}: {how} {dependency.name!r} {dependency.version} that is asked for", hint=_LOCK_AGAIN
            )
        return found[0]


def _table(table: Mapping[str, tuple[_Dependency, ...]], key: str) -> tuple[_Dependency, ...]:
    return next((value for name, value in table.items() if name_of(name) == key), ())


def _place(source: Mapping[str, Any]) -> str | None:
    """Return the folder of a source that is one of the repository's."""
    found = next((source[key] for key in ("editable", "virtual", "directory") if key in source), None)
    return str(found) if found is not None else None


def _extra_key(name: str, extra: str) -> str:
    # How uv writes "extra X of package P is asked for" in the markers of a lock with conflicts.
    return f"extra-{len(name)}-{name}-{extra}"


def _encoded(one: _Conflict) -> str:
    name = name_of(one.package)
    if one.extra:
        return _extra_key(name, name_of(one.extra))
    return f"group-{len(name)}-{name}-{name_of(one.group)}" if one.group else f"project-{len(name)}-{name}"


def _pinned(package: _Package, requires: tuple[str, ...], target: Target) -> Pinned:
    name = name_of(package.name)
    source = {key: value for key, value in package.source.items() if isinstance(value, str)}
    version = version_of(package.version, name) if package.version else ""
    common: dict[str, Any] = {"name": name, "version": version, "requires": requires}
    if registry := source.get("registry"):
        web = "://" in registry
        index = address(registry, name) if web else ""
        # All wheels for all machines are listed: only the one that is taken is looked at closely.
        offered = tuple(map(_offered, _files(package)))
        best = best_file(offered, target)
        files = tuple(_checked(one, name, "" if web else registry) for one in ([best] if best else offered))
        return Pinned(**common, index=index, files=files)
    if git := source.get("git"):
        return Pinned(**common, kind="vcs", index="git", **_git(git, name))
    if place := source.get("url") or source.get("path"):
        url = address(place, name) if "url" in source else inside(place, name)
        return Pinned(**common, kind="archive", index="direct", **_archive(package, url, name))
    if (folder := _place(source)) is not None:
        return Pinned(**common, kind="directory", index="direct", url=inside(folder, name))
    raise LockError(f"{WHAT}: {name}: comes from {sorted(package.source)}, which this mlbox does not know")


def _files(package: _Package) -> Iterator[_File]:
    yield from package.wheels
    if package.sdist:
        yield package.sdist


def _offered(one: _File) -> File:
    name = (one.filename or one.path or one.url).rpartition("/")[2]
    return File(
        filename=unquote(re.split("[?#]", name, maxsplit=1)[0]), url=one.url or one.path, sha256=one.hash, size=one.size
    )


def _checked(file: File, name: str, folder: str) -> File:
    url = inside(f"{folder}/{file.url or file.filename}", name) if folder else address(file.url, name)
    filename = filename_of(file.filename, name)
    return File(filename=filename, url=url, sha256=sha256_of(file.sha256), size=max(file.size, 0))


def _git(git: str, name: str) -> dict[str, Any]:
    """Read 'https://host/repo?rev=main&subdirectory=x#<commit>'."""
    parts = split(re.sub(r"\s", "", git), name)
    query = parse_qs(parts.query)
    return {
        "url": repository(urlunsplit(parts._replace(query="", fragment="")), name),
        "commit": commit_of(parts.fragment, name),
        "subdirectory": subdirectory_of(next(iter(query.get("subdirectory", [])), ""), name),
    }


def _archive(package: _Package, url: str, name: str) -> dict[str, Any]:
    """Read a direct address or a file of the repository: one file, which the lock hashes."""
    filename = filename_of(url, name)
    one = next((one for one in _files(package) if sha256_of(one.hash)), _File())
    file = File(filename=filename, url=url, sha256=sha256_of(one.hash), size=max(one.size, 0))
    return {"url": url, "files": (file,), "subdirectory": subdirectory_of(package.source.get("subdirectory"), name)}


def _wanted(one: _Requirement) -> Wanted:
    free = bool(one.url or one.git or one.path or one.directory or one.editable or one.virtual)
    return Wanted.of(one.name, one.specifier, one.extras, one.marker, free=free)
