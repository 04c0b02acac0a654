"""What a monitor that was killed leaves behind, and who may touch it: whoever holds the container's lock."""

import os
import signal
import time
from contextlib import suppress

import msgspec

from mlbox.errors import ContainerError, NotFoundError
from mlbox.linux import cgroup, lock
from mlbox.linux import process as processes
from mlbox.runtime import rootfs
from mlbox.runtime.record import Container, Folder, timestamp
from mlbox.runtime.shelf import Shelf

KILLED = 128 + signal.SIGKILL
_MOMENT = 0.005  # seconds between two looks whether a monitor that ends has let go of the lock


def hold(container: Container, folder: Folder) -> int:
    """Return the lock of a container that does not run, as a descriptor; ContainerError when it does."""
    while (held := _try(folder)) is None:
        state = folder.load_state()
        # Only an ended container's monitor is about to let go: who starts it once more holds the lock to its end.
        if state.status != "exited" or processes.start_time(state.monitor) is None:
            raise runs_already(container)
        time.sleep(_MOMENT)
    return held


def runs_already(container: Container) -> ContainerError:
    """Return the error that says so."""
    return ContainerError(f"{container.name} runs already", hint=f"mlbox stop {container.name}")


def clear(container: Container, folder: Folder) -> None:
    """Kill what a container without a monitor still runs, and forget what the runtime knows; its files stay.

    The lock must be held.
    """
    state = container.state
    if container.status == "dead" and state.pid and processes.start_time(state.pid) == state.pid_started:
        with suppress(ProcessLookupError):
            os.kill(state.pid, signal.SIGKILL)
    # Also what was never dead: a monitor that was killed while it started has left no word.
    cgroup.remove(folder.cgroup, cgroup.hierarchies())
    rootfs.remove_tree(folder.runtime)
    folder.socket.unlink(missing_ok=True)
    if container.status == "dead":
        finished = state.finished or timestamp()
        folder.save_state(msgspec.structs.replace(state, status="dead", pid=0, exit_code=KILLED, finished=finished))


def reconcile(shelf: Shelf) -> list[Container]:
    """Clean up after monitors that were killed: their programs, groups and, for --rm, files; return those found."""
    containers = list(shelf)
    found = [one for one in containers if one.status == "dead"]
    for container in found:
        folder = shelf.folder(container.id)
        try:
            held = _try(folder)
        except NotFoundError:
            continue
        if held is None:
            continue
        try:
            clear(container, folder)
            if container.record.options.remove:
                rootfs.remove_container(folder, container.name)
        finally:
            os.close(held)
    for one in containers:
        if one.status == "created" and one.record.options.remove and shelf.folder(one.id).was_given_up():
            rootfs.remove_container(shelf.folder(one.id), one.name)
    shelf.sweep()
    return found


def _try(folder: Folder) -> int | None:
    try:
        fd = os.open(folder.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(f"no such container: {folder.path.name}", hint="'mlbox ps -a' lists them") from None
    if lock.take(fd):
        return fd
    os.close(fd)
    return None
