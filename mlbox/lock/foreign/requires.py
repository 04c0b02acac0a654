"""What a project asks for: as the start of a walk, and to see whether a lock still fits its pyproject.toml."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from mlbox.codec import load_toml
from mlbox.errors import LockError
from mlbox.http import redact_text
from mlbox.lock.foreign.graph import Asked
from mlbox.lock.foreign.reading import Markers, name_of

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_OF_EXTRA = re.compile(r"extra\s*==\s*(?:'([^']*)'|\"([^\"]*)\")")
_SHOWN = 3


def asked_by(lines: Iterable[str], markers: Markers | None = None) -> Iterator[Asked]:
    """Yield the named requirements in `lines` whose marker holds (without `markers`: all of them)."""
    for line in lines:
        if line.startswith("./"):
            continue
        one = parse(line)
        if markers is None or one.marker is None or markers.hold(str(one.marker)):
            yield Asked(name_of(one.name), str(one.specifier), frozenset(map(name_of, one.extras)))


def asked_by_path(lines: Iterable[str], places: Mapping[str, str], markers: Markers, *, what: str) -> Iterator[Asked]:
    """Yield the requirements in `lines` that name a file or folder, by the package that `places` has there."""
    for line in lines:
        spec, _, marker = line.partition(" ;")
        if not spec.startswith("./") or not markers.hold(marker.strip()):
            continue
        path, _, extras = spec.removesuffix("]").partition("[")
        if (name := places.get(PurePosixPath(path).as_posix())) is None:
            raise LockError(f"{what}: has no package of {path[:200]}, which is asked for", hint="lock it again")
        yield Asked(name, extras=frozenset(name_of(extra.strip()) for extra in extras.split(",") if extra.strip()))


def parse(line: str) -> "Requirement":
    """Return a requirement (PEP 508); LockError when it is none."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(re.sub(r"\s--hash[= ].*", "", line))
    except (InvalidRequirement, RecursionError) as problem:
        raise LockError(f"{redact_text(line)[:200]!r} is no requirement") from problem


class Wanted(NamedTuple):
    """One requirement, as far as two ways of writing it can be compared: markers are rewritten by lockers."""

    name: str
    specifier: str
    """Empty when the place decides: a URL, a repository, a folder."""
    extras: tuple[str, ...]
    extra: str
    """The project's extra that asks for it."""
    free: bool
    """Whether its version does not count."""

    @classmethod
    def of(cls, name: str, specifier: str, extras: Iterable[str], marker: str, *, free: bool = False) -> "Wanted":
        """Make one; LockError when a part of it is none."""
        from packaging.specifiers import InvalidSpecifier, SpecifierSet

        try:
            version = "" if free else str(SpecifierSet(specifier))
        except InvalidSpecifier as problem:
            raise LockError(f"{name[:80]}: {specifier[:80]!r} names no versions") from problem
        found = _OF_EXTRA.search(marker)
        extra = name_of(found[1] or found[2]) if found else ""
        return cls(name_of(name), version, tuple(sorted(map(name_of, extras))), extra, free)


def wanted_by_pyproject(data: bytes) -> dict[str, list[Wanted]] | None:
    """Return what pyproject.toml asks for, by group ('' is the project itself); None when it does not say."""
    from packaging.dependency_groups import resolve_dependency_groups

    table = load_toml(data, what="pyproject.toml", error=LockError)
    project, groups = table.get("project"), table.get("dependency-groups", {})
    if not isinstance(groups, dict) or {"dependencies", "optional-dependencies"} & set(_list(project, "dynamic")):
        return None
    tool = table.get("tool")
    development = _list(tool.get("uv") if isinstance(tool, dict) else None, "dev-dependencies")
    if development:  # uv's own way, before there were groups
        groups = {**groups, "dev": [*_list(groups, "dev"), *development]}
    wanted: dict[str, list[Wanted]] = {}
    if isinstance(project, dict):
        lines = [(line, "") for line in _list(project, "dependencies")]
        optional = project.get("optional-dependencies")
        for extra, more in optional.items() if isinstance(optional, dict) else ():
            lines += [(line, str(extra)) for line in (more if isinstance(more, list) else [])]
        wanted[""] = [_parsed(line, extra) for line, extra in lines]
    for group in groups:
        try:
            wanted[name_of(group)] = [_parsed(line, "") for line in resolve_dependency_groups(groups, group)]
        except (ValueError, TypeError, LookupError, RecursionError, ExceptionGroup) as problem:
            raise LockError(f"pyproject.toml: group {group!r}: {str(problem)[:200]}") from problem
    return wanted


def _list(table: Any, key: str) -> list[Any]:  # noqa: ANN401 (TOML)
    found = table.get(key) if isinstance(table, dict) else None
    return found if isinstance(found, list) else []


def _parsed(line: object, extra: str) -> Wanted:
    parsed = parse(str(line))
    marker = f"extra == '{extra}'" if extra else ""
    return Wanted.of(parsed.name, str(parsed.specifier), parsed.extras, marker, free=parsed.url is not None)


def check_wanted(
    asked: Mapping[str, Sequence[Wanted]] | None,
    locked: Mapping[str, Sequence[Wanted]],
    *,
    name: str,
    what: str,
    hint: str,
    spec: str = "pyproject.toml",
) -> None:
    """Raise LockError when the lock was made for other requirements than the project, called `name`, has in `spec`."""
    if asked is None:
        return
    # Extras that name the project itself are written out by some versions of uv and not by others.
    recursive = any(one.name == name for ones in (*asked.values(), *locked.values()) for one in ones)

    def compared(ones: Sequence[Wanted]) -> list[Wanted]:
        return [one for one in ones if not recursive or (not one.extra and one.name != name)]

    changes: list[str] = []
    for group in sorted({*asked, *locked}):
        where = f" (group {group})" if group else ""
        changes += _changes(compared(asked.get(group, ())), compared(locked.get(group, ())), where)
    if changes:
        more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        raise LockError(f"{what} does not fit {spec} any more: {'; '.join(changes[:_SHOWN])}{more}", hint=hint)


def _changes(asked: Sequence[Wanted], locked: Sequence[Wanted], where: str) -> Iterable[str]:
    # A source of the tool's own table replaces the version, so what is free in the lock fits any.
    free = {(one.name, one.extra) for one in (*asked, *locked) if one.free}

    def keys(ones: Sequence[Wanted]) -> dict[tuple[str, ...], str]:
        found = {}
        for one in ones:
            loose = (one.name, one.extra) in free
            of = f" (extra {one.extra})" if one.extra else ""
            extras = f"[{','.join(one.extras)}]" if one.extras else ""
            version = "" if loose else one.specifier
            key = (one.name, one.extra) if loose else (one.name, one.extra, version, *one.extras)
            found[key] = f"{one.name}{extras}{version}{of}{where}"
        return found

    now, then = keys(asked), keys(locked)
    yield from (f"{text} is asked for" for key, text in now.items() if key not in then)
    yield from (f"{text} is not asked for" for key, text in then.items() if key not in now)
