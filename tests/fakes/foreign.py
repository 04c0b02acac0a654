"""Layers of others in a store: taken in, compared, looked at."""

import hashlib
import os
import stat
from collections.abc import Iterable

from fakes.tars import GNU, file, header, number, padded, pax

from mlbox.oci.digest import DiffID
from mlbox.store.fsck import tree_problem
from mlbox.store.store import Store

SPARSE = {
    "old": header(
        "s",
        b"S",
        7,
        magic=GNU,
        tail=bytes(41)
        + number(512, 12)
        + number(3, 12)
        + number(10_000, 12)
        + number(4, 12)
        + bytes(49)
        + number(20_000, 12),
    )
    + padded(b"1234567"),
    "0.0": pax(
        [
            ("GNU.sparse.size", "20000"),
            ("GNU.sparse.offset", "512"),
            ("GNU.sparse.numbytes", "3"),
            ("GNU.sparse.offset", "10000"),
            ("GNU.sparse.numbytes", "4"),
        ]
    )
    + file("s", b"1234567"),
    "1.0": pax(
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "20000", "GNU.sparse.name": "s"}
    )
    + file("GNUSparseFile.0/s", padded(b"2\n512\n3\n10000\n4\n") + b"1234567"),
}


def join(chunks: Iterable[bytes | memoryview]) -> bytes:
    return b"".join(bytes(chunk) for chunk in chunks)


def digest(data: bytes) -> DiffID:
    return DiffID("sha256:" + hashlib.sha256(data).hexdigest())


def ingest(store: Store, data: bytes, step: int = 1 << 20) -> DiffID:
    """Take in the tar `data`; what comes out again must be the same."""
    diff_id = digest(data)
    chunks = (memoryview(data)[at : at + step] for at in range(0, len(data), step))
    assert store.layers.ingest(diff_id, chunks, "layer one") == len(data)
    assert join(store.layers.tar(diff_id)) == data
    assert store.layers.verify(diff_id)
    assert not list(store.home.tmp.iterdir())
    return diff_id


def shown(store: Store, diff_id: DiffID) -> dict[str, str | bytes]:
    """Return what lies on the disk: content of files, and a word for everything else."""
    root = store.layers.root(diff_id)
    found: dict[str, str | bytes] = {}
    for path in sorted(root.rglob("*")):
        name, status = str(path.relative_to(root)), path.lstat()
        if stat.S_ISREG(status.st_mode):
            found[name] = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            found[name] = f"-> {path.readlink()}"
        elif stat.S_ISDIR(status.st_mode):
            opaque = b"y" in [os.getxattr(path, name) for name in os.listxattr(path) if name.endswith("overlay.opaque")]
            found[name] = "opaque" if opaque else "dir"
        elif stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            found[name] = "whiteout"
        else:
            found[name] = oct(stat.S_IFMT(status.st_mode))
    assert tree_problem(store.layers.folder(diff_id), deep=True, diff_id=diff_id) is None
    return found
