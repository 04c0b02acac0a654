"""Which Python packages share a layer: a rule that moves nothing that need not move. Pure."""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from mlbox.lock.model import LayerGroup, Package

MOST_LAYERS = 40
BIG = 8 << 20
_MOST_BINS = 12
_BIN_SIZE = 16 << 20
_MOST_ALONE = MOST_LAYERS - _MOST_BINS
_BIN = "small-"


def group_layers(packages: Sequence[Package], previous: Sequence[LayerGroup] = ()) -> tuple[LayerGroup, ...]:
    """Return at most MOST_LAYERS groups that hold every package once: big ones alone, small ones in bins.

    A package that `previous` has stays where it was; a new small one goes to the bin that the hash of its name says,
    so adding, removing or changing a package touches its own group only.
    """
    bins = _bins(previous, (package for package in packages if package.size < BIG))
    kept = _kept(previous, {package.name for package in packages}, bins)
    placed = {name for names in kept.values() for name in names}
    new = [package for package in packages if package.name not in placed]
    room = _MOST_ALONE - sum(name not in bins for name in kept)
    big = sorted((p for p in new if p.size >= BIG), key=lambda p: (-p.size, p.name))[:room]
    groups = {name: set(names) for name, names in kept.items()}
    for package in big:
        groups[_free_name(package.name, groups)] = {package.name}
    alone = {package.name for package in big}
    for package in new:
        if package.name not in alone:
            groups.setdefault(bins[_hash(package.name) % len(bins)], set()).add(package.name)
    ordered = [*sorted(groups.keys() - set(bins)), *(name for name in bins if name in groups)]
    return tuple(LayerGroup(name=name, packages=tuple(sorted(groups[name]))) for name in ordered)


def _kept(previous: Sequence[LayerGroup], present: set[str], bins: Sequence[str]) -> dict[str, list[str]]:
    """Return the previous groups without the packages that are gone, as many as the limit allows."""
    seen = set[str]()
    kept: dict[str, list[str]] = {}
    lone = 0
    for group in previous:
        left = [name for name in group.packages if name in present and name not in seen]
        if not left or (group.name not in bins and (group.name.startswith(_BIN) or lone == _MOST_ALONE)):
            continue
        lone += group.name not in bins
        seen.update(left)
        kept.setdefault(group.name, []).extend(left)
    return kept


def _bins(previous: Sequence[LayerGroup], small: Iterable[Package]) -> list[str]:
    """Return the bins' names; how many there are is decided once, for the first lock.

    The number is part of each bin's name ('small-3-of-8'), so that an emptied bin comes back under its old name.
    """
    for group in previous:
        number, of, count = group.name.removeprefix(_BIN).partition("-of-")
        known = group.name.startswith(_BIN) and number.isdecimal() and of and count.isdecimal()
        if known and 0 < int(count) <= _MOST_BINS:
            return _bin_names(int(count))
    total = sum(package.size for package in small)
    return _bin_names(min(_MOST_BINS, max(1, total // _BIN_SIZE)))


def _bin_names(count: int) -> list[str]:
    return [f"{_BIN}{number}-of-{count}" for number in range(1, count + 1)]


def _free_name(name: str, taken: Iterable[str]) -> str:
    """Return `name`, or a variant when a group is called so already (a distribution may be named like a bin)."""
    taken = set(taken)
    if name.startswith(_BIN):
        name = f"package-{name}"
    while name in taken:
        name += "-alone"
    return name


def _hash(name: str) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big")
