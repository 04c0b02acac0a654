"""YAML of other tools' locks as plain values: libyaml's events, no tags, no anchors, bounded."""

from typing import TypeVar

import msgspec

from mlbox.errors import LockError, ProjectError
from mlbox.project.yaml import Node, parse_yaml

T = TypeVar("T", bound=msgspec.Struct)

MOST = 64 << 20
"""Bytes; the lock of a big environment for four platforms has 3 MB."""


def read_yaml(data: bytes, kind: type[T], *, what: str) -> T:
    """Return the YAML document `data` as `kind`, whose words are text; LockError names the key that is wrong."""
    try:
        document = parse_yaml(data, most=MOST)
    except ProjectError as problem:
        raise LockError(f"{what} {problem.message}", hint="is it whole? its owner makes it again") from problem
    try:
        return msgspec.convert(_plain(document), kind, strict=False)
    except (msgspec.ValidationError, RecursionError) as problem:
        raise LockError(f"{what}: {problem}", hint="is it whole? its owner makes it again") from problem


def _plain(node: Node) -> object:
    value = node.value
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
