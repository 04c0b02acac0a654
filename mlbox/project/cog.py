"""cog.yaml: Python, CUDA, system and Python packages of a model for Cog. https://cog.run/yaml"""

import re
from collections.abc import Iterator

from mlbox.errors import ProjectError
from mlbox.project.accelerator import accelerator_of_cuda
from mlbox.project.proposal import Proposal, Suggestion, Wish
from mlbox.project.settings import DEB
from mlbox.project.yaml import Node, parse_yaml

FILE = "cog.yaml"

_READ = ("gpu", "cuda", "cudnn", "python_version", "system_packages", "python_packages", "python_requirements", "run")
_ENDPOINT = re.compile(r"(?P<file>[\w./-]+\.py):(?P<name>\w+)", re.ASCII)


def read_cog(data: bytes, file: str = FILE) -> Proposal:
    """Return what a cog.yaml suggests; ProjectError with the line of what is wrong."""
    try:
        document = parse_yaml(data)
        return _Reader(file).read(_map(document, "the file"))
    except ProjectError as problem:
        raise ProjectError(f"{file}: {problem.message}", hint=problem.hint) from problem


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self._found = Proposal()

    def read(self, document: dict[str, Node]) -> Proposal:
        build = _map(document.get("build"), "build")
        self._build(build)
        for key, node in build.items():
            if key not in _READ:
                self._leave(node, f"build.{key[:50]} is not taken")
        for key in ("predict", "train"):
            if key in document:
                self._endpoint(key, document[key])
        for key, node in document.items():
            if key not in ("build", "predict", "train", "image"):
                self._leave(node, f"{key[:50]} is not taken")
        return self._found

    def _at(self, node: Node) -> str:
        return f"{self._file}:{node.line}"

    def _suggest(self, key: str, value: object, node: Node) -> None:
        self._found += Proposal(suggestions=(Suggestion(key=key, value=value, origin=self._at(node)),))

    def _leave(self, node: Node, why: str) -> None:
        self._found += Proposal(left=(f"{self._at(node)}: {why}",))

    def _build(self, build: dict[str, Node]) -> None:
        if (node := build.get("python_version")) and (version := re.match(r"3\.\d{1,2}", _word(node))):
            self._suggest("python", version[0], node)
        self._accelerator(build)
        for item in _items(build.get("system_packages"), "system_packages"):
            if DEB.fullmatch(name := _word(item).partition("=")[0]):
                self._suggest("system-packages", [name], item)
            else:
                self._leave(item, f"{_word(item)[:50]!r} is no Debian package name")
        for item in _items(build.get("python_packages"), "python_packages"):
            self._found += Proposal(wishes=(Wish(text=_word(item), origin=self._at(item)),))
        if (node := build.get("python_requirements")) and _word(node):
            self._suggest("requirements", [_word(node)], node)
        for item in _items(build.get("run"), "run"):
            command = item.value.get("command", item) if isinstance(item.value, dict) else item
            self._leave(item, f"run {_word(command)[:60]!r} is not taken: the setting 'run' has such commands")

    def _accelerator(self, build: dict[str, Node]) -> None:
        node = build.get("cuda")
        version = re.match(r"(1[0-9])\.([0-9])", _word(node)) if node else None
        if node and version and (accelerator := accelerator_of_cuda(version[1], version[2])):
            self._suggest("accelerator", accelerator, node)
        elif (gpu := build.get("gpu")) and _word(gpu).lower() == "true":
            # As Cog does: the frameworks' own builds say which CUDA.
            self._suggest("accelerator", "default", gpu)

    def _endpoint(self, key: str, node: Node) -> None:
        if found := _ENDPOINT.fullmatch(_word(node)):
            self._leave(node, f"{key} is {found['name']} of {found['file']}, which only Cog can call")
        else:
            self._leave(node, f"{key} is not taken")


def _map(node: Node | None, what: str) -> dict[str, Node]:
    if node is None or node.value is None:
        return {}
    if isinstance(node.value, dict):
        return node.value
    raise ProjectError(f"line {node.line}: {what} must be a map")


def _items(node: Node | None, what: str) -> Iterator[Node]:
    if node is None or node.value is None:
        return iter(())
    if isinstance(node.value, tuple):
        return iter(node.value)
    raise ProjectError(f"line {node.line}: {what} must be a list")


def _word(node: Node) -> str:
    if node.value is None:
        return ""
    if isinstance(node.value, str) and node.value.isprintable():
        return node.value
    raise ProjectError(f"line {node.line}: must be one word")
