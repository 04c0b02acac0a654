"""A download under way: its file, the hash of what is in it, and how it is completed."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from mlbox.errors import FetchError
from mlbox.events import Listener
from mlbox.http.transport import TemporaryError, chunks
from mlbox.http.url import redact

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CHUNK = 1 << 20
_MD5 = 32
_UNKNOWN_SIZE_LIMIT = 1 << 36


class Advice(NamedTuple):
    """What the user can do about a file that is not the one asked for; and the kind of work that it is."""

    replaced: str = (
        "the file was replaced on the server or damaged on the way: "
        "compare with another mirror; if the new file is wanted, run 'mlbox lock --upgrade'"
    )
    resized: str = "the file was replaced on the server, or the lock was edited: run 'mlbox lock' again"
    work: str = "fetch"


class Part:
    """A download under way: its file and the hash of what is in it."""

    def __init__(
        self, file: BinaryIO, what: str, sha256: str, size: int, listener: Listener, advice: Advice | None = None
    ) -> None:
        self.file, self.what, self.sha256, self.size, self.listener = file, what, sha256, size, listener
        self.advice = advice or Advice()
        self.done = self.received = 0
        # Nothing better than md5 is known of some conda packages.
        self._new = partial(hashlib.md5, usedforsecurity=False) if len(sha256) == _MD5 else hashlib.sha256
        self._hash = self._new()
        file.seek(0)
        while chunk := file.read(_CHUNK):
            self._hash.update(chunk)
            self.done += len(chunk)
        if size and self.done > size:
            self.restart()
        listener.advance(self.advice.work, self.done)

    @property
    def whole(self) -> bool:
        """Whether as many bytes are there as were announced."""
        return bool(self.size) and self.done == self.size

    def headers(self) -> dict[str, str]:
        """Return what asks a server for the rest only."""
        return {"Range": f"bytes={self.done}-"} if self.done else {}

    def check_range(self, response: "BaseHTTPResponse") -> None:
        """Start again when a server answered with another range than the rest."""
        if response.status == 416 or (response.status == 206 and not _starts_at(response, self.done)):
            self.restart()
            raise TemporaryError("the server could not resume the download")

    def receive(self, response: "BaseHTTPResponse", url: str) -> None:
        """Take the content of an answer with status 200 or 206."""
        if response.status != 206:
            self.restart()
        self.expect_length(response.headers.get("content-length"), url)
        for chunk in chunks(response):
            self.write(chunk, url)
        if self.size and self.done < self.size:
            raise TemporaryError(f"the connection ended after {self.done} of {self.size} bytes")

    def complete(self, url: str, transfer: Callable[[], None]) -> None:
        """Call `transfer`, and once more from the start when what an earlier try left was the wrong half."""
        resumed = self.done > 0
        transfer()
        if self.matches():
            return
        if resumed:
            self.restart()
            transfer()
            if self.matches():
                return
        problem = self.mismatch(url)
        self.restart()
        raise problem

    def write(self, chunk: bytes, url: str) -> None:
        """Append `chunk`; more bytes than announced is an error, so that nobody can fill the disk."""
        if self.done + len(chunk) > (self.size or _UNKNOWN_SIZE_LIMIT):
            self.restart()
            raise self._wrong_size(url, f"more than {self.size}")
        self.file.write(chunk)
        self._hash.update(chunk)
        self.done += len(chunk)
        self.received += len(chunk)
        self.listener.advance(self.advice.work, len(chunk))

    def restart(self) -> None:
        """Forget what arrived."""
        self.file.seek(0)
        self.file.truncate()
        self.listener.advance(self.advice.work, -self.done)
        self.done = 0
        self._hash = self._new()

    def expect_length(self, length: str | None, url: str) -> None:
        """Compare the announced length with the locked size before anything is transferred."""
        if self.size and length is not None and length.isdecimal() and self.done + int(length) != self.size:
            announced = self.done + int(length)
            self.restart()
            raise self._wrong_size(url, str(announced))

    def matches(self) -> bool:
        """Whether the file is the one that was asked for."""
        self.file.flush()
        return self._hash.hexdigest() == self.sha256 and self.size in (0, self.done)

    def mismatch(self, url: str) -> FetchError:
        """Return the error that names both hashes."""
        return FetchError(
            f"{self.what}: {redact(url)} has sha256 {self._hash.hexdigest()}, expected {self.sha256}",
            hint=self.advice.replaced,
        )

    def _wrong_size(self, url: str, found: str) -> FetchError:
        return FetchError(
            f"{self.what}: {redact(url)} has {found} bytes, expected {self.size}",
            hint=self.advice.resized,
        )


def _starts_at(response: "BaseHTTPResponse", offset: int) -> bool:
    return response.headers.get("content-range", "").startswith(f"bytes {offset}-")
