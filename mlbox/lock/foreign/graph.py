"""Walking from what a project asks for to everything that is installed, in locks that hold more than one machine."""

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Edge(NamedTuple):
    """One dependency whose marker holds: the package it means, and the extras of it that are asked for."""

    package: int
    extras: frozenset[str] = frozenset()


def reach(roots: Iterable[Edge], edges: Callable[[int, str], Iterable[Edge]]) -> dict[int, set[int]]:
    """Return the packages reached from `roots`, each with the packages it asks for.

    `edges` gives the dependencies of a package ('' ) or of one of its extras.
    """
    found: dict[int, set[int]] = {}
    done: set[tuple[int, str]] = set()
    waiting = list(roots)
    while waiting:
        package, extras = waiting.pop()
        for extra in ("", *extras):
            if (package, extra) in done:
                continue
            done.add((package, extra))
            needed = list(edges(package, extra))
            found.setdefault(package, set()).update(edge.package for edge in needed)
            waiting += needed
    return found
