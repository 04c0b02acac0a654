"""A lock as conda's environment.yml."""

import re
from collections.abc import Iterator

from mlbox.codec import quoted
from mlbox.lock.model import Lock
from mlbox.plan.export.requirements import hashed
from mlbox.plan.export.words import header

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.=-]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def environment_yml(lock: Lock, name: str) -> str:
    """Return environment.yml: the Python of the lock, and its packages for the pip that conda runs, by hash.

    The channels are those that conda is configured with.
    """
    return "\n".join([*_lines(lock, name), ""])


def _lines(lock: Lock, name: str) -> Iterator[str]:
    yield from (f"# {line}" for line in header(lock))
    yield f"name: {_scalar(name)}"
    yield "dependencies:"
    yield f"  - python={lock.target.python_full}"
    if lock.packages:
        yield "  - pip"
        yield "  - pip:"
        yield from (f"      - {_scalar(hashed(package))}" for package in lock.packages)


def _scalar(text: str) -> str:
    # JSON's strings are YAML's; what YAML would take for a number, a date or null is quoted with the rest.
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else quoted(text)
