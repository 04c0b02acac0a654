"""The folders of the project in its lock: which of them are installed, and what each asks for."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mlbox.errors import LockError, ResolveError
from mlbox.lock.model import Folder
from mlbox.lock.python.asked import Asked
from mlbox.lock.python.model import Pinned
from mlbox.project.model import Project

_UNPINNED = ("distribute", "pip", "setuptools", "wheel")
"""What lockers of old leave out."""


class Split(NamedTuple):
    """What a lock of another tool pins: folders of the repository, and what is fetched."""

    folders: tuple[Folder, ...]
    pins: tuple[Pinned, ...]


def split(pins: Sequence[Pinned], asked: Asked, project: Project) -> Split:
    """Return the folders among `pins`, without the project itself, and the rest.

    Raises LockError for a folder that is none of the project's, and when the lock does not have what a folder asks for.
    """
    own = project.member or "."
    placed = [(pin, _place(pin, project)) for pin in pins if pin.kind == "directory"]
    dropped = {pin.name for pin, place in placed if place == own}
    rest = tuple(pin for pin in pins if pin.kind != "directory")
    names = {*asked.folders, *(pin.name for pin in rest), *(pin.name for pin, _ in placed)} - dropped
    found = tuple(
        Folder(
            name=pin.name,
            path=place,
            requires=tuple(sorted(names & {*pin.requires, *asked.edges.get(pin.name, ())})),
            wanted_by=asked.origins.get(pin.name, ()),
        )
        for pin, place in placed
        if place != own
    )
    _check_whole(found, names | dropped, asked, project)
    return Split(found, rest)


def folders_of(asked: Asked, pins: Iterable[Pinned]) -> tuple[Folder, ...]:
    """Return the folders that the project leads to, which `pins` were resolved for."""
    names = {*asked.folders, *(pin.name for pin in pins)}
    return tuple(
        Folder(
            name=name,
            path=path,
            requires=tuple(sorted(names.intersection(asked.edges.get(name, ())))),
            wanted_by=asked.origins.get(name, ()),
        )
        for name, path in sorted(asked.folders.items())
    )


def check_apart(folders: Iterable[Folder], pins: Iterable[Pinned]) -> None:
    """Refuse a package that is called like a folder of the project: one of the two would hide the other."""
    places = {folder.name: folder.path for folder in folders}
    if found := next((pin for pin in pins if pin.name in places), None):
        raise ResolveError(
            f"{found.name} {found.version} of an index has the name of the project's folder {places[found.name]}",
            hint="rename the folder's distribution, or depend on the folder where the package is asked for",
        )


def _place(pin: Pinned, project: Project) -> str:
    """Return where a pinned folder is, from the project's root."""
    root = project.root.resolve()
    lock = Path(project.foreign.path) if project.foreign else Path()
    path = (root / lock.parent / pin.url).resolve()
    what = project.foreign.path if project.foreign else "the lock"
    if not path.is_relative_to(root):
        raise LockError(
            f"{what}: {pin.name}: {pin.url!r} leaves the project's folder",
            hint="run mlbox in the folder that has both, or copy it below the project",
        )
    if not path.is_dir():
        gone = "is no folder" if path.exists() else "is not there"
        raise LockError(f"{what}: {pin.name}: {pin.url} {gone}", hint="restore it, or lock again without it")
    return path.relative_to(root).as_posix()


def _check_whole(folders: Iterable[Folder], names: set[str], asked: Asked, project: Project) -> None:
    """Refuse a lock that a folder's own file has outgrown, which its owner may not notice."""
    files = {one.name: one.path for one in project.folders}
    for folder in folders:
        lost = sorted(asked.edges.get(folder.name, frozenset()) - names - asked.replaced - {*_UNPINNED})
        if lost and folder.name in files and project.foreign:
            raise LockError(
                f"{project.foreign.path} has no {', '.join(lost)}, which the folder {folder.path} asks for",
                hint="lock again with the tool that owns the lock",
            )
