"""Whether the parts of a bundle fit each other: every document, layer and file against what names it."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.events import Listener
from mlbox.oci.artifact import ArtifactManifest
from mlbox.oci.digest import DiffID, Digest, hex_of
from mlbox.oci.image import (
    INDEX,
    INDEX_TYPES,
    MANIFEST,
    Descriptor,
    Image,
    ImageIndex,
    Manifest,
    local_image,
    parse_config,
)
from mlbox.registry.bundle import BundledFile, BundledImage, BundledLayer, BundledReferrer, BundledRemote
from mlbox.registry.bundle_contents import Damage
from mlbox.registry.bundle_read import Bundle
from mlbox.store.compression import decompressed

T = TypeVar("T")


def check_documents(bundle: Bundle) -> dict[Digest, Image]:
    """Check everything but layers and files against the rest, and return the images."""
    contents = bundle.contents
    sizes = {layer.diff_id: layer.size for layer in contents.layers}
    blobs = {layer.diff_id: layer.blob for layer in contents.layers if layer.blob}
    images = {bundled.digest: _checked_image(bundle, bundled, sizes) for bundled in contents.images}
    for bundled in contents.images:
        if bundled.manifest is not None:
            data = bundle.document(bundled.manifest.digest)
            if data != manifest_for_others(images[bundled.digest], blobs):
                raise Damage(f"{bundle.name}: the manifest of image {bundled.digest} is of another image")
    used = {diff_id for image in images.values() for diff_id in image.config.rootfs.diff_ids}
    if unused := sizes.keys() - used:
        raise Damage(f"{bundle.name}: layer {min(unused)} is of no image")
    _check_remotes(bundle, images)
    for referrer in contents.referrers:
        _check_referrer(bundle, referrer)
    return images


def _checked_image(bundle: Bundle, bundled: BundledImage, sizes: dict[DiffID, int]) -> Image:
    data = bundle.document(bundled.config.digest)
    probe = local_image_of(data, sizes, bundle.name)
    if probe.digest != bundled.digest or probe.manifest.config != bundled.config:
        raise Damage(f"{bundle.name}: image {bundled.digest} is not what its configuration and layers make")
    if (probe.config.architecture, probe.config.os) != (bundled.architecture, bundled.os):
        raise Damage(f"{bundle.name}: image {bundled.digest} is for another platform than it says")
    return probe


def local_image_of(config_bytes: bytes, sizes: dict[DiffID, int], what: str) -> Image:
    """Return the image of a configuration whose layers have those `sizes`; Damage when one has none."""

    diff_ids = parse_config(config_bytes, Damage).rootfs.diff_ids
    if unknown := [diff_id for diff_id in diff_ids if diff_id not in sizes]:
        raise Damage(f"{what}: nothing says where layer {unknown[0]} comes from")
    return local_image(config_bytes, [sizes[diff_id] for diff_id in diff_ids], Damage)


def _check_remotes(bundle: Bundle, images: dict[Digest, Image]) -> None:
    """Check that each manifest is of its image, and each index of a manifest that is."""
    of_image: dict[Digest, set[Digest]] = {}
    indexes: list[tuple[BundledRemote, bytes]] = []
    for remote in bundle.contents.remotes:
        data = bundle.document(remote.manifest.digest)
        if media_type_of(data) != remote.manifest.media_type:
            raise Damage(f"{bundle.name}: manifest {remote.manifest.digest} is not of the type it should be")
        if is_index(remote.manifest.media_type):
            indexes.append((remote, data))
            continue
        manifest = decode_json(data, ArtifactManifest, what=f"manifest {remote.manifest.digest}", error=Damage)
        if manifest.config.digest != images[remote.image].manifest.config.digest:
            raise Damage(f"{bundle.name}: manifest {remote.manifest.digest} is of another image")
        of_image.setdefault(remote.image, set()).add(remote.manifest.digest)
    for remote, data in indexes:
        index = decode_json(data, ImageIndex, what=f"index {remote.manifest.digest}", error=Damage)
        if not of_image.get(remote.image, set()) & {entry.digest for entry in index.manifests}:
            raise Damage(f"{bundle.name}: index {remote.manifest.digest} does not list its image")


def _check_referrer(bundle: Bundle, referrer: BundledReferrer) -> None:
    manifest = artifact_manifest(bundle, referrer)
    subject = manifest.subject.digest if manifest.subject else None
    blobs = {blob.digest: blob.size for blob in (manifest.config, *manifest.layers)}
    if subject != referrer.subject or blobs != {blob.digest: blob.size for blob in referrer.blobs}:
        raise Damage(f"{bundle.name}: artifact {referrer.manifest.digest} is not what the contents say")
    for blob in referrer.blobs:
        finish(bundle.blob(blob.digest))


def artifact_manifest(bundle: Bundle, referrer: BundledReferrer) -> ArtifactManifest:
    data = bundle.document(referrer.manifest.digest)
    return decode_json(data, ArtifactManifest, what=f"artifact {referrer.manifest.digest}", error=Damage)


def check_layer(bundle: Bundle, layer: BundledLayer, listener: Listener) -> None:
    if layer.blob is None:
        return
    chunks = bundle.blob(layer.blob.digest)
    hasher, size = hashlib.sha256(), 0
    for chunk in told(decompressed(chunks, layer.size, name=f"layer {layer.name}"), listener, "verify"):
        hasher.update(chunk)
        size += len(chunk)
    finish(chunks)
    if size != layer.size or hasher.hexdigest() != hex_of(layer.diff_id):
        raise Damage(f"{bundle.name}: layer {layer.name} does not have the content that its diffID says")


def check_file(bundle: Bundle, file: BundledFile, listener: Listener) -> None:
    finish(told(bundle.blob(file.digest), listener, "verify"))


def manifest_for_others(image: Image, blobs: Mapping[DiffID, Descriptor]) -> bytes:
    """Return the manifest by which other tools read the image: of its compressed layers."""
    layers = tuple(blobs[DiffID(layer.digest)] for layer in image.manifest.layers)
    return canonical_json(Manifest(config=image.manifest.config, layers=layers))


def media_type_of(data: bytes) -> str:
    """Return what kind of manifest `data` is."""
    kind = decode_json(data, _Kind, what="a manifest")
    return kind.media_type or (INDEX if bytes(kind.manifests) else MANIFEST)


def is_index(media_type: str) -> bool:
    """Whether a manifest of that type lists others."""
    return media_type in INDEX_TYPES


class _Kind(msgspec.Struct, rename="camel"):
    media_type: str = ""
    manifests: msgspec.Raw = msgspec.Raw()


def told(chunks: Iterable[T], listener: Listener, what: str) -> Iterator[T]:
    for chunk in chunks:
        yield chunk
        listener.advance(what, len(chunk))  # type: ignore[arg-type]  # bytes and memoryviews


def finish(chunks: Iterable[object]) -> None:
    """Read to the end, where a blob is compared with its digest."""
    for _ in chunks:
        pass


def largest_first(layers: Iterable[BundledLayer]) -> list[BundledLayer]:
    return sorted(layers, key=lambda layer: (-layer.size, layer.diff_id))
