"""Frames: what makes a foreign tar again from the tree it was unpacked to.

A tar is bytes that lie in no file (headers, padding, whatever its maker wrote) and stretches of files. The file
`frames` holds the first as they are and the second as references, in the order of the tar, compressed. Content that
a later member replaced lies under kept/, by the number that its file has in the frames.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from mlbox.errors import ArchiveError, StoreError
from mlbox.files import CHUNK, chunks
from mlbox.store.compression import decompressed
from mlbox.store.tree import Stretch

FRAMES = "frames"
KEPT = "kept"
_RECORD = Struct("<BIQQ")
"""Kind; length of what follows; and of a stretch: where it begins in its file, how long it is."""
_BYTES, _STRETCH, _FILE = range(3)
_DAMAGED = "run 'mlbox fsck --repair', then pull again"


class FrameWriter:
    """Writes the frames of one layer into `folder`; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._file: BinaryIO = (folder / FRAMES).open("xb")
        self._waiting = bytearray()
        self._count = 0
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        self._compressor = zstd.ZstdCompressor(1)

    def __enter__(self) -> "FrameWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, data: bytes | memoryview) -> None:
        """Add bytes that lie in no file."""
        for at in range(0, len(data), CHUNK):
            self._record(_BYTES, data[at : at + CHUNK])

    def file(self, path: str, stretches: Iterable[tuple[int, int]]) -> int:
        """Add stretches (offset, size) of the file `path` of the tree, and return the file's number."""
        self._record(_FILE, path.encode("utf-8", "surrogateescape"))
        for offset, size in stretches:
            self._record(_STRETCH, b"", offset, size)
        self._count += 1
        return self._count - 1

    def finish(self) -> None:
        """Write what is still in memory."""
        self._flush()
        self._file.write(self._compressor.flush())

    def _record(self, kind: int, data: bytes | memoryview, offset: int = 0, size: int = 0) -> None:
        self._waiting += _RECORD.pack(kind, len(data), offset, size)
        self._waiting += data
        if len(self._waiting) >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._file.write(self._compressor.compress(self._waiting))
        self._waiting = bytearray()


def read_frames(folder: Path) -> Iterator[bytes | Stretch]:
    """Yield the frames of the layer in `folder`; raises StoreError when they are damaged."""
    kept = set(os.listdir(folder / KEPT)) if (folder / KEPT).is_dir() else set()  # noqa: PTH208 - names only
    number, path = -1, ""
    try:
        for kind, data, offset, size in _records(folder / FRAMES):
            if kind == _BYTES:
                yield data
            elif kind == _STRETCH:
                yield Stretch(path, offset, size)
            else:
                number += 1
                name = data.decode("utf-8", "surrogateescape")
                path = f"{folder}/{KEPT}/{number}" if str(number) in kept else f"{folder}/fs/{name}"
    except OSError as problem:
        raise StoreError(f"{folder}: {problem.strerror}", hint=_DAMAGED) from problem
    except ArchiveError as problem:
        raise StoreError(problem.message, hint=_DAMAGED) from problem


def _records(path: Path) -> Iterator[tuple[int, bytes, int, int]]:
    with path.open("rb") as file:
        waiting = b""
        for chunk in decompressed(chunks(file), name=str(path)):
            data, at = waiting + chunk if waiting else bytes(chunk), 0
            while len(data) - at >= _RECORD.size:
                kind, length, offset, size = _RECORD.unpack_from(data, at)
                end = at + _RECORD.size + length
                if end > len(data):
                    break
                yield kind, data[at + _RECORD.size : end], offset, size
                at = end
            waiting = data[at:]
    if waiting:
        raise StoreError(f"{path} ends too early", hint=_DAMAGED)
