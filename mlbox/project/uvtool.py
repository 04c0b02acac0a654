"""[tool.uv] of pyproject.toml: sources, indexes, constraints and overrides, for the lines they are for.

https://docs.astral.sh/uv/concepts/projects/dependencies/ and .../concepts/indexes/
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlbox.errors import ProjectError
from mlbox.project.indexes import NamedIndex, Rank, Use, index_options
from mlbox.project.marker import parse_marker
from mlbox.project.model import IndexOptions
from mlbox.project.problems import did_you_mean
from mlbox.project.pyproject import at
from mlbox.project.requirement import normalize, pep508
from mlbox.project.spec import Line, Spec
from mlbox.project.tables import NEVER, both, get, named, opposite, place_of, strings
from mlbox.project.workspace import hint_of_member, unfetched, workspace_of

if TYPE_CHECKING:
    from mlbox.project.tools import Context

TABLE = "tool.uv"

_UNREAD = ("dependency-metadata", "exclude-newer", "exclude-newer-package", "no-binary-package", "no-build-package")

Sources = dict[str, list[dict[str, Any]]]


def read_uv(table: dict[str, Any], context: "Context") -> Spec:
    """Return what [tool.uv] says; dependencies with a source of their own are written with it."""
    return _Reader(table, context).read()


class _Reader:
    def __init__(self, table: dict[str, Any], context: "Context") -> None:
        self._table = table
        self._uv: Mapping[str, Any] = at(table, "tool", "uv") or {}
        self._context = context
        self._problems = context.problems
        self._folder = (context.root / context.file).parent
        self._workspace = context.workspace
        self._is_member = context.workspace is not None
        self._uses: list[Use] = []

    def read(self) -> Spec:
        sources: Sources = {}
        with self._problems.at(self._at("workspace")):
            self._workspace = self._workspace or workspace_of(self._folder, self._table, self._context.root)
        with self._problems.at(self._at("sources")):
            own = {normalize(name): _variants(value) for name, value in get(self._uv, "sources", dict).items()}
            sources = self._inherited() | own
        changed = self._with_sources(sources)
        groups = dict(changed.get("dependency-groups", {}))
        if dev := self._strings(self._uv, "dev-dependencies"):
            groups["dev"] = [*groups.get("dev", []), *self._lines(dev, sources, group="dev")]
        if groups:
            changed["dependency-groups"] = groups
        if self._uv.get("package") is False:
            changed["build-system"] = {}
        self._check_environments()
        locked = self._context.locked
        return Spec(
            table=changed,
            constraints=self._also("constraint-dependencies"),
            overrides=(*self._also("override-dependencies"), *self._excluded()),
            index=self._index(),
            # With a lock, uv has already done what they say.
            notes=tuple(f"{self._at(key)} has no effect" for key in _UNREAD if key in self._uv and not locked),
        )

    def _at(self, key: str, name: str = "") -> str:
        return self._context.at(f"{TABLE}.{key}", name)

    @property
    def _common(self) -> Mapping[str, Any]:
        """The table that says what holds for the whole environment: that of the workspace's root."""
        return self._workspace.uv if self._is_member and self._workspace else self._uv

    def _strings(self, table: Mapping[str, Any], key: str) -> list[str]:
        with self._problems.at(self._at(key)):
            return strings(table, key)
        return []

    def _also(self, key: str) -> tuple[Line, ...]:
        return tuple(Line(text, self._at(key)) for text in self._strings(self._common, key))

    def _excluded(self) -> Iterator[Line]:
        key = "exclude-dependencies"
        yield from (Line(f"{name} ; {NEVER}", self._at(key)) for name in self._strings(self._common, key))

    def _with_sources(self, sources: Sources) -> dict[str, Any]:
        """Return [project] and [dependency-groups] with the places and pins that the sources give."""
        changed: dict[str, Any] = {}
        project = self._table.get("project")
        if sources and isinstance(project, dict):
            own = {"dependencies": self._lines(project.get("dependencies"), sources)}
            optional = project.get("optional-dependencies")
            if isinstance(optional, dict):
                lines = {extra: self._lines(texts, sources, extra=extra) for extra, texts in optional.items()}
                own["optional-dependencies"] = lines
            changed["project"] = {**project, **{key: value for key, value in own.items() if key in project}}
        groups = self._table.get("dependency-groups")
        if isinstance(groups, dict):
            changed["dependency-groups"] = {
                group: self._lines(texts, sources, group=group) for group, texts in groups.items()
            }
        return changed

    def _lines(self, texts: Any, sources: Sources, *, extra: str = "", group: str = "") -> Any:  # noqa: ANN401 (TOML)
        """Return a list of dependencies with their sources; what is no such list is left for others to refuse."""
        if not sources or not isinstance(texts, list):
            return texts
        found: list[Any] = []
        for text in texts:
            if not isinstance(text, str):
                found.append(text)
                continue
            with self._problems.at(self._at("sources")):
                found += self._line(text, sources, extra, group)
        return found

    def _line(self, text: str, sources: Sources, extra: str, group: str) -> Iterator[str]:
        asked = pep508(text)
        variants = [
            source
            for source in sources.get(normalize(asked.name), [])
            if _applies(source, "extra", extra) and _applies(source, "group", group)
        ]
        placed, elsewhere = [], [str(asked.marker or "")]
        for source in variants:
            own = get(source, "marker", str)
            marker = both(str(asked.marker or ""), own)
            if marker:
                parse_marker(marker)
            if index := get(source, "index", str):
                if not extra or normalize(extra) in self._context.extras:
                    self._uses.append(Use(asked.name, index, marker))
            elif place := self._place(asked.name, source):
                placed.append(named(asked.name, extras=sorted(asked.extras), place=place, marker=marker))
                elsewhere.append(opposite(own) if own else "")
        yield from placed
        if not placed:
            yield text
        elif all(elsewhere[1:]):  # where no source counts, the index does
            version = str(asked.specifier)
            yield named(asked.name, extras=sorted(asked.extras), version=version, marker=both(*elsewhere))

    def _place(self, name: str, source: Mapping[str, Any]) -> str:
        if source.get("workspace") is not True:
            return place_of(source)
        members = self._workspace.members if self._workspace else {}
        if (folder := members.get(normalize(name))) is None:
            hint = unfetched(self._workspace) if self._workspace else hint_of_member(self._context.root, name)
            raise ProjectError(
                f"{name}: the workspace has no such member", hint=hint or did_you_mean(normalize(name), members)
            )
        return self._seen_from_here(folder)

    def _seen_from_here(self, path: Path) -> str:
        found = os.path.relpath(path, self._folder)
        return found if found.startswith(".") else f"./{found}"

    def _inherited(self) -> Sources:
        """Return the sources that the workspace's root names for its members."""
        if not self._is_member or not self._workspace:
            return {}
        found: Sources = {}
        for name, value in get(self._workspace.uv, "sources", dict).items():
            found[normalize(name)] = [
                {**one, "path": self._seen_from_here(self._workspace.folder / get(one, "path", str))}
                if "path" in one and "git" not in one
                else one
                for one in _variants(value)
            ]
        return found

    def _index(self) -> IndexOptions:
        with self._problems.at(self._at("index")):
            uv = self._common
            # The indexes of a member serve what it pins to them.
            indexes = list(_indexes(self._uv, member=True)) if self._is_member else []
            indexes += _indexes(uv)
            if url := get(uv, "index-url", str):
                indexes.append(NamedIndex("index-url", url, "default"))
            extra = get(uv, "extra-index-url", list)
            indexes += [NamedIndex(f"extra-{number}", str(url)) for number, url in enumerate(extra, 1)]
            return msgspec.structs.replace(
                index_options(indexes, self._uses),
                find_links=tuple(strings(uv, "find-links")),
                no_index=get(uv, "no-index", bool),
                pre=get(uv, "prerelease", str) == "allow",
            )
        return IndexOptions()

    def _check_environments(self) -> None:
        """Say so when the project is meant for other systems only; which of several it is, mlbox's target says."""
        from packaging.markers import default_environment

        environments = self._strings(self._common, "environments")
        with self._problems.at(self._at("environments")):
            markers = [parse_marker(text) for text in environments]
            linux = {**default_environment(), "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
            machines = [{**linux, "platform_machine": machine} for machine in ("x86_64", "aarch64")]
            versions = [f"3.{minor}" for minor in range(8, 16)]
            possible = [
                {**machine, "python_version": version, "python_full_version": f"{version}.99"}
                for machine in machines
                for version in versions
            ]
            if markers and not any(marker.evaluate(one) for marker in markers for one in possible):  # type: ignore[arg-type]
                raise ProjectError("admit no Linux, and images are made for Linux", hint="add sys_platform == 'linux'")


def _variants(value: object) -> list[dict[str, Any]]:
    found = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]
    if not found or (isinstance(value, list) and len(found) < len(value)):
        raise ProjectError("a source must be a table, or a list of tables", hint='{ git = "https://HOST/x" }')
    return found


def _applies(source: Mapping[str, Any], key: str, name: str) -> bool:
    wanted = get(source, key, str)
    return not wanted or normalize(wanted) == normalize(name)


def _indexes(uv: Mapping[str, Any], *, member: bool = False) -> Iterator[NamedIndex]:
    for number, one in enumerate(get(uv, "index", list), 1):
        if isinstance(one, dict):
            rank: Rank = "explicit" if member else _rank(one)
            yield NamedIndex(get(one, "name", str) or f"#{number}", get(one, "url", str), rank)


def _rank(index: Mapping[str, Any]) -> Rank:
    if get(index, "explicit", bool):
        return "explicit"
    return "default" if get(index, "default", bool) else "extra"
