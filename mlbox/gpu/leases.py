"""Who may use which GPU: a locked file for each, on this host, whichever store a container is in.

The lock belongs to an open file that the container's monitor keeps: it is gone with it, however it ends, and nobody
needs to clean up. Those who wait stand in a queue of locked tickets, the first come first served, each watching only
the one before it.
"""

import os
import select
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from mlbox.errors import ContainerError
from mlbox.gpu.choose import Request, Unit, pick
from mlbox.linux import lock
from mlbox.linux.inotify import watch

FOLDER = Path("/run/mlbox/gpus")
_OFFICE = ".office"
_LOOK = 1.0
"""Seconds between two looks at GPUs that programs outside of containers use: nothing tells when those end."""


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a GPU, as its file says."""

    container: str = ""
    name: str = ""
    user: str = ""
    since: float = 0.0
    """Seconds since 1970."""
    shared: bool = False


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs that are held as long as the descriptors are open, here or in a process that inherited them."""

    units: tuple[Unit, ...]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """Let go of our copies."""
        for fd in self.descriptors:
            os.close(fd)


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU that somebody has, by its id."""

    id: str
    tenant: Tenant


class Leases:
    """The leases of this host. Only root can have one, as only root can start containers."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._queue = folder / "queue"

    def take(
        self,
        found: Sequence[Unit],
        request: Request,
        tenant: Tenant,
        *,
        busy: Callable[[], Collection[str]],
        lives: Callable[[str], bool] = lambda _: False,
        wait: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> Lease:
        """Return a lease of what `request` wants of the units `found`.

        `busy` says which of them are used without a lease, `lives` whether anything of the container with that id
        runs: its monitor, and with it the lease, may have been killed before it. Raises ContainerError when they are
        held, or others wait for them; with `wait` it returns when they are not.
        """
        self._queue.mkdir(mode=0o700, parents=True, exist_ok=True)
        ids = frozenset(unit.id for unit in found)
        with self._ticket(wait, ids) as ticket, self._opened(found) as files:
            self._wait_for_turn(ticket, ids, wait, say)
            changes = -1
            try:
                while True:
                    free, why = _locked(files, found, tenant, busy, lives)
                    if lease := _taken(files, found, request, tenant, free):
                        return lease
                    if not wait:
                        raise self._refusal(found, why)
                    if changes < 0:  # not before: the kernel takes 10 ms to end a watch. From here on we miss nothing
                        changes = watch(str(self._folder))
                        continue
                    if said := self._who(found, why):
                        say(f"waiting: {said}")
                        say = _silent
                    _next_change(changes)
            finally:
                if changes >= 0:
                    os.close(changes)

    def held(self) -> tuple[Held, ...]:
        """Return who has which GPU now."""
        found = []
        for path in sorted(self._folder.glob("*.lease")):
            with suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # closing it must wake nobody
                try:
                    if lock.is_taken(fd):
                        found.append(Held(id=path.stem, tenant=_tenant(os.pread(fd, 4096, 0))))
                finally:
                    os.close(fd)
        return tuple(found)

    def vacate(self, id: str, container: str) -> None:
        """Forget that `container` has the unit, which it is about to let go of while it runs on."""
        with suppress(FileNotFoundError):
            fd = os.open(self._folder / lease_file(id), os.O_RDWR | os.O_CLOEXEC)
            try:
                if _tenant(os.pread(fd, 4096, 0)).container == container:
                    os.ftruncate(fd, 0)
            finally:
                os.close(fd)

    def waiting(self) -> int:
        """Return how many wait."""
        return len(self._before("~"))

    @contextmanager
    def _ticket(self, wait: bool, ids: Collection[str]) -> Iterator[str]:
        """Yield the name of a ticket of ours for the units `ids`: it stands in the queue locked, or not at all."""
        with self._office():
            name = f"{time.monotonic_ns():020d}-{os.urandom(4).hex()}-{'wait' if wait else 'now'}"
            temporary = self._queue / f".{name}"
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            lock.take(fd)
            os.pwrite(fd, " ".join(ids).encode(), 0)
            temporary.rename(self._queue / name)
        try:
            yield name
        finally:
            (self._queue / name).unlink(missing_ok=True)
            os.close(fd)

    @contextmanager
    def _office(self) -> Iterator[None]:
        """Let one at a time draw a ticket: whose name is later also stands in the queue later."""
        fd = os.open(self._queue / _OFFICE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock.take(fd, wait=True)
            for unfinished in self._queue.glob(".[0-9]*"):  # who drew it was killed
                unfinished.unlink()
            yield
        finally:
            os.close(fd)

    def _wait_for_turn(self, ticket: str, ids: Collection[str], wait: bool, say: Callable[[str], None]) -> None:
        told = False
        while before := self._before(ticket, ids):
            patient = [name for name in before if name.endswith("-wait")]
            if patient and not wait:
                raise ContainerError(
                    f"{len(patient)} wait for GPUs already", hint="--wait takes a place behind them; 'mlbox gpu leases'"
                )
            if patient and not told:
                say(f"waiting: {len(patient)} before us")
                told = True
            with suppress(FileNotFoundError):
                fd = os.open(self._queue / before[-1], os.O_RDWR | os.O_CLOEXEC)
                try:
                    lock.take(fd, wait=True)
                finally:
                    os.close(fd)

    def _before(self, ticket: str, ids: Collection[str] | None = None) -> list[str]:
        """Return the tickets before ours whose owners live, in order; those of the dead are removed.

        With `ids`, tickets for none of these units are not before us.
        """
        alive = []
        for name in sorted(os.listdir(self._queue) if self._queue.is_dir() else ()):  # noqa: PTH208
            if name >= ticket:
                break
            if name.startswith("."):
                continue
            with suppress(FileNotFoundError):
                fd = os.open(self._queue / name, os.O_RDWR | os.O_CLOEXEC)
                try:
                    if lock.is_taken(fd):
                        wanted = os.pread(fd, 1 << 16, 0).decode().split()
                        alive += [name] if ids is None or not set(wanted).isdisjoint(ids) else []
                    else:
                        (self._queue / name).unlink(missing_ok=True)
                finally:
                    os.close(fd)
        return alive

    @contextmanager
    def _opened(self, found: Sequence[Unit]) -> Iterator[dict[str, int]]:
        """Yield the open files of the units; what is still among them at the end is closed.

        They stay open from one try to the next: closing them is what wakes those who wait.
        """
        files: dict[str, int] = {}
        try:
            for unit in found:
                path = self._folder / lease_file(unit.id)
                files[unit.id] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            yield files
        finally:
            for fd in files.values():
                os.close(fd)

    def _refusal(self, found: Sequence[Unit], why: Mapping[str, str]) -> ContainerError:
        return ContainerError(
            f"not enough free GPUs: {self._who(found, why) or 'they are being given right now'}",
            hint="--wait waits for them, --gpu-share shares them on purpose; 'mlbox gpu ls' shows who has them",
        )

    def _who(self, found: Sequence[Unit], why: Mapping[str, str]) -> str:
        held = {one.id: f"is held by {one.tenant.name or 'a container'}" for one in self.held()}
        texts = {unit.label: held.get(unit.id) or why.get(unit.id) for unit in found}
        return ", ".join(f"{label} {text}" for label, text in texts.items() if text)


def lease_file(id: str) -> str:
    """Return the name of the file whose lock is the lease of the unit with that id."""
    return f"{id}.lease"


def _silent(_: str) -> None:
    pass


def _locked(
    files: dict[str, int],
    found: Sequence[Unit],
    tenant: Tenant,
    busy: Callable[[], Collection[str]],
    lives: Callable[[str], bool],
) -> tuple[list[str], dict[str, str]]:
    """Lock all units that are free; return their ids, and why others are not free although nobody has leased them."""
    free = [unit.id for unit in found if lock.take(files[unit.id], shared=tenant.shared)]
    why = dict.fromkeys(busy() if free and not tenant.shared else (), "is used by a program that has no lease")
    for id in free:
        before = _tenant(os.pread(files[id], 4096, 0))
        together = before.shared and tenant.shared
        if before.container not in ("", tenant.container) and not together and lives(before.container):
            why[id] = f"is used by what {before.name} left running when its monitor was killed ('mlbox rm -f' ends it)"
    for id in set(free) & set(why):
        lock.release(files[id])
    return [id for id in free if id not in why], why


def _taken(
    files: dict[str, int], found: Sequence[Unit], request: Request, tenant: Tenant, free: Collection[str]
) -> Lease | None:
    """Take the files of what is given out of `files`; what is not given, all of it without enough, is let go."""
    chosen = pick(found, request, {unit.id for unit in found} - set(free))
    given = [unit.id for unit in chosen or ()]
    for id in set(free) - set(given):
        lock.release(files[id])
    if chosen is None:
        return None
    for id in given:
        os.ftruncate(files[id], 0)
        os.pwrite(files[id], msgspec.json.encode(tenant), 0)
    return Lease(units=chosen, descriptors=tuple(files.pop(id) for id in given))


def _next_change(changes: int) -> None:
    """Wait until a lease's file is closed by somebody, a moment at most."""
    select.select([changes], [], [], _LOOK)
    with suppress(BlockingIOError):
        while os.read(changes, 1 << 16):
            pass


def _tenant(data: bytes) -> Tenant:
    try:
        return msgspec.json.decode(data, type=Tenant)
    except msgspec.DecodeError:
        return Tenant()
