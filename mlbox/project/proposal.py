"""What files of other tools suggest for [tool.mlbox]: shown by `mlbox init`, and written where nothing is declared."""

from typing import Any

from mlbox.project.model import Value


class Suggestion(Value, frozen=True, kw_only=True):
    """A value for one key of the settings, and where it comes from."""

    key: str
    """As it is written: 'system-packages'."""
    value: Any
    """A string, a list of strings, or a table of strings."""
    origin: str


class Wish(Value, frozen=True, kw_only=True):
    """A Python package that something uses."""

    text: str
    """A requirement, mostly without a version."""
    origin: str
    sure: bool = True
    """False: only the name of a module says so, and a package of that name may be somebody else's."""


class Proposal(Value, frozen=True, kw_only=True):
    """What was drawn from files that are no specs."""

    suggestions: tuple[Suggestion, ...] = ()
    wishes: tuple[Wish, ...] = ()
    left: tuple[str, ...] = ()
    """What could not be taken, one sentence each."""

    def __add__(self, other: "Proposal") -> "Proposal":
        """Return both; of two suggestions for a key the first counts, lists and tables add up."""
        return Proposal(
            suggestions=(*self.suggestions, *other.suggestions),
            wishes=(*self.wishes, *other.wishes),
            left=(*self.left, *other.left),
        )

    def settings(self) -> dict[str, Suggestion]:
        """Return one suggestion for each key."""
        found: dict[str, Suggestion] = {}
        for one in self.suggestions:
            before = found.get(one.key)
            if before is None:
                found[one.key] = one
            elif isinstance(one.value, list) and isinstance(before.value, list):
                value = list(dict.fromkeys([*before.value, *one.value]))
                found[one.key] = Suggestion(key=one.key, value=value, origin=before.origin)
            elif isinstance(one.value, dict) and isinstance(before.value, dict):
                found[one.key] = Suggestion(key=one.key, value={**one.value, **before.value}, origin=before.origin)
        return found
