"""What programs say when they fail, and what it means (gpu/failures.toml). Pure: facts come from the caller."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import msgspec

from mlbox import resources
from mlbox.codec import load_toml
from mlbox.errors import MlboxError

LONGEST_LINE = 2000
"""Characters of a line that are looked at: what says why a program failed stands at a line's beginning."""
_LONGEST_VALUE = 300
_KNOWN = "*"
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]{0,32}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)|[@-_])")
_RANK = re.compile(
    r"\[(?:rank)?[0-9]{1,6}(?:,[0-9]{1,6})?\](?:<std(?:err|out)>)?: ?"
    r"|\([A-Za-z_0-9]{0,60} ?pid=[0-9]{1,9}(?:, ip=[0-9.]{7,15})?\) "
)
_EXCEPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,100}(?:Error|Exception|Exit|Interrupt)(?::|$)")
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)

Facts = Callable[[str, Mapping[str, str]], str]
"""Returns the fact of that name, '' when it is not known; the mapping has the named groups of the line that matched."""


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cause, and when it is the one."""

    cause: str
    fix: str
    when: dict[str, str] = {}

    @property
    def facts(self) -> tuple[str, ...]:
        """The names of the facts that stand in the texts."""
        found = [name for text in (self.cause, self.fix) for _, name, _, _ in Formatter().parse(text) if name]
        return tuple(dict.fromkeys(found))


class Failure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to fail."""

    id: str
    source: str
    case: tuple[Case, ...]
    pattern: str = ""
    exits: tuple[int, ...] = ()


class Xid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an error number of NVIDIA's driver means."""

    cause: str
    fix: str


class FailureTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """gpu/failures.toml."""

    followers: tuple[str, ...]
    failure: tuple[Failure, ...]
    packages: dict[str, str]
    """A library's file to the Debian package that has it."""
    modules: dict[str, str]
    """A Python module to its distribution, where the names differ."""
    xid: dict[str, Xid]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a program failed."""

    id: str
    cause: str
    fix: str
    line: str = ""
    """What it said, '' when its exit code was enough."""
    source: str = ""


@cache
def failure_table() -> FailureTable:
    """Return the table that travels with mlbox."""
    return read_failure_table(resources.folder("gpu") / "failures.toml")


def read_failure_table(path: Path) -> FailureTable:
    """Read a table; what is wrong in it raises MlboxError naming the file."""
    document: dict[str, Any] = load_toml(path.read_bytes(), what=str(path))
    try:
        return msgspec.convert(document, FailureTable)
    except msgspec.ValidationError as problem:
        raise MlboxError(f"{path}: {problem}") from problem


def explain(table: FailureTable, text: str, exit_code: int | None, facts: Facts) -> Explanation | None:
    """Return why a program failed that ended with `text` (and `exit_code`, None when unknown); None when unsure.

    The last line that a rule knows counts, unless another error comes after it that no rule knows.
    """
    lines = [clean(line) for line in re.split(r"[\r\n]+", text)]
    for failure in table.failure:
        if exit_code in failure.exits and (found := _explained(failure, "", {}, facts)):
            return found
    for line, candidates in _matches(table, lines):
        for failure, groups in candidates:
            if found := _explained(failure, line, groups, facts):
                return found
    return None


def clean(line: str) -> str:
    """Return the line as its program meant it: without colours, without the rank that a launcher puts before it."""
    plain = _ESCAPES.sub("", line[: LONGEST_LINE * 2])[:LONGEST_LINE].rstrip()
    return plain[found.end() :] if (found := _RANK.match(plain)) else plain


def printable(text: str, most: int = _LONGEST_VALUE) -> str:
    """Return `text` so that it can be shown: no control characters, no change of direction, not long."""
    shown = "".join(character if character.isprintable() else "?" for character in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"


_Candidate = tuple[Failure, dict[str, str]]


def _matches(table: FailureTable, lines: Sequence[str]) -> Iterator[tuple[str, list[_Candidate]]]:
    """Yield the lines that rules know, the last first, up to an error that none knows."""
    rules = [(failure, _compiled(failure.pattern)) for failure in table.failure if failure.pattern]
    followers = _compiled("|".join(table.followers))
    blocked = False
    for line in reversed(lines):
        if line in _CHAINED:
            blocked = False
        if blocked:
            continue
        found = [
            (failure, {name: value for name, value in match.groupdict().items() if value})
            for failure, pattern in rules
            if (match := pattern.search(line))
        ]
        if found:
            yield line, found
        elif _EXCEPTION.match(line) and not followers.search(line):
            blocked = True


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _explained(failure: Failure, line: str, groups: Mapping[str, str], facts: Facts) -> Explanation | None:
    for case in failure.case:
        if (values := _values(case, groups, facts)) is not None:
            return Explanation(
                id=failure.id,
                cause=case.cause.format_map(values),
                fix=case.fix.format_map(values),
                line=printable(line),
                source=failure.source,
            )
    return None


def _values(case: Case, groups: Mapping[str, str], facts: Facts) -> dict[str, str] | None:
    """Return the facts for the texts of a case, None when it is not the case."""
    for name, wanted in case.when.items():
        found = facts(name, groups)
        if not found if wanted == _KNOWN else found != wanted:
            return None
    values = {}
    for name in case.facts:
        values[name] = printable(groups[name] if name in groups else facts(name, groups))
        if not values[name]:
            return None
    return values
