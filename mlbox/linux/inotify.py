"""Waiting for a folder to change (inotify(7))."""

import os

from mlbox.linux.libc import call

_MODIFY = 0x2
_CLOSE_WRITE = 0x8
_MOVED_TO = 0x80
_CREATE = 0x100
_DELETE_SELF = 0x400


def watch(folder: str) -> int:
    """Return a descriptor that becomes readable when a file in `folder` is written, closed or renamed."""
    fd = call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        call("inotify_add_watch", fd, os.fsencode(folder), _MODIFY | _CLOSE_WRITE | _MOVED_TO | _CREATE | _DELETE_SELF)
    except OSError:
        os.close(fd)
        raise
    return fd
