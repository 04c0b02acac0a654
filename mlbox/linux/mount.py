"""Mounts: the classic calls, and the ones that move and map detached mounts. Numbers are of linux/mount.h."""

import os
import struct

from mlbox.linux.libc import call

MS_REC = 16384
MS_SLAVE = 1 << 19
MNT_DETACH = 2

# System calls from 424 on have one number on all architectures.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_RDONLY = 1
_MOUNT_ATTR_NOSUID = 2
_MOUNT_ATTR_NODEV = 4
_MOUNT_ATTR_IDMAP = 0x00100000
_RESOLVE_IN_ROOT = 0x10


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    call("mount", os.fsencode(source), os.fsencode(target), kind.encode() or None, flags, os.fsencode(data) or None)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    call("umount2", os.fsencode(target), flags)


def open_tree(path: str) -> int:
    """Return a descriptor of a detached copy of the mounts at and below `path` (open_tree(2))."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    return call("syscall", _SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)


def move_mount(tree: int, target: str) -> None:
    """Attach the detached mount `tree` at `target` (move_mount(2))."""
    call("syscall", _SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)


def idmap(tree: int, userns: int, *, recursive: bool) -> None:
    """Map the owners of the detached mount `tree` by the user namespace `userns` (mount_setattr(2), Linux 5.12)."""
    attr = struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, userns)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    call("syscall", _SYS_MOUNT_SETATTR, tree, b"", flags, attr, len(attr))


def make_readonly(tree: int) -> None:
    """Make the detached mount `tree` and every mount below it read-only, without devices or setuid (Linux 5.12)."""
    attr = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV, 0, 0, 0)
    call("syscall", _SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, attr, len(attr))


def open_in_root(root: str, path: str) -> int:
    """Open `path` for reading as if `root` were /: no link leads out of it (openat2(2), Linux 5.6)."""
    how = struct.pack("=QQQ", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, 0, _RESOLVE_IN_ROOT)
    base = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return call("syscall", _SYS_OPENAT2, base, os.fsencode(path), how, len(how))
    finally:
        os.close(base)
