"""Which Python packages share a layer: a rule that moves nothing that need not move. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from mlbox.lock.model import LayerGroup, Package

MOST_LAYERS = 40
BIG = 8 << 20
_MOST_BINS = 12
_BIN_SIZE = 16 << 20
_MOST_ALONE = MOST_LAYERS - _MOST_BINS
_BIN = "small-"
_OF_SOME = "small-of-some"
"""The bin of small packages that are not the same for all accelerators, so that the other bins are shared by all."""


class _Member(NamedTuple):
    """All that a lock has under one name."""

    name: str
    size: int
    shared: bool
    """Whether it is the same for all accelerators."""
    accelerators: frozenset[str]


def group_layers(packages: Sequence[Package], previous: Sequence[LayerGroup] = ()) -> tuple[LayerGroup, ...]:
    """Return groups that hold every package once, at most MOST_LAYERS for each accelerator: big ones alone, small ones
    in bins.

    A package that `previous` has stays where it was; a new small one goes to the bin that the hash of its name says,
    so adding, removing or changing a package touches its own group only. What all accelerators share comes first, and
    shares no group with what they do not.
    """
    members = _members(packages)
    bins = _bins(previous, (member for member in members.values() if member.shared and member.size < BIG))
    most = _MOST_ALONE - (not all(member.shared for member in members.values()))
    groups, alone = _kept(previous, members, bins, most)
    placed = {name for names in groups.values() for name in names}
    new = [member for member in members.values() if member.name not in placed]
    for member in sorted(new, key=lambda member: (-member.size, member.name)):
        if member.size >= BIG and all(alone[one] < most for one in member.accelerators):
            groups[_free_name(member.name, groups)] = {member.name}
            alone.update(member.accelerators)
        else:
            groups.setdefault(_bin_of(member, bins), set()).add(member.name)
    order = {name: (False, True, number) for number, name in enumerate(bins)} | {_OF_SOME: (True, True, 0)}
    some = {name: not all(members[one].shared for one in names) for name, names in groups.items()}
    ordered = sorted(groups, key=lambda name: (order.get(name, (some[name], False, 0)), name))
    return tuple(LayerGroup(name=name, packages=tuple(sorted(groups[name]))) for name in ordered)


def _members(packages: Sequence[Package]) -> dict[str, _Member]:
    every = frozenset(one for package in packages for one in package.accelerators) or frozenset(("",))
    members: dict[str, _Member] = {}
    for package in packages:
        mine = frozenset(package.accelerators) or every
        before = members.get(package.name, _Member(package.name, 0, not package.accelerators, mine))
        members[package.name] = before._replace(
            size=max(package.size, before.size), accelerators=before.accelerators | mine
        )
    return members


def _kept(
    previous: Sequence[LayerGroup], members: Mapping[str, _Member], bins: Sequence[str], most: int
) -> tuple[dict[str, set[str]], Counter[str]]:
    """Return the previous groups without the packages that are gone, as many as the limit allows, and how many of them
    each accelerator has alone."""
    seen = set[str]()
    kept: dict[str, set[str]] = {}
    alone = Counter[str]()
    for group in previous:
        is_bin = group.name in bins or group.name == _OF_SOME
        here = [members[name] for name in group.packages if name in members and name not in seen]
        left = {one.name for one in here if not is_bin or one.shared == (group.name != _OF_SOME)}
        theirs = frozenset[str]().union(*(members[name].accelerators for name in left))
        if not left or (not is_bin and (group.name.startswith(_BIN) or any(alone[one] >= most for one in theirs))):
            continue
        alone.update(() if is_bin else theirs)
        seen.update(left)
        kept.setdefault(group.name, set()).update(left)
    return kept, alone


def _bin_of(member: _Member, bins: Sequence[str]) -> str:
    return bins[_hash(member.name) % len(bins)] if member.shared else _OF_SOME


def _bins(previous: Sequence[LayerGroup], small: Iterable[_Member]) -> list[str]:
    """Return the bins' names; how many there are is decided once, for the first lock.

    The number is part of each bin's name ('small-3-of-8'), so that an emptied bin comes back under its old name.
    """
    for group in previous:
        number, of, count = group.name.removeprefix(_BIN).partition("-of-")
        known = group.name.startswith(_BIN) and number.isdecimal() and of and count.isdecimal()
        if known and 0 < int(count) <= _MOST_BINS:
            return _bin_names(int(count))
    total = sum(member.size for member in small)
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
