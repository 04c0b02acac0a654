"""Version constraints of Poetry ('^1.2', '~1.2', '1.2.*', '>=1,<2 || >=3') as specifiers and markers of the standards.

https://python-poetry.org/docs/dependency-specification/#version-constraints
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from mlbox.errors import ProjectError

if TYPE_CHECKING:
    from packaging.version import Version

_HOLED = ("<", "<=", ">", ">=", "!=")

MAX_LENGTH = 500
"""Characters of one constraint."""

_PART = re.compile(r"(?P<operator>\^|~=|~|===?|!=|<=?|>=?)?\s*(?P<version>(?:\d+!)?[^\s,|^~=!<>]+)")
_BETWEEN = re.compile(r"\s*,\s*|\s+|$")
_WILDCARD = re.compile(r"v?(?P<release>\d+(?:\.\d+)*)(?:\.[xX*])+", re.ASCII)


class Bound(NamedTuple):
    """One condition, in the words of PEP 440: ('>=', '1.2'), ('==', '1.2.*')."""

    operator: str
    version: str


Range = tuple[Bound, ...]
"""Conditions that all hold."""


def parse_constraint(text: str) -> tuple[Range, ...]:
    """Return the ranges of which one must hold; one without conditions admits everything."""
    if len(text) > MAX_LENGTH:
        raise ProjectError(f"a constraint of {len(text)} characters; {MAX_LENGTH} are allowed")
    return tuple(_range(part.strip(), text) for part in re.split(r"\s*\|\|?\s*", text.strip()))


def _range(text: str, whole: str) -> Range:
    bounds: list[Bound] = []
    position = 0
    while position < len(text):
        found = _PART.match(text, position)
        between = _BETWEEN.match(text, found.end()) if found else None
        if found is None or between is None:
            raise _not_a_constraint(whole)
        bounds += _bounds(found["operator"] or "", found["version"], whole)
        position = between.end()
        if position == len(text) and "," in between[0]:
            raise _not_a_constraint(whole)
    if not text:
        raise _not_a_constraint(whole)
    return tuple(bounds)


def _not_a_constraint(text: str) -> ProjectError:
    return ProjectError(f"{text[:100]!r} is no version constraint", hint='like "^1.2", "~1.2", "1.2.*" or ">=1.2,<2"')


def _bounds(operator: str, text: str, whole: str) -> list[Bound]:
    if text == "*" and operator in ("", "==", ">="):
        return []
    if wildcard := _WILDCARD.fullmatch(text):
        if operator in ("", "==", "!="):
            return [Bound(operator or "==", f"{wildcard['release']}.*")]
        raise _not_a_constraint(whole)
    version = _version(text, whole)
    if operator not in ("", "==", "===", "!="):  # a range has no local versions: '>=1.2' admits 1.2+cu126
        version = _version(version.public, whole)
    if operator == "^":
        return [Bound(">=", str(version)), Bound("<", _next(version, _first_that_counts(version)))]
    if operator == "~":
        return [Bound(">=", str(version)), Bound("<", _next(version, min(len(version.release), 2) - 1))]
    if operator == "~=" and len(version.release) < 2:
        raise _not_a_constraint(whole)
    return [Bound(operator or "==", str(version))]


def _version(text: str, whole: str) -> "Version":
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text)
    except InvalidVersion as problem:
        raise _not_a_constraint(whole) from problem


def _first_that_counts(version: "Version") -> int:
    """Return which part a caret lets stand: the first that is not zero, else the last that was written (of three)."""
    parts = version.release[:3]
    return next((place for place, part in enumerate(parts) if part), len(parts) - 1)


def _next(version: "Version", place: int) -> str:
    """Return the first version in which the part at `place` is greater, as long as `version` is written.

    What comes before the final 1.2 is followed by 1.2: '^1.2.0rc1' ends at 2, but '^0.0.3rc1' at 0.0.4 all the same.
    """
    release = [*version.release[:place], version.release[place] + 1]
    release += [0] * (max(len(version.release), place + 1) - len(release))
    epoch = f"{version.epoch}!" if version.epoch else ""
    return epoch + ".".join(map(str, release))


def as_specifier(text: str) -> str:
    """Return one PEP 440 specifier set; ProjectError when `text` is a choice that none can say."""
    from packaging.specifiers import SpecifierSet

    ranges = parse_constraint(text)
    if () in ranges:
        return ""
    if len(ranges) > 1 and any(bound.operator == "!=" for bounds in ranges for bound in bounds):
        raise _unspeakable(text)  # a hole of one range would be one of its neighbour too
    ordered = sorted(ranges, key=_lowest)
    joined = list(ordered[0])
    for following in ordered[1:]:
        joined = _bridged(joined, list(following), text)
    return str(SpecifierSet(",".join(bound.operator + bound.version for bound in joined)))


def _lowest(bounds: Range) -> "Version":
    from packaging.version import Version

    lower = [Version(one.version.removesuffix(".*")) for one in bounds if one.operator in (">=", ">", "==", "~=")]
    return max(lower, default=Version("0.dev0"))


def _bridged(below: list[Bound], above: list[Bound], text: str) -> list[Bound]:
    """Join two ranges into one with a hole, where PEP 440 can say the hole: '!=1.5.*' or '!=1.5'."""
    end, start = _only(below, "<", "<="), _only(above, ">", ">=")
    hole = _hole(end, start) if end and start and _is_plain(below) and _is_plain(above) else None
    if hole is None:
        raise _unspeakable(text)
    return [*(bound for bound in below if bound != end), hole, *(bound for bound in above if bound != start)]


def _unspeakable(text: str) -> ProjectError:
    return ProjectError(
        f"{text[:100]!r}: a choice between ranges cannot be handed to a resolver",
        hint="write one range, with the versions that do not work left out by !=",
    )


def _is_plain(bounds: list[Bound]) -> bool:
    """Whether a range is all between two ends, but for holes: what else it says would hold for its neighbour too."""
    from packaging.version import Version

    ends = [bound for bound in bounds if bound.operator in ("<", "<=", ">", ">=")]
    low, high = _only(bounds, ">", ">="), _only(bounds, "<", "<=")
    if len(ends) != len(list(filter(None, (low, high)))) or any(bound.operator not in _HOLED for bound in bounds):
        return False
    return not (low and high) or Version(low.version) < Version(high.version)


def _only(bounds: list[Bound], *operators: str) -> Bound | None:
    found = [bound for bound in bounds if bound.operator in operators]
    return found[0] if len(found) == 1 else None


def _hole(end: Bound, start: Bound) -> Bound | None:
    from packaging.version import Version

    low, high = Version(end.version), Version(start.version)
    if (end.operator, start.operator) == ("<", ">") and low == high:
        return Bound("!=", end.version)
    if (end.operator, start.operator) == ("<", ">=") and not (low.is_prerelease or low.is_postrelease):
        for places in range(1, len(low.release) + 1):
            if not any(low.release[places:]) and Version(_next(low, places - 1)) == high:
                return Bound("!=", ".".join(map(str, low.release[:places])) + ".*")
    return None


def as_python_marker(text: str) -> str:
    """Return a marker for a constraint on Python itself; empty when it admits every one."""
    ranges = parse_constraint(text)
    if () in ranges:
        return ""
    choices = [" and ".join(_python_marker(bound) for bound in bounds) for bounds in ranges]
    return choices[0] if len(choices) == 1 else " or ".join(f"({choice})" for choice in choices)


def _python_marker(bound: Bound) -> str:
    operator, version = bound
    plain = version.removesuffix(".*")
    places = plain.count(".") + 1
    if (version.endswith(".*") and places < 2) or operator == "~=":
        return f'python_full_version {operator} "{version}"'
    if places > 2:
        return f'python_full_version {operator} "{version}"'
    if places == 1:  # python_version has two numbers, and '3' would be compared as '3.0'
        plain = f"{plain}.0"
    if operator in (">", "<="):  # beyond 3.8 is 3.8.1 too, which has the python_version 3.8
        return f'python_full_version {operator} "{plain}.0"'
    return f'python_version {operator} "{plain}"'
