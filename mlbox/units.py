"""Amounts as people write and read them."""

from mlbox.errors import UsageError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 3650 * 86400


def mega(size: int) -> str:
    """Return `size` bytes for people, in decimal units."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def many(number: int, what: str) -> str:
    """Return how many of `what`: '1 layer', '2 layers'."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def parse_duration(text: str) -> float:
    """Return the seconds that `--for 90s`, '30m', '8h', '1.5d' means; a bare number is none: it names no unit."""
    number, unit = text.strip()[:-1], text.strip()[-1:]
    whole, _, part = number.partition(".")
    digits = whole + part
    if unit not in _SECONDS or not (whole and digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise UsageError(f"not a time: {text[:40]!r}", hint="a number with s, m, h or d, like 90s, 30m, 8h or 2d")
    seconds = float(number) * _SECONDS[unit]
    if not 1 <= seconds <= _LONGEST:
        raise UsageError(f"not a time for a container to run: {text[:40]!r}", hint="between 1s and 3650d")
    return seconds


def duration(seconds: float) -> str:
    """Return a time as `parse_duration` takes it, in the largest unit that it is a whole number of."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s"
