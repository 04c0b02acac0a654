import pytest

from mlbox.errors import MlboxError, StoreError
from mlbox.oci.digest import Digest, digest_of
from mlbox.store.store import Store


def test_what_was_put_is_read_back(store: Store) -> None:
    digest = store.content.put(b"hello")
    assert store.content.put(b"hello") == digest == digest_of(b"hello")
    assert store.content.read(digest) == b"hello"
    assert list(store.content.digests()) == [digest]
    store.content.delete(digest)
    store.content.delete(digest)
    assert not store.content.has(digest)
    assert not list(store.home.tmp.iterdir())


def test_a_blob_lies_where_the_image_layout_says(store: Store) -> None:
    digest = store.content.put(b"hello")
    assert (store.home.content / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes() == b"hello"


@pytest.mark.parametrize(("data", "size"), [(b"hellO", 5), (b"hello!", 5), (b"hell", 5), (b"hello", 4)])
def test_only_the_expected_bytes_are_kept(store: Store, data: bytes, size: int) -> None:
    digest = digest_of(b"hello")
    with pytest.raises(StoreError, match=digest):
        store.content.ingest([data], digest, size)
    assert not store.content.has(digest)
    assert not list(store.home.tmp.iterdir())


def test_a_stream_that_never_ends_is_cut_off(store: Store) -> None:
    def forever() -> object:
        while True:
            yield b"x" * 100

    with pytest.raises(StoreError):
        store.content.ingest(forever(), digest_of(b""), 1000)


def test_reading_checks_and_is_bounded(store: Store) -> None:
    digest = store.content.put(b"hello")
    with pytest.raises(StoreError, match="larger than 4"):
        store.content.read(digest, limit=4)
    store.content.path(digest).write_bytes(b"jello")
    with pytest.raises(StoreError, match="changed on the disk"):
        store.content.read(digest)
    store.content.path(digest).unlink()
    with pytest.raises(StoreError, match="missing"):
        store.content.read(digest)


def test_a_digest_names_no_other_file(store: Store) -> None:
    with pytest.raises(MlboxError, match="not a digest"):
        store.content.path(Digest("sha256:../../mlbox.db"))
