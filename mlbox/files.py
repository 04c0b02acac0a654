"""Reading files in pieces, and writing them so that nobody ever sees half of one."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from mlbox.errors import StoreError, UsageError

CHUNK = 1 << 20


class Readable(Protocol):
    """An open file, member of an archive or stream."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


def chunks(file: Readable) -> Iterator[bytes]:
    """Yield what is left of `file`, a piece at a time."""
    while chunk := file.read(CHUNK):
        yield chunk


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write `data` to `path`: temporary file in the same folder, fsync, rename.

    What is not `durable` may be empty after the machine crashed: hundreds of hints need not wait for the disk.
    """
    import tempfile  # 3 ms that reading commands do not need

    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def output_path(path: Path) -> Path | None:
    """Return where to rename what the user wants at `path`; None when it must be written there in place.

    So with devices and pipes: a rename would put a file where /dev/null was. Links are followed, as a shell does; do
    not use it for names that somebody else chose. A folder raises UsageError.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return path.absolute()
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder", hint="name a file")
    return path.resolve() if stat.S_ISREG(mode) else None


def output_errors(path: Path) -> AbstractContextManager[None]:
    """Turn a full or read-only disk into a StoreError about what the user wants at `path`."""
    return disk_errors(f"writing {path}", denied=_OTHER_PLACE, full=f"free some space there, or {_OTHER_PLACE}")


def write_output(path: Path, data: bytes) -> None:
    """Write what the user wants at `path`."""
    with output_errors(path):
        if (target := output_path(path)) is None:
            path.write_bytes(data)
        else:
            write_atomic(target, data)


@contextmanager
def locked(path: Path, *, blocking: bool = True, shared: bool = False) -> Iterator[bool]:
    """Hold an exclusive (or `shared`) flock on `path`; yields False when not `blocking` and another one is in the way.

    The kernel drops the lock with the process, so a killed holder never blocks the next one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


_OWN_STORE = "mlbox needs a store it may write: run as root, or set MLBOX_HOME"
_OTHER_PLACE = "name another place with -o"
_FREE = "free some space ('mlbox prune' removes what no image uses), then run the same command again"


@contextmanager
def disk_errors(what: str, *, denied: str = _OWN_STORE, full: str = _FREE) -> Iterator[None]:
    """Turn a full or read-only disk into a StoreError that says so; other OSErrors pass.

    `denied` is what to do when one may not write there, `full` when there is no room.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no space left on the disk while {what}", hint=full) from problem
        if problem.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreError(
                f"cannot write while {what}: {problem.strerror}: {problem.filename}",
                hint=denied,
            ) from problem
        raise
