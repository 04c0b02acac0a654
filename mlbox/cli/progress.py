"""Progress on stderr: bars on a terminal, plain lines elsewhere."""

import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING

from mlbox.cli.render import shown_lines
from mlbox.events import SILENT, Listener

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Lines:
    """A listener that prints steps and notes as lines."""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def step(self, what: str) -> None:
        """Print the step."""
        # One call: threads come between the parts of a print().
        sys.stderr.write(f"{shown_lines(what)}\n")

    def note(self, text: str) -> None:
        """Print the note."""
        self.step(f"note: {text}")

    def expect(self, what: str, total: int) -> None:
        """Lines show no amounts."""

    def advance(self, what: str, amount: int) -> None:
        """Lines show no amounts."""


class Bars:
    """A listener that shows one bar per kind of work, with bytes and rate.

    rich costs 100 ms to import, so it is imported with the first bytes of work: a build with nothing to do
    never pays for it.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bars as they stand."""
        if self._progress:
            self._progress.stop()

    def step(self, what: str) -> None:
        """Print the step above the bars."""
        self._say(what)

    def note(self, text: str) -> None:
        """Print the note above the bars."""
        self._say(f"note: {text}")

    def expect(self, what: str, total: int) -> None:
        """Make the bar of `what` longer by `total` bytes."""
        if not total:
            return
        with self._lock:
            progress = self._open()
            if what not in self._tasks:
                self._tasks[what] = progress.add_task(what, total=0)
            task = self._tasks[what]
            progress.update(task, total=(progress.tasks[task].total or 0) + total)

    def advance(self, what: str, amount: int) -> None:
        """Move the bar of `what`."""
        with self._lock:
            if self._progress and what in self._tasks:
                self._progress.update(self._tasks[what], advance=amount)

    def _say(self, text: str) -> None:
        text = shown_lines(text)
        if self._progress:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            sys.stderr.write(f"{text}\n")

    def _open(self) -> "Progress":
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description:<8}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            # Lines of data are not broken; and what goes to a file or `$(…)` stays out of rich's hands, which would
            # print it to stderr.
            console = Console(stderr=True, soft_wrap=True)
            self._progress = Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty())
            self._progress.start()
        return self._progress


def listener(*, quiet: bool = False) -> AbstractContextManager[Listener]:
    """Return the listener that fits stderr, or the one that says nothing."""
    if quiet:
        return nullcontext(SILENT)
    return Bars() if sys.stderr.isatty() else Lines()
