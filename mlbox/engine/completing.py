"""The layers of a pulled image: there already, made from what is there, or fetched."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from mlbox.errors import MlboxError, RegistryError
from mlbox.events import Listener
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE, Artifact
from mlbox.oci.digest import DiffID
from mlbox.registry.client import Registry
from mlbox.registry.pull import PulledLayer, attached, fetch_layers, here, inside
from mlbox.registry.transfer import RemoteImage
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.build.executor import Builder
    from mlbox.plan.model import BuildPlan, LayerPlan

_DOCUMENT_LIMIT = 64 << 20
"""Bytes of the largest plan or lock that is taken from a registry."""
_DOCUMENTS = (LOCK_TYPE, PLAN_TYPE)
_SMALL = 64 << 10
"""A blob of so few bytes is fetched: making the layer here would take longer."""
_WHOLE = "ask for the whole image: 'mlbox push' without --thin"

Layers = dict[DiffID, PulledLayer]


class Completion:
    """Has the layers of one image of a registry in the store, each from the cheapest place."""

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
        builder = builder_for(self._store, plan, tuple(chosen.values()), self._listener)
        try:
            made = builder.layers(tuple(chosen.values()))
        except MlboxError as problem:
            if not self._remote.is_thin:
                return []
            problem.message = (
                f"{self._remote.reference.familiar} is a thin image, and a layer left out of it"
                f" cannot be made here: {problem.message}"
            )
            problem.args = (problem.message,)
            problem.hint = f"{problem.hint}; or {_WHOLE}" if problem.hint else _WHOLE
            raise
        return [diff_id for diff_id, layer in zip(chosen, made, strict=True) if layer.diff_id == diff_id]

    def _refuse_incomplete(self, missing: Sequence[DiffID]) -> None:
        lost = [diff_id for diff_id in missing if diff_id not in self._remote.blobs]
        if lost:
            raise RegistryError(
                f"{self._remote.reference.familiar} is a thin image, and {len(lost)} of the layers left out of it"
                f" cannot be made here ({lost[0]} and what its plan says differ)",
                hint=_WHOLE,
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


def builder_for(store: Store, plan: "BuildPlan", layers: "tuple[LayerPlan, ...]", listener: Listener) -> "Builder":
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
