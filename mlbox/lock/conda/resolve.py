"""Project x Target -> locked conda packages and the pins of the wheels beside them."""

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from mlbox.errors import LockError
from mlbox.events import Listener
from mlbox.http import Http
from mlbox.lock.conda.channels import Channels
from mlbox.lock.conda.model import PinnedConda
from mlbox.lock.grouping import group_layers
from mlbox.lock.model import CondaPackage, LayerGroup, Lock, Package, Target
from mlbox.lock.python.choosing import remember_url
from mlbox.lock.python.model import Indexes, Pinned
from mlbox.paths import Home
from mlbox.project.model import Project
from mlbox.project.requirement import named_in

KINDS = ("conda-lock", "pixi", "conda-explicit")
"""The foreign locks that hold conda packages."""
_AT_ONCE = 8


class LockedConda(NamedTuple):
    """The conda part of a lock, sorted by name."""

    packages: tuple[CondaPackage, ...]
    pins: tuple[Pinned, ...]


def is_conda(project: Project) -> bool:
    """Return whether the project's environment is one of conda."""
    return project.foreign.kind in KINDS if project.foreign else project.conda is not None


def lock_conda(
    project: Project,
    target: Target,
    indexes: Indexes,
    *,
    previous: Lock | None,
    upgrade: bool | Sequence[str],
    http: Http,
    listener: Listener,
    home: Home,
) -> LockedConda:
    """Take what the project's foreign lock pins, or resolve its environment with conda-lock.

    Versions of `previous` are kept where the spec allows it, except those that `upgrade` names (True: all). Where files
    are is remembered in `home`. Raises ResolveError, LockError, FetchError.
    """
    spec = project.conda
    channels = Channels(spec.channels if spec else (), home=home, learn=http.learn)
    if project.foreign:
        found = _imported(project, target, upgrade, listener)
    else:
        found = _resolved(project, target, indexes, channels, previous, upgrade, listener, home)
    pinned, pins = found
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        complete = tuple(pool.map(lambda one: _completed(one, previous, channels, http), pinned))
    for one in complete:
        remember_url(home, one.package.sha256, one.url)
    return LockedConda(_with_origins([one.package for one in complete], project), pins)


def group_conda(packages: Iterable[CondaPackage], previous: Sequence[LayerGroup]) -> tuple[LayerGroup, ...]:
    """Return which conda packages share a layer: the rule is that of wheels."""
    sized = [
        Package(
            name=one.name, version=one.version, filename="", sha256="", size=one.size, accelerators=one.accelerators
        )
        for one in packages
    ]
    return group_layers(sized, previous)


_Pins = tuple[tuple[PinnedConda, ...], tuple[Pinned, ...]]


def _imported(project: Project, target: Target, upgrade: bool | Sequence[str], listener: Listener) -> _Pins:
    from mlbox.lock.foreign.importing import read_foreign, upgrade_note

    foreign = project.foreign
    assert foreign  # noqa: S101 - the caller saw it
    listener.step(f"take the versions that {foreign.path} pins")
    if upgrade:
        listener.note(upgrade_note(project, () if upgrade is True else upgrade))
    imported = read_foreign(project, foreign, target)
    for note in imported.notes:
        listener.note(note)
    known = {one.package.name for one in imported.conda}
    missing = [one for one in (project.conda.dependencies if project.conda else ()) if _name(one.text) not in known]
    if missing:
        raise LockError(
            f"{foreign.path} has no {_name(missing[0].text)}, which {missing[0].origin} asks for",
            hint="lock again with the tool that owns the lock",
        )
    return imported.conda, imported.pins


def _resolved(
    project: Project,
    target: Target,
    indexes: Indexes,
    channels: Channels,
    previous: Lock | None,
    upgrade: bool | Sequence[str],
    listener: Listener,
    home: Home,
) -> _Pins:
    from mlbox.lock.conda.conda_lock import CondaQuestion, lock_with_conda_lock

    spec = project.conda
    assert spec  # noqa: S101 - the caller saw it
    if unfit := [one for one in project.requirements if one.kind == "path"]:
        raise LockError(
            f"{unfit[0].origin}: {unfit[0].text!r} is a path, which conda-lock does not lock for an image",
            hint="build a wheel of it and publish it on an index",
        )
    if indexes.find_links and any(one.kind != "folder" for one in project.requirements):
        listener.note("conda-lock knows no find-links: the pip section is locked from the indexes alone")
    folders = {one.name for one in project.folders}
    keep = previous if previous and upgrade is not True else None
    # Builds for another accelerator would stay for ever: the solver is content with them.
    same = keep is not None and keep.target.accelerator == target.accelerator
    question = CondaQuestion(
        spec=spec,
        # Which of the folders are installed, its Python decides, which is not known yet.
        requirements=tuple(
            one.text for one in project.requirements if one.kind != "folder" and named_in(one)[0] not in folders
        ),
        target=target,
        indexes=indexes,
        keep=tuple(one for one in keep.conda if same or _has_one_build(one)) if keep else (),
        keep_wheels=tuple(one for one in keep.packages if one.is_wheel and not one.url) if keep else (),
        upgrade=() if isinstance(upgrade, bool) else tuple(upgrade),
    )
    listener.step(f"resolve {len(spec.dependencies)} conda packages with conda-lock")
    imported = lock_with_conda_lock(question, channels, home.metadata / "conda")
    return imported.conda, imported.pins


def _has_one_build(package: CondaPackage) -> bool:
    """Whether a package is the same for every accelerator."""
    return package.subdir == "noarch" or package.name == "python"


def _completed(one: PinnedConda, previous: Lock | None, channels: Channels, http: Http) -> PinnedConda:
    """Return the package with its sha256 and size; what only md5 names is fetched once for that."""
    package = one.package
    before = {known.filename: known for known in (previous.conda if previous else ())}.get(package.filename)
    if before and package.sha256 in ("", before.sha256) and (package.sha256 or before.channel == package.channel):
        size = package.size or before.size
        if package.sha256:
            return replace(one, package=replace(package, size=size or http.size_of(one.url)))
    if package.sha256:
        return one if package.size else replace(one, package=replace(package, size=http.size_of(one.url)))
    with tempfile.TemporaryDirectory(prefix="mlbox-conda-") as folder:
        path = Path(folder) / package.filename
        http.download([one.url], path, sha256=package.md5, name=package.filename)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return replace(one, package=replace(package, sha256=sha256, size=path.stat().st_size))


def _with_origins(packages: Sequence[CondaPackage], project: Project) -> tuple[CondaPackage, ...]:
    """Say who asks for what: the spec's lines, else the lock for what no other package asks for."""
    origins: dict[str, list[str]] = {}
    for one in project.conda.dependencies if project.conda else ():
        origins.setdefault(_name(one.text), []).append(one.origin)
    if not origins and project.foreign:
        needed = {name for package in packages for name in package.requires}
        origins = {package.name: [project.foreign.path] for package in packages if package.name not in needed}
    return tuple(replace(one, wanted_by=tuple(origins.get(one.name, ()))) for one in packages)


def _name(spec: str) -> str:
    """Return the package that a MatchSpec names."""
    rest = spec.rpartition("::")[2]
    end = next((at for at, letter in enumerate(rest) if letter in " =<>!~["), len(rest))
    return rest[:end].lower()
