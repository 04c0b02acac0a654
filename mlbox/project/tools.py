"""[tool.*] of pyproject.toml: what Poetry, PDM, uv, Flit and Hatch say beside or instead of [project].

The answer is the file as if all of it stood in [project] and [dependency-groups].
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlbox.codec import load_toml
from mlbox.errors import ProjectError
from mlbox.project.indexes import NamedIndex, index_options
from mlbox.project.problems import Problems
from mlbox.project.pyproject import at
from mlbox.project.reading import read_bytes
from mlbox.project.requirement import normalize
from mlbox.project.spec import Line, Spec
from mlbox.project.tables import NEVER, deep, get, strings

if TYPE_CHECKING:
    from mlbox.project.workspace import Workspace

_PROJECT_ROOT = "file:///${PROJECT_ROOT}"
_EDITABLE = re.compile(r"-e\s+(?P<place>[^#\s]+)#egg=(?P<name>[A-Za-z0-9._-]+)(?P<extras>\[[^\]]*\])?")
_HATCH_ROOT = re.compile(r"\{root((?::parent)*)(?::uri)?\}")

Tool = Callable[[dict[str, Any], "Context"], Spec]


class Context(msgspec.Struct, frozen=True):
    """Where the table stands, and what of it is wanted."""

    root: Path
    file: str
    problems: Problems
    extras: tuple[str, ...] = ()
    """Normalised names of those that count: uv has sources for some extras only."""
    locked: bool = False
    """Whether a lock of another tool has the versions, so that what no resolver could be told does no harm."""
    workspace: "Workspace | None" = None
    """The workspace of uv that the file's folder is a member of, when that is another folder's."""

    def at(self, key: str, name: str = "") -> str:
        """Return where `key` stands, for people."""
        return f"{self.file} [{key}]" + (f" {name[:100]}" if name else "")


def read_pyproject(root: Path, file: str, problems: Problems) -> Spec:
    """Read a pyproject.toml that is not the project's own."""
    with problems.at(file):
        table = load_toml(read_bytes(root / file, root=root), what="is not TOML", error=ProjectError)
        return with_tools(table, Context(root, file, problems))
    return Spec()


def with_tools(table: dict[str, Any], context: Context) -> Spec:
    """Return the table with what the tools' own tables add; each of them may also name indexes and constraints."""
    if _PROJECT_ROOT in str(table.get("project")):  # PDM knows the word in files without a table of its own too
        table = {**table, "project": deep(table["project"], _from_root)}
    spec = Spec(table=table)
    tools = table.get("tool", {})
    if not isinstance(tools, dict):
        return spec
    for name, read in _TOOLS.items():
        if name in tools or (name == "uv" and context.workspace):
            with context.problems.at(context.at(f"tool.{name}")):
                get(tools, name, dict)
                spec = _joined(spec, read(spec.table, context))
    return spec


def _joined(spec: Spec, more: Spec) -> Spec:
    from mlbox.project.requirements import merged

    return Spec(
        table={**spec.table, **more.table},
        labels={**spec.labels, **more.labels},
        lines=(*spec.lines, *more.lines),
        conda=more.conda or spec.conda,
        constraints=(*spec.constraints, *more.constraints),
        overrides=(*spec.overrides, *more.overrides),
        index=merged(spec.index, more.index),
        notes=(*spec.notes, *more.notes),
    )


def _poetry(table: dict[str, Any], context: Context) -> Spec:
    from mlbox.project.poetry import read_poetry

    spec = read_poetry(table, context)
    changed = {**spec.table, **_and_own_groups(table, spec.table["dependency-groups"])}
    if at(table, "tool", "poetry", "package-mode") is False:
        changed["build-system"] = {}
    return msgspec.structs.replace(spec, table=changed)


def _and_own_groups(table: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool's groups with those of the standard's own table, which stand before them."""
    own = table.get("dependency-groups", {})
    found = {**groups, **own} if isinstance(own, dict) else own
    return {"dependency-groups": found} if found else {}


def _flit(table: dict[str, Any], context: Context) -> Spec:
    """Read the metadata that Flit kept in a table of its own before there was [project]."""
    metadata = at(table, "tool", "flit", "metadata")
    if not isinstance(metadata, dict) or "project" in table:
        return Spec()
    extras = get(metadata, "requires-extra", dict)
    name = metadata.get("dist-name", metadata.get("module", ""))
    project = {
        "name": name.replace(".", "-") if isinstance(name, str) else name,
        "dynamic": ["version"],
        "dependencies": strings(metadata, "requires"),
        "optional-dependencies": {extra: strings(extras, extra) for extra in extras},
        "requires-python": get(metadata, "requires-python", str),
        "scripts": get(table["tool"]["flit"], "scripts", dict),
    }
    here = context.at("tool.flit.metadata")
    labels = {
        "project": here,
        "project.dependencies": f"{here} requires",
        "project.optional-dependencies": f"{here} requires-extra",
        "project.scripts": context.at("tool.flit.scripts"),
    }
    return Spec(table={"project": project}, labels=labels)


def _pdm(table: dict[str, Any], context: Context) -> Spec:
    pdm = table["tool"]["pdm"]
    groups = get(pdm, "dev-dependencies", dict)
    here = "tool.pdm.dev-dependencies"
    groups = {group: [_from_root(line) for line in strings(groups, group)] for group in groups}
    lines = {group: [line for line in groups[group] if not line.startswith("-")] for group in groups}
    notes = [
        f"{context.at(here, group)}: {line.split()[0]} lines of groups are not read"
        for group in groups
        for line in groups[group]
        if line.startswith("-")
    ]
    overrides = get(get(pdm, "resolution", dict), "overrides", dict)
    excludes = strings(get(pdm, "resolution", dict), "excludes")
    where = context.at("tool.pdm.resolution")
    indexes, find_links = _pdm_sources(pdm)
    return Spec(
        table=_and_own_groups(table, lines),
        labels={f"dependency-groups.{normalize(group)}": context.at(here) for group in lines},
        overrides=(
            *(Line(_override(name, get(overrides, name, str)), where) for name in overrides),
            *(Line(f"{name} ; {NEVER}", where) for name in excludes),
        ),
        index=msgspec.structs.replace(
            index_options(indexes),
            find_links=tuple(find_links),
            pre=get(get(pdm, "resolution", dict), "allow-prereleases", bool),
        ),
        notes=tuple(notes),
    )


def _from_root(line: str) -> str:
    """Return a line with a path below the file's folder as one that says so; '-e' makes no difference to a folder."""
    if found := _EDITABLE.fullmatch(line):
        name, extras = normalize(found["name"]), found["extras"] or ""
        return f"{name}{extras} @ {found['place'].replace(_PROJECT_ROOT, '.')}"
    return line.replace(_PROJECT_ROOT, ".")


def _override(name: str, text: str) -> str:
    if "://" in text:
        return f"{name} @ {text}"
    return f"{name}{text}" if text[:1] in ("<", ">", "=", "!", "~") else f"{name}=={text}"


def _pdm_sources(pdm: Mapping[str, Any]) -> tuple[list[NamedIndex], list[str]]:
    """Return PDM's indexes and pages; the one called 'pypi' takes the default's place."""
    sources = [source for source in get(pdm, "source", list) if isinstance(source, dict)]
    pages = [get(source, "url", str) for source in sources if source.get("type") == "find_links"]
    indexes = [
        NamedIndex(name, get(source, "url", str), "default" if name == "pypi" else "extra")
        for source in sources
        if source.get("type") != "find_links" and (name := get(source, "name", str)) is not None
    ]
    return indexes, pages


def _uv(table: dict[str, Any], context: Context) -> Spec:
    from mlbox.project.uvtool import read_uv

    return read_uv(table, context)


def _pixi(table: dict[str, Any], context: Context) -> Spec:
    """Read pixi's packages unless [project] has some: whoever wants both names pixi.toml or environment.yml."""
    from mlbox.project.pixi import read_pixi_table

    spec = read_pixi_table(table["tool"]["pixi"], context.file, "tool.pixi.", context.problems)
    project = table.get("project", {})
    if not isinstance(project, dict) or not spec.conda:
        return Spec()
    if project.get("dependencies"):
        names = ", ".join(one.text for one in spec.conda.dependencies[:5])
        note = f"{context.at('tool.pixi')}: {names} of conda count with a pixi.lock only: [project] comes first"
        return Spec(notes=(note,) if names else ())
    return msgspec.structs.replace(spec, table={"project": {**project, **spec.table["project"]}})


def _hatch(table: dict[str, Any], context: Context) -> Spec:
    """Fill in the only context that Hatch's dependencies need to be static: {root:uri}, the file's folder."""
    project = table.get("project")
    if not isinstance(project, dict):
        return Spec()
    rooted = {
        key: deep(project[key], _in_place)
        for key in ("dependencies", "optional-dependencies")
        if "{root" in str(project.get(key))
    }
    return Spec(table={"project": {**project, **rooted}}) if rooted else Spec()


def _in_place(line: str) -> str:
    return _HATCH_ROOT.sub(lambda found: "." + "/.." * found[1].count(":parent"), line)


_TOOLS: dict[str, Tool] = {"poetry": _poetry, "flit": _flit, "pdm": _pdm, "pixi": _pixi, "hatch": _hatch, "uv": _uv}
"""In the order in which they are read: uv's sources are for lines that the others may have brought."""
