"""JSON and TOML in one place: canonical bytes out, typed values in."""

import hashlib
from typing import Any, TypeVar

import msgspec

from mlbox.errors import MlboxError

T = TypeVar("T")


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of `value`: keys sorted, no spaces, UTF-8.

    Everything mlbox digests is written by this function.
    """
    return msgspec.json.encode(value, order="sorted")


def key_of(value: object) -> str:
    """Return the sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def decode_json(
    data: bytes, kind: type[T], *, what: str, error: type[MlboxError] = MlboxError, hint: str | None = None
) -> T:
    """Decode JSON `data` as `kind`; a mismatch raises `error` naming `what` and the path inside it."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise (error(f"{what}: {problem}", hint=hint) if hint else error(f"{what}: {problem}")) from problem


_DEEPEST_KEY = 100
"""Parts of a dotted key: the parser needs the square of their number, and one line could keep it busy for hours."""


def load_toml(data: bytes, *, what: str, error: type[MlboxError] = MlboxError) -> dict[str, Any]:
    """Parse TOML 1.0 `data`; a syntax error raises `error` naming `what` and the line. A byte order mark is ignored."""
    import tomllib  # 3 ms that running a container need not pay

    if any(line.count(b".") >= _DEEPEST_KEY and _has_deep_key(line) for line in data.splitlines()):
        raise error(f"{what}: a key of more than {_DEEPEST_KEY} parts")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as problem:  # a number of too many digits is no TOMLDecodeError
        raise error(f"{what}: {problem}", hint=_newer_toml(data, str(problem))) from problem


def _newer_toml(data: bytes, problem: str) -> str | None:
    """Return a hint when an inline table ends a line or has a comma at its end, which is an error since TOML 1.1 only.

    The parser says where it stopped, in words alone before Python 3.14.
    """
    import re

    found = re.match(
        r"(?:Invalid initial character for a key|Unclosed inline table).*line (\d+), column (\d+)", problem
    )
    if not found:
        return None
    line, column = data.decode("utf-8-sig").split("\n")[int(found[1]) - 1], int(found[2]) - 1
    if "{" in line[:column] and (line[column:].strip() or "}")[0] in "#}":
        return (
            "inline tables of several lines, or with a comma at their end, are TOML 1.1: write [a.table], or one line"
        )
    return None


def _has_deep_key(line: bytes) -> bool:
    import re

    return bool(re.search(rb"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){%d}""" % _DEEPEST_KEY, line))


def quoted(text: str) -> str:
    """Return `text` as a string that JSON, TOML and YAML read alike: JSON's, and an escaped DEL, which TOML wants."""
    import json  # only what writes for people pays for it

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
