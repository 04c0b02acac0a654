"""Single instructions of a Dockerfile: files that a RUN writes, and values that stay one word whatever is in them."""

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from mlbox.errors import ProjectError

_MOST = 32_000
"""Bytes of one RUN that writes files: the kernel takes 128 KiB as one argument."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_PLAIN = re.compile(r"[A-Za-z0-9/._:@+-]+")
_PORT = re.compile(r"[0-9]{1,5}(/(tcp|udp|sctp))?")


class Placed(NamedTuple):
    """A small file that mlbox writes itself, or a link or folder, by its path from the image's root."""

    path: str
    data: bytes | None = None
    """None: a folder, or a link when there is a `target`."""
    mode: int = 0o644
    target: str = ""


def runs(commands: Iterable[str]) -> Iterator[str]:
    """Yield as few RUNs as can hold the commands."""
    for some in _batches(list(commands)):
        yield "RUN " + " \\\n && ".join(some)


def place(things: Sequence[Placed]) -> Iterator[str]:
    """Yield the commands that make files, links and folders, over those that are there."""
    folders = {thing.path for thing in things if thing.data is None and not thing.target}
    folders |= {thing.path.rpartition("/")[0] for thing in things}
    if deepest := sorted(one for one in folders if not any(other.startswith(f"{one}/") for other in folders)):
        yield f"mkdir -p {' '.join(shlex.quote(f'/{folder}') for folder in deepest)}"
    for thing in things:
        at = f"/{thing.path}"
        if thing.target:
            yield f"ln -sfn {shlex.quote(thing.target)} {shlex.quote(at)}"
        elif thing.data is not None:
            yield from written(at, thing.data)
            if thing.mode != 0o644:
                yield f"chmod {thing.mode:o} {shlex.quote(at)}"


def written(path: str, data: bytes) -> Iterator[str]:
    """Yield the commands that write a file, a line of it on a line; without here-documents, which are newer."""
    *lines, last = data.split(b"\n")
    how = ">"
    for some in _batches([_printed(line) for line in lines]):
        yield _print("%b\\n", some, how, path)
        how = ">>"
    if last or not lines:
        yield _print("%b", [_printed(last)], how, path)


def variable(name: str, value: str) -> str:
    """Return the ENV that sets a variable."""
    if not _NAME.fullmatch(name):
        raise ProjectError(f"{name!r} is no variable that a Dockerfile can set")
    return f"ENV {name}={quoted(value, f'the variable {name}')}"


def label(name: str, value: str) -> str:
    """Return the LABEL that sets a label."""
    what = f"the label {name!r}"
    return f"LABEL {word(name, what)}={quoted(value, what)}"


def port(text: str) -> str:
    """Return the EXPOSE of a port."""
    if not _PORT.fullmatch(text):
        raise ProjectError(f"{text!r} is no port")
    return f"EXPOSE {text}"


def word(text: str, what: str) -> str:
    """Return `text` as one word, quoted when it must be."""
    return text if _PLAIN.fullmatch(text) else quoted(text, what)


def quoted(text: str, what: str) -> str:
    """Return `text` in quotes; inside double quotes a Dockerfile still expands '$'."""
    if re.search(r"[\x00\r\n]", text):
        raise ProjectError(
            f"{what} holds a line break, which a Dockerfile cannot say", hint="change it in [tool.mlbox] and lock again"
        )
    return '"' + re.sub(r'[\\"$]', r"\\\g<0>", text) + '"'


def exec_form(argv: Sequence[str], *, expanded: bool = False) -> str:
    """Return the JSON form of a command, or of paths, in which variables would be `expanded`."""
    words = [one.replace("\\", "\\\\").replace("$", "\\$") for one in argv] if expanded else list(argv)
    return msgspec.json.encode(words).decode()


def _print(form: str, words: Sequence[str], how: str, path: str) -> str:
    return " \\\n      ".join([f"printf '{form}'", *words, f"{how} {shlex.quote(path)}"])


def _printed(line: bytes) -> str:
    """Return `line` as one quoted word for printf's %b, all in plain ASCII."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\0{byte:03o}" for byte in line)
    return f"'{''.join(plain)}'"


def _batches(words: Sequence[str]) -> Iterator[Sequence[str]]:
    start = size = 0
    for at, one in enumerate(words):
        if size and size + len(one) > _MOST:
            yield words[start:at]
            start, size = at, 0
        size += len(one)
    if words[start:]:
        yield words[start:]
