"""A bundle that arrived: check all of it, or bring its images into the store. No network, nothing believed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlbox.build.rebuild import planned_layers
from mlbox.codec import canonical_json
from mlbox.engine.bundles.check import (
    artifact_manifest,
    check_documents,
    check_file,
    check_layer,
    finish,
    largest_first,
    told,
)
from mlbox.engine.bundles.images import read_plan
from mlbox.engine.bundles.layers import make_layer
from mlbox.engine.bundles.trust import admit, require_signed
from mlbox.engine.wheels import check_name
from mlbox.errors import NotFoundError, StoreError
from mlbox.events import SILENT, Listener
from mlbox.files import Readable, chunks, disk_errors
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE
from mlbox.oci.digest import DiffID, Digest, hex_of
from mlbox.oci.image import Image
from mlbox.oci.reference import parse_reference
from mlbox.plan.model import BuiltWheelPiece, LayerPlan
from mlbox.plan.run import run_piece, title
from mlbox.plan.stage import built_pieces
from mlbox.registry.bundle import BundledFile, BundledImage, BundledLayer, BundledReferrer, Contents
from mlbox.registry.bundle_contents import Damage
from mlbox.registry.bundle_have import Missing, have_of, missing_from
from mlbox.registry.bundle_read import Bundle, open_bundle
from mlbox.registry.parallel import Stop, in_threads
from mlbox.store.built import BuiltWheel
from mlbox.store.compression import decompressed
from mlbox.store.store import Store
from mlbox.units import mega

if TYPE_CHECKING:
    from mlbox.trust.keys import PublicKey

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
    ran: tuple[str, ...] = ()
    """What of the images came out of containers: wheels built from source, layers of commands."""


def verify_bundle(
    store: Store, path: Path, listener: Listener = SILENT, *, keys: Sequence["PublicKey"] = ()
) -> Checked:
    """Check every byte of the bundle at `path` and write nothing; the first damage found is raised.

    With `keys`, each of its images must be signed by one of them; else TrustError.
    """
    with open_bundle(path) as bundle:
        check_documents(bundle)
        layers = [layer for layer in bundle.contents.layers if layer.blob]
        files = [file for file in bundle.contents.files if not file.there]
        listener.expect("verify", sum(layer.size for layer in layers) + sum(file.size for file in files))
        stop = Stop()
        talk = stop.listener(listener)
        in_threads(lambda layer: check_layer(bundle, layer, talk), largest_first(layers), _processors(), stop)
        in_threads(lambda file: check_file(bundle, file, talk), files, _processors(), stop)
        if keys:
            require_signed(bundle, keys)
        return Checked(
            digest=bundle.digest,
            size=bundle.size,
            contents=bundle.contents,
            missing=missing_from(have_of(store), bundle.contents),
        )


def load_bundle(
    store: Store, path: Path, listener: Listener = SILENT, *, name: str = "", trust: bool = False
) -> Loaded:
    """Bring the images of the bundle at `path` into the store and return what was done.

    With `trust` builds take what its maker's containers made, which nothing here can check: wheels that were built
    from source, layers of commands. What was made here stays.

    Images and names appear when everything of them is there and was compared with its digest. A killed load leaves
    at most layers without an image; loading again goes on from there.
    """
    with open_bundle(path, name) as bundle, store.using(), disk_errors(f"loading {bundle.name}"):
        _refuse_missing(store, bundle)
        images = check_documents(bundle)
        admit(bundle)
        work = _Loading(store, bundle, listener)
        ways = work.layers(images)
        files = work.files()
        work.make(images)
        work.check_sizes()
        work.keep_documents()
        loaded = work.keep(images)
        ran = work.ran(images, keep=trust)
    by_way = {way: tuple(name for name, how in ways if how == way) for way in ("blob", "made", "there")}
    return Loaded(
        digest=bundle.digest,
        images=loaded,
        unpacked=by_way["blob"],
        made=by_way["made"],
        there=by_way["there"],
        files=files,
        ran=ran,
    )


def load_stream(store: Store, stream: Readable, listener: Listener = SILENT, *, trust: bool = False) -> Loaded:
    """Load the bundle that comes through a pipe, by way of a file in the store: nothing is used unchecked."""
    with store.scratch("bundle") as folder:
        path = folder / "stdin"
        with disk_errors("taking in a bundle"), path.open("xb") as file:
            for chunk in chunks(stream):
                file.write(chunk)
        return load_bundle(store, path, listener, name="the bundle", trust=trust)


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
        self._stop = Stop()
        self._listener = self._stop.listener(listener)

    def layers(self, images: dict[Digest, Image]) -> list[tuple[str, str]]:
        """Unpack the layers that are not there; return the name of each and how it comes."""
        there = {layer.diff_id for layer in self._contents.layers if self._store.layers.has(layer.diff_id)}
        coming = [layer for layer in self._contents.layers if layer.blob and layer.diff_id not in there]
        self._listener.expect("unpack", sum(layer.size for layer in coming))
        in_threads(self._unpack, largest_first(coming), _processors(), self._stop)
        return [(layer.name, "there" if layer.diff_id in there else layer.way) for layer in self._contents.layers]

    def files(self) -> int:
        """Keep the wheels, .debs and sdists that are not there; return how many came."""
        coming = [
            file
            for file in self._contents.files
            if not file.there and not self._store.artifacts.has(hex_of(file.digest))
        ]
        self._listener.expect("unpack", sum(file.size for file in coming))
        in_threads(self._keep_file, coming, _processors(), self._stop)
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

    def ran(self, images: dict[Digest, Image], *, keep: bool) -> tuple[str, ...]:
        """Return what came out of containers, by the plans of the images; with `keep` builds take it from now on."""
        wheels = {key: file for file in self._contents.files for key in file.built}
        found: dict[str, None] = {}
        for image in images.values():
            plan = read_plan(self._plan_of(image.digest))
            for piece in built_pieces(plan) if plan else ():
                if file := wheels.get(piece.key):
                    found[file.filename] = None
                    if keep:
                        self._keep_wheel(piece, file)
            for diff_id, layer in planned_layers(plan, image.config.rootfs.diff_ids).items() if plan else ():
                if command := run_piece(layer):
                    found[name := f"{layer.name}, {title(command.command)}"] = None
                    if keep and self._store.layers.find(layer.key) is None:
                        self._store.layers.adopt(layer.key, name, diff_id)
        return tuple(found)

    def _keep_wheel(self, piece: BuiltWheelPiece, file: BundledFile) -> None:
        known = self._store.built.get(piece.key)
        if known is None or not self._store.artifacts.has(known.sha256):
            wheel = BuiltWheel(
                piece=msgspec.Raw(canonical_json(piece)),
                filename=file.filename,
                sha256=hex_of(file.digest),
                size=file.size,
                origin=f"bundle@{self._bundle.digest}",
            )
            check_name(wheel, piece)
            self._store.built.put(wheel)

    def check_sizes(self) -> None:
        """Compare the sizes of all layers, which the images' digests hold, with those of the tars."""
        for layer in self._contents.layers:
            size = self._store.layers.record(layer.diff_id).size
            if size != layer.size:
                raise Damage(f"{self._bundle.name}: layer {layer.name} has {size} bytes, not {layer.size}")

    def keep_documents(self) -> None:
        """Keep the manifests of the images elsewhere, and what is about the images."""
        for remote in self._contents.remotes:
            self._store.content.put(self._bundle.document(remote.manifest.digest))
        for referrer in self._contents.referrers:
            for blob in referrer.blobs:
                if not self._store.content.has(blob.digest):
                    self._store.content.ingest(self._bundle.blob(blob.digest), blob.digest, blob.size)
            if self._is_wanted(referrer):
                self._store.referrers.add_manifest(self._bundle.document(referrer.manifest.digest))

    def keep(self, images: dict[Digest, Image]) -> tuple[LoadedImage, ...]:
        """Make the images visible, and last their names."""
        new = {digest for digest in images if not self._store.images.has(digest)}
        for image in images.values():
            self._store.images.add(image)
        for remote in self._contents.remotes:
            self._store.remotes.remember(remote.manifest.digest, remote.repository, remote.image, claimed=True)
        return tuple(
            LoadedImage(digest=bundled.digest, names=self._tags(bundled), new=bundled.digest in new)
            for bundled in self._contents.images
        )

    def _tags(self, bundled: BundledImage) -> tuple[LoadedName, ...]:
        tags = (self._tag(bundled.digest, name, free=bundled.below) for name in bundled.names)
        return tuple(tag for tag in tags if tag)

    def _tag(self, digest: Digest, name: str, *, free: bool) -> LoadedName | None:
        """Give the image the name; with `free` only when no other image has it."""
        reference = parse_reference(name)
        before = self._named(name)
        if free and before not in (None, digest):
            return None
        self._store.images.tag(digest, reference)
        return LoadedName(name=reference.familiar, before=before if before != digest else None)

    def _named(self, name: str) -> Digest | None:
        try:
            return self._store.images.resolve(name)
        except NotFoundError:
            return None

    def _is_wanted(self, referrer: BundledReferrer) -> bool:
        """Whether the store lacks it; the lock and plan of an image that was built here are not replaced."""
        kind = artifact_manifest(self._bundle, referrer).kind
        known = self._store.referrers.of(referrer.subject, kind)
        if kind in (LOCK_TYPE, PLAN_TYPE) and known:
            return False
        return all(found.digest != referrer.manifest.digest for found in known)

    def _plan_of(self, image: Digest) -> bytes | None:
        for referrer in self._contents.referrers:
            manifest = artifact_manifest(self._bundle, referrer) if referrer.subject == image else None
            if manifest is not None and manifest.kind == PLAN_TYPE and manifest.layers:
                return self._bundle.document(manifest.layers[0].digest)
        return None

    def _unpack(self, layer: BundledLayer) -> None:
        if layer.blob is None:
            return
        chunks = self._bundle.blob(layer.blob.digest)
        tar = decompressed(chunks, layer.size, name=f"layer {layer.name}")
        self._store.layers.ingest(layer.diff_id, told(tar, self._listener, "unpack"), layer.name)
        finish(chunks)
        blob = layer.blob
        self._store.remotes.remember_blob(blob.digest, layer.diff_id, blob.media_type, blob.size)

    def _keep_file(self, file: BundledFile) -> None:
        artifacts, sha256 = self._store.artifacts, hex_of(file.digest)
        with artifacts.fetching(sha256):
            if artifacts.has(sha256):
                return
            part = artifacts.partial(sha256)
            with part.open("wb") as out:
                for chunk in told(self._bundle.blob(file.digest), self._listener, "unpack"):
                    out.write(chunk)
            artifacts.publish(part, sha256, checked=True)


def _processors() -> int:
    return len(os.sched_getaffinity(0))
