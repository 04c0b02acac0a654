"""A container's output on disk: one JSON object per line, as Docker's json-file has it, bounded in size."""

import os
import select
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from mlbox.linux import inotify
from mlbox.runtime.record import timestamp

_LONGEST = 16 << 10
_CHUNK = 64 << 10


class Line(msgspec.Struct, frozen=True):
    """A piece of output; `log` ends with a newline unless the line was cut or the output ended without."""

    log: str
    stream: str
    time: str


class LogWriter:
    """Appends to log.json; at half of `limit` bytes the file becomes log.json.1, in place of the one before."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = str(path)
        self._half = max(limit // 2, _LONGEST)
        self.failed = ""
        self._pending: dict[str, bytes] = {}
        self._open()

    def write(self, stream: str, data: bytes) -> None:
        """Log `data`; the last line waits until it is whole."""
        # A carriage return ends a line too: a progress bar is shown while it moves, not when it is full.
        lines = (self._pending.get(stream, b"") + data).splitlines(keepends=True)
        rest = lines.pop() if lines and lines[-1][-1:] not in (b"\n", b"\r") else b""
        while len(rest) >= _LONGEST:
            cut = _character_end(rest, _LONGEST)
            lines.append(rest[:cut])
            rest = rest[cut:]
        self._pending[stream] = rest
        self._append(stream, lines)

    def flush(self) -> None:
        """Log the lines that never got their end."""
        for stream, rest in self._pending.items():
            self._append(stream, [rest] if rest else [])
        self._pending.clear()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        os.close(self._fd)

    def _append(self, stream: str, lines: list[bytes]) -> None:
        now = timestamp()
        encode = msgspec.json.encode
        data = b"".join(encode(Line(line.decode("utf-8", "replace"), stream, now)) + b"\n" for line in lines)
        try:
            self._store(data)
        except OSError as problem:  # a full disk must not take the program with it
            self.failed = f"output was not logged: {problem.strerror}"

    def _store(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._half:
            os.close(self._fd)
            os.rename(self._path, self._path + ".1")  # noqa: PTH104
            self._open()
        while data:
            written = os.write(self._fd, data)
            self._size += written
            data = data[written:]

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size


def read_log(path: Path, *, tail: int | None = None, since: str = "") -> Iterator[Line]:
    """Yield the lines there are: the last `tail` of them, none older than `since` (as timestamp() writes it)."""
    raw: Iterator[bytes] = (line for part in (f"{path}.1", str(path)) for line in _raw_lines(part))
    yield from _decoded(raw if tail is None else iter(deque(raw, maxlen=max(tail, 0))), since)


def read_end(path: Path, size: int) -> str:
    """Return the last that was written, both streams together, reading `size` bytes of the log at most."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - size))
            raw = file.read(size)
    except FileNotFoundError:
        return ""
    lines = raw.splitlines()[1 if end > size else 0 :]
    return "".join(line.log for line in _decoded(iter(lines), ""))


def follow_log(path: Path, done: Callable[[], bool], *, tail: int | None = None, since: str = "") -> Iterator[Line]:
    """Yield the lines there are, then each that comes, until `done` says that no more can come."""
    watch = inotify.watch(str(path.parent))
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    file = _Follower(str(path))
    try:
        first = [line for part in (f"{path}.1",) for line in _raw_lines(part)] + list(file.lines())
        yield from _decoded(iter(first if tail is None else first[max(len(first) - tail, 0) :]), since)
        over = False
        while not over:
            over = done()  # asked before the last look, so that nothing written in between is lost
            yield from _decoded(file.lines(), since)
            if not over:
                poll.poll(1000)  # the kernel says when; the second is for what it cannot see (a killed monitor)
                with suppress(BlockingIOError):
                    os.read(watch, _CHUNK)
    finally:
        file.close()
        os.close(watch)


class _Follower:
    """Reads a file that grows, and goes on with its successor when it was put aside."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        while True:
            if self._fd < 0 and not self._open():
                return
            data = os.read(self._fd, _CHUNK)
            if not data:
                if not self._is_replaced():
                    return
                self.close()
                continue
            *whole, self._rest = (self._rest + data).split(b"\n")
            yield from whole

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _open(self) -> bool:
        with suppress(FileNotFoundError):
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._fd >= 0

    def _is_replaced(self) -> bool:
        try:
            now = os.stat(self._path)  # noqa: PTH116
        except FileNotFoundError:
            return False
        # What was written between our last read and the renaming is still to be read from the old file.
        old = os.fstat(self._fd)
        return (now.st_dev, now.st_ino) != (old.st_dev, old.st_ino) and os.lseek(self._fd, 0, 1) >= old.st_size


def _character_end(data: bytes, cut: int) -> int:
    """Return `cut`, or the little less that leaves a UTF-8 character whole."""
    back = cut
    while cut - back < 3 and back < len(data) and data[back] & 0xC0 == 0x80:
        back -= 1
    return back


def _raw_lines(path: str) -> Iterator[bytes]:
    with suppress(FileNotFoundError), open(path, "rb") as file:  # noqa: PTH123
        for line in file:
            if line.endswith(b"\n"):
                yield line


def _decoded(raw: Iterator[bytes], since: str) -> Iterator[Line]:
    for text in raw:
        with suppress(msgspec.DecodeError):  # a line cut short by a full disk
            line = msgspec.json.decode(text, type=Line)
            if line.time >= since:
                yield line
