"""The containers of a store: made, started, looked at, talked to, stopped, removed. One folder each, no daemon."""

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlbox.errors import ContainerError, MlboxError, NotFoundError
from mlbox.oci.digest import Digest
from mlbox.oci.image import ImageConfig
from mlbox.oci.runtime import Seccomp
from mlbox.paths import Home
from mlbox.runtime import frames, monitor, remains, rootfs
from mlbox.runtime.account import Account
from mlbox.runtime.execute import execute, execute_detached, process_of
from mlbox.runtime.host import host_facts
from mlbox.runtime.log import Line, follow_log, read_log
from mlbox.runtime.names import check_name
from mlbox.runtime.oci_runtime import OciRuntime, find_runtime
from mlbox.runtime.options import BindMount, RunOptions, TmpfsMount
from mlbox.runtime.record import Container, Folder, Record, State, timestamp
from mlbox.runtime.seccomp import load_profile
from mlbox.runtime.session import Session, at_socket, connect
from mlbox.runtime.shelf import ACTIVE, Shelf
from mlbox.runtime.spec import (
    Place,
    make_spec,
    security,
    stop_signal,
)

if TYPE_CHECKING:
    from mlbox.runtime.grant import Grant, Granter

_List = list[Container]  # the class below has a method of that name


class Containers:
    """All containers of `home`; any number of processes may use them at once."""

    def __init__(
        self,
        home: Home,
        runtime: OciRuntime | None = None,
        granter: "Granter | None" = None,
        admit: Callable[[Record], Callable[[], None]] = lambda _: lambda: None,
    ) -> None:
        """`granter` gives containers their devices; without it none can have any.

        `admit` raises MlboxError for a container in which nothing may be started any more; what it returns does so
        when that comes about later.
        """
        self._home = home
        self._granter = granter
        self._admit = admit
        self._shelf = Shelf(home.containers)
        self._runtime = runtime

    # Making and finding.

    def create(
        self,
        image_digest: Digest | str,
        image_name: str,
        config: ImageConfig,
        lower: Sequence[Path],
        options: RunOptions,
    ) -> Container:
        """Make a container of the layers `lower` (lowest first); it does not run yet."""
        _check(config, options)
        if granter := self._granter_for(options):
            granter.check(options)
        options = msgspec.structs.replace(options, mounts=tuple(_absolute(one) for one in options.mounts))
        record = Record(
            id=os.urandom(32).hex(),
            name=check_name(options.name) if options.name else "",
            image_digest=str(image_digest),
            image=image_name,
            created=timestamp(),
            config=config.config,
            lower=tuple(str(path.absolute()) for path in lower),
            options=options,
            caller=caller_of(os.environ),
            seccomp=_profile(options),
        )
        record = self._shelf.claim_name(record)
        folder = self._shelf.folder(record.id)
        try:
            self._shelf.publish(folder, record)
        except BaseException:
            rootfs.remove_container(folder, record.name)
            raise
        return Container(record=record, state=State())

    def list(self, *, all: bool = True) -> _List:
        """Return the containers, newest first; without `all` those that run."""
        found = sorted(self._shelf, key=lambda one: one.record.created, reverse=True)
        return [one for one in found if all or one.status in ACTIVE]

    def get(self, reference: str) -> Container:
        """Return the container of that name, id, or beginning of an id."""
        found = self._shelf.load(self._shelf.find(reference))
        if found is None:
            raise NotFoundError(f"no such container: {reference}", hint="'mlbox ps -a' lists them")
        return found

    def used_layers(self) -> set[Path]:
        """Return the layer folders that a container, running or not, needs."""
        return {Path(path) for one in self.list() for path in one.record.lower}

    # Running.

    def start(
        self, reference: str, *, attach: bool = False, stdin: bool = False, size: tuple[int, int] | None = None
    ) -> Session:
        """Start a container and return a session with its monitor, once its program runs.

        `attach` has the session receive the output, `stdin` end the program's input with it; `size` is
        the terminal's (rows, columns). Raises ContainerError when the program cannot be run.
        """
        if os.geteuid() != 0:
            raise ContainerError("only root can start containers", hint="run the same command with sudo")
        container = self.get(reference)
        if container.status in ACTIVE:
            raise remains.runs_already(container)
        again = self._admitted(container)
        runtime = self._runtime or find_runtime(self._home)
        grant = None
        if granter := self._granter_for(container.record.options):
            if container.status == "dead" or container.record.options.gpu_wait:
                self.reconcile()  # what it left running has its devices
            with self._shelf.folder(container.id).starting():
                grant = granter.grant(container.record)
        try:
            container = self.get(container.id)  # it may have waited for long
            return self._start(container, runtime, grant, again, frames.Hello(output=attach, stdin=stdin), size)
        finally:
            for fd in grant.descriptors if grant else ():
                os.close(fd)  # the monitor has them now

    def _start(
        self,
        container: Container,
        runtime: OciRuntime,
        grant: "Grant | None",
        again: Callable[[], None],
        hello: frames.Hello,
        size: tuple[int, int] | None,
    ) -> Session:
        folder = self._shelf.folder(container.id)
        held = remains.hold(container, folder)
        try:
            remains.clear(container, folder)
            listener = _listen(folder)
            ours, theirs = socket.socketpair()
            with listener, theirs:
                record, first = container.record, (theirs, hello)
                monitor.spawn(monitor.Charge(folder, record, runtime, grant, held, listener, first, size, again))
        finally:
            os.close(held)
        session = Session(ours)
        try:
            session.wait_started()
        except BaseException:
            session.close()
            raise
        return session

    def attach(self, reference: str, *, stdin: bool = False) -> Session:
        """Return a session that receives the output of a running container from now on."""
        container = self.get(reference)
        session = connect(self._shelf.folder(container.id), frames.Hello(output=True, stdin=stdin))
        if session is None:
            raise ContainerError(f"{container.name} does not run", hint=f"mlbox start {container.name}")
        return session

    @property
    def home(self) -> Home:
        """The store they are of."""
        return self._home

    def files(self, container: Container) -> Folder:
        """Return the container's files."""
        return self._shelf.folder(container.id)

    def running(self, reference: str) -> tuple[Container, Folder]:
        """Return a container and its files; raises ContainerError when it does not run."""
        container = self.get(reference)
        if container.status != "running":
            raise ContainerError(f"{container.name} does not run", hint=f"mlbox start {container.name}")
        return container, self._shelf.folder(container.id)

    def release(self, reference: str, file: str) -> bool:
        """Have a running container let go of the file called `file` that its grant holds; False when it holds none."""
        container = self.get(reference)
        with self._control(container) as session:
            return session.release(file) if session else False

    def wait(self, reference: str) -> int:
        """Return the exit code of a container when it has ended for good."""
        container = self.get(reference)
        if session := connect(self._shelf.folder(container.id), frames.Hello()):
            with _closing(session), suppress(ContainerError):
                code = session.wait()
                return 0 if code is None else code
        return self._final_code(container)

    def stop(self, reference: str, timeout: float | None = None) -> None:
        """Ask the program to end, with the image's or the options' signal, and kill it after `timeout` seconds."""
        container = self.get(reference)
        options = container.record.options
        with self._control(container) as session:
            if session:
                session.stop(stop_signal(container.record.config, options))
                if session.wait(options.stop_timeout if timeout is None else timeout) is None:
                    session.stop(signal.SIGKILL)
                    session.wait()

    def kill(self, reference: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to the program; SIGKILL also keeps it from being started again."""
        container = self.get(reference)
        with self._control(container) as session:
            if session is None:
                raise ContainerError(f"{container.name} does not run")
            if number != signal.SIGKILL:
                session.signal(number)
                return
            session.stop(number)
            session.wait()

    def remove(self, reference: str, *, force: bool = False) -> None:
        """Remove a container and what it wrote; a running one only with `force`, which kills it."""
        container = self.get(reference)
        folder = self._shelf.folder(container.id)
        if container.status in ACTIVE:
            if not force:
                raise ContainerError(f"{container.name} runs", hint=f"stop it first, or 'mlbox rm -f {container.name}'")
            with self._control(container) as session:
                if session:  # else it has just ended by itself
                    session.stop(signal.SIGKILL)
                    session.wait()
        try:
            container = self.get(container.id)
            held = remains.hold(container, folder)
        except NotFoundError:
            return  # made with --rm, or somebody else removed it
        try:
            remains.clear(container, folder)
            rootfs.remove_container(folder, container.name)
        finally:
            os.close(held)

    def logs(self, reference: str, *, follow: bool = False, tail: int | None = None, since: str = "") -> Iterator[Line]:
        """Yield the output so far, and with `follow` what comes until the container ends.

        `since` is a time as `record.timestamp` writes it; each Line has its own.
        """
        folder = self._shelf.folder(self.get(reference).id)
        if follow:
            return follow_log(folder.log, lambda: not folder.is_monitored(), tail=tail, since=since)
        return read_log(folder.log, tail=tail, since=since)

    def exec(
        self,
        reference: str,
        argv: Sequence[str],
        *,
        tty: bool = False,
        stdin: bool = False,
        env: Mapping[str, str] | None = None,
        user: str = "",
        workdir: str = "",
        detach: bool = False,
    ) -> int:
        """Run one more program in a running container, with our own standard files; return its exit code."""
        container = self.get(reference)
        if container.status != "running":
            raise ContainerError(f"{container.name} does not run", hint=f"mlbox start {container.name}")
        if not argv:
            raise ContainerError("no command to execute", hint="mlbox exec CONTAINER COMMAND")
        self._admitted(container)
        folder = self._shelf.folder(container.id)
        process = process_of(container, folder, tuple(argv), env or {}, user, workdir, tty=tty)
        if detach:
            return execute_detached(folder, process)
        return execute(self._runtime or find_runtime(self._home), folder, process, stdin=stdin or tty)

    def _admitted(self, container: Container) -> Callable[[], None]:
        try:
            return self._admit(container.record)
        except MlboxError as problem:
            problem.exit_code = ContainerError.exit_code  # its own are the program's
            raise

    def reconcile(self) -> _List:
        """Clean up after monitors that were killed: their programs, groups and, for --rm, files; return those found."""
        return remains.reconcile(self._shelf)

    # Monitors, alive and dead.

    def _granter_for(self, options: RunOptions) -> "Granter | None":
        if not (options.devices or options.wants_gpus or options.rdma):
            return None
        if self._granter is None:
            raise ContainerError("this container cannot have devices", hint="'mlbox run' gives them")
        return self._granter

    def _control(self, container: Container) -> "_closing":
        session = connect(self._shelf.folder(container.id), frames.Hello())
        if session is None and container.status in ACTIVE:
            self.reconcile()
        return _closing(session)

    def _final_code(self, container: Container) -> int:
        """Return the exit code of a container that has no monitor."""
        self.reconcile()
        state = self.get(container.id).state
        if state.status == "created":
            raise ContainerError(f"{container.name} was never started", hint=f"mlbox start {container.name}")
        return remains.KILLED if state.exit_code is None else state.exit_code


class _closing:
    def __init__(self, session: Session | None) -> None:
        self._session = session

    def __enter__(self) -> Session | None:
        return self._session

    def __exit__(self, *_: object) -> None:
        if self._session:
            self._session.close()


def _check(config: ImageConfig, options: RunOptions) -> None:
    """Find at once what would stop the container later: make its spec, and forget it."""
    stop_signal(config.config, options)
    place = Place(rootfs="", folder="", cgroup="")
    make_spec(config.config, options, host_facts(), place, id="", account=Account())


def _profile(options: RunOptions) -> Seccomp | None:
    asked = security(options).get("seccomp", "")
    return load_profile(Path(asked)) if asked not in ("", "unconfined") else None


def _absolute(one: BindMount | TmpfsMount) -> BindMount | TmpfsMount:
    if not isinstance(one, BindMount):
        return one
    source = Path(one.source).absolute()
    if not source.exists():
        raise ContainerError(f"nothing to mount at {source}", hint=f"mkdir -p {source}")
    return msgspec.structs.replace(one, source=str(source.resolve()))


def caller_of(env: Mapping[str, str]) -> tuple[int, int] | None:
    """Return who called through sudo, for whom we work."""
    uid, gid = env.get("SUDO_UID", ""), env.get("SUDO_GID", "")
    if os.geteuid() != 0 or not (uid.isdigit() and gid.isdigit()) or uid == "0":
        return None
    return int(uid), int(gid)


def _listen(folder: Folder) -> socket.socket:
    folder.socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        at_socket(folder, listener.bind)
        listener.listen(16)
    except BaseException:
        listener.close()
        raise
    return listener
