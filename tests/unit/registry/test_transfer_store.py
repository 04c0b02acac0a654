"""Images between stores and a registry: the same image arrives, and nothing moves twice."""

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.registry import FakeRegistry, Reply, Request, digest_of, registry
from fakes.trees import make_image, make_layer

from mlbox.errors import ArchiveError, MlboxError, RegistryError, StoreError
from mlbox.oci.artifact import LOCK_TYPE, artifact_of
from mlbox.oci.digest import hex_of
from mlbox.oci.image import DOCKER_LAYER, DOCKER_MANIFEST, LAYER_GZIP, LAYER_ZSTD, Image
from mlbox.oci.reference import Reference, parse_reference
from mlbox.paths import Home
from mlbox.registry.client import open_registry
from mlbox.registry.copy import Copied, Place, copy_image
from mlbox.registry.pull import PulledLayer, attached, fetch_layers, keep
from mlbox.registry.push import Pushed, attach, push_image
from mlbox.registry.transfer import resolve
from mlbox.store.fsck import fsck
from mlbox.store.store import Store

NEW_STORE = Callable[[], Store]


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry of this process."""
    with registry() as running:
        yield running


@pytest.fixture
def new_store(tmp_path: Path) -> Iterator[NEW_STORE]:
    """Makes empty stores."""
    stores: list[Store] = []

    def make() -> Store:
        stores.append(Store(Home(tmp_path / f"home-{len(stores)}")))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(new_store: NEW_STORE) -> Store:
    """The store that an image was built in."""
    return new_store()


@pytest.fixture
def image(store: Store) -> Image:
    """An image of two layers."""
    one = make_layer(store, "one", {"bin/a": b"a" * 300_000, "lib/é": b"b", "link": "bin/a"})
    return make_image(store, one, make_layer(store, "two", {"bin/b": b"b" * 200_000}))


def named(fake: FakeRegistry, name: str = "team/x:1") -> Reference:
    """Return a name in the fake."""
    return parse_reference(f"{fake.host}/{name}")


def push(store: Store, fake: FakeRegistry, image: Image, name: str = "team/x:1", **options: Any) -> Pushed:
    """Push to the fake."""
    with store.using():
        return push_image(store, open_registry(fake.host), named(fake, name), image, **options)


def pull(store: Store, fake: FakeRegistry, name: str = "team/x:1") -> tuple[Image, tuple[PulledLayer, ...]]:
    """Pull from the fake."""
    client, reference = open_registry(fake.host), named(fake, name)
    with store.using():
        remote = resolve(client, reference, "amd64")
        layers = fetch_layers(store, client, remote)
        return keep(store, remote, () if reference.digest else (reference,)), layers


def sent(fake: FakeRegistry) -> list[str]:
    """Return what was asked for with PUT or PATCH or POST since the last call."""
    found = [request.path for request in fake.requests if request.method in ("PUT", "PATCH", "POST")]
    fake.requests.clear()
    return found


def fetched(fake: FakeRegistry) -> list[str]:
    """Return the digests of the blobs that were read since the last call."""
    found = [request.path.rpartition("/")[2] for request in fake.requests if request.method == "GET"]
    fake.requests.clear()
    return [digest for digest in found if digest.startswith("sha256:")]


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_there_and_back(store: Store, image: Image, fake: FakeRegistry, new_store: NEW_STORE, compression: Any) -> None:
    """However it travelled, the image that arrives is the one that was sent, and knows where it came from."""
    pushed = push(store, fake, image, compression=compression)
    other = new_store()
    arrived, layers = pull(other, fake)

    assert arrived.digest == image.digest
    assert [layer.source for layer in layers] == ["registry", "registry"]
    assert sum(layer.moved for layer in layers) == pushed.moved
    assert other.images.resolve(str(named(fake))) == image.digest
    assert other.images.resolve(f"{named(fake).name}@{pushed.digest}") == image.digest
    assert b"".join(other.layers.tar(image.config.rootfs.diff_ids[0])) == b"".join(
        store.layers.tar(image.config.rootfs.diff_ids[0])
    )
    assert fsck(other, deep=True).clean
    assert not list(other.artifacts.partials())


def test_pushing_again_sends_nothing(store: Store, image: Image, fake: FakeRegistry) -> None:
    """The blobs are remembered: the same manifest, without compressing."""
    first = push(store, fake, image)
    sent(fake)
    second = push(store, fake, image)
    assert sent(fake) == []
    assert second.digest == first.digest
    assert [layer.how for layer in second.layers] == ["there", "there"]
    assert [layer.how for layer in first.layers] == ["uploaded", "uploaded"]


def test_another_repository_of_the_registry_gets_mounts(store: Store, image: Image, fake: FakeRegistry) -> None:
    """No layer is sent twice to one registry; where mounting is refused, it is."""
    first = push(store, fake, image)
    second = push(store, fake, image, "other/y:2")
    fake.mounts = False
    third = push(store, fake, image, "other/z:2")
    assert [layer.how for layer in second.layers] == ["mounted", "mounted"]
    assert [layer.how for layer in third.layers] == ["uploaded", "uploaded"]
    assert first.digest == second.digest == third.digest


def test_another_registry_gets_the_same_digest(store: Store, image: Image, fake: FakeRegistry) -> None:
    """Compressing again makes the same bytes."""
    first = push(store, fake, image)
    with registry() as other:
        assert push(store, other, image).digest == first.digest


def test_the_puller_pushes_the_same_digest(
    store: Store, image: Image, fake: FakeRegistry, new_store: NEW_STORE
) -> None:
    """What arrived is known by its blobs: a push to the same registry mounts them."""
    first = push(store, fake, image, compression="gzip")
    other = new_store()
    arrived, _ = pull(other, fake)
    second = push(other, fake, arrived, "mine/x:1")
    assert second.digest == first.digest
    assert second.moved == 0


def test_a_known_compression_is_kept_to(store: Store, image: Image, fake: FakeRegistry) -> None:
    """Asked for gzip, a zstd blob that is there does not count; not asked, the best that is there does."""
    push(store, fake, image, compression="zstd")
    gzipped = push(store, fake, image, compression="gzip")
    assert gzipped.moved > 0
    assert _media_types(fake, gzipped) == {LAYER_GZIP}
    assert _media_types(fake, push(store, fake, image)) == {LAYER_ZSTD}


def _media_types(fake: FakeRegistry, pushed: Pushed) -> set[str]:
    document = json.loads(fake.manifests["team/x"][pushed.digest].data)
    return {layer["mediaType"] for layer in document["layers"]}


def test_a_layer_that_stands_twice(store: Store, fake: FakeRegistry, new_store: NEW_STORE) -> None:
    """It is sent and fetched once, and stands twice in both manifests."""
    layer = make_layer(store, "one", {"a": b"a"})
    image = make_image(store, layer, make_layer(store, "two", {"b": b"b"}), layer)
    pushed = push(store, fake, image)
    assert len(pushed.layers) == 2
    arrived, layers = pull(new_store(), fake)
    assert arrived.digest == image.digest
    assert len(layers) == 2


def test_layers_that_are_here_are_not_fetched(
    store: Store, image: Image, fake: FakeRegistry, new_store: NEW_STORE
) -> None:
    """An image that shares a layer with one that is here moves the others only."""
    other = new_store()
    push(store, fake, image)
    make_layer(other, "one", {"bin/a": b"a" * 300_000, "lib/é": b"b", "link": "bin/a"})
    fetched(fake)
    arrived, layers = pull(other, fake)
    assert [layer.source for layer in layers] == ["here", "registry"]
    assert arrived.digest == image.digest
    assert len(fetched(fake)) == 2  # its configuration, and the one layer


def test_a_damaged_layer_is_not_sent(store: Store, image: Image, fake: FakeRegistry) -> None:
    """What changed on the disk does not become what others pull; the registry shows no image."""
    path = store.layers.root(image.config.rootfs.diff_ids[0]) / "bin/a"
    path.write_bytes(b"x" * 300_000)
    with pytest.raises(StoreError, match="changed on the disk"):
        push(store, fake, image)
    assert not fake.tags
    assert not list(store.home.tmp.glob("push*"))


def foreign(fake: FakeRegistry, tar: bytes, diff_id: str, *, tag: str = "1") -> str:
    """Store an image of Docker's with one gzip layer; its configuration says `diff_id`."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": None, "Env": None},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    ).encode()
    blob = gzip.compress(tar, mtime=0)
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": fake.add_blob("team/x", config),
            "size": len(config),
        },
        "layers": [{"mediaType": DOCKER_LAYER, "digest": fake.add_blob("team/x", blob), "size": len(blob)}],
    }
    return fake.add_manifest("team/x", json.dumps(document).encode(), DOCKER_MANIFEST, tag)


def test_an_image_of_docker(store: Store, image: Image, fake: FakeRegistry, new_store: NEW_STORE) -> None:
    """Docker's media types and nulls are understood; pushed again it has those of OCI and the same blob."""
    tar = b"".join(store.layers.tar(image.config.rootfs.diff_ids[0]))
    digest = foreign(fake, tar, digest_of(tar))
    other = new_store()
    arrived, _ = pull(other, fake)
    assert other.images.resolve(f"{named(fake).name}@{digest}") == arrived.digest
    pushed = push(other, fake, arrived, "team/x:2")
    assert pushed.moved == 0
    assert _media_types(fake, pushed) == {LAYER_GZIP}


def test_a_layer_that_is_not_what_the_configuration_says(
    store: Store, image: Image, fake: FakeRegistry, new_store: NEW_STORE
) -> None:
    """The blob has its digest, the tar has not: nothing is kept, and the next pull fetches it anew."""
    tar = b"".join(store.layers.tar(image.config.rootfs.diff_ids[0]))
    foreign(fake, tar, "sha256:" + "0" * 64)
    other = new_store()
    with pytest.raises(ArchiveError, match="layer"):
        pull(other, fake)
    assert not list(other.layers.diff_ids())
    assert not list(other.artifacts.partials())
    assert not other.images.list()
    assert fsck(other, deep=True).clean


def test_a_bomb(fake: FakeRegistry, new_store: NEW_STORE, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small blob that unpacks to very much ends early."""
    monkeypatch.setattr("mlbox.registry.pull._ROOM", 1 << 20)
    monkeypatch.setattr("mlbox.registry.pull._RATIO", 10)
    foreign(fake, bytes(64 << 20), "sha256:" + "0" * 64)
    with pytest.raises(ArchiveError):
        pull(new_store(), fake)


@pytest.mark.parametrize("change", [b"", b"x", b"longer than it was" * 100_000])
def test_a_registry_that_serves_other_bytes(
    store: Store, image: Image, fake: FakeRegistry, new_store: NEW_STORE, change: bytes
) -> None:
    """Truncated, changed or too long: an error that names the layer, and nothing is kept."""
    pushed = push(store, fake, image)
    fake.blobs["team/x"][pushed.layers[0].digest] = change
    other = new_store()
    with pytest.raises(RegistryError, match=r"layer .* of"):
        pull(other, fake)
    assert not other.images.list()
    assert fsck(other, deep=True).clean


def test_a_download_that_broke_goes_on(store: Store, image: Image, fake: FakeRegistry, new_store: NEW_STORE) -> None:
    """What an earlier pull collected is completed with a range; a finished blob is not asked for."""
    pushed = push(store, fake, image, compression="none")
    other = new_store()
    first, second = (layer.digest for layer in pushed.layers)
    blobs = fake.blobs["team/x"]
    other.artifacts.partial(hex_of(first)).write_bytes(blobs[first])
    other.artifacts.partial(hex_of(second)).write_bytes(blobs[second][:100_000])
    fake.requests.clear()
    arrived, layers = pull(other, fake)
    assert arrived.digest == image.digest
    ranges = {r.path.rpartition("/")[2]: r.headers.get("Range") for r in fake.requests if "/blobs/" in r.path}
    assert first not in ranges
    assert ranges[second] == "bytes=100000-"
    assert [layer.moved for layer in layers] == [0, len(blobs[second]) - 100_000]


def test_two_pulls_share_the_work(
    store: Store, image: Image, fake: FakeRegistry, new_store: NEW_STORE, tmp_path: Path
) -> None:
    """Each blob is fetched once, whoever asks."""
    push(store, fake, image)
    fake.requests.clear()
    home = new_store().home
    arrived: list[str] = []

    def work() -> None:
        mine = Store(home)
        arrived.append(pull(mine, fake)[0].digest)
        mine.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arrived == [image.digest] * 3
    blobs = [
        digest for digest in fetched(fake) if digest in fake.blobs["team/x"] and digest != image.manifest.config.digest
    ]
    assert len(blobs) == len(set(blobs)) == 2


def test_one_failure_ends_the_others(store: Store, fake: FakeRegistry, new_store: NEW_STORE) -> None:
    """The first error is the one that is raised, and what was collected stays for the next pull."""
    image = make_image(store, *(make_layer(store, str(n), {str(n): bytes(n + 1)}) for n in range(8)))
    pushed = push(store, fake, image)
    bad = pushed.layers[3].digest

    def behave(request: Request) -> Reply | None:
        return Reply(403, b"") if request.path.endswith(bad) and request.method == "GET" else None

    fake.behave = behave
    other = new_store()
    with pytest.raises(RegistryError, match="403"):
        pull(other, fake)
    fake.behave = lambda request: None
    assert pull(other, fake)[0].digest == image.digest


def test_attachments(store: Store, image: Image, fake: FakeRegistry) -> None:
    """They are about the manifest of the registry, are sent once, and come back."""
    pushed = push(store, fake, image)
    client = open_registry(fake.host)
    lock = artifact_of(LOCK_TYPE, b"version = 1\n")
    for api in (True, False):
        fake.referrers_api = api
        first = attach(client, "team/x", lock, pushed.descriptor)
        sent(fake)
        assert attach(client, "team/x", lock, pushed.descriptor) == first
        assert sent(fake) == []
    remote = resolve(client, named(fake), "amd64")
    fake.referrers_api = True
    assert attached(client, remote, (LOCK_TYPE,), 100)[LOCK_TYPE] == lock
    assert attached(client, remote, (LOCK_TYPE,), 3) == {}  # too large is not there
    fake.behave = lambda request: Reply(403) if "referrers" in request.path else None
    assert attached(client, remote, ("x",), 100) == {}


def copy(fake: FakeRegistry, other: FakeRegistry, folder: Path, target: str = "copy/y:1", **options: Any) -> Copied:
    """Copy team/x:1 from one fake to another."""
    source = Place(registry=open_registry(fake.host), name=named(fake))
    return copy_image(source, Place(registry=open_registry(other.host), name=named(other, target)), folder, **options)


def test_a_copy_is_the_same(store: Store, image: Image, fake: FakeRegistry, tmp_path: Path) -> None:
    """Bytes of manifests and blobs as they are, what is about them too, nothing twice, nothing left behind."""
    pushed = push(store, fake, image)
    client = open_registry(fake.host)
    about = attach(client, "team/x", artifact_of(LOCK_TYPE, b"lock"), pushed.descriptor)
    signature = fake.manifests["team/x"][about]
    fake.add_manifest("team/x", signature.data, signature.media_type, f"{pushed.digest.replace(':', '-')}.sig")
    with registry() as other:
        done = copy(fake, other, tmp_path)
        assert done.digest == pushed.digest
        assert (done.manifests, done.uploaded) == (2, 5)
        assert other.manifests["copy/y"].keys() == {pushed.digest, about}
        assert other.manifests["copy/y"][pushed.digest] == fake.manifests["team/x"][pushed.digest]
        sent(other)
        again = copy(fake, other, tmp_path)
        assert (again.uploaded, again.moved) == (0, 0)
        assert sent(other) == []
        assert other.tags["copy/y"] == {"1": pushed.digest, f"{pushed.digest.replace(':', '-')}.sig": about}
    assert [path.name for path in tmp_path.iterdir()] == ["home-0"]


def test_a_copy_of_an_index(store: Store, fake: FakeRegistry, tmp_path: Path) -> None:
    """All its images come along; with an architecture only that one."""
    images = [make_image(store, make_layer(store, name, {name: b"x"}), label=name) for name in ("a", "b")]
    entries = []
    for arch, image in zip(("amd64", "arm64"), images, strict=True):
        pushed = push(store, fake, image)
        platform = {"architecture": arch, "os": "linux"}
        entries.append({"mediaType": pushed.descriptor.media_type, "digest": pushed.digest, "size": pushed.size})
        entries[-1]["platform"] = platform
    kind = "application/vnd.oci.image.index.v1+json"
    data = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    index = fake.add_manifest("team/x", data, kind, "1")
    with registry() as other:
        assert copy(fake, other, tmp_path).digest == index
        assert len(other.manifests["copy/y"]) == 3
        one = copy(fake, other, tmp_path, "one/y:1", arch="arm64")
        assert one.digest == entries[1]["digest"]
        assert other.manifests["one/y"].keys() == {one.digest}


def test_a_copy_within_a_registry_moves_nothing(store: Store, image: Image, fake: FakeRegistry, tmp_path: Path) -> None:
    """Blobs are mounted."""
    pushed = push(store, fake, image)
    done = copy(fake, fake, tmp_path)
    assert (done.digest, done.mounted, done.moved) == (pushed.digest, 3, 0)


def test_a_copy_for_another_machine(store: Store, image: Image, fake: FakeRegistry, tmp_path: Path) -> None:
    """A single image is for one machine, and is not copied as if it were for another."""
    push(store, fake, image)
    with registry() as other:
        with pytest.raises(RegistryError, match="is for amd64, not for arm64"):
            copy(fake, other, tmp_path, arch="arm64")
        assert not other.manifests.get("copy/y")


def test_a_copy_cannot_have_another_digest(store: Store, image: Image, fake: FakeRegistry, tmp_path: Path) -> None:
    """A target with a digest must be the source's."""
    push(store, fake, image)
    with pytest.raises(MlboxError, match="cannot be copied"):
        copy(fake, fake, tmp_path, f"copy/y@sha256:{hashlib.sha256().hexdigest()}")
