"""A tar made by others becomes a tree on the disk, and the frames that make the same tar again."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mlbox.errors import ArchiveError
from mlbox.oci.digest import DiffID
from mlbox.oci.layer import BLOCK, END, Entry, encoded, header
from mlbox.oci.tar import Member, Reader
from mlbox.store.frames import FRAMES, KEPT, FrameWriter
from mlbox.store.lower import LowerTree, impossible
from mlbox.store.nodes import Node
from mlbox.store.stream import Stream

MAX_UNPACKED = 1 << 42
"""Bytes of all files together, holes too."""
_HARM = "do not use this image: whoever made it made a mistake or means harm"


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """What a tar was unpacked to."""

    diff_id: DiffID
    size: int
    """Bytes of the tar."""
    entries: tuple[Entry, ...]
    frames: bool
    """Whether the tar is more than its entries; then the frames make it again."""
    omitted: tuple[str, ...]
    """What is in the tar and not on the disk, the first hundred."""


def unpack(
    chunks: Iterable[bytes | memoryview], folder: Path, name: str, *, final: Path, limit: int | None = None
) -> Unpacked:
    """Unpack the tar of layer `name` to `folder`/fs, which will become `final`; frames lie beside it.

    More than `limit` bytes of files, and everything that is wrong with the tar, raise ArchiveError.
    """
    with Stream(chunks) as stream, FrameWriter(folder) as frames:
        tree = LowerTree(folder / "fs", folder / KEPT, final)
        unpacking = _Unpacking(stream, frames, tree, name, limit or MAX_UNPACKED)
        entries = unpacking.run()
        frames.finish()
        diff_id = stream.diff_id()
    if unpacking.canonical:
        (folder / FRAMES).unlink()
    return Unpacked(
        diff_id=diff_id,
        size=stream.size,
        entries=entries,
        frames=not unpacking.canonical,
        omitted=tuple(tree.omitted),
    )


class _Unpacking:
    def __init__(self, stream: Stream, frames: FrameWriter, tree: LowerTree, name: str, limit: int) -> None:
        self.stream = stream
        self.frames = frames
        self.tree = tree
        self.name = name
        self.left = limit
        self.canonical = True
        """Whether all that was read so far is what mlbox itself would have written."""
        self._last = self._padding = b""

    def run(self) -> tuple[Entry, ...]:
        reader = Reader(self.stream.take, self.name)
        while (member := reader.next()) is not None:
            with self._problems(member.path):
                self._member(member)
        self._end()
        with self._problems("its folders"):
            return self.tree.finish()

    @contextmanager
    def _problems(self, what: str) -> Iterator[None]:
        try:
            yield
        except ValueError as problem:
            raise ArchiveError(f"{self.name}: {what[:200]!r}: {problem}", hint=_HARM) from None
        except OSError as problem:
            if not impossible(problem):
                raise
            raise ArchiveError(f"{self.name}: {what[:200]!r}: {problem.strerror}", hint=_HARM) from problem

    def _member(self, member: Member) -> None:
        self.left -= member.size
        if self.left < 0:
            raise ValueError("with it the layer is larger than it may be")
        path, node = self.tree.place(member)
        raw = self.stream.taken()
        if self.canonical:
            self.canonical = self._is_own(raw, member, path)
        self.frames.add(self._padding + raw)
        if node is not None and member.kind == "file":
            self._write(path, node, member)
        else:
            self._skip(member)
        self.stream.take(-member.stored % BLOCK)
        self._padding = self.stream.taken()
        self.canonical = self.canonical and not self._padding.strip(b"\0")

    def _is_own(self, raw: bytes, member: Member, path: str) -> bool:
        this, last = encoded(path), self._last
        self._last = this
        known = path == member.path.rstrip("/") and not self.tree.implied
        return known and this > last and raw == _own_header(member, path)

    def _write(self, path: str, node: Node, member: Member) -> None:
        stretches = member.extents if member.extents is not None else ((0, member.size),)
        if member.stored:
            node.number = self.frames.file(path, ((at, size) for at, size in stretches if size))
        fd = self.tree.create(path, node)
        try:
            if member.extents is not None:
                os.truncate(fd, member.size)
            for offset, size in stretches:
                self._copy(fd, offset, size)
            self.tree.settle(fd, node, member)
        finally:
            os.close(fd)

    def _copy(self, fd: int, offset: int, size: int) -> None:
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)
        for part in self.stream.payload(size):
            size -= len(part)
            done = os.write(fd, part)
            while done < len(part):
                done += os.write(fd, part[done:])
        if size:
            raise ValueError("the tar ends inside it")

    def _skip(self, member: Member) -> None:
        left = member.stored
        for part in self.stream.payload(left):
            self.frames.add(part)
            left -= len(part)
        if left:
            raise ValueError("the tar ends inside it")

    def _end(self) -> None:
        end = self.stream.taken()
        self.frames.add(self._padding + end)
        self.canonical = self.canonical and end == END
        for part in self.stream.rest():
            self.canonical = False
            self.frames.add(part)


def _own_header(member: Member, path: str) -> bytes | None:
    """Return the header that mlbox would have written for `member`, None when it would not have."""
    seconds, fraction = divmod(member.mtime, 10**9)
    if fraction or member.kind not in ("file", "dir", "symlink") or member.extents is not None:
        return None
    entry = Entry(path, member.kind, member.mode, seconds, member.size, member.target, member.uid, member.gid)
    try:
        return header(entry)
    except ArchiveError:
        return None
