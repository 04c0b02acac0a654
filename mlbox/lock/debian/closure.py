"""Which packages a set of wishes needs: Depends, Pre-Depends, Provides and alternatives, as apt answers."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from mlbox.errors import ResolveError
from mlbox.lock.debian.distributions import DEBIAN, distribution_of
from mlbox.lock.debian.packages import Candidate, Packages, Relation
from mlbox.lock.debian.version import satisfies, version_key


class Archive:
    """What all suites of a release offer together; `locked` names the versions (by name) to keep where possible."""

    def __init__(self, suites: Sequence[Packages], locked: Mapping[str, str] | None = None) -> None:
        self.distribution = distribution_of(suites[0].suite).name if suites else DEBIAN.name
        self._suites = suites
        self._locked = dict(locked or {})
        self._best: dict[str, Candidate | None] = {}

    def best(self, name: str) -> Candidate | None:
        """Return the locked version of the package `name` while it is offered, else the newest."""
        if name not in self._best:
            offered = [c for suite in self._suites for c in suite.named(name)]
            kept = [c for c in offered if c.version == self._locked.get(name)]
            # Of equal versions the first suite's is taken: the files are the same.
            self._best[name] = max(kept or offered, key=lambda c: version_key(c.version), default=None)
        return self._best[name]

    def satisfying(self, relation: Relation) -> list[Candidate]:
        """Return the candidates that satisfy `relation`: the real package, then who provides it, preferred first."""
        real = self.best(relation.name)
        if real is not None and satisfies(real.version, relation.operator, relation.version):
            return [real]
        names = {c.name for suite in self._suites for c in suite.providing(relation.name)}
        found = [c for name in names if (c := self.best(name)) is not None and provides(c, relation)]
        return sorted(found, key=lambda c: (not c.essential, c.priority, c.name))

    def essential(self) -> list[str]:
        """Return the names of the essential packages, sorted."""
        names = {c.name for suite in self._suites if not suite.source for c in suite.essential()}
        return sorted(name for name in names if (best := self.best(name)) is not None and best.essential)

    def unlock(self, names: Sequence[str]) -> bool:
        """Let go of the locked versions of the packages `names`; returns whether there was any."""
        held = [name for name in names if name in self._locked]
        for name in held:
            del self._locked[name]
            self._best.pop(name, None)
        return bool(held)

    def similar(self, name: str) -> list[str]:
        """Return names of packages that look like `name`."""
        names = {n for suite in self._suites for n in suite.names() if n[:2] == name[:2]}
        return get_close_matches(name, sorted(names), n=3, cutoff=0.75)


def provides(candidate: Candidate, relation: Relation) -> bool:
    """Return whether `candidate` provides `relation` as a virtual package; only a versioned Provides fits a version."""
    return any(
        offer.name == relation.name
        and (not relation.operator or (offer.operator == "=" and _fits(offer.version, relation)))
        for offer in candidate.provides
    )


def matches(candidate: Candidate, relation: Relation) -> bool:
    """Return whether `candidate` is or provides what `relation` asks for."""
    return (candidate.name == relation.name and _fits(candidate.version, relation)) or provides(candidate, relation)


def _fits(version: str, relation: Relation) -> bool:
    return satisfies(version, relation.operator, relation.version)


class MovedError(Exception):
    """A locked version stands in the way and was let go of: start again."""


class Closure:
    """Grows a selection until nothing is missing; raises MovedError when a locked version had to be given up."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.selected: dict[str, Candidate] = {}
        self._provided: dict[str, list[Candidate]] = {}
        self._hated: dict[str, list[tuple[Candidate, Relation]]] = {}
        self._why: dict[str, str] = {}
        self._todo: deque[tuple[str, tuple[Relation, ...]]] = deque()
        self._choices: deque[tuple[str, tuple[Relation, ...]]] = deque()

    def add(self, names: Iterable[str]) -> dict[str, Candidate]:
        """Select the packages `names` and all they need; raises ResolveError with the chain that asks for it."""
        for name in names:
            self._require("", (Relation(name),))
        # Dependencies without a choice go first: what they bring often settles the choices.
        while self._todo or self._choices:
            self._require(*(self._todo or self._choices).popleft())
        for candidate in self.selected.values():
            if enemy := self._enemy(candidate):
                raise self._excluded(candidate, enemy)
        return self.selected

    def _require(self, wanted_by: str, group: tuple[Relation, ...]) -> None:
        if any(self._is_met(relation) for relation in group):
            return
        options = (option for relation in group for option in self.archive.satisfying(relation))
        usable = [option for option in options if option.name not in self.selected]
        if not usable:
            raise self._unsatisfiable(wanted_by, group)
        peaceful = (option for option in usable if not self._enemy(option))
        self._select(next(peaceful, usable[0]), wanted_by)

    def _select(self, candidate: Candidate, wanted_by: str) -> None:
        self.selected[candidate.name] = candidate
        self._why[candidate.name] = wanted_by
        for offer in candidate.provides:
            self._provided.setdefault(offer.name, []).append(candidate)
        for relation in candidate.conflicts:
            self._hated.setdefault(relation.name, []).append((candidate, relation))
        for group in candidate.depends:
            (self._todo if len(group) == 1 else self._choices).append((candidate.name, group))

    def _having(self, name: str) -> list[Candidate]:
        real = self.selected.get(name)
        return ([real] if real else []) + self._provided.get(name, [])

    def _is_met(self, relation: Relation) -> bool:
        return any(matches(candidate, relation) for candidate in self._having(relation.name))

    def _enemy(self, one: Candidate) -> Candidate | None:
        for relation in one.conflicts:
            for other in self._having(relation.name):
                if other.name != one.name and matches(other, relation):
                    return other
        for name in (one.name, *(offer.name for offer in one.provides)):
            for other, relation in self._hated.get(name, ()):
                if other.name != one.name and matches(one, relation):
                    return other
        return None

    def chain(self, name: str) -> str:
        """Return who asks for `name`: 'ffmpeg -> libavcodec59 -> libx264-164'."""
        names = [name]
        while above := self._why.get(names[-1]):
            names.append(above)
        return " -> ".join(reversed(names))

    def _excluded(self, one: Candidate, other: Candidate) -> Exception:
        if self.archive.unlock((one.name, other.name)):
            return MovedError()
        return ResolveError(
            f"the {self.archive.distribution} packages {one.name} {one.version} and {other.name} {other.version}"
            f" exclude each other ({self.chain(one.name)}; {self.chain(other.name)})",
            hint="remove one of them from system-packages",
        )

    def _unsatisfiable(self, wanted_by: str, group: tuple[Relation, ...]) -> Exception:
        if self.archive.unlock((wanted_by, *(relation.name for relation in group))):
            return MovedError()
        wish, distribution = " | ".join(map(str, group)), self.archive.distribution
        if not wanted_by:
            near = self.archive.similar(group[0].name)
            hint = (
                f"did you mean {' or '.join(near)}?"
                if near
                else f"system-packages holds names of {distribution} packages, those of other archives need apt-sources"
            )
            return ResolveError(f"there is no {distribution} package {wish} in this release", hint=hint)
        found = [c for relation in group if (c := self.archive.best(relation.name)) is not None]
        has = "but the archive has " + ", ".join(map(_version_of, found)) if found else "which is missing"
        return ResolveError(
            f"the {distribution} package {wanted_by} needs {wish}, {has} ({self.chain(wanted_by)})",
            hint="the mirror's suites may not fit together: are updates and security of the same release configured?",
        )


def _version_of(one: Candidate) -> str:
    return f"{one.name} {one.version}" + ("" if one.path else f" ({one.suite} has it)")
