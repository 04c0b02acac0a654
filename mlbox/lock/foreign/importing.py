"""Taking a foreign lock in place of a resolver's answer: read, compare with its spec, complete what it lacks."""

import hashlib
import posixpath
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from msgspec.structs import replace

from mlbox.errors import LockError, MlboxError
from mlbox.events import SILENT, Listener
from mlbox.http import Http, redact_text
from mlbox.lock.debian import RELEASES
from mlbox.lock.foreign.completing import complete, unfit
from mlbox.lock.foreign.model import Imported, Reader, Selection
from mlbox.lock.foreign.reading import MAX_SIZE
from mlbox.lock.model import Package, Target
from mlbox.lock.python.model import Indexes, Pinned
from mlbox.project.locks import Known, lock_named
from mlbox.project.model import ForeignLock, Project, Requirement
from mlbox.project.requirement import normalize

_READERS = {
    "uv": ("uv", "read_uv"),
    "pylock": ("pylock", "read_pylock"),
    "poetry": ("poetry", "read_poetry"),
    "pdm": ("pdm", "read_pdm"),
    "pipenv": ("pipfile", "read_pipfile"),
    "conda-lock": ("conda_lock", "read_conda_lock"),
    "pixi": ("pixi", "read_pixi"),
    "conda-explicit": ("conda_explicit", "read_conda_explicit"),
}

_PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
"""For which a lock may have been made, oldest first."""


def reader_of(kind: str) -> Reader:
    """Return the reader of this kind of lock."""
    if kind not in _READERS:
        raise LockError(f"locks of {kind} are not read as Python locks")
    module, function = _READERS[kind]
    reader: Reader = getattr(import_module(f"mlbox.lock.foreign.{module}"), function)
    return reader


def import_pins(
    project: Project,
    target: Target,
    indexes: Indexes,
    http: Http,
    *,
    known: Sequence[Package] = (),
    listener: Listener = SILENT,
) -> tuple[Pinned, ...]:
    """Return the pins of the project's foreign lock for `target`, with everything a lock of ours needs to know.

    What the `known` packages of an earlier lock say of the same files is not asked again. Raises LockError when the
    lock cannot be read or contradicts its spec, FetchError when what it lacks cannot be had.
    """
    foreign = project.foreign
    assert foreign  # noqa: S101 - the caller saw it
    listener.step(f"take the versions that {foreign.path} pins")
    imported = read_foreign(project, foreign, target)
    for note in imported.notes:
        listener.note(f"{foreign.path}: {note}")
    if missing := unfit(imported.pins, target):
        raise LockError(
            f"{foreign.path}: has no file for Python {target.python} on {target.arch} of "
            + ", ".join(f"{pin.name} {pin.version}".rstrip() for pin in missing),
            hint=_other_python(project, target) or "lock again with its owner, for this Python and machine",
        )
    folder = (project.root / foreign.path).parent
    pins = complete(
        imported.pins, target, indexes, http, folder=folder, root=project.root, known=known, what=foreign.path
    )
    if imported.edges or not pins:
        return pins
    from mlbox.lock.foreign.edges import with_edges

    return with_edges(pins, (one.text for one in project.requirements if one.kind == "named"), target, http, known)


def has_files_for(project: Project, target: Target) -> bool:
    """Whether the project's foreign lock, as far as it names files, has one of each package for `target`."""
    assert project.foreign  # noqa: S101 - the caller saw it
    try:
        return not unfit(read_foreign(project, project.foreign, target).pins, target)
    except LockError:  # for another Python, or damaged: who imports it says so
        return False


def _other_python(project: Project, target: Target) -> str:
    """Return how to get a Python for which the lock has all files: one of Debian's, else the newest; empty for none."""
    debian = sorted(RELEASES.values(), key=_PYTHONS.index, reverse=True)
    for python in (*debian, *(python for python in reversed(_PYTHONS) if python not in debian)):
        if has_files_for(project, replace(target, python=python, python_full=f"{python}.99")):
            image = "" if python in debian else f' and base = "docker.io/library/python:{python}-slim"'
            return f'for Python {python} it has them: write python = "{python}"{image} into [tool.mlbox]'
    return ""


def read_foreign(project: Project, foreign: ForeignLock, target: Target) -> Imported:
    """Read the lock beside the project as it is now, compared with its spec."""
    path = project.root / foreign.path
    data = _bytes(path)
    if hashlib.sha256(data).hexdigest() != foreign.sha256:
        raise LockError(f"{foreign.path} changed while it was read", hint="run the command again")
    own = [one for one in project.requirements if not one.asked_by]
    selection = Selection(
        target=target,
        extras=tuple(map(normalize, project.settings.extras)),
        groups=tuple(map(normalize, project.settings.groups)),
        folder=posixpath.relpath(project.member or ".", Path(foreign.path).parent.as_posix()),
        above=len(Path(foreign.path).parent.parts),
        requirements=tuple(_from_lock(one, foreign) for one in own if "://" not in one.text.partition("@")[0]),
        spec=_spec(project, foreign),
        specs={
            posixpath.relpath(file.parent.as_posix(), Path(foreign.path).parent.as_posix()): _bytes(project.root / file)
            for file in (Path(source.path) for source in project.sources if source.used)
            if file.name == "pyproject.toml"
        },
    )
    return _mended(foreign, lambda: reader_of(foreign.kind)(data, selection))


def _from_lock(requirement: Requirement, foreign: ForeignLock) -> str:
    """Return a requirement with its path as seen from the lock, which lies where the member's file does."""
    up = "../" * len(Path(foreign.path).parent.parts)
    return f"./{up}{requirement.text[2:]}" if requirement.kind in ("path", "folder") else requirement.text


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SIZE + 1)
    except OSError as problem:
        raise LockError(f"{path.name}: cannot be read: {problem.strerror}") from problem


def _spec(project: Project, foreign: ForeignLock) -> bytes:
    known = lock_named(foreign.path)
    folder = project.root / project.member if project.member else (project.root / foreign.path).parent
    spec = folder / (known.spec if known else "pyproject.toml")
    return _bytes(spec) if spec.is_file() and foreign.kind != "pylock" else b""


def _mended(foreign: ForeignLock, read: Callable[[], Imported]) -> Imported:
    """Name the owner's command where a reader's error does not say what mends it; no password gets into one."""
    known = lock_named(foreign.path)
    try:
        return read()
    except MlboxError as problem:
        problem.message = redact_text(problem.message)
        problem.args = (problem.message,)
        if problem.hint is None and known and known.mend:
            problem.hint = f"'{known.mend}' makes it again"
        raise


def upgrade_note(project: Project, names: Sequence[str]) -> str:
    """Return who decides the versions that `mlbox lock --upgrade` was asked to move."""
    assert project.foreign  # noqa: S101 - the caller saw it
    known: Known | None = lock_named(project.foreign.path)
    command = known.upgrade if known else ""
    if known and len(names) == 1 and known.upgrade_one:
        command = known.upgrade_one.replace("PACKAGE", names[0])
    how = f": '{command}' moves {'it' if len(names) == 1 else 'them'}" if command else ""
    what = (
        f"the version{'s' if len(names) > 1 else ''} of {', '.join(names)}"
        if names
        else "the Python packages' versions"
    )
    return f"{project.foreign.path} decides {what}{how}"
