"""Images from and to registries: what `pull`, `push` and `copy` mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlbox.engine.arch import host_arch, runs_here
from mlbox.engine.completing import Completion
from mlbox.engine.trust.admission import admit_pull
from mlbox.errors import UsageError
from mlbox.events import SILENT, Listener
from mlbox.files import disk_errors
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE, Blob, artifact_of
from mlbox.oci.digest import DiffID, Digest
from mlbox.oci.image import Image
from mlbox.oci.reference import Reference, parse_reference
from mlbox.paths import Home
from mlbox.registry.client import open_registry
from mlbox.registry.copy import Copied, Place, copy_image
from mlbox.registry.pull import (
    PulledLayer,
    keep,
    keep_attached,
)
from mlbox.registry.push import PushedLayer, attach, attach_kept, push_image
from mlbox.registry.transfer import require_arch, resolve
from mlbox.store.compression import Compression
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.engine.trust.signing import Publication


_MOST_OF_DOCKER = 125
"""Layers of an image that Docker still runs (maxLayerDepth of its layer store)."""


class PullReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull did."""

    name: str
    image: Digest
    """The image of the store."""
    digest: Digest
    """Of its manifest in the registry."""
    index: Digest | None
    """Of the index that the name stands for there, when it stands for one."""
    layers: tuple[PulledLayer, ...]
    """Lowest first."""
    moved: int
    """Bytes of layers and their files that went over the network."""


class PushReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a push did."""

    name: str
    image: Digest
    """The image of the store."""
    digest: Digest
    """Of its manifest in the registry."""
    thin: bool
    layers: tuple[PushedLayer, ...]
    """Those that are in the registry, lowest first."""
    left_out: tuple[DiffID, ...]
    """Those that whoever pulls makes again."""
    attachments: tuple[Digest, ...]
    moved: int
    """Bytes of layers that were sent."""

    @property
    def pinned(self) -> str:
        """The name that means exactly this image, as one types it."""
        target = parse_reference(self.name)
        return Reference(registry=target.registry, repository=target.repository, digest=self.digest).familiar


def pull(home: Home, name: str, *, arch: str = "", listener: Listener = SILENT) -> PullReport:
    """Have the image `name` of a registry in the store, under that name; of an index the one for `arch` (the host's).

    A layer that is there, or that follows from pieces and downloads that are there, is not fetched.
    """
    reference = parse_reference(name)
    store = Store(home)
    registry = open_registry(reference.registry, listener=listener)
    with store.using():
        remote = resolve(registry, reference, arch or host_arch())
        if arch:
            require_arch(remote, arch)
        elif not runs_here(remote.config.architecture):
            listener.note(f"{reference.familiar} is for {remote.config.architecture}; it will not run here")
        admit_pull(store, registry, reference, remote.subjects)
        layers, documents = Completion(store, registry, remote, listener).layers()
        names = () if reference.digest else (reference,)
        image = keep(store, remote, names)
        keep_attached(store, image, tuple(documents.values()))
    return PullReport(
        name=reference.familiar,
        image=image.digest,
        digest=remote.digest,
        index=remote.index[0] if remote.index else None,
        layers=layers,
        moved=sum(layer.moved for layer in layers),
    )


def push(
    home: Home,
    name: str,
    *,
    to: str = "",
    compression: Compression | None = None,
    thin: bool = False,
    also: "Publication | None" = None,
    listener: Listener = SILENT,
) -> PushReport:
    """Send the image `name` to the registry that its name (or `to`) says, with its lock and its plan.

    A `thin` image leaves out what everybody can make from its lock. Pushing again sends nothing, and gives the same
    digest. `also` asks for documents and a signature.
    """
    target = parse_reference(to or name)
    if target.digest:
        raise UsageError(f"{to or name} names a digest, which pushing decides", hint="--to NAME:TAG")
    store = Store(home)
    registry = open_registry(target.registry, listener=listener)
    with store.using():
        image = store.images.get(store.images.resolve(name))
        if len(image.config.rootfs.diff_ids) > _MOST_OF_DOCKER:
            listener.note(
                f"{len(image.config.rootfs.diff_ids)} layers: Docker runs no image of more than {_MOST_OF_DOCKER}"
            )
        documents = _own_documents(store, image)
        left_out = _rebuildable(image, documents) if thin else ()
        pushed = push_image(
            store,
            registry,
            target,
            image,
            compression=compression,
            left_out=left_out,
            inside=documents if thin else (),
            listener=listener,
        )
        attachments = [
            attach(registry, target.repository, artifact_of(document.media_type, document.data), pushed.descriptor)
            for document in documents
            if not thin
        ]
        attachments += attach_kept(store, registry, target.repository, pushed.descriptor)
        if also is not None:
            from mlbox.engine.trust.signing import publish

            attachments += publish(store, registry, target.repository, image, pushed.descriptor, also)
    return PushReport(
        name=target.familiar,
        image=image.digest,
        digest=pushed.digest,
        thin=thin,
        layers=pushed.layers,
        left_out=tuple(left_out),
        attachments=tuple(attachments),
        moved=pushed.moved,
    )


def _own_documents(store: Store, image: Image) -> tuple[Blob, ...]:
    """Return the lock and the plan that the store has of the image."""
    lock, plan = store.referrers.lock_of(image.digest), store.referrers.plan_of(image.digest)
    found = ((LOCK_TYPE, lock), (PLAN_TYPE, plan))
    return tuple(Blob(media_type=kind, data=data) for kind, data in found if data is not None)


def _rebuildable(image: Image, documents: Sequence[Blob]) -> tuple[DiffID, ...]:
    from mlbox.build.rebuild import can_be_left_out, decode_plan, planned_layers

    data = next((document.data for document in documents if document.media_type == PLAN_TYPE), None)
    if data is None:
        raise UsageError(
            f"image {image.digest} has no plan, so nothing of it could be made again",
            hint="push it without --thin; an image that 'mlbox build' makes has one",
        )
    plan = decode_plan(data)
    planned = planned_layers(plan, image.config.rootfs.diff_ids)
    return tuple(diff_id for diff_id, layer in planned.items() if can_be_left_out(layer, plan))


def copy(
    home: Home, source: str, target: str, *, arch: str = "", referrers: bool = True, listener: Listener = SILENT
) -> Copied:
    """Copy an image from one registry to another, with all its platforms (or only `arch`), as it is.

    The store keeps nothing of it; blobs pass through a temporary folder there.
    """
    one, two = parse_reference(source), parse_reference(target)
    with disk_errors("copying"), Store(home).scratch("copy") as scratch:
        return copy_image(
            Place(registry=open_registry(one.registry, listener=listener), name=one),
            Place(registry=open_registry(two.registry, listener=listener), name=two),
            Path(scratch),
            arch=arch,
            referrers=referrers,
            listener=listener,
        )
