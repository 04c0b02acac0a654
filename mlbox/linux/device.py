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


def make_node(path: str, kind: str, major: int, minor: int, mode: int) -> None:
    """Make a device node of 'c', 'b' or 'p' with exactly that mode; raises OSError."""
    types = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
    os.mknod(path, types[kind] | mode, os.makedev(major, minor))
    os.chmod(path, mode)  # noqa: PTH101 - the umask took part in mknod
