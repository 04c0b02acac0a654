"""The image-spec's documents, field for field (image-spec v1.1), and the media types Docker had before it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import MlboxError
from mlbox.oci.digest import DiffID, Digest, digest_of, is_digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar"

MOST_LAYERS = 500
"""overlayfs stacks no more (fs/overlayfs/params.h)."""
MANIFEST_TYPES = (MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (INDEX, DOCKER_INDEX)
CONFIG_TYPES = (CONFIG, DOCKER_CONFIG)


class Document(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of the documents whose keys are written in camelCase."""


class Platform(Document, frozen=True, kw_only=True):
    """The machine an image is for."""

    architecture: str
    os: str
    variant: str = ""


class Descriptor(Document, frozen=True, kw_only=True):
    """A typed reference to a blob: what it is, its digest, its size in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] = {}
    platform: Platform | None = None
    artifact_type: str = ""

    def __post_init__(self) -> None:
        if not is_digest(self.digest):
            raise ValueError(f"not a digest: {self.digest[:100]!r}")
        if self.size < 0:
            raise ValueError("a size below zero")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=False):
    """An image: its configuration and its layers, lowest first."""

    schema_version: int = 2
    media_type: str = MANIFEST
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}


class ImageIndex(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A list of images, one per platform."""

    schema_version: int = 2
    media_type: str = INDEX
    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """Docker's extension of the config: how to ask a container whether it is well; times in nanoseconds."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    retries: int = 0


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """The inner 'config' object: the defaults a container of this image starts with."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] = {}
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: dict[str, dict[str, Any]] = {}
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    """The layers' diffIDs, lowest first."""

    type: str = "layers"
    diff_ids: tuple[DiffID, ...]

    def __post_init__(self) -> None:
        for diff_id in self.diff_ids:
            if not is_digest(diff_id):
                raise ValueError(f"not a digest: {diff_id[:100]!r}")


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one layer (or none) came about."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The image configuration document; the inner ContainerConfig is its `config`."""

    created: str = ""
    architecture: str
    os: str
    variant: str = ""
    config: ContainerConfig = ContainerConfig()
    rootfs: RootFS
    history: tuple[History, ...] = ()


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest with its configuration and the exact bytes both were read from."""

    digest: Digest
    manifest: Manifest
    config: ImageConfig
    manifest_bytes: bytes
    config_bytes: bytes


def image_of(config: ImageConfig, layers: tuple[Descriptor, ...]) -> Image:
    """Return the image with that configuration and those layers; its digests follow from canonical JSON."""
    return _image(config, canonical_json(config), layers)


def local_image(config_bytes: bytes, sizes: Sequence[int], error: type[MlboxError] = MlboxError) -> Image:
    """Return the image of a configuration as a store keeps it, whoever made it and however it travelled.

    Its manifest refers to the layers uncompressed: their digests are the configuration's diffIDs, their `sizes`
    those of the tars, in bytes. So the digest is the same on every machine.
    """
    config = parse_config(config_bytes, error)
    if len(config.rootfs.diff_ids) != len(sizes):
        raise error(f"config {digest_of(config_bytes)}: {len(config.rootfs.diff_ids)} diffIDs for {len(sizes)} layers")
    layers = tuple(
        Descriptor(media_type=LAYER_TAR, digest=Digest(diff_id), size=size)
        for diff_id, size in zip(config.rootfs.diff_ids, sizes, strict=True)
    )
    return _image(config, config_bytes, layers)


def parse_image(manifest_bytes: bytes, config_bytes: bytes, error: type[MlboxError] = MlboxError) -> Image:
    """Decode both documents and check that they belong together."""
    digest = digest_of(manifest_bytes)
    manifest = decode_json(manifest_bytes, Manifest, what=f"manifest {digest}", error=error)
    if digest_of(config_bytes) != manifest.config.digest:
        raise error(f"manifest {digest}: its configuration has another digest than it says")
    config = parse_config(config_bytes, error)
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise error(f"manifest {digest}: {len(manifest.layers)} layers, {len(config.rootfs.diff_ids)} diffIDs")
    return Image(
        digest=digest,
        manifest=manifest,
        config=config,
        manifest_bytes=manifest_bytes,
        config_bytes=config_bytes,
    )


def check_for_linux(config: ImageConfig, name: str, error: type[MlboxError]) -> None:
    """Raise `error` when the image `name` can run on no Linux, whatever its architecture."""
    if config.os not in ("", "linux"):
        raise error(f"{name} is for {config.os[:40]!r}; mlbox runs images for linux")
    if config.rootfs.type != "layers":
        raise error(f"{name}: its configuration has a root file system of type {config.rootfs.type[:40]!r}")
    if len(config.rootfs.diff_ids) > MOST_LAYERS:
        raise error(f"{name} has {len(config.rootfs.diff_ids)} layers; Linux stacks {MOST_LAYERS}")


def parse_config(data: bytes, error: type[MlboxError] = MlboxError) -> ImageConfig:
    """Decode an image configuration; what Docker writes as null (an empty list in Go) counts as left out."""
    what = f"config {digest_of(data)}"
    try:
        return decode_json(data, ImageConfig, what=what, error=error)
    except error:
        document = decode_json(data, dict[str, Any], what=what, error=error)
        try:
            return msgspec.convert(_without_nulls(document), ImageConfig)
        except (msgspec.ValidationError, RecursionError) as problem:
            raise error(f"{what}: {problem}") from problem


def _image(config: ImageConfig, config_bytes: bytes, layers: tuple[Descriptor, ...]) -> Image:
    descriptor = Descriptor(media_type=CONFIG, digest=digest_of(config_bytes), size=len(config_bytes))
    manifest = Manifest(config=descriptor, layers=layers)
    manifest_bytes = canonical_json(manifest)
    return Image(
        digest=digest_of(manifest_bytes),
        manifest=manifest,
        config=config,
        manifest_bytes=manifest_bytes,
        config_bytes=config_bytes,
    )


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value if inner is not None]
    return value
