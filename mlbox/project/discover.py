"""Which spec files a repository has, which of them count, and the Project they make.

Requirements come from the first of these that there is; the others are listed with the reason why not:
1. the files named by `requirements` in the settings;
2. pyproject.toml, when [project] has dependencies (or its build backend reads them from files);
3. requirements.txt, then requirements.in;
4. requirements/NAME.txt, then .in, for NAME in requirements, base, main, prod, production.
Extras and dependency groups that are asked for come from pyproject.toml in any case.
Settings come from mlbox.toml or from [tool.mlbox] of pyproject.toml, never from both.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from mlbox.codec import load_toml
from mlbox.errors import ProjectError
from mlbox.project import pyproject as pyproject_file
from mlbox.project import settings as settings_file
from mlbox.project.distribution import read_package
from mlbox.project.inputs import inputs_digest
from mlbox.project.model import Project, Requirement, Settings, Source
from mlbox.project.problems import Problems, did_you_mean
from mlbox.project.pyproject import Pyproject
from mlbox.project.reading import read_bytes, read_text
from mlbox.project.requirement import normalize
from mlbox.project.requirements import RequirementFiles
from mlbox.project.settings import Where, check_settings, read_settings

__all__ = ["inputs_digest", "load_project"]

PYTHON_FILE = ".python-version"

CANDIDATES = (
    "requirements.txt",
    "requirements.in",
    *(f"requirements/{name}.txt" for name in ("requirements", "base", "main", "prod", "production")),
    *(f"requirements/{name}.in" for name in ("requirements", "base", "main", "prod", "production")),
)
"""Requirement files that count without being named, the first one there wins."""

_LONGEST_NAME = 200  # a repository of an image may have 255 letters, what goes before the name included

UNREAD = (
    *("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "Pipfile", "Pipfile.lock", "conda-lock.yml"),
    *("environment.yml", "environment.yaml", "pixi.toml", "pixi.lock", "setup.py", "setup.cfg"),
)
"""Specs of other tools: listed, so that nobody wonders, but not read."""

_DECLARING = ("Pipfile", "environment.yml", "environment.yaml", "pixi.toml", "setup.py", "setup.cfg")
_VERSION_LINE = re.compile(r"(?:c?python[-@]?)?(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)", re.IGNORECASE | re.ASCII)


def load_project(
    root: Path,
    *,
    extras: Sequence[str] = (),
    groups: Sequence[str] = (),
    python: str = "",
    accelerator: str = "",
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
        "accelerator": accelerator,
        "resolver": resolver,
        "requirements": tuple(requirements),
    }
    given = {key: value for key, value in overrides.items() if value}
    return _Loader(root).load(given, tuple(extras), tuple(groups))


class _Loader:
    """Reads one project; every step adds to the problems, which are raised at the end."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._problems = Problems()
        self._sources: list[Source] = []
        self._notes: list[str] = []
        self._files = RequirementFiles(root, self._problems)
        self._table = self._toml(pyproject_file.FILE)
        self._own_table = self._toml(settings_file.FILE)
        self._pyproject = Pyproject(root, self._table or {}, self._problems)

    def load(self, given: dict[str, Any], extras: tuple[str, ...], groups: tuple[str, ...]) -> Project:
        """Return the whole Project, or raise all problems."""
        self._require_a_spec(given)
        settings, where = self._settings(given, extras, groups)
        python_file = self._python_file()
        self._check_python(settings, python_file, where)
        self._check_names(settings, where)
        requirements = self._requirements(settings)
        asked_for = self._files.itself is not None
        package, notes = read_package(self._root, self._pyproject, asked_for=asked_for)
        self._problems.check()
        return Project(
            root=self._root,
            name=_image_name(self._pyproject.name or self._root.name),
            settings=settings,
            sources=tuple(self._sources),
            requirements=requirements,
            constraints=tuple(self._files.constraints),
            index=self._files.index,
            requires_python=self._pyproject.requires_python,
            python_file=python_file,
            package=package,
            notes=tuple(dict.fromkeys([*self._notes, *self._files.notes, *notes])),
        )

    def _toml(self, file: str) -> dict[str, Any] | None:
        if not (self._root / file).exists():
            return None
        with self._problems.at(file):
            return load_toml(read_bytes(self._root / file), what="is not TOML", error=ProjectError)
        return {}

    def _there(self, files: Iterable[str]) -> list[str]:
        return [file for file in files if (self._root / file).is_file()]

    def _require_a_spec(self, given: dict[str, Any]) -> None:
        if self._table is not None or self._own_table is not None or given.get("requirements"):
            return
        if self._there(CANDIDATES):
            return
        if others := self._there(UNREAD) or _other_files(self._root):
            raise ProjectError(
                f"{self._root}: found only {', '.join(others[:5])}, which mlbox does not read by itself",
                hint="list what it needs in requirements.txt, or name the files in mlbox.toml: requirements = [...]",
            )
        raise ProjectError(
            f"{self._root}: has no pyproject.toml, requirements.txt or mlbox.toml",
            hint="run mlbox in the project's folder, or start a new one: mlbox init --template train",
        )

    def _settings(
        self, given: dict[str, Any], extras: tuple[str, ...], groups: tuple[str, ...]
    ) -> tuple[Settings, Where]:
        in_pyproject = self._pyproject.tool.get("mlbox")
        file = pyproject_file.FILE if self._own_table is None and in_pyproject is not None else settings_file.FILE
        if self._own_table is not None and in_pyproject is not None:
            self._problems.add(file, "pyproject.toml has [tool.mlbox] too", "keep one of the two")
        table = in_pyproject if file == pyproject_file.FILE else self._own_table or {}
        overridden = [*given, *(["extras"] if extras else []), *(["groups"] if groups else [])]
        where = Where(file, overridden)
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
        if self._own_table is not None:
            self._sources.append(Source(path=settings_file.FILE, used=True, reason="settings"))
        return settings, where

    def _check_names(self, settings: Settings, where: Where) -> None:
        extras = {*self._pyproject.optional, *self._pyproject.dynamic_extras()}
        for key, names, known in (
            ("extras", settings.extras, extras),
            ("groups", settings.groups, self._pyproject.group_names),
        ):
            for name in names:
                if normalize(name) not in known:
                    kind = "extra" if key == "extras" else "dependency group"
                    hint = did_you_mean(name, known) or "pyproject.toml has none"
                    self._problems.add(where(key), f"there is no {kind} {name!r}", hint)

    def _python_file(self) -> str:
        if not (self._root / PYTHON_FILE).exists():
            return ""
        lines: list[str] = []
        with self._problems.at(PYTHON_FILE):
            lines = [line.split("#")[0].strip() for line in read_text(self._root / PYTHON_FILE).splitlines()]
        found = next((match[1] for line in lines if (match := _VERSION_LINE.fullmatch(line))), "")
        reason = f"Python {found}" if found else "names no version like 3.11"
        self._sources.append(Source(path=PYTHON_FILE, used=bool(found), reason=reason))
        return found

    def _check_python(self, settings: Settings, python_file: str, where: Where) -> None:
        stated, allowed = settings.python or python_file, self._pyproject.requires_python
        if not stated or not allowed or not _VERSION_LINE.fullmatch(stated):
            return
        from packaging.specifiers import SpecifierSet

        minor = ".".join(stated.split(".")[:2])
        if not any(SpecifierSet(allowed).contains(f"{minor}.{patch}") for patch in range(100)):
            place = where("python") if settings.python else PYTHON_FILE
            self._problems.add(
                place,
                f"Python {stated} contradicts requires-python {allowed!r} of pyproject.toml",
                "change one of them",
            )

    def _requirements(self, settings: Settings) -> tuple[Requirement, ...]:
        chosen, use_project, reason = self._choose(settings)
        for file in chosen:
            if (self._root / file).is_file():  # a missing one is a problem already
                self._files.add(self._root / file)
        itself = self._files.itself
        if itself and not self._pyproject.has_project:
            hint = "add [project] with name, version and dependencies; setup.py is not run"
            self._problems.add(self._files.itself_at, "the project has no [project] in pyproject.toml", hint)
        use_project = use_project or itself is not None
        wanted = (*settings.extras, *(itself.extras if itself else ()))
        self._add_dynamic(use_project, wanted)
        if itself:
            self._check_own_extras(itself.extras)
        own = self._pyproject.requirements(wanted, settings.groups, project=use_project)
        self._list_sources(chosen, reason, use_project, settings)
        return tuple({(one.text, one.origin): one for one in (*self._files.requirements, *own)}.values())

    def _choose(self, settings: Settings) -> tuple[list[str], bool, str]:
        """Return (requirement files, whether [project] counts, why)."""
        project = self._pyproject
        if settings.requirements:
            return list(settings.requirements), False, "the settings name it"
        if project.dependencies or project.dynamic_files():
            return [], True, "[project] of pyproject.toml comes first"
        if there := self._there(CANDIDATES):
            return there[:1], False, "the project's requirements"
        if "dependencies" in project.dynamic:
            hint = "list them there, or in requirements.txt"
            self._problems.add("pyproject.toml [project.dynamic]", "dependencies are left to the build backend", hint)
        elif not project.has_project and not (settings.extras or settings.groups):
            self._refuse_silence()
        return [], project.has_project, ""

    def _refuse_silence(self) -> None:
        """An environment without requirements is fine, unless a spec that is not read may have some."""
        if pyproject_file.at(self._pyproject.tool, "poetry", "dependencies"):
            hint = "move them to [project] dependencies, or export them to requirements.txt"
            self._problems.add("pyproject.toml [tool.poetry.dependencies]", "Poetry's own table is not read", hint)
        for file in self._there(_DECLARING):
            hint = "list what it needs in requirements.txt (an empty one says: nothing)"
            self._problems.add(file, "is the only file that may name requirements, and is not read", hint)

    def _add_dynamic(self, use_project: bool, extras: Iterable[str]) -> None:
        by_extra = self._pyproject.dynamic_extras()
        files = self._pyproject.dynamic_files() if use_project else []
        for file in (*files, *(file for extra in extras for file in by_extra.get(normalize(extra), ()))):
            self._files.add(self._root / file, named_by="pyproject.toml [tool]")

    def _check_own_extras(self, extras: Iterable[str]) -> None:
        known = {*self._pyproject.optional, *self._pyproject.dynamic_extras()}
        for extra in extras:
            if extra not in known:
                hint = did_you_mean(extra, known) or "pyproject.toml has none"
                self._problems.add(self._files.itself_at, f"there is no extra {extra!r}", hint)

    def _list_sources(self, chosen: Sequence[str], reason: str, use_project: bool, settings: Settings) -> None:
        if self._table is not None:
            self._sources.append(self._pyproject_source(use_project, settings, bool(chosen)))
        for file, named_by in self._files.read:
            why = f"read by {named_by}" if named_by else reason
            self._sources.append(Source(path=file, used=True, reason=why))
        read = {file for file, _ in self._files.read}
        first = "what the settings name" if settings.requirements else next(iter(chosen), "pyproject.toml")
        for file in self._there(CANDIDATES):
            if file not in read:
                self._sources.append(Source(path=file, used=False, reason=f"{first} comes first"))
        for file in _other_files(self._root):
            if file not in read:
                self._sources.append(Source(path=file, used=False, reason="only read when requirements names it"))
        for file in self._there(UNREAD):
            self._sources.append(Source(path=file, used=False, reason="not read in this version"))

    def _pyproject_source(self, use_project: bool, settings: Settings, has_files: bool) -> Source:
        project = self._pyproject
        for key in sorted({"sources", "index", "constraint-dependencies", "override-dependencies"}):
            if pyproject_file.at(project.tool, "uv", key):
                self._notes.append(f"pyproject.toml: [tool.uv] {key} is not read in this version")
        parts = ["settings"] if "mlbox" in project.tool and self._own_table is None else []
        parts += ["[project] dependencies"] if use_project and project.has_project else []
        parts += [f"extra {extra}" for extra in settings.extras] + [f"group {group}" for group in settings.groups]
        parts += ["requires-python"] if project.requires_python else []
        if parts:
            return Source(path=pyproject_file.FILE, used=True, reason=", ".join(parts))
        reason = "the requirement files come first" if has_files and project.dependencies else "names no requirements"
        return Source(path=pyproject_file.FILE, used=False, reason=reason)


def _other_files(root: Path) -> list[str]:
    """Return requirement files by their look that do not count by themselves, 20 at most."""
    found = {path for pattern in ("*requirements*.txt", "*requirements*.in") for path in root.glob(pattern)}
    found |= {path for pattern in ("*.txt", "*.in") for path in (root / "requirements").glob(pattern)}
    names = sorted(path.relative_to(root).as_posix() for path in found if path.is_file())
    return [name for name in names if name not in CANDIDATES][:20]


def _image_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LONGEST_NAME].strip("-") or "project"
