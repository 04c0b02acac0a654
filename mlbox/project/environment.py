"""environment.yml as conda reads it: channels, packages, the pip section, variables. Nothing is resolved."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlbox.errors import ProjectError
from mlbox.project.model import CondaDependency, CondaSpec
from mlbox.project.problems import Problems
from mlbox.project.reading import read_bytes
from mlbox.project.requirement import without_credentials
from mlbox.project.spec import Line, Spec
from mlbox.project.yaml import Node, parse_yaml

FILES = ("environment.yml", "environment.yaml")

MAX_LENGTH = 1000
"""Characters of one dependency or channel."""

_KEYS = frozenset({"name", "channels", "dependencies", "variables", "platforms"})
_IGNORED = {"prefix": "a place on one machine", "category": "conda-lock's own"}
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
CHANNEL = re.compile(r"(?:https?|file)://[^\s\[\]]+|(?!\.{1,2}(?:/|$))[A-Za-z0-9][\w.-]*(?:/(?!\.)[\w.-]+)*", re.ASCII)
_SPEC = re.compile(rf"(?:(?P<channel>\S+?)::)?(?P<name>{_NAME})(?:\[[^\[\]]*\]|[\s=!<>~].*)?", re.ASCII)
_SPEC_REST = re.compile(r"[\w\s.,:;|()*^$+!<>=~\[\]'\"/-]*", re.ASCII)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Environment(NamedTuple):
    """What the file says; its pip section still has to be read as a requirements file."""

    spec: CondaSpec
    pip: tuple[Line, ...]
    """Anything that a requirements file may hold."""
    notes: tuple[str, ...]


def read_environment(data: bytes, file: str, problems: Problems) -> Environment:
    """Return what an environment.yml asks for; what is wrong in it goes to `problems` with file and line."""
    with problems.at(file):
        document = parse_yaml(data)
        if document.value is None:
            document = Node(line=1, value={})
        if not isinstance(document.value, dict):
            raise ProjectError("must be a map with 'dependencies'", hint="as 'conda env export' writes it")
        return _Reader(file, problems).read(document.value)
    return Environment(CondaSpec(path=file), (), ())


def read_environment_file(root: Path, file: str, problems: Problems) -> Spec:
    """Read it as a Spec; it asks for conda's packages even when it names none."""
    with problems.at(file):
        spec, pip, notes = read_environment(read_bytes(root / file, root=root), file, problems)
        return Spec(conda=spec, lines=pip, notes=notes)
    return Spec()


class _Reader:
    def __init__(self, file: str, problems: Problems) -> None:
        self._file = file
        self._problems = problems

    def read(self, document: dict[str, Node]) -> Environment:
        dependencies, pip = self._dependencies(document.get("dependencies"))
        spec = CondaSpec(
            path=self._file,
            name=self._word(document.get("name")),
            channels=tuple(channel for channel, _ in self._channels(document.get("channels"))),
            dependencies=tuple(dependencies),
            variables=self._variables(document.get("variables")),
            platforms=tuple(word for word, _ in self._words(document.get("platforms"))),
        )
        return Environment(spec, tuple(pip), tuple(self._unread(document)))

    def _unread(self, document: dict[str, Node]) -> Iterator[str]:
        for key, node in document.items():
            if key not in _KEYS:
                why = _IGNORED.get(key, "it is not known")
                yield f"{self._at(node)}: {key[:50]!r} has no effect: {why}"

    def _at(self, node: Node) -> str:
        return f"{self._file}:{node.line}"

    def _word(self, node: Node | None) -> str:
        if node is None or node.value is None:
            return ""
        if isinstance(node.value, str) and len(node.value) <= MAX_LENGTH and node.value.isprintable():
            return node.value.strip()
        self._problems.add(self._at(node), "must be one word")
        return ""

    def _items(self, node: Node | None) -> tuple[Node, ...]:
        if node is None or node.value is None:
            return ()
        if isinstance(node.value, tuple):
            return node.value
        self._problems.add(self._at(node), "must be a list", "begin each line with '- '")
        return ()

    def _words(self, node: Node | None) -> Iterator[tuple[str, Node]]:
        for item in self._items(node):
            if word := self._word(item):
                yield word, item

    def _channels(self, node: Node | None) -> Iterator[tuple[str, Node]]:
        for channel, item in self._words(node):
            if CHANNEL.fullmatch(channel):
                yield channel, item
            else:
                shown = without_credentials(channel)
                self._problems.add(self._at(item), f"{shown!r} is no channel", "a name, or https://HOST/PATH")

    def _dependencies(self, node: Node | None) -> tuple[list[CondaDependency], list[Line]]:
        found: list[CondaDependency] = []
        pip: list[Line] = []
        for item in self._items(node):
            if isinstance(item.value, dict):
                pip += self._pip(item.value)
            elif word := self._word(item):
                with self._problems.at(self._at(item)):
                    found.append(CondaDependency(text=match_spec(word), origin=self._at(item)))
        return found, pip

    def _pip(self, section: dict[str, Node]) -> Iterator[Line]:
        for key, node in section.items():
            if key != "pip":
                self._problems.add(self._at(node), f"{key[:50]!r} is no section of dependencies", "only 'pip' is one")
                continue
            for line, item in self._words(node):
                yield Line(line, self._at(item))

    def _variables(self, node: Node | None) -> dict[str, str]:
        if node is None or node.value is None:
            return {}
        if not isinstance(node.value, dict):
            self._problems.add(self._at(node), "must be a map of names to values")
            return {}
        found = {}
        for name, value in node.value.items():
            if not VARIABLE.fullmatch(name):
                self._problems.add(self._at(value), f"{name[:50]!r} is no name for an environment variable")
            elif value.value is None or isinstance(value.value, str):
                found[name] = value.value or ""
            else:
                self._problems.add(self._at(value), "must be one value")
        return found


def match_spec(text: str) -> str:
    """Return a conda dependency on one line; ProjectError when it cannot be a MatchSpec that names a package."""
    plain = " ".join(text.split())
    if without_credentials(plain) != plain:
        raise ProjectError("a package's address has a password", hint="name the channel with it under channels")
    found = _SPEC.fullmatch(plain)
    shown = without_credentials(plain[:100])
    if not found or not _SPEC_REST.fullmatch(plain[found.end("name") :]):
        hint = "like numpy=1.26, 'numpy>=1.26,<2' or conda-forge::numpy"
        raise ProjectError(f"{shown!r} is no conda package", hint=hint)
    if (channel := found["channel"]) is not None and not CHANNEL.fullmatch(channel):
        raise ProjectError(f"{shown!r}: what stands before '::' is no channel", hint="a name, or https://HOST/PATH")
    return plain
