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
    for is_kind, kind in _KINDS:
        if is_kind(status.st_mode):
            return Node(kind, os.major(status.st_rdev), os.minor(status.st_rdev), stat.S_IMODE(status.st_mode))
    return None


_KINDS = ((stat.S_ISCHR, "c"), (stat.S_ISBLK, "b"), (stat.S_ISFIFO, "p"))
