"""Images of the store become one file for a place without a network."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from mlbox.build.rebuild import planned_layers
from mlbox.engine.bundles.check import manifest_for_others, media_type_of
from mlbox.engine.bundles.images import Chosen, attach_bills, called, chosen, with_bases
from mlbox.engine.bundles.layers import needed_for
from mlbox.errors import NotFoundError, StoreError
from mlbox.events import SILENT, Listener
from mlbox.files import chunks
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE
from mlbox.oci.digest import DiffID, Digest, digest_of, hex_of
from mlbox.oci.image import MANIFEST, Descriptor
from mlbox.plan.model import BuildPlan
from mlbox.plan.stage import built_pieces
from mlbox.registry.bundle import (
    FORMAT,
    BundledFile,
    BundledImage,
    BundledLayer,
    BundledReferrer,
    BundledRemote,
    Contents,
    Way,
    digest_of_bundle,
)
from mlbox.registry.bundle_have import NOTHING, Have
from mlbox.registry.bundle_write import Writable, write_bundle
from mlbox.registry.parallel import Stop, in_threads
from mlbox.store.compression import MEDIA_TYPES, Compression, compressed
from mlbox.store.store import Store
from mlbox.units import mega

_AT_ONCE = 2
"""Layers that are compressed at once; each keeps a thread of the compressor and one that reads busy."""


class BundleOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle is to hold."""

    artifacts: bool | None = None
    """Wheels, .debs and sdists: all or an error, none, or (None) those that the store has."""
    have: Have = NOTHING
    """What the receiving store has: left out."""
    since: tuple[Digest, ...] = ()
    """The bundles that say so."""
    sbom: bool = False
    """Whether each image gets a bill of materials first."""
    compression: Compression = "zstd"


class Bundled(msgspec.Struct, frozen=True, kw_only=True):
    """What was bundled."""

    digest: Digest
    """Of the bundle."""
    size: int
    """Bytes of the file."""
    contents: Contents


def make_bundle(
    store: Store, names: Sequence[str], out: Writable, options: BundleOptions, listener: Listener = SILENT
) -> Bundled:
    """Write the images of those `names` to `out` as one bundle; equal images and options make equal bytes.

    Raises NotFoundError for what is not in the store, StoreError when something of it is damaged.
    """
    with store.using(), store.scratch("bundle") as scratch:
        work = _Bundling(store, scratch, options, listener)
        images = chosen(store, names)
        if options.sbom:
            attach_bills(store, images, listener)
        if options.artifacts is not False:
            images = with_bases(store, images, listener)
        contents = work.contents(images)
        listener.step("write the bundle")
        size = write_bundle(contents, work.blob, out)
    return Bundled(digest=digest_of_bundle(contents), size=size, contents=contents)


def left_out(contents: Contents) -> Iterator[str]:
    """Yield what the bundle does not hold, and why, in a line each."""
    reasons = {
        "there": "the receiving store has it",
        "made": "the receiving store makes it from the files of its packages",
    }
    for layer in sorted(contents.layers, key=lambda layer: -layer.size):
        if layer.way != "blob":
            yield f"layer {layer.name} ({mega(layer.size)}) is left out: {reasons[layer.way]}"
    there = [file.size for file in contents.files if file.there]
    if there:
        yield f"{len(there)} wheels and packages ({mega(sum(there))}) are left out: the receiving store has them"


class _Bundling:
    """One bundle that is being made; its compressed layers lie in `scratch`."""

    def __init__(self, store: Store, scratch: Path, options: BundleOptions, listener: Listener) -> None:
        self._store = store
        self._scratch = scratch
        self._options = options
        self._stop = Stop()
        self._listener = self._stop.listener(listener)
        self._made: dict[Digest, bytes | Path] = {}
        self._known: dict[str, tuple[str, int]] = {}

    def contents(self, images: Sequence[Chosen]) -> Contents:
        """Compress what is to be in the bundle and return its contents."""
        files = self._files(images)
        layers, needed = self._layers(images, files)
        files |= {sha256: self._file(sha256, self._known[sha256]) for sha256 in needed.artifacts - files.keys()}
        whole = {layer.diff_id: layer.blob for layer in layers if layer.blob}
        bundled = tuple(self._image(named, whole if len(whole) == len(layers) else None) for named in images)
        remotes = tuple(remote for named in images for remote in self._remotes(named.image.digest))
        subjects = [image.digest for image in bundled] + [remote.manifest.digest for remote in remotes]
        return Contents(
            format=FORMAT,
            images=bundled,
            layers=layers,
            remotes=tuple(sorted(remotes, key=lambda remote: (remote.repository, remote.manifest.digest))),
            referrers=tuple(self._referrers(subjects)),
            files=tuple(file for _, file in sorted(files.items())),
            pieces=tuple(sorted(needed.pieces)),
            since=tuple(sorted(set(self._options.since))),
        )

    def blob(self, digest: Digest) -> Iterator[bytes]:
        """Yield a blob of the bundle."""
        made = self._made.get(digest)
        if isinstance(made, bytes):
            yield made
            return
        path = made or self._store.content.path(digest)
        if not path.is_file():
            path = self._store.artifacts.path(hex_of(digest))
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise StoreError(f"{digest} is missing from the store", hint="run 'mlbox fsck --repair'") from None
        with file:
            yield from chunks(file)

    def _files(self, images: Iterable[Chosen]) -> dict[str, BundledFile]:
        """Return the wheels, .debs and sdists that the bundle is to bring, or that are there; by sha256."""
        built: dict[str, BundledFile] = {}
        for named in images:
            if named.plan is not None:
                self._known |= _files_of(named.plan)
                built |= self._built(named.plan, built)
            elif self._options.artifacts and not named.below:
                raise NotFoundError(
                    f"image {called(named)}: what it was built from is not known here",
                    hint="'mlbox build' in its project attaches that; --no-artifacts leaves wheels and packages out",
                )
        if self._options.artifacts is False:
            return {}
        files = {sha256: self._file(sha256, known) for sha256, known in self._known.items()}
        found = {s: file for s, file in files.items() if file.there or self._store.artifacts.has(s)}
        self._say_missing(sorted(file.filename for sha256, file in files.items() if sha256 not in found))
        return found | built

    def _built(self, plan: BuildPlan, found: Mapping[str, BundledFile]) -> dict[str, BundledFile]:
        """Return those of `found` and the wheels of `plan` that were built from source, by sha256."""
        wheels = dict(found)
        for wheel in filter(None, (self._store.built.get(piece.key) for piece in built_pieces(plan))):
            if self._store.artifacts.has(wheel.sha256):
                file = wheels.get(wheel.sha256) or self._file(wheel.sha256, (wheel.filename, wheel.size))
                keys = tuple(sorted({*file.built, wheel.key}))
                wheels[wheel.sha256] = msgspec.structs.replace(file, built=keys)
        return wheels

    def _file(self, sha256: str, known: tuple[str, int]) -> BundledFile:
        filename, size = known
        path = self._store.artifacts.path(sha256)
        return BundledFile(
            digest=Digest(f"sha256:{sha256}"),
            size=path.stat().st_size if path.is_file() else size,
            filename=filename,
            there=sha256 in self._options.have.artifacts,
        )

    def _say_missing(self, missing: Sequence[str]) -> None:
        if not missing:
            return
        some = f"{', '.join(missing[:3])}{', …' if missing[3:] else ''}"
        if self._options.artifacts:
            raise NotFoundError(
                f"the store no longer has {len(missing)} of the files that the images were built from: {some}",
                hint="build the project in an empty store (MLBOX_HOME), or --no-artifacts leaves all of them out",
            )
        self._listener.note(
            f"{len(missing)} of the files that the images were built from are not in the store and so not in the "
            f"bundle: {some}; the images can be run from it, but not built again"
        )

    def _layers(self, images: Iterable[Chosen], files: Collection[str]) -> tuple[tuple[BundledLayer, ...], Have]:
        """Return the layers, and what the receiving store needs to make those that are made there."""
        have = self._options.have
        brought = have | Have(artifacts=frozenset(files))
        found: dict[DiffID, BundledLayer] = {}
        needed = NOTHING
        for named in images:
            plans = planned_layers(named.plan, named.image.config.rootfs.diff_ids) if named.plan else {}
            for descriptor in named.image.manifest.layers:
                diff_id = DiffID(descriptor.digest)
                if diff_id in found:
                    continue
                uses = needed_for(plans[diff_id], brought) if have != NOTHING and diff_id in plans else None
                way: Way = "there" if diff_id in have.layers else "made" if uses else "blob"
                found[diff_id] = BundledLayer(diff_id=diff_id, size=descriptor.size, name=self._name(diff_id), way=way)
                needed = needed | uses if uses and way == "made" else needed
        ready = self._compress([layer for layer in found.values() if layer.way == "blob"])
        return tuple(ready.get(diff_id, layer) for diff_id, layer in sorted(found.items())), needed

    def _name(self, diff_id: DiffID) -> str:
        label = self._store.layers.record(diff_id).label[:255]
        return label if label.isprintable() else "layer"

    def _compress(self, layers: Sequence[BundledLayer]) -> dict[DiffID, BundledLayer]:
        self._listener.expect("compress", sum(layer.size for layer in layers))
        largest_first = sorted(layers, key=lambda layer: (-layer.size, layer.diff_id))
        done = in_threads(self._compressed, largest_first, _AT_ONCE, self._stop)
        return {layer.diff_id: layer for layer in done}

    def _compressed(self, layer: BundledLayer) -> BundledLayer:
        import hashlib

        kind = self._options.compression
        path = self._scratch / hex_of(layer.diff_id)
        hasher, size = hashlib.sha256(), 0
        with path.open("xb") as file:
            for chunk in compressed(self._tar(layer), kind):
                hasher.update(chunk)
                size += len(chunk)
                file.write(chunk)
        blob = Descriptor(media_type=MEDIA_TYPES[kind], digest=Digest(f"sha256:{hasher.hexdigest()}"), size=size)
        self._made[blob.digest] = path
        self._store.remotes.remember_blob(blob.digest, layer.diff_id, blob.media_type, size)
        return msgspec.structs.replace(layer, blob=blob)

    def _tar(self, layer: BundledLayer) -> Iterator[bytes | memoryview]:
        """Yield the layer's tar and check on the way that it still is what it was."""
        import hashlib

        hasher = hashlib.sha256()
        for chunk in self._store.layers.tar(layer.diff_id):
            hasher.update(chunk)
            yield chunk
            self._listener.advance("compress", len(chunk))
        if hasher.hexdigest() != hex_of(layer.diff_id):
            raise StoreError(
                f"layer {layer.name} was changed on the disk",
                hint="run 'mlbox fsck --deep --repair'",
            )

    def _image(self, named: Chosen, blobs: Mapping[DiffID, Descriptor] | None) -> BundledImage:
        image = named.image
        manifest = None
        if blobs is not None:
            data = manifest_for_others(image, blobs)
            manifest = Descriptor(media_type=MANIFEST, digest=digest_of(data), size=len(data))
            self._made[manifest.digest] = data
        return BundledImage(
            digest=image.digest,
            names=named.names,
            config=image.manifest.config,
            architecture=image.config.architecture,
            os=image.config.os,
            manifest=manifest,
            below=named.below,
        )

    def _remotes(self, image: Digest) -> Iterator[BundledRemote]:
        for remote in self._store.remotes.of(image):
            if self._store.content.has(remote.digest):
                data = self._store.content.read(remote.digest)
                descriptor = Descriptor(media_type=media_type_of(data), digest=remote.digest, size=len(data))
                yield BundledRemote(image=image, repository=remote.repository, manifest=descriptor)

    def _referrers(self, subjects: Sequence[Digest]) -> Iterator[BundledReferrer]:
        """Yield what is about the subjects, and what is about that."""
        waiting, seen = sorted(set(subjects)), set(subjects)
        while waiting:
            subject = waiting.pop(0)
            for descriptor in _current(self._store.referrers.sent(subject)):
                if descriptor.digest in seen:
                    continue
                manifest = self._store.referrers.manifest(descriptor.digest)
                plain = Descriptor(media_type=MANIFEST, digest=descriptor.digest, size=descriptor.size)
                blobs = {blob.digest: _plain(blob) for blob in (manifest.config, *manifest.layers)}
                yield BundledReferrer(subject=subject, manifest=plain, blobs=tuple(blobs.values()))
                seen.add(descriptor.digest)
                waiting.append(descriptor.digest)


def _files_of(plan: BuildPlan) -> dict[str, tuple[str, int]]:
    """Return the name and size of the files of a plan by their sha256; a git checkout is no file."""
    packages = (package for package in (*plan.packages, *plan.build_packages) if package.sha256)
    files = {package.sha256: (package.filename, package.size) for package in packages}
    files |= {package.sha256: (package.filename, package.size) for package in plan.conda or ()}
    return files | {deb.sha256: (deb.path.rpartition("/")[2], deb.size) for deb in plan.debs}


def _current(referrers: Iterable[Descriptor]) -> list[Descriptor]:
    """Return what still counts, sorted: of the locks and plans of an image only the last."""
    latest = {found.artifact_type: found for found in referrers if found.artifact_type in (LOCK_TYPE, PLAN_TYPE)}
    others = (found for found in referrers if found.artifact_type not in latest)
    return sorted((*latest.values(), *others), key=lambda found: found.digest)


def _plain(descriptor: Descriptor) -> Descriptor:
    return Descriptor(media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size)
