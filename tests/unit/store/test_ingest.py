"""Layers made by others: taken in exactly, or not at all."""

import hashlib
import os
from collections.abc import Iterable

import pytest
from fakes.trees import Files, key, make_layer

from mlbox.oci.digest import DiffID
from mlbox.store.store import Store

FILES: Files = {
    "bin/x": b"1",
    "lib/a/b": b"b" * 5000,
    "link": "lib/a",
    "tmp": 0o1777,
    "lib/é" * 30: b"",
    "empty": 0o755,
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


@pytest.mark.parametrize("step", [1 << 20, 1000, 512, 7])
def test_our_own_layer_comes_back_as_if_assembled(store: Store, step: int) -> None:
    """The tar of a layer of mlbox needs no frames."""
    layer = make_layer(store, "one", FILES)
    data = join(store.layers.tar(layer.diff_id))
    entries = store.layers.entries(layer.diff_id)
    before = {path: os.lstat(path).st_mtime_ns for path in store.layers.root(layer.diff_id).rglob("*")}
    store.layers.delete(layer.diff_id)
    assert store.layers.find(key("layer one")) is None
    ingest(store, data, step)
    assert store.layers.entries(layer.diff_id) == entries
    assert not store.layers.record(layer.diff_id).frames
    folder = store.layers.folder(layer.diff_id)
    assert sorted(path.name for path in folder.iterdir()) == ["entries", "fs", "record.json"]
    assert {path: os.lstat(path).st_mtime_ns for path in store.layers.root(layer.diff_id).rglob("*")} == before
    assert store.layers.adopt(key("layer one"), "one", layer.diff_id) == layer == store.layers.find(key("layer one"))
