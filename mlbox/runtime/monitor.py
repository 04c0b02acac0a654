"""The process that stays with a container: it owns its files, its log, its exit code, and its end.

Forked from the command (no new interpreter to start), in a session of its own, adopting the container's first
process. Everything it mounts is in its private mount namespace, so that no way of dying leaves a mount behind.
"""

import gc
import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlbox.errors import ContainerError, MlboxError
from mlbox.linux import cgroup, libc, process
from mlbox.oci.runtime import Box, Spec
from mlbox.runtime import frames, rootfs
from mlbox.runtime.account import Account, resolve_account
from mlbox.runtime.host import host_facts
from mlbox.runtime.limit import Limit, soonest
from mlbox.runtime.log import LogWriter
from mlbox.runtime.oci_runtime import OciRuntime, logged_failure
from mlbox.runtime.options import BindMount, Restart, TmpfsMount
from mlbox.runtime.record import Folder, Record, State, timestamp
from mlbox.runtime.spec import Place, command, hostname, make_spec, stop_signal

if TYPE_CHECKING:
    from mlbox.runtime.grant import Grant
    from mlbox.runtime.guard import Guard

_CHUNK = 64 << 10
# A client that reads slower than the program writes holds the program back, as a pipe would.
_BACKLOG = 256 << 10
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


def exit_code_of(status: int) -> int:
    """Return the exit code for a wait status: the program's own, or 128 and the signal that ended it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def spawn(
    folder: Folder,
    record: Record,
    runtime: OciRuntime,
    grant: "Grant | None",
    *,
    lock: int,
    listener: socket.socket,
    first: tuple[socket.socket, frames.Hello] | None,
    size: tuple[int, int] | None,
) -> None:
    """Fork the monitor of a container; it inherits the lock, the listening socket and the first client."""
    libc.call("getpid")  # opens the C library here: importing is not safe in the fork of a program with threads
    if grant:
        _import_what_grants_need()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _become_daemon(folder, keep=_kept(lock, listener, first, grant))
        Monitor(folder, record, runtime, grant, lock, listener, first, size).main()
    except BaseException:  # noqa: BLE001 - nothing may run on in a copy of the caller
        import traceback

        traceback.print_exc()
    finally:
        os._exit(0)


def _import_what_grants_need() -> None:
    """Import what only containers with devices need, which are few."""
    import mlbox.cdi
    import mlbox.linux.device
    import mlbox.runtime.guard
    import mlbox.runtime.libraries  # noqa: F401 - the monitor finds them imported


def _become_daemon(folder: Folder, keep: list[int]) -> None:
    gc.freeze()  # what the caller left for the collector may hold descriptors whose numbers are soon ours
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.open(folder.path / "monitor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard, fd in ((0, null), (1, null), (2, errors)):
        os.dup2(fd, standard)
    _close_all_but({0, 1, 2, *keep})
    process.set_name("mlbox-monitor")


def _close_all_but(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) not in keep:
            with suppress(OSError):
                os.close(int(name))


def _kept(
    lock: int, listener: socket.socket, first: "tuple[socket.socket, frames.Hello] | None", grant: "Grant | None"
) -> list[int]:
    """Return the descriptors that the monitor goes on to use."""
    sockets = [listener, *((first[0],) if first else ())]
    return [lock, *(one.fileno() for one in sockets), *(grant.descriptors if grant else ())]


class _Client:
    """One connection: what it wants, what it has not read yet."""

    def __init__(self, sock: socket.socket, hello: frames.Hello) -> None:
        self.sock = sock
        self.hello = hello
        self.decoder = frames.Decoder()
        self.backlog = bytearray()

    def send(self, data: bytes) -> bool:
        """Send what can be sent now; False when the client is gone."""
        self.backlog += data
        try:
            while self.backlog:
                del self.backlog[: self.sock.send(self.backlog)]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


class _Program:
    """One run of the container: its first process and the other ends of its standard files."""

    def __init__(self, pid: int, outputs: dict[int, str], stdin: int) -> None:
        self.pid = pid
        self.status: int | None = None  # how it ended
        self.outputs = outputs  # descriptor -> stream
        self.stdin = stdin  # -1: none
        self.input = bytearray()
        self.input_ends = False

    def close(self) -> None:
        for fd in {*self.outputs, self.stdin} - {-1}:
            os.close(fd)


class Monitor:
    """Runs one container from its start to its last end."""

    def __init__(
        self,
        folder: Folder,
        record: Record,
        runtime: OciRuntime,
        grant: "Grant | None",
        lock: int,
        listener: socket.socket,
        first: tuple[socket.socket, frames.Hello] | None,
        size: tuple[int, int] | None,
    ) -> None:
        self.folder = folder
        self.record = record
        self.options = record.options
        self.runtime = runtime
        self.grant = grant
        self.guard: Guard | None = None
        self.limit: Limit | None = None
        self.lock = lock
        self.listener = listener
        self.size = size
        self.state = State(monitor=os.getpid())
        self.log = LogWriter(folder.log, self.options.log_limit)
        self.hierarchies = cgroup.hierarchies()
        self.clients: dict[int, _Client] = {}
        self.execs: dict[int, _Client] = {}  # runtimes that start one more process, and who asked
        self.children, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self.program: _Program | None = None
        self.stopping = False
        self.held_input = bytearray()
        self.input_ended = False
        listener.setblocking(False)
        if first:
            self._welcome(*first)

    # The life of a container.

    def main(self) -> None:
        """Run to the end; whatever happens, the state is written, the clients are told, nothing is left."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGCHLD, _wake)
        process.become_subreaper()
        try:
            self._prepare()
            ended = self._run_all()
        except MlboxError as problem:
            ended = frames.Ended(exit_code=problem.exit_code, error=problem.message, hint=problem.hint)
        except Exception as problem:
            self._finish(frames.Ended(exit_code=125, error=f"the monitor failed: {problem}"))
            raise
        self._finish(ended)

    def _prepare(self) -> None:
        rootfs.enter_private_mounts()
        binds = self._take_binds()
        lower = [Path(path) for path in self.record.lower]
        rootfs.mount_overlay(
            lower, self.folder.upper, self.folder.work, self.folder.rootfs, volatile=self.options.remove
        )
        user = self.options.user or self.record.config.user
        account = resolve_account(user, lambda path: rootfs.read_in(self.folder.rootfs, path))
        mounts = tuple(
            self._settle(binds[one.target], account) if isinstance(one, BindMount) else one
            for one in self.options.mounts
        )
        self._write_bundle(account, mounts)

    def _take_binds(self) -> dict[str, rootfs.Bind]:
        found = {}
        for number, one in enumerate(self.options.mounts):
            if isinstance(one, BindMount):
                try:
                    found[one.target] = rootfs.Bind(one, self.folder.binds / str(number))
                except OSError as problem:
                    raise ContainerError(f"cannot mount {one.source}: {problem.strerror}") from problem
        return found

    def _settle(self, bind: rootfs.Bind, account: Account) -> BindMount:
        one = bind.settle((account.uid, account.gid), self.record.caller)
        if bind.warning:
            self._warn(bind.warning)
        return one

    def _write_bundle(self, account: Account, mounts: tuple[BindMount | TmpfsMount, ...]) -> None:
        host = host_facts()
        self._write_etc(hostname(self.options, host, self.record.id))
        spec = make_spec(
            self.record.config,
            msgspec.structs.replace(self.options, mounts=mounts),
            host,
            Place(rootfs=str(self.folder.rootfs), folder=str(self.folder.path), cgroup=self.folder.cgroup),
            id=self.record.id,
            account=account,
            profile=self.record.seccomp,
            size=Box(height=self.size[0], width=self.size[1]) if self.size else None,
        )
        if self.grant:
            spec = self._granted(spec, self.grant)
        self.folder.write("bundle/config.json", msgspec.json.encode(spec))

    def _granted(self, spec: Spec, grant: "Grant") -> Spec:
        from mlbox.cdi import apply
        from mlbox.linux import device
        from mlbox.runtime.libraries import loader_mount

        edits = grant.edits
        if grant.libraries:
            libraries = (*grant.libraries, *grant.preferred(self.folder.rootfs))
            edits += loader_mount(self.folder, libraries, self._warn)
        return apply(edits, spec, device.node)

    def _write_etc(self, name: str) -> None:
        own = f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {name}\n".encode()
        hosts, resolv = own, b""
        if self.options.network == "host":
            hosts, resolv = _read("/etc/hosts") or own, _read("/etc/resolv.conf")
            if name.encode() not in hosts.split():
                # torch.distributed and MPI look up their own name.
                hosts = hosts.rstrip(b"\n") + f"\n127.0.1.1 {name}\n".encode()
        for file, data in (("hosts", hosts), ("hostname", f"{name}\n".encode()), ("resolv.conf", resolv)):
            self.folder.write(file, data)
            os.chmod(self.folder.path / file, 0o644)  # noqa: PTH101

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
            restarts += 1

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

    def _run_once(self, restarts: int) -> frames.Ended:
        self.program = self._start()
        self._begin_limit()
        self._save(
            status="running",
            pid=self.program.pid,
            pid_started=process.start_time(self.program.pid) or 0,
            started=timestamp(),
            restarts=restarts,
        )
        if self.grant:
            from mlbox.runtime.guard import Guard

            self.guard = Guard(self.folder, self.hierarchies)
            self._warn_once(self.guard.begin())
        self._tell(frames.STARTED)
        self._reap()
        while self.program.status is None:
            self._step(soonest(self.guard.patience() if self.guard else None, self._time_left()))
            if self.guard:
                self._warn_once(self.guard.look())
            self._keep_limit()
        status = self.program.status
        self._drain()
        self.program.close()
        self.program = None
        self.log.flush()
        killed = exit_code_of(status) == 128 + signal.SIGKILL
        oom = killed and cgroup.oom_kills(self.folder.cgroup, self.hierarchies) > 0
        self._forget()
        return frames.Ended(exit_code=exit_code_of(status), oom_killed=oom)

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
        if self.options.remove:
            self._remove()
        os.close(self.lock)
        self._tell(frames.ENDED, msgspec.json.encode(ended), everyone=True)
        self._flush_clients()

    def _remove(self) -> None:
        try:
            remove_container(self.folder, self.record.name)
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

    # Starting.

    def _start(self) -> _Program:
        self.folder.runtime.mkdir(exist_ok=True)
        Path(f"{self.folder.runtime}.log").unlink(missing_ok=True)
        return self._start_on_terminal() if self.options.tty else self._start_on_pipes()

    def _start_on_pipes(self) -> _Program:
        out_r, out_w = os.pipe()
        err_r, err_w = os.pipe()
        in_r, in_w = os.pipe() if self.options.interactive else (os.open(os.devnull, os.O_RDONLY), -1)
        try:
            pid = self._runtime_run(stdio=(in_r, out_w, err_w))
        except ContainerError:
            for fd in {out_r, err_r, in_w} - {-1}:
                os.close(fd)
            raise
        finally:
            for fd in (in_r, out_w, err_w):
                os.close(fd)
        for fd in {out_r, err_r, in_w} - {-1}:
            os.set_blocking(fd, False)
        return self._with_input(_Program(pid, {out_r: "stdout", err_r: "stderr"}, in_w))

    def _start_on_terminal(self) -> _Program:
        """Start with a terminal of the container's own devpts, which the runtime sends us over a socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            bundle = os.open(self.folder.bundle, os.O_PATH | os.O_DIRECTORY)
            try:
                # Through /proc a path of any length fits into the 108 bytes of a socket's address.
                self.folder.bundle.joinpath("console.sock").unlink(missing_ok=True)
                address = f"/proc/{os.getpid()}/fd/{bundle}/console.sock"
                server.bind(address)
                server.listen(1)
                pid = self._runtime_run(console=address)
                with server.accept()[0] as sender:
                    master = socket.recv_fds(sender, 4096, 1)[1][0]
            finally:
                os.close(bundle)
        os.set_blocking(master, False)
        return self._with_input(_Program(pid, {master: "stdout"}, master))

    def _runtime_run(self, *, console: str = "", stdio: tuple[int, ...] = ()) -> int:
        status, pid = self.runtime.run(
            self.folder.runtime, self.folder.bundle, self.record.id, console=console, stdio=stdio
        )
        if status:
            problem = logged_failure(self.folder.runtime, command(self.record.config, self.options)[0])
            self._forget()
            raise problem or ContainerError("the OCI runtime failed and did not say why")
        return pid

    def _with_input(self, program: _Program) -> _Program:
        program.input, program.input_ends = self.held_input, self.input_ended
        self.held_input = bytearray()
        return program

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
        for fd, client in self.clients.items():
            reading = select.POLLIN if self._takes_input() else 0
            poll.register(fd, reading | (select.POLLOUT if client.backlog else 0))
        if program := self.program:
            held_back = any(len(client.backlog) > _BACKLOG for client in self.clients.values())
            events = dict.fromkeys(program.outputs, 0 if held_back else select.POLLIN)
            if program.input and program.stdin >= 0:
                events[program.stdin] = events.get(program.stdin, 0) | select.POLLOUT
            for fd, mask in events.items():
                if mask:
                    poll.register(fd, mask)
        for fd, event in poll.poll(None if timeout is None else max(timeout, 0) * 1000):
            self._on_event(fd, event)

    def _takes_input(self) -> bool:
        return len(self.program.input if self.program else self.held_input) < _BACKLOG

    def _on_event(self, fd: int, event: int) -> None:
        program = self.program
        if fd == self.listener.fileno():
            with suppress(OSError):
                self._welcome(self.listener.accept()[0], frames.Hello())
        elif fd in self.clients:
            self._on_client(self.clients[fd], event)
        elif fd == self.children:
            os.read(fd, _CHUNK)
            self._reap()
        elif program:
            if event & select.POLLOUT:
                self._feed(program)
            if event & ~select.POLLOUT and fd in program.outputs:
                self._read_output(program, fd)

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

    def _read_output(self, program: _Program, fd: int) -> bool:
        """Pass on one chunk; False at the end, or when there is none now."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody holds the other side of the terminal
            data = b""
        stream = program.outputs[fd]
        if not data:
            del program.outputs[fd]
            if program.stdin == fd:
                program.stdin = -1
            os.close(fd)
            return False
        self.log.write(stream, data)
        self._tell(frames.STDOUT if stream == "stdout" else frames.STDERR, data)
        return True

    def _drain(self) -> None:
        """Read what the program left in its pipes: it has ended, so this ends."""
        program = self.program
        if program:
            for fd in list(program.outputs):
                while fd in program.outputs and self._read_output(program, fd):
                    pass

    def _feed(self, program: _Program) -> None:
        try:
            while program.input:
                del program.input[: os.write(program.stdin, program.input)]
        except BlockingIOError:
            return
        except OSError:  # the program closed its input
            program.input.clear()
            program.input_ends = True
        self._end_input(program)

    def _end_input(self, program: _Program) -> None:
        if program.input_ends and not program.input and program.stdin >= 0 and not self.options.tty:
            os.close(program.stdin)
            program.stdin = -1

    # Clients.

    def _welcome(self, sock: socket.socket, hello: frames.Hello) -> None:
        sock.setblocking(False)
        self.clients[sock.fileno()] = _Client(sock, hello)

    def _on_client(self, client: _Client, event: int) -> None:
        alive = client.send(b"") if event & select.POLLOUT else True
        if alive and event & ~select.POLLOUT:
            alive = self._read_client(client)
        if not alive:
            self._lose(client)

    def _read_client(self, client: _Client) -> bool:
        try:
            data = client.sock.recv(_CHUNK)
            for kind, payload in client.decoder.feed(data):
                self._obey(client, kind, payload)
        except BlockingIOError:
            return True
        except (OSError, ValueError, struct.error, msgspec.DecodeError):
            return False
        return bool(data)

    def _obey(self, client: _Client, kind: bytes, payload: bytes) -> None:
        if kind == frames.HELLO:
            client.hello = msgspec.json.decode(payload, type=frames.Hello)
            if self.program:
                client.send(frames.frame(frames.STARTED))
        elif kind == frames.STDIN:
            self._take_input(payload)
        elif kind == frames.RESIZE:
            self._resize(*struct.unpack(">HH", payload))
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

    def _execute(self, client: _Client, name: str) -> None:
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
        if self.program is None:
            self.held_input += data
            self.input_ended |= not data
            return
        self.program.input += data
        self.program.input_ends |= not data
        if self.program.stdin >= 0:
            self._feed(self.program)

    def _resize(self, rows: int, columns: int) -> None:
        self.size = (rows, columns)
        if self.program and self.options.tty and self.program.stdin >= 0:
            import fcntl
            import termios

            with suppress(OSError):
                fcntl.ioctl(self.program.stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _signal(self, number: int) -> None:
        if self.program and self.program.status is None:  # until it was waited for, its pid is its own
            with suppress(ProcessLookupError):
                os.kill(self.program.pid, number)

    def _on_sigterm(self, *_: object) -> None:
        """The machine shuts down: pass it on, and do not start again."""
        self.stopping = True
        self._signal(signal.SIGTERM)

    def _lose(self, client: _Client) -> None:
        del self.clients[client.sock.fileno()]
        client.sock.close()
        if client.hello.stdin and not self.options.tty:
            self._take_input(b"")

    def _tell(self, kind: bytes, payload: bytes = b"", *, everyone: bool = False) -> None:
        data = frames.frame(kind, payload)
        for client in list(self.clients.values()):
            wanted = everyone or client.hello.output or kind == frames.STARTED
            if wanted and not client.send(data):
                self._lose(client)

    def _flush_clients(self) -> None:
        """Wait until every client has read everything, or has gone."""
        while pending := [client for client in self.clients.values() if client.backlog]:
            poll = select.poll()
            for client in pending:
                poll.register(client.sock, select.POLLOUT)
            for fd, _ in poll.poll():
                client = self.clients[fd]
                if not client.send(b""):
                    self._lose(client)

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


def remove_container(folder: Folder, name: str) -> None:
    """Remove a container that does not run: first its name, then its files."""
    link = folder.path.parent / "names" / name
    with suppress(OSError):
        if os.readlink(link) == folder.path.name:  # noqa: PTH115
            link.unlink()
    rootfs.remove_tree(folder.path)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
