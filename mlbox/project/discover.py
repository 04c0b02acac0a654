"""Which spec files a repository has, which of them count, and the Project they make.

Requirements come from the first of these that there is; the others are listed with the reason why not:
1. the files, or the lock of another tool, named by `requirements` in the settings, whatever kind they are;
2. what the first lock of mlbox.project.locks is made from: such a lock decides the versions;
3. pyproject.toml, when [project] has dependencies (or its build backend reads them from files);
4. the first of mlbox.project.spec.CANDIDATES that asks for something.
Extras and dependency groups that are asked for come from what counts, and from pyproject.toml in any case.
Settings come from mlbox.toml or from [tool.mlbox] of pyproject.toml, never from both.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from mlbox.codec import load_toml, quoted
from mlbox.errors import ProjectError
from mlbox.project import pyproject as pyproject_file
from mlbox.project import settings as settings_file
from mlbox.project.distribution import read_package
from mlbox.project.folders import Folders, Read, is_package, read_folder
from mlbox.project.inputs import inputs_digest
from mlbox.project.locks import KNOWN, choose_lock, lock_named, only_lock, read_lock_of
from mlbox.project.model import CondaSpec, ForeignLock, IndexOptions, Project, Requirement, Settings, Source
from mlbox.project.plain import APT, VERSION, read_python
from mlbox.project.problems import Problems, did_you_mean
from mlbox.project.pyproject import Pyproject
from mlbox.project.reading import read_bytes
from mlbox.project.requirement import normalize
from mlbox.project.requirements import RequirementFiles
from mlbox.project.settings import Where, check_settings, outside, read_settings
from mlbox.project.spec import CANDIDATES, SETUP, Reader, Spec, reader_of
from mlbox.project.workspace import Workspace, workspace_above, workspace_of

__all__ = ["NoSpecError", "inputs_digest", "load_project"]

_LONGEST_NAME = 200  # a repository of an image may have 255 letters, what goes before the name included


def load_project(
    root: Path,
    *,
    extras: Sequence[str] = (),
    groups: Sequence[str] = (),
    python: str = "",
    accelerator: str = "",
    accelerators: Sequence[str] = (),
    resolver: Literal["", "uv", "pip-tools"] = "",
    requirements: Sequence[str] = (),
) -> Project:
    """Read the specs of the repository at `root`; what is given here overrides or, for extras and groups, adds.

    Raises one ProjectError that names everything wrong in all of the files.
    """
    root = root.absolute()
    if not root.is_dir():
        raise ProjectError(f"{root}: is not a folder", hint="run mlbox in the folder of the project")
    overrides: dict[str, Any] = {
        "python": python,
        # One or several: who names several on the command line means these alone.
        "accelerator": accelerator or ("cpu" if accelerators else ""),
        "accelerators": tuple(accelerators),
        "resolver": resolver,
        "requirements": tuple(requirements),
    }
    given = {key: value for key, value in overrides.items() if value}
    return _Loader(root).load(given, tuple(extras), tuple(groups))


class NoSpecError(ProjectError):
    """Nothing in the folder says what it needs."""


class _Choice(NamedTuple):
    """What counts: files, [project] of pyproject.toml, and why."""

    files: tuple[str, ...] = ()
    project: bool = False
    reason: str = ""


class _Loader:
    """Reads one project; every step adds to the problems, which are raised at the end."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._problems = Problems()
        self._sources: list[Source] = []
        self._notes: list[str] = []
        self._files = RequirementFiles(root, self._problems)
        self._table = self._root_table = self._toml(pyproject_file.FILE)
        self._own_table = self._toml(settings_file.FILE)
        self._standard = Spec(table=self._table or {})
        """pyproject.toml as if everything stood in [project] and [dependency-groups]."""
        self._file = pyproject_file.FILE
        """The pyproject.toml that says what the project is: a member's when the settings name one."""
        self._workspace: Workspace | None = None
        self._folders = Folders(root, self._problems, None, locked=False)
        self._members: list[Read] = []
        """The members of a workspace whose root is no project itself."""
        self._pyproject = Pyproject(root, {}, self._problems)
        self._specs: dict[str, Spec] = {}
        """What was read of other kinds of files."""
        self._counting: list[Pyproject] = []
        """Those of them that count and have the words of [project]."""
        self._counted: list[str] = []
        self._foreign: ForeignLock | None = None
        self._conda: CondaSpec | None = None
        self._python = ("", "")
        """What one of them names, and which."""
        self._system_packages: list[str] = []
        self._python_stated: list[tuple[str, str]] = []
        """Who names Pythons (file, specifiers)."""

    def load(self, given: dict[str, Any], extras: tuple[str, ...], groups: tuple[str, ...]) -> Project:
        """Return the whole Project, or raise all problems."""
        self._require_a_spec(given)
        settings, where = self._settings(given, extras, groups)
        self._read_workspace()
        self._choose_member(settings, where)
        self._foreign = self._foreign_lock(settings)
        locked = self._foreign is not None
        self._folders = Folders(self._root, self._problems, self._workspace, locked=locked)
        self._read_pyproject(settings)
        self._note_workspace_above()
        python, named_by, sources = read_python(self._root, self._problems)
        self._sources += sources
        requirements = self._requirements(settings, where)
        variants = self._variants(settings)
        settings = self._with_system_packages(settings)
        if self._conda:  # conda sets them when it activates the environment
            settings = msgspec.structs.replace(settings, env={**self._conda.variables, **settings.env})
        settings, index = self._with_accelerator(settings, where)
        package, notes = read_package(self._root, self._own, asked_for=self._files.itself is not None)
        requires_python = self._requires_python(chosen=bool(settings.python or python))
        python, named_by = (python, named_by) if python else self._python
        self._check_python(settings, python, named_by, requires_python, where)
        self._problems.check()
        return Project(
            root=self._root,
            name=_image_name(self._own.name or self._root.name),
            settings=settings,
            sources=tuple(self._sources),
            requirements=requirements,
            constraints=tuple(self._files.constraints),
            overrides=tuple(self._files.overrides),
            index=index,
            requires_python=requires_python,
            python_file=python,
            package=package,
            member="" if self._folder == self._root else Path(self._file).parent.as_posix(),
            folders=self._folders.found,
            variants=variants,
            conda=self._conda,
            foreign=self._foreign,
            notes=tuple(dict.fromkeys([*self._notes, *self._files.notes, *self._folders.notes, *notes])),
        )

    @property
    def _own(self) -> Pyproject:
        """What says which distribution the project is."""
        if self._pyproject.has_project:
            return self._pyproject
        return next((one for one in self._counting if one.file in SETUP), self._pyproject)

    @property
    def _metadata(self) -> list[Pyproject]:
        """pyproject.toml and what else counts and has extras, groups or a Python."""
        return [self._pyproject, *self._counting]

    @property
    def _folder(self) -> Path:
        """Where the file lies that says what the project is."""
        return (self._root / self._file).parent

    def _toml(self, file: str) -> dict[str, Any] | None:
        if not (self._root / file).exists():
            return None
        with self._problems.at(file):
            return load_toml(read_bytes(self._root / file, root=self._root), what="is not TOML", error=ProjectError)
        return {}

    def _there(self, files: Iterable[str]) -> list[str]:
        return [file for file in files if (self._root / file).is_file()]

    @property
    def _candidates(self) -> list[str]:
        """The files that may count without being named, beside the one that says what the project is."""
        below = Path(self._file).parent
        return self._there((below / file).as_posix() for file in CANDIDATES)

    def _require_a_spec(self, given: dict[str, Any]) -> None:
        if self._table is not None or self._own_table is not None or given.get("requirements"):
            return
        if self._there(CANDIDATES) or choose_lock(self._root, None)[0]:
            return
        if others := _other_files(self._root):
            raise NoSpecError(
                f"{self._root}: found only {', '.join(others[:5])}, which mlbox does not read by itself",
                hint="list what it needs in requirements.txt, or name the files in mlbox.toml: requirements = [...]",
            )
        raise NoSpecError(
            f"{self._root}: has no pyproject.toml, requirements.txt or mlbox.toml",
            hint="run mlbox in the project's folder; 'mlbox init' shows what its code imports, and"
            " 'mlbox init --template train' starts a new one",
        )

    def _read_workspace(self) -> None:
        with self._problems.at(f"{pyproject_file.FILE} [tool.uv.workspace]"):
            self._workspace = workspace_of(self._root, self._table or {}, self._root)

    def _choose_member(self, settings: Settings, where: Where) -> None:
        """Let the file of the member count that the settings name; any folder with such a file may be one."""
        if not (wanted := settings.package):
            return
        members = self._workspace.members if self._workspace else {}
        folder = members.get(normalize(wanted)) or self._root / wanted
        file = folder / pyproject_file.FILE
        if outside(wanted) or not file.is_file():
            hint = did_you_mean(wanted, members) or "name a member of the workspace, or a folder with a pyproject.toml"
            self._problems.add(where("package"), f"there is no package {wanted[:100]!r}", hint)
            return
        self._file = file.relative_to(self._root).as_posix()
        self._table = self._toml(self._file)
        if pyproject_file.at(self._table, "tool", "mlbox") is not None:
            self._notes.append(f"{self._file} [tool.mlbox] has no effect: the settings are those of the root")

    def _read_pyproject(self, settings: Settings) -> None:
        """Read what the tools' tables add; uv's sources depend on the extras."""
        if self._table is None:
            return
        from mlbox.project.tools import Context, with_tools

        is_member = self._workspace and self._folder != self._root and self._folder in self._workspace.members.values()
        context = Context(
            self._root,
            self._file,
            self._problems,
            tuple(map(normalize, settings.extras)),
            self._foreign is not None,
            self._workspace if is_member else None,
        )
        self._standard = with_tools(self._table, context)
        self._pyproject = Pyproject(
            self._root, self._standard.table, self._problems, file=self._file, labels=self._standard.labels
        )
        named = settings.requirements and pyproject_file.FILE not in settings.requirements and not self._foreign
        if self._workspace and not (self._pyproject.has_project or settings.package or named):
            self._members = [
                read_folder(msgspec.structs.replace(context, file=file, workspace=self._workspace))
                for folder in sorted(self._workspace.members.values())
                for file in [(folder / pyproject_file.FILE).relative_to(self._root).as_posix()]
            ]

    def _note_workspace_above(self) -> None:
        """Say that uv would take versions from a lock that lies above: what is read here is this folder alone."""
        if self._workspace or self._foreign or not self._pyproject.has_project:
            return
        if above := workspace_above(self._root):
            member = self._root.resolve().relative_to(above).as_posix()
            self._notes.append(
                f"this is a member of the workspace {above}, whose lock does not count here: there, with"
                f" package = {member!r} in [tool.mlbox], it does"
            )

    def _requires_python(self, *, chosen: bool) -> str:
        """Return the specifiers of the project and of the folders that it cannot do without.

        Unless a Python is `chosen`, setup.py says which ones its author knows, also beside a requirements.txt.
        """
        own = next(((one.file, one.requires_python) for one in self._metadata if one.requires_python), None)
        if own is None and not (chosen or self._foreign or self._conda) and (there := self._there(SETUP)):
            from mlbox.project.setuptools import read_setup

            table = read_setup(self._root, there[-1], unsaid := Problems()).table
            own = (there[-1], Pyproject(self._root, table, unsaid, file=there[-1]).requires_python)
        members = [(one.pyproject.file, one.pyproject.requires_python) for one in self._members]
        self._python_stated = [one for one in (own, *members, *self._folders.requires_python) if one and one[1]]
        stated = list(dict.fromkeys(text for _, text in self._python_stated))
        if len(stated) < 2:
            return next(iter(stated), "")
        from packaging.specifiers import SpecifierSet

        return str(SpecifierSet(",".join(stated)))

    def _settings(
        self, given: dict[str, Any], extras: tuple[str, ...], groups: tuple[str, ...]
    ) -> tuple[Settings, Where]:
        in_pyproject = pyproject_file.at(self._table, "tool", "mlbox")
        file = pyproject_file.FILE if self._own_table is None and in_pyproject is not None else settings_file.FILE
        if self._own_table is not None and in_pyproject is not None:
            self._problems.add(file, "pyproject.toml has [tool.mlbox] too", "keep one of the two")
        table = in_pyproject if file == pyproject_file.FILE else self._own_table or {}
        overridden = [*given, *(["extras"] if extras else []), *(["groups"] if groups else [])]
        where = Where(file, overridden, table if isinstance(table, dict) else ())
        if not isinstance(table, dict):
            self._problems.add(file, "tool.mlbox must be a table")
            table = {}
        settings = read_settings(table, where, self._problems)
        settings = msgspec.structs.replace(
            settings,
            **given,
            extras=tuple(dict.fromkeys((*settings.extras, *extras))),
            groups=tuple(dict.fromkeys((*settings.groups, *groups))),
        )
        check_settings(settings, where, self._root, self._problems)
        if self._own_table is not None or (in_pyproject is not None and settings.package):
            self._sources.append(Source(path=file, used=True, reason="settings"))
        return settings, where

    def _check_names(self, settings: Settings, where: Where) -> None:
        having = [*self._metadata, *(one.pyproject for one in self._members)]
        extras = {extra for one in having for extra in one.extra_names}
        groups = {group for one in having for group in one.group_names}
        for key, names, known in (("extras", settings.extras, extras), ("groups", settings.groups, groups)):
            for name in names:
                if normalize(name) not in known:
                    kind = "extra" if key == "extras" else "dependency group"
                    hint = did_you_mean(name, known) or f"{self._metadata[-1].file} has none"
                    self._problems.add(where(key), f"there is no {kind} {name!r}", hint)

    def _check_python(self, settings: Settings, python: str, named_by: str, allowed: str, where: Where) -> None:
        stated = settings.python or python
        if not stated or not allowed or not VERSION.fullmatch(stated):
            return
        minor = ".".join(stated.split(".")[:2])
        if not _admits(allowed, minor):
            place = where("python") if settings.python else named_by
            file = next((file for file, text in self._python_stated if not _admits(text, minor)), self._file)
            self._problems.add(
                place, f"Python {stated} contradicts requires-python {allowed!r} of {file}", "change one of them"
            )

    def _foreign_lock(self, settings: Settings) -> ForeignLock | None:
        """Return the lock of another tool that counts; all that are there become sources."""
        known, others = choose_lock(self._root, self._root_table)
        path, reason = known.file if known else "", "it pins what its tool would install"
        if self._folder != self._root and (known is None or known.kind != "uv"):
            # Only uv has one lock for all members; what lies at the root is that of something else.
            below = Path(self._file).parent
            known, others = choose_lock(self._folder, self._table)
            path = (below / known.file).as_posix() if known else ""
            others = [msgspec.structs.replace(one, path=(below / one.path).as_posix()) for one in others]
        if settings.requirements:
            known = None
            with self._problems.at("requirements"):
                known = only_lock(settings.requirements)
            others = [Source(path=one.file, used=False, reason="what the settings name comes first") for one in KNOWN]
            path, reason = settings.requirements[0], "the settings name it"
        self._sources += [one for one in others if one.path in self._there([one.path]) and one.path != path]
        if known is None or not self._there([path]):  # a missing one is a problem already
            return None
        self._sources.append(Source(path=path, used=True, reason=reason))
        with self._problems.at(path):
            return read_lock_of(self._root, path, known.kind)
        return None

    def _requirements(self, settings: Settings, where: Where) -> tuple[Requirement, ...]:
        choice = self._choose(settings)
        for file in choice.files:
            if (self._root / file).is_file():  # a missing one is a problem already
                self._add(file)
        if self._foreign is None:  # which extras and groups a lock has, its reader knows
            self._check_names(settings, where)
        itself = self._files.itself
        if itself and not self._own.has_project:
            self._add_setup()
        use_project = choice.project or itself is not None
        wanted = (*settings.extras, *(itself.extras if itself else ()))
        own = []
        if use_project or settings.extras or settings.groups or self._members:
            self._take(self._file, self._standard)
        for one in self._metadata:
            used = one is not self._pyproject or use_project
            self._add_dynamic(one, wanted, used)
            own += one.requirements(wanted, settings.groups, project=used)
        if itself:
            self._check_own_extras(itself.extras)
        own += self._of_members(settings)
        requirements = self._joined((*self._files.requirements, *own))
        self._list_sources(choice, use_project, settings)
        return requirements

    def _of_members(self, settings: Settings) -> Iterator[Requirement]:
        """Yield what all members of the workspace are asked for, as uv installs them where its root is no project."""
        for member in self._members:
            one = member.pyproject
            extras = [extra for extra in map(normalize, settings.extras) if extra in one.extra_names]
            if is_package(one):
                text = f"./{Path(one.file).parent.as_posix()}" + (f"[{','.join(extras)}]" if extras else "")
                yield Requirement(text=text, origin=f"{self._file} [tool.uv.workspace]", kind="folder")
            else:
                self._add_dynamic(one, extras, used=True)
                yield from one.requirements(extras, (), project=True)
            yield from one.requirements((), settings.groups, project=False)

    def _joined(self, requirements: Iterable[Requirement]) -> tuple[Requirement, ...]:
        """Return the requirements with those of the folders among them."""
        own = self._own
        if own.name:
            self._folders.belong_to(Path(own.file).parent.as_posix(), own.name)
        with self._problems.at(self._file):
            found = self._folders.joined(requirements)
            self._files.add_index(IndexOptions(pins=tuple(self._folders.pins)))
            return found
        return ()

    def _add_setup(self) -> None:
        """Let setup.cfg and setup.py count, because '-e .' asks for the project."""
        if not (there := self._there(SETUP)):
            hint = "add [project] with name, version and dependencies"
            self._problems.add(self._files.itself_at, "the project has no [project] in pyproject.toml", hint)
            return
        self._add(there[-1])

    def _with_system_packages(self, settings: Settings) -> Settings:
        """Return the settings with what apt.txt asks for; it counts by itself unless they name packages."""
        if (self._root / APT).is_file() and APT not in self._specs:
            used = not (settings.system_packages or settings.requirements)
            if used:
                self._add(APT)
            reason = "system packages" if used else "the settings come first"
            self._sources.append(Source(path=APT, used=used, reason=reason))
        names = tuple(dict.fromkeys((*settings.system_packages, *self._system_packages)))
        return msgspec.structs.replace(settings, system_packages=names)

    def _variants(self, settings: Settings) -> dict[str, tuple[Requirement, ...]]:
        """Return what the extras ask for that are called like an accelerator: each belongs to that one alone."""
        found: dict[str, tuple[Requirement, ...]] = {}
        for name in settings.accelerators:
            extra = normalize(name)
            having = [one for one in self._metadata if extra in one.extra_names]
            if any(extra in one.dynamic_extras() for one in having):
                hint = "list it in [project.optional-dependencies]"
                self._problems.add(f"the extra {name} of an accelerator", "is read from a file", hint)
            if having:
                asked = [text for one in having for text in one.requirements([extra], (), project=False)]
                found[name] = self._joined(asked)
        return found

    def _with_accelerator(self, settings: Settings, where: Where) -> tuple[Settings, IndexOptions]:
        """Return settings and index options where pins of torch to its index for CUDA have become the accelerator."""
        index = self._files.index
        if not index.pins:
            return settings, index
        from mlbox.project.accelerator import accelerator_of_pins

        found = accelerator_of_pins(index.pins)
        if found.accelerator and not where.states("accelerator", "accelerators"):
            settings = msgspec.structs.replace(
                settings, accelerator=found.accelerator, accelerator_indexes=found.indexes
            )
            self._notes.append(f"accelerator = {found.accelerator!r}, as {found.why} says")
        return settings, msgspec.structs.replace(index, pins=found.others)

    def _choose(self, settings: Settings) -> _Choice:
        project = self._pyproject
        if self._foreign:
            known = lock_named(self._foreign.path)
            made_from = self._there({known.spec} & set(CANDIDATES)) if known and not settings.package else []
            return _Choice(
                tuple(made_from), project.has_project and not made_from, f"{self._foreign.path} is made from it"
            )
        if settings.requirements:
            files = tuple(file for file in settings.requirements if file != pyproject_file.FILE)
            return _Choice(files, len(files) < len(settings.requirements), "the settings name it")
        if project.dependencies or project.dynamic_files() or self._standard.conda or self._standard.lines:
            return _Choice((), project=True, reason="[project] of pyproject.toml comes first")
        if self._members:
            return _Choice(project=True, reason="the members of the workspace come first")
        for file in self._candidates:
            if (reader := reader_of(file)) is None:
                return _Choice((file,), reason="the project's requirements")
            spec = self._spec(file, reader)
            if spec.computed and not pyproject_file.at(spec.table, "project", "dependencies"):
                hint = "list what it needs in requirements.txt (an empty one says: nothing)"
                if spec.computed_from:
                    named = ", ".join(map(quoted, spec.computed_from))
                    hint = f"it names {named}: requirements = [{named}] in [tool.mlbox] of pyproject.toml takes that"
                self._problems.add(file, f"{spec.computed}, and nothing of a project is run to read it", hint)
            if spec.asks:
                return _Choice((file,), reason="the first spec that asks for something")
        if "dependencies" in project.dynamic:
            hint = "list them there, or in requirements.txt"
            self._problems.add(f"{self._file} [project.dynamic]", "dependencies are left to the build backend", hint)
        return _Choice(project=project.has_project)

    def _spec(self, file: str, reader: Reader) -> Spec:
        if file not in self._specs:
            self._specs[file] = reader(self._root, file, self._problems)
        return self._specs[file]

    def _add(self, file: str) -> None:
        """Let `file` count, whatever kind it is."""
        reader = reader_of(file)
        if reader is None:
            self._files.add(self._root / file)
            return
        spec = self._spec(file, reader)
        self._counted.append(file)
        if spec.table:
            self._counting.append(Pyproject(self._root, spec.table, self._problems, file=file, labels=spec.labels))
        self._take(file, spec)

    def _take(self, file: str, spec: Spec) -> None:
        """Let count what a spec has beside [project] and groups."""
        folder = (self._root / file).parent
        self._notes += spec.notes
        self._python = self._python if self._python[0] else (spec.python, file)
        self._system_packages += (line.text for line in spec.system_packages)
        if spec.computed:
            self._notes.append(f"{file}: {spec.computed}, and only what is written down is read")
        self._files.add_index(spec.index)
        self._files.add_limits(spec.constraints, spec.overrides, folder)
        before = len(self._files.requirements)
        self._files.add_lines(spec.lines, folder)
        if spec.conda:
            if self._conda:
                self._problems.add(file, f"{self._conda.path} is a conda environment too", "name one of the two")
            pip = tuple(self._files.requirements[before:])
            self._conda = msgspec.structs.replace(spec.conda, requirements=pip)

    def _add_dynamic(self, one: Pyproject, extras: Iterable[str], used: bool) -> None:
        by_extra, folder = one.dynamic_extras(), (self._root / one.file).parent
        files = one.dynamic_files() if used else []
        for file in (*files, *(file for extra in extras for file in by_extra.get(normalize(extra), ()))):
            self._files.add(folder / file, named_by=f"{one.file} [tool]")

    def _check_own_extras(self, extras: Iterable[str]) -> None:
        known = self._own.extra_names
        for extra in extras:
            if extra not in known:
                hint = did_you_mean(extra, known) or "pyproject.toml has none"
                self._problems.add(self._files.itself_at, f"there is no extra {extra!r}", hint)

    def _list_sources(self, choice: _Choice, use_project: bool, settings: Settings) -> None:
        if self._table is not None:
            self._sources.append(self._pyproject_source(use_project, settings, bool(choice.files)))
        self._sources += [self._counted_source(file, choice) for file in self._counted]
        for file, named_by in self._files.read:
            why = f"read by {named_by}" if named_by else choice.reason
            self._sources.append(Source(path=file, used=True, reason=why))
        used = {source.path for source in self._sources if source.used}
        first = self._foreign.path if self._foreign else next(iter(choice.files), "pyproject.toml")
        first = "what the settings name" if settings.requirements else first
        for member in self._members:
            if member.pyproject.file not in self._folders.read:
                self._sources.append(Source(path=member.pyproject.file, used=True, reason="member of the workspace"))
        for file, who in self._folders.read.items():
            self._sources.append(Source(path=file, used=True, reason=f"folder {who}"))
        for file in self._candidates:
            if file not in used:
                silent = file in self._specs and not self._specs[file].asks
                reason = "names no requirements" if silent else f"{first} comes first"
                self._sources.append(Source(path=file, used=False, reason=reason))
        for file in _other_files(self._root):
            if file not in used:
                self._sources.append(Source(path=file, used=False, reason="only read when requirements names it"))

    def _counted_source(self, file: str, choice: _Choice) -> Source:
        reason = choice.reason if file in choice.files else f"read by {self._files.itself_at}"
        return Source(path=file, used=True, reason=reason)

    def _pyproject_source(self, use_project: bool, settings: Settings, has_files: bool) -> Source:
        project = self._pyproject
        own = "mlbox" in project.tool and self._own_table is None and not settings.package
        parts = ["settings"] if own else []
        stated = self._standard.labels.get("project.dependencies", "[project] dependencies")
        parts += ["members of the workspace"] if self._members else []
        parts += [stated.removeprefix(f"{self._file} ")] if use_project and project.has_project else []
        parts += [f"extra {extra}" for extra in settings.extras] + [f"group {group}" for group in settings.groups]
        parts += ["requires-python"] if project.requires_python else []
        if parts:
            return Source(path=self._file, used=True, reason=", ".join(parts))
        reason = "the requirement files come first" if has_files and project.dependencies else "names no requirements"
        return Source(path=self._file, used=False, reason=reason)


def _other_files(root: Path) -> list[str]:
    """Return requirement files by their look that do not count by themselves, 20 at most."""
    found = {path for pattern in ("*requirements*.txt", "*requirements*.in") for path in root.glob(pattern)}
    found |= {path for pattern in ("*.txt", "*.in") for path in (root / "requirements").glob(pattern)}
    names = sorted(path.relative_to(root).as_posix() for path in found if path.is_file())
    return [name for name in names if name not in CANDIDATES][:20]


def _admits(specifiers: str, minor: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return any(SpecifierSet(specifiers).contains(f"{minor}.{patch}") for patch in range(100))


def _image_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LONGEST_NAME].strip("-") or "project"
