"""A Dockerfile, read for what it says about the environment: its last stage, and the stages that one stands on.

The grammar is BuildKit's (e2b-dockerfile-utils); what the instructions mean for mlbox is decided here.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mlbox.errors import ProjectError, UsageError
from mlbox.project.accelerator import accelerator_of_cuda
from mlbox.project.proposal import Proposal, Suggestion, Wish
from mlbox.project.shell import read_commands

if TYPE_CHECKING:
    from e2b_dockerfile_utils import DockerfileInstruction

FILE = "Dockerfile"

MAX_SIZE = 2**20
MAX_INSTRUCTIONS = 2000
MAX_TEXT = 2**16
"""Characters of a text with its variables; they may double from line to line."""

_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?::?(?P<operator>[-+])(?P<word>[^}]*))?\}|(?P<plain>\w+))")
_CUDA = re.compile(r"(?:cuda|cu)[-_]?(?P<major>1[0-9])\.?(?P<minor>[0-9])", re.IGNORECASE)
_BUILDING = re.compile(r"PATH|DEBIAN_FRONTEND|(?:PIP|UV|POETRY|CONDA|NVIDIA|CUDA|LD)_.*|VIRTUAL_ENV|TZ")
"""Variables that build an image or that mlbox sets itself."""
_SECRET = re.compile(r".*(?:TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|PRIVATE).*", re.IGNORECASE)
_META = re.compile(r"[$&|;<>(){}`*?\n~]")
_PYTHONS = ("3.9", "3.11", "3.13")
"""Of the Debian releases that mlbox makes a base of."""
_IGNORED = ("COPY", "ADD", "ARG", "SHELL", "STOPSIGNAL", "MAINTAINER", "VOLUME", "HEALTHCHECK", "ONBUILD")


def read_dockerfile(data: bytes, file: str = FILE) -> Proposal:
    """Return what a Dockerfile suggests; ProjectError when it is none."""
    from e2b_dockerfile_utils import DockerfileSyntaxError, parse_dockerfile_ast

    if len(data) > MAX_SIZE:
        raise ProjectError(f"{file}: is larger than {MAX_SIZE // 1024} KiB")
    try:
        ast = parse_dockerfile_ast(data.decode("utf-8-sig"))
    except (DockerfileSyntaxError, UnicodeDecodeError, ValueError, RecursionError) as problem:
        reason = str(problem)[:300]
        raise ProjectError(f"{file}: {reason if reason.isprintable() else ascii(reason)[1:-1]}") from problem
    return _Reader(file).read(ast.instructions)


class _Stage(NamedTuple):
    base: str
    instructions: list["DockerfileInstruction"]
    at: str


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self._found = Proposal()
        self._variables: dict[str, str] = {}
        self._env: dict[str, str] = {}
        self._command: dict[str, tuple[list[str], str]] = {}
        self._ports: list[int] = []

    def read(self, instructions: list["DockerfileInstruction"]) -> Proposal:
        if len(instructions) > MAX_INSTRUCTIONS:
            raise ProjectError(f"{self._file}: more than {MAX_INSTRUCTIONS} instructions")
        chain = self._chain(instructions)
        if not chain:
            raise ProjectError(f"{self._file}: has no FROM")
        self._from(chain[0].base, chain[0].at)
        for stage in chain:
            for instruction in stage.instructions:
                self._instruction(instruction)
        self._finish()
        return self._found

    def _at(self, instruction: "DockerfileInstruction") -> str:
        return f"{self._file}:{instruction.start_line}"

    def _suggest(self, key: str, value: Any, at: str) -> None:  # noqa: ANN401 (a setting)
        self._found += Proposal(suggestions=(Suggestion(key=key, value=value, origin=at),))

    def _leave(self, at: str, why: str) -> None:
        self._found += Proposal(left=(f"{at}: {why}",))

    def _chain(self, instructions: list["DockerfileInstruction"]) -> list[_Stage]:
        """Return the last stage after those that it is FROM, the lowest first."""
        stages: list[_Stage] = []
        names: dict[str, _Stage] = {}
        for one in instructions:
            if one.name == "ARG" and not stages:
                self._variables |= _arguments(one.args, self._variables)
            elif one.name == "FROM" and one.args:
                base = expand(one.args[0], self._variables)
                stages.append(_Stage(base, [], self._at(one)))
                if len(one.args) == 3 and one.args[1].upper() == "AS":
                    names.setdefault(one.args[2].lower(), stages[-1])
            elif stages:
                stages[-1].instructions.append(one)
        chain = stages[-1:]
        while chain and (below := names.get(chain[0].base.lower())) and below not in chain:
            chain.insert(0, below)
        if left := len(stages) - len(chain):
            self._leave(self._file, f"{left} other stage{'s' if left > 1 else ''} and what is copied from there")
        return chain

    def _from(self, image: str, at: str) -> None:
        path, _, tag = image.partition("@")[0].rpartition(":") if ":" in image.rpartition("/")[2] else (image, "", "")
        name = path.removeprefix("docker.io/").removeprefix("library/")
        cuda = _CUDA.search(tag) or (re.match(r"(?P<major>1[0-9])\.(?P<minor>[0-9])", tag) if "cuda" in name else None)
        if cuda and (accelerator := accelerator_of_cuda(cuda["major"], cuda["minor"])):
            self._suggest("accelerator", accelerator, at)
        version = re.match(r"(\d+\.\d+(?:\.\d+)?)", tag)
        if name == "python" and version:
            self._python(".".join(version[1].split(".")[:2]), image, at)
        elif name in ("pytorch/pytorch", "tensorflow/tensorflow") and version:
            package = "torch" if "torch" in name else "tensorflow"
            self._found += Proposal(wishes=(Wish(text=f"{package}=={version[1]}", origin=at),))
        elif name not in ("debian", "scratch", "nvidia/cuda") and not name.startswith("debian"):
            self._base(image, at)

    def _python(self, minor: str, image: str, at: str) -> None:
        self._suggest("python", minor, at)
        if minor not in _PYTHONS:
            self._base(image, at)

    def _base(self, image: str, at: str) -> None:
        from mlbox.oci.reference import parse_reference

        try:
            self._suggest("base", str(parse_reference(image)), at)
        except UsageError:
            self._leave(at, f"FROM {image.rpartition('@')[2][:80]} names no image that can be read here")

    def _instruction(self, one: "DockerfileInstruction") -> None:
        at, known = self._at(one), {**self._variables, **self._env}
        match one.name:
            case "ARG":
                self._variables |= _arguments(one.args, self._variables)
            case "ENV":
                self._environment({name: _VARIABLE.sub("", value) for name, value in _pairs(one.args, known)}, at)
            case "LABEL":
                self._suggest("labels", dict(_pairs(one.args, known)), at)
            case "WORKDIR":
                self._workdir(expand(" ".join(one.args), known), at)
            case "USER":
                self._suggest("user", expand(" ".join(one.args), known), at)
            case "EXPOSE":
                ports = [re.match(r"(\d{1,5})(?:/tcp)?$", expand(word, known)) for word in one.args]
                self._ports += [int(port[1]) for port in ports if port]
            case "CMD" | "ENTRYPOINT":
                words = one.args if one.json else _shell_form(" ".join(one.args))
                self._command[one.name] = ([word for word in words if "\0" not in word], at)
                if one.name == "ENTRYPOINT":
                    self._command.pop("CMD", None)  # as Docker: an entrypoint resets the command of the base
            case "RUN":
                texts = [heredoc.content for heredoc in one.heredocs] or [
                    shlex.join(one.args) if one.json else " ".join(one.args)
                ]
                for text in texts:
                    self._found += read_commands(expand(text, known), at)
            case "ADD" if any(word.startswith(("http://", "https://", "git@")) for word in one.args[:-1]):
                self._leave(at, "ADD of an address is not taken")
            case name if name not in _IGNORED:
                self._leave(at, f"{name} is not taken")

    def _environment(self, pairs: Mapping[str, str], at: str) -> None:
        self._env |= pairs
        taken = {
            name: value for name, value in pairs.items() if not (_BUILDING.fullmatch(name) or _SECRET.fullmatch(name))
        }
        if secret := sorted(name for name in pairs if _SECRET.fullmatch(name)):
            self._leave(at, f"ENV {', '.join(secret)[:100]} looks like a secret: pass it with 'mlbox run -e NAME'")
        if taken:
            self._suggest("env", taken, at)

    def _workdir(self, path: str, at: str) -> None:
        if path.startswith("/"):
            self._suggest("workdir", path.rstrip("/") or "/", at)

    def _finish(self) -> None:
        for name, key in (("ENTRYPOINT", "entrypoint"), ("CMD", "command")):
            if name in self._command and self._command[name][0]:
                words, at = self._command[name]
                self._suggest(key, words, at)
        if self._ports and self._command:
            words = [word for name in ("ENTRYPOINT", "CMD") for word in self._command.get(name, ([], ""))[0]]
            at = next(iter(self._command.values()))[1]
            if words and 0 < self._ports[0] <= 65535:
                self._suggest("serve", {"command": words, "port": self._ports[0]}, at)


def _arguments(words: list[str], known: Mapping[str, str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    return {name: expand(_unquoted(value), known) for name, equals, value in pairs if equals}


def _pairs(words: list[str], known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield names and values of ENV and LABEL, which the parser gives as name, value, separator."""
    for name, value, _ in zip(words[::3], words[1::3], words[2::3], strict=False):
        if name and "\0" not in name + value:
            yield _unquoted(name), expand(_unquoted(value), known)


def _unquoted(text: str) -> str:
    try:
        return "".join(shlex.split(text)) if text[:1] in ("'", '"') else text.replace("\\ ", " ")
    except ValueError:
        return text


def expand(text: str, known: Mapping[str, str]) -> str:
    """Return `text` with the variables that are known; the others stay as they are written."""

    def value(found: re.Match[str]) -> str:
        name = found["braced"] or found["plain"]
        if found["operator"] == "-":
            return known.get(name) or found["word"]
        if found["operator"] == "+":
            return found["word"] if known.get(name) else ""
        return known.get(name, found[0])

    expanded = _VARIABLE.sub(value, text) if "$" in text else text
    return expanded if len(expanded) <= MAX_TEXT else text


def _shell_form(text: str) -> list[str]:
    """Return the words of a command that is written as one; a shell stays where it has something to do."""
    try:
        if not _META.search(text):
            return shlex.split(text)
    except ValueError:
        pass
    return ["sh", "-c", text]
