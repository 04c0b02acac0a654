"""Reads bytes with a target, and looks at what it does: what it raises, where it writes, how much memory it takes."""

import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz.targets import READERS

from mlbox.errors import MlboxError

MEMORY = 1 << 29
"""Bytes that reading one input may take."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        ("os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.truncate", "os.utime", "os.setxattr"), (0,)
    ),
    **dict.fromkeys(("os.rename", "os.link"), (0, 1)),
    "os.symlink": (1,),
    **dict.fromkeys(("subprocess.Popen", "socket.connect", "os.system", "os.exec"), ()),
}
"""Which arguments of an audited event are paths that change; no path means that it may not happen at all."""


class Escaped(BaseException):
    """Something outside of its folder was touched; a reader that catches it is caught by the list."""


class _Watch:
    room = ""
    seen: tuple[str, ...] = ()
    installed = False


def check(name: str, data: bytes) -> None:
    """Let the target read `data`; anything but a result or an MlboxError is raised."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        room = Path(folder, "room")
        room.mkdir()
        with _watched(folder), _little_memory():
            try:
                READERS[name].read(data, room)
            except MlboxError as problem:
                assert len(problem.message) < 20_000
                problem.message.encode()  # what cannot be printed is no message
        assert os.listdir(folder) == ["room"]  # noqa: PTH208 - names only


@contextmanager
def _watched(folder: str) -> Iterator[None]:
    if not _Watch.installed:
        sys.addaudithook(_audit)
        _Watch.installed = True
    _Watch.room, _Watch.seen = folder, ()
    try:
        yield
    finally:
        _Watch.room = ""
    if _Watch.seen:
        raise Escaped(", ".join(_Watch.seen))


def _audit(event: str, args: tuple[object, ...]) -> None:
    if not _Watch.room:
        return
    if event == "open":
        path, mode, flags = args
        changed = bool(isinstance(flags, int) and flags & _WRITES) or bool(
            isinstance(mode, str) and set(mode) & set("wax+")
        )
        paths: tuple[object, ...] = (path,) if changed else ()
    elif event in _CHANGES:
        if not (places := _CHANGES[event]):
            _escaped(event, args)
        paths = tuple(args[place] for place in places)
    else:
        return
    for path in paths:
        text = os.fsdecode(path) if isinstance(path, (str, bytes)) else ""
        if (text.startswith("/") and not text.startswith((_Watch.room, "/dev/null"))) or ".." in text.split("/"):
            _escaped(event, args)


def _escaped(event: str, args: object) -> None:
    _Watch.seen += (f"{event}{args!r}"[:300],)
    raise Escaped(_Watch.seen[-1])


@contextmanager
def _little_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    status = Path("/proc/self/status").read_text()
    used = int(status.partition("VmData:")[2].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
