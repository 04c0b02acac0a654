"""Tars of strangers, packed or not, read once and in their order: memory depends on nothing that they say."""

import bz2
import gzip
import lzma
from collections.abc import Iterator
from io import BufferedReader

from mlbox.errors import ArchiveError
from mlbox.files import CHUNK, Readable
from mlbox.oci.layer import BLOCK
from mlbox.oci.tar import Member, Reader

MOST_MEMBERS = 1_000_000
MOST_NAMES = 64 << 20
"""Bytes of the names of all members: who unpacks them keeps the names."""


class TarStream:
    """The members of a tar; while one of them is looked at, `content` yields what is left of it.

    Raises ArchiveError naming `archive`, EOFError when the tar ends inside a file, and what `file` raises.
    """

    def __init__(self, file: Readable, archive: str, most: int = MOST_MEMBERS) -> None:
        self._file = file
        self._archive = archive
        self._most = most
        self._reader = Reader(file.read, archive)
        self._left = 0

    def __iter__(self) -> Iterator[Member]:
        count = names = 0
        while (member := self._reader.next()) is not None:
            count += 1
            names += len(member.path) + len(member.target)
            if count > self._most or names > MOST_NAMES:
                raise ArchiveError(f"{self._archive}: {count} members with names of {names} bytes, which nobody needs")
            self._left = member.stored
            yield member
            for _ in self.content():
                pass
            self._file.read(-member.stored % BLOCK)

    def content(self) -> Iterator[bytes]:
        """Yield what is left of the member's content, as it is stored."""
        while self._left:
            chunk = self._file.read(min(CHUNK, self._left))
            if not chunk:
                raise EOFError("the tar ends inside a file")
            self._left -= len(chunk)
            yield chunk


def unpacked(file: BufferedReader) -> Readable:
    """Return what `file` holds when gzip, bzip2 or xz packed it, which its first bytes say; else `file`."""
    head = file.peek(6)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(file)
    return file
