"""Layers as a container sees them: what is left when they lie over one another."""

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from mlbox.errors import StoreError
from mlbox.oci.digest import DiffID
from mlbox.oci.layer import Entry
from mlbox.store.layers import LayerStore
from mlbox.store.tree import below

DOCUMENT_LIMIT = 32 << 20
"""The largest file of a package database that is read, in bytes."""


class Place(NamedTuple):
    """Where a file of an image lies."""

    entry: Entry
    layer: int
    """Position of its layer, 0 is the lowest."""


def effective(layers: Sequence[Sequence[Entry]]) -> dict[str, Place]:
    """Return what is left of `layers` (lowest first) when they lie over one another, by path.

    A whiteout hides what lower layers have at its path, an opaque folder all that they have in it.
    """
    found: dict[str, Place] = {}
    hidden: set[str] = set()
    closed: set[str] = set()
    for number in reversed(range(len(layers))):
        alive: dict[str, bool] = {"": True}
        for entry in layers[number]:
            path = entry.path
            visible = path not in found and path not in hidden
            if visible and entry.kind != "whiteout" and _alive(path.rpartition("/")[0], hidden, closed, alive):
                found[path] = Place(entry, number)
        # What is no folder hides everything that lower layers have below its path.
        hidden.update(entry.path for entry in layers[number] if entry.kind != "dir")
        closed.update(entry.path for entry in layers[number] if entry.opaque)
    return found


def _alive(folder: str, hidden: set[str], closed: set[str], known: dict[str, bool]) -> bool:
    """Whether what a lower layer has in `folder` can still be seen."""
    answer = known.get(folder)
    if answer is None:
        answer = folder not in hidden and folder not in closed
        answer = answer and _alive(folder.rpartition("/")[0], hidden, closed, known)
        known[folder] = answer
    return answer


def read_file(layers: LayerStore, diff_id: DiffID, entry: Entry, limit: int = DOCUMENT_LIMIT) -> bytes:
    """Return the content of a file of a layer; StoreError when it is no file any more or larger than `limit`."""
    path = below(layers.root(diff_id))(entry)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            data = file.read(limit + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError as problem:
        raise StoreError(
            f"layer {diff_id}: /{entry.path} cannot be read: {problem.strerror}", hint="run 'mlbox fsck --repair'"
        ) from problem
    if len(data) > limit:
        raise StoreError(f"layer {diff_id}: /{entry.path} is larger than {limit} bytes")
    return data
