"""Device nodes of the host."""

import os
import stat
from typing import Literal, NamedTuple


class Node(NamedTuple):
    """A device node: 'c'haracter, 'b'lock or 'p'ipe, its numbers, the bits of its mode."""

    type: Literal["c", "b", "p"]
    major: int
    minor: int
    mode: int


def node(path: str) -> Node | None:
    """Return the device node that `path` leads to, None when it is something else; raises OSError."""
    status = os.stat(path)  # noqa: PTH116 - paths are text here
    kind = _kind(status.st_mode)
    if kind is None:
        return None
    return Node(kind, os.major(status.st_rdev), os.minor(status.st_rdev), stat.S_IMODE(status.st_mode))


def _kind(mode: int) -> Literal["c", "b", "p"] | None:
    if stat.S_ISCHR(mode):
        return "c"
    if stat.S_ISBLK(mode):
        return "b"
    return "p" if stat.S_ISFIFO(mode) else None
