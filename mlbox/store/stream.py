"""A stream read block by block, hashed beside the reading."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from mlbox.oci.digest import DiffID

_AHEAD = 4
"""Chunks that may wait for the hash."""


class Stream:
    """The bytes of `chunks`. What `take` returns is also kept for `taken`; what `payload` yields is not.

    Use it as a context manager; the digest is of everything that was read.
    """

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self.size = 0
        """Bytes read so far."""
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0
        self._taken: list[bytes] = []
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._hashing: deque[Future[None]] = deque()

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
            data = b"".join(self._parts(size))
        self._taken.append(data)
        return data

    def taken(self) -> bytes:
        """Return what was taken since the last time this was asked."""
        data = b"".join(self._taken)
        self._taken.clear()
        return data

    def payload(self, size: int) -> Iterator[memoryview]:
        """Yield the next `size` bytes in parts, fewer only at the end."""
        return self._parts(size)

    def rest(self) -> Iterator[memoryview]:
        """Yield everything that is left."""
        while self._at < len(self._chunk) or self._next():
            yield memoryview(self._chunk)[self._at :]
            self._at = len(self._chunk)

    def diff_id(self) -> DiffID:
        """Return the digest of all that was read."""
        while self._hashing:
            self._hashing.popleft().result()
        return DiffID("sha256:" + self._digest.hexdigest())

    def _parts(self, size: int) -> Iterator[memoryview]:
        while size and (self._at < len(self._chunk) or self._next()):
            part = memoryview(self._chunk)[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            yield part

    def _next(self) -> bool:
        # A memoryview lives only until the next chunk is asked for, and the hash may come later.
        with suppress(StopIteration):
            while True:
                if chunk := bytes(next(self._chunks)):
                    break
            self._chunk, self._at = chunk, 0
            self.size += len(chunk)
            if len(self._hashing) >= _AHEAD:
                self._hashing.popleft().result()
            self._hashing.append(self._pool.submit(self._digest.update, chunk))
            return True
        return False
