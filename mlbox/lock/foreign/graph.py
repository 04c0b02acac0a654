"""Walking from what a project asks for to everything that is installed, in locks that hold more than one machine."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from mlbox.errors import LockError
from mlbox.lock.foreign.constraint import admits


class Edge(NamedTuple):
    """One dependency whose marker holds: the package it means, and the extras of it that are asked for."""

    package: int
    extras: frozenset[str] = frozenset()


def reach(roots: Iterable[Edge], edges: Callable[[int, str], Iterable[Edge]]) -> dict[int, set[int]]:
    """Return the packages reached from `roots`, each with the packages it asks for.

    `edges` gives the dependencies of a package ('') or of one of its extras.
    """
    found: dict[int, set[int]] = {}
    done: set[tuple[int, str]] = set()
    waiting = list(roots)
    while waiting:
        package, extras = waiting.pop()
        for extra in ("", *sorted(extras)):
            if (package, extra) in done:
                continue
            done.add((package, extra))
            needed = list(edges(package, extra))
            found.setdefault(package, set()).update(edge.package for edge in needed)
            waiting += needed
    return found


class Asked(NamedTuple):
    """A dependency by name, for locks that do not say which package it means."""

    name: str
    constraint: str = ""
    extras: frozenset[str] = frozenset()


class Node(NamedTuple):
    """A package of such a lock."""

    name: str
    version: str
    asks: Callable[[str], Iterable[Asked]]
    """What it asks for on this machine by itself ('') or for one of its extras."""


def walk(roots: Sequence[Asked], nodes: Sequence[Node], *, what: str, hint: str) -> dict[int, set[int]]:
    """Return the nodes reached from `roots`, each with those it asks for.

    Where a name has several versions, the newest that everyone who asks admits is meant, as resolvers choose.
    """
    numbers: dict[str, list[int]] = {}
    for number, node in enumerate(nodes):
        numbers.setdefault(node.name, []).append(number)
    constraints: dict[str, set[str]] = {}

    def meant(asked: Iterable[Asked]) -> Iterator[Edge]:
        for one in asked:
            found = numbers.get(one.name, [])
            if not found:
                raise LockError(f"{what}: has no package {one.name}, which is asked for", hint=hint)
            if len(found) > 1:
                known = constraints.setdefault(one.name, set())
                known.add(one.constraint)
                fitting = [n for n in found if all(admits(text, nodes[n].version) for text in known)]
                found = [max(fitting or found, key=lambda n: _order(nodes[n].version, what))]
            yield Edge(found[0], one.extras)

    while True:  # until no choice between versions changes any more: constraints only grow
        before = sum(map(len, constraints.values()))
        reached = reach(meant(roots), lambda number, extra: meant(nodes[number].asks(extra)))
        if sum(map(len, constraints.values())) == before:
            return reached


def _order(version: str, what: str) -> Any:  # noqa: ANN401 - packaging's Version, imported late
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version)
    except InvalidVersion as problem:
        raise LockError(f"{what}: {version[:80]!r} is no version") from problem
