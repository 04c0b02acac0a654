import json

import pytest

from mlbox.errors import MlboxError, StoreError
from mlbox.oci.digest import DiffID, Digest, digest_of
from mlbox.oci.image import (
    CONFIG,
    LAYER_TAR,
    MANIFEST,
    ContainerConfig,
    Descriptor,
    Image,
    ImageConfig,
    RootFS,
    image_of,
    local_image,
    parse_config,
    parse_image,
)

LAYER = "sha256:" + "1" * 64


@pytest.fixture
def image() -> Image:
    config = ImageConfig(
        architecture="amd64",
        os="linux",
        config=ContainerConfig(env=("A=1",), working_dir="/workspace"),
        rootfs=RootFS(diff_ids=(DiffID(LAYER),)),
    )
    layer = Descriptor(media_type=LAYER_TAR, digest=Digest(LAYER), size=10)
    return image_of(config, (layer,))


def test_the_documents_are_what_the_image_spec_says(image: Image) -> None:
    config = {
        "architecture": "amd64",
        "config": {"Env": ["A=1"], "WorkingDir": "/workspace"},
        "os": "linux",
        "rootfs": {"diff_ids": [LAYER], "type": "layers"},
    }
    assert json.loads(image.config_bytes) == config | {"rootfs": {"diff_ids": [LAYER]} | config["rootfs"]}
    assert json.loads(image.manifest_bytes) == {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(image.config_bytes), "size": len(image.config_bytes)},
        "layers": [{"mediaType": LAYER_TAR, "digest": LAYER, "size": 10}],
        "annotations": {},
    }
    assert image.digest == digest_of(image.manifest_bytes)


def test_an_image_parses_back(image: Image) -> None:
    assert parse_image(image.manifest_bytes, image.config_bytes) == image


def test_bytes_of_others_keep_their_digest(image: Image) -> None:
    spaced = json.dumps(json.loads(image.manifest_bytes), indent=3).encode()
    assert parse_image(spaced, image.config_bytes).digest == digest_of(spaced) != image.digest


def test_a_manifest_with_another_config_is_refused(image: Image) -> None:
    with pytest.raises(StoreError, match="another digest"):
        parse_image(image.manifest_bytes, image.config_bytes + b" ", StoreError)


def test_as_many_layers_as_diff_ids() -> None:
    config = ImageConfig(architecture="amd64", os="linux", rootfs=RootFS(diff_ids=()))
    layer = Descriptor(media_type=LAYER_TAR, digest=Digest(LAYER), size=10)
    image = image_of(config, (layer,))
    with pytest.raises(StoreError, match="1 layers, 0 diffIDs"):
        parse_image(image.manifest_bytes, image.config_bytes, StoreError)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"size":10', b'"size":-1'),
        (LAYER.encode(), b"sha256:../../../etc/passwd"),
        (b'"layers"', b'"levels"'),
        (b"+json", b"\xff"),
        (b"{", b"[" * 100_000),
    ],
)
def test_damaged_manifests_are_refused(image: Image, old: bytes, new: bytes) -> None:
    with pytest.raises(StoreError, match="manifest sha256:"):
        parse_image(image.manifest_bytes.replace(old, new), image.config_bytes, StoreError)


def test_a_store_keeps_an_image_the_same_however_it_came(image: Image) -> None:
    assert local_image(image.config_bytes, (10,)) == image
    with pytest.raises(StoreError, match="1 diffIDs for 2 layers"):
        local_image(image.config_bytes, (10, 20), StoreError)


def test_a_configuration_of_docker_may_hold_nulls(image: Image) -> None:
    document = json.loads(image.config_bytes)
    document["config"] |= {"Volumes": None, "Cmd": None, "Env": ["A=1", None], "Unknown": {"a": None}}
    document |= {"container": "abc", "history": None, "created": None}
    assert parse_config(json.dumps(document).encode()) == image.config


@pytest.mark.parametrize("data", [b"[]", b"null", b"{}", b'{"os": 3}', b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(StoreError, match="config sha256:"):
        parse_config(data, StoreError)


@pytest.mark.parametrize("depth", [10, 600, 990, 100_000])
def test_deep_nesting_is_an_error_like_any_other(depth: int) -> None:
    """However deep: what one decoder still takes may be too deep for the next step."""
    data = b'{"x":' + b"[" * depth + b"]" * depth + b',"rootfs":null}'
    with pytest.raises(MlboxError, match=r"^config sha256:"):
        parse_config(data)
