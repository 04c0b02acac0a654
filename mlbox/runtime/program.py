"""One run of a container's program: started by the OCI runtime, its standard files in our hands."""

import os
import select
import signal
import socket
import struct
from contextlib import suppress
from pathlib import Path

from mlbox.errors import ContainerError
from mlbox.runtime.oci_runtime import OciRuntime, logged_failure
from mlbox.runtime.record import Folder, Record
from mlbox.runtime.spec import command

CHUNK = 64 << 10
MOST_INPUT = 256 << 10
"""Bytes that wait for a program that does not read them, before nobody is asked for more."""


class Input:
    """What was sent to a program and not yet written to it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ends = False

    def take(self, data: bytes) -> None:
        """Queue `data`; none is the end."""
        self.data += data
        self.ends |= not data


class Program:
    """The first process of a container and the other ends of its standard files."""

    def __init__(self, pid: int, outputs: dict[int, str], stdin: int, *, tty: bool) -> None:
        self.pid = pid
        self.status: int | None = None
        """How it ended, as wait(2) says it."""
        self.outputs = outputs
        """descriptor -> stream"""
        self.input = Input()
        self._stdin = stdin  # -1: none
        self._tty = tty

    def events(self, *, reading: bool) -> dict[int, int]:
        """Return what to poll for, by descriptor; `reading` whether its output is wanted now."""
        events = dict.fromkeys(self.outputs, select.POLLIN) if reading else {}
        if self.input.data and self._stdin >= 0:
            events[self._stdin] = events.get(self._stdin, 0) | select.POLLOUT
        return events

    def read(self, fd: int) -> bytes:
        """Return one chunk of output; none at its end, or when there is none now."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return b""
        except OSError:  # EIO: nobody holds the other side of the terminal
            data = b""
        if not data:
            del self.outputs[fd]
            if self._stdin == fd:
                self._stdin = -1
            os.close(fd)
        return data

    def feed(self) -> None:
        """Write what input it takes now."""
        if self._stdin < 0:
            return
        try:
            while self.input.data:
                del self.input.data[: os.write(self._stdin, self.input.data)]
        except BlockingIOError:
            return
        except OSError:  # it closed its input
            self.input.data.clear()
            self.input.ends = True
        if self.input.ends and not self._tty:
            os.close(self._stdin)
            self._stdin = -1

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal its size."""
        if self._tty and self._stdin >= 0:
            import fcntl
            import termios

            with suppress(OSError):
                fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.status is None:  # until it was waited for, its pid is its own
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def was_killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status is not None and exit_code_of(self.status) == 128 + signal.SIGKILL

    def close(self) -> None:
        """Let its files go."""
        for fd in {*self.outputs, self._stdin} - {-1}:
            os.close(fd)


def exit_code_of(status: int) -> int:
    """Return the exit code for a wait status: the program's own, or 128 and the signal that ended it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def start_program(folder: Folder, record: Record, runtime: OciRuntime, lock: int) -> Program:
    """Have the runtime start the bundle of `folder`; ContainerError says why it cannot.

    The runtime holds `lock` as we do: when we are killed, the container is ours until the runtime has ended too.
    """
    folder.runtime.mkdir(exist_ok=True)
    Path(f"{folder.runtime}.log").unlink(missing_ok=True)
    start = _start_on_terminal if record.options.tty else _start_on_pipes
    return start(folder, record, runtime, lock)


def _start_on_pipes(folder: Folder, record: Record, runtime: OciRuntime, lock: int) -> Program:
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    in_r, in_w = os.pipe() if record.options.interactive else (os.open(os.devnull, os.O_RDONLY), -1)
    ours = {out_r, err_r, in_w} - {-1}
    try:
        pid = _run(folder, record, runtime, lock, stdio=(in_r, out_w, err_w))
    except ContainerError:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in (in_r, out_w, err_w):
            os.close(fd)
    for fd in ours:
        os.set_blocking(fd, False)
    return Program(pid, {out_r: "stdout", err_r: "stderr"}, in_w, tty=False)


def _start_on_terminal(folder: Folder, record: Record, runtime: OciRuntime, lock: int) -> Program:
    """Start with a terminal of the container's own devpts, which the runtime sends us over a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        bundle = os.open(folder.bundle, os.O_PATH | os.O_DIRECTORY)
        try:
            # Through /proc a path of any length fits into the 108 bytes of a socket's address.
            folder.bundle.joinpath("console.sock").unlink(missing_ok=True)
            address = f"/proc/{os.getpid()}/fd/{bundle}/console.sock"
            server.bind(address)
            server.listen(1)
            pid = _run(folder, record, runtime, lock, console=address)
            with server.accept()[0] as sender:
                master = socket.recv_fds(sender, 4096, 1)[1][0]
        finally:
            os.close(bundle)
    os.set_blocking(master, False)
    return Program(pid, {master: "stdout"}, master, tty=True)


def _run(
    folder: Folder, record: Record, runtime: OciRuntime, lock: int, *, console: str = "", stdio: tuple[int, ...] = ()
) -> int:
    status, pid = runtime.run(folder.runtime, folder.bundle, record.id, lock, console=console, stdio=stdio)
    if status:
        problem = logged_failure(folder.runtime, command(record.config, record.options)[0])
        raise problem or ContainerError("the OCI runtime failed and did not say why")
    return pid
