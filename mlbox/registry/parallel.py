"""Several layers at once, where the first failure ends the work on the others."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from mlbox.events import Listener

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item
C = TypeVar("C")


class StoppedError(Exception):
    """The work on something else failed, so this is not needed any more."""


class Stop:
    """Ends the work of several threads at their next piece of data."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def now(self) -> None:
        """End all work."""
        self._event.set()

    def check(self) -> None:
        """Raise StoppedError once the work has been ended."""
        if self._event.is_set():
            raise StoppedError

    def watching(self, items: Iterable[C]) -> Iterator[C]:
        """Yield `items` until the work is ended."""
        for item in items:
            self.check()
            yield item

    def listener(self, listener: Listener) -> Listener:
        """Return `listener`, which ends the thread that reports progress once the work has been ended."""
        return _Watched(listener, self)


class _Watched:
    def __init__(self, listener: Listener, stop: Stop) -> None:
        self._listener = listener
        self._stop = stop
        self.step, self.expect, self.note = listener.step, listener.expect, listener.note

    def advance(self, what: str, amount: int) -> None:
        self._stop.check()
        self._listener.advance(what, amount)


def in_threads(work: Callable[[I], T], items: Sequence[I], threads: int, stop: Stop) -> list[T]:
    """Return `work` of every item, in their order; the first failure ends the others and is raised."""
    pool = ThreadPoolExecutor(max(1, min(threads, len(items))))
    try:
        jobs = [pool.submit(work, item) for item in items]
        wait(jobs, return_when=FIRST_EXCEPTION)
        for job in jobs:
            if job.done() and (problem := job.exception()) is not None:
                raise problem
        return [job.result() for job in jobs]
    except BaseException:
        stop.now()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
