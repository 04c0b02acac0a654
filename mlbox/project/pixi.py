"""pixi.toml and [tool.pixi]: conda packages, packages of an index, and what platforms change. https://pixi.sh/latest

The default environment is read; the others are named in a note.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlbox.codec import load_toml
from mlbox.errors import ProjectError
from mlbox.project.environment import CHANNEL, VARIABLE, match_spec
from mlbox.project.indexes import NamedIndex, Use, index_options
from mlbox.project.model import CondaDependency, CondaSpec, IndexOptions
from mlbox.project.problems import Problems
from mlbox.project.reading import read_bytes
from mlbox.project.requirement import without_credentials
from mlbox.project.spec import Line, Spec
from mlbox.project.tables import get, named, place_of, strings

FILE = "pixi.toml"

_LINUX = ("unix", "linux", "linux-64", "linux-aarch64")
_FIELDS = ("version", "build", "build-number", "channel", "subdir", "md5", "sha256", "file-name")


def read_pixi(root: Path, file: str, problems: Problems) -> Spec:
    """Read a pixi.toml."""
    with problems.at(file):
        table = load_toml(read_bytes(root / file, root=root), what="is not TOML", error=ProjectError)
        return read_pixi_table(table, file, "", problems)
    return Spec()


def read_pixi_table(table: Mapping[str, Any], file: str, above: str, problems: Problems) -> Spec:
    """Read the words of pixi, which stand below `above` ('tool.pixi.') in `file`."""
    return _Reader(file, above, problems).read(table)


class _Reader:
    def __init__(self, file: str, above: str, problems: Problems) -> None:
        self._file = file
        self._above = above
        self._problems = problems
        self._uses: list[Use] = []
        self._lines: list[Line] = []
        self._notes: list[str] = []

    def read(self, table: Mapping[str, Any]) -> Spec:
        workspace = get(table, "workspace", dict) or get(table, "project", dict)
        tables = list(self._parts(table))
        conda = CondaSpec(
            path=self._file,
            name=get(workspace, "name", str),
            channels=tuple(self._channels(workspace)),
            dependencies=tuple(one for key, part in tables for one in self._conda(part, key)),
            variables=self._variables(table),
            platforms=tuple(strings(workspace, "platforms")),
        )
        packages = [line for key, part in tables for line in self._packages(part, key)]
        return Spec(
            table={"project": {"dependencies": packages}},
            labels={"project": self._at("workspace"), "project.dependencies": self._at("pypi-dependencies")},
            lines=tuple(self._lines),
            index=self._index(table),
            conda=conda if conda.dependencies or packages or self._lines else None,
            notes=tuple(self._notes),
        )

    def _at(self, key: str, name: str = "") -> str:
        return f"{self._file} [{self._above}{key}]" + (f" {name[:100]}" if name else "")

    def _parts(self, table: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the tables that make the default environment, with their names."""
        yield "", table
        environments = get(table, "environments", dict)
        default = environments.get("default", [])
        wanted = strings(default, "features") if isinstance(default, dict) else strings({"default": default}, "default")
        features = get(table, "feature", dict)
        for name in wanted:
            if not isinstance(features.get(name), dict):
                raise ProjectError(f"the default environment has no feature {name[:100]!r} to take")
            yield f"feature.{name}.", features[name]
        if others := sorted(set(environments) - {"default"}):
            self._notes.append(
                f"{self._at('environments')}: without a pixi.lock only the default one is read, not"
                f" {', '.join(others)[:200]}"
            )
        targets = get(table, "target", dict)
        for name in targets:
            if name in _LINUX[:2]:
                yield f"target.{name}.", get(targets, name, dict)
            elif name in _LINUX:
                self._notes.append(f"{self._at(f'target.{name}')}: is not read; only what all of Linux has is")

    def _channels(self, workspace: Mapping[str, Any]) -> Iterator[str]:
        for channel in get(workspace, "channels", list):
            name = channel.get("channel") if isinstance(channel, dict) else channel
            if isinstance(name, str) and CHANNEL.fullmatch(name):
                yield name
            else:
                shown = without_credentials(str(name))[:100]
                self._problems.add(
                    self._at("workspace.channels"), f"{shown!r} is no channel", "a name, or https://HOST/PATH"
                )

    def _conda(self, part: Mapping[str, Any], key: str) -> Iterator[CondaDependency]:
        where = f"{key}dependencies"
        with self._problems.at(self._at(where)):
            for name, value in get(part, "dependencies", dict).items():
                with self._problems.at(self._at(where, name)):
                    yield CondaDependency(text=_match_spec(name, value), origin=self._at(where, name))

    def _packages(self, part: Mapping[str, Any], key: str) -> Iterator[str]:
        where = f"{key}pypi-dependencies"
        with self._problems.at(self._at(where)):
            for name, entry in get(part, "pypi-dependencies", dict).items():
                with self._problems.at(self._at(where, name)):
                    words = {"version": entry} if isinstance(entry, str) else entry
                    if not isinstance(words, dict):
                        raise ProjectError('must be a version or a table: "*", {version = "*"}')
                    if "path" in words and "git" not in words:
                        self._lines.append(Line(_folder(words), self._at(where, name)))
                    else:
                        yield self._package(name, words)

    def _package(self, name: str, words: Mapping[str, Any]) -> str:
        place = place_of(words)
        version = get(words, "version", str).strip()
        if index := get(words, "index", str):
            self._uses.append(Use(name, index))
        if version and version != "*" and version[0] not in "<>=!~":
            version = f"=={version}"
        return named(
            name, extras=strings(words, "extras"), version="" if place or version == "*" else version, place=place
        )

    def _index(self, table: Mapping[str, Any]) -> IndexOptions:
        with self._problems.at(self._at("pypi-options")):
            options = get(table, "pypi-options", dict)
            url = get(options, "index-url", str)
            indexes = [NamedIndex("index-url", url, "default")] if url else []
            indexes += [NamedIndex(extra, extra) for extra in strings(options, "extra-index-urls")]
            # A package names its index by the address.
            indexes += [NamedIndex(use.source, use.source, "explicit") for use in self._uses]
            return index_options(indexes, self._uses)
        return IndexOptions()

    def _variables(self, table: Mapping[str, Any]) -> dict[str, str]:
        with self._problems.at(self._at("activation")):
            activation = get(table, "activation", dict)
            if "scripts" in activation:
                self._notes.append(f"{self._at('activation.scripts')}: is not run")
            variables = get(activation, "env", dict)
            if wrong := next((name for name in variables if not VARIABLE.fullmatch(name)), ""):
                raise ProjectError(f"{wrong[:50]!r} is no name for an environment variable")
            return {name: get(variables, name, str) for name in variables}
        return {}


def _folder(words: Mapping[str, Any]) -> str:
    extras = strings(words, "extras")
    path = place_of({"path": words["path"]}) + (f"[{','.join(extras)}]" if extras else "")
    return f"-e {path}" if get(words, "editable", bool) else path


def _match_spec(name: str, value: object) -> str:
    """Return a MatchSpec; pixi's tables have the fields of conda's brackets."""
    if isinstance(value, str):
        version = value.strip()
        return match_spec(name if version in ("", "*") else f"{name} {version}")
    if not isinstance(value, dict):
        raise ProjectError('must be a version or a table: "*", {version = "*"}')
    if other := next((key for key in value if key not in _FIELDS), ""):
        raise ProjectError(f"{other[:50]!r} is not read", hint="only packages of a channel are")
    fields = [
        f"{key.replace('-', '_')}={_quoted(str(value[key]))}" for key in _FIELDS if value.get(key) not in (None, "*")
    ]
    return match_spec(f"{name}[{','.join(fields)}]" if fields else name)


def _quoted(text: str) -> str:
    if re.search(r"['\"\[\]]", text):
        raise ProjectError(f"{text[:50]!r} has quotes or brackets")
    return f"'{text}'"
