"""Who may use which GPU: a locked file for each, on this host, whichever store a container is in.

The lock belongs to an open file that the container's monitor keeps: it is gone with it, however it ends, and nobody
needs to clean up. Who has a GPU alone has the whole file locked. Those who share it have its first byte together, and
each one more byte, whose number says where in the file it has written down who it is. Those who wait stand in a queue
of locked tickets, the first come first served, each watching only the one before it.
"""

import os
import select
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from mlbox.errors import ContainerError
from mlbox.gpu.choose import Request, Unit, pick
from mlbox.gpu.queue import Queue
from mlbox.linux import lock
from mlbox.linux.inotify import watch

FOLDER = Path("/run/mlbox/gpus")
_RECORD = 1024
"""Bytes in which a tenant is written down: its name and its user's are short."""
_MOST_SHARERS = 256
_LOOK = 1.0
"""Seconds between two looks at GPUs that programs outside of containers use: nothing tells when those end."""


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a GPU, as its file says."""

    container: str = ""
    name: str = ""
    user: str = ""
    since: float = 0.0
    """Seconds since 1970."""
    seconds: float | None = None
    """How long the container may run from then on, None without an end."""
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


class _Room:
    """How many more GPUs a user may have, `need` of which are wanted; `most` None is any number."""

    def __init__(self, held: Callable[[], tuple[Held, ...]], user: str, need: int, most: int | None) -> None:
        self._held = held
        self._user = user
        self._need = need
        self._most = most

    def missing(self) -> str:
        """Return why there is no room now, '' when there is."""
        if self._most is None:
            return ""
        has = len({one.id for one in self._held() if one.tenant.user == self._user})
        if has + self._need <= self._most:
            return ""
        return f"{self._user} has {has} GPUs and may have {self._most} at once, not {self._need} more"


class _Wish(NamedTuple):
    """What somebody wants, and on which terms."""

    found: Sequence[Unit]
    request: Request
    tenant: Tenant
    busy: Callable[[], Collection[str]]
    lives: Callable[[str], bool]
    wait: bool
    room: _Room
    priority: int


class Leases:
    """The leases of this host. Only root can have one, as only root can start containers."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._queue = Queue(folder / "queue")

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
        most: int | None = None,
        priority: int = 0,
    ) -> Lease:
        """Return a lease of what `request` wants of the units `found`.

        `busy` says which of them are used without a lease, `lives` whether anything of the container with that id
        runs: its monitor, and with it the lease, may have been killed before it. Raises ContainerError when they are
        held, or others wait for them; with `wait` it returns when they are not. The tenant's user gets `most` in all
        the containers together: who has them stands in no queue, where others would wait behind. Each unit of
        `priority` goes before those who came up to AHEAD earlier, so that nobody waits for ever.
        """
        self._queue.make()
        room = _Room(self.held, tenant.user, request.count or len(found), most)
        wish = _Wish(found, request, tenant, busy, lives, wait, room, priority)
        while True:
            self._wait_for_room(room, wait, say)
            if lease := self._take(wish, say):
                return lease

    def _take(self, wish: _Wish, say: Callable[[str], None]) -> Lease | None:
        """Stand in the queue and return the lease; None when the user's other containers took GPUs meanwhile."""
        found = wish.found
        ids = frozenset(unit.id for unit in found)
        with self._queue.ticket(wish.wait, ids, wish.priority) as ticket, self._opened(found) as files:
            changes = -1
            try:
                while True:
                    self._queue.wait_for_turn(ticket, ids, wish.wait, say)
                    with self._queue.alone():
                        if wish.room.missing():
                            return None
                        free, why = _locked(files, wish)
                        if lease := _taken(files, wish, free):
                            return lease
                    if not wish.wait:
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

    def _wait_for_room(self, room: _Room, wait: bool, say: Callable[[str], None]) -> None:
        with self._queue.alone():  # who looks whether a GPU is free holds it for a moment, in its last tenant's name
            why = room.missing()
        if not why:
            return
        if not wait:
            raise ContainerError(why, hint="--wait waits until they are back; 'mlbox gpu leases' lists them")
        say(f"waiting: {why}")
        changes = watch(str(self._folder))
        try:
            while room.missing():
                _next_change(changes)
        finally:
            os.close(changes)

    def held(self) -> tuple[Held, ...]:
        """Return who has which GPU now."""
        found = []
        for path in sorted(self._folder.glob("*.lease")):
            with suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # closing it must wake nobody
                try:
                    if lock.is_taken(fd):
                        present = [one for slot, one in _tenants(fd) if lock.is_taken(fd, _slot_byte(slot))]
                        found += [Held(id=path.stem, tenant=one) for one in present or (Tenant(),)]
                finally:
                    os.close(fd)
        return tuple(found)

    def vacate(self, id: str, container: str) -> None:
        """Forget that `container` has the unit, which it is about to let go of while it runs on."""
        with suppress(FileNotFoundError):
            fd = os.open(self._folder / lease_file(id), os.O_RDWR | os.O_CLOEXEC)
            try:
                for slot, tenant in _tenants(fd):
                    if tenant.container == container:
                        os.pwrite(fd, bytes(_RECORD), slot * _RECORD)
            finally:
                os.close(fd)

    def waiting(self) -> int:
        """Return how many wait."""
        return self._queue.length()

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


def _locked(files: dict[str, int], wish: _Wish) -> tuple[list[str], dict[str, str]]:
    """Lock all units that are free; return their ids, and why others are not free although nobody has leased them."""
    tenant = wish.tenant
    byte = 0 if tenant.shared else None
    free = [unit.id for unit in wish.found if lock.take(files[unit.id], shared=tenant.shared, byte=byte)]
    why = dict.fromkeys(wish.busy() if free and not tenant.shared else (), "is used by a program that has no lease")
    for id in free:
        for _, before in _tenants(files[id]):
            together = before.shared and tenant.shared
            if before.container not in ("", tenant.container) and not together and wish.lives(before.container):
                left = f"what {before.name} left running when its monitor was killed ('mlbox rm -f' ends it)"
                why[id] = f"is used by {left}"
    for id in set(free) & set(why):
        lock.release(files[id])
    return [id for id in free if id not in why], why


def _taken(files: dict[str, int], wish: _Wish, free: Collection[str]) -> Lease | None:
    """Take the files of what is given out of `files`; what is not given, all of it without enough, is let go."""
    chosen = pick(wish.found, wish.request, {unit.id for unit in wish.found} - set(free))
    given = [unit.id for unit in chosen or ()]
    for id in set(free) - set(given):
        lock.release(files[id])
    if chosen is None:
        return None
    now = msgspec.structs.replace(wish.tenant, since=time.time())
    for id in given:
        slot = _slot_of_ours(files[id]) if now.shared else 0
        if not now.shared:
            os.ftruncate(files[id], 0)
        os.pwrite(files[id], msgspec.json.encode(now).ljust(_RECORD), slot * _RECORD)
    return Lease(units=chosen, descriptors=tuple(files.pop(id) for id in given))


def _next_change(changes: int) -> None:
    """Wait until a lease's file is closed by somebody, a moment at most."""
    select.select([changes], [], [], _LOOK)
    with suppress(BlockingIOError):
        while os.read(changes, 1 << 16):
            pass


def _tenants(fd: int) -> Iterator[tuple[int, Tenant]]:
    """Yield who has written down that they have the unit, with their slots, whether they live or not."""
    data = os.pread(fd, _RECORD * _MOST_SHARERS, 0)
    for slot in range(0, len(data), _RECORD):
        if record := data[slot : slot + _RECORD].strip(b"\0 "):
            yield slot // _RECORD, _tenant(record)


def _slot_of_ours(fd: int) -> int:
    """Take a slot that nobody has, while nobody else looks for one; ours until the file is closed."""
    for slot in range(_MOST_SHARERS):
        if lock.take(fd, byte=_slot_byte(slot)):
            return slot
    raise ContainerError(f"{_MOST_SHARERS} containers share this GPU already")


def _slot_byte(slot: int) -> int:
    return 1 + slot


def _tenant(data: bytes) -> Tenant:
    try:
        return msgspec.json.decode(data, type=Tenant)
    except msgspec.DecodeError:
        return Tenant()
