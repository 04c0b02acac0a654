"""What long work tells whoever watches: values, never text on a terminal."""

from typing import Protocol


class Listener(Protocol):
    """Receives progress. Called from several threads; must not block or raise."""

    def step(self, what: str) -> None:
        """A piece of work begins, said in one line: 'resolve', 'unpack numpy 2.4.1'."""

    def expect(self, what: str, total: int) -> None:
        """`total` more bytes of `what` ('fetch', 'unpack') will come."""

    def advance(self, what: str, amount: int) -> None:
        """`amount` bytes of `what` are done."""

    def note(self, text: str) -> None:
        """Something the user should know, once: a choice that was made, a warning."""


class Silent:
    """A listener that ignores everything."""

    def step(self, what: str) -> None:
        """Ignore."""

    def expect(self, what: str, total: int) -> None:
        """Ignore."""

    def advance(self, what: str, amount: int) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


SILENT = Silent()
