"""Signing and verifying images here and in a registry, and what the policy makes of it."""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fakes.registry import FakeRegistry, registry
from fakes.trees import make_image, make_layer

from mlbox.codec import canonical_json
from mlbox.engine import sharing
from mlbox.engine.trust import materials
from mlbox.engine.trust.admission import admit_load, admit_locked, admit_run, admit_start
from mlbox.engine.trust.attested import attested
from mlbox.engine.trust.signatures import kept_signatures, places_of, remote_signatures
from mlbox.engine.trust.signing import Publication, publish, require, sign, verify
from mlbox.errors import LockError, NotFoundError, TrustError
from mlbox.oci.artifact import LOCK_TYPE, artifact_of, subject_of
from mlbox.oci.digest import DiffID, Digest, digest_of
from mlbox.oci.image import INDEX, MANIFEST, Descriptor, Image, ImageIndex, Platform
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.registry.archive import load_images
from mlbox.registry.client import open_registry
from mlbox.runtime.options import Restart, RunOptions
from mlbox.runtime.record import Record
from mlbox.store.fsck import fsck
from mlbox.store.layers import Layer
from mlbox.store.layout import Chosen, export, export_layout
from mlbox.store.store import Store
from mlbox.trust.keys import PrivateKey, PublicKey, generate, load_private
from mlbox.trust.signature import Signature, signature_tag
from mlbox.trust.signature import sign as make_signatures

NAME = "team/x:1"
FILES = {
    "etc/os-release": b"ID=debian\nVERSION_ID=12\n",
    "var/lib/dpkg/status": b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36\n",
    "opt/mlbox/env/lib/python3.11/site-packages/numpy-2.0.dist-info/METADATA": b"Name: numpy\nVersion: 2.0\n",
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[PrivateKey, PrivateKey]:
    """Our key and a stranger's."""
    folder = tmp_path_factory.mktemp("keys")
    made = [load_private(generate(folder / name, b"x")[0], lambda: b"x") for name in ("ours", "theirs")]
    return made[0], made[1]


@pytest.fixture
def key(keys: tuple[PrivateKey, PrivateKey]) -> PrivateKey:
    return keys[0]


@pytest.fixture
def stranger(keys: tuple[PrivateKey, PrivateKey]) -> PrivateKey:
    return keys[1]


@pytest.fixture(params=[True, False], ids=["referrers-api", "fallback-tag"])
def fake(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    """A registry of this process, with and without the referrers API."""
    with registry() as running:
        running.referrers_api = request.param
        yield running


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    store = Store(home)
    yield store
    store.close()


@pytest.fixture
def image(store: Store) -> Image:
    """An image with a name and without a lock."""
    image = make_image(store, make_layer(store, "one", FILES), make_layer(store, "two", {"bin/x": b"x"}))
    store.images.tag(image.digest, parse_reference(NAME))
    return image


@pytest.fixture
def elsewhere(tmp_path: Path) -> Home:
    """Another machine."""
    return Home(tmp_path / "elsewhere")


def pushed(home: Home, fake: FakeRegistry) -> sharing.PushReport:
    return sharing.push(home, NAME, to=f"{fake.host}/{NAME}")


def publics(*keys: PrivateKey) -> list[PublicKey]:
    return [key.public for key in keys]


def test_an_image_of_the_store_is_signed_and_verified_without_a_network(
    home: Home, image: Image, key: PrivateKey, stranger: PrivateKey
) -> None:
    """The signature stays in the store and is found there; a stranger's key finds nothing."""
    report = sign(home, NAME, key)
    assert [(one.digest, one.new, one.pushed) for one in report.signed] == [(image.digest, True, False)]
    assert verify(home, NAME, publics(stranger, key)).keys == (key.public.name,)
    assert verify(home, image.digest, publics(stranger)).keys == ()


def test_signing_again_adds_nothing_and_another_key_adds_its_own(
    home: Home, store: Store, image: Image, key: PrivateKey, stranger: PrivateKey
) -> None:
    """Two forms per key, once."""
    sign(home, NAME, key)
    assert not sign(home, NAME, key).signed[0].new
    assert len(list(kept_signatures(store, image.digest))) == 2
    sign(home, NAME, stranger)
    assert len(list(kept_signatures(store, image.digest))) == 4
    assert set(verify(home, NAME, publics(key, stranger)).keys) == {key.public.name, stranger.public.name}


def test_an_unsigned_image_is_refused_with_a_way_out(home: Home, image: Image, key: PrivateKey) -> None:
    """The error names the image, the key and the command."""
    with pytest.raises(TrustError, match=f"{NAME} is not signed as asked: it has no signature") as caught:
        require(verify(home, NAME, publics(key)), publics(key))
    assert "mlbox sign" in str(caught.value.hint)


def test_signatures_reach_the_places_where_cosign_looks(
    home: Home, store: Store, image: Image, fake: FakeRegistry, key: PrivateKey
) -> None:
    """The tag, with the payload as a layer; the same manifest and a bundle as referrers."""
    there = pushed(home, fake)
    report = sign(home, NAME, key, push=True)
    assert [(one.digest, one.pushed) for one in report.signed] == [(image.digest, False), (there.digest, True)]
    tagged = fake.tags["team/x"][signature_tag(there.digest)]
    manifest = json.loads(fake.manifests["team/x"][tagged].data)
    claim = json.loads(fake.blobs["team/x"][manifest["layers"][0]["digest"]])
    assert claim["critical"]["image"]["docker-manifest-digest"] == there.digest
    assert claim["critical"]["identity"]["docker-reference"] == f"{fake.host}/team/x"
    assert manifest["config"]["digest"] in fake.blobs["team/x"]
    client = open_registry(fake.host)
    kinds = [found.artifact_type for found in client.referrers("team/x", there.digest)]
    assert kinds.count("application/vnd.dev.cosign.artifact.sig.v1+json") == 1
    assert kinds.count("application/vnd.dev.sigstore.bundle.v0.3+json") == 1


def test_signatures_add_up_in_the_registry(
    home: Home, image: Image, fake: FakeRegistry, key: PrivateKey, stranger: PrivateKey
) -> None:
    """A second key is appended to the tag; the same key once more changes nothing."""
    there = pushed(home, fake)
    for one in (key, stranger, key):
        sign(home, NAME, one, push=True)
    tagged = fake.tags["team/x"][signature_tag(there.digest)]
    assert len(json.loads(fake.manifests["team/x"][tagged].data)["layers"]) == 2
    found = list(remote_signatures(open_registry(fake.host), "team/x", there.digest))
    assert len(found) == len(set(found)) == 4


def test_the_same_image_in_two_repositories_has_a_signature_for_each(
    home: Home, store: Store, image: Image, fake: FakeRegistry, key: PrivateKey
) -> None:
    """Tools that look at the name in a signature find their own."""
    digests = set()
    for name in ("team/x", "other/y", "team/x"):
        report = sharing.push(home, NAME, to=f"{fake.host}/{name}:1", also=Publication(key=key))
        digests.add(report.digest)
    assert len(digests) == 1
    for name in ("team/x", "other/y"):
        tagged = fake.tags[name][signature_tag(report.digest)]
        layers = json.loads(fake.manifests[name][tagged].data)["layers"]
        claims = [json.loads(fake.blobs[name][layer["digest"]])["critical"]["identity"] for layer in layers]
        assert claims == [{"docker-reference": f"{fake.host}/{name}"}]


def test_a_signature_that_cosign_left_there_is_kept(
    home: Home, image: Image, fake: FakeRegistry, key: PrivateKey, stranger: PrivateKey
) -> None:
    """A manifest as cosign 2 writes it: without subject and with certificates; ours is appended."""
    there = pushed(home, fake)
    simple, _ = make_signatures(there.digest, f"{fake.host}/team/x", stranger)
    layer = {
        "mediaType": simple.media_type,
        "size": len(simple.payload),
        "digest": fake.add_blob("team/x", simple.payload),
        "annotations": {**simple.blob.annotations, "dev.sigstore.cosign/certificate": "PEM"},
    }
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2}
    config["digest"] = fake.add_blob("team/x", b"{}")
    data = canonical_json({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]})
    fake.add_manifest("team/x", data, MANIFEST, signature_tag(there.digest))
    assert verify(home, f"{fake.host}/team/x@{there.digest}", publics(stranger)).keys == (stranger.public.name,)
    sign(home, NAME, key, push=True)
    tagged = fake.tags["team/x"][signature_tag(there.digest)]
    layers = json.loads(fake.manifests["team/x"][tagged].data)["layers"]
    assert layers[0] == layer
    assert len(layers) == 2


def test_a_name_that_only_a_registry_has_is_signed_there(
    home: Home, elsewhere: Home, image: Image, fake: FakeRegistry, key: PrivateKey, stranger: PrivateKey
) -> None:
    """Without the image, which need not be pulled for that."""
    there = pushed(home, fake)
    name = f"{fake.host}/{NAME}"
    report = sign(elsewhere, name, key)
    assert [(one.digest, one.new, one.pushed) for one in report.signed] == [(there.digest, True, True)]
    assert not sign(elsewhere, name, key).signed[0].new
    assert verify(elsewhere, name, publics(key, stranger)).keys == (key.public.name,)
    with pytest.raises(NotFoundError, match="not in the store"):
        sign(elsewhere, name, key, sbom=True)


def test_names_that_are_nowhere(home: Home, fake: FakeRegistry, key: PrivateKey) -> None:
    """A short name is one of the store: no registry is asked for it."""
    with pytest.raises(NotFoundError, match="no image nowhere"):
        sign(home, "nowhere", key)
    with pytest.raises(NotFoundError, match="here or in its registry"):
        verify(home, f"{fake.host}/no/x:1", publics(key))


def test_a_signature_made_after_the_pull_is_found(
    home: Home, elsewhere: Home, image: Image, fake: FakeRegistry, key: PrivateKey
) -> None:
    """Verifying asks the registry that the image came from, and keeps what it finds."""
    pushed(home, fake)
    name = f"{fake.host}/{NAME}"
    sharing.pull(elsewhere, name)
    assert verify(elsewhere, name, publics(key)).keys == ()
    sign(home, NAME, key, push=True)
    assert verify(elsewhere, name, publics(key)).keys == (key.public.name,)
    before = len(fake.requests)
    assert verify(elsewhere, name, publics(key)).keys == (key.public.name,)
    assert len(fake.requests) == before
    there = Store(elsewhere)
    assert fsck(there).findings == ()
    there.close()


def test_the_chain_ends_where_another_configuration_begins(
    home: Home, store: Store, image: Image, fake: FakeRegistry, key: PrivateKey
) -> None:
    """A manifest of a registry speaks for an image only when its configuration is the image's."""
    there = pushed(home, fake)
    other = make_image(store, make_layer(store, "evil", {"bin/x": b"evil"}))
    store.remotes.remember(there.digest, f"{fake.host}/team/x", other.digest)
    sign(home, NAME, key)
    assert [place.subject.digest for place in places_of(store, other)] == [other.digest]
    assert verify(home, other.digest, publics(key)).keys == ()


def test_an_index_speaks_for_the_manifests_that_it_names(
    home: Home, store: Store, image: Image, key: PrivateKey
) -> None:
    """A signature of the index counts, when the index leads to this image."""
    index = canonical_json(
        ImageIndex(
            manifests=(
                Descriptor(
                    media_type=MANIFEST,
                    digest=image.digest,
                    size=len(image.manifest_bytes),
                    platform=Platform(architecture="amd64", os="linux"),
                ),
            )
        )
    )
    digest = store.content.put(index)
    store.remotes.remember(digest, "registry.example/x", image.digest)
    subject = Descriptor(media_type=INDEX, digest=digest, size=len(index))
    for signature in make_signatures(digest, "registry.example/x", key):
        store.referrers.add(signature.artifact, subject)
    assert verify(home, NAME, publics(key)).keys == (key.public.name,)
    stray = store.content.put(canonical_json({"manifests": [{"mediaType": "x", "digest": "y"}]}))
    store.remotes.remember(stray, "registry.example/y", image.digest)
    assert [place.subject.digest for place in places_of(store, image)] == [image.digest, digest]


@pytest.mark.parametrize("what", ["payload", "annotation", "manifest"])
def test_what_was_changed_in_the_registry_does_not_verify(
    home: Home, elsewhere: Home, image: Image, fake: FakeRegistry, key: PrivateKey, what: str
) -> None:
    """A payload about another image, another signature, a manifest that is no such thing."""
    there = pushed(home, fake)
    simple, _ = make_signatures(there.digest, f"{fake.host}/team/x", key)
    changed = {
        "payload": simple._replace(payload=simple.payload.replace(b'"optional":null', b'"optional":{}')),
        "annotation": simple._replace(signature="AAAA"),
        "manifest": simple,
    }[what]
    data = manifest_with(fake, changed, "x" if what == "manifest" else changed.media_type)
    fake.add_manifest("team/x", data, MANIFEST, signature_tag(there.digest))
    assert verify(elsewhere, f"{fake.host}/{NAME}", publics(key)).keys == ()


def manifest_with(fake: FakeRegistry, signature: Signature, media_type: str) -> bytes:
    layer = {
        "mediaType": media_type,
        "size": len(signature.payload),
        "digest": fake.add_blob("team/x", signature.payload),
        "annotations": signature.blob.annotations,
    }
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2}
    config["digest"] = fake.add_blob("team/x", b"{}")
    return canonical_json({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]})


def policy(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str, key: PrivateKey | None = None) -> None:
    """Make `text` the policy; the key lies beside it as team.pub."""
    folder.mkdir(exist_ok=True)
    if key is not None:
        (folder / "team.pub").write_bytes(key.public.pem)
    (folder / "policy.toml").write_text(text)
    monkeypatch.setenv("MLBOX_POLICY", str(folder / "policy.toml"))


def test_the_policy_decides_about_a_pull_and_a_run(
    home: Home,
    elsewhere: Home,
    image: Image,
    fake: FakeRegistry,
    key: PrivateKey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unsigned: nothing is fetched. Signed: pulled, and the signature is kept, so that it runs without a network."""
    pushed(home, fake)
    name = f"{fake.host}/{NAME}"
    signed = f'default = "deny"\n[[rule]]\nprefix = "{fake.host}/team"\naction = "signed"\nkeys = ["team.pub"]\n'
    policy(monkeypatch, tmp_path / "p", signed, key)
    blobs = len([path for path in fake.paths("GET") if "/blobs/" in path])
    with pytest.raises(TrustError, match="it has no signature"):
        sharing.pull(elsewhere, name)
    # The configuration is read to choose the platform; layers are not.
    assert len([path for path in fake.paths("GET") if "/blobs/" in path]) <= blobs + 1
    sign(home, NAME, key, push=True)
    sharing.pull(elsewhere, name)
    store = Store(elsewhere)
    pulled = store.images.load(store.images.resolve(name))
    before = len(fake.requests)
    admit_run(store, name, pulled)
    assert len(fake.requests) == before
    policy(monkeypatch, tmp_path / "q", f'[[rule]]\nprefix = "{fake.host}/team"\naction = "deny"')
    with pytest.raises(TrustError, match="does not allow"):
        admit_run(store, name, pulled)
    with pytest.raises(TrustError, match="does not allow"):
        sharing.pull(elsewhere, name)
    store.close()


def test_a_locked_base_may_be_signed_by_its_index(
    home: Home,
    elsewhere: Home,
    image: Image,
    fake: FakeRegistry,
    key: PrivateKey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lock names the manifest and the index; an index that does not name the manifest says nothing about it."""
    there = pushed(home, fake)
    manifest = Descriptor(
        media_type=MANIFEST, digest=there.digest, size=len(fake.manifests["team/x"][there.digest].data)
    )
    platform = Platform(architecture="amd64", os="linux")
    stranger = Descriptor(media_type=MANIFEST, digest=digest_of(b"x"), size=1, platform=platform)
    policy(
        monkeypatch,
        tmp_path / "p",
        f'[[rule]]\nprefix = "{fake.host}"\naction = "signed"\nkeys = ["team.pub"]\n',
        key,
    )
    store, client = Store(elsewhere), open_registry(fake.host)
    for children, tag, allowed in (((stranger, manifest), "ours", True), ((stranger,), "theirs", False)):
        index = canonical_json(ImageIndex(manifests=children))
        fake.add_manifest("team/x", index, INDEX, tag)
        sign(elsewhere, f"{fake.host}/team/x:{tag}", key)
        reference = parse_reference(f"{fake.host}/team/x@{there.digest}")
        if allowed:
            admit_locked(store, client, reference, manifest, digest_of(index))
        else:
            with pytest.raises(TrustError, match="it has no signature"):
                admit_locked(store, client, reference, manifest, digest_of(index))
    store.close()


def test_a_name_given_by_tag_changes_no_origin(
    home: Home, elsewhere: Home, image: Image, fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image is judged by where it came from, not by what it is called here."""
    pushed(home, fake)
    sharing.pull(elsewhere, f"{fake.host}/{NAME}")
    store = Store(elsewhere)
    pulled = store.images.load(store.images.resolve(f"{fake.host}/{NAME}"))
    store.images.tag(pulled.digest, parse_reference("docker.io/library/python:3"))
    policy(monkeypatch, tmp_path / "p", 'default = "deny"\n[[rule]]\nprefix = "docker.io"\naction = "allow"')
    with pytest.raises(TrustError, match=f"images of {fake.host}/team/x"):
        admit_run(store, "docker.io/library/python:3", pulled)
    store.close()


def test_an_archive_that_claims_an_origin_is_local(
    home: Home, elsewhere: Home, image: Image, fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes an archive chooses the names in it; only a registry itself can say what came from it."""
    pushed(home, fake)
    name = f"{fake.host}/{NAME}"
    maker, store = Store(home), Store(elsewhere)
    export_layout(maker, image, tmp_path / "evil", [parse_reference(name)])
    maker.close()
    policy(monkeypatch, tmp_path / "p", 'default = "deny"')
    load_images(store, tmp_path / "evil", arch="amd64", admit=partial(admit_load, store))
    store.remotes.remember(digest_of(b"compressed"), f"{fake.host}/team/x", image.digest, claimed=True)
    allowed = f'local = "deny"\n[[rule]]\nprefix = "{fake.host}"\naction = "allow"'
    policy(monkeypatch, tmp_path / "p", allowed)
    with pytest.raises(TrustError, match="built or loaded here"):
        admit_run(store, name, image)
    with pytest.raises(TrustError, match="built or loaded here"):
        load_images(store, tmp_path / "evil", arch="amd64", admit=partial(admit_load, store))
    sharing.pull(elsewhere, name)
    admit_run(store, name, image)
    store.close()


def test_a_registry_that_a_file_names_hears_nothing(
    home: Home, image: Image, fake: FakeRegistry, key: PrivateKey, store: Store
) -> None:
    """A bundle of a stranger must not choose whom we ask, and where we send signatures."""
    manifest = canonical_json({"config": image.manifest.config, "layers": []})
    store.content.put(manifest)
    store.remotes.remember(digest_of(manifest), f"{fake.host}/team/x", image.digest, claimed=True)
    report = sign(home, NAME, key, push=True)
    assert [(one.repository, one.pushed) for one in report.signed][1:] == [(f"{fake.host}/team/x", False)]
    verify(home, NAME, ())
    assert fake.requests == []


def test_an_archive_may_bring_its_signature(
    home: Home, elsewhere: Home, image: Image, key: PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the policy asks for one, the image of the archive may be loaded and run; without it, it may not."""
    maker, store = Store(home), Store(elsewhere)
    name = parse_reference("registry.example/team/x:1")
    maker.images.tag(image.digest, name)
    sign(home, str(name), key)
    for folder, attachments in (("bare", False), ("signed", True)):
        export(maker, [Chosen(image, (name,))], tmp_path / folder, attachments=attachments)
    rule = 'local = "deny"\n[[rule]]\nprefix = "registry.example"\naction = "signed"\nkeys = ["team.pub"]'
    policy(monkeypatch, tmp_path / "p", rule, key)
    admit = partial(admit_load, store)
    with pytest.raises(TrustError, match="built or loaded here"):
        load_images(store, tmp_path / "bare", arch="amd64", admit=admit)
    assert store.images.list() == []
    load_images(store, tmp_path / "signed", arch="amd64", admit=admit)
    admit_run(store, str(name), image)
    maker.close()
    store.close()


def test_a_container_of_an_image_that_is_denied_now(
    store: Store, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made when the image was still allowed, and is not started again."""
    record = Record(
        id="0" * 64,
        name="",
        image_digest=image.digest,
        image=NAME,
        created="",
        config=image.config.config,
        lower=(),
        options=RunOptions(),
    )
    admit_start(store.home, record)
    policy(monkeypatch, tmp_path / "p", 'local = "deny"')
    with pytest.raises(TrustError, match="built or loaded here"):
        admit_start(store.home, record)
    store.images.remove(image.digest)
    with pytest.raises(NotFoundError):
        admit_start(store.home, record)


def test_a_restart_is_asked_for_without_the_store(
    store: Store, image: Image, key: PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever restarts a container knows the signatures of its image, and reads the policy as it is then."""
    record = Record(
        id="0" * 64,
        name="",
        image_digest=image.digest,
        image=NAME,
        created="",
        config=image.config.config,
        lower=(),
        options=RunOptions(restart=Restart(policy="always")),
    )
    sign(store.home, NAME, key)
    again = admit_start(store.home, record)
    shutil.rmtree(store.home.content)
    again()
    policy(monkeypatch, tmp_path / "p", 'local = "deny"')
    with pytest.raises(TrustError, match="built or loaded here"):
        again()
    rule = f'[[rule]]\nprefix = "{parse_reference(NAME).name}"\naction = "signed"\nkeys = ["team.pub"]\n'
    policy(monkeypatch, tmp_path / "p", f'local = "deny"\n{rule}', key)
    again()


def test_images_that_were_built_here_follow_the_local_rule(
    store: Store, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when they lie in a registry that is denied."""
    store.remotes.remember(image.digest, "registry.example/x", image.digest)
    policy(monkeypatch, tmp_path / "p", 'default = "deny"')
    with pytest.raises(TrustError):
        admit_run(store, NAME, image)
    store.images.remember_build("plan", image.digest)
    admit_run(store, NAME, image)
    policy(monkeypatch, tmp_path / "p", 'default = "deny"\nlocal = "deny"')
    with pytest.raises(TrustError, match="built or loaded here"):
        admit_run(store, NAME, image)


def test_documents_are_published_and_read_from_the_registry(
    home: Home, elsewhere: Home, store: Store, image: Image, fake: FakeRegistry, key: PrivateKey
) -> None:
    """As they are, and as attestations; both are about the manifest there."""
    there = pushed(home, fake)
    name = f"{fake.host}/{NAME}"
    with pytest.raises(NotFoundError, match="has no bill of materials"):
        materials.sbom(elsewhere, name)
    subject = Descriptor(media_type=MANIFEST, digest=there.digest, size=store.content.path(there.digest).stat().st_size)
    publish(store, open_registry(fake.host), "team/x", image, subject, Publication(sbom=True, key=key))
    document = json.loads(materials.sbom(elsewhere, name))
    assert {part["name"] for part in document["components"]} == {"libc6", "numpy"}
    assert document["metadata"]["component"]["version"] == there.digest
    assert verify(elsewhere, name, publics(key)).keys == (key.public.name,)
    # Without the plain document, it is taken from the attestation.
    for digest, manifest in list(fake.manifests["team/x"].items()):
        if b'"artifactType":"application/vnd.cyclonedx+json"' in manifest.data and b'"subject"' in manifest.data:
            del fake.manifests["team/x"][digest]
    assert json.loads(materials.sbom(elsewhere, name)) == document


def test_an_attested_document_is_the_keys_and_about_the_image(
    home: Home,
    elsewhere: Home,
    store: Store,
    image: Image,
    fake: FakeRegistry,
    key: PrivateKey,
    stranger: PrivateKey,
) -> None:
    """From the registry or the store; another key's, another image's and a changed one do not count."""
    kind = materials.predicate_of(materials.BillFormat.CYCLONEDX)
    there = pushed(home, fake)
    subject = Descriptor(media_type=MANIFEST, digest=there.digest, size=store.content.path(there.digest).stat().st_size)
    client = open_registry(fake.host)
    name = f"{fake.host}/{NAME}"
    publish(store, client, "team/x", image, subject, Publication(sbom=True, key=key))
    assert attested(elsewhere, name, kind, publics(stranger, key)) == attested(home, NAME, kind, publics(key))
    with pytest.raises(TrustError, match="nobody with the key"):
        attested(elsewhere, name, kind, publics(stranger))
    with pytest.raises(TrustError, match="nobody with the key"):
        attested(elsewhere, name, "https://slsa.dev/provenance/v1", publics(key))
    # The same documents, attached to another image.
    other = make_image(store, make_layer(store, "other", {"bin/y": b"y"}))
    about_other = subject_of(other.digest, other.manifest_bytes)
    for artifact in materials.attachments(store, image, there.digest, "x", sbom=True, key=key):
        store.referrers.add(artifact, about_other)
    with pytest.raises(TrustError, match="nobody with the key"):
        attested(home, other.digest, kind, publics(key))


def test_an_image_without_a_lock_has_no_provenance(home: Home, image: Image) -> None:
    """Nobody knows what it was built from, and the error says what is known instead."""
    with pytest.raises(NotFoundError, match="without a lock") as caught:
        materials.provenance(home, NAME)
    assert "mlbox sbom" in str(caught.value.hint)


def test_a_damaged_lock_is_an_error_of_ours(home: Home, store: Store, image: Image) -> None:
    """The lock came with somebody's image."""
    store.referrers.add(artifact_of(LOCK_TYPE, b"\xff not a lock"), subject_of(image.digest, image.manifest_bytes))
    for ask in (materials.sbom, materials.provenance):
        with pytest.raises(LockError, match="attached lock"):
            ask(home, NAME)


def foreign_layer(store: Store, files: dict[str, bytes]) -> Layer:
    """Return a layer that somebody else's program made, with its whiteouts; a name ending in '@' is a hard link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            if path.endswith("@"):
                member = tarfile.TarInfo(path[:-1])
                member.type, member.linkname = tarfile.LNKTYPE, data.decode()
                tar.addfile(member)
            else:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    diff_id = DiffID(digest_of(out.getvalue()))
    size = store.layers.ingest(diff_id, [out.getvalue()], "foreign")
    return Layer(key="foreign", name="foreign", diff_id=diff_id, size=size)


def test_bills_follow_the_layers_that_a_container_sees(home: Home, store: Store) -> None:
    """What an upper layer removes or replaces is not in the bill; a hard link is a file too."""
    site = "opt/mlbox/env/lib/python3.11/site-packages"
    upper = {
        f"{site}/.wh.numpy-2.0.dist-info": b"",
        "var/lib/dpkg/status": FILES["var/lib/dpkg/status"].replace(b"2.36", b"2.37"),
        "data/METADATA": b"Name: six\nVersion: 1.0\n",
        f"{site}/six-1.0.dist-info/METADATA@": b"data/METADATA",
    }
    image = make_image(store, make_layer(store, "one", FILES), foreign_layer(store, upper))
    found = materials.bill_of(store, image, name="x")
    assert [(part.name, part.version) for part in found.components] == [("libc6", "2.37"), ("six", "1.0")]
    assert found.digest == image.digest
    assert materials.write_bill(store, image, materials.BillFormat.SPDX, name="x", subject=Digest(digest_of(b"x")))
