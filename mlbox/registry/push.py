"""From the store into a registry: each layer compressed once, and nothing sent that is there."""

import hashlib
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import msgspec

from mlbox.codec import canonical_json
from mlbox.errors import StoreError
from mlbox.events import SILENT, Listener
from mlbox.files import disk_errors
from mlbox.oci.artifact import EMPTY_BYTES, THIN_TYPE, Artifact, ArtifactManifest, Blob, manifest_of
from mlbox.oci.digest import DiffID, Digest, digest_of
from mlbox.oci.image import (
    CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_TAR,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    MANIFEST,
    Descriptor,
    Image,
    Manifest,
)
from mlbox.oci.reference import Reference
from mlbox.registry.client import Registry
from mlbox.registry.parallel import Stop, in_threads
from mlbox.registry.transfer import DIFF_ID
from mlbox.store.compression import MEDIA_TYPES, Compression, compressed
from mlbox.store.publish import temporary_file
from mlbox.store.store import Store

CONNECTIONS = 4
"""Layers that are on their way at once."""
_COMPRESSED_AT_ONCE = 2
_MOUNT_TRIES = 3
"""Repositories that are asked for a blob before it is uploaded."""
_OCI_TYPES = {DOCKER_LAYER: LAYER_GZIP, DOCKER_LAYER_TAR: LAYER_TAR}
_ORDER = (LAYER_ZSTD, LAYER_GZIP, LAYER_TAR)
"""Which of several known blobs of a layer is taken: always the same, so that a second push makes the same manifest."""

How = Literal["there", "mounted", "uploaded"]


class PushedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """How a layer reached the registry."""

    diff_id: DiffID
    digest: Digest
    """Of its blob."""
    size: int
    """Bytes of its blob."""
    how: How


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What a registry now has."""

    digest: Digest
    """Of the manifest."""
    size: int
    """Bytes of the manifest."""
    layers: tuple[PushedLayer, ...]

    @property
    def descriptor(self) -> Descriptor:
        """How an artifact about the pushed image refers to it."""
        return Descriptor(media_type=MANIFEST, digest=self.digest, size=self.size)

    @property
    def moved(self) -> int:
        """Bytes of layers that were sent."""
        return sum(layer.size for layer in self.layers if layer.how == "uploaded")


def push_image(
    store: Store,
    registry: Registry,
    target: Reference,
    image: Image,
    *,
    compression: Compression | None = None,
    left_out: Collection[DiffID] = (),
    inside: Sequence[Blob] = (),
    listener: Listener = SILENT,
) -> Pushed:
    """Send `image` to `target` and remember what became of it; what the registry has is not sent.

    Without a `compression` any form of a layer that the registry already has is taken, else zstd. With `inside` (or
    `left_out`) the image is a thin one: those documents travel in it, those layers do not.
    Call it inside `store.using()`. Raises RegistryError, or StoreError when a layer was damaged on the disk.
    """
    work = _Push(store, registry, target, image, compression, listener)
    diff_ids = [diff_id for diff_id in dict.fromkeys(image.config.rootfs.diff_ids) if diff_id not in left_out]
    sizes = dict(zip(image.config.rootfs.diff_ids, (layer.size for layer in image.manifest.layers), strict=True))
    largest_first = sorted(diff_ids, key=lambda diff_id: -sizes[diff_id])
    done = {
        layer.diff_id: (layer, blob) for layer, blob in in_threads(work.layer, largest_first, CONNECTIONS, work.stop)
    }
    registry.put_blob(target.repository, image.config_bytes)
    for document in inside:
        registry.put_blob(target.repository, document.data)
    is_thin = bool(inside or left_out)
    data = _thin_manifest(image, done, inside) if is_thin else _manifest(image, {k: v[1] for k, v in done.items()})
    pushed = Pushed(
        digest=digest_of(data),
        size=len(data),
        layers=tuple(done[diff_id][0] for diff_id in diff_ids),
    )
    put_manifest(registry, target, data, MANIFEST)
    store.content.put(data)
    store.remotes.remember(pushed.digest, target.name, image.digest)
    return pushed


def put_manifest(registry: Registry, target: Reference, data: bytes, media_type: str) -> None:
    """Put a manifest under the target's tag, or its digest when it has none, unless it is there."""
    name = target.tag or target.digest or digest_of(data)
    there = registry.find(target.repository, name)
    if there is None or there.digest != digest_of(data):
        registry.put_manifest(target.repository, name, data, media_type)


def attach(registry: Registry, repository: str, artifact: Artifact, subject: Descriptor) -> Digest:
    """Send what `artifact` says about `subject` and return the digest of its manifest; what is there stays."""
    data = manifest_of(artifact, subject)
    digest = digest_of(data)
    if registry.find(repository, digest) is None:
        registry.put_blob(repository, EMPTY_BYTES)
        for blob in artifact.blobs:
            registry.put_blob(repository, blob.data)
        registry.put_referrer(repository, data, subject)
    return digest


def attach_kept(store: Store, registry: Registry, repository: str, subject: Descriptor) -> tuple[Digest, ...]:
    """Send the artifacts that the store has about `subject`, which is in `repository`, and return their digests."""
    kept = store.referrers.sent(subject.digest)
    for artifact in kept:
        if registry.find(repository, artifact.digest) is None:
            manifest = store.referrers.manifest(artifact.digest)
            for blob in (manifest.config, *manifest.layers):
                registry.put_blob(repository, store.referrers.blob(blob))
            registry.put_referrer(repository, store.content.read(artifact.digest), subject)
    return tuple(artifact.digest for artifact in kept)


class _Push:
    """Sends the layers of one image."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        target: Reference,
        image: Image,
        compression: Compression | None,
        listener: Listener,
    ) -> None:
        self._store = store
        self._registry = registry
        self._target = target
        self._image = image
        self._compression = compression
        self._listener = listener
        self._processors = threading.Semaphore(min(_COMPRESSED_AT_ONCE, len(os.sched_getaffinity(0))))
        self.stop = Stop()
        self._mutex = threading.Lock()

    def layer(self, diff_id: DiffID) -> tuple[PushedLayer, Descriptor]:
        """Have one layer in the registry and return how a manifest refers to it."""
        known = self._known(diff_id)
        for blob in known:
            if self._registry.has_blob(self._target.repository, blob.digest):
                return self._done(diff_id, blob, "there")
        for blob in known:
            if self._mounted(diff_id, blob):
                return self._done(diff_id, blob, "mounted")
        return self._sent(diff_id)

    def _known(self, diff_id: DiffID) -> list[Descriptor]:
        """Return the blobs that are known to be the layer and that fit what was asked for, the best first."""
        blobs = [
            Descriptor(media_type=_OCI_TYPES.get(blob.media_type, blob.media_type), digest=blob.digest, size=blob.size)
            for blob in self._store.remotes.blobs_of(diff_id)
        ]
        asked = (MEDIA_TYPES[self._compression],) if self._compression else _ORDER
        fitting = [blob for blob in blobs if blob.media_type in asked]
        return sorted(fitting, key=lambda blob: (_ORDER.index(blob.media_type), blob.digest))

    def _mounted(self, diff_id: DiffID, blob: Descriptor) -> bool:
        others = [name for name in self._repositories.get(diff_id, ()) if name != self._target.repository]
        return any(self._registry.mount(self._target.repository, blob.digest, name) for name in others[:_MOUNT_TRIES])

    @cached_property
    def _all_repositories(self) -> dict[DiffID, tuple[str, ...]]:
        """The repositories of this registry that hold an image with the layer, as far as we know."""
        found: dict[DiffID, dict[str, None]] = {}
        prefix = f"{self._target.registry}/"
        for digest in self._store.images.digests():
            names = [remote.repository for remote in self._store.remotes.of(digest)]
            here = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
            if here:
                for diff_id in self._store.images.load(digest).config.rootfs.diff_ids:
                    found.setdefault(diff_id, {}).update(dict.fromkeys(here))
        return {diff_id: tuple(names) for diff_id, names in found.items()}

    @property
    def _repositories(self) -> dict[DiffID, tuple[str, ...]]:
        with self._mutex:
            return self._all_repositories

    def _sent(self, diff_id: DiffID) -> tuple[PushedLayer, Descriptor]:
        how = self._compression or "zstd"
        what = f"compressing layer {diff_id}"
        with disk_errors(what), temporary_file(self._store.home.tmp, "push") as (path, file):
            with self._processors:
                blob = _compressed(partial(self._tar, diff_id), how, file.write)
                file.flush()
            self._store.remotes.remember_blob(blob.digest, diff_id, blob.media_type, blob.size)
            if self._registry.has_blob(self._target.repository, blob.digest):
                return self._done(diff_id, blob, "there")
            self._upload(path, blob)
        return self._done(diff_id, blob, "uploaded")

    def _upload(self, path: Path, blob: Descriptor) -> None:
        self._listener.expect("push", blob.size)
        self._registry.upload(self._target.repository, path, blob, listener=self.stop.listener(self._listener))

    def _tar(self, diff_id: DiffID) -> Iterator[bytes | memoryview]:
        """Yield the layer's tar; at its end it was the one that the image names, or StoreError is raised."""
        digest = hashlib.sha256()
        for chunk in self.stop.watching(self._store.layers.tar(diff_id)):
            digest.update(chunk)
            yield chunk
        if f"sha256:{digest.hexdigest()}" != diff_id:
            raise StoreError(f"layer {diff_id} was changed on the disk", hint="run 'mlbox fsck --deep --repair'")

    def _done(self, diff_id: DiffID, blob: Descriptor, how: How) -> tuple[PushedLayer, Descriptor]:
        return PushedLayer(diff_id=diff_id, digest=blob.digest, size=blob.size, how=how), blob


def _compressed(
    tar: Callable[[], Iterator[bytes | memoryview]], how: Compression, write: Callable[[bytes | memoryview], object]
) -> Descriptor:
    digest, size = hashlib.sha256(), 0
    for chunk in compressed(tar(), how):
        digest.update(chunk)
        size += len(chunk)
        write(chunk)
    return Descriptor(media_type=MEDIA_TYPES[how], digest=Digest(f"sha256:{digest.hexdigest()}"), size=size)


def _manifest(image: Image, blobs: dict[DiffID, Descriptor]) -> bytes:
    layers = tuple(blobs[diff_id] for diff_id in image.config.rootfs.diff_ids)
    return canonical_json(Manifest(config=_config(image), layers=layers))


def _config(image: Image) -> Descriptor:
    return Descriptor(media_type=CONFIG, digest=image.manifest.config.digest, size=len(image.config_bytes))


def _thin_manifest(image: Image, done: dict[DiffID, tuple[PushedLayer, Descriptor]], inside: Sequence[Blob]) -> bytes:
    layers = [
        msgspec.structs.replace(done[diff_id][1], annotations={DIFF_ID: diff_id})
        for diff_id in dict.fromkeys(image.config.rootfs.diff_ids)
        if diff_id in done
    ]
    return canonical_json(
        ArtifactManifest(
            schema_version=2,
            media_type=MANIFEST,
            artifact_type=THIN_TYPE,
            config=_config(image),
            layers=(*layers, *(document.descriptor for document in inside)),
        )
    )
