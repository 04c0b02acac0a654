"""pyproject.toml as it stands: dependencies, extras, groups, scripts. Its build backend is never run.

Other specs are read into the same words (mlbox.project.spec), and then through the same code.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlbox.errors import ProjectError
from mlbox.project.model import Requirement
from mlbox.project.problems import Problems, did_you_mean
from mlbox.project.requirement import Itself, Place, normalize, parse_requirement, pep508, without_credentials

FILE = "pyproject.toml"

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_SCRIPT = re.compile(r"\w[\w.-]*")
_ENTRY_NAME = re.compile(r"[^\s=\[][^=\n\r]*")
_ENTRY_POINT = re.compile(r"[^\W\d][\w.]*[ \t]*(:[ \t]*[^\W\d][\w.]*)?[ \t]*(\[[\w ,.-]*\])?")


class Pyproject:
    """The parsed file; wrong types are problems, and read as if they were not there."""

    def __init__(
        self,
        root: Path,
        table: Mapping[str, Any],
        problems: Problems,
        *,
        file: str = FILE,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Read the `table` that `file` is, or is in other words: then `labels` say where its keys really stand."""
        self.file = file
        self._root = root
        self._folder = (root / file).parent
        self._labels = labels or {}
        self._problems = problems
        self.tool = self._get(table, "tool", dict, "")
        self.build_system = self._get(table, "build-system", dict, "")
        self.has_project = "project" in table
        self.project = self._get(table, "project", dict, "")
        self.groups = self._get(table, "dependency-groups", dict, "")
        self.dynamic = self._strings(self.project, "dynamic", "project")
        self.name = self._get(self.project, "name", str, "project")
        self.requires_python = self._requires_python()
        self.dependencies = self._strings(self.project, "dependencies", "project")
        """What [project] asks for, without extras."""
        self.optional = self._optional()
        self.scripts = self._scripts("scripts")
        self.gui_scripts = self._scripts("gui-scripts")
        self.entry_points = self._entry_points()
        if self.has_project and not NAME.fullmatch(self.name) and (self.name or self._must_be_named):
            problems.add(
                self._key("project.name"),
                f"{without_credentials(self.name)[:200]!r} is no valid name",
                "letters, digits, '.', '-' and '_'",
            )
            self.name = ""

    @property
    def _must_be_named(self) -> bool:
        """Whether this [project] was written as one; what other files say may do without a name."""
        return self.file.endswith(FILE) and "project" not in self._labels

    def _key(self, dotted: str) -> str:
        """Return where `dotted` stands, for people; what is below a labelled key is named after it."""
        for above in _above(dotted):
            if label := self._labels.get(above):
                rest = dotted.removeprefix(above).lstrip(".")
                return f"{label} {rest}" if rest else label
        return f"{self.file} [{dotted}]"

    def _get(self, table: Mapping[str, Any], key: str, kind: type[Any], above: str) -> Any:  # noqa: ANN401 (TOML)
        value = table.get(key, kind())
        if isinstance(value, kind):
            return value
        names: dict[type[Any], str] = {dict: "a table", list: "a list", str: "a string"}
        self._problems.add(self._key(f"{above}.{key}" if above else key), f"must be {names[kind]}")
        return kind()

    def _strings(self, table: Mapping[str, Any], key: str, above: str) -> tuple[str, ...]:
        values = self._get(table, key, list, above)
        if not all(isinstance(value, str) for value in values):
            self._problems.add(self._key(f"{above}.{key}"), "must be a list of strings")
            return ()
        return tuple(values)

    def _mapping(self, table: Mapping[str, Any], key: str, above: str) -> dict[str, str]:
        values = self._get(table, key, dict, above)
        if not all(isinstance(value, str) for value in values.values()):
            self._problems.add(self._key(f"{above}.{key}"), "must be a table of strings")
            return {}
        return dict(values)

    def _optional(self) -> dict[str, tuple[str, ...]]:
        table = self._get(self.project, "optional-dependencies", dict, "project")
        return {normalize(extra): self._strings(table, extra, "project.optional-dependencies") for extra in table}

    def _requires_python(self) -> str:
        text: str = self._get(self.project, "requires-python", str, "project")
        if text:
            from packaging.specifiers import InvalidSpecifier, SpecifierSet

            try:
                return str(SpecifierSet(text))
            except InvalidSpecifier as problem:
                self._problems.add(self._key("project.requires-python"), str(problem), 'write it as ">=3.10"')
        return ""

    def _scripts(self, key: str) -> dict[str, str]:
        """Return [project.scripts] or [project.gui-scripts]: command -> 'module:function'."""
        scripts = self._mapping(self.project, key, "project")
        for name, target in scripts.items():
            if not _SCRIPT.fullmatch(name):
                self._problems.add(self._key(f"project.{key}"), f"{name!r} is no name for a command")
            if not _ENTRY_POINT.fullmatch(target) or ":" not in target:
                self._problems.add(self._key(f"project.{key}.{name}"), f"{target!r} is not 'module:function'")
        return scripts

    def _entry_points(self) -> dict[str, dict[str, str]]:
        """Return [project.entry-points]: group -> name -> object."""
        table = self._get(self.project, "entry-points", dict, "project")
        groups = {group: self._mapping(table, group, "project.entry-points") for group in table}
        for group, entries in groups.items():
            where = self._key(f"project.entry-points.{group}")
            if group in ("console_scripts", "gui_scripts"):
                self._problems.add(where, "belongs in [project.scripts] or [project.gui-scripts]")
            if not re.fullmatch(r"[\w.]+", group, re.ASCII):
                self._problems.add(where, f"{group!r} is no name for a group of entry points")
            for name, target in entries.items():
                if not _ENTRY_NAME.fullmatch(name) or not _ENTRY_POINT.fullmatch(target):
                    self._problems.add(where, f"{name!r} = {target!r} is no entry point")
        return groups

    @property
    def group_names(self) -> frozenset[str]:
        """The dependency groups there are."""
        return frozenset(map(normalize, self.groups))

    @property
    def extra_names(self) -> frozenset[str]:
        """The extras there are."""
        return frozenset((*self.optional, *self.dynamic_extras()))

    def dynamic_files(self) -> list[str]:
        """Return the requirement files that the build backend's settings read [project] dependencies from.

        They are relative to the folder of this one.
        """
        if "dependencies" not in self.dynamic:
            return []
        return _files(self.tool, "setuptools", "dynamic", "dependencies", "file") or _files(
            self.tool, "hatch", "metadata", "hooks", "requirements_txt", "files"
        )

    def dynamic_extras(self) -> dict[str, list[str]]:
        """Return the requirement files that setuptools reads optional dependencies from, by extra."""
        table = at(self.tool, "setuptools", "dynamic", "optional-dependencies")
        if "optional-dependencies" not in self.dynamic or not isinstance(table, dict):
            return {}
        return {normalize(extra): _files(table, extra, "file") for extra in table}

    def requirements(self, extras: Iterable[str], groups: Iterable[str], *, project: bool) -> list[Requirement]:
        """Return what the extras and groups ask for, and [project] when `project`; references to itself followed.

        Names that do not exist are skipped: whoever asks knows where they were written.
        """
        found: list[Requirement] = []
        if project:
            self._add(found, self.dependencies, "project.dependencies", set(), "")
        for extra in map(normalize, extras):
            if extra in self.optional:
                self._add_extra(found, extra, set(), "")
        for group in (group for group in groups if normalize(group) in self.group_names):
            self._add(found, self._group(group), f"dependency-groups.{normalize(group)}", set(), "")
        return list({(one.text, one.origin): one for one in found}.values())

    def _add_extra(self, found: list[Requirement], extra: str, seen: set[str], marker: str) -> None:
        if extra not in seen:
            texts = self.optional[extra]
            self._add(found, texts, f"project.optional-dependencies.{extra}", seen | {extra}, marker)

    def _add(self, found: list[Requirement], texts: Sequence[str], key: str, seen: set[str], marker: str) -> None:
        for text in texts:
            with self._problems.at(self._key(key)):
                if self._is_own(text):
                    self._add_own(found, text, seen, marker)
                    continue
                place = Place(root=self._root, folder=self._folder, origin=self._key(key), is_pip=False)
                parsed = parse_requirement(_with_marker(text, marker), place)
                found.append(self._root_as_folder(parsed, text) if isinstance(parsed, Itself) else parsed)

    def _root_as_folder(self, itself: Itself, text: str) -> Requirement:
        """Return the project's root as a folder that another one depends on."""
        if self._folder == self._root:
            raise ProjectError(f"{text!r} is the project itself")
        extras = f"[{','.join(itself.extras)}]" if itself.extras else ""
        return Requirement(text=f"./{extras}", origin=self._key("project"), kind="folder")

    def _is_own(self, text: str) -> bool:
        name = re.match(r"[A-Za-z0-9._-]+", text.lstrip())
        return bool(self.name and name) and normalize(name[0]) == normalize(self.name)  # type: ignore[index]

    def _add_own(self, found: list[Requirement], text: str, seen: set[str], marker: str) -> None:
        own = pep508(text)
        both = " and ".join(f"({part})" for part in (marker, str(own.marker or "")) if part)
        for extra in sorted(map(normalize, own.extras)):
            if extra not in self.optional:
                raise ProjectError(f"{text!r}: there is no extra {extra!r}", hint=did_you_mean(extra, self.optional))
            self._add_extra(found, extra, seen, both)

    def _group(self, group: str) -> tuple[str, ...]:
        from packaging.dependency_groups import resolve_dependency_groups

        try:
            return resolve_dependency_groups(self.groups, group)
        except (ValueError, TypeError, LookupError, RecursionError, ExceptionGroup) as problem:
            for message in _messages(problem):
                self._problems.add(self._key(f"dependency-groups.{group}"), message)
            return ()


def _above(dotted: str) -> Iterator[str]:
    while dotted:
        yield dotted
        dotted = dotted.rpartition(".")[0]


def at(table: Any, *keys: str) -> Any:  # noqa: ANN401 (TOML)
    """Return what stands at `keys` in nested tables; None when something is missing on the way."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _files(table: Any, *keys: str) -> list[str]:  # noqa: ANN401 (TOML)
    value = at(table, *keys)
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [file for file in values if isinstance(file, str)]


def _messages(problem: BaseException) -> list[str]:
    if isinstance(problem, BaseExceptionGroup):
        return [message for part in problem.exceptions for message in _messages(part)]
    return [str(problem).splitlines()[0] if str(problem) else type(problem).__name__]


def _with_marker(text: str, marker: str) -> str:
    if not marker:
        return text
    own = pep508(text)
    both = " and ".join(f"({part})" for part in (marker, str(own.marker or "")) if part)
    own.marker = None
    return f"{own} ; {both}"
