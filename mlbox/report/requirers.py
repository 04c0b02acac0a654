"""Who asked for what: chains of requirements from the project's own lines to a package. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush

import msgspec

from mlbox.lock.debian import BASE, distribution_of
from mlbox.lock.model import Folder, Lock, Package
from mlbox.report.installed import Installed, OwnerKind

MOST_CHAINS = 20
_MOST_STEPS = 20_000
_SYSTEM = "[tool.mlbox] system-packages"

Chain = tuple[str, ...]
"""Where the project asks, then the packages from the one it names to the one in question."""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The packages of one kind in an image or lock, and who asks for whom."""

    requires: Mapping[str, Sequence[str]]
    roots: Mapping[str, Sequence[str]]
    """Packages that are wanted for themselves, and where that stands."""

    def required_by(self, name: str) -> tuple[str, ...]:
        """Return the packages that ask for `name`, sorted."""
        return tuple(sorted(one for one, needed in self.requires.items() if name in needed))


def python_graph(lock: Lock | None, packages: Sequence[Installed]) -> Graph:
    """Return the Python packages' graph: the lock's, else what the image's own metadata says."""
    if lock is not None:
        locked: tuple[Package | Folder, ...] = (*lock.packages, *lock.folders)
        return Graph(
            requires={one.name: one.requires for one in locked},
            roots={one.name: one.wanted_by for one in locked if one.wanted_by},
        )
    return Graph(requires=_edges(packages, "python"), roots={})


def conda_graph(lock: Lock | None, packages: Sequence[Installed]) -> Graph:
    """Return the conda packages' graph: the lock's, else what the image's own records say."""
    if lock is not None:
        return Graph(
            requires={package.name: package.requires for package in lock.conda},
            roots={package.name: package.wanted_by for package in lock.conda if package.wanted_by},
        )
    return Graph(requires=_edges(packages, "conda"), roots={})


def debian_graph(lock: Lock | None, packages: Sequence[Installed]) -> Graph:
    """Return the Debian packages' graph as dpkg's status has it; a lock says which were asked for."""
    roots: dict[str, tuple[str, ...]] = {}
    if lock is not None:
        base = f"the base ({distribution_of(lock.base.suite).name} {lock.base.suite})"
        essential = {package.owner.name for package in packages if package.essential}
        named = {deb.name for deb in lock.debs} & {*essential, *BASE}
        roots = dict.fromkeys(sorted(named), (base,))
        roots |= {name: (*roots.get(name, ()), _SYSTEM) for name in lock.system_packages}
    return Graph(requires=_edges(packages, "debian"), roots=roots)


def chains_to(graph: Graph, name: str, most: int = MOST_CHAINS) -> tuple[tuple[Chain, ...], bool]:
    """Return chains from where the project asks to `name`, the shortest first, and whether there are more."""
    above: dict[str, list[str]] = {}
    for one, needed in sorted(graph.requires.items()):
        for other in needed:
            above.setdefault(other, []).append(one)
    steps = _steps_to_a_root(graph)
    found: list[Chain] = []
    left: list[tuple[int, Chain]] = [(steps[name], (name,))] if name in steps else []
    # There may be exponentially many. Those that are nearest to a root are grown first, so the shortest are found
    # without looking at the rest.
    for _ in range(_MOST_STEPS):
        if not left or len(found) > most:
            break
        path = heappop(left)[1]
        found += [(origin, *path) for origin in graph.roots.get(path[0], ())]
        for one in above.get(path[0], ()):
            if one in steps and one not in path:
                heappush(left, (len(path) + steps[one], (one, *path)))
    return tuple(sorted(found, key=lambda chain: (len(chain), chain))[:most]), bool(left) or len(found) > most


def _steps_to_a_root(graph: Graph) -> dict[str, int]:
    """Return how many packages stand above each package that the project leads to, at least."""
    steps = dict.fromkeys(graph.roots, 0)
    left = deque(steps)
    while left:
        one = left.popleft()
        for needed in graph.requires.get(one, ()):
            if needed not in steps:
                steps[needed] = steps[one] + 1
                left.append(needed)
    return steps


def _edges(packages: Sequence[Installed], kind: OwnerKind) -> dict[str, tuple[str, ...]]:
    return {package.owner.name: package.requires for package in packages if package.owner.kind == kind}
