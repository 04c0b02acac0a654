"""How Debian orders version strings (deb-version(7))."""

import re
from functools import lru_cache

_PARTS = re.compile(r"([^0-9]*)([0-9]*)")

Key = tuple[int, tuple[object, ...], tuple[object, ...]]


@lru_cache(maxsize=65536)
def version_key(version: str) -> Key:
    """Return a value that sorts as Debian sorts `version`; equal versions have equal keys."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, ""
    return (int(epoch) if epoch.isdecimal() else 0, _part_key(upstream), _part_key(revision))


def satisfies(version: str, operator: str, wanted: str) -> bool:
    """Return whether `version` stands in the relation `operator` ('>=', '<<', ...; '' is always true) to `wanted`."""
    if not operator:
        return True
    left, right = version_key(version), version_key(wanted)
    match operator:
        case ">=" | ">":
            return left >= right
        case "<=" | "<":
            return left <= right
        case ">>":
            return left > right
        case "<<":
            return left < right
        case "=":
            return left == right
    return False


def upstream_version(version: str) -> str:
    """Return the upstream part of `version`: '3.11.2' of '1:3.11.2-6+deb12u1'."""
    rest = version.partition(":")[2] or version
    return rest.rpartition("-")[0] or rest


def _part_key(text: str) -> tuple[object, ...]:
    # Text and numbers alternate. The end of the text counts as 0, so that '~' (-1) sorts before it
    # and everything else after it; letters come before all other characters.
    key: list[object] = []
    for letters, digits in _PARTS.findall(text):
        key += [(*map(_weight, letters), 0), int(digits or 0)]
    while key and key[-2:] == [(0,), 0]:
        del key[-2:]
    return (*key, (0,))


def _weight(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 0x110000
