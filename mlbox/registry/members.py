"""The files of an archive or a folder that came from somebody, by name and in any order.

A plain tar in a file is read in place; what comes through a pipe or is compressed is first written to the store's
temporary folder, for an archive names what it holds where it likes.
"""

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from mlbox.errors import ArchiveError, NotFoundError, StoreError
from mlbox.files import CHUNK, chunks, disk_errors
from mlbox.oci.layer import BLOCK
from mlbox.oci.tar import Member, Reader, parts_of
from mlbox.store.compression import decompressed
from mlbox.store.store import Store

MOST_MEMBERS = 100_000
_MOST_LINKS = 8
_LONGEST = 255
"""Characters of a member's name: no program needs half of it, and all names are kept in memory."""
_RESERVE = 256 << 20
"""Bytes that must stay free on the store's disk while an archive is unpacked to it."""
_LOOK_EVERY = 64 << 20
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
_HARM = "do not use this file: whoever made it made a mistake or means harm"


class Members(Protocol):
    """The files of an archive; readable from several threads."""

    @property
    def name(self) -> str:
        """What the archive is called in messages."""

    def has(self, path: str) -> bool:
        """Whether there is a file of that name."""

    def size(self, path: str) -> int:
        """Return the bytes of a file; raises ArchiveError when there is none."""

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file."""


def read(members: Members, path: str, limit: int) -> bytes:
    """Return the content of a file of at most `limit` bytes."""
    size = members.size(path)
    if size > limit:
        raise ArchiveError(f"{members.name}: {path} has {size} bytes, and {limit} would be much", hint=_HARM)
    return b"".join(members.chunks(path))


@contextmanager
def open_members(store: Store, source: Path | BinaryIO) -> Iterator[Members]:
    """Open a folder, an archive (plain, or compressed with gzip or zstd) or a stream of one."""
    with ExitStack() as stack:
        if isinstance(source, Path):
            name = str(source)
            if source.is_dir():
                yield _Folder(source)
                return
            try:
                file: BinaryIO = stack.enter_context(source.open("rb"))
            except OSError as problem:
                raise NotFoundError(
                    f"cannot read {name}: {problem.strerror}", hint="name an archive or a layout that you may read"
                ) from problem
        else:
            file, name = source, "the archive"
        if not _is_plain_file(file):
            file = stack.enter_context(_spooled(store, file, name))
        yield _Tar(file, name)


class _Folder:
    """The files of a folder; nothing is read through a symlink, nor what is no plain file."""

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self._root = root

    def has(self, path: str) -> bool:
        return (self._root / path).is_file()

    def size(self, path: str) -> int:
        fd = self._open(path)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def chunks(self, path: str) -> Iterator[bytes]:
        with os.fdopen(self._open(path), "rb") as file:
            left = os.fstat(file.fileno()).st_size
            while left and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk

    def _open(self, path: str) -> int:
        whole = self._root / _inside(path, self.name)
        try:
            fd = os.open(whole, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as problem:
            raise ArchiveError(
                f"{self.name}: cannot read {path}: {problem.strerror}", hint="is the layout whole? save it again"
            ) from problem
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ArchiveError(f"{self.name}: {path} is no file", hint=_HARM)
        return fd


class _Tar:
    """The files of a tar that lies in a file, read where they are."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._fd = file.fileno()
        self._at = os.lseek(self._fd, 0, os.SEEK_CUR) if file.seekable() else 0
        self._end = os.fstat(self._fd).st_size
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._scan()

    def has(self, path: str) -> bool:
        return self._resolved(path) in self._files

    def size(self, path: str) -> int:
        return self._place(path)[1]

    def chunks(self, path: str) -> Iterator[bytes]:
        start, size = self._place(path)
        position, end = start, start + size
        while position < end:
            data = os.pread(self._fd, min(CHUNK, end - position), position)
            if not data:
                raise ArchiveError(f"{self.name} became shorter while it was read", hint="wait until it is whole")
            position += len(data)
            yield data

    def _place(self, path: str) -> tuple[int, int]:
        place = self._files.get(self._resolved(path))
        if place is None:
            raise ArchiveError(f"{self.name}: {path[:200]} is missing", hint="save it again: the archive is not whole")
        return place

    def _resolved(self, path: str) -> str:
        """Follow links inside the archive, as `docker save` writes them for a layer that comes twice."""
        path = _inside(path, self.name)
        for _ in range(_MOST_LINKS):
            if path not in self._links:
                return path
            path = self._links[path]
        raise ArchiveError(f"{self.name}: {path[:200]} is a link to a link to a link", hint=_HARM)

    def _scan(self) -> None:
        reader = Reader(self._take, self.name)
        count = 0
        while (member := self._next(reader, first=not count)) is not None:
            count += 1
            if count > MOST_MEMBERS:
                raise ArchiveError(f"{self.name} has more than {MOST_MEMBERS} members", hint=_HARM)
            self._add(member)
            self._at += member.stored + -member.stored % BLOCK

    def _next(self, reader: Reader, *, first: bool) -> Member | None:
        problem = None
        try:
            if (member := reader.next()) is not None or not first:
                return member
        except ArchiveError as error:
            if not first:
                raise
            problem = error
        raise ArchiveError(
            f"{self.name} is no archive that mlbox reads",
            hint="it reads tars, plain or compressed with gzip or zstd, and folders with an OCI layout",
        ) from problem

    def _add(self, member: Member) -> None:
        path = _inside(member.path, self.name)
        if member.kind not in ("file", "link", "symlink"):
            return
        if path in self._files or path in self._links:
            if path.startswith("blobs/"):
                return  # its digest decides, whichever is read
            raise ArchiveError(f"{self.name}: two members want the path {path!r}", hint=_HARM)
        if member.kind == "link":
            self._links[path] = _inside(member.target, self.name)
        elif member.kind == "symlink":
            self._links[path] = _inside(
                posixpath.normpath(posixpath.join(posixpath.dirname(path), member.target)), self.name
            )
        elif member.extents is not None:
            raise ArchiveError(f"{self.name}: {path!r} is a sparse file, which no program writes here", hint=_HARM)
        elif self._at + member.stored > self._end:
            raise ArchiveError(f"{self.name} ends inside {path!r}", hint="copy it again: it was cut off")
        else:
            self._files[path] = (self._at, member.stored)

    def _take(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self._at)
        self._at += len(data)
        return data


def _inside(path: str, archive: str) -> str:
    """Return the one way to write a member's path; one that leaves the archive raises ArchiveError."""
    try:
        if len(path) > _LONGEST:
            raise ValueError(f"a name of more than {_LONGEST} characters")
        return "/".join(parts_of(path))
    except ValueError as problem:
        raise ArchiveError(f"{archive}: {path[:200]!r}: {problem}", hint=_HARM) from None


def _is_plain_file(file: BinaryIO) -> bool:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return False
    head = os.pread(file.fileno(), 6, os.lseek(file.fileno(), 0, os.SEEK_CUR))
    return not head.startswith(_COMPRESSED)


@contextmanager
def _spooled(store: Store, file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    with disk_errors(f"unpacking {name}"), store.scratch("load") as folder, (folder / "tar").open("x+b") as spool:
        checked = 0
        for chunk in decompressed(chunks(file), name=name):
            spool.write(chunk)
            if spool.tell() >= checked:
                _check_room(spool, name)
                checked += _LOOK_EVERY
        spool.flush()
        spool.seek(0)
        yield spool


def _check_room(spool: BinaryIO, name: str) -> None:
    room = os.fstatvfs(spool.fileno())
    if room.f_bavail * room.f_frsize < _RESERVE:
        raise StoreError(
            f"{name} is larger than what is free on the store's disk", hint="'mlbox prune' removes what no image uses"
        )
