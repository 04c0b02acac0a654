"""One more program in a container that runs."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec

from mlbox.errors import ContainerError
from mlbox.oci.runtime import Box, Process, User
from mlbox.runtime import frames, rootfs
from mlbox.runtime.account import resolve_account
from mlbox.runtime.oci_runtime import OciRuntime, logged_failure
from mlbox.runtime.program import exit_code_of
from mlbox.runtime.record import Container, Folder
from mlbox.runtime.session import connect
from mlbox.runtime.spec import environment_of, held_capabilities, process_capabilities, working_dir


def process_of(
    container: Container,
    folder: Folder,
    argv: tuple[str, ...],
    env: Mapping[str, str],
    user: str,
    workdir: str,
    *,
    tty: bool,
) -> Process:
    """Return the process that runs `argv` as the container's own runs, but for what is given."""
    process = folder.load_spec().process
    if process is None:
        raise ContainerError(f"{container.name} has no process")
    process = msgspec.structs.replace(process, args=argv, terminal=tty, console_size=_size() if tty else None)
    if user:
        inside = Path(f"/proc/{container.state.pid}/root")
        account = resolve_account(user, lambda path: rootfs.read_in(inside, path))
        options = container.record.options
        process = msgspec.structs.replace(
            process,
            user=User(uid=account.uid, gid=account.gid, additional_gids=account.groups),
            capabilities=process_capabilities(held_capabilities(options), account, options.cap_add),
        )
        env = {"HOME": account.home, **env}
    if tty:
        env = {"TERM": "xterm", **env}
    return msgspec.structs.replace(
        process, env=environment_of(process.env, env), cwd=working_dir(workdir) if workdir else process.cwd
    )


def execute(runtime: OciRuntime, folder: Folder, process: Process, *, stdin: bool) -> int:
    """Run `process` in a running container with our own standard files, and return its exit code."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _written(folder, process) as file:
            pid = runtime.exec(folder.runtime, folder.path.name, file, stdio=(0 if stdin else null, 1, 2))
            return _checked(_wait_forwarding(pid), file, process)
    finally:
        os.close(null)


def execute_detached(folder: Folder, process: Process) -> int:
    """Have the monitor do it, who stays: a container's end waits until each of its processes was waited for."""
    with _written(folder, process) as file:
        session = connect(folder, frames.Hello())
        if session is None:
            raise ContainerError("the container has ended", hint="'mlbox ps -a' says how")
        with closing(session):
            return _checked(session.execute(file.name), file, process)


@contextmanager
def _written(folder: Folder, process: Process) -> Iterator[Path]:
    """Yield a file of the container with the process in it; the runtime logs beside it."""
    file = folder.path / f"exec-{os.urandom(8).hex()}"
    folder.write(file.name, msgspec.json.encode(process))
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
        Path(f"{file}.log").unlink(missing_ok=True)


def _checked(code: int, file: Path, process: Process) -> int:
    """Return the exit code, unless it is the runtime's, which could not run the program."""
    if code and (problem := logged_failure(file, process.args[0])):
        raise problem
    return code


def _size() -> Box | None:
    """Our terminal's size: without it the runtime sets the size only once the program runs, which may have asked."""
    try:
        size = os.get_terminal_size(0)
    except OSError:
        return None
    return Box(height=size.lines, width=size.columns)


def _wait_forwarding(pid: int) -> int:
    """Return the exit code of a child that shares our terminal, when it ends.

    The terminal's keys reach it anyway; other signals we pass on.
    """

    def forward(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    if threading.current_thread() is not threading.main_thread():
        return exit_code_of(os.waitpid(pid, 0)[1])
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    before |= {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return exit_code_of(os.waitpid(pid, 0)[1])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
