"""Folders of the repository as dependencies: members of a workspace, path dependencies of any tool.

Each is read as the project itself is, and what it asks for joins what the project asks for: with the condition under
which the folder is asked for. So a resolver sees names of indexes only, and a folder's file that changes makes a lock
stale as the project's own does. Folders may depend on one another in a circle.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mlbox.codec import load_toml
from mlbox.errors import ProjectError
from mlbox.project.distribution import read_package
from mlbox.project.model import Folder, IndexPin, Package, Requirement
from mlbox.project.problems import Problems, did_you_mean
from mlbox.project.pyproject import FILE, Pyproject, at
from mlbox.project.reading import read_bytes
from mlbox.project.requirement import MAX_LENGTH, local_extras, local_path, marker_of, named_in, normalize, under
from mlbox.project.requirements import RequirementFiles
from mlbox.project.spec import SETUP, Spec
from mlbox.project.tables import both
from mlbox.project.tools import Context, with_tools
from mlbox.project.workspace import Workspace

MAX_FOLDERS = 200
"""Folders that a project may lead to."""
MAX_STEPS = 10_000
"""Requirements that are followed, each as often as there are conditions under which it is reached."""

MAX_CONDITIONS = 4 * MAX_LENGTH
"""Characters of a requirement with all conditions under which it is reached."""

_COMPILING = ("maturin", "scikit_build_core", "mesonpy", "setuptools_rust", "poetry_dynamic")

_COMPILED = "{what} is compiled, which mlbox does not do in a folder"
_HINT = "build a wheel of it and name the wheel, publish it on an index, or depend on it by git URL"

Conditions = frozenset[str]
"""Markers that hold together."""


class Read(NamedTuple):
    """What the files of one folder say."""

    pyproject: Pyproject
    pins: tuple[IndexPin, ...] = ()
    """Of packages that it takes from one index (uv's sources)."""
    compiled: str = ""
    """What of it a compiler makes; empty for nothing."""


class Folders:
    """Follows the folders of one project; what is wrong in them goes to the problems."""

    def __init__(self, root: Path, problems: Problems, workspace: Workspace | None, *, locked: bool) -> None:
        self.pins: list[IndexPin] = []
        self.notes: list[str] = []
        self.read: dict[str, str] = {}
        """The file of each folder, and who asks for it first."""
        self.requires_python: list[tuple[str, str]] = []
        """(file, specifiers) of the folders that are needed wherever the project is."""
        self._root = root
        self._problems = problems
        self._workspace = workspace
        self._locked = locked
        self._found: dict[str, Folder] = {}
        self._own = Folder(path=".", name="", package=None)
        self._reached: dict[tuple[str, str], list[Conditions]] = {}
        # A folder may be reached under many conditions; its lines are parsed once.
        self._files = cache(self._files_of)
        self._requirements = cache(self._requirements_of)

    @property
    def found(self) -> tuple[Folder, ...]:
        """The folders that were reached, sorted by path."""
        return tuple(self._found[path] for path in sorted(self._found))

    def belong_to(self, path: str, name: str) -> None:
        """Say where the project itself lies, and what it is called: it is no folder that it depends on."""
        self._own = Folder(path=path, name=normalize(name), package=None)

    def joined(self, requirements: Iterable[Requirement]) -> tuple[Requirement, ...]:
        """Return `requirements` with all that the folders among them ask for."""
        self._reached.clear()
        found: dict[tuple[str, str, str], Requirement] = {}
        waiting = deque((one, Conditions()) for one in requirements)
        while waiting:
            if len(found) > MAX_STEPS:
                raise ProjectError(f"the folders ask for more than {MAX_STEPS} things of one another")
            requirement, above = waiting.popleft()
            conditions = above | {marker} if (marker := marker_of(requirement)) else above
            one = under(requirement, both(*sorted(conditions))) if above else requirement
            if len(one.text) > MAX_CONDITIONS:
                raise ProjectError(f"{one.origin}: is asked for under conditions of {len(one.text)} characters")
            found.setdefault((one.text, one.origin, one.asked_by), one)
            if one.kind == "folder":
                waiting += [(more, conditions) for more in self._asked(one, conditions)]
            if not waiting:
                waiting += self._by_name(found.values())
        return tuple(found.values())

    def _by_name(self, found: Iterable[Requirement]) -> "list[tuple[Requirement, Conditions]]":
        """Return what extras of folders ask for that somebody names as if they came from an index."""
        paths = {folder.name: folder.path for folder in self._found.values()}
        more: list[tuple[Requirement, Conditions]] = []
        for one in found:
            name, extras = named_in(one)
            if extras and (path := paths.get(name)):
                conditions = Conditions(filter(None, [marker_of(one)]))
                more += [(new, conditions) for new in self._asked_of(path, extras, conditions, one.origin)]
        return more

    def _asked(self, requirement: Requirement, conditions: Conditions) -> Iterator[Requirement]:
        path = Path(local_path(requirement)).as_posix()
        with self._problems.at(requirement.origin):
            if path not in self._found and path != self._own.path:
                self._add(path, requirement)
            if path in self._found and requirement.name not in ("", self._found[path].name):
                raise ProjectError(f"{path} is called {self._found[path].name!r}, not {requirement.name!r}")
            yield from self._asked_of(path, ("", *local_extras(requirement)), conditions, requirement.origin)

    def _asked_of(self, path: str, extras: Iterable[str], conditions: Conditions, origin: str) -> Iterator[Requirement]:
        """Yield what the folder at `path`, or an extra of it, asks for, unless it was asked under no more than this."""
        for extra in extras:
            reached = self._reached.setdefault((path, extra), [])
            if any(known <= conditions for known in reached) or (path == self._own.path and not extra):
                continue
            reached.append(conditions)
            if extra and extra not in (known := self._files(path, "").pyproject.extra_names):
                hint = did_you_mean(extra, known) or "it has none"
                self._problems.add(origin, f"{path} has no extra {extra!r}", hint)
                continue
            yield from self._requirements(path, extra)
            if not conditions and not extra and (allowed := self._files(path, "").pyproject.requires_python):
                self.requires_python.append((self._files(path, "").pyproject.file, allowed))

    def _requirements_of(self, path: str, extra: str) -> list[Requirement]:
        read = self._files(path, extra)
        pyproject, by_extra = read.pyproject, read.pyproject.dynamic_extras()
        self.pins += [pin for pin in read.pins if pin not in self.pins]
        found = pyproject.requirements([extra] if extra else [], (), project=not extra)
        files = RequirementFiles(self._root, self._problems)
        for file in by_extra.get(extra, ()) if extra else pyproject.dynamic_files():
            files.add(self._root / path / file, named_by=f"{pyproject.file} [tool]")
        self.notes += files.notes
        folder = self._found.get(path)
        who = folder.name if folder and folder.package else ""
        return [msgspec.structs.replace(one, asked_by=who) for one in (*found, *files.requirements)]

    def _add(self, path: str, requirement: Requirement) -> None:
        """Read the folder for the first time."""
        if len(self._found) >= MAX_FOLDERS:
            raise ProjectError(f"more than {MAX_FOLDERS} folders are asked for")
        read = self._files(path, "")
        # setup.py may compute it; what is found in the image under another name would be no dependency of anybody.
        read.pyproject.name = read.pyproject.name or requirement.name
        name = normalize(read.pyproject.name)
        if not name:
            raise ProjectError(f"{read.pyproject.file} does not say what it is called", hint="name it in [project]")
        if read.compiled:
            raise ProjectError(f"{path}: {_COMPILED.format(what=read.compiled)}", hint=_HINT)
        if same := next((one for one in (*self._found.values(), self._own) if one.name == name), None):
            where = "the project" if same is self._own else same.path
            raise ProjectError(f"{path} and {where} are both called {name!r}", hint="give each a name of its own")
        package, notes = package_of(self._root, read.pyproject)
        self.notes += notes
        self._found[path] = Folder(path=path, name=name, package=package)
        self.read[read.pyproject.file] = f"{name}, which {requirement.origin} asks for"

    def _files_of(self, path: str, extra: str) -> Read:
        member = self._workspace and (self._root / path) in self._workspace.members.values()
        context = Context(
            self._root,
            FILE if path == "." else f"{path}/{FILE}",
            self._problems,
            extras=(extra,) if extra else (),
            locked=self._locked,
            workspace=self._workspace if member and path != "." else None,
        )
        return read_folder(context)


def is_package(pyproject: Pyproject) -> bool:
    """Whether a member of a workspace is installed even if nothing depends on it."""
    return bool(pyproject.name and pyproject.build_system)


def package_of(root: Path, pyproject: Pyproject) -> tuple[Package | None, list[str]]:
    """Return the distribution that a folder is, and notes; None when it says that it is none and only has needs."""
    if at(pyproject.tool, "uv", "package") is False or at(pyproject.tool, "poetry", "package-mode") is False:
        return None, []
    return read_package(root, pyproject, asked_for=True)


def read_folder(context: Context) -> Read:
    """Return what pyproject.toml, setup.cfg and setup.py of one folder say."""
    root, file, problems = context.root, context.file, context.problems
    table: dict[str, Any] = {}
    with problems.at(file):
        if (root / file).exists():
            table = load_toml(read_bytes(root / file, root=root), what="is not TOML", error=ProjectError)
    spec = with_tools(table, context)
    uses_setup = "project" not in spec.table or "dependencies" in (at(spec.table, "project", "dynamic") or ())
    setup = _setup(root, Path(file).parent, problems if uses_setup else Problems())
    if "project" not in spec.table and setup.table:
        pyproject = Pyproject(
            root, {**table, **setup.table}, problems, file=setup.labels["project"], labels=setup.labels
        )
    else:
        pyproject = Pyproject(root, _with_setup(spec.table, setup.table), problems, file=file, labels=spec.labels)
        missing = "dependencies" in pyproject.dynamic and not pyproject.dynamic_files()
        if missing and not context.locked:
            hint = "list them there"
            problems.add(f"{file} [project.dynamic]", "dependencies are left to the build backend", hint)
    if setup.computed and uses_setup and not context.locked:
        hint = "list what it needs in its pyproject.toml"
        problems.add(setup.labels["project"], f"{setup.computed}, and nothing of a project is run to read it", hint)
    return Read(pyproject, spec.index.pins, _compiled(spec.table, setup))


def _setup(root: Path, path: Path, problems: Problems) -> Spec:
    """Return what setup.cfg and setup.py say, which are read as one."""
    there = [name for name in SETUP if (root / path / name).is_file()]
    if not there:
        return Spec()
    from mlbox.project.setuptools import read_setup

    return read_setup(root, (path / there[-1]).as_posix(), problems)


def _with_setup(table: dict[str, Any], setup: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table with dependencies that [project] leaves to setup.cfg and setup.py."""
    left = [key for key in ("dependencies", "optional-dependencies") if key in (at(table, "project", "dynamic") or ())]
    given = {key: setup["project"][key] for key in left if setup and setup["project"].get(key)}
    if not given or at(table, "tool", "setuptools", "dynamic"):
        return table
    dynamic = [key for key in table["project"]["dynamic"] if key not in given]
    return {**table, "project": {**table["project"], **given, "dynamic": dynamic}}


def _compiled(table: Mapping[str, Any], setup: Spec) -> str:
    """Return what makes a folder one that must be built before it can be imported."""
    backend = str(at(table, "build-system", "build-backend") or "")
    if backend.startswith(_COMPILING):
        return f"what {backend} builds"
    if at(table, "tool", "setuptools", "ext-modules") or at(table, "tool", "setuptools-rust"):
        return "ext-modules"
    if at(table, "tool", "poetry", "build"):
        return "what the build script of Poetry makes"
    return next((note.partition(": ")[2].partition(" is ")[0] for note in setup.notes if " is compiled" in note), "")


def package_in(root: Path, path: str, name: str) -> Package | None:
    """Return the distribution in the folder `path` of the project; None when it is none.

    It is called `name` when its files do not say it.
    """
    problems = Problems()
    read = read_folder(Context(root, FILE if path == "." else f"{path}/{FILE}", problems, locked=True))
    if read.compiled:
        problems.add(path, _COMPILED.format(what=read.compiled), _HINT)
    problems.check()
    read.pyproject.name = read.pyproject.name or name
    return package_of(root, read.pyproject)[0]
