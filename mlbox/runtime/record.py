"""What is written down of a container: the record it was made with, and the state it is in."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from mlbox.codec import decode_json
from mlbox.errors import ContainerError
from mlbox.linux import lock
from mlbox.oci.image import ContainerConfig
from mlbox.oci.runtime import Seccomp, Spec
from mlbox.runtime.options import RunOptions

Status = Literal["created", "running", "restarting", "exited", "dead"]
Account = tuple[int, int]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """container.json: never changes. `caller` is who asked through sudo; `seccomp` a profile read from a file."""

    id: str
    name: str
    image_digest: str
    image: str
    created: str
    config: ContainerConfig
    lower: tuple[str, ...]
    options: RunOptions
    caller: Account | None = None
    seccomp: Seccomp | None = None


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """state.json: what the monitor last saw. Times are RFC 3339 in UTC; `until` is when its time limit is over."""

    status: Status = "created"
    pid: int = 0
    pid_started: int = 0
    monitor: int = 0
    started: str = ""
    finished: str = ""
    exit_code: int | None = None
    oom_killed: bool = False
    until: str = ""
    timed_out: bool = False
    restarts: int = 0
    error: str = ""
    warnings: tuple[str, ...] = ()


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container as it is now. 'dead': its monitor was killed and cannot say how the program ended."""

    record: Record
    state: State

    @property
    def id(self) -> str:
        """The 64 hex digits."""
        return self.record.id

    @property
    def short_id(self) -> str:
        """The first 12 digits, for people."""
        return self.record.id[:12]

    @property
    def name(self) -> str:
        """The unique name."""
        return self.record.name

    @property
    def status(self) -> Status:
        """created, running, restarting, exited or dead."""
        return self.state.status


class Folder:
    """The files of one container."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.upper = path / "upper"
        self.work = path / "work"
        self.rootfs = path / "rootfs"
        self.binds = path / "binds"
        self.bundle = path / "bundle"
        self.runtime = path / "runtime"
        self.log = path / "log.json"
        self.socket = path / "control.sock"
        self.lock = path / "lock"
        self.start_lock = path / "starting"

    @property
    def cgroup(self) -> str:
        """The container's group, from the root of every hierarchy."""
        return f"/mlbox/{self.path.name}"

    def load_record(self) -> Record:
        """Read container.json."""
        path = self.path / "container.json"
        return decode_json(path.read_bytes(), Record, what=str(path), error=ContainerError)

    def load_spec(self) -> Spec:
        """Read the spec that the container was last started by."""
        path = self.bundle / "config.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise ContainerError("the container was never started") from None
        return decode_json(data, Spec, what=str(path), error=ContainerError)

    def load_state(self) -> State:
        """Read state.json; a missing or damaged one (the power failed) is that of a dead container."""
        try:
            return msgspec.json.decode((self.path / "state.json").read_bytes(), type=State)
        except (FileNotFoundError, msgspec.DecodeError):
            return State(status="dead", error="its state was lost")

    def save_state(self, state: State) -> None:
        """Replace state.json in one step. Not synced: after a power failure no container runs anyway."""
        self.write("state.json", msgspec.json.encode(state))

    def read(self, name: str) -> bytes:
        """Return the file `name`, nothing when there is none (any more)."""
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return b""

    def write(self, name: str, data: bytes) -> None:
        """Replace the file `name` in one step, for this user's eyes only."""
        temporary = f"{self.path}/.{name.replace('/', '-')}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.rename(temporary, f"{self.path}/{name}")  # noqa: PTH104

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Show, as long as we live, that somebody is about to start the container: it may wait for its devices."""
        fd = os.open(self.start_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock.take(fd)
            yield
        finally:
            self.start_lock.unlink(missing_ok=True)
            os.close(fd)

    def was_given_up(self) -> bool:
        """Whether who was about to start the container was killed."""
        try:
            fd = os.open(self.start_lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not lock.is_taken(fd)
        finally:
            os.close(fd)

    def is_monitored(self) -> bool:
        """Whether a monitor lives and holds the lock."""
        try:
            fd = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return lock.is_taken(fd)
        finally:
            os.close(fd)


def timestamp(nanoseconds: int | None = None) -> str:
    """Return a time (default: now) as RFC 3339 in UTC with nine digits, so that texts sort as times do."""
    now = time.time_ns() if nanoseconds is None else nanoseconds
    seconds, rest = divmod(now, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
