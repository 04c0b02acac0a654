"""A bundle that arrived: check all of it, or bring its images into the store. No network, nothing believed."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from mlbox.build.rebuild import planned_layers
from mlbox.codec import decode_json
from mlbox.engine.bundle_layers import make_layer
from mlbox.engine.bundling import is_index, manifest_for_others, media_type_of, read_plan
from mlbox.errors import StoreError
from mlbox.events import SILENT, Listener
from mlbox.files import disk_errors
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE, ArtifactManifest
from mlbox.oci.digest import DiffID, Digest, hex_of
from mlbox.oci.image import Image, ImageIndex, local_image
from mlbox.oci.reference import parse_reference
from mlbox.plan.model import LayerPlan
from mlbox.registry.bundle import BundledFile, BundledImage, BundledLayer, BundledReferrer, BundledRemote, Contents
from mlbox.registry.bundle_have import have_of
from mlbox.registry.bundle_read import Bundle, Damage, Missing, missing_from, open_bundle
from mlbox.store.compression import decompressed
from mlbox.store.store import Store
from mlbox.units import mega

T = TypeVar("T")
_REWRITE = "'mlbox bundle have -o LIST' here and 'mlbox bundle IMAGE… --have LIST -o FILE' there make one that fits"


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle that is undamaged holds."""

    digest: Digest
    """Of the bundle."""
    size: int
    contents: Contents
    missing: Missing
    """What the store lacks to load it."""


class LoadedName(msgspec.Struct, frozen=True, kw_only=True):
    """A name that an image now has."""

    name: str
    before: Digest | None
    """The image that had the name, None when none had or this one did."""


class LoadedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is now in the store."""

    digest: Digest
    names: tuple[LoadedName, ...]
    new: bool


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What loading a bundle did."""

    digest: Digest
    """Of the bundle."""
    images: tuple[LoadedImage, ...]
    unpacked: tuple[str, ...]
    """Names of the layers that came out of the bundle."""
    made: tuple[str, ...]
    """Names of the layers that were made from files of packages."""
    there: tuple[str, ...]
    """Names of the layers that the store had."""
    files: int
    """Wheels, .debs and sdists that came."""


def verify_bundle(store: Store, path: Path, listener: Listener = SILENT) -> Checked:
    """Check every byte of the bundle at `path` and write nothing; the first damage found is raised."""
    with open_bundle(path) as bundle:
        _check_documents(bundle)
        layers = [layer for layer in bundle.contents.layers if layer.blob]
        files = [file for file in bundle.contents.files if not file.there]
        listener.expect("verify", sum(layer.size for layer in layers) + sum(file.size for file in files))
        _in_parallel(lambda layer: _check_layer(bundle, layer, listener), _largest_first(layers))
        _in_parallel(lambda file: _check_file(bundle, file, listener), files)
        return Checked(
            digest=bundle.digest,
            size=bundle.size,
            contents=bundle.contents,
            missing=missing_from(have_of(store), bundle.contents),
        )


def load_bundle(store: Store, path: Path, listener: Listener = SILENT) -> Loaded:
    """Bring the images of the bundle at `path` into the store and return what was done.

    Images and names appear when everything of them is there and was compared with its digest. A killed load leaves
    at most layers without an image; loading again goes on from there.
    """
    with open_bundle(path) as bundle, store.using(), disk_errors(f"loading {path}"):
        _refuse_missing(store, bundle)
        images = _check_documents(bundle)
        work = _Loading(store, bundle, listener)
        ways = work.layers(images)
        files = work.files()
        work.make(images)
        work.keep_documents()
        loaded = tuple(work.keep(bundled, images[bundled.digest]) for bundled in bundle.contents.images)
    by_way = {way: tuple(name for name, how in ways if how == way) for way in ("blob", "made", "there")}
    return Loaded(
        digest=bundle.digest,
        images=loaded,
        unpacked=by_way["blob"],
        made=by_way["made"],
        there=by_way["there"],
        files=files,
    )


def _refuse_missing(store: Store, bundle: Bundle) -> None:
    have = have_of(store)
    missing = missing_from(have, bundle.contents)
    if missing:
        after = (
            f"; it was made for a store that has loaded bundle {bundle.contents.since[0]}"
            if bundle.contents.since
            else ""
        )
        raise StoreError(f"{bundle.name} is a delta, and this store lacks {missing}{after}", hint=_REWRITE)
    new = sum(layer.size for layer in bundle.contents.layers if layer.diff_id not in have.layers)
    new += sum(file.size for file in bundle.contents.files if hex_of(file.digest) not in have.artifacts)
    store.home.root.mkdir(parents=True, exist_ok=True)
    status = os.statvfs(store.home.root)
    if new > status.f_bavail * status.f_frsize:
        raise StoreError(
            f"{bundle.name} needs {mega(new)}, and the disk of the store has {mega(status.f_bavail * status.f_frsize)}",
            hint="free some space ('mlbox prune' removes what no image uses), or use another store with MLBOX_HOME",
        )


class _Loading:
    """One bundle whose documents have been checked, on its way into a store."""

    def __init__(self, store: Store, bundle: Bundle, listener: Listener) -> None:
        self._store = store
        self._bundle = bundle
        self._contents = bundle.contents
        self._listener = listener

    def layers(self, images: dict[Digest, Image]) -> list[tuple[str, str]]:
        """Unpack the layers that are not there; return the name of each and how it comes."""
        there = {layer.diff_id for layer in self._contents.layers if self._store.layers.has(layer.diff_id)}
        coming = [layer for layer in self._contents.layers if layer.blob and layer.diff_id not in there]
        self._listener.expect("unpack", sum(layer.size for layer in coming))
        _in_parallel(self._unpack, _largest_first(coming))
        return [(layer.name, "there" if layer.diff_id in there else layer.way) for layer in self._contents.layers]

    def files(self) -> int:
        """Keep the wheels, .debs and sdists that are not there; return how many came."""
        coming = [
            file
            for file in self._contents.files
            if not file.there and not self._store.artifacts.has(hex_of(file.digest))
        ]
        self._listener.expect("unpack", sum(file.size for file in coming))
        _in_parallel(self._keep_file, coming)
        return len(coming)

    def make(self, images: dict[Digest, Image]) -> None:
        """Make the layers that are to be made here, by the plans of their images."""
        wanted = {layer.diff_id: layer.name for layer in self._contents.layers if layer.way == "made"}
        wanted = {diff_id: name for diff_id, name in wanted.items() if not self._store.layers.has(diff_id)}
        jobs: dict[DiffID, LayerPlan] = {}
        for image in images.values() if wanted else ():
            plan = read_plan(self._plan_of(image.digest))
            if plan is not None:
                found = planned_layers(plan, image.config.rootfs.diff_ids)
                jobs |= {diff_id: layer for diff_id, layer in found.items() if diff_id in wanted}
        for diff_id, name in wanted.items():
            if diff_id not in jobs:
                raise Damage(f"{self._bundle.name}: nothing says how layer {name} is made")
            self._listener.step(f"make layer {name}")
            make_layer(self._store, jobs[diff_id], diff_id, name)

    def keep_documents(self) -> None:
        """Keep the manifests and what is about the images: blobs that nothing names yet."""
        for remote in self._contents.remotes:
            self._store.content.put(self._bundle.document(remote.manifest.digest))
        for referrer in self._contents.referrers:
            for blob in referrer.blobs:
                if not self._store.content.has(blob.digest):
                    self._store.content.ingest(self._bundle.blob(blob.digest), blob.digest, blob.size)

    def keep(self, bundled: BundledImage, image: Image) -> LoadedImage:
        """Make the image, what is about it, and last its names visible."""
        new = not self._store.images.has(image.digest)
        self._store.images.add(image)
        for remote in self._contents.remotes:
            known = self._store.remotes.image_of(remote.manifest.digest, remote.repository)
            if remote.image == image.digest and known is None:
                self._store.remotes.remember(remote.manifest.digest, remote.repository, image.digest)
        for referrer in self._contents.referrers:
            if self._is_wanted(referrer):
                self._store.referrers.add_manifest(self._bundle.document(referrer.manifest.digest))
        names = tuple(self._tag(image.digest, name) for name in bundled.names)
        return LoadedImage(digest=image.digest, names=names, new=new)

    def _tag(self, digest: Digest, name: str) -> LoadedName:
        reference = parse_reference(name)
        row = self._store.db.row("SELECT digest FROM names WHERE reference = ?", name)
        self._store.images.tag(digest, reference)
        return LoadedName(name=reference.familiar, before=row[0] if row and row[0] != digest else None)

    def _is_wanted(self, referrer: BundledReferrer) -> bool:
        """Whether the store lacks it; the lock and plan of an image that was built here are not replaced."""
        kind = _manifest(self._bundle, referrer).kind
        known = self._store.referrers.of(referrer.subject, kind)
        if kind in (LOCK_TYPE, PLAN_TYPE) and known:
            return False
        return all(found.digest != referrer.manifest.digest for found in known)

    def _plan_of(self, image: Digest) -> bytes | None:
        for referrer in self._contents.referrers:
            manifest = _manifest(self._bundle, referrer) if referrer.subject == image else None
            if manifest is not None and manifest.kind == PLAN_TYPE and manifest.layers:
                return self._bundle.document(manifest.layers[0].digest)
        return None

    def _unpack(self, layer: BundledLayer) -> None:
        if layer.blob is None:
            return
        chunks = self._bundle.blob(layer.blob.digest)
        tar = decompressed(chunks, layer.size, name=f"layer {layer.name}")
        size = self._store.layers.ingest(layer.diff_id, _told(tar, self._listener, "unpack"), layer.name)
        _finish(chunks)
        if size != layer.size:
            raise Damage(f"{self._bundle.name}: layer {layer.name} has {size} bytes, not {layer.size}")
        blob = layer.blob
        self._store.remotes.remember_blob(blob.digest, layer.diff_id, blob.media_type, blob.size)

    def _keep_file(self, file: BundledFile) -> None:
        artifacts, sha256 = self._store.artifacts, hex_of(file.digest)
        with artifacts.fetching(sha256):
            if artifacts.has(sha256):
                return
            part = artifacts.partial(sha256)
            with part.open("wb") as out:
                for chunk in _told(self._bundle.blob(file.digest), self._listener, "unpack"):
                    out.write(chunk)
            artifacts.publish(part, sha256, checked=True)


def _check_documents(bundle: Bundle) -> dict[Digest, Image]:
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
    from mlbox.oci.image import parse_config

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
    manifest = _manifest(bundle, referrer)
    subject = manifest.subject.digest if manifest.subject else None
    blobs = {blob.digest: blob.size for blob in (manifest.config, *manifest.layers)}
    if subject != referrer.subject or blobs != {blob.digest: blob.size for blob in referrer.blobs}:
        raise Damage(f"{bundle.name}: artifact {referrer.manifest.digest} is not what the contents say")
    for blob in referrer.blobs:
        _finish(bundle.blob(blob.digest))


def _manifest(bundle: Bundle, referrer: BundledReferrer) -> ArtifactManifest:
    data = bundle.document(referrer.manifest.digest)
    return decode_json(data, ArtifactManifest, what=f"artifact {referrer.manifest.digest}", error=Damage)


def _check_layer(bundle: Bundle, layer: BundledLayer, listener: Listener) -> None:
    if layer.blob is None:
        return
    chunks = bundle.blob(layer.blob.digest)
    hasher, size = hashlib.sha256(), 0
    for chunk in _told(decompressed(chunks, layer.size, name=f"layer {layer.name}"), listener, "verify"):
        hasher.update(chunk)
        size += len(chunk)
    _finish(chunks)
    if size != layer.size or hasher.hexdigest() != hex_of(layer.diff_id):
        raise Damage(f"{bundle.name}: layer {layer.name} does not have the content that its diffID says")


def _check_file(bundle: Bundle, file: BundledFile, listener: Listener) -> None:
    _finish(_told(bundle.blob(file.digest), listener, "verify"))


def _told(chunks: Iterable[T], listener: Listener, what: str) -> Iterator[T]:
    for chunk in chunks:
        yield chunk
        listener.advance(what, len(chunk))  # type: ignore[arg-type]  # bytes and memoryviews


def _finish(chunks: Iterable[object]) -> None:
    """Read to the end, where a blob is compared with its digest."""
    for _ in chunks:
        pass


def _largest_first(layers: Iterable[BundledLayer]) -> list[BundledLayer]:
    return sorted(layers, key=lambda layer: (-layer.size, layer.diff_id))


def _in_parallel(work: Callable[[T], None], items: Sequence[T]) -> None:
    """Do `work` on every item, one thread per processor; after the first failure no more is begun."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = [pool.submit(work, item) for item in items]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
