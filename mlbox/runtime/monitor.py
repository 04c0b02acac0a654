"""The process that stays with a container: it owns its files, its log, its exit code, and its end.

Forked from the command (no new interpreter to start), in a session of its own, adopting the container's first
process. Everything it mounts is in its private mount namespace, so that no way of dying leaves a mount behind.
"""

import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mlbox.errors import ContainerError, MlboxError
from mlbox.linux import cgroup, process
from mlbox.runtime import frames, rootfs
from mlbox.runtime.clients import Client, Clients
from mlbox.runtime.daemon import fork_daemon
from mlbox.runtime.limit import Limit, soonest
from mlbox.runtime.log import LogWriter
from mlbox.runtime.oci_runtime import OciRuntime
from mlbox.runtime.options import Restart
from mlbox.runtime.prepare import prepare
from mlbox.runtime.program import CHUNK, MOST_INPUT, Input, Program, exit_code_of, start_program
from mlbox.runtime.record import Folder, Record, State, timestamp
from mlbox.runtime.spec import stop_signal

if TYPE_CHECKING:
    from mlbox.runtime.grant import Grant
    from mlbox.runtime.guard import Guard

_FIRST_DELAY, _LAST_DELAY, _HEALTHY = 0.1, 60.0, 10.0


def restart_delay(policy: Restart, exit_code: int, restarts: int, failures: int) -> float | None:
    """Return how long to wait before the next start, None for never.

    `failures` counts the starts in a row that ended soon; each doubles the wait, up to a minute.
    """
    if policy.policy == "no" or (policy.policy == "on-failure" and exit_code == 0):
        return None
    if policy.policy == "on-failure" and policy.retries and restarts >= policy.retries:
        return None
    return float(min(_FIRST_DELAY * 2 ** min(failures, 20), _LAST_DELAY))


class Charge(NamedTuple):
    """The container that a monitor is given, and what it needs to run it."""

    folder: Folder
    record: Record
    runtime: OciRuntime
    grant: "Grant | None"
    lock: int
    """A descriptor with the container's lock."""
    listener: socket.socket
    """Where clients connect."""
    first: tuple[socket.socket, frames.Hello]
    """The client that is connected from the beginning."""
    size: tuple[int, int] | None
    """Of the terminal: rows, columns."""
    admit: Callable[[], None]
    """Raises MlboxError to keep the program from being started again."""


def spawn(charge: Charge) -> None:
    """Fork the monitor of a container; it inherits the lock, the sockets and the descriptors of the grant."""
    if charge.grant:
        _import_what_grants_need()
    sockets = (charge.listener.fileno(), charge.first[0].fileno())
    fork_daemon(
        lambda: Monitor(charge).main(),
        name="mlbox-monitor",
        log=charge.folder.path / "monitor.log",
        keep=[charge.lock, *sockets, *(charge.grant.descriptors if charge.grant else ())],
    )


def _import_what_grants_need() -> None:
    """Import what only containers with devices need, which are few."""
    import mlbox.cdi
    import mlbox.linux.device
    import mlbox.runtime.guard
    import mlbox.runtime.libraries  # noqa: F401 - the monitor finds them imported


class Monitor:
    """Runs one container from its start to its last end."""

    def __init__(self, charge: Charge) -> None:
        self.folder = charge.folder
        self.record = charge.record
        self.options = charge.record.options
        self.runtime = charge.runtime
        self.grant = charge.grant
        self.guard: Guard | None = None
        self.limit: Limit | None = None
        self.lock = charge.lock
        self.listener = charge.listener
        self.size = charge.size
        self.admit = charge.admit
        self.state = State(monitor=os.getpid())
        self.log = LogWriter(self.folder.log, self.options.log_limit)
        self.hierarchies = cgroup.hierarchies()
        self.clients = Clients(self._on_lost)
        self.execs: dict[int, Client] = {}  # runtimes that start one more process, and who asked
        self.children, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self.program: Program | None = None
        self.stopping = False
        self.held = Input()  # what is sent while nothing runs
        self.listener.setblocking(False)
        self.clients.welcome(*charge.first)

    # The life of a container.

    def main(self) -> None:
        """Run to the end; whatever happens, the state is written, the clients are told, nothing is left."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGCHLD, _wake)
        process.become_subreaper()
        try:
            prepare(self.folder, self.record, self.grant, self.size, self._warn)
            ended = self._run_all()
        except MlboxError as problem:
            own = problem.exit_code if isinstance(problem, ContainerError) else ContainerError.exit_code
            ended = frames.Ended(exit_code=own, error=problem.message, hint=problem.hint)
        except Exception as problem:
            self._finish(frames.Ended(exit_code=125, error=f"the monitor failed: {problem}"))
            raise
        self._finish(ended)

    def _run_all(self) -> frames.Ended:
        restarts = failures = 0
        while True:
            began = time.monotonic()
            ended = self._run_once(restarts)
            failures = 0 if time.monotonic() - began >= _HEALTHY else failures + 1
            delay = restart_delay(self.options.restart, ended.exit_code, restarts, failures - 1)
            if delay is None or self.stopping:
                return ended
            self._save(status="restarting", pid=0, exit_code=ended.exit_code, restarts=restarts)
            self._serve_until(time.monotonic() + delay)
            if self.stopping:
                return ended
            self.admit()
            restarts += 1

    def _run_once(self, restarts: int) -> frames.Ended:
        program = self.program = self._start()
        self._begin_limit()
        self._save(
            status="running",
            pid=program.pid,
            pid_started=process.start_time(program.pid) or 0,
            started=timestamp(),
            restarts=restarts,
        )
        self._begin_guard()
        self.clients.tell(frames.STARTED)
        self._reap()
        while program.status is None:
            self._step(soonest(self.guard.patience() if self.guard else None, self._time_left()))
            if self.guard:
                self._warn_once(self.guard.look())
            self._keep_limit()
        self._drain(program)
        program.close()
        self.program = None
        self.log.flush()
        oom = program.was_killed() and cgroup.oom_kills(self.folder.cgroup, self.hierarchies) > 0
        self._forget()
        return frames.Ended(exit_code=exit_code_of(program.status), oom_killed=oom)

    def _start(self) -> Program:
        try:
            program = start_program(self.folder, self.record, self.runtime, self.lock)
        except ContainerError:
            self._forget()
            raise
        program.input.data, program.input.ends = self.held.data, self.held.ends
        self.held.data = bytearray()
        return program

    def _begin_guard(self) -> None:
        if self.grant:
            from mlbox.runtime.guard import Guard

            self.guard = Guard(self.folder, self.hierarchies)
            self._warn_once(self.guard.begin())

    def _begin_limit(self) -> None:
        seconds = self.options.time_limit
        if seconds is not None and self.limit is None:
            number = stop_signal(self.record.config, self.options)
            self.limit = Limit(seconds, number, self.options.stop_timeout)
            self.state = msgspec.structs.replace(self.state, until=timestamp(time.time_ns() + int(seconds * 10**9)))

    def _time_left(self) -> float | None:
        return self.limit.patience() if self.limit else None

    def _keep_limit(self) -> None:
        number = self.limit.look() if self.limit else None
        if number is not None:
            self.stopping = True
            self._signal(number)

    def _finish(self, ended: frames.Ended) -> None:
        """Write the end, clean up, let the lock go, and only then tell the clients."""
        if self.limit and self.limit.over:
            ended = msgspec.structs.replace(ended, timed_out=True)
        if self.program:
            self.program.close()
            self._forget()
        self.log.close()
        if self.log.failed:
            self._warn(self.log.failed)
        for spot in sorted(self.folder.binds.glob("*")) if self.folder.binds.exists() else ():
            rootfs.unmount(spot)
        rootfs.unmount(self.folder.rootfs)
        for fd in self.grant.descriptors if self.grant else ():
            os.close(fd)  # before anybody reads that the container has ended
        self._save(
            status="exited",
            pid=0,
            finished=timestamp(),
            exit_code=ended.exit_code,
            oom_killed=ended.oom_killed,
            timed_out=ended.timed_out,
            error=ended.error,
        )
        self.folder.socket.unlink(missing_ok=True)
        self._welcome_waiting()
        if self.options.remove:
            self._remove()
        os.close(self.lock)
        self.clients.tell(frames.ENDED, msgspec.json.encode(ended), everyone=True)
        self.clients.flush()

    def _welcome_waiting(self) -> None:
        """Take in who connected since the last look: they wait for the end as well."""
        with suppress(OSError):
            while True:
                self.clients.welcome(self.listener.accept()[0], frames.Hello())

    def _remove(self) -> None:
        try:
            rootfs.remove_container(self.folder, self.record.name)
        except OSError as problem:
            self._warn(f"not all of it could be removed: {problem.strerror}: {problem.filename}")
            self._save()

    def _forget(self) -> None:
        """Remove the runtime's traces: its state is a folder of ours, its group is empty once the program ended."""
        rootfs.remove_tree(self.folder.runtime)
        try:
            cgroup.remove(self.folder.cgroup, self.hierarchies)
        except OSError as problem:
            self._warn(f"control group {self.folder.cgroup} could not be removed: {problem.strerror}")

    # The loop.

    def _serve_until(self, deadline: float) -> None:
        while not self.stopping and (left := deadline - time.monotonic()) > 0:
            self._step(soonest(left, self._time_left()))
            self._keep_limit()

    def _step(self, timeout: float | None) -> None:
        """Wait for something to happen and deal with it."""
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.register(self.children, select.POLLIN)
        waiting = self.program.input if self.program else self.held
        reading = select.POLLIN if len(waiting.data) < MOST_INPUT else 0
        for client in self.clients:
            poll.register(client.sock, reading | (select.POLLOUT if client.backlog else 0))
        if self.program:
            for fd, mask in self.program.events(reading=not self.clients.are_behind()).items():
                poll.register(fd, mask)
        for fd, event in poll.poll(None if timeout is None else max(timeout, 0) * 1000):
            self._on_event(fd, event)

    def _on_event(self, fd: int, event: int) -> None:
        if fd == self.listener.fileno():
            with suppress(OSError):
                self.clients.welcome(self.listener.accept()[0], frames.Hello())
        elif client := self.clients.get(fd):
            self._on_client(client, event)
        elif fd == self.children:
            os.read(fd, CHUNK)
            self._reap()
        elif self.program:
            if event & select.POLLOUT:
                self.program.feed()
            if event & ~select.POLLOUT and fd in self.program.outputs:
                self._pass_on(self.program, fd)

    def _reap(self) -> None:
        """Wait for every child that has ended: the program, runtimes, and processes that runtimes left us.

        The kernel ends a container's first process only when all others were waited for.
        """
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                if self.program and pid == self.program.pid:
                    self.program.status = status
                elif client := self.execs.pop(pid, None):
                    client.send(frames.frame(frames.EXECUTED, bytes([exit_code_of(status)])))

    def _pass_on(self, program: Program, fd: int) -> bool:
        """Log and send one chunk of output; False at its end, or when there is none now."""
        stream = program.outputs[fd]
        data = program.read(fd)
        if data:
            self.log.write(stream, data)
            self.clients.tell(frames.STDOUT if stream == "stdout" else frames.STDERR, data)
        return bool(data)

    def _drain(self, program: Program) -> None:
        """Read what the program left in its pipes: it has ended, so this ends."""
        for fd in list(program.outputs):
            while fd in program.outputs and self._pass_on(program, fd):
                pass

    # What clients ask for.

    def _on_client(self, client: Client, event: int) -> None:
        alive = client.send(b"") if event & select.POLLOUT else True
        if alive and event & ~select.POLLOUT:
            alive = self._read_client(client)
        if not alive:
            self.clients.lose(client)

    def _read_client(self, client: Client) -> bool:
        try:
            data = client.sock.recv(CHUNK)
            for kind, payload in client.decoder.feed(data):
                self._obey(client, kind, payload)
        except BlockingIOError:
            return True
        except (OSError, ValueError, struct.error, msgspec.DecodeError):
            return False
        return bool(data)

    def _obey(self, client: Client, kind: bytes, payload: bytes) -> None:
        if kind == frames.HELLO:
            client.hello = msgspec.json.decode(payload, type=frames.Hello)
            if self.program:
                client.send(frames.frame(frames.STARTED))
        elif kind == frames.STDIN:
            self._take_input(payload)
        elif kind == frames.RESIZE:
            self.size = rows, columns = struct.unpack(">HH", payload)
            if self.program:
                self.program.resize(rows, columns)
        elif kind in (frames.SIGNAL, frames.STOP):
            self.stopping |= kind == frames.STOP
            self._signal(payload[0])
        elif kind == frames.EXEC:
            self._execute(client, payload.decode())
        elif kind == frames.RELEASE:
            client.send(frames.frame(frames.RELEASED, bytes([self._release(payload.decode())])))

    def _release(self, name: str) -> bool:
        """Let go of the file called `name` that the grant holds open; False when it holds none."""
        for fd in self.grant.descriptors if self.grant else ():
            if self.grant and os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2] == name:  # noqa: PTH115
                kept = tuple(other for other in self.grant.descriptors if other != fd)
                self.grant = msgspec.structs.replace(self.grant, descriptors=kept)
                os.close(fd)
                return True
        return False

    def _execute(self, client: Client, name: str) -> None:
        file = self.folder.path / name
        if self.program is None or "/" in name or not file.exists():
            client.send(frames.frame(frames.EXECUTED, bytes([125])))
            return
        pid = self.runtime.exec(self.folder.runtime, self.record.id, file, stdio=(0, 1, 1), detach=True)
        self.execs[pid] = client

    def _take_input(self, data: bytes) -> None:
        """Queue input for the program; no data is its end."""
        if not self.options.interactive:
            return
        if self.program:
            self.program.input.take(data)
            self.program.feed()
        else:
            self.held.take(data)

    def _signal(self, number: int) -> None:
        if self.program:
            self.program.signal(number)

    def _on_sigterm(self, *_: object) -> None:
        """The machine shuts down: pass it on, and do not start again."""
        self.stopping = True
        self._signal(signal.SIGTERM)

    def _on_lost(self, client: Client) -> None:
        if client.hello.stdin and not self.options.tty:
            self._take_input(b"")
        if self.options.tied and not any(self.clients):
            self.stopping = True
            self._signal(signal.SIGKILL)

    # What is written down.

    def _save(self, **changes: object) -> None:
        self.state = msgspec.structs.replace(self.state, **changes)
        self.folder.save_state(self.state)

    def _warn_once(self, note: str) -> None:
        if note and note not in self.state.warnings:
            self._warn(note)
            self._save()

    def _warn(self, note: str) -> None:
        self.state = msgspec.structs.replace(self.state, warnings=(*self.state.warnings, note))


def _wake(*_: object) -> None:
    """Stand in for a handler: the wake-up descriptor tells of the signal."""
