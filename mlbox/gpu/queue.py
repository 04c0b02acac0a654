"""Those who wait for GPUs: locked tickets in a folder, whose names say in which order they stand.

A ticket is gone with its owner, however that ends. Each watches only the one before it.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlbox.errors import ContainerError
from mlbox.linux import lock

AHEAD = 600.0
"""Seconds that one unit of priority is worth: nobody waits for ever for those who are before him."""
_BEGIN = 10**18  # keeps the names of tickets positive, and so in order, on a host that has just started
_OFFICE = ".office"


class Queue:
    """The tickets in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self) -> None:
        """Make the folder where it is missing."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def length(self) -> int:
        """Return how many stand in it."""
        return len(self._before("~"))

    @contextmanager
    def ticket(self, wait: bool, ids: Collection[str], priority: int) -> Iterator[str]:
        """Yield the name of a ticket of ours for the units `ids`: it stands in the queue locked, or not at all."""
        with self.alone():
            for unfinished in self._folder.glob(".[0-9]*"):  # who drew it was killed
                unfinished.unlink()
            place = _BEGIN + time.monotonic_ns() - int(priority * AHEAD * 10**9)
            name = f"{place:020d}-{os.urandom(4).hex()}-{'wait' if wait else 'now'}"
            temporary = self._folder / f".{name}"
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            lock.take(fd)
            os.pwrite(fd, " ".join(ids).encode(), 0)
            temporary.rename(self._folder / name)
        try:
            yield name
        finally:
            (self._folder / name).unlink(missing_ok=True)
            os.close(fd)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one at a time draw a ticket, or look for free units: whose name is later stands in the queue later."""
        fd = os.open(self._folder / _OFFICE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock.take(fd, wait=True)
            yield
        finally:
            os.close(fd)

    def wait_for_turn(self, ticket: str, ids: Collection[str], wait: bool, say: Callable[[str], None]) -> None:
        """Return when no ticket before ours is for any of the units `ids`.

        Raises ContainerError when others wait for them and we do not.
        """
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
                fd = os.open(self._folder / before[-1], os.O_RDWR | os.O_CLOEXEC)
                try:
                    lock.take(fd, wait=True)
                finally:
                    os.close(fd)

    def _before(self, ticket: str, ids: Collection[str] | None = None) -> list[str]:
        """Return the tickets before ours whose owners live, in order; those of the dead are removed.

        With `ids`, tickets for none of these units are not before us.
        """
        alive = []
        for name in sorted(os.listdir(self._folder) if self._folder.is_dir() else ()):  # noqa: PTH208
            if name >= ticket:
                break
            if name.startswith("."):
                continue
            with suppress(FileNotFoundError):
                fd = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC)
                try:
                    if lock.is_taken(fd):
                        wanted = os.pread(fd, 1 << 16, 0).decode().split()
                        alive += [name] if ids is None or not set(wanted).isdisjoint(ids) else []
                    else:
                        (self._folder / name).unlink(missing_ok=True)
                finally:
                    os.close(fd)
        return alive
