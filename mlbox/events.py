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


class Once:
    """Passes everything on, each note and step only once: for work that is done several times in one go."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._said: set[str] = set()
        self.expect = listener.expect
        self.advance = listener.advance

    def step(self, what: str) -> None:
        """Pass on what is new."""
        if what not in self._said:
            self._said.add(what)
            self._listener.step(what)

    def note(self, text: str) -> None:
        """Pass on what is new."""
        if text not in self._said:
            self._said.add(text)
            self._listener.note(text)
