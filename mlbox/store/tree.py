"""A tree of files on disk, and the deterministic tar that is the same thing in bytes."""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

import msgspec

from mlbox.errors import ArchiveError
from mlbox.files import CHUNK
from mlbox.oci.digest import DiffID
from mlbox.oci.layer import (
    END,
    EPOCH,
    Entry,
    encoded,
    header,
    padding,
    safe_path,
    sort_entries,
)

_SMALL = 64 << 10


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder holds: its entries in tar order, and the digest of that tar when it is known."""

    entries: tuple[Entry, ...]
    diff_id: DiffID | None = None

    @property
    def size(self) -> int:
        """Bytes of file content."""
        return sum(entry.size for entry in self.entries)


class Stretch(msgspec.Struct, frozen=True):
    """A part of a file: where it begins and how many bytes it is."""

    path: str
    offset: int
    size: int


_DEEPEST = 256
"""Folders that a path may lie in: making and removing them takes a call in a call for each."""


class TreeWriter:
    """Writes files below `root` and nowhere else, and keeps an Entry of each.

    Paths are checked (safe_path), parents are made as needed, nothing is written through a symlink,
    and a path that was already written raises ArchiveError naming `archive`. Thread-compatible: one
    writer per thread.
    """

    def __init__(self, root: Path, archive: str, *, mtime: int = EPOCH) -> None:
        self.root = str(root)
        self.archive = archive
        self.mtime = mtime
        self._entries: dict[str, Entry] = {}
        root.mkdir(parents=True, exist_ok=True)

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Make the directory `path`; making it again only sets the mode."""
        known = self._entries.get(path)
        if known is None:
            self._parent(safe_path(path, self.archive))
            os.mkdir(self._on_disk(path))  # noqa: PTH102 - hot path
        elif known.kind != "dir":
            raise self._twice(path)
        self._entries[path] = Entry(path, "dir", mode, self.mtime)

    def file(self, path: str, chunks: Iterable[bytes | memoryview], mode: int = 0o644) -> int:
        """Write the file `path` from `chunks` and return its size."""
        self._fresh(path)
        fd = os.open(self._on_disk(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        size = 0
        try:
            for chunk in chunks:
                view = memoryview(chunk)
                size += len(view)
                while view:
                    view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
            os.utime(fd, (self.mtime, self.mtime))
        finally:
            os.close(fd)
        self._entries[path] = Entry(path, "file", mode, self.mtime, size)
        return size

    def symlink(self, path: str, target: str) -> None:
        """Make the symlink `path`; `target` is kept as it is and never followed here."""
        self._fresh(path)
        os.symlink(target, self._on_disk(path))  # noqa: PTH211 - hot path
        os.utime(self._on_disk(path), (self.mtime, self.mtime), follow_symlinks=False)
        self._entries[path] = Entry(path, "symlink", 0o777, self.mtime, 0, target)

    def patch(self, path: str, offset: int, data: bytes) -> None:
        """Write `data` over what the file `path`, which this wrote, has at `offset`."""
        fd = os.open(self._on_disk(path), os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.pwrite(fd, data, offset)
            os.utime(fd, (self.mtime, self.mtime))
        finally:
            os.close(fd)

    def kind(self, path: str) -> str | None:
        """Return what was written at `path`, None when nothing was."""
        entry = self._entries.get(path)
        return entry.kind if entry else None

    def finish(self) -> Tree:
        """Set the directories' times and modes and return the tree."""
        entries = sort_entries(self._entries.values())
        _finish_directories(f"{self.root}/", entries)
        return Tree(entries=entries)

    def _on_disk(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _fresh(self, path: str) -> None:
        safe_path(path, self.archive)
        if path in self._entries:
            raise self._twice(path)
        self._parent(path)

    def _parent(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if not parent:
            return
        known = self._entries.get(parent)
        if known is None:
            if parent.count("/") >= _DEEPEST:
                raise ArchiveError(f"{self.archive}: {path[:200]!r}… lies in more than {_DEEPEST} folders")
            self.directory(parent)
        elif known.kind != "dir":
            raise ArchiveError(f"{self.archive}: {path!r} lies below {parent!r}, which is no directory")

    def _twice(self, path: str) -> ArchiveError:
        return ArchiveError(f"{self.archive}: two members want the path {path!r}")


def write_tree(
    root: Path, entries: Iterable[Entry], content: Callable[[Entry], Iterable[bytes | memoryview]], archive: str
) -> Tree:
    """Write `entries`, which stand in tar order with all their parents, below the new folder `root`, in one pass.

    `content` gives the bytes of a file; the tree's diff_id is computed on the way. The paths must be safe
    (safe_path). A content that is not as long as its entry says raises ArchiveError naming `archive`.
    """
    entries = tuple(entries)
    prefix, umask, digest = f"{root}/", current_umask(), hashlib.sha256()
    root.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        if entry.kind == "file":
            _write_file(prefix + entry.path, entry, content(entry), umask, digest, archive)
        else:
            digest.update(header(entry))
            _write_other(prefix + entry.path, entry)
    digest.update(END)
    _finish_directories(prefix, entries)
    return Tree(entries=entries, diff_id=DiffID("sha256:" + digest.hexdigest()))


def _write_file(
    path: str, entry: Entry, chunks: Iterable[bytes | memoryview], umask: int, digest: "hashlib._Hash", archive: str
) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, entry.mode)
    head, left = header(entry), entry.size
    try:
        for chunk in chunks:
            left -= len(chunk)
            # One call for a small file: hashlib keeps the GIL below 2 KiB, and a call costs more than the copy.
            if head and len(chunk) < _SMALL:
                digest.update(head + chunk)
            else:
                digest.update(head)
                digest.update(chunk)
            head = b""
            done = os.write(fd, chunk)
            while done < len(chunk):
                done += os.write(fd, chunk[done:])
        digest.update(head + padding(entry.size))
        if entry.mode & umask:
            os.fchmod(fd, entry.mode)
        os.utime(fd, (entry.mtime, entry.mtime))
    finally:
        os.close(fd)
    if left:
        raise ArchiveError(f"{archive}: {entry.path!r} does not have the {entry.size} bytes it should")


def _write_other(path: str, entry: Entry) -> None:
    if entry.kind == "dir":
        os.mkdir(path)  # noqa: PTH102 - hot path
    else:
        os.symlink(entry.target, path)  # noqa: PTH211 - hot path
        os.utime(path, (entry.mtime, entry.mtime), follow_symlinks=False)


def _finish_directories(prefix: str, entries: Iterable[Entry]) -> None:
    for entry in reversed(tuple(entries)):
        if entry.kind == "dir":
            os.chmod(prefix + entry.path, entry.mode)  # noqa: PTH101 - hot path
            os.utime(prefix + entry.path, (entry.mtime, entry.mtime))


def current_umask() -> int:
    """Return the umask of this process."""
    # os.umask can only be read by setting it, which other threads would see.
    status = Path("/proc/self/status").read_bytes()
    return int(status.partition(b"\nUmask:")[2].split(maxsplit=1)[0], 8)


def tar_chunks(entries: Iterable[Entry], locate: Callable[[Entry], str]) -> Iterator[bytes | memoryview]:
    """Yield the tar of `entries` in order; `locate` says where the content of a file lies.

    A yielded memoryview is valid only until the next chunk is asked for. Memory stays below two chunks.
    """
    return joined(tar_parts(entries, locate))


def tar_parts(entries: Iterable[Entry], locate: Callable[[Entry], str]) -> Iterator[bytes | Stretch]:
    """Yield what the tar of `entries` consists of."""
    for entry in entries:
        yield header(entry)
        if entry.kind == "file" and entry.size:
            yield Stretch(locate(entry), 0, entry.size)
            yield padding(entry.size)
    yield END


def skipped(parts: Iterable[bytes | Stretch], start: int) -> Iterator[bytes | Stretch]:
    """Yield `parts` without their first `start` bytes, of which none is read."""
    for part in parts:
        size = part.size if isinstance(part, Stretch) else len(part)
        if not start:
            yield part
        elif start >= size:
            start -= size
        else:
            if isinstance(part, Stretch):
                yield Stretch(part.path, part.offset + start, size - start)
            else:
                yield part[start:]
            start = 0


def joined(parts: Iterable[bytes | Stretch]) -> Iterator[bytes | memoryview]:
    """Yield `parts` as one stream; a yielded memoryview is valid only until the next chunk is asked for."""
    view = memoryview(bytearray(CHUNK))
    filled = 0
    for part in parts:
        if isinstance(part, Stretch):
            filled = yield from _content(part, view, filled)
            continue
        if filled + len(part) >= CHUNK:
            yield view[:filled]
            filled = 0
            if len(part) >= CHUNK:
                yield part
                continue
        view[filled : filled + len(part)] = part
        filled += len(part)
    yield view[:filled]


def _content(part: Stretch, view: memoryview, filled: int) -> Generator[memoryview, None, int]:
    """Append a stretch of a file to `view`, yield it whenever it is full; return how much of it is filled."""
    left = part.size
    try:
        fd = os.open(part.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ArchiveError(f"{part.path} is missing", hint="run 'mlbox fsck --repair'") from None
    try:
        if part.offset:
            os.lseek(fd, part.offset, os.SEEK_SET)
        while left:
            got = os.readv(fd, [view[filled : filled + left]])
            if not got:
                raise ArchiveError(
                    f"{part.path} is shorter than the {part.offset + part.size} bytes it was stored with"
                )
            left -= got
            filled += got
            if filled == CHUNK:
                yield view
                filled = 0
    finally:
        os.close(fd)
    return filled


def diff_id_of(entries: Iterable[Entry], locate: Callable[[Entry], str]) -> DiffID:
    """Return the digest of the tar of `entries`, reading every file once."""
    return digest_of_chunks(tar_chunks(entries, locate))


def digest_of_chunks(chunks: Iterable[bytes | memoryview]) -> DiffID:
    """Return the digest of a tar."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return DiffID("sha256:" + digest.hexdigest())


def below(root: Path) -> Callable[[Entry], str]:
    """Return the `locate` of a tree that lies at `root`."""
    prefix = f"{root}/"
    return lambda entry: prefix + encoded(entry.path).decode("utf-8", "surrogateescape")
