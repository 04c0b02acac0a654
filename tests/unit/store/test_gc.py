from pathlib import Path

import pytest
from fakes.trees import key, make_image, make_layer, make_piece

from mlbox.errors import StoreError
from mlbox.oci.reference import parse_reference
from mlbox.store.fsck import fsck
from mlbox.store.gc import df, prune
from mlbox.store.store import Store


def sizes(store: Store) -> dict[str, tuple[int, int]]:
    return {usage.kind: (usage.count, usage.size) for usage in df(store)}


@pytest.fixture
def full(store: Store, tmp_path: Path) -> Store:
    """A store with a named, a nameless and a used image, a spare piece, and a download."""
    for name in ("named", "nameless", "used"):
        image = make_image(store, make_layer(store, name, {name: name.encode() * 10_000}), label=name)
        store.images.remember_build(key(f"plan {name}"), image.digest)
        if name == "named":
            store.images.tag(image.digest, parse_reference("named"))
    make_piece(store, "spare", {"spare": b"x"})
    (tmp_path / "x.whl").write_bytes(b"x" * 50_000)
    store.artifacts.add_file(tmp_path / "x.whl")
    return store


def by_label(store: Store) -> dict[str, str]:
    return {store.images.load(d).config.config.labels["label"]: d for d in store.images.digests()}


def used(store: Store) -> dict[str, set[str]]:
    digest = by_label(store)["used"]
    return {"used_digests": {digest}, "used_layers": set(store.images.load(digest).config.rootfs.diff_ids)}


def test_an_empty_store_takes_no_room_and_is_not_made(store: Store) -> None:
    assert {usage.size for usage in df(store)} == {0}
    assert not store.home.root.exists()


def test_shared_files_count_once(store: Store) -> None:
    piece = make_piece(store, "a", {"big": b"x" * 1_000_000})
    before = sizes(store)
    store.layers.assemble(key("l"), "l", [piece])
    after = sizes(store)
    assert after["pieces"] == before["pieces"]
    assert after["pieces"][1] >= 1_000_000
    assert after["layers"][0] == 1
    assert after["layers"][1] < 100_000


def test_unused_keeps_what_has_a_name_or_a_container(full: Store) -> None:
    pruned = prune(full, "unused", **used(full))
    assert (pruned.images, pruned.layers, pruned.pieces, pruned.artifacts) == (1, 1, 2, 0)
    assert set(by_label(full)) == {"named", "used"}
    assert full.pieces.has(key("named"))
    assert not full.pieces.has(key("spare"))
    assert full.layers.find(key("layer nameless")) is None
    assert len(list(full.content.digests())) == 4
    assert sizes(full)["artifacts"][0] == 1
    assert fsck(full, deep=True).clean


def test_built_forgets_everything_but_containers_and_downloads(full: Store) -> None:
    before = sum(size for _, size in sizes(full).values())
    pruned = prune(full, "built", **used(full))
    assert set(by_label(full)) == {"used"}
    assert (pruned.images, pruned.layers, pruned.pieces) == (2, 2, 4)
    assert pruned.size == before - sum(size for _, size in sizes(full).values()) > 60_000
    assert sizes(full)["artifacts"][0] == 1
    for diff_id in used(full)["used_layers"]:
        assert full.layers.verify(diff_id)
    assert full.images.built(key("plan named")) is None
    assert fsck(full, deep=True).clean


def test_built_keeps_a_named_image_that_was_not_built_here(full: Store) -> None:
    image = make_image(full, make_layer(full, "imported", {"x": b""}), label="imported")
    full.images.tag(image.digest, parse_reference("imported"))
    prune(full, "built")
    assert set(by_label(full)) == {"imported"}
    assert full.layers.verify(image.config.rootfs.diff_ids[0])


def test_layers_of_a_container_stay_when_its_image_is_gone(full: Store) -> None:
    keep = used(full)["used_layers"]
    prune(full, "built", used_layers=keep)
    assert full.images.list() == []
    assert set(full.layers.diff_ids()) == keep


def test_artifacts(full: Store, tmp_path: Path) -> None:
    (tmp_path / "y.whl").write_bytes(b"y")
    keep = full.artifacts.add_file(tmp_path / "y.whl")
    full.artifacts.partial("a" * 64).write_bytes(b"half")
    assert prune(full, "artifacts", used_artifacts={keep}).artifacts == 1
    assert [path.name for path in full.home.artifacts.iterdir()] == [keep]
    assert len(full.images.list()) == 3


def test_leftovers_go_too(full: Store) -> None:
    """Also a download that was given up: on a full disk it may be what takes the room."""
    (full.home.tmp / "piece-dead").mkdir()
    full.artifacts.partial("a" * 64).write_bytes(b"x" * 1_000_000)
    pruned = prune(full, "unused")
    assert not list(full.home.tmp.iterdir())
    assert not list(full.artifacts.partials())
    assert len(list(full.artifacts.hashes())) == 1
    assert pruned.size >= 1_000_000


def test_not_during_a_build(full: Store) -> None:
    with full.using(), full.using(), pytest.raises(StoreError, match="another mlbox is using the store"):
        prune(full, "unused")
    assert len(full.images.list()) == 3
    prune(full, "unused")


def test_nothing_twice(full: Store) -> None:
    prune(full, "unused")
    again = prune(full, "unused")
    assert (again.images, again.layers, again.pieces, again.size) == (0, 0, 0, 0)
