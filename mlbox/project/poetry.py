"""Poetry's tables of pyproject.toml, said in the words of [project] and [dependency-groups].

https://python-poetry.org/docs/pyproject/ and .../dependency-specification/
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mlbox.errors import ProjectError
from mlbox.project.constraint import as_python_marker, as_specifier, parse_constraint
from mlbox.project.indexes import NamedIndex, Rank, Use, index_options
from mlbox.project.model import IndexOptions
from mlbox.project.requirement import normalize
from mlbox.project.spec import Spec
from mlbox.project.tables import both, deep, get, named, place_of, strings

if TYPE_CHECKING:
    from mlbox.project.tools import Context

TABLE = "tool.poetry"

_LEGACY_RANKS = {"default": "primary", "secondary": "supplemental"}


def read_poetry(table: Mapping[str, Any], context: "Context") -> Spec:
    """Return what [tool.poetry] says; a [project] that is there too keeps what it says itself (Poetry 2)."""
    poetry = table["tool"]["poetry"]
    project = table.get("project")
    return _Reader(poetry, project if isinstance(project, dict) else None, context).read()


class _Entry(NamedTuple):
    """One way in which a package is asked for: a package may have several, for different Pythons or systems."""

    name: str
    words: Mapping[str, Any]


class _Reader:
    def __init__(self, poetry: Mapping[str, Any], project: dict[str, Any] | None, context: "Context") -> None:
        self._poetry = poetry
        self._project = project
        self._context = context
        self._file = context.file
        self._problems = context.problems
        self._uses: list[Use] = []
        self._notes: list[str] = []
        self._labels: dict[str, str] = {}

    def read(self) -> Spec:
        groups = self._groups()
        project = self._whole_project() if self._project is None else self._completed(self._project)
        return Spec(
            table={"project": project, "dependency-groups": groups} if project else {"dependency-groups": groups},
            labels=self._labels,
            index=self._index(),
            notes=tuple(self._notes),
        )

    def _at(self, key: str, name: str = "") -> str:
        return self._context.at(f"{TABLE}.{key}", name)

    def _whole_project(self) -> dict[str, Any]:
        """Return the [project] that Poetry 1 wrote into its own table."""
        project: dict[str, Any] = {}
        with self._problems.at(self._at("dependencies", "python")):
            if python := get(get(self._poetry, "dependencies", dict), "python", str):
                project["requires-python"] = as_specifier(python)
        entries = list(self._entries(self._poetry, "dependencies"))
        project["dependencies"] = [
            line for entry in entries if not entry.words.get("optional") for line in self._lines(entry, "dependencies")
        ]
        project["optional-dependencies"] = self._extras(entries)
        for key, value in {"name": "name", "version": "version", "scripts": "scripts"}.items():
            if isinstance(found := self._poetry.get(value), str):
                project[key] = found
        project["scripts"] = self._scripts()
        if plugins := self._poetry.get("plugins"):
            project["entry-points"] = plugins
        self._labels |= {
            "project": f"{self._file} [{TABLE}]",
            "project.dependencies": self._at("dependencies"),
            "project.optional-dependencies": self._at("extras"),
            "project.entry-points": self._at("plugins"),
            **{f"project.{key}": f"{self._file} [{TABLE}.{key}]" for key in ("name", "version", "scripts")},
            "project.requires-python": self._at("dependencies", "python"),
        }
        return project

    def _completed(self, project: dict[str, Any]) -> dict[str, Any]:
        """Return the [project] of Poetry 2, with the places that only Poetry's table names."""
        dynamic = project.get("dynamic", [])
        entries = list(self._entries(self._poetry, "dependencies"))
        if (isinstance(dynamic, list) and "dependencies" in dynamic) or "dependencies" not in project:
            lines = [
                line
                for entry in entries
                if not entry.words.get("optional")
                for line in self._lines(entry, "dependencies")
            ]
            self._labels["project.dependencies"] = self._at("dependencies")
            left = [key for key in dynamic if key != "dependencies"] if isinstance(dynamic, list) else dynamic
            return {**project, "dependencies": lines, "dynamic": left} if lines else project
        placed = {normalize(entry.name): entry for entry in entries if isinstance(entry.words, dict)}
        return {
            **project,
            **{
                key: deep(project[key], lambda text: self._placed(text, placed))
                for key in ("dependencies", "optional-dependencies")
                if key in project
            },
        }

    def _placed(self, text: str, entries: Mapping[str, _Entry]) -> str:
        """Return a line of [project] from the place that Poetry's table has for it."""
        from mlbox.project.requirement import pep508

        with self._problems.at(self._at("dependencies")):
            asked = pep508(text)
            entry = entries.get(normalize(asked.name))
            if entry is None:
                return text
            marker = str(asked.marker or "")
            if source := get(entry.words, "source", str):
                self._uses.append(Use(asked.name, source, marker))
            if place := place_of(entry.words):
                return named(asked.name, extras=sorted(asked.extras), place=place, marker=marker)
        return text

    def _groups(self) -> dict[str, list[Any]]:
        groups: dict[str, list[Any]] = {}
        with self._problems.at(self._at("group")):
            for name, table in get(self._poetry, "group", dict).items():
                where = f"group.{name}.dependencies"
                with self._problems.at(self._at(f"group.{name}")):
                    if not isinstance(table, dict):
                        raise ProjectError("must be a table")
                    included = [{"include-group": other} for other in strings(table, "include-groups")]
                    groups[name] = [*included, *self._group_lines(table, "dependencies", where)]
                self._labels[f"dependency-groups.{normalize(name)}"] = self._at(where)
        if "dev-dependencies" in self._poetry:  # before Poetry 1.2
            groups["dev"] = [
                *groups.get("dev", []),
                *self._group_lines(self._poetry, "dev-dependencies", "dev-dependencies"),
            ]
            self._labels.setdefault("dependency-groups.dev", self._at("dev-dependencies"))
        return groups

    def _group_lines(self, table: Mapping[str, Any], key: str, where: str) -> list[str]:
        return [line for entry in self._entries(table, key, where) for line in self._lines(entry, where)]

    def _entries(self, table: Mapping[str, Any], key: str, where: str = "") -> Iterator[_Entry]:
        with self._problems.at(self._at(where or key)):
            for name, value in get(table, key, dict).items():
                for one in value if isinstance(value, list) else [value]:
                    words = {"version": one} if isinstance(one, str) else one
                    if isinstance(words, dict) and name != "python":
                        yield _Entry(name, words)
                    elif name != "python":
                        message = 'must be a constraint or a table: "^1.2", {version = "^1.2"}'
                        self._problems.add(self._at(where or key, name), message)

    def _lines(self, entry: _Entry, where: str) -> Iterator[str]:
        with self._problems.at(self._at(where, entry.name)):
            words = entry.words
            marker = _marker(words)
            if source := get(words, "source", str):
                self._uses.append(Use(entry.name, source, marker))
            if words.get("allow-prereleases"):
                self._notes.append(
                    f"{self._at(where, entry.name)}: allow-prereleases has no effect; name one: >=2.0rc1"
                )
            place = place_of(words)
            version = "" if place else self._specifier(get(words, "version", str) or "*")
            yield named(entry.name, extras=strings(words, "extras"), version=version, place=place, marker=marker)

    def _specifier(self, text: str) -> str:
        parse_constraint(text)
        try:
            return as_specifier(text)
        except ProjectError:  # a choice between ranges: only a lock has already made it
            if self._context.locked:
                return ""
            raise

    def _extras(self, entries: list[_Entry]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        with self._problems.at(self._at("extras")):
            extras = get(self._poetry, "extras", dict)
            for extra in extras:
                members = set(map(normalize, strings(extras, extra)))
                chosen = [entry for entry in entries if normalize(entry.name) in members]
                if unknown := members - {normalize(entry.name) for entry in chosen}:
                    raise ProjectError(f"{extra} names {min(unknown)!r}, which the dependencies do not have")
                found[extra] = [line for entry in chosen for line in self._lines(entry, "dependencies")]
        return found

    def _scripts(self) -> dict[str, str]:
        """Return the scripts that are entry points; Poetry also has files there, which are only copied."""
        with self._problems.at(self._at("scripts")):
            scripts = get(self._poetry, "scripts", dict)
            for name, value in scripts.items():
                if isinstance(value, dict) and value.get("type") == "file":
                    self._notes.append(f"{self._at('scripts', name)}: a file is not installed as a script")
            targets = {
                name: value.get("reference", value.get("callable")) if isinstance(value, dict) else value
                for name, value in scripts.items()
            }
            return {name: target for name, target in targets.items() if isinstance(target, str)}
        return {}

    def _index(self) -> IndexOptions:
        """Return the sources in their order: what is asked last is the default, as long as there is one."""
        with self._problems.at(self._at("source")):
            sources = [source for source in get(self._poetry, "source", list) if isinstance(source, dict)]
            ranked = [(source, _rank(source)) for source in sources]
            primary = [source for source, rank in ranked if rank == "primary"]
            last = primary[-1] if primary else None
            indexes = []
            for source, rank in ranked:
                name, url = get(source, "name", str), get(source, "url", str)
                if rank == "supplemental":
                    self._notes.append(f"{self._at('source', name)}: is asked before the others, not after them")
                where: Rank = "default" if source is last else "explicit" if rank == "explicit" else "extra"
                indexes.append(NamedIndex(name, url, where))
            return index_options(indexes, self._uses)
        return IndexOptions()


def _rank(source: Mapping[str, Any]) -> str:
    """Return Poetry's priority of a source: primary, supplemental or explicit."""
    legacy = next((key for key in _LEGACY_RANKS if source.get(key) is True), "")
    stated = get(source, "priority", str).lower() or legacy or "primary"
    rank = _LEGACY_RANKS.get(stated, stated)
    if rank not in ("primary", "supplemental", "explicit"):
        raise ProjectError(f"priority {stated[:50]!r} is not known", hint="primary, supplemental or explicit")
    return rank


def _marker(words: Mapping[str, Any]) -> str:
    """Return the condition of an entry: its markers, its Pythons and its platforms."""
    python, platform = get(words, "python", str), get(words, "platform", str)
    return both(
        get(words, "markers", str), as_python_marker(python) if python else "", _platform(platform) if platform else ""
    )


def _platform(text: str) -> str:
    choices = []
    for part in text.replace("||", "|").split("|"):
        operator, name = ("!=", part.strip()[2:]) if part.strip().startswith("!=") else ("==", part.strip())
        if not name.strip().removeprefix("==").strip().isalnum():
            raise ProjectError(f"platform {text[:50]!r} is not known", hint='like "linux" or "linux || darwin"')
        choices.append(f'sys_platform {operator} "{name.strip().removeprefix("==").strip()}"')
    return " or ".join(choices)
