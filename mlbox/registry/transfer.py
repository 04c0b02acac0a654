"""What a name in a registry means: the one manifest of an image, whose documents fit each other."""

from collections.abc import Iterator, Mapping

import msgspec

from mlbox.codec import decode_json
from mlbox.errors import RegistryError
from mlbox.oci.artifact import THIN_TYPE, ArtifactManifest
from mlbox.oci.digest import DiffID, Digest, digest_of
from mlbox.oci.image import (
    CONFIG_TYPES,
    INDEX,
    INDEX_TYPES,
    MANIFEST,
    MANIFEST_TYPES,
    Descriptor,
    ImageConfig,
    ImageIndex,
    check_for_linux,
    parse_config,
)
from mlbox.oci.reference import Reference
from mlbox.registry.client import Registry
from mlbox.registry.manifests import Fetched
from mlbox.registry.problem import AGAIN

DIFF_ID = "dev.mlbox.layer.diff-id"
"""Annotation of a layer in a thin image: which of the configuration's layers it is."""
DEPTH = 4
"""How deep an index may lie in an index."""
_MOST_INDEXES = 16
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"


class RemoteImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image as it lies in a registry; its manifest and configuration belong together."""

    reference: Reference
    """As it was asked for."""
    digest: Digest
    """Of the manifest."""
    media_type: str
    manifest: ArtifactManifest
    manifest_bytes: bytes
    config: ImageConfig
    config_bytes: bytes
    blobs: Mapping[DiffID, Descriptor]
    """The blob of each layer; a thin image lacks those that can be made again."""
    index: tuple[Digest, bytes] | None = None
    """The index that the name stands for, when it does not stand for the manifest."""

    @property
    def is_thin(self) -> bool:
        """Whether layers that can be made again were left out."""
        return self.manifest.artifact_type == THIN_TYPE

    @property
    def descriptor(self) -> Descriptor:
        """How an artifact about this image refers to it."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.manifest_bytes))

    @property
    def subjects(self) -> tuple[Descriptor, ...]:
        """What a signature of this image can be about: its manifest, and the index that holds it."""
        if self.index is None:
            return (self.descriptor,)
        digest, data = self.index
        return (self.descriptor, Descriptor(media_type=INDEX, digest=digest, size=len(data)))

    @property
    def diff_ids(self) -> tuple[DiffID, ...]:
        """The layers, lowest first, each once."""
        return tuple(dict.fromkeys(self.config.rootfs.diff_ids))


def resolve(registry: Registry, reference: Reference, arch: str) -> RemoteImage:
    """Return the image that `reference` means for `arch`; of an index the manifest for linux and `arch`.

    A name of a single image gives that image, whatever it is for. Raises RegistryError when there is no such image,
    when it is no image, or when its documents contradict each other.
    """
    named = registry.manifest(reference.repository, reference.digest or reference.tag)
    found = _Search(registry, reference, arch).image(named) if kind_of(named) in INDEX_TYPES else named
    manifest = image_manifest(found, reference)
    config_bytes = registry.blob(reference.repository, manifest.config)
    config = parse_config(config_bytes, RegistryError)
    _check_config(manifest, config, config_bytes, reference)
    return RemoteImage(
        reference=reference,
        digest=found.digest,
        media_type=kind_of(found),
        manifest=manifest,
        manifest_bytes=found.data,
        config=config,
        config_bytes=config_bytes,
        blobs=_blobs(manifest, config, reference),
        index=None if found is named else (named.digest, named.data),
    )


def require_arch(image: RemoteImage, arch: str) -> None:
    """Raise RegistryError when the image is for another machine than the one asked for."""
    found = image.config.architecture
    if found != arch:
        raise RegistryError(
            f"{image.reference.familiar} is for {found or 'no machine it names'}, not for {arch}",
            hint=f"'--arch {found}' takes it" if found else AGAIN,
        )


class _Shape(msgspec.Struct, rename="camel"):
    media_type: str = ""
    schema_version: int = 0
    config: msgspec.Raw = msgspec.Raw()
    layers: msgspec.Raw = msgspec.Raw()
    manifests: msgspec.Raw = msgspec.Raw()


def kind_of(fetched: Fetched) -> str:
    """Return the media type of a manifest: what it says itself, else what the registry says of it.

    A document that could be read as an image and as an index is refused: two programs would see two images.
    """
    shape = decode_json(fetched.data, _Shape, what=f"manifest {fetched.digest}", error=RegistryError)
    kind = shape.media_type or fetched.media_type
    is_index, is_image = bool(bytes(shape.manifests)), bool(bytes(shape.config) or bytes(shape.layers))
    if shape.schema_version == 1 or kind.startswith(_SCHEMA1):
        raise RegistryError(
            f"manifest {fetched.digest} has the format of 2015 (schema 1), which mlbox does not read",
            hint="push the image again with a newer program",
        )
    if is_index == is_image or (kind in INDEX_TYPES and is_image) or (kind in MANIFEST_TYPES and is_index):
        raise RegistryError(f"manifest {fetched.digest} is neither an image nor an index ({kind[:100]!r})", hint=AGAIN)
    if kind in (*INDEX_TYPES, *MANIFEST_TYPES):
        return kind
    return INDEX if is_index else MANIFEST


def image_manifest(fetched: Fetched, reference: Reference) -> ArtifactManifest:
    """Return the manifest of an image (or a thin one); anything else that a registry can hold is refused."""
    what = f"manifest {fetched.digest}"
    manifest = decode_json(fetched.data, ArtifactManifest, what=what, error=RegistryError)
    if manifest.artifact_type not in ("", THIN_TYPE) or manifest.config.media_type not in CONFIG_TYPES:
        raise RegistryError(
            f"{reference.familiar} is no image but an artifact of type {manifest.kind[:100]!r}",
            hint="'mlbox tags' lists what else the repository has",
        )
    return manifest


def platforms(index: ImageIndex) -> tuple[str, ...]:
    """Return what the images of `index` are for, as 'linux/arm64/v8'."""
    found = (entry.platform for entry in index.manifests if entry.platform and entry.platform.os != "unknown")
    return tuple(
        dict.fromkeys("/".join(filter(None, (one.os, one.architecture, one.variant))) for one in found),
    )


def index_of(fetched: Fetched) -> ImageIndex:
    """Return the decoded index."""
    return decode_json(fetched.data, ImageIndex, what=f"index {fetched.digest}", error=RegistryError)


class _Search:
    """Looks for the image of one architecture in an index, and in the indexes in it."""

    def __init__(self, registry: Registry, reference: Reference, arch: str) -> None:
        self._registry = registry
        self._reference = reference
        self._arch = arch
        self._seen: set[Digest] = set()
        self._known: dict[str, None] = {}

    def image(self, index: Fetched) -> Fetched:
        """Return the manifest; raises RegistryError saying what there is instead."""
        found = self._find(index, DEPTH)
        if found is not None:
            return found
        there = ", ".join(self._known) or "nothing that says what it is for"
        raise RegistryError(
            f"{self._reference.familiar} has no image for linux/{self._arch}; it has {there}",
            hint="--arch takes another one, which will not run here",
        )

    def _find(self, index: Fetched, depth: int) -> Fetched | None:
        self._seen.add(index.digest)
        decoded = index_of(index)
        self._known.update(dict.fromkeys(platforms(decoded)))
        for entry in _in_order(decoded, self._arch):
            if entry.digest in self._seen:
                continue
            if len(self._seen) > _MOST_INDEXES or depth == 0:
                raise RegistryError(f"{self._reference.familiar}: its indexes lie too deep in each other", hint=AGAIN)
            fetched = self._registry.manifest(self._reference.repository, entry.digest)
            if kind_of(fetched) not in INDEX_TYPES:
                return fetched
            if (found := self._find(fetched, depth - 1)) is not None:
                return found
        return None


def _in_order(index: ImageIndex, arch: str) -> Iterator[Descriptor]:
    """Yield what may be or hold the image for `arch`, the best first; last what does not say what it is for."""
    fitting = [
        entry
        for entry in index.manifests
        if entry.platform and entry.platform.os == "linux" and entry.platform.architecture == arch
    ]
    # Every machine of the architecture runs the first two; a higher variant may need a newer processor.
    yield from sorted(fitting, key=lambda entry: ("", "v8").index(v) if (v := _variant(entry)) in ("", "v8") else 2)
    unknown = [entry for entry in index.manifests if entry.platform is None]
    yield from (entry for entry in unknown if entry.media_type in INDEX_TYPES)
    if len(index.manifests) == 1:
        yield from (entry for entry in unknown if entry.media_type in MANIFEST_TYPES)


def _variant(entry: Descriptor) -> str:
    return entry.platform.variant if entry.platform else ""


def _check_config(manifest: ArtifactManifest, config: ImageConfig, data: bytes, reference: Reference) -> None:
    name = reference.familiar
    if digest_of(data) != manifest.config.digest or len(data) != manifest.config.size:
        raise RegistryError(f"{name}: its configuration is not the one its manifest names", hint=AGAIN)
    check_for_linux(config, name, RegistryError)


def _blobs(manifest: ArtifactManifest, config: ImageConfig, reference: Reference) -> dict[DiffID, Descriptor]:
    name, diff_ids = reference.familiar, config.rootfs.diff_ids
    if locked := next((layer for layer in manifest.layers if layer.media_type.endswith("+encrypted")), None):
        raise RegistryError(
            f"{name}: layer {locked.digest} is encrypted, which mlbox cannot read", hint="ask for it unencrypted"
        )
    if manifest.artifact_type == THIN_TYPE:
        marked = [(layer.annotations.get(DIFF_ID), layer) for layer in manifest.layers]
        return {DiffID(Digest(diff_id)): layer for diff_id, layer in marked if diff_id in diff_ids and diff_id}
    if len(diff_ids) != len(manifest.layers):
        raise RegistryError(
            f"{name}: its manifest has {len(manifest.layers)} layers, its config {len(diff_ids)}", hint=AGAIN
        )
    return dict(reversed(tuple(zip(diff_ids, manifest.layers, strict=True))))
