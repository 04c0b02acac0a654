"""pylock.toml (PEP 751): read and selected by packaging, which is the specification's own code."""

import re
from collections.abc import Iterator
from typing import Any

from mlbox.codec import load_toml
from mlbox.errors import LockError
from mlbox.lock.foreign.model import Imported, Selection
from mlbox.lock.foreign.reading import (
    address,
    bounded,
    commit_of,
    filename_of,
    inside,
    name_of,
    repository,
    subdirectory_of,
    version_of,
)
from mlbox.lock.python.model import File, Pinned
from mlbox.lock.python.target import marker_environment, target_tags

WHAT = "pylock.toml"


def read_pylock(data: bytes, selection: Selection) -> Imported:
    """Return what an installer of PEP 751 installs for the extras and groups, the default groups besides."""
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.pylock import PylockSelectError, PylockValidationError

    bounded(data, what=WHAT)
    document = load_toml(data, what=WHAT, error=LockError)
    _check_version(document.get("lock-version"))
    for package in _tables(document.get("packages")):  # Pipenv writes names as they come
        if isinstance(name := package.get("name"), str):
            package["name"] = name_of(name)
    try:
        return _imported(document, selection)
    except PylockSelectError as problem:
        hint = "set another python in [tool.mlbox], or lock again with the tool that made it"
        raise LockError(f"{WHAT}: {str(problem)[:1000]}", hint=hint) from problem
    except (PylockValidationError, UndefinedComparison, UndefinedEnvironmentName, RecursionError) as problem:
        hint = "is it whole? the tool that made it makes it again"
        raise LockError(f"{WHAT}: {str(problem)[:1000]}", hint=hint) from problem


def _check_version(version: object) -> None:
    """Refuse another major version before its packages, which may have other words, are looked at."""
    if not (isinstance(version, str) and re.fullmatch(r"1(\.[0-9]{1,3})*", version)):
        raise LockError(
            f"{WHAT}: has version {str(version)[:20]!r}, and this mlbox reads version 1.0",
            hint="upgrade mlbox, or lock again as version 1.0",
        )


def _tables(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _imported(document: dict[str, Any], selection: Selection) -> Imported:
    from packaging.pylock import Pylock

    lock = Pylock.from_dict(document)
    for kind, wanted, known in (
        ("extra", selection.extras, map(name_of, lock.extras or ())),
        ("group", selection.groups, map(name_of, lock.dependency_groups or ())),
    ):
        if missing := sorted(set(wanted) - set(known)):
            raise LockError(f"{WHAT}: knows no {kind} {', '.join(missing)}")
    groups = {name_of(name): name for name in lock.dependency_groups or ()}
    selected = lock.select(
        environment=marker_environment(selection.target),  # type: ignore[arg-type]
        tags=target_tags(selection.target),
        extras=selection.extras,
        dependency_groups=[*(lock.default_groups or ()), *(groups[name] for name in selection.groups)],
    )
    found = [package for package, _ in selected]
    names = {str(package.name) for package in found}
    pins = sorted((_pinned(package, names, selection.above) for package in found), key=lambda pin: pin.name)
    minor = str(lock.lock_version) != "1.0"
    newer = f"is version {lock.lock_version}; what is newer than 1.0 in it was not read"
    return Imported(pins=tuple(pins), notes=(newer,) if minor else ())


def _pinned(package: Any, names: set[str], above: int) -> Pinned:  # noqa: ANN401 - packaging.pylock.Package, imported late
    name = str(name_of(package.name))
    needed = _needed(package)
    common: dict[str, Any] = {
        "name": name,
        "version": version_of(str(package.version), name) if package.version else "",
        "requires": tuple(sorted((needed & names) - {name})),
    }
    if (vcs := package.vcs) is not None:
        if vcs.type != "git":
            raise LockError(f"{WHAT}: {name}: comes from {vcs.type[:20]!r}, and only git repositories are read")
        if not vcs.url:
            raise LockError(f"{WHAT}: {name}: is a repository on one machine ({str(vcs.path)[:200]})")
        return Pinned(
            **common,
            kind="vcs",
            index="git",
            url=repository(vcs.url, name),
            commit=commit_of(vcs.commit_id, name),
            subdirectory=subdirectory_of(vcs.subdirectory, name),
        )
    if (directory := package.directory) is not None:
        return Pinned(**common, kind="directory", index="direct", url=inside(directory.path, name, above))
    if (archive := package.archive) is not None:
        file = _file(archive, name, above)
        subdirectory = subdirectory_of(archive.subdirectory, name)
        return Pinned(**common, kind="archive", index="direct", url=file.url, files=(file,), subdirectory=subdirectory)
    index = address(package.index, name) if package.index else ""
    return Pinned(**common, index=index, files=tuple(_file(one, name, above) for one in _files(package)))


def _needed(package: Any) -> set[str]:  # noqa: ANN401
    """Return the names of what a package asks for: in the standard's words, or in those of PDM's own table."""
    names = [str(one.get("name", "")) for one in package.dependencies or () if isinstance(one, dict)]
    tool = (package.tool or {}).get("pdm")
    lines = tool.get("dependencies") if isinstance(tool, dict) else None
    names += re.findall(
        r"^[A-Za-z0-9._-]+", "\n".join(map(str, lines if isinstance(lines, list) else [])), re.MULTILINE
    )
    return {name_of(name) for name in names if name}


def _files(package: Any) -> Iterator[Any]:  # noqa: ANN401
    yield from package.wheels or ()
    if package.sdist is not None:
        yield package.sdist


def _file(one: Any, name: str, above: int) -> File:  # noqa: ANN401
    """Return a file; its address when it has one, else its path beside the lock."""
    url = address(one.url, name) if one.url else inside(one.path, name, above)
    filename = filename_of(getattr(one, "filename", None) or url, name)
    sha256 = one.hashes.get("sha256", "")
    return File(filename=filename, url=url, sha256=sha256.lower(), size=max(one.size or 0, 0))
