"""Images from and to registries: what `pull`, `push` and `copy` mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from mlbox.engine.admission import admit_pull
from mlbox.engine.arch import host_arch, runs_here
from mlbox.errors import MlboxError, RegistryError, UsageError
from mlbox.events import SILENT, Listener
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE, Artifact, Blob, artifact_of
from mlbox.oci.digest import DiffID, Digest
from mlbox.oci.image import Image
from mlbox.oci.reference import Reference, parse_reference
from mlbox.paths import Home
from mlbox.registry.client import Registry, open_registry
from mlbox.registry.copy import Copied, Place, copy_image
from mlbox.registry.pull import (
    PulledLayer,
    attached,
    fetch_layers,
    here,
    inside,
    keep,
    keep_attached,
)
from mlbox.registry.push import PushedLayer, attach, attach_kept, push_image
from mlbox.registry.transfer import RemoteImage, resolve
from mlbox.store.compression import Compression
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.build.executor import Builder
    from mlbox.engine.signing import Publication
    from mlbox.plan.model import BuildPlan, LayerPlan

_DOCUMENT_LIMIT = 64 << 20
"""Bytes of the largest plan or lock that is taken from a registry."""
_DOCUMENTS = (LOCK_TYPE, PLAN_TYPE)
_SMALL = 64 << 10
"""A blob of so few bytes is fetched: making the layer here would take longer."""

Layers = dict[DiffID, PulledLayer]


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
        if arch and remote.config.architecture != arch:
            raise RegistryError(f"{reference.familiar} is for {remote.config.architecture}, not for {arch}")
        if not arch and not runs_here(remote.config.architecture):
            listener.note(f"{reference.familiar} is for {remote.config.architecture}; it will not run here")
        admit_pull(store, registry, reference, remote.subjects)
        layers, documents = _Pull(store, registry, remote, listener).layers()
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


class _Pull:
    """Brings the layers of one image, each from the cheapest place."""

    def __init__(self, store: Store, registry: Registry, remote: RemoteImage, listener: Listener) -> None:
        self._store = store
        self._registry = registry
        self._remote = remote
        self._listener = listener

    def layers(self) -> tuple[tuple[PulledLayer, ...], dict[str, Artifact]]:
        """Have all layers in the store; return where each came from, and the lock and plan that came with them."""
        store, remote = self._store, self._remote
        done: Layers = {diff_id: here(store, diff_id) for diff_id in remote.diff_ids if store.layers.has(diff_id)}
        documents = self._documents()
        plan = _plan_of(documents) if len(done) < len(remote.diff_ids) else None
        if plan is not None:
            done |= self._from_here(plan, done)
            if remote.is_thin:
                done |= self._from_index(plan, done)
        missing = [diff_id for diff_id in remote.diff_ids if diff_id not in done]
        self._refuse_incomplete(missing)
        fetched = fetch_layers(store, self._registry, remote, self._listener, only=missing)
        done |= {layer.diff_id: layer for layer in fetched}
        return tuple(done[diff_id] for diff_id in remote.diff_ids), documents

    def _documents(self) -> dict[str, Artifact]:
        if self._remote.is_thin:
            return inside(self._registry, self._remote, _DOCUMENTS, _DOCUMENT_LIMIT)
        return attached(self._registry, self._remote, _DOCUMENTS, _DOCUMENT_LIMIT)

    def _from_here(self, plan: "BuildPlan", done: Layers) -> Layers:
        """Make what follows from pieces and downloads of the store; without the network."""
        from mlbox.build.rebuild import made_from

        made: Layers = {}
        sources: tuple[Literal["pieces", "artifacts"], ...] = ("pieces", "artifacts")
        planned = {key: layer for key, layer in self._planned(plan, done).items() if self._is_worth_it(key)}
        for source in sources:
            chosen = {diff_id: layer for diff_id, layer in planned.items() if made_from(layer, self._store) == source}
            for diff_id in self._make(plan, chosen):
                made[diff_id] = msgspec.structs.replace(here(self._store, diff_id), source=source)
        return made

    def _from_index(self, plan: "BuildPlan", done: Layers) -> Layers:
        """Make what a thin image left out; files come from the index and the mirror of this machine."""
        from mlbox.build.rebuild import can_be_left_out, file_sizes, missing_files

        planned = self._planned(plan, done)
        chosen = {
            diff_id: layer
            for diff_id, layer in planned.items()
            if diff_id not in self._remote.blobs and can_be_left_out(layer, plan)
        }
        sizes = file_sizes(plan)
        needed = {key: missing_files(layer, self._store) for key, layer in chosen.items()}
        made: Layers = {}
        for diff_id in self._make(plan, chosen):
            moved = sum(sizes.get(sha256, 0) for sha256 in needed[diff_id])
            made[diff_id] = msgspec.structs.replace(here(self._store, diff_id), source="artifacts", moved=moved)
        return made

    def _is_worth_it(self, diff_id: DiffID) -> bool:
        blob = self._remote.blobs.get(diff_id)
        return blob is None or blob.size > _SMALL

    def _planned(self, plan: "BuildPlan", done: Layers) -> dict[DiffID, "LayerPlan"]:
        from mlbox.build.rebuild import planned_layers

        planned = planned_layers(plan, self._remote.config.rootfs.diff_ids)
        return {diff_id: layer for diff_id, layer in planned.items() if diff_id not in done}

    def _make(self, plan: "BuildPlan", chosen: Mapping[DiffID, "LayerPlan"]) -> list[DiffID]:
        """Make layers from the image's own plan and return those that became what the image says.

        The plan is not trusted: what it makes is used only where the diffID is the one wanted.
        """
        if not chosen:
            return []
        builder = _builder(self._store, plan, tuple(chosen.values()), self._listener)
        try:
            made = builder.layers(tuple(chosen.values()))
        except MlboxError:
            if self._remote.is_thin:
                raise
            return []
        return [diff_id for diff_id, layer in zip(chosen, made, strict=True) if layer.diff_id == diff_id]

    def _refuse_incomplete(self, missing: Sequence[DiffID]) -> None:
        lost = [diff_id for diff_id in missing if diff_id not in self._remote.blobs]
        if lost:
            raise RegistryError(
                f"{self._remote.reference.familiar} is a thin image, and {len(lost)} of the layers left out of it"
                f" cannot be made here ({lost[0]} and what its plan says differ)",
                hint="ask for the whole image: 'mlbox push' without --thin",
            )


def _plan_of(documents: Mapping[str, Artifact]) -> "BuildPlan | None":
    from mlbox.build.rebuild import decode_plan

    artifact = documents.get(PLAN_TYPE)
    if artifact is None or not artifact.blobs:
        return None
    try:
        return decode_plan(artifact.blobs[0].data)
    except MlboxError:
        return None


class _Quiet:
    """Shows progress and keeps the notes of a build to itself: this is a pull."""

    def __init__(self, listener: Listener) -> None:
        self.expect, self.advance = listener.expect, listener.advance

    def step(self, what: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


def _builder(store: Store, plan: "BuildPlan", layers: "tuple[LayerPlan, ...]", listener: Listener) -> "Builder":
    from mlbox.build.executor import Builder
    from mlbox.build.fetch import Places
    from mlbox.build.rebuild import part_of
    from mlbox.build.sources import Sources
    from mlbox.engine.running import step_runner
    from mlbox.http import Http
    from mlbox.lock.debian import mirrors
    from mlbox.lock.python.config import indexes_for
    from mlbox.project.model import Project, Settings

    http, quiet = Http(), _Quiet(listener)
    nothing = Project(root=store.home.root, name="image", settings=Settings(), sources=())
    places = Places(lambda: indexes_for(nothing), http, home=store.home, root=store.home.root)
    sources = Sources(part_of(plan, layers), places, mirrors, store.artifacts, http, quiet)
    return Builder(store, sources, step_runner(store.home), quiet, store.home.root)


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
            from mlbox.engine.signing import publish

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
    with Store(home).scratch("copy") as scratch:
        return copy_image(
            Place(registry=open_registry(one.registry, listener=listener), name=one),
            Place(registry=open_registry(two.registry, listener=listener), name=two),
            Path(scratch),
            arch=arch,
            referrers=referrers,
            listener=listener,
        )
