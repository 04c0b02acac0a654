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


def decode_json(data: bytes, kind: type[T], *, what: str, error: type[MlboxError] = MlboxError) -> T:
    """Decode JSON `data` as `kind`; a mismatch raises `error` naming `what` and the path inside it."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise error(f"{what}: {problem}") from problem


def load_toml(data: bytes, *, what: str, error: type[MlboxError] = MlboxError) -> dict[str, Any]:
    """Parse TOML 1.0 `data`; a syntax error raises `error` naming `what` and the line."""
    import tomllib  # 3 ms that running a container need not pay

    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise error(f"{what}: {problem}") from problem


def quoted(text: str) -> str:
    """Return `text` as a string that JSON, TOML and YAML read alike: JSON's, and an escaped DEL, which TOML wants."""
    import json  # only what writes for people pays for it

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
