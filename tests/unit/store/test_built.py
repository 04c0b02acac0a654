"""Wheels that were built: by the key of what they were built from."""

from pathlib import Path

import msgspec
import pytest

from mlbox.codec import canonical_json
from mlbox.errors import StoreError
from mlbox.store.built import BuiltWheel
from mlbox.store.gc import prune
from mlbox.store.store import Store


def wheel(store: Store, tmp_path: Path, name: str) -> BuiltWheel:
    path = tmp_path / f"{name}-1.0-py3-none-any.whl"
    path.write_text(name)
    made = BuiltWheel(
        piece=msgspec.Raw(canonical_json({"source": name})),
        filename=path.name,
        sha256=store.artifacts.add_file(path),
        size=path.stat().st_size,
    )
    store.built.put(made)
    return made


def test_a_wheel_is_found_by_its_key(store: Store, tmp_path: Path) -> None:
    one, two = wheel(store, tmp_path, "one"), wheel(store, tmp_path, "two")
    found = store.built.get(one.key)
    assert found
    assert (found.filename, found.sha256, bytes(found.piece)) == (one.filename, one.sha256, b'{"source":"one"}')
    assert {each.key for each in store.built.all()} == {one.key, two.key}
    assert store.built.get("0" * 64) is None


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b'{"piece":{},"filename":"x","sha256":"y","size":1}'])
def test_what_is_damaged_is_said(store: Store, tmp_path: Path, data: bytes) -> None:
    one = wheel(store, tmp_path, "one")
    (store.home.metadata / "built" / one.key).write_bytes(data)
    with pytest.raises(StoreError):
        store.built.get(one.key)


def test_a_key_that_is_a_path_is_none(store: Store) -> None:
    with pytest.raises(StoreError, match="not a key"):
        store.built.get("../../etc/passwd")


def test_prune_leaves_what_no_index_can_give_back(store: Store, tmp_path: Path) -> None:
    """Unless everything built is to go."""
    one = wheel(store, tmp_path, "one")
    other = tmp_path / "download"
    other.write_text("x")
    store.artifacts.add_file(other)
    assert prune(store, "artifacts").artifacts == 1
    assert store.artifacts.has(one.sha256)
    prune(store, "unused")
    assert store.built.get(one.key)  # pulled, and no build has used it yet
    prune(store, "built")
    assert not store.built.get(one.key)
    assert not store.artifacts.has(one.sha256)
