"""Pipfile.lock: packages by category with the hashes of their files, whose names only an index knows."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mlbox.codec import load_toml
from mlbox.errors import LockError
from mlbox.lock.foreign.model import Imported, Selection
from mlbox.lock.foreign.reading import (
    Markers,
    Read,
    address,
    bounded,
    commit_of,
    convert,
    filename_of,
    inside,
    name_of,
    repository,
    sha256_of,
    subdirectory_of,
    version_of,
)
from mlbox.lock.foreign.requires import asked_by
from mlbox.lock.python.model import SDISTS, File, Pinned

WHAT = "Pipfile.lock"
_LOCK_AGAIN = "run 'pipenv lock'"
_SPEC = 6
_DEVELOP = ("dev", "develop", "dev-packages")
_OTHER_TABLES = ("source", "packages", "dev-packages", "requires", "scripts", "pipfile", "pipenv", "default", "develop")
# Before they were one 'markers', Pipenv wrote each variable of a marker as a key of its own.
_VARIABLES = (
    *("os_name", "sys_platform", "platform_machine", "platform_python_implementation", "platform_release"),
    *("platform_system", "platform_version", "python_version", "python_full_version", "implementation_name"),
)


class _Source(Read, frozen=True):
    url: str
    name: str = ""


class _Meta(Read, frozen=True):
    pipfile_spec: int = _SPEC
    hash: dict[str, str] = {}
    sources: tuple[_Source, ...] = ()
    requires: dict[str, str] = {}


class _Entry(msgspec.Struct, frozen=True):
    version: str = ""
    hashes: tuple[str, ...] = ()
    index: str = ""
    markers: str = ""
    git: str = ""
    ref: str = ""
    subdirectory: str = ""
    file: str = ""
    path: str = ""


def read_pipfile(data: bytes, selection: Selection) -> Imported:
    """Return what `pipenv sync` with these categories would install; 'dev' is the packages for development."""
    bounded(data, what=WHAT)
    document = _document(data)
    meta = convert(document.get("_meta", {}), _Meta, what=f"{WHAT}: _meta")
    if meta.pipfile_spec != _SPEC:
        raise LockError(
            f"{WHAT}: has version {meta.pipfile_spec}, and this mlbox reads version {_SPEC}",
            hint="upgrade mlbox, or lock with a Pipenv that writes this version",
        )
    if selection.extras:
        raise LockError(f"{WHAT}: knows no extra {', '.join(selection.extras)}", hint="Pipenv has groups (categories)")
    if selection.spec and meta.hash.get("sha256"):
        _check_fresh(meta.hash["sha256"], document.get("_meta", {}), selection.spec)
    python = meta.requires.get("python_full_version") or meta.requires.get("python_version", "")
    if python not in ("", selection.target.python, selection.target.python_full):
        raise LockError(
            f"{WHAT} is for Python {python[:20]}, and the image has {selection.target.python_full}",
            hint=f'set python = "{python[:20]}" in [tool.mlbox], or lock again',
        )
    markers = Markers(selection.target)
    unwanted = _unwanted(selection.requirements, markers)
    pins: dict[str, Pinned] = {}
    for category in ("default", *selection.groups):
        for pinned in _category(document, category, meta, markers, unwanted):
            if pins.setdefault(pinned.name, pinned) != pinned:
                raise LockError(f"{WHAT}: {pinned.name} is there twice with other content", hint=_LOCK_AGAIN)
    return Imported(pins=tuple(pins[name] for name in sorted(pins)), edges=False)


def _document(data: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise LockError(f"{WHAT}: {problem}", hint=_LOCK_AGAIN) from problem
    return found


def _check_fresh(digest: str, meta: Mapping[str, Any], spec: bytes) -> None:
    """Refuse a lock that was made from another Pipfile, by the hash that Pipenv itself compares."""
    table = load_toml(spec, what="Pipfile", error=LockError)
    sources = table.get("source") or meta.get("sources", [])
    for names in (lambda name: name, name_of):  # as of old, and since names are compared normalised

        def section(key: str, names: Any = names) -> dict[str, Any]:  # noqa: ANN401 - a function of either kind
            found = table.get(key, {})
            return {names(name): value for name, value in found.items()} if isinstance(found, dict) else {}

        hashed = {"_meta": {"sources": sources, "requires": table.get("requires", {})}}
        hashed |= {"default": section("packages"), "develop": section("dev-packages")}
        hashed |= {category: section(category) for category in table if category not in _OTHER_TABLES}
        text = json.dumps(hashed, sort_keys=True, separators=(",", ":"), default=str)
        if hashlib.sha256(text.encode()).hexdigest() == digest:
            return
    raise LockError(f"{WHAT} does not fit the Pipfile any more", hint=_LOCK_AGAIN)


def _unwanted(lines: Iterable[str], markers: Markers) -> set[str]:
    """Return what the Pipfile asks for on other machines only: Pipenv locks it without version and marker."""
    return {one.name for one in asked_by(lines)} - {one.name for one in asked_by(lines, markers)}


def _category(
    document: Mapping[str, Any], category: str, meta: _Meta, markers: Markers, unwanted: set[str]
) -> list[Pinned]:
    key = "develop" if category in _DEVELOP else category
    table = next((document[name] for name in document if name_of(name.strip("_")) == name_of(key)), None)
    if table is None and key != "default":
        raise LockError(f"{WHAT}: knows no group {category}", hint=_LOCK_AGAIN)
    if not isinstance(table or {}, dict):
        raise LockError(f"{WHAT}: {key} is no table", hint=_LOCK_AGAIN)
    pins = []
    for name, raw in (table or {}).items():
        entry = convert(raw, _Entry, what=f"{WHAT}: {name[:80]}")
        if markers.hold(_marker(entry, raw)) and not (entry.version == "*" and name_of(name) in unwanted):
            pins.append(_pinned(name_of(name), entry, meta))
    return pins


def _marker(entry: _Entry, raw: Mapping[str, Any]) -> str:
    single = [f"{key} {raw[key]}" for key in _VARIABLES if isinstance(raw.get(key), str)]
    return " and ".join(f"({part})" for part in (entry.markers, *single) if part)


def _pinned(name: str, entry: _Entry, meta: _Meta) -> Pinned:
    version = re.sub(r"^==\s*", "", entry.version)
    if entry.git:
        return Pinned(
            name=name,
            version=version,
            kind="vcs",
            index="git",
            url=repository(entry.git, name),
            commit=commit_of(entry.ref, name),
            subdirectory=subdirectory_of(entry.subdirectory, name),
        )
    if place := entry.file or entry.path:
        return _direct(name, version, place, entry)
    if not entry.version.startswith("==") or entry.version.startswith("===") or "*" in version:
        raise LockError(f"{WHAT}: {name}: {entry.version[:80]!r} is no exact version", hint=_LOCK_AGAIN)
    source = next((one.url for one in meta.sources if one.name == entry.index), "")
    return Pinned(
        name=name,
        version=version_of(version, name),
        index=address(source, name) if "://" in source and "$" not in source else "",
        hashes=tuple(sorted(filter(None, map(sha256_of, entry.hashes)))),
    )


def _direct(name: str, version: str, place: str, entry: _Entry) -> Pinned:
    url = address(place, name) if "://" in place and not place.startswith("file:") else inside(place, name)
    if not url.endswith((".whl", *SDISTS)) and "://" not in url:
        return Pinned(name=name, version=version, kind="directory", index="direct", url=url)
    hashes = [sha256 for text in entry.hashes if (sha256 := sha256_of(text))]
    file = File(filename=filename_of(url, name), url=url, sha256=hashes[0] if len(hashes) == 1 else "")
    return Pinned(name=name, version=version, kind="archive", index="direct", url=url, files=(file,))
