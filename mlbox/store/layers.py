"""Layers: unions of pieces as trees on disk, made of hard links, named by the digest of their tar."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from mlbox.errors import ArchiveError, BuildError, StoreError
from mlbox.files import disk_errors
from mlbox.oci.digest import DiffID, Digest, hex_of
from mlbox.oci.image import LAYER_TAR, Descriptor
from mlbox.oci.layer import EPOCH, Entry, sort_entries, tar_size
from mlbox.paths import Home
from mlbox.store.db import Database
from mlbox.store.pieces import StoredPiece
from mlbox.store.publish import publish_folder, temporary_folder, withdraw, working_on
from mlbox.store.saved import Record, load_entries, load_record, save, saved_path
from mlbox.store.tree import below, diff_id_of, digest_of_chunks, joined, skipped, tar_parts

Locate = Callable[[Entry], str]
_NO_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP)


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer in the store."""

    key: str
    name: str
    diff_id: DiffID
    size: int
    """Bytes of its tar."""

    @property
    def descriptor(self) -> Descriptor:
        """How a manifest names this layer: uncompressed, so the blob's digest is the diffID."""
        return Descriptor(media_type=LAYER_TAR, digest=Digest(self.diff_id), size=self.size)


class Content(Protocol):
    """What a layer is made from: entries in tar order, and where the content of each file lies."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The members of its tar."""

    def locate(self, entry: Entry) -> str:
        """Return the file with the content of `entry`."""


class LayerStore:
    """The layers/ folder of a store."""

    def __init__(self, home: Home, db: Database) -> None:
        self._root = home.layers
        self._tmp = home.tmp
        self._db = db

    def folder(self, diff_id: DiffID) -> Path:
        """Return the folder of the layer, whether it is there or not."""
        return saved_path(self._root, hex_of(diff_id))

    def root(self, diff_id: DiffID) -> Path:
        """Return the layer's files: an overlay lower directory."""
        return self.folder(diff_id) / "fs"

    def has(self, diff_id: DiffID) -> bool:
        """Whether the layer is there."""
        return self.folder(diff_id).is_dir()

    def find(self, key: str) -> Layer | None:
        """Return the layer that was assembled for `key`, None when there is none."""
        row = self._db.row("SELECT diff_id, size, name FROM layers WHERE key = ?", key)
        if row is None or not self.has(row[0]):
            return None
        return Layer(key=key, diff_id=row[0], size=row[1], name=row[2])

    def assemble(self, key: str, name: str, pieces: Sequence[StoredPiece]) -> Layer:
        """Return the layer that is the union of `pieces`; where two hold the same file the later piece wins.

        A path that is a directory in one piece and something else in another raises BuildError naming both.
        """
        if layer := self.find(key):
            return layer
        with disk_errors(f"assembling layer {name}"), working_on(self._tmp, f"layer-{key}"):
            return self.find(key) or self._assemble(key, name, pieces)

    def hashed(self, key: str, name: str, pieces: Sequence[StoredPiece]) -> Layer:
        """Return what `assemble` would make of `pieces`, from the pieces themselves: no tree is made."""
        if layer := self.find(key):
            return layer
        entries, locate = union(name, pieces)
        known = pieces[0].tree.diff_id if len(pieces) == 1 else None
        with disk_errors(f"hashing layer {name}"):
            diff_id = known or diff_id_of(entries, locate)
        return Layer(key=key, name=name, diff_id=diff_id, size=tar_size(entries))

    def ingest(
        self, diff_id: DiffID, chunks: Iterable[bytes | memoryview], name: str, *, limit: int | None = None
    ) -> int:
        """Take in the tar of a layer that others made, and return its size in bytes.

        Nothing of it is seen before its digest is known to be `diff_id`. A tar that is not that, or is damaged or
        hostile, or holds more than `limit` bytes of files, raises ArchiveError naming `name`. When the layer is there
        already, `chunks` is not read.
        """
        if self.has(diff_id):
            return self.record(diff_id).size
        with disk_errors(f"unpacking {name}"), working_on(self._tmp, f"ingest-{hex_of(diff_id)}"):
            if not self.has(diff_id):
                self._ingest(diff_id, chunks, name, limit)
        return self.record(diff_id).size

    def capture(self, key: str, name: str, make: Callable[[Path], Content]) -> Layer:
        """Return the layer that was made for `key`; when there is none, `make` does it with the folder it is given.

        Entries may have owners, and files that mean deletions. A failure leaves nothing.
        """
        if layer := self.find(key):
            return layer
        with disk_errors(f"making layer {name}"), working_on(self._tmp, f"layer-{key}"):
            if layer := self.find(key):
                return layer
            with temporary_folder(self._tmp, "capture") as folder:
                made = make(folder)
                diff_id = diff_id_of(made.entries, made.locate)
                self.ingest(diff_id, joined(tar_parts(made.entries, made.locate)), name)
            return self.adopt(key, name, diff_id)

    def adopt(self, key: str, name: str, diff_id: DiffID) -> Layer:
        """Remember that the layer, which is there, is what would be assembled for `key`."""
        size = self.record(diff_id).size
        with self._db.write() as execute:
            execute("INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?)", (key, diff_id, size, name))
        return Layer(key=key, name=name, diff_id=diff_id, size=size)

    def entries(self, diff_id: DiffID) -> tuple[Entry, ...]:
        """Return the layer's entries in tar order."""
        self.record(diff_id)
        return load_entries(self.folder(diff_id))

    def record(self, diff_id: DiffID) -> Record:
        """Return what the layer is; raises StoreError when it is not there."""
        record = load_record(self.folder(diff_id))
        if record is None:
            raise StoreError(f"layer {diff_id} is missing from the store", hint="build or pull the image again")
        return record

    def tar(self, diff_id: DiffID, start: int = 0) -> Iterator[bytes | memoryview]:
        """Yield the layer's tar from the byte `start` on; a memoryview is valid until the next chunk is asked for."""
        if self.record(diff_id).frames:
            from mlbox.store.frames import read_frames  # decompression, which layers of our own do not need

            parts = read_frames(self.folder(diff_id))
        else:
            parts = tar_parts(self.entries(diff_id), below(self.root(diff_id)))
        return joined(skipped(parts, start) if start else parts)

    def verify(self, diff_id: DiffID) -> bool:
        """Whether the files still make the tar of that digest."""
        return digest_of_chunks(self.tar(diff_id)) == diff_id

    def delete(self, diff_id: DiffID) -> None:
        """Remove the layer; a missing one is fine."""
        with self._db.write() as execute:
            execute("DELETE FROM layers WHERE diff_id = ?", (diff_id,))
        withdraw(self._tmp, self.folder(diff_id))

    def diff_ids(self) -> Iterator[DiffID]:
        """Yield the diffID of every layer."""
        if self._root.is_dir():
            yield from (DiffID(f"sha256:{path.name}") for path in sorted(self._root.iterdir()))

    def _assemble(self, key: str, name: str, pieces: Sequence[StoredPiece]) -> Layer:
        entries, locate = union(name, pieces)
        known = pieces[0].tree.diff_id if len(pieces) == 1 else None
        size = tar_size(entries)
        if known is None or not self.has(known):
            known = self._write(key, name, pieces, entries, locate, known, size)
        return self.adopt(key, name, known)

    def _ingest(self, diff_id: DiffID, chunks: Iterable[bytes | memoryview], name: str, limit: int | None) -> None:
        from mlbox.store.untar import unpack  # threads, and more that running a container need not load

        with temporary_folder(self._tmp, "layer") as folder:
            found = unpack(chunks, folder, name, final=self.root(diff_id), limit=limit)
            if found.diff_id != diff_id:
                raise ArchiveError(
                    f"{name}: its content is {found.diff_id}, not {diff_id}",
                    hint="it was damaged on its way or is not what the image says: pull it again, or ask who made it",
                )
            record = Record(
                key="",
                label=name.removeprefix("layer "),
                diff_id=diff_id,
                size=found.size,
                frames=found.frames,
                omitted=found.omitted,
            )
            save(folder, record, found.entries)
            publish_folder(folder, self.folder(diff_id))

    def _write(
        self,
        key: str,
        name: str,
        pieces: Sequence[StoredPiece],
        entries: tuple[Entry, ...],
        locate: Locate,
        known: DiffID | None,
        size: int,
    ) -> DiffID:
        with temporary_folder(self._tmp, "layer") as folder:
            diff_id = link_tree(entries, locate, folder / "fs", known)
            keys = tuple(piece.key for piece in pieces)
            record = Record(key=key, label=name, diff_id=diff_id, size=size, pieces=keys)
            save(folder, record, entries)
            publish_folder(folder, self.folder(diff_id))
        return diff_id


def union(name: str, pieces: Sequence[StoredPiece]) -> tuple[tuple[Entry, ...], Locate]:
    """Return the entries of the union of `pieces`, and where each file's content lies.

    Equal directories merge. Where their modes differ, one that is not 0755 stands, the later of two such: most
    pieces hold /tmp or /root only as a parent of something.
    """
    if len(pieces) == 1:
        return pieces[0].tree.entries, below(pieces[0].root)
    chosen: dict[str, Entry] = {}
    source: dict[str, StoredPiece] = {}
    for piece in pieces:
        for entry in piece.tree.entries:
            known = chosen.get(entry.path)
            if known is not None and "dir" in (known.kind, entry.kind):
                if known.kind != entry.kind:
                    raise _conflict(name, known, source[entry.path], entry, piece)
                if entry.mode == 0o755:
                    continue
            chosen[entry.path] = entry
            source[entry.path] = piece
    roots = {path: f"{piece.root}/" for path, piece in source.items()}
    return sort_entries(chosen.values()), lambda entry: roots[entry.path] + entry.path


def _conflict(name: str, one: Entry, first: StoredPiece, two: Entry, second: StoredPiece) -> BuildError:
    return BuildError(
        f"layer {name}: {one.path!r} is a {one.kind} in {first.label} and a {two.kind} in {second.label}",
        hint="the two packages cannot be installed together; leave one of them out",
    )


def link_tree(entries: Sequence[Entry], locate: Locate, root: Path, known: DiffID | None) -> DiffID:
    """Make the tree of `entries` at `root` from hard links and return its diffID, hashed unless it is `known`."""
    if known is not None:
        _link(entries, locate, root)
        return known
    from concurrent.futures import ThreadPoolExecutor

    # Both spend their time in system calls and in sha256, without the interpreter's lock.
    with ThreadPoolExecutor(1) as pool:
        linking = pool.submit(_link, entries, locate, root)
        diff_id = diff_id_of(entries, locate)
        linking.result()
    return diff_id


def _link(entries: Sequence[Entry], locate: Locate, root: Path) -> None:
    root.mkdir()
    prefix = f"{root}/"
    folders = [entry for entry in entries if entry.kind == "dir"]
    for entry in folders:
        os.mkdir(prefix + entry.path)  # noqa: PTH102 - hot path
    for entry in entries:
        if entry.kind == "file":
            _link_file(locate(entry), prefix + entry.path, entry)
        elif entry.kind == "symlink":
            os.symlink(entry.target, prefix + entry.path)  # noqa: PTH211 - hot path
            os.utime(prefix + entry.path, (entry.mtime, entry.mtime), follow_symlinks=False)
    for entry in reversed(folders):
        os.chmod(prefix + entry.path, entry.mode)  # noqa: PTH101 - hot path
        os.utime(prefix + entry.path, (entry.mtime, entry.mtime))
    root.chmod(0o755)
    os.utime(root, (EPOCH, EPOCH))


def _link_file(source: str, target: str, entry: Entry) -> None:
    try:
        os.link(source, target)
    except OSError as problem:
        if problem.errno not in _NO_LINK:
            raise
        _copy_file(source, target, entry)


def _copy_file(source: str, target: str, entry: Entry) -> None:
    import shutil

    shutil.copyfile(source, target, follow_symlinks=False)
    os.chmod(target, entry.mode)  # noqa: PTH101 - hot path
    os.utime(target, (entry.mtime, entry.mtime))
