"""Unpacked artifacts: a tree per piece, made once, however many projects or processes want it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from mlbox.files import disk_errors
from mlbox.oci.digest import parse_diff_id
from mlbox.oci.layer import EPOCH
from mlbox.paths import Home
from mlbox.store.publish import publish_folder, temporary_folder, withdraw, working_on
from mlbox.store.saved import Record, load_entries, load_record, save, saved_path
from mlbox.store.tree import Tree

Fill = Callable[[Path], Tree]
"""Writes the tree below the folder it is given and returns what it wrote."""


class StoredPiece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece on disk: its files lie below `root` and must not be changed."""

    key: str
    label: str
    root: Path
    tree: Tree


class PieceStore:
    """The pieces/ folder of a store."""

    def __init__(self, home: Home) -> None:
        self._root = home.pieces
        self._tmp = home.tmp

    def folder(self, key: str) -> Path:
        """Return the folder of the piece, whether it is there or not."""
        return saved_path(self._root, key)

    def has(self, key: str) -> bool:
        """Whether the piece is there."""
        return self.folder(key).is_dir()

    def get(self, key: str) -> StoredPiece | None:
        """Return the piece, None when it is not there."""
        folder = self.folder(key)
        record = load_record(folder)
        if record is None:
            return None
        diff_id = parse_diff_id(record.diff_id) if record.diff_id else None
        tree = Tree(entries=load_entries(folder), diff_id=diff_id)
        return StoredPiece(key=key, label=record.label, root=folder / "fs", tree=tree)

    def make(self, key: str, label: str, fill: Fill) -> StoredPiece:
        """Return the piece, calling `fill` when it is not there; a failure leaves nothing."""
        if piece := self.get(key):
            return piece
        with disk_errors(f"unpacking {label}"), working_on(self._tmp, f"piece-{key}"):
            return self.get(key) or self._make(key, label, fill)

    def delete(self, key: str) -> None:
        """Remove the piece; a missing one is fine."""
        withdraw(self._tmp, self.folder(key))

    def keys(self) -> Iterator[str]:
        """Yield the key of every piece."""
        if self._root.is_dir():
            yield from sorted(path.name for path in self._root.iterdir())

    def _make(self, key: str, label: str, fill: Fill) -> StoredPiece:
        with temporary_folder(self._tmp, "piece") as folder:
            root = folder / "fs"
            root.mkdir()
            tree = fill(root)
            # The umask must not reach what containers see as '/'.
            root.chmod(0o755)
            os.utime(root, (EPOCH, EPOCH))
            save(folder, Record(key=key, label=label, diff_id=tree.diff_id or ""), tree.entries)
            publish_folder(folder, self.folder(key))
        return StoredPiece(key=key, label=label, root=self.folder(key) / "fs", tree=tree)
