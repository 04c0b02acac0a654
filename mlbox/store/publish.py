"""Unfinished things under tmp/, and the one rename that publishes them.

Every temporary is held by a flock, which the kernel drops with the process: what nobody holds is left over from
a process that was killed. File contents of published trees are not fsynced one by one: after a power loss (not
after a kill) `mlbox fsck` finds what the disk did not keep.
"""

import errno
import fcntl
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mlbox.errors import UsageError
from mlbox.files import locked

_OF_LABEL = re.compile(r"-[0-9a-f]{16}")
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_LONG = 900
"""Characters of a path; four bytes each and one more name are still less than PATH_MAX."""
_GET_FLAGS, _SET_FLAGS, _TOP_OF_HIERARCHY = 0x80086601, 0x40086602, 0x00020000
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h."""


@contextmanager
def temporary_folder(tmp: Path, label: str) -> Iterator[Path]:
    """Yield a new empty folder under `tmp`; what is left of it at the end is removed."""
    tmp.mkdir(parents=True, exist_ok=True)
    _spread(tmp)
    with _claimed(tmp, label) as folder:
        yield folder


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`, a place of the user's, for what is to lie there when it is whole.

    What is left of it at the end is removed, and so is what processes that were killed have left for this target.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as problem:
        raise UsageError(f"{problem.filename} is no folder", hint=f"nothing can be written to {target}") from problem
    label = f".tmp-{target.name[:200]}"
    for path in target.parent.iterdir():
        # Others' are left alone: who may write here could turn a folder into a link while it is emptied.
        if path.name.startswith(label) and _OF_LABEL.fullmatch(path.name[len(label) :]) and _is_own(path):
            discard_if_dead(path)
    with _claimed(target.parent, label, lockless=True) as folder:
        yield folder


@contextmanager
def file_beside(target: Path) -> Iterator[BinaryIO]:
    """Yield the file that lies at `target`, a place of the user's, when all went well."""
    with folder_beside(target) as folder, (folder / target.name).open("xb") as file:
        yield file
        publish_file(folder / target.name, file, target)


@contextmanager
def temporary_file(tmp: Path, label: str) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a new empty file under `tmp` and its path; when it is still there at the end it is removed."""
    with temporary_folder(tmp, label) as folder:
        path = folder / "file"
        with path.open("xb") as file:
            yield path, file


@contextmanager
def working_on(tmp: Path, key: str) -> Iterator[None]:
    """Let one process at a time work on `key`; the others wait here, then find the work done.

    The lock file goes at the end. A process that opened it before that may work beside one that came later:
    work done twice is published once.
    """
    path = tmp / f"lock-{key}"
    with locked(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def publish_folder(folder: Path, target: Path) -> None:
    """Rename `folder` to `target`; when another process was first, its result stands."""
    _private(target.parent)
    folder.chmod(0o755)
    try:
        folder.rename(target)
    except OSError as problem:
        if problem.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def publish_file(path: Path, file: BinaryIO, target: Path) -> None:
    """Flush `file`, whose name is `path`, to the disk and rename it to `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    file.flush()
    os.fchmod(file.fileno(), 0o644)
    os.fsync(file.fileno())
    path.rename(target)


def withdraw(tmp: Path, path: Path) -> None:
    """Remove the published `path` (file or folder) so that nobody ever sees half of it."""
    with temporary_folder(tmp, "gone") as folder, suppress(FileNotFoundError):
        path.rename(folder / "gone")


def discard_leftovers(tmp: Path) -> list[Path]:
    """Remove everything under `tmp` that no living process holds; return what was removed."""
    if not tmp.is_dir():
        return []
    return [path for path in sorted(tmp.iterdir()) if discard_if_dead(path)]


def discard_if_dead(path: Path) -> bool:
    """Remove `path` unless a living process holds it; return whether it went."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        path.unlink(missing_ok=True)  # a symlink, which mlbox does not make here
        return True
    try:
        if not _try_lock(fd):
            return False
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)


def remove_tree(path: Path) -> None:
    """Remove `path` and everything below it, whatever the modes of its folders; a missing path is fine."""
    folders = [str(path)]
    for folder in folders:  # grows as it is walked; deeper than any stack, if somebody's layer is
        with suppress(FileNotFoundError):
            try:
                _empty(folder, folders)
            except PermissionError:
                os.chmod(folder, 0o700)  # noqa: PTH101 - as the others here
                _empty(folder, folders)
    for folder in reversed(folders):
        with suppress(FileNotFoundError):
            os.rmdir(folder)  # noqa: PTH106 - a layer has thousands


def _empty(folder: str, folders: list[str]) -> None:
    """Remove the files in `folder` and add its folders to `folders`."""
    inside: list[str] = []
    with os.scandir(folder) as found:
        for item in found:
            if item.is_dir(follow_symlinks=False):
                inside.append(_nearer(item.path, folders[0], len(folders) + len(inside)))
            else:
                os.unlink(item.path)  # noqa: PTH108 - a layer has thousands
    folders += inside


def _nearer(folder: str, top: str, number: int) -> str:
    """Return where `folder` is: moved up below `top`, when what is in it may be deeper than a path can say."""
    if len(folder) < _LONG:
        return folder
    fresh = f"{top}/{os.urandom(8).hex()}-{number}"
    os.rename(folder, fresh)  # noqa: PTH104 - as the others here
    return fresh


def _private(folder: Path) -> None:
    """Make `folder` so that nobody else can enter: the trees in it hold other people's setuid programs."""
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)


def _is_own(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return path.lstat().st_uid == os.geteuid()
    return False


@contextmanager
def _claimed(tmp: Path, label: str, *, lockless: bool = False) -> Iterator[Path]:
    folder, fd = _claim(tmp, label, lockless=lockless)
    try:
        yield folder
    finally:
        remove_tree(folder)
        os.close(fd)


def _claim(tmp: Path, label: str, *, lockless: bool) -> tuple[Path, int]:
    while True:
        folder = tmp / f"{label}-{os.urandom(8).hex()}"
        folder.mkdir(mode=0o700)
        # Between mkdir and flock the folder looks dead; when discard_leftovers was faster, take another one.
        with suppress(FileNotFoundError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _try_lock(fd, lockless=lockless) and folder.exists():
                return folder, fd
            os.close(fd)


def _spread(folder: Path) -> None:
    """Have ext4 put each folder made in `folder` somewhere else on the disk; other file systems do nothing.

    New files go where their folder is, and ext4 passes over every inode that was freed there in the last minutes, one
    by one, for each file it makes (recently_deleted in fs/ext4/ialloc.c): filling a store right after emptying one
    took three times as long.
    """
    flags = bytearray(4)
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _GET_FLAGS, flags)
            if not (known := int.from_bytes(flags, sys.byteorder)) & _TOP_OF_HIERARCHY:
                fcntl.ioctl(fd, _SET_FLAGS, (known | _TOP_OF_HIERARCHY).to_bytes(4, sys.byteorder))
        finally:
            os.close(fd)


def _try_lock(fd: int, *, lockless: bool = False) -> bool:
    """Return whether the lock is ours now; where there are none for folders, as on NFS, `lockless` is the answer."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as problem:
        if problem.errno not in _NO_LOCKS:
            raise
        return lockless
    return True
