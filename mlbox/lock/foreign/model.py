"""What is taken from another tool's lock, the same for every format."""

from collections.abc import Callable

from mlbox.lock.conda.model import PinnedConda
from mlbox.lock.model import Target
from mlbox.lock.python.model import Pinned, Value


class Selection(Value, frozen=True, kw_only=True):
    """Which part of a lock is meant: locks of other tools often hold several machines, extras and groups."""

    target: Target
    extras: tuple[str, ...] = ()
    """Normalised names of the project's extras."""
    groups: tuple[str, ...] = ()
    """Normalised names of dependency groups; the project's own dependencies always count."""
    folder: str = "."
    """Where the project lies, from the lock: one of a workspace holds several."""
    above: int = 0
    """How many of the folders above the lock's are the project's too."""
    requirements: tuple[str, ...] = ()
    """What the project asks for with these extras and groups (PEP 508), for locks that do not say it themselves."""
    spec: bytes = b""
    """The file the lock was made from (pyproject.toml, Pipfile), to compare with; empty when it is not there."""
    specs: dict[str, bytes] = {}
    """The pyproject.toml of each folder that the project depends on, by where it lies."""


class Imported(Value, frozen=True, kw_only=True):
    """What the lock's owner would install for a selection."""

    pins: tuple[Pinned, ...] = ()
    """Sorted by name; the project itself may be among them as a folder.

    `index` is the address that the lock names, or empty; paths are relative to the lock.
    """
    conda: tuple[PinnedConda, ...] = ()
    """Sorted by name."""
    edges: bool = True
    """Whether the lock says who asks for whom."""
    notes: tuple[str, ...] = ()
    """What was read and has no effect here, one sentence each, for people."""


Reader = Callable[[bytes, Selection], Imported]
"""Reads a lock. Pure: no disk, no network. Raises LockError for what is damaged, unknown or hostile."""
