"""Loading images from archives and layouts that somebody else wrote: nothing in them is believed unchecked."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mlbox.errors import ArchiveError, NotFoundError, UsageError
from mlbox.events import SILENT, Listener
from mlbox.oci.artifact import EMPTY, EMPTY_BYTES, LOCK_TYPE, PLAN_TYPE, ArtifactManifest
from mlbox.oci.digest import DiffID, Digest, digest_of, hex_of
from mlbox.oci.image import Image, local_image, parse_config
from mlbox.oci.reference import Reference
from mlbox.registry.members import Members, open_members
from mlbox.registry.packed import Packed, Part, blob_path, packed_artifacts, packed_images, read_blob
from mlbox.registry.parallel import Stop, in_threads
from mlbox.store.compression import decompressed
from mlbox.store.referrers import ATTACHMENT_LIMIT
from mlbox.store.store import Store

MOST_DOCUMENTS = 64
"""Documents in one artifact."""
_AT_ONCE = 4
"""Layers; more of them would wait for the disk."""


class Loaded(NamedTuple):
    """An image that was loaded, and the names it got."""

    digest: Digest
    names: tuple[Reference, ...]


class Arrival(NamedTuple):
    """An image that is about to be loaded."""

    digests: tuple[Digest, ...]
    """What it will have here, and that of its manifest in the archive."""
    names: tuple[Reference, ...]
    artifacts: Sequence[bytes]
    """All that came with it or with its neighbours; their documents are in the store."""


Admit = Callable[[Arrival], None]


def load_images(
    store: Store,
    source: Path | BinaryIO,
    *,
    arch: str,
    names: Sequence[Reference] = (),
    admit: Admit = lambda _: None,
    listener: Listener = SILENT,
) -> tuple[Loaded, ...]:
    """Take all images of an archive, a folder with a layout or a stream into the store, or none of them.

    Each gets the names that the archive has for it, which move from the images that had them; `names` are given
    instead to the one image of an archive that holds no more. Every blob is compared with its digest and every layer
    with its diffID, and an image here has the digest it has everywhere: that of `local_image`. `admit` may refuse each
    by raising. Raises ArchiveError for whatever is wrong with the archive.
    """
    if digested := [name for name in names if name.digest]:
        raise UsageError(f"a name with a digest cannot be given: {digested[0].familiar}", hint="NAME:TAG")
    with store.using(), open_members(store, source) as members:
        packed = packed_images(members, arch)
        if names and len(packed) > 1:
            raise UsageError(
                f"{members.name} holds {len(packed)} images, and a name is for one",
                hint="without --tag they get the names that the archive has",
            )
        _take_layers(store, members, packed, listener)
        found = [(_image(store, one), one) for one in packed]
        artifacts = list(_artifacts(store, members, {digest_of(one.manifest_bytes) for one in packed}))
        for image, one in found:
            admit(Arrival(_digests(image, one), tuple(names) or one.names, artifacts))
        # From here on nothing in the archive can be wrong any more.
        loaded = [_keep(store, image, one, names, members.name, listener) for image, one in found]
        for artifact in artifacts:
            store.referrers.add_manifest(artifact)
    return tuple(loaded)


def _take_layers(store: Store, members: Members, packed: Sequence[Packed], listener: Listener) -> None:
    """Put every layer into the store, several at a time: hashing and unpacking happen beside the interpreter."""
    wanted: dict[DiffID, Part] = {}
    for image in packed:
        diff_ids = parse_config(image.config_bytes, ArchiveError).rootfs.diff_ids
        wanted |= dict(zip(diff_ids, image.layers, strict=True))
    missing = {diff_id: part for diff_id, part in wanted.items() if not store.layers.has(diff_id)}
    listener.expect("load", sum(members.size(part.path) for part in missing.values()))
    stop = Stop()
    take = partial(_take, store, members, stop.listener(listener))
    in_threads(take, list(missing.items()), min(_AT_ONCE, len(os.sched_getaffinity(0))), stop)


def _take(store: Store, members: Members, listener: Listener, layer: tuple[DiffID, Part]) -> None:
    diff_id, part = layer
    name = f"layer {diff_id[7:19]} of {members.name}"
    chunks = _checked(members, part, diff_id, listener)
    store.layers.ingest(diff_id, decompressed(chunks, name=name), name)
    blob = part.blob
    if blob is not None and blob.digest != str(diff_id):
        store.remotes.remember_blob(blob.digest, diff_id, blob.media_type, blob.size)


def _checked(members: Members, part: Part, diff_id: DiffID, listener: Listener) -> Iterator[bytes]:
    """Yield a layer as it lies in the archive; at its end its digest and size must be those of the manifest."""
    blob = part.blob
    if blob is not None and members.size(part.path) != blob.size:
        raise ArchiveError(f"{members.name}: {part.path} is not {blob.size} bytes long", hint="copy it again")
    # The digest of a plain tar is its diffID, which is checked where it is unpacked.
    digest = hashlib.sha256() if blob is not None and blob.digest != str(diff_id) else None
    for chunk in members.chunks(part.path):
        if digest is not None:
            digest.update(chunk)
        listener.advance("load", len(chunk))
        yield chunk
    if digest is not None and blob is not None and digest.hexdigest() != hex_of(blob.digest):
        raise ArchiveError(f"{members.name}: {part.path} has another digest than its name says", hint="copy it again")


def _image(store: Store, packed: Packed) -> Image:
    diff_ids = parse_config(packed.config_bytes, ArchiveError).rootfs.diff_ids
    return local_image(packed.config_bytes, [store.layers.record(one).size for one in diff_ids], ArchiveError)


def _digests(image: Image, packed: Packed) -> tuple[Digest, ...]:
    there = [digest_of(packed.manifest_bytes)] if packed.manifest_bytes else []
    return tuple(dict.fromkeys((image.digest, *there)))


def _keep(
    store: Store, image: Image, packed: Packed, names: Sequence[Reference], archive: str, listener: Listener
) -> Loaded:
    """Name the image; where it also has the digest of a registry, that one means it from now on."""
    store.images.add(image)
    names = tuple(names) or packed.names
    for bad in packed.bad_names if not names else ():
        listener.note(f"{archive} calls it {bad!r}, which is no whole name: 'mlbox tag' or load's --tag gives one")
    for name in names:
        if (before := _meant(store, name)) not in (None, image.digest):
            listener.note(f"{name.familiar} was {before}, which keeps its digest")
        store.images.tag(image.digest, name)
    for elsewhere in _digests(image, packed)[1:]:
        store.content.put(packed.manifest_bytes)
        for repository in {name.name for name in names}:
            store.remotes.remember(elsewhere, repository, image.digest, claimed=True)
    return Loaded(image.digest, names)


def _meant(store: Store, name: Reference) -> Digest | None:
    try:
        return store.images.resolve(str(name))
    except NotFoundError:
        return None


def _artifacts(store: Store, members: Members, subjects: set[Digest]) -> Iterator[bytes]:
    """Yield the artifacts about the images in the archive, after their documents are in the store.

    The lock and the plan of an image that was built here stay as they are.
    """
    for data, manifest in packed_artifacts(members):
        subject = manifest.subject
        if subject is None or subject.digest not in subjects or len(manifest.layers) > MOST_DOCUMENTS:
            continue
        if manifest.kind in (LOCK_TYPE, PLAN_TYPE) and store.referrers.of(subject.digest, manifest.kind):
            continue
        for blob in _documents(members, manifest):
            store.content.put(blob)
        subjects.add(digest_of(data))
        yield data


def _documents(members: Members, manifest: ArtifactManifest) -> Iterator[bytes]:
    for blob in (manifest.config, *manifest.layers):
        if blob.digest == EMPTY.digest:
            yield EMPTY_BYTES
        else:
            yield read_blob(members, blob_path(blob.digest, members.name), blob.digest, ATTACHMENT_LIMIT)
