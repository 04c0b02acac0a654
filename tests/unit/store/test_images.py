import pytest
from fakes.trees import make_image, make_layer

from mlbox.errors import NotFoundError, StoreError, UsageError
from mlbox.oci.digest import Digest
from mlbox.oci.image import Image
from mlbox.oci.reference import parse_reference
from mlbox.store.store import Store


@pytest.fixture
def image(store: Store) -> Image:
    return make_image(store, make_layer(store, "l", {"x": b"123"}))


def tag(store: Store, image: Image, *names: str) -> None:
    for name in names:
        store.images.tag(image.digest, parse_reference(name))


def test_an_image_is_read_back(store: Store, image: Image) -> None:
    assert store.images.get(image.digest) == image
    assert store.images.has(image.digest)
    with pytest.raises(NotFoundError):
        store.images.get(Digest("sha256:" + "0" * 64))


def test_every_way_to_say_it(store: Store, image: Image) -> None:
    tag(store, image, "me/bert:1")
    for text in (
        "me/bert:1",
        "docker.io/me/bert:1",
        image.digest,
        image.digest[:19],
        image.digest[7:],
        image.digest[7:19],
        f"me/bert@{image.digest}",
    ):
        assert store.images.resolve(text) == image.digest


def test_a_name_goes_before_the_beginning_of_a_digest(store: Store, image: Image) -> None:
    other = make_image(store, label="other")
    tag(store, other, image.digest[7:19])
    assert store.images.resolve(image.digest[7:19]) == other.digest
    assert store.images.resolve(image.digest[:19]) == image.digest


def test_a_beginning_that_several_have(store: Store, image: Image) -> None:
    other = image.digest[:30] + ("1" if image.digest[30] == "0" else "0") * 41
    with store.db.write() as execute:
        execute("INSERT INTO images VALUES (?, 0, 0, 0)", (other,))
    with pytest.raises(NotFoundError, match="several images begin with"):
        store.images.resolve(image.digest[7:30])
    assert store.images.resolve(image.digest[7:31]) == image.digest


@pytest.mark.parametrize(("text", "hint"), [("me/brt:1", "did you mean me/bert:1"), ("zzz", "mlbox images")])
def test_what_is_not_there_comes_with_a_hint(store: Store, image: Image, text: str, hint: str) -> None:
    tag(store, image, "me/bert:1")
    with pytest.raises(NotFoundError, match=f"no image {text}") as caught:
        store.images.resolve(text)
    assert hint in (caught.value.hint or "")


def test_a_name_moves(store: Store, image: Image) -> None:
    other = make_image(store, label="other")
    tag(store, image, "me/bert:1")
    tag(store, other, "me/bert:1")
    assert store.images.resolve("me/bert:1") == other.digest
    assert store.images.names(image.digest) == ()
    assert store.images.has(image.digest)


def test_only_what_is_there_gets_a_name(store: Store, image: Image) -> None:
    with pytest.raises(NotFoundError):
        store.images.tag(Digest("sha256:" + "0" * 64), parse_reference("a"))
    with pytest.raises(UsageError):
        store.images.tag(image.digest, parse_reference(f"a@{image.digest}"))


def test_untag_takes_one_name_then_the_image(store: Store, image: Image) -> None:
    tag(store, image, "a:1", "b:1")
    store.images.remember_build("plan", image.digest)
    first = store.images.untag("a:1")
    assert (first.names, first.digest) == (("a:1",), None)
    assert store.images.built("plan") == image.digest
    last = store.images.untag("b:1")
    assert (last.names, last.digest) == (("b:1",), image.digest)
    assert not store.images.has(image.digest)
    assert store.images.built("plan") is None


def test_untag_by_digest_with_several_names_needs_force(store: Store, image: Image) -> None:
    tag(store, image, "a:1", "b:1")
    with pytest.raises(StoreError, match="2 names"):
        store.images.untag(image.digest)
    removed = store.images.untag(image.digest[7:19], force=True)
    assert (removed.names, removed.digest) == (("a:1", "b:1"), image.digest)


def test_a_used_image_keeps_its_last_name(store: Store, image: Image) -> None:
    tag(store, image, "a:1", "b:1")
    used = {image.digest: ["web"]}
    store.images.untag("a:1", used_by=used)
    with pytest.raises(StoreError, match=r"image b:1 is used by container web"):
        store.images.untag("b:1", used_by=used)
    removed = store.images.untag("b:1", used_by=used, force=True)
    assert (removed.names, removed.digest) == (("b:1",), None)
    assert store.images.has(image.digest)


def test_an_image_without_name_is_removed_by_digest(store: Store, image: Image) -> None:
    assert store.images.untag(image.digest[7:19]).digest == image.digest
    assert store.images.list() == []


def test_a_name_that_looks_like_a_digest(store: Store, image: Image) -> None:
    tag(store, image, "decade", "b")
    assert store.images.untag("decade").names == ("decade:latest",)
    assert store.images.has(image.digest)


def test_the_list(store: Store, image: Image) -> None:
    other = make_image(store, label="other")
    tag(store, image, "b", "a")
    rows = {row.digest: row for row in store.images.list()}
    assert rows[image.digest].names == ("a:latest", "b:latest")
    assert (rows[image.digest].layers, rows[image.digest].size) == (1, image.manifest.layers[0].size)
    assert rows[other.digest].names == ()
    assert [row.created for row in store.images.list()] == sorted((r.created for r in rows.values()), reverse=True)


def test_adding_again_changes_nothing(store: Store, image: Image) -> None:
    before = store.images.list()
    store.images.add(image)
    assert store.images.list() == before


def test_a_build_is_remembered(store: Store, image: Image) -> None:
    assert store.images.built("plan") is None
    store.images.remember_build("plan", image.digest)
    assert store.images.built("plan") == image.digest
    store.images.remove(image.digest)
    assert store.images.built("plan") is None


def test_a_damaged_blob_is_an_error_with_a_hint(store: Store, image: Image) -> None:
    store.content.path(image.manifest.config.digest).write_bytes(b"{}")
    with pytest.raises(StoreError, match="changed on the disk"):
        store.images.get(image.digest)
