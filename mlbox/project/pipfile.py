"""Pipfile: packages, categories, markers and sources, as pipenv reads them.

The first source serves everything, the others only what names them (pipenv 2022.3.23 and later).
https://pipenv.pypa.io/en/latest/pipfile.html
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlbox.codec import load_toml
from mlbox.errors import ProjectError
from mlbox.project.indexes import NamedIndex, Use, index_options
from mlbox.project.model import IndexOptions
from mlbox.project.problems import Problems
from mlbox.project.reading import read_bytes
from mlbox.project.requirement import normalize
from mlbox.project.spec import Line, Spec
from mlbox.project.tables import both, get, named, place_of, strings

_PACKAGES = "packages"
_DEV = "dev-packages"
_NOT_CATEGORIES = ("source", "requires", "scripts", "pipenv", "pipfile", _PACKAGES)
_MARKERS = (
    *("os_name", "sys_platform", "platform_machine", "platform_python_implementation", "platform_release"),
    *("platform_system", "platform_version", "python_version", "python_full_version", "implementation_name"),
    "implementation_version",
)
"""Keys of a package that are conditions: `sys_platform = "== 'linux'"`."""


def read_pipfile(root: Path, file: str, problems: Problems) -> Spec:
    """Read a Pipfile; its categories are dependency groups, and 'dev' is short for 'dev-packages'."""
    with problems.at(file):
        table = load_toml(read_bytes(root / file, root=root), what="is not TOML", error=ProjectError)
        return _Reader(file, problems).read(table)
    return Spec()


class _Reader:
    def __init__(self, file: str, problems: Problems) -> None:
        self._file = file
        self._problems = problems
        self._uses: list[Use] = []

    def read(self, table: dict[str, Any]) -> Spec:
        lines: list[Line] = []
        packages = list(self._packages(table, _PACKAGES, lines))
        groups: dict[str, list[Any]] = {
            category: list(self._packages(table, category, None))
            for category in table
            if category not in _NOT_CATEGORIES and isinstance(table[category], dict)
        }
        labels = {f"dependency-groups.{normalize(category)}": self._at(category) for category in groups}
        if _DEV in groups:
            groups.setdefault("dev", [{"include-group": _DEV}])
        requires = get(table, "requires", dict)
        return Spec(
            table={"project": {"dependencies": packages}, "dependency-groups": groups},
            labels={"project.dependencies": self._at(_PACKAGES), **labels},
            lines=tuple(lines),
            index=self._index(table),
            python=get(requires, "python_full_version", str) or get(requires, "python_version", str),
        )

    def _at(self, category: str, name: str = "") -> str:
        return f"{self._file} [{category}]" + (f" {name[:100]}" if name else "")

    def _index(self, table: Mapping[str, Any]) -> IndexOptions:
        with self._problems.at(self._at("source")):
            sources = [source for source in get(table, "source", list) if isinstance(source, dict)]
            indexes = [
                NamedIndex(get(one, "name", str), get(one, "url", str), "explicit" if number else "default")
                for number, one in enumerate(sources)
            ]
            options = index_options(indexes, self._uses)
            return msgspec.structs.replace(options, pre=get(get(table, "pipenv", dict), "allow_prereleases", bool))
        return IndexOptions()

    def _packages(self, table: Mapping[str, Any], category: str, lines: list[Line] | None) -> Iterator[str]:
        """Yield the requirements of a category; what only pip can say goes to `lines`, where there are such."""
        with self._problems.at(self._at(category)):
            for name, entry in get(table, category, dict).items():
                with self._problems.at(self._at(category, name)):
                    value = {"version": entry} if isinstance(entry, str) else entry
                    if not isinstance(value, dict):
                        raise ProjectError('must be a version or a table: "*", {version = "*"}')
                    if lines is not None and "path" in value and "git" not in value:
                        lines.append(Line(_folder(value), self._at(category, name)))
                    else:
                        yield self._line(name, value)

    def _line(self, name: str, entry: Mapping[str, Any]) -> str:
        if other := next((key for key in ("hg", "svn", "bzr") if key in entry), ""):
            raise ProjectError(f"nothing can be fetched by {other!r}", hint="git, https and files can be fetched")
        marker = _marker(entry)
        if index := get(entry, "index", str):
            self._uses.append(Use(name, index, marker))
        place = place_of(entry, revisions=("ref",))
        version = "" if place else _version(get(entry, "version", str))
        return named(name, extras=strings(entry, "extras"), version=version, place=place, marker=marker)


def _folder(entry: Mapping[str, Any]) -> str:
    """Return a line of pip for a path, which may be the project itself ('.') whatever it is called here."""
    extras = strings(entry, "extras")
    path = place_of({"path": entry["path"]}) + (f"[{','.join(extras)}]" if extras else "")
    marker = _marker(entry)
    return ("-e " if get(entry, "editable", bool) else "") + path + (f" ; {marker}" if marker else "")


def _version(text: str) -> str:
    """Return a specifier; a version alone is exact, as pipenv has it."""
    plain = text.strip()
    if plain in ("", "*"):
        return ""
    return plain if plain[0] in "<>=!~" else f"=={plain}"


def _marker(entry: Mapping[str, Any]) -> str:
    conditions = [f"{key} {get(entry, key, str)}" for key in _MARKERS if key in entry]
    return both(get(entry, "markers", str), *conditions)
