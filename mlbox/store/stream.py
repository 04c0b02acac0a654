"""A stream read block by block, while another thread fetches and hashes what comes next."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from mlbox.oci.digest import DiffID

_AHEAD = 3
"""Chunks that may wait for the reader."""


class Stream:
    """The bytes of `chunks`. What `take` returns is also kept for `taken`; what `payload` yields is not.

    Use it as a context manager: `chunks` is read in another thread, which is idle again after the end.
    """

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self.size = 0
        """Bytes read so far."""
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0
        self._taken: list[bytes] = []
        self._digest = hashlib.sha256()
        # Whatever makes the chunks (a decompressor) and the hash need no interpreter; nor do the reader's writes.
        self._pool = ThreadPoolExecutor(1)
        self._coming: deque[Future[bytes]] = deque()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        end = self._at + size
        if end <= len(self._chunk):
            data = self._chunk[self._at : end]
            self._at = end
        else:
            data = b"".join(self.payload(size))
        self._taken.append(data)
        return data

    def taken(self) -> bytes:
        """Return what was taken since the last time this was asked."""
        data = b"".join(self._taken)
        self._taken.clear()
        return data

    def payload(self, size: int) -> Iterator[memoryview]:
        """Yield the next `size` bytes in parts, fewer only at the end."""
        while size and (self._at < len(self._chunk) or self._next()):
            part = memoryview(self._chunk)[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            yield part

    @property
    def position(self) -> int:
        """How many bytes were taken and yielded so far."""
        return self.size - len(self._chunk) + self._at

    def rest(self) -> Iterator[memoryview]:
        """Yield everything that is left."""
        while self._at < len(self._chunk) or self._next():
            yield memoryview(self._chunk)[self._at :]
            self._at = len(self._chunk)

    def diff_id(self) -> DiffID:
        """Return the digest of the whole stream, which must have been read to its end."""
        return DiffID("sha256:" + self._digest.hexdigest())

    def _next(self) -> bool:
        while len(self._coming) < _AHEAD:
            self._coming.append(self._pool.submit(self._fetch))
        self._chunk, self._at = self._coming.popleft().result(), 0
        self.size += len(self._chunk)
        return bool(self._chunk)

    def _fetch(self) -> bytes:
        """Return the next chunk that is not empty, b"" at the end."""
        for chunk in self._chunks:
            if data := bytes(chunk):  # a memoryview lives only until the next chunk is asked for
                self._digest.update(data)
                return data
        return b""
