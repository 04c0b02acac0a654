import hashlib
import os
from pathlib import Path

import pytest

from mlbox.errors import StoreError
from mlbox.store.store import Store

DATA = b"a wheel"
SHA256 = hashlib.sha256(DATA).hexdigest()


def test_a_download_is_collected_checked_and_published(store: Store) -> None:
    with store.artifacts.fetching(SHA256):
        partial = store.artifacts.partial(SHA256)
        partial.write_bytes(DATA[:3])
        assert not store.artifacts.has(SHA256)
        assert list(store.artifacts.partials()) == [partial]
        with partial.open("ab") as file:
            file.write(DATA[3:])
        path = store.artifacts.publish(partial, SHA256)
    assert path.read_bytes() == DATA
    assert store.artifacts.has(SHA256)
    assert store.artifacts.verify(SHA256)
    assert list(store.artifacts.hashes()) == [SHA256]
    assert not list(store.artifacts.partials())


def test_wrong_bytes_are_thrown_away(store: Store) -> None:
    partial = store.artifacts.partial(SHA256)
    partial.write_bytes(b"another wheel")
    with pytest.raises(StoreError, match=f"not {SHA256}"):
        store.artifacts.publish(partial, SHA256)
    assert not partial.exists()
    assert not store.artifacts.has(SHA256)


def test_a_local_file_is_copied(store: Store, tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    wheel.write_bytes(DATA)
    assert store.artifacts.add_file(wheel) == SHA256
    assert store.artifacts.add_file(wheel) == SHA256
    wheel.write_bytes(b"edited in place")
    assert store.artifacts.path(SHA256).read_bytes() == DATA


def test_a_changed_artifact_does_not_verify(store: Store, tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(DATA)
    path = store.artifacts.path(store.artifacts.add_file(tmp_path / "x.whl"))
    path.write_bytes(DATA + b"!")
    assert not store.artifacts.verify(SHA256)
    store.artifacts.delete(SHA256)
    assert not store.artifacts.has(SHA256)


@pytest.mark.parametrize("name", ["", "../x", "A" * 64, "a" * 63, f"{'a' * 64}/..", os.devnull])
def test_only_hashes_are_names(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="not a sha256"):
        store.artifacts.path(name)
