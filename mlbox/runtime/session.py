"""The client's side of a monitor: see the output, send input and signals, learn how the program ended."""

import os
import select
import signal
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from mlbox.errors import ContainerError
from mlbox.runtime import frames
from mlbox.runtime.record import Folder

_CHUNK = 64 << 10
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_DETACH = b"\x10\x11"  # ctrl-p ctrl-q
_PATIENCE = 3  # interrupts, before the program is killed
_TAIL = 64 << 10
_ANSWER = 5.0  # seconds in which a monitor answers, if it is not of an older mlbox


class Session:
    """A connection to the monitor of one container."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = frames.Decoder()
        self._frames: deque[tuple[bytes, bytes]] = deque()
        self._outgoing = bytearray()
        self._interrupts = 0
        self.tail = bytearray()
        """The last that `stream` passed on."""
        self.ended: frames.Ended | None = None
        """How the program ended, once it has."""
        sock.setblocking(False)

    def close(self) -> None:
        """Let the container go on by itself."""
        self._sock.close()

    @property
    def was_interrupted(self) -> bool:
        """Whether somebody pressed ctrl-c."""
        return self._interrupts > 0

    def wait_started(self) -> None:
        """Return when the program runs; raises ContainerError saying why it cannot."""
        while True:
            for kind, payload in self._frames:
                if kind == frames.STARTED:
                    return
                if kind == frames.ENDED:
                    _ended(payload)
                    return
            self._receive(None)

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code, or None after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            while self._frames:
                kind, payload = self._frames.popleft()
                if kind == frames.ENDED:
                    return _ended(payload).exit_code
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._receive(left)

    def signal(self, number: int) -> None:
        """Send a signal to the program."""
        self._queue(frames.SIGNAL, bytes([number]))

    def stop(self, number: int) -> None:
        """Send a signal to the program and have it not started again."""
        self._queue(frames.STOP, bytes([number]))

    def send(self, data: bytes) -> None:
        """Send input to the program; no data is its end."""
        for start in range(0, len(data), _CHUNK):
            self._queue(frames.STDIN, data[start : start + _CHUNK])
        if not data:
            self._queue(frames.STDIN, b"")

    def resize(self, rows: int, columns: int) -> None:
        """Tell the program's terminal its size."""
        self._queue(frames.RESIZE, struct.pack(">HH", min(rows, 0xFFFF), min(columns, 0xFFFF)))

    def execute(self, file: str) -> int:
        """Have one more process started that nobody waits for; return the runtime's exit code."""
        self._queue(frames.EXEC, file.encode())
        while True:
            while self._frames:
                kind, payload = self._frames.popleft()
                if kind == frames.EXECUTED:
                    return payload[0]
                if kind == frames.ENDED:
                    raise ContainerError("the container has ended")
            self._receive(None)

    def release(self, file: str) -> bool:
        """Have the container's grant let go of the file of that name; False when it holds none, or does not answer."""
        self._queue(frames.RELEASE, file.encode())
        deadline = time.monotonic() + _ANSWER
        while (left := deadline - time.monotonic()) > 0:
            while self._frames:
                kind, payload = self._frames.popleft()
                if kind == frames.RELEASED:
                    return bool(payload[0])
                if kind == frames.ENDED:
                    raise ContainerError("the container has ended")
            self._receive(left)
        return False

    def output(self) -> Iterator[tuple[str, bytes]]:
        """Yield ('stdout' or 'stderr', data) until the program ends; then call `wait` for its exit code."""
        while True:
            while self._frames:
                if self._frames[0][0] == frames.ENDED:
                    return
                kind, payload = self._frames.popleft()
                if kind in (frames.STDOUT, frames.STDERR):
                    yield ("stdout" if kind == frames.STDOUT else "stderr"), payload
            self._receive(None)

    def stream(
        self, *, stdin: int | None = None, stdout: int = 1, stderr: int = 2, tty: bool = False, ours: bool = True
    ) -> int | None:
        """Join our files and signals to the program's until it ends; return its exit code, None when detached.

        When our output's reader is gone, the program is killed if it is `ours` (it would have been, run
        without a container) and left alone otherwise.
        """
        with _raw(stdin, tty) as on_terminal, _caught_signals() as wakeup:
            if on_terminal and stdin is not None:
                self._send_size(stdin)
            try:
                return self._stream(stdin, (stdout, stderr), wakeup, tty=on_terminal)
            except BrokenPipeError:
                if not ours:
                    return None
                self.stop(signal.SIGKILL)
                return self.wait()

    def _stream(self, stdin: int | None, outputs: tuple[int, int], wakeup: int, *, tty: bool) -> int | None:
        keys = b""
        while True:
            while self._frames:
                kind, payload = self._frames.popleft()
                if kind == frames.ENDED:
                    self.ended = _ended(payload)
                    return self.ended.exit_code
                if kind in (frames.STDOUT, frames.STDERR):
                    self._remember(payload)
                    _write(outputs[kind == frames.STDERR], payload)
            ready = self._poll(None, stdin if len(self._outgoing) < _CHUNK else None, wakeup)
            if wakeup in ready:
                self._forward(os.read(wakeup, 64), stdin)
            if stdin is not None and stdin in ready:
                data = _read(stdin)
                if tty:
                    keys, found = (keys + data)[-len(_DETACH) :], _DETACH in keys + data
                    if found:
                        return None
                self._queue(frames.STDIN, data)
                stdin = stdin if data else None

    def _remember(self, data: bytes) -> None:
        self.tail += data
        if len(self.tail) > 2 * _TAIL:
            del self.tail[:-_TAIL]

    def _forward(self, numbers: bytes, terminal: int | None) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                if terminal is not None:
                    self._send_size(terminal)
                continue
            self._interrupts += number == signal.SIGINT
            # A first process without a handler never sees these: the third time means it.
            self.signal(signal.SIGKILL if self._interrupts >= _PATIENCE else number)

    def _send_size(self, terminal: int) -> None:
        with suppress(OSError):
            size = os.get_terminal_size(terminal)
            self.resize(size.lines, size.columns)

    def _queue(self, kind: bytes, payload: bytes) -> None:
        self._outgoing += frames.frame(kind, payload)
        self._send()

    def _send(self) -> None:
        try:
            while self._outgoing:
                del self._outgoing[: self._sock.send(self._outgoing)]
        except BlockingIOError:
            return
        except OSError:  # the monitor has gone; what it last said can still be read
            self._outgoing.clear()

    def _receive(self, timeout: float | None) -> None:
        self._poll(timeout, None, -1)

    def _poll(self, timeout: float | None, stdin: int | None, wakeup: int) -> set[int]:
        """Wait, take in what the monitor sends, send what waits; return which of our own files can be read."""
        poll = select.poll()
        own = self._sock.fileno()
        poll.register(own, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        for fd in (stdin, wakeup):
            if fd is not None and fd >= 0:
                poll.register(fd, select.POLLIN)
        ready = dict(poll.poll(None if timeout is None else timeout * 1000))
        event = ready.pop(own, 0)
        if event & select.POLLOUT:
            self._send()
        if event & ~select.POLLOUT:
            self._take()
        return set(ready)

    def _take(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self._frames.extend(self._decoder.feed(data))
        if not data and not any(kind == frames.ENDED for kind, _ in self._frames):
            raise ContainerError("the container's monitor was killed", hint="'mlbox rm -f' removes what is left")


def connect(folder: Folder, hello: frames.Hello) -> Session | None:
    """Connect to the monitor of `folder`; None when there is none."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        at_socket(folder, sock.connect)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    session = Session(sock)
    session._queue(frames.HELLO, msgspec.json.encode(hello))
    return session


def at_socket(folder: Folder, act: Callable[[str], Any]) -> None:
    """Call `act` with an address of the control socket: through /proc, any path fits an address's 108 bytes."""
    base = os.open(folder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        act(f"/proc/self/fd/{base}/{folder.socket.name}")
    finally:
        os.close(base)


def _ended(payload: bytes) -> frames.Ended:
    ended = msgspec.json.decode(payload, type=frames.Ended)
    if ended.error:
        problem = ContainerError(ended.error, hint=ended.hint)
        problem.exit_code = ended.exit_code
        raise problem
    return ended


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:  # closed, or a terminal that hung up: the end of input
        return b""


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # our output was made non-blocking by whoever shares it
            select.select([], [fd], [])


@contextmanager
def _raw(stdin: int | None, tty: bool) -> Iterator[bool]:
    """Hand every key to the program while inside; yields whether `stdin` is a terminal."""
    if not tty or stdin is None or not os.isatty(stdin):
        yield False
        return
    import termios
    import tty as terminal

    before = termios.tcgetattr(stdin)
    terminal.setraw(stdin, termios.TCSADRAIN)  # not TCSAFLUSH: what was typed ahead is for the program
    try:
        yield True
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


@contextmanager
def _caught_signals() -> Iterator[int]:
    """Turn signals into bytes that the yielded descriptor gives; outside the main thread none come (-1)."""
    if threading.current_thread() is not threading.main_thread():
        yield -1
        return
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.signal(number, _ignore) for number in (*_FORWARDED, signal.SIGWINCH)}
    previous = signal.set_wakeup_fd(writer)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _ignore(*_: object) -> None:
    """Stand in for a handler: the wake-up descriptor has the signal."""
