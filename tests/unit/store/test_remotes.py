from pathlib import Path

import pytest
from fakes.trees import make_image, make_layer

from mlbox.errors import NotFoundError, StoreError
from mlbox.oci.artifact import GPU_TYPE, LOCK_TYPE, PLAN_TYPE, artifact_of, manifest_of, subject_of
from mlbox.oci.digest import Digest, digest_of
from mlbox.oci.image import LAYER_ZSTD, Descriptor
from mlbox.paths import Home
from mlbox.store.gc import prune
from mlbox.store.store import Store

ELSEWHERE = digest_of(b"a manifest in a registry")
HERE = "example.org/team/bert"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Home(tmp_path / "home"))


def test_an_image_is_found_by_its_digest_in_a_registry(store: Store) -> None:
    """The digest that a registry prints means the image here, in that repository only."""
    image = make_image(store, make_layer(store, "one", {"a": b"a"}))
    store.remotes.remember(ELSEWHERE, HERE, image.digest)
    assert store.images.resolve(f"{HERE}@{ELSEWHERE}") == image.digest
    assert store.images.resolve(ELSEWHERE) == image.digest
    assert store.remotes.of(image.digest) == ((ELSEWHERE, HERE, False),)
    with pytest.raises(NotFoundError):
        store.images.resolve(f"example.org/other@{ELSEWHERE}")


def test_what_a_file_claims_replaces_nothing(store: Store) -> None:
    """What a registry said stays; what only a file said gives way to it."""
    one, two = make_image(store, label="one"), make_image(store, label="two")
    store.remotes.remember(ELSEWHERE, HERE, one.digest, claimed=True)
    assert store.images.resolve(f"{HERE}@{ELSEWHERE}") == one.digest
    assert [remote.claimed for remote in store.remotes.of(one.digest)] == [True]
    store.remotes.remember(ELSEWHERE, HERE, one.digest)
    store.remotes.remember(ELSEWHERE, HERE, two.digest, claimed=True)
    assert store.remotes.of(one.digest) == ((ELSEWHERE, HERE, False),)
    assert store.remotes.of(two.digest) == ()


def test_a_removed_image_is_found_no_more(store: Store) -> None:
    """What was known of it elsewhere goes with it."""
    image = make_image(store, make_layer(store, "one", {"a": b"a"}))
    store.remotes.remember(ELSEWHERE, HERE, image.digest)
    store.images.remove(image.digest)
    assert store.remotes.of(image.digest) == ()
    with pytest.raises(NotFoundError):
        store.images.resolve(f"{HERE}@{ELSEWHERE}")


def test_blobs_of_a_layer_are_remembered(store: Store) -> None:
    """A layer may be known compressed in several ways."""
    layer = make_layer(store, "one", {"a": b"a"})
    blob = digest_of(b"compressed")
    store.remotes.remember_blob(blob, layer.diff_id, LAYER_ZSTD, 10)
    assert store.remotes.blobs_of(layer.diff_id) == (Descriptor(media_type=LAYER_ZSTD, digest=blob, size=10),)
    assert store.remotes.diff_id_of(blob) == layer.diff_id
    assert store.remotes.diff_id_of(ELSEWHERE) is None


def test_the_latest_lock_of_an_image_counts(store: Store) -> None:
    """Also when it was attached before another one."""
    image = make_image(store)
    subject = subject_of(image.digest, image.manifest_bytes)
    assert store.referrers.lock_of(image.digest) is None
    for text in (b"one", b"two", b"one"):
        store.referrers.add(artifact_of(LOCK_TYPE, text), subject)
        assert store.referrers.lock_of(image.digest) == text
    store.referrers.add(artifact_of(PLAN_TYPE, b"{}"), subject)
    assert len(store.referrers.of(image.digest)) == 3
    assert [found.artifact_type for found in store.referrers.of(image.digest, PLAN_TYPE)] == [PLAN_TYPE]
    assert store.referrers.plan_of(image.digest) == b"{}"


def test_an_artifact_without_its_documents_is_not_kept(store: Store) -> None:
    """Nor is one that is about nothing."""
    data = manifest_of(artifact_of(LOCK_TYPE, b"not here"), subject_of(ELSEWHERE, b""))
    with pytest.raises(StoreError, match="lacks its document"):
        store.referrers.add_manifest(data)
    with pytest.raises(StoreError, match="about nothing"):
        store.referrers.add_manifest(make_image(store).manifest_bytes)
    assert store.referrers.of(ELSEWHERE) == ()


def test_prune_keeps_what_is_about_an_image(store: Store) -> None:
    """Here or elsewhere, and signatures of what is about it; the rest goes when the image goes."""
    image = make_image(store, make_layer(store, "one", {"a": b"a"}))
    store.content.put(b"a manifest in a registry")
    store.remotes.remember(ELSEWHERE, HERE, image.digest)
    lock = store.referrers.add(artifact_of(LOCK_TYPE, b"lock"), subject_of(ELSEWHERE, b""))
    store.referrers.add(artifact_of("text/signature", b"signed"), subject_of(lock, b""))
    prune(store, "unused", used_digests=[image.digest])
    assert store.content.read(ELSEWHERE) == b"a manifest in a registry"
    assert store.referrers.lock_of(ELSEWHERE) == b"lock"
    assert len(store.referrers.of(lock)) == 1
    prune(store, "unused")
    prune(store, "unused")
    assert list(store.content.digests()) == []
    assert store.referrers.of(Digest(ELSEWHERE)) == store.referrers.of(lock) == ()


def test_what_anybody_can_read_is_not_sent(store: Store) -> None:
    """What is only remembered about an image would make two bundles of it differ."""
    lock = store.referrers.add(artifact_of(LOCK_TYPE, b"lock"), subject_of(ELSEWHERE, b""))
    store.referrers.add(artifact_of(GPU_TYPE, b"{}"), subject_of(ELSEWHERE, b""))
    assert len(store.referrers.of(ELSEWHERE)) == 2
    assert [found.digest for found in store.referrers.sent(ELSEWHERE)] == [lock]
