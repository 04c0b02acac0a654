"""pdm.lock: with inherited metadata it says who asks for each package; without, it is walked from the project."""

import hashlib
import json
import re
from collections.abc import Iterator
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
from mlbox.lock.python.target import MACHINES

WHAT = "pdm.lock"
_LOCK_AGAIN = "run 'pdm lock'"
_DEFAULT = "default"


class _File(Read, frozen=True):
    hash: str = ""
    file: str = ""
    url: str = ""


class _Package(msgspec.Struct, frozen=True):
    name: str
    version: str = ""
    extras: tuple[str, ...] = ()
    requires_python: str = ""
    groups: tuple[str, ...] = ()
    marker: str = ""
    dependencies: tuple[str, ...] = ()
    files: tuple[_File, ...] = ()
    git: str = ""
    revision: str = ""
    subdirectory: str = ""
    url: str = ""
    path: str = ""


class _Metadata(msgspec.Struct, frozen=True):
    lock_version: str
    groups: tuple[str, ...] = ()
    strategy: tuple[str, ...] = ()
    targets: tuple[dict[str, str], ...] = ()
    content_hash: str = ""
    lock_inputs: dict[str, Any] | None = None


class _Lock(msgspec.Struct, frozen=True):
    metadata: _Metadata
    package: tuple[_Package, ...] = ()


def read_pdm(data: bytes, selection: Selection) -> Imported:
    """Return what `pdm sync --prod` with the extras and groups, which are one thing to PDM, would install."""
    lock = read_toml(data, _Lock, what=WHAT)
    metadata = lock.metadata
    _check_version(metadata.lock_version)
    groups = {_DEFAULT, *selection.extras, *selection.groups}
    known = {_DEFAULT, *map(name_of, metadata.groups or {one for package in lock.package for one in package.groups})}
    if missing := sorted(groups - known):
        raise LockError(f"{WHAT}: was made without {', '.join(missing)}", hint="run 'pdm lock' with these groups")
    if metadata.targets and not any(_fits(target, selection) for target in metadata.targets):
        raise LockError(
            f"{WHAT}: was made for other machines: {'; '.join(map(_shown, metadata.targets))[:300]}",
            hint="'pdm lock --append' adds one, or set another python in [tool.mlbox]",
        )
    if selection.spec and metadata.content_hash and metadata.lock_inputs is None:
        _check_fresh(metadata.content_hash, selection.spec)
    markers = Markers(selection.target)
    if "inherit_metadata" in metadata.strategy:
        chosen = [package for package in lock.package if _counts(package, groups, markers)]
    else:
        chosen = _walked(lock, selection, markers)
    return Imported(pins=_pins(chosen, markers, selection.above))


def _check_version(text: str) -> None:
    # PDM reads a lock whose first number is its own and whose second is not newer.
    found = re.fullmatch(r"4\.([0-9]{1,3})(?:\.[0-9]{1,3})?", text)
    if not found or int(found[1]) > 5:
        raise LockError(
            f"{WHAT}: has version {text[:20]!r}, and this mlbox reads 4.0 to 4.5",
            hint="upgrade mlbox, or run 'pdm lock' with a PDM that writes version 4",
        )


def _fits(target: dict[str, str], selection: Selection) -> bool:
    machine = MACHINES[selection.target.arch]
    platform = target.get("platform", "linux")
    names = ("linux", f"manylinux_{machine}", f"linux_{machine}") if platform == "linux" else ()
    there = platform in names or bool(re.fullmatch(rf"(many)?linux[0-9_]*_{machine}", platform))
    return (
        there
        and target.get("implementation", "cpython").lower() == "cpython"
        and admits(target.get("requires_python", ""), selection.target.python_full)
    )


def _shown(target: dict[str, str]) -> str:
    return " ".join(f"{key} {value}" for key, value in sorted(target.items()))


def _check_fresh(content_hash: str, spec: bytes) -> None:
    """Refuse a lock that was made from other requirements, by the hash that PDM itself compares."""
    table = load_toml(spec, what="pyproject.toml", error=LockError)
    tool = table.get("tool")
    pdm = tool.get("pdm", {}) if isinstance(tool, dict) else {}
    if not isinstance(pdm, dict) or "workspace" in pdm:  # its members count too, and only PDM finds them
        return
    algorithm, _, digest = content_hash.partition(":")
    if algorithm == "sha256" and digest not in {hashlib.sha256(text).hexdigest() for text in _hashed(table, pdm)}:
        raise LockError(f"{WHAT} does not fit pyproject.toml any more", hint=_LOCK_AGAIN)


def _hashed(table: dict[str, Any], pdm: dict[str, Any]) -> Iterator[bytes]:
    """Yield what PDM hashes of pyproject.toml, as of now and before 2.12."""
    project = table.get("project", {})
    development = pdm.get("dev-dependencies", {})
    groups, resolution = table.get("dependency-groups", {}), pdm.get("resolution", {})
    if not all(isinstance(one, dict) for one in (project, development, groups, resolution)):
        raise LockError("pyproject.toml: a list where a table belongs")
    merged = {name_of(group): list(lines) for group, lines in groups.items() if isinstance(lines, list)}
    for group, lines in development.items():
        merged.setdefault(name_of(group), []).extend(lines if isinstance(lines, list) else [])
    common = {
        "sources": pdm.get("source", []),
        "dependencies": project.get("dependencies", []),
        "optional-dependencies": project.get("optional-dependencies", {}),
        "requires-python": project.get("requires-python", ""),
    }
    for more in (
        {"dev-dependencies": merged, "resolution": resolution},
        {"dev-dependencies": development, "resolution": resolution},
        {"dev-dependencies": development, "overrides": resolution.get("overrides", {})},
    ):
        yield json.dumps(common | more, sort_keys=True, default=str).encode()


def _counts(package: _Package, groups: set[str], markers: Markers) -> bool:
    asked = not package.groups or bool(groups & set(map(name_of, package.groups)))
    return asked and markers.hold(package.marker)


def _walked(lock: _Lock, selection: Selection, markers: Markers) -> list[_Package]:
    """Return the packages that are reached from what the project asks for."""
    if lock.package and not selection.requirements:
        raise LockError(
            f"{WHAT}: does not say what the project asks for, and no pyproject.toml beside it does",
            hint="put it beside its pyproject.toml, or run 'pdm lock --strategy inherit_metadata'",
        )
    python = selection.target.python_full
    fitting = [package for package in lock.package if admits(package.requires_python, python)]
    plain = [package for package in fitting if not package.extras]

    def node(package: _Package) -> Node:
        def asks(extra: str) -> Iterator[Asked]:
            if not extra:
                yield from asked_by(package.dependencies, markers)
            for other in fitting if extra else ():
                if (other.name, other.version) == (package.name, package.version) and extra in map(
                    name_of, other.extras
                ):
                    yield from asked_by(other.dependencies, markers)

        return Node(name_of(package.name), package.version, asks)

    places = {
        inside(package.path, package.name, selection.above): name_of(package.name)
        for package in lock.package
        if package.path
    }
    lines = selection.requirements
    roots = [*asked_by(lines, markers), *asked_by_path(lines, places, markers, what=WHAT)]
    reached = walk(roots, [node(package) for package in plain], what=WHAT, hint=_LOCK_AGAIN)
    chosen = [plain[number] for number in reached]
    asked = _extras_asked(chosen, roots, markers)

    def counts(package: _Package) -> bool:
        extras = set(map(name_of, package.extras))
        return extras <= asked.get(name_of(package.name), set()) and any(_same(package, one) for one in chosen)

    return [package for package in fitting if counts(package)]


def _same(one: _Package, other: _Package) -> bool:
    return (one.name, one.version) == (other.name, other.version)


def _extras_asked(packages: list[_Package], roots: list[Asked], markers: Markers) -> dict[str, set[str]]:
    asked: dict[str, set[str]] = {}
    for one in (*roots, *(one for package in packages for one in asked_by(package.dependencies, markers))):
        asked.setdefault(one.name, set()).update(one.extras)
    return asked


def _pins(chosen: list[_Package], markers: Markers, above: int) -> tuple[Pinned, ...]:
    """Return a pin for each name: PDM writes a package once more for each set of its extras."""
    by_name: dict[str, list[_Package]] = {}
    for package in chosen:
        by_name.setdefault(name_of(package.name), []).append(package)
    pins = []
    for name, packages in sorted(by_name.items()):
        versions = sorted({package.version for package in packages})
        if len(versions) > 1:
            raise LockError(
                f"{WHAT}: {name} is there twice for this machine: {' and '.join(versions)}", hint=_LOCK_AGAIN
            )
        lines = [line for package in packages for line in package.dependencies]
        needed = {one.name for one in asked_by(lines, markers)} & set(by_name)
        first = next((package for package in packages if not package.extras), packages[0])
        pins.append(_pinned(first, name, tuple(sorted(needed - {name})), above))
    return tuple(pins)


def _pinned(package: _Package, name: str, requires: tuple[str, ...], above: int) -> Pinned:
    version = version_of(package.version, name) if package.version else ""
    common: dict[str, Any] = {"name": name, "version": version, "requires": requires}
    subdirectory = subdirectory_of(package.subdirectory, name)
    if package.git:
        return Pinned(
            **common,
            kind="vcs",
            index="git",
            url=repository(package.git, name),
            commit=commit_of(package.revision, name),
            subdirectory=subdirectory,
        )
    if place := package.url or package.path:
        url = address(place, name) if package.url else inside(place, name, above)
        if package.path and not url.endswith((".whl", *SDISTS)):
            return Pinned(**common, kind="directory", index="direct", url=url)
        hashes = [sha256_of(one.hash) for one in package.files]
        file = File(filename=filename_of(url, name), url=url, sha256=hashes[0] if hashes else "")
        return Pinned(**common, kind="archive", index="direct", url=url, files=(file,), subdirectory=subdirectory)
    return Pinned(**common, index="", files=tuple(_file(one, name) for one in package.files))


def _file(one: _File, name: str) -> File:
    return File(
        filename=filename_of(one.url or one.file, name),
        url=address(one.url, name) if one.url else "",
        sha256=sha256_of(one.hash),
    )
