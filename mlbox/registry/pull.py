"""From a registry into the store: layers side by side, each byte checked, and nothing fetched twice."""

import os
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from mlbox.errors import ArchiveError, MlboxError, RegistryError, StoreError
from mlbox.events import SILENT, Listener
from mlbox.files import chunks, disk_errors
from mlbox.oci.artifact import EMPTY, LOCK_TYPE, PLAN_TYPE, Artifact, ArtifactManifest, Blob
from mlbox.oci.digest import DiffID, hex_of
from mlbox.oci.image import Descriptor, Image, local_image
from mlbox.oci.reference import Reference
from mlbox.registry.client import Registry
from mlbox.registry.parallel import Stop, in_threads
from mlbox.registry.problem import AGAIN
from mlbox.registry.transfer import RemoteImage
from mlbox.store.compression import decompressed
from mlbox.store.store import Store

CONNECTIONS = 6
"""Layers that are fetched at once."""
_RATIO = 1200
"""How many times larger than its blob a layer may be: no gzip stream exceeds 1032."""
_ROOM = 256 << 20
"""What a small blob may unpack to in any case (zstd has no such bound), and what is left free on the disk."""

Source = Literal["here", "pieces", "artifacts", "registry"]


class PulledLayer(msgspec.Struct, frozen=True, kw_only=True):
    """Where a layer of a pulled image came from."""

    diff_id: DiffID
    source: Source
    size: int
    """Bytes of its tar."""
    moved: int = 0
    """Bytes that went over the network for it."""


def fetch_layers(
    store: Store,
    registry: Registry,
    image: RemoteImage,
    listener: Listener = SILENT,
    *,
    only: Collection[DiffID] | None = None,
) -> tuple[PulledLayer, ...]:
    """Have every layer of `image` (or `only` those) in the store; what is there already is not fetched.

    Call it inside `store.using()`. A blob is collected in a file that outlives this process, so a pull that was
    killed goes on where it was. Raises RegistryError or StoreError when a layer cannot be had or is not what the
    image says.
    """
    wanted = [diff_id for diff_id in image.diff_ids if only is None or diff_id in only]
    work = _Fetch(store, registry, image, listener)
    work.expect(wanted)
    largest_first = sorted(wanted, key=lambda diff_id: -work.size(diff_id))
    done = in_threads(work.layer, largest_first, CONNECTIONS, work.stop)
    by_id = {layer.diff_id: layer for layer in done}
    return tuple(by_id[diff_id] for diff_id in wanted)


class _Fetch:
    """Fetches the layers of one image."""

    def __init__(self, store: Store, registry: Registry, image: RemoteImage, listener: Listener) -> None:
        self._store = store
        self._registry = registry
        self._image = image
        self._listener = listener
        self.stop = Stop()
        self._processors = threading.Semaphore(len(os.sched_getaffinity(0)))

    def size(self, diff_id: DiffID) -> int:
        """Return the bytes of the layer's blob."""
        blob = self._image.blobs.get(diff_id)
        return blob.size if blob else 0

    def expect(self, wanted: Sequence[DiffID]) -> None:
        """Say how much will be fetched."""
        missing = [diff_id for diff_id in wanted if not self._store.layers.has(diff_id)]
        if total := sum(max(0, self.size(diff_id) - self._collected(diff_id)) for diff_id in missing):
            self._listener.expect("pull", total)

    def layer(self, diff_id: DiffID) -> PulledLayer:
        """Have one layer in the store."""
        if self._store.layers.has(diff_id):
            return self._there(diff_id)
        blob = self._image.blobs.get(diff_id)
        if blob is None:
            raise RegistryError(
                f"{self._name}: layer {diff_id} was left out of the image and cannot be made here",
                hint="have it pushed without --thin",
            )
        with self._store.artifacts.fetching(hex_of(blob.digest)):
            if self._store.layers.has(diff_id):  # another pull was faster
                return self._there(diff_id)
            return self._fetched(diff_id, blob)

    def _fetched(self, diff_id: DiffID, blob: Descriptor) -> PulledLayer:
        part = self._store.artifacts.partial(hex_of(blob.digest))
        moved = max(0, blob.size - self._collected(diff_id))
        what = f"layer {blob.digest[7:19]} of {self._name}"
        self._download(blob, part, what)
        with self._processors:
            size = self._ingest(diff_id, blob, part, what)
        self._store.remotes.remember_blob(blob.digest, diff_id, blob.media_type, blob.size)
        part.unlink(missing_ok=True)
        return PulledLayer(diff_id=diff_id, source="registry", size=size, moved=moved)

    def _download(self, blob: Descriptor, part: Path, what: str) -> None:
        try:
            with disk_errors(f"fetching {what}"):
                self._registry.download(
                    self._image.reference.repository, blob, part, listener=self.stop.listener(self._listener), name=what
                )
        except StoreError:
            with suppress(OSError):
                part.unlink()  # on a full disk even the command that makes room needs some
            raise

    def _ingest(self, diff_id: DiffID, blob: Descriptor, part: Path, what: str) -> int:
        limit = min(max(_ROOM, blob.size * _RATIO), _free(part))
        try:
            with part.open("rb") as file:
                return self._store.layers.ingest(
                    diff_id, decompressed(self.stop.watching(chunks(file)), limit, name=what), what
                )
        except ArchiveError:
            part.unlink(missing_ok=True)  # fetched again it would be the same
            raise

    def _collected(self, diff_id: DiffID) -> int:
        """Return how much of the layer's blob an earlier pull left."""
        if blob := self._image.blobs.get(diff_id):
            with suppress(FileNotFoundError):
                return self._store.artifacts.partial(hex_of(blob.digest)).stat().st_size
        return 0

    def _there(self, diff_id: DiffID) -> PulledLayer:
        return here(self._store, diff_id)

    @property
    def _name(self) -> str:
        return self._image.reference.familiar


def here(store: Store, diff_id: DiffID) -> PulledLayer:
    """Return the report on a layer that was in the store before."""
    return PulledLayer(diff_id=diff_id, source="here", size=store.layers.record(diff_id).size)


def keep(store: Store, image: RemoteImage, names: Sequence[Reference] = ()) -> Image:
    """Keep `image`, whose layers are all in the store, give it `names`, and remember where it came from.

    The image here refers to its layers uncompressed, so it is the same image wherever it was pulled from or built.
    """
    sizes = [store.layers.record(diff_id).size for diff_id in image.config.rootfs.diff_ids]
    kept = local_image(image.config_bytes, sizes, RegistryError)
    repository = image.reference.name
    store.content.put(image.manifest_bytes)
    store.images.add(kept)
    store.remotes.remember(image.digest, repository, kept.digest)
    if image.index is not None:
        digest, data = image.index
        store.content.put(data)
        store.remotes.remember(digest, repository, kept.digest)
    for name in names:
        store.images.tag(kept.digest, name)
    return kept


def attached(registry: Registry, image: RemoteImage, kinds: Collection[str], limit: int) -> dict[str, Artifact]:
    """Return the artifacts of `kinds` that the registry has about `image`, the newest of each, by kind.

    Each document may have `limit` bytes. What is damaged or too large counts as not there: it is only advice.
    """
    repository, found = image.reference.repository, {}
    with suppress(RegistryError):
        for descriptor in registry.referrers(repository, image.digest):
            if descriptor.artifact_type in kinds:
                with suppress(MlboxError):
                    found[descriptor.artifact_type] = _artifact(registry, repository, descriptor, limit)
    return found


def inside(registry: Registry, image: RemoteImage, kinds: Collection[str], limit: int) -> dict[str, Artifact]:
    """Return the documents of `kinds` that a thin image carries, by kind."""
    repository = image.reference.repository
    return {
        layer.media_type: Artifact(
            artifact_type=layer.media_type,
            blobs=(Blob(media_type=layer.media_type, data=registry.blob(repository, layer, limit)),),
        )
        for layer in image.manifest.layers
        if layer.media_type in kinds
    }


def keep_attached(store: Store, image: Image, artifacts: Collection[Artifact]) -> None:
    """Keep the lock and the plan of a pulled image; those of an image that was built here stay as they are."""
    subject = Descriptor(media_type=image.manifest.media_type, digest=image.digest, size=len(image.manifest_bytes))
    for artifact in artifacts:
        if artifact.artifact_type in (LOCK_TYPE, PLAN_TYPE) and not store.referrers.of(
            image.digest, artifact.artifact_type
        ):
            store.referrers.add(artifact, subject)


def _artifact(registry: Registry, repository: str, descriptor: Descriptor, limit: int) -> Artifact:
    fetched = registry.manifest(repository, descriptor.digest)
    manifest = msgspec.json.decode(fetched.data, type=ArtifactManifest)
    if manifest.kind != descriptor.artifact_type or len(manifest.layers) > 64:
        raise RegistryError(f"artifact {descriptor.digest} is not what the registry says", hint=AGAIN)
    blobs = tuple(
        Blob(
            media_type=layer.media_type,
            data=registry.blob(repository, layer, limit),
            annotations=layer.annotations,
        )
        for layer in manifest.layers
        if layer.digest != EMPTY.digest
    )
    return Artifact(artifact_type=manifest.kind, blobs=blobs, annotations=manifest.annotations)


def _free(path: Path) -> int:
    status = os.statvfs(path)
    return max(_ROOM, status.f_bavail * status.f_frsize - _ROOM)
