"""The client against a registry that does everything right."""

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.registry import FakeRegistry, Reply, digest_of, registry

from mlbox.codec import canonical_json
from mlbox.errors import RegistryError
from mlbox.oci.artifact import EMPTY, EMPTY_BYTES, LOCK_TYPE, PLAN_TYPE, artifact_of, manifest_of
from mlbox.oci.digest import Digest
from mlbox.oci.image import CONFIG, INDEX, LAYER_TAR, MANIFEST, Descriptor, Manifest
from mlbox.registry import upload
from mlbox.registry.client import Registry, open_registry

Open = Callable[..., Registry]

REPOSITORY = "team/bert"
DATA = bytes(range(256)) * 4000


def blob(data: bytes) -> Descriptor:
    """Return how a manifest refers to `data`."""
    return Descriptor(media_type=LAYER_TAR, digest=Digest(digest_of(data)), size=len(data))


def pushed(registry: Registry, *tags: str) -> Descriptor:
    """Push the smallest image, return its descriptor."""
    registry.put_blob(REPOSITORY, EMPTY_BYTES)
    config = Descriptor(media_type=CONFIG, digest=EMPTY.digest, size=EMPTY.size)
    data = canonical_json(Manifest(config=config, layers=()))
    for tag in tags or ("1",):
        registry.put_manifest(REPOSITORY, tag, data, MANIFEST)
    return Descriptor(media_type=MANIFEST, digest=Digest(digest_of(data)), size=len(data))


class Counting:
    """Adds up what a listener hears."""

    def __init__(self) -> None:
        self.total: dict[str, int] = {}
        self.notes: list[str] = []

    def step(self, what: str) -> None:
        """Ignore."""

    def expect(self, what: str, total: int) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Remember."""
        self.notes.append(text)

    def advance(self, what: str, amount: int) -> None:
        """Add."""
        self.total[what] = self.total.get(what, 0) + amount


def test_manifests_there_and_back(fake: FakeRegistry, client: Open) -> None:
    """A pushed manifest is found by tag and by digest, with its exact bytes."""
    registry = client(fake)
    descriptor = pushed(registry)

    found = registry.manifest(REPOSITORY, "1")

    assert found.descriptor == descriptor
    assert registry.manifest(REPOSITORY, descriptor.digest) == found
    assert registry.find(REPOSITORY, "1") == descriptor
    assert registry.find(REPOSITORY, "2") is None


def test_missing_manifest_says_what_to_do(fake: FakeRegistry, client: Open) -> None:
    """The status, the registry's own words and a hint."""
    with pytest.raises(RegistryError, match=r"team/bert:nope.*404.*manifest unknown") as caught:
        client(fake).manifest(REPOSITORY, "nope")
    assert caught.value.status == 404
    assert f"mlbox login {fake.host}" in str(caught.value.hint)


def test_a_lost_blob_is_not_called_a_wrong_name(client: Open, fake: FakeRegistry, tmp_path: Path) -> None:
    """The manifest was there, so the name is right: only who pushed it can mend it."""
    own = client(fake)
    for ask in (lambda: own.blob(REPOSITORY, blob(b"lost")), lambda: download(own, tmp_path / "x")):
        with pytest.raises(RegistryError, match="404") as caught:
            ask()
        assert "push the image again" in (caught.value.hint or "")


def download(own: Registry, target: Path) -> None:
    """Download a blob that is not there."""
    own.download(REPOSITORY, blob(b"lost"), target)


@pytest.mark.parametrize("size", [0, 1, 1000, 5000])
def test_blobs_there_and_back(
    fake: FakeRegistry, client: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """In one piece or in chunks, what arrives is what was sent; the listener hears every byte once."""
    monkeypatch.setattr(upload, "CHUNK", 1000)
    registry, listener, data = client(fake), Counting(), os.urandom(size)
    (tmp_path / "blob").write_bytes(data)
    descriptor = blob(data)
    assert not registry.has_blob(REPOSITORY, descriptor.digest)

    registry.upload(REPOSITORY, tmp_path / "blob", descriptor, listener=listener)
    registry.download(REPOSITORY, descriptor, tmp_path / "back", listener=listener)

    assert registry.has_blob(REPOSITORY, descriptor.digest)
    assert (tmp_path / "back").read_bytes() == data
    assert registry.blob(REPOSITORY, descriptor) == data
    assert listener.total.get("push", 0) == listener.total.get("pull", 0) == size
    assert len(fake.paths("PATCH")) == (size // 1000 if size > 1000 else 0)
    assert fake.uploads == {}


def test_chunks_are_as_large_as_the_registry_wants(
    fake: FakeRegistry, client: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OCI-Chunk-Min-Length raises the size of chunks."""
    monkeypatch.setattr(upload, "CHUNK", 1000)
    fake.chunk_min = 2500
    (tmp_path / "blob").write_bytes(DATA[:5000])

    client(fake).upload(REPOSITORY, tmp_path / "blob", blob(DATA[:5000]))

    assert len(fake.paths("PATCH")) == 2


def test_a_file_that_changed_is_not_sent(fake: FakeRegistry, client: Open, tmp_path: Path) -> None:
    """The size is compared before anything is sent."""
    (tmp_path / "blob").write_bytes(DATA)
    with pytest.raises(RegistryError, match="expected 5"):
        client(fake).upload(REPOSITORY, tmp_path / "blob", blob(DATA[:5]))
    assert fake.requests == []


def test_mount(fake: FakeRegistry, client: Open) -> None:
    """A blob of another repository is there without being moved; where the registry would rather not, it says so."""
    registry = client(fake)
    digest = Digest(fake.add_blob("other/place", DATA))

    assert registry.mount(REPOSITORY, digest, "other/place")
    assert registry.has_blob(REPOSITORY, digest)
    assert not registry.mount("team/more", digest, "no/such")
    fake.mounts = False
    assert not registry.mount("team/more", digest, "other/place")
    assert fake.uploads == {}


def test_download_completes_what_is_there(fake: FakeRegistry, client: Open, tmp_path: Path) -> None:
    """Only the rest is asked for."""
    fake.add_blob(REPOSITORY, DATA)
    (tmp_path / "blob").write_bytes(DATA[:1000])

    client(fake).download(REPOSITORY, blob(DATA), tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == DATA
    assert fake.requests[-1].headers["Range"] == "bytes=1000-"


def test_whole_file_is_not_asked_for(fake: FakeRegistry, client: Open, tmp_path: Path) -> None:
    """What is there already costs no request for it."""
    fake.add_blob(REPOSITORY, DATA)
    (tmp_path / "blob").write_bytes(DATA)

    client(fake).download(REPOSITORY, blob(DATA), tmp_path / "blob")

    assert not [path for path in fake.paths() if "/blobs/" in path]


@pytest.mark.parametrize("ranges", [True, False])
def test_wrong_beginning_is_replaced(fake: FakeRegistry, client: Open, tmp_path: Path, ranges: bool) -> None:
    """Junk that an earlier try left is noticed, also where the registry ignores Range."""
    fake.ranges = ranges
    fake.add_blob(REPOSITORY, DATA)
    (tmp_path / "blob").write_bytes(b"junk")

    client(fake).download(REPOSITORY, blob(DATA), tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == DATA


def test_blobs_come_from_another_host(fake: FakeRegistry, other: FakeRegistry, client: Open, tmp_path: Path) -> None:
    """A redirect to the storage is followed, with Range."""
    digest = fake.add_blob(REPOSITORY, DATA)
    other.add_blob(REPOSITORY, DATA)
    fake.redirect_blobs = other.url
    (tmp_path / "blob").write_bytes(DATA[:10])

    client(fake).download(REPOSITORY, blob(DATA), tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == DATA
    assert other.requests[-1].path.startswith(f"/v2/{REPOSITORY}/blobs/{digest}?X-Signature")
    assert other.requests[-1].headers["Range"] == "bytes=10-"


def test_tags_come_in_pages(fake: FakeRegistry, client: Open) -> None:
    """All of them, whatever the size of a page; odd names that could confuse a terminal are left out."""
    registry = client(fake)
    pushed(registry, "a", "b", "c", "d", "e")
    fake.tags[REPOSITORY]["\x1b[2J"] = fake.tags[REPOSITORY]["a"]
    fake.page = 2

    assert list(registry.tags(REPOSITORY)) == ["a", "b", "c", "d", "e"]
    assert len([path for path in fake.paths() if "/tags/" in path]) == 3


def test_no_tags(fake: FakeRegistry, client: Open) -> None:
    """Some registries say null for none."""
    fake.behave = lambda request: Reply(200, b'{"name":"x","tags":null}') if "/tags/" in request.path else None
    assert list(client(fake).tags(REPOSITORY)) == []


@pytest.mark.parametrize("api", [True, False])
def test_referrers(fake: FakeRegistry, client: Open, api: bool) -> None:
    """Pushed and found, with the API and with the index that stands in for it; by type and in pages."""
    fake.referrers_api, fake.page = api, 1
    registry = client(fake)
    subject = pushed(registry)
    assert registry.referrers(REPOSITORY, subject.digest) == ()
    digests = {
        kind: registry.put_referrer(REPOSITORY, manifest_of(artifact_of(kind, EMPTY_BYTES), subject), subject)
        for kind in (LOCK_TYPE, PLAN_TYPE)
    }
    registry.put_referrer(REPOSITORY, manifest_of(artifact_of(LOCK_TYPE, EMPTY_BYTES), subject), subject)

    found = registry.referrers(REPOSITORY, subject.digest)
    plans = registry.referrers(REPOSITORY, subject.digest, PLAN_TYPE)

    assert {one.artifact_type: one.digest for one in found} == digests
    assert len(found) == 2
    assert [one.digest for one in plans] == [digests[PLAN_TYPE]]
    assert (f"sha256-{subject.digest[7:]}" in fake.tags[REPOSITORY]) is not api


def test_fallback_index_keeps_what_others_wrote(fake: FakeRegistry, client: Open) -> None:
    """Unknown keys and entries of other tools stay."""
    fake.referrers_api = False
    registry = client(fake)
    subject = pushed(registry)
    theirs = registry.put_referrer(REPOSITORY, manifest_of(artifact_of("x/y", EMPTY_BYTES), subject), subject)
    tag = f"sha256-{subject.digest[7:]}"
    document = json.loads(registry.manifest(REPOSITORY, tag).data)
    document["annotations"] = {"org.example.kept": "yes"}
    document["manifests"][0]["org.example.more"] = 1
    registry.put_manifest(REPOSITORY, tag, json.dumps(document).encode(), INDEX)

    registry.put_referrer(REPOSITORY, manifest_of(artifact_of(PLAN_TYPE, EMPTY_BYTES), subject), subject)

    after = json.loads(registry.manifest(REPOSITORY, tag).data)
    assert after["annotations"] == {"org.example.kept": "yes"}
    assert after["manifests"][0]["org.example.more"] == 1
    assert after["manifests"][0]["digest"] == theirs
    assert len(after["manifests"]) == 2


def test_lost_entry_of_the_fallback_index_is_written_again(fake: FakeRegistry, client: Open) -> None:
    """Somebody who wrote the index at the same time is noticed."""
    fake.referrers_api = False
    registry = client(fake)
    subject = pushed(registry)
    tag = f"sha256-{subject.digest[7:]}"
    lost: list[str] = []

    def overwrite(request: object) -> None:
        if not lost and tag in fake.tags.get(REPOSITORY, {}):
            lost.append(fake.tags[REPOSITORY].pop(tag))

    fake.behave = overwrite  # type: ignore[assignment]
    digest = registry.put_referrer(REPOSITORY, manifest_of(artifact_of(PLAN_TYPE, EMPTY_BYTES), subject), subject)

    assert lost
    assert [one.digest for one in registry.referrers(REPOSITORY, subject.digest)] == [digest]


def test_referrer_must_be_about_its_subject(fake: FakeRegistry, client: Open) -> None:
    """A manifest about something else is not pushed."""
    registry = client(fake)
    subject = pushed(registry)
    with pytest.raises(RegistryError, match="not about"):
        registry.put_referrer(REPOSITORY, manifest_of(artifact_of("x/y", b""), EMPTY), subject)


def test_mirrors_are_asked_first(fake: FakeRegistry, other: FakeRegistry, client: Open, tmp_path: Path) -> None:
    """What a mirror has comes from it, what it lacks from the registry; pushes never go to it."""
    registry = client(fake, mirrors=(other,))
    descriptor = pushed(registry)
    other.add_blob(REPOSITORY, DATA)
    fake.add_blob(REPOSITORY, DATA[:7])

    registry.download(REPOSITORY, blob(DATA), tmp_path / "a")
    registry.download(REPOSITORY, blob(DATA[:7]), tmp_path / "b")

    assert (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes() == DATA + DATA[:7]
    assert registry.find(REPOSITORY, "1") == descriptor
    assert {request.method for request in other.requests} <= {"GET", "HEAD"}
    assert not [path for path in fake.paths() if path.endswith(digest_of(DATA))]


def test_broken_mirror_is_passed_over(fake: FakeRegistry, other: FakeRegistry, client: Open) -> None:
    """The user is told which and why; one that lies is asked once."""
    listener = Counting()
    fake.add_blob(REPOSITORY, DATA)
    other.add_blob(REPOSITORY, DATA)
    other.behave = lambda request: Reply(200, bytes(len(DATA))) if "/blobs/" in request.path else None

    registry = client(fake, mirrors=(other,), listener=listener)
    assert registry.blob(REPOSITORY, blob(DATA)) == DATA
    assert other.host in listener.notes[0]
    assert registry.blob(REPOSITORY, blob(DATA)) == DATA
    assert len(listener.notes) == 1
    assert len([path for path in other.paths() if "/blobs/" in path]) == 1


@pytest.mark.parametrize("status", [401, 403, 400])
def test_a_mirror_that_refuses_is_asked_once(
    fake: FakeRegistry, other: FakeRegistry, client: Open, status: int
) -> None:
    """A pull of sixty layers does not say sixty times that it wants a login."""
    fake.add_blob(REPOSITORY, DATA)
    other.behave = lambda request: Reply(status) if "/blobs/" in request.path else None
    listener = Counting()
    registry = client(fake, mirrors=(other,), listener=listener)
    for _ in range(3):
        assert registry.blob(REPOSITORY, blob(DATA)) == DATA
    assert len(listener.notes) == 1
    assert len([path for path in other.paths() if "/blobs/" in path]) == 1


def test_mirror_without_its_registry(fake: FakeRegistry, client: Open) -> None:
    """Behind a wall only the mirror is there: what it has is had, and nothing is nothing."""
    with registry() as gone:
        pass
    fake.add_blob(REPOSITORY, DATA)
    mirrored = client(gone, mirrors=(fake,))
    assert mirrored.blob(REPOSITORY, blob(DATA)) == DATA
    assert mirrored.find(REPOSITORY, "1") is None
    assert mirrored.referrers(REPOSITORY, blob(DATA).digest) == ()
    with pytest.raises(RegistryError, match="nobody accepts"):
        mirrored.manifest(REPOSITORY, "1")


def test_open_registry_finds_logins_and_speaks_http_to_this_machine(fake: FakeRegistry, own_environment: Path) -> None:
    """The files of Docker are read; loopback needs no setting."""
    fake.auth, fake.users = "basic", {"me": "open sesame"}
    (own_environment / ".docker").mkdir()
    auths = {"auths": {fake.host: {"auth": "bWU6b3BlbiBzZXNhbWU="}}}
    (own_environment / ".docker/config.json").write_text(json.dumps(auths))
    fake.add_blob(REPOSITORY, DATA)

    assert open_registry(fake.host).blob(REPOSITORY, blob(DATA)) == DATA


def test_many_threads(fake: FakeRegistry, client: Open, tmp_path: Path) -> None:
    """One client serves many downloads at once, and asks who it is once."""
    registry = client(fake)
    blobs = [os.urandom(100_000) for _ in range(8)]
    for data in blobs:
        fake.add_blob(REPOSITORY, data)

    def work(number: int) -> None:
        registry.download(REPOSITORY, blob(blobs[number]), tmp_path / str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number, data in enumerate(blobs):
        assert hashlib.sha256((tmp_path / str(number)).read_bytes()).digest() == hashlib.sha256(data).digest()
    assert fake.paths().count("/v2/") == 1
