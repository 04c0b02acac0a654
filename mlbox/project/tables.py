"""What specs written in TOML share: typed access to their tables, and a dependency's table as a PEP 508 line."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from mlbox.errors import ProjectError
from mlbox.project.marker import parse_marker
from mlbox.project.pyproject import NAME
from mlbox.project.requirement import without_credentials

T = TypeVar("T")

NEVER = "python_version < '0'"
"""A marker that holds nowhere: what replaces a package under it takes the package out."""
_REVISION = re.compile(r"(?!-)[\w.+/-]+", re.ASCII)
_SCP = re.compile(r"(?P<user>[\w.-]+@)?(?P<host>[\w.-]+):(?P<path>[^/:\s][^:\s]*)", re.ASCII)
_PLACE = re.compile(r"[^\s#;]+")
_OPPOSITES = {"==": "!=", "<": ">=", ">": "<=", "in": "not in"}
_OPPOSITES |= {other: one for one, other in _OPPOSITES.items()}
_NAMES: dict[type[Any], str] = {dict: "a table", list: "a list", str: "a string", bool: "true or false"}


def get(table: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """Return what stands at `key`, an empty `kind` when nothing does; ProjectError when it is something else."""
    value = table.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ProjectError(f"{key} must be {_NAMES[kind]}")
    return value


def strings(table: Mapping[str, Any], key: str) -> list[str]:
    """Return the list of strings at `key`."""
    values = get(table, key, list)
    if not all(isinstance(value, str) for value in values):
        raise ProjectError(f"{key} must be a list of strings")
    return values


def named(name: str, *, extras: Iterable[str] = (), version: str = "", place: str = "", marker: str = "") -> str:
    """Return a PEP 508 line; ProjectError when a part of it would mean something else there."""
    if not NAME.fullmatch(name):
        raise ProjectError(f"{name[:100]!r} is no name of a package")
    for extra in extras:
        if not NAME.fullmatch(extra):
            raise ProjectError(f"{extra[:100]!r} is no name of an extra")
    if re.search(r"[;@\n]", version):
        raise ProjectError(f"{version[:100]!r} is no version")
    if "\n" in marker:
        raise ProjectError("a marker has one line")
    head = f"{name}[{','.join(extras)}]" if extras else name
    where = f" @ {place}" if place else version
    return f"{head}{where}{' ; ' if place else '; '}{marker}" if marker else f"{head}{where}"


def place_of(entry: Mapping[str, Any], *, revisions: Iterable[str] = ("rev", "tag", "branch")) -> str:
    """Return where a dependency's table says it lies: a git address, a URL or a path ('./libs/x'); else nothing."""
    given = [key for key in ("git", "url", "file", "path") if key in entry]
    if not given:
        return ""
    if len(given) > 1:
        raise ProjectError(f"{' and '.join(given)} say different places", hint="keep one")
    place = get(entry, given[0], str)
    subdirectory = get(entry, "subdirectory", str)
    fragment = f"#subdirectory={subdirectory}" if subdirectory else ""
    if not _PLACE.fullmatch(place) or (subdirectory and not _PLACE.fullmatch(subdirectory)):
        raise ProjectError(f"{without_credentials(place or subdirectory)[:100]!r} is no place")
    if given[0] == "git":
        revision = next((get(entry, key, str) for key in revisions if key in entry), "")
        if revision and not _REVISION.fullmatch(revision):
            raise ProjectError(f"{revision[:100]!r} is no git revision")
        return git_address(place) + (f"@{revision}" if revision else "") + fragment
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place):
        return place + fragment
    return place if place.startswith((".", "/", "~")) else f"./{place}"


def git_address(text: str) -> str:
    """Return a repository's address as pip writes it; 'git@host:path' becomes git+ssh."""
    if "://" not in text and (found := _SCP.fullmatch(text)):
        return f"git+ssh://{found['user'] or ''}{found['host']}/{found['path']}"
    return text if text.startswith("git+") else f"git+{text}"


def opposite(marker: str) -> str:
    """Return the marker that holds where `marker` does not; ProjectError when none can be written.

    PEP 508 has no 'not', so every comparison is turned round, and 'and' and 'or' with it.
    """
    try:
        return _opposite(parse_marker(marker)._markers)  # the only way to its parts
    except KeyError as problem:
        raise ProjectError(
            f"{marker[:100]!r}: {problem} has no opposite", hint="write it with <, >= or =="
        ) from problem


def _opposite(parts: Any) -> str:  # noqa: ANN401 - nested lists of comparisons and words
    if isinstance(parts, tuple):
        left, operator, right = (one.serialize() for one in parts)
        return f"{left} {_OPPOSITES[operator]} {right}"
    # 'and' binds: each run of it is one choice of the 'or' around.
    choices: list[list[str]] = [[]]
    for part in parts:
        if part == "or":
            choices.append([])
        elif part != "and":
            choices[-1].append(_opposite(part))
    return both(*(" or ".join(f"({one})" for one in choice) for choice in choices))


def both(*markers: str) -> str:
    """Return the marker that holds where all of them do; the empty one always does."""
    given = [marker for marker in markers if marker]
    return given[0] if len(given) == 1 else " and ".join(f"({marker})" for marker in given)


def deep(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 (TOML)
    """Return lists and tables of strings with each string changed."""
    if isinstance(value, dict):
        return {key: deep(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [deep(one, change) for one in value]
    return change(value) if isinstance(value, str) else value
