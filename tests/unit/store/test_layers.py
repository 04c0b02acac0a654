import errno
import hashlib
import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes.trees import Files, key, make_layer, make_piece, write
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import BuildError, StoreError
from mlbox.oci.digest import DiffID, digest_of
from mlbox.oci.layer import EPOCH, Entry
from mlbox.store.layers import Layer, union
from mlbox.store.pieces import StoredPiece
from mlbox.store.store import Store
from mlbox.store.tree import Tree

ONE: Files = {"bin/x": b"1", "lib/a/b": b"b", "lib/same": b"old", "link": "lib/a", "tmp": 0o1777, "lib/é" * 30: b""}
TWO: Files = {"lib/a/c": b"cc", "lib/same": b"newer", "tmp/file": b""}


def both(store: Store) -> Layer:
    return store.layers.assemble(key("both"), "both", [make_piece(store, "one", ONE), make_piece(store, "two", TWO)])


def tar_bytes(store: Store, layer: Layer) -> bytes:
    return b"".join(bytes(chunk) for chunk in store.layers.tar(layer.diff_id))


def test_a_layer_is_the_union_of_its_pieces(store: Store, tmp_path: Path) -> None:
    layer = both(store)
    data = tar_bytes(store, layer)
    assert layer.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert layer.size == len(data)
    root = store.layers.root(layer.diff_id)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        members = {member.name: member for member in tar}
        for name, member in members.items():
            status = (root / name).lstat()
            assert status.st_mode & 0o7777 == member.mode
            assert status.st_mtime == member.mtime == EPOCH
            if member.isreg():
                assert (root / name).read_bytes() == tar.extractfile(member).read()
            elif member.issym():
                assert (root / name).readlink() == Path(member.linkname)
    assert set(members) == {str(path.relative_to(root)) for path in root.rglob("*")}
    assert (root / "lib/same").read_bytes() == b"newer"
    assert members["tmp"].mode == 0o1777
    assert root.stat().st_mode & 0o7777 == 0o755


def test_files_are_hard_links_of_the_pieces(store: Store) -> None:
    layer = both(store)
    piece = store.pieces.get(key("one"))
    assert piece is not None
    assert (store.layers.root(layer.diff_id) / "bin/x").samefile(piece.root / "bin/x")


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_a_layer_is_hashed_without_being_made(store: Store, names: tuple[str, ...]) -> None:
    """What it would be is known from its pieces; the store has no layer afterwards, on the disk or by its key."""
    pieces = [make_piece(store, name, {"one": ONE, "two": TWO}[name]) for name in names]
    hashed = store.layers.hashed(key("both"), "both", pieces)
    assert not store.layers.has(hashed.diff_id)
    assert store.layers.find(key("both")) is None
    assert hashed == store.layers.assemble(key("both"), "both", pieces)
    assert store.layers.hashed(key("both"), "both", []) == hashed


def test_a_layer_is_assembled_once(store: Store) -> None:
    layer = both(store)
    assert store.layers.find(key("both")) == layer
    assert store.layers.assemble(key("both"), "both", []) == layer
    assert store.layers.find(key("other")) is None
    assert list(store.layers.diff_ids()) == [layer.diff_id]
    assert store.layers.record(layer.diff_id).pieces == (key("one"), key("two"))
    assert not list(store.home.tmp.iterdir())


def test_one_piece_keeps_its_digest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    piece = make_piece(store, "one", ONE)
    monkeypatch.setattr("mlbox.store.layers.diff_id_of", lambda *_: pytest.fail("hashed again"))
    layer = store.layers.assemble(key("l"), "l", [piece])
    assert layer.diff_id == piece.tree.diff_id
    again = store.layers.assemble(key("same files, other key"), "l2", [piece])
    assert (again.diff_id, again.name) == (layer.diff_id, "l2")
    monkeypatch.undo()
    assert store.layers.verify(layer.diff_id)


def test_one_piece_without_digest_is_hashed(store: Store) -> None:
    piece = store.pieces.make(key("p"), "p", lambda root: write(root, ONE))
    layer = store.layers.assemble(key("l"), "l", [piece])
    assert layer.diff_id == make_layer(store, "one", ONE).diff_id


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EMLINK, errno.EPERM])
def test_where_links_are_impossible_files_are_copied(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", no_link)
    layer = both(store)
    monkeypatch.undo()
    root = store.layers.root(layer.diff_id)
    assert (root / "bin/x").stat().st_nlink == 1
    assert (root / "bin/x").stat().st_mode & 0o7777 == 0o755
    assert (root / "bin/x").stat().st_mtime == EPOCH
    assert store.layers.verify(layer.diff_id)


def test_other_errors_are_not_hidden(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StoreError, match="no space left on the disk while assembling layer both"):
        both(store)
    assert store.layers.find(key("both")) is None
    assert not list(store.layers.diff_ids())
    assert not list(store.home.tmp.iterdir())


@pytest.mark.parametrize("second", [{"lib/a/b/c": b""}, {"lib/a": b""}, {"link/x": b""}, {"lib/a": "elsewhere"}])
def test_a_directory_and_something_else_name_both_pieces(store: Store, second: Files) -> None:
    pieces = [make_piece(store, "one", ONE), make_piece(store, "two", second)]
    with pytest.raises(BuildError, match=r"layer both: '.*' is a \w+ in one and a \w+ in two"):
        store.layers.assemble(key("both"), "both", pieces)


def test_two_processes_worth_of_threads(store: Store) -> None:
    pieces = [make_piece(store, "one", ONE), make_piece(store, "two", TWO)]
    with ThreadPoolExecutor(8) as pool:
        layers = list(pool.map(lambda i: store.layers.assemble(key(f"{i % 3}"), "x", pieces), range(9)))
    assert len({layer.diff_id for layer in layers}) == 1


def test_a_changed_file_does_not_verify(store: Store) -> None:
    layer = both(store)
    (store.layers.root(layer.diff_id) / "bin/x").write_bytes(b"2")
    assert not store.layers.verify(layer.diff_id)


def test_a_layer_that_is_gone(store: Store) -> None:
    layer = both(store)
    store.layers.delete(layer.diff_id)
    assert store.layers.find(key("both")) is None
    with pytest.raises(StoreError, match="missing"):
        store.layers.entries(layer.diff_id)
    with pytest.raises(StoreError, match="not a key"):
        store.layers.root(DiffID("sha256:../../x"))
    assert both(store) == layer


def test_a_folder_removed_by_hand_is_assembled_again(store: Store) -> None:
    layer = both(store)
    store.layers.folder(layer.diff_id).rename(store.home.root / "away")
    assert store.layers.find(key("both")) is None
    assert both(store) == layer
    assert store.layers.verify(layer.diff_id)


files = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), max_size=4)


def virtual(name: str, files: dict[str, int]) -> StoredPiece:
    entries = tuple(Entry(path, "file", 0o644, size=size) for path, size in sorted(files.items()))
    return StoredPiece(key=key(name), label=name, root=Path("/", name), tree=Tree(entries=entries))


@given(st.lists(files, min_size=1, max_size=5))
def test_the_union_is_that_of_dictionaries(pieces: list[dict[str, int]]) -> None:
    stored = [virtual(f"{i}", piece) for i, piece in enumerate(pieces)]
    entries, locate = union("x", stored)
    expected: dict[str, tuple[int, str]] = {}
    for i, piece in enumerate(pieces):
        expected |= {path: (size, f"/{i}/{path}") for path, size in piece.items()}
    assert [(e.path, (e.size, locate(e))) for e in entries] == sorted(expected.items())


@pytest.mark.parametrize("own", [True, False])
def test_a_tar_begins_anywhere(store: Store, tmp_path: Path, own: bool) -> None:
    """What a layer's tar is from any byte on is the end of the whole, for mlbox's own layers and for others'."""
    files = {"a": b"1" * 700, "b/c": b"", "b/d": b"2" * 2_000_000, "e": b"3" * 512, "link": "a"}
    if own:
        diff_id = make_layer(store, "one", files).diff_id
    else:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for path, data in files.items():
                member = tarfile.TarInfo(path)
                member.size = len(data) if isinstance(data, bytes) else 0
                tar.addfile(member, io.BytesIO(data) if isinstance(data, bytes) else None)
        diff_id = DiffID(digest_of(out.getvalue()))
        store.layers.ingest(diff_id, [out.getvalue()], "foreign")
        assert store.layers.record(diff_id).frames
    whole = b"".join(bytes(chunk) for chunk in store.layers.tar(diff_id))
    for start in (0, 1, 511, 512, 700, 1211, 1212, 1536, 3000, 1_500_000, len(whole) - 700, len(whole) - 1, len(whole)):
        assert b"".join(bytes(chunk) for chunk in store.layers.tar(diff_id, start)) == whole[start:]
