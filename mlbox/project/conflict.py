"""Specs that do not count and contradict those that do: told, because one of them is wrong."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from mlbox.errors import ProjectError
from mlbox.project.model import Project, Requirement
from mlbox.project.requirement import normalize
from mlbox.project.spec import CANDIDATES

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

MAX_SHOWN = 5
"""Packages that are told for one file."""

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?(?P<specifier>[^;@\[]*)(?P<marker>;.*)?", re.DOTALL)


def disagreements(project: Project) -> list[str]:
    """Return sentences about specs of which one cannot be right; both places are named."""
    from mlbox.project.discover import load_project

    found: list[str] = []
    for source in project.sources:
        if source.used or source.path not in (*CANDIDATES, "pyproject.toml"):
            continue
        try:
            other = load_project(project.root, requirements=[source.path])
        except ProjectError:  # it does not count, so what is wrong in it does no harm
            continue
        found += _compared(project.requirements, other.requirements, source.path)
    return list(dict.fromkeys(found))  # setup.cfg and setup.py are read as one


def _compared(ours: Iterable[Requirement], theirs: Iterable[Requirement], file: str) -> Iterator[str]:
    counting = dict(_ranges(ours))
    others = [(name, one, counting[name]) for name, one in _ranges(theirs) if name in counting]
    different = [(name, one, our) for name, one, our in others if one[1] != our[1]]
    apart = [pair for pair in different if not overlap(pair[1][1], pair[2][1])]
    for name, (their_origin, their), (our_origin, our) in apart[:MAX_SHOWN]:
        yield f"{our_origin} asks for {name}{our}, and {their_origin} for {name}{their}: the first counts"
    if more := [name for name, _, _ in different if name not in {pair[0] for pair in apart[:MAX_SHOWN]}]:
        first = different[0][2][0].partition(":")[0].partition(" ")[0]
        names = ", ".join(more[:MAX_SHOWN]) + (f" and {len(more) - MAX_SHOWN} more" if len(more) > MAX_SHOWN else "")
        yield f"{file} has other ranges than {first} for {names}: what {first} says counts"


def _ranges(requirements: Iterable[Requirement]) -> Iterator[tuple[str, tuple[str, "SpecifierSet"]]]:
    """Yield name, place and range of what is asked for by name, everywhere and once."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    seen: dict[str, tuple[str, SpecifierSet]] = {}
    for one in requirements:
        found = _NAMED.fullmatch(one.text.partition(" --hash=")[0])
        if one.kind != "named" or not found or found["marker"]:
            continue
        name = normalize(found["name"])
        try:
            both = SpecifierSet(found["specifier"]) & (seen[name][1] if name in seen else SpecifierSet())
        except InvalidSpecifier:
            continue
        seen[name] = (seen[name][0] if name in seen else one.origin, both)
    yield from seen.items()


def overlap(one: "SpecifierSet", other: "SpecifierSet") -> bool:
    """Whether a version can be in both ranges: one that either names, or that stands just beside it."""
    from packaging.version import Version

    named = [Version(part.version.removesuffix(".*")) for part in chain(one, other)]
    near = [Version(f"{version.public}.post1") for version in named if not (version.is_postrelease or version.dev)]
    between = [Version(f"{version.epoch}!{'.'.join(map(str, version.release))}.0.1") for version in named]
    both = one & other
    candidates = [*named, *near, *between, Version("0"), Version("99999")]
    below = [Version(f"{v.epoch}!{'.'.join(map(str, _before(v.release)))}") for v in named]
    return any(both.contains(version, prereleases=True) for version in (*candidates, *below))


def _before(release: tuple[int, ...]) -> tuple[int, ...]:
    """Return a release that is a little lower: 1.2 -> 1.1.99999."""
    for place in range(len(release) - 1, -1, -1):
        if release[place]:
            return (*release[:place], release[place] - 1, 99999)
    return release
