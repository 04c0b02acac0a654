"""What a name in a registry means, and what is refused as no image."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.registry import FakeRegistry, digest_of, registry

from mlbox.errors import RegistryError
from mlbox.oci.image import CONFIG, DOCKER_INDEX, DOCKER_MANIFEST, INDEX, LAYER_TAR, MANIFEST
from mlbox.oci.reference import parse_reference
from mlbox.registry.client import open_registry
from mlbox.registry.transfer import RemoteImage, resolve

REPOSITORY = "team/x"


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry of this process."""
    with registry() as running:
        yield running


def find(fake: FakeRegistry, name: str = ":1", arch: str = "amd64") -> RemoteImage:
    """Resolve a name of the fake."""
    return resolve(open_registry(fake.host), parse_reference(f"{fake.host}/{REPOSITORY}{name}"), arch)


def config_of(arch: str = "amd64", **changes: Any) -> bytes:
    """Return a configuration of one layer."""
    diff_ids = [digest_of(b"layer")]
    return json.dumps(
        {"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}} | changes
    ).encode()


def put_image(fake: FakeRegistry, config: bytes, /, *, tag: str = "", kind: str = MANIFEST, **changes: Any) -> str:
    """Store an image of that configuration and return its digest."""
    document = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"mediaType": CONFIG, "digest": fake.add_blob(REPOSITORY, config), "size": len(config)},
        "layers": [{"mediaType": LAYER_TAR, "digest": fake.add_blob(REPOSITORY, b"layer"), "size": 5}],
    } | changes
    return fake.add_manifest(REPOSITORY, json.dumps(document).encode(), kind, tag)


def put_index(fake: FakeRegistry, *entries: dict[str, Any], tag: str = "1", kind: str = INDEX) -> str:
    """Store an index and return its digest."""
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": list(entries)}
    return fake.add_manifest(REPOSITORY, json.dumps(document).encode(), kind, tag)


def entry(digest: str, arch: str = "", variant: str = "", *, kind: str = MANIFEST, os: str = "linux") -> dict[str, Any]:
    """Return an entry of an index."""
    platform = {"platform": {"architecture": arch, "os": os, "variant": variant}} if arch else {}
    return {"mediaType": kind, "digest": digest, "size": 100} | platform


def test_a_single_image(fake: FakeRegistry) -> None:
    """A tag or a digest means the manifest; its bytes and those of its configuration are kept as they are."""
    config = config_of()
    digest = put_image(fake, config, tag="1")
    by_tag, by_digest = find(fake), find(fake, f"@{digest}")
    assert by_tag.digest == by_digest.digest == digest
    assert by_tag.config_bytes == config
    assert digest_of(by_tag.manifest_bytes) == digest
    assert by_tag.index is None
    assert [layer.size for layer in by_tag.blobs.values()] == [5]


@pytest.mark.parametrize(("manifest", "index"), [(MANIFEST, INDEX), (DOCKER_MANIFEST, DOCKER_INDEX)])
def test_an_index_gives_the_image_of_the_architecture(fake: FakeRegistry, manifest: str, index: str) -> None:
    """OCI's and Docker's lists mean the same; what they are is remembered."""
    mine = put_image(fake, config_of("arm64"), kind=manifest)
    other = put_image(fake, config_of("amd64"), kind=manifest)
    whole = put_index(fake, entry(other, "amd64", kind=manifest), entry(mine, "arm64", kind=manifest), kind=index)
    found = find(fake, arch="arm64")
    assert (found.digest, found.media_type) == (mine, manifest)
    assert found.index is not None
    assert found.index[0] == whole
    assert [subject.digest for subject in found.subjects] == [mine, whole]


def test_variants(fake: FakeRegistry) -> None:
    """The image that every machine of the architecture runs goes before one that needs a newer processor."""
    plain, newer = put_image(fake, config_of()), put_image(fake, config_of(created="2026-01-01T00:00:00Z"))
    put_index(fake, entry(newer, "amd64", "v3"), entry(plain, "amd64"))
    assert find(fake).digest == plain


def test_what_there_is_instead(fake: FakeRegistry) -> None:
    """No image for this machine: the error names those that are there, and not the attestations."""
    digest = put_image(fake, config_of())
    put_index(fake, entry(digest, "arm64", "v8"), entry(digest, "s390x"), entry(digest, "unknown", os="unknown"))
    with pytest.raises(RegistryError, match=r"no image for linux/amd64; it has linux/arm64/v8, linux/s390x$"):
        find(fake)


def test_an_index_in_an_index(fake: FakeRegistry) -> None:
    """It is looked into, a few times."""
    digest = put_image(fake, config_of())
    inner = put_index(fake, entry(digest, "amd64"), tag="")
    outer = put_index(fake, entry(inner, kind=INDEX))
    assert find(fake).digest == digest
    for _ in range(6):
        outer = put_index(fake, entry(outer, kind=INDEX))
    with pytest.raises(RegistryError, match="too deep"):
        find(fake)


def test_many_indexes_end(fake: FakeRegistry) -> None:
    """A registry cannot keep a client busy with indexes that hold nothing."""
    empty = [put_index(fake, entry("sha256:" + "0" * 64, f"a{number}"), tag="") for number in range(40)]
    put_index(fake, *(entry(digest, kind=INDEX) for digest in empty))
    with pytest.raises(RegistryError, match="too deep"):
        find(fake)
    assert len(fake.paths("GET")) < 30


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"artifactType": "application/vnd.x.helm"}, "artifact of type 'application/vnd.x.helm'"),
        (
            {"config": {"mediaType": "application/vnd.cncf.helm", "digest": digest_of(b""), "size": 0}},
            "artifact of type",
        ),
        ({"layers": []}, "has 0 layers, its config 1"),
        ({"manifests": []}, "at once"),
        ({"schemaVersion": 1}, "schema 1"),
        ({"config": None}, "config"),
        ({"layers": [{"mediaType": f"{LAYER_TAR}+encrypted", "digest": digest_of(b""), "size": 1}]}, "encrypted"),
        ({"layers": [{"mediaType": LAYER_TAR, "digest": "md5:0", "size": 1}]}, "not a digest"),
        ({"layers": [{"mediaType": LAYER_TAR, "digest": digest_of(b""), "size": -1}]}, "below zero"),
    ],
)
def test_manifests_that_are_refused(fake: FakeRegistry, changes: dict[str, Any], problem: str) -> None:
    """Artifacts, contradictions and nonsense say what they are."""
    put_image(fake, config_of(), tag="1", **changes)
    with pytest.raises(RegistryError, match=problem):
        find(fake)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (config_of(os="windows"), "windows"),
        (config_of(rootfs={"type": "x", "diff_ids": [digest_of(b"layer")]}), "type 'x'"),
        (config_of(rootfs={"type": "layers", "diff_ids": ["sha256:0"]}), "not a digest"),
        (b"[]", "config"),
        (b"\xff", "config"),
    ],
)
def test_configurations_that_are_refused(fake: FakeRegistry, config: bytes, problem: str) -> None:
    """What cannot run here is said before anything is fetched."""
    put_image(fake, config, tag="1")
    with pytest.raises(RegistryError, match=problem):
        find(fake)


def test_a_manifest_that_says_it_is_an_index(fake: FakeRegistry) -> None:
    """The media type and the content must agree: two programs must not see two images under one digest."""
    put_image(fake, config_of(), tag="1", mediaType=INDEX)
    with pytest.raises(RegistryError, match=r"but also|neither"):
        find(fake)


def test_too_many_layers(fake: FakeRegistry) -> None:
    """Linux could not stack them."""
    diff_ids = [digest_of(str(number).encode()) for number in range(501)]
    layers = [{"mediaType": LAYER_TAR, "digest": one, "size": 1} for one in diff_ids]
    put_image(fake, config_of(rootfs={"type": "layers", "diff_ids": diff_ids}), tag="1", layers=layers)
    with pytest.raises(RegistryError, match="501 layers"):
        find(fake)
