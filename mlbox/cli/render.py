"""Tables and JSON on stdout."""

import sys
import time
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from mlbox.units import mega

__all__ = ["Format", "ago", "clock", "mega", "print_json", "print_table", "shown", "shown_lines"]


class Format(StrEnum):
    """How a list command prints."""

    TABLE = "table"
    JSON = "json"


def print_json(value: object) -> None:
    """Print `value` as indented JSON."""
    print(msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2).decode())


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` below `head`, columns aligned, as wide as needed; what would move the cursor is escaped."""
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("   ".join(cells).rstrip() + "\n")


def shown(text: str) -> str:
    """Return the words of strangers fit for a terminal: one line, without control characters."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def shown_lines(text: str) -> str:
    """Return the words of strangers, or about them, fit for a terminal: their lines stay."""
    return "\n".join(map(shown, text.split("\n")))


def ago(seconds: float) -> str:
    """Return how long ago the time `seconds` was, in the largest fitting unit."""
    past = max(0, int(time.time() - seconds))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if past >= size:
            count = past // size
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return f"{past} seconds ago"


def clock(moment: float) -> str:
    """Return a time (seconds since 1970) as the clock here shows it, with the date when it is not today's."""
    then = time.localtime(moment)
    return time.strftime("%H:%M" if then[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M", then)
