import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes.trees import hashed, key, make_piece, write

from mlbox.errors import ArchiveError, StoreError
from mlbox.oci.layer import EPOCH
from mlbox.store.store import Store
from mlbox.store.tree import Tree


def test_a_piece_is_made_once_and_read_back(store: Store) -> None:
    files = {"bin/x": b"1", "lib/y": b"22", "l": "lib/y", "tmp": 0o1777}
    made = make_piece(store, "numpy", files)
    found = store.pieces.make(key("numpy"), "numpy", lambda _: pytest.fail("made again"))
    assert found == made == store.pieces.get(key("numpy"))
    assert made.tree.diff_id
    assert (made.root / "lib/y").read_bytes() == b"22"
    assert list(store.pieces.keys()) == [key("numpy")]
    assert not list(store.home.tmp.iterdir())


def test_a_tree_without_digest(store: Store) -> None:
    made = store.pieces.make(key("a"), "a", lambda root: write(root, {"x": b""}))
    assert made.tree.diff_id is None
    assert store.pieces.get(key("a")) == made


def test_the_umask_does_not_reach_the_root(store: Store) -> None:
    old = os.umask(0o077)
    try:
        piece = make_piece(store, "a", {"x": b""})
    finally:
        os.umask(old)
    assert piece.root.stat().st_mode & 0o7777 == 0o755
    assert piece.root.stat().st_mtime == EPOCH


@pytest.mark.parametrize(
    ("raised", "expected", "match"),
    [
        (ArchiveError("bad"), ArchiveError, "bad"),
        (OSError(errno.ENOSPC, "full"), StoreError, "no space left on the disk while unpacking numpy"),
        (OSError(errno.EDQUOT, "quota"), StoreError, "no space left"),
        (KeyboardInterrupt("^C"), KeyboardInterrupt, "C"),
    ],
)
def test_a_failure_leaves_nothing(
    store: Store, raised: BaseException, expected: type[BaseException], match: str
) -> None:
    def fill(root: Path) -> Tree:
        write(root, {"half": b"a tree"})
        raise raised

    with pytest.raises(expected, match=match):
        store.pieces.make(key("numpy"), "numpy", fill)
    assert store.pieces.get(key("numpy")) is None
    assert not list(store.home.tmp.iterdir())
    assert make_piece(store, "numpy", {"whole": b""}).tree.entries


def test_eight_at_once_do_the_work_once(store: Store) -> None:
    calls: list[Path] = []

    def fill(root: Path) -> Tree:
        calls.append(root)
        return hashed(root, {f"{i}": b"x" for i in range(50)})

    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda _: store.pieces.make(key("a"), "a", fill), range(8)))
    assert len(calls) == 1
    assert all(piece == pieces[0] for piece in pieces)


def test_delete(store: Store) -> None:
    make_piece(store, "a", {"x": b""})
    store.pieces.delete(key("a"))
    store.pieces.delete(key("a"))
    assert not store.pieces.has(key("a"))
    assert store.pieces.get(key("a")) is None


def test_a_damaged_record_is_an_error_with_a_hint(store: Store) -> None:
    make_piece(store, "a", {"x": b""})
    (store.pieces.folder(key("a")) / "entries").write_bytes(b"?")
    with pytest.raises(StoreError, match="entries") as caught:
        store.pieces.get(key("a"))
    assert "fsck" in (caught.value.hint or "")
