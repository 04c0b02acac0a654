"""Locks that belong to an open file, pass through fork, and can be looked at without being taken (fcntl(2), OFD)."""

import fcntl
import struct

# struct flock with 64-bit offsets: type, whence, start, length (0: all), pid (0: as OFD locks want).
_FLOCK = "hhqqi4x"


def take(fd: int, *, wait: bool = False, shared: bool = False, byte: int | None = None) -> bool:
    """Lock the open file `fd` alone, until its last copy is closed; False when another open file has the lock.

    With `wait`, return when that one lets go. A `shared` lock goes along with other shared ones. With `byte` only that
    byte is locked, which need not be there; else all of them.
    """
    how = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    try:
        fcntl.fcntl(fd, how, struct.pack(_FLOCK, kind, 0, byte or 0, 0 if byte is None else 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def release(fd: int) -> None:
    """Let go of the lock, without closing the file."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_UNLCK, 0, 0, 0, 0))


def is_taken(fd: int, byte: int | None = None) -> bool:
    """Whether another open file of the same path holds the lock, or that of one `byte`."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, byte or 0, 0 if byte is None else 1, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
