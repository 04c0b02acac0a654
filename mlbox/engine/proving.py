"""Making the layers of a plan again in a scratch store, from nothing but files whose hash was just checked."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

from mlbox.build.executor import Builder
from mlbox.build.fetch import Places
from mlbox.build.rebuild import leaves
from mlbox.build.sources import Sources
from mlbox.engine.building import artifacts
from mlbox.engine.running import step_runner
from mlbox.errors import ArchiveError, ContainerError, MlboxError
from mlbox.events import Listener
from mlbox.http import Http
from mlbox.lock.conda.channels import Channels
from mlbox.lock.debian import mirrors
from mlbox.lock.model import Lock
from mlbox.lock.python.config import indexes_for
from mlbox.oci.digest import DiffID
from mlbox.oci.layer import parents
from mlbox.plan.model import (
    GROUND,
    BuildPlan,
    BuiltWheelPiece,
    BytecodePiece,
    CondaConfiguredPiece,
    ConfiguredPiece,
    ImageLayerPiece,
    LayerPlan,
    ProjectPiece,
)
from mlbox.plan.run import run_piece
from mlbox.plan.stage import built_pieces
from mlbox.project.model import Project, Settings
from mlbox.store.layers import Layer
from mlbox.store.store import Store

_IN_CONTAINERS = ConfiguredPiece | CondaConfiguredPiece | BuiltWheelPiece | BytecodePiece


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """What an image is made again from."""

    what: str
    plan: BuildPlan
    lock: Lock | None
    project: Project | None
    """None: the project's files are those of the image, checked against the plan."""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Remaker:
    """Makes layers again in `scratch`; of `store` it takes files after hashing them, and the project's files."""

    def __init__(self, store: Store, scratch: Store, basis: Basis, listener: Listener) -> None:
        self._store = store
        self._scratch = scratch
        self._basis = basis
        self._listener = listener

    def take_artifacts(self, layers: Iterable[LayerPlan]) -> list[str]:
        """Link the files that the layers need into the scratch store; return notes on those that were changed."""
        layers = tuple(layers)
        pieces = [piece for layer in (*layers, *self._ground(layers)) for piece in leaves(layer)]
        wanted = {sha256 for piece in pieces for sha256 in artifacts(piece) if sha256}
        self._scratch.home.artifacts.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            have = sorted(sha256 for sha256 in wanted if self._store.artifacts.has(sha256))
            changed = [sha256 for sha256, good in zip(have, pool.map(self._take, have), strict=True) if not good]
        return [f"the store's file {sha256} was changed on the disk: run 'mlbox fsck --deep'" for sha256 in changed]

    def layers(
        self, plans: Mapping[int, LayerPlan], diff_ids: Sequence[DiffID]
    ) -> tuple[dict[int, Layer], dict[int, str]]:
        """Return the layers that were made again, by number, and for the others why not.

        What could be hashed from its pieces is no tree yet: `have_tree` makes one.
        """
        made: dict[int, Layer] = {}
        reasons: dict[int, str] = {}
        self._link_base()
        runs = {n: plan for n, plan in plans.items() if run_piece(plan)}
        rest = {n: plan for n, plan in plans.items() if n not in runs}
        plain = {n: plan for n, plan in rest.items() if project_piece(plan) is None and not needs_container(plan)}
        made.update(zip(plain, self._builder().hashed(list(plain.values())), strict=True))
        in_containers = {n: plan for n, plan in rest.items() if needs_container(plan)}
        try:
            made.update(zip(in_containers, self._in_containers(list(in_containers.values())), strict=True))
        except (MlboxError, OSError) as problem:
            reasons.update(dict.fromkeys(in_containers, str(problem)))
        for number in sorted(plans.keys() - made.keys() - reasons.keys()):
            try:
                remake = self._run if number in runs else self._project
                made[number] = remake(plans[number], number, diff_ids)
            except (MlboxError, OSError) as problem:
                reasons[number] = str(problem)
        return made, reasons

    def _link_base(self) -> None:
        """Let the scratch store have the layers of the images below, which are pinned by their digests."""
        self._scratch.home.layers.mkdir(parents=True, exist_ok=True)
        plan = self._basis.plan
        below = {one.diff_id for layer in plan.layers for one in layer.pieces if isinstance(one, ImageLayerPiece)}
        below.update(diff_id for piece in built_pieces(plan) for diff_id in piece.base or ())
        for diff_id in below:
            if self._store.layers.has(diff_id):
                self._scratch.layers.folder(diff_id).symlink_to(self._store.layers.folder(diff_id))

    def _in_containers(self, plans: list[LayerPlan]) -> list[Layer]:
        """Make layers that are pinned by what containers put out, all in as few of these as a build takes."""
        if not plans:
            return []
        if os.geteuid() != 0:
            raise ContainerError("pinned by the output of a container, which needs root to run")
        part = msgspec.structs.replace(self._basis.plan, layers=(*self._ground(plans), *plans))
        self._builder().build(part)
        return self._builder().layers(plans)

    def _run(self, plan: LayerPlan, number: int, diff_ids: Sequence[DiffID]) -> Layer:
        """Run a command again, on layers that were made again."""
        piece = run_piece(plan)
        assert piece is not None  # noqa: S101 - chosen for that
        if self._basis.project is None and (piece.network or piece.secrets or piece.gpu):
            raise ContainerError("a stranger's command gets no network, secrets or GPUs; 'verify -C FOLDER' runs ours")
        if os.geteuid() != 0:
            raise ContainerError("pinned by the output of a container, which needs root to run")
        layers = self._basis.plan.layers
        part = msgspec.structs.replace(self._basis.plan, layers=layers[: _index(layers, plan) + 1])
        builder = self._builder(self._project_root(number - _index(layers, plan), diff_ids))
        builder.build(part)
        return builder.layers([plan])[0]

    def _project_root(self, first: int, diff_ids: Sequence[DiffID]) -> Path:
        """Return where the project's files are; `first` is the number of the plan's first layer."""
        if self._basis.project is not None:
            return self._basis.project.root
        found = ((first + n, piece) for n, one in enumerate(self._basis.plan.layers) if (piece := project_piece(one)))
        number, project = next(found, (0, None))
        return self._files_of_image(project, diff_ids[number]) if project and number < len(diff_ids) else Path()

    def _project(self, plan: LayerPlan, number: int, diff_ids: Sequence[DiffID]) -> Layer:
        piece = project_piece(plan)
        if self._basis.project is not None or piece is None:
            return self._builder(self._basis.project.root if self._basis.project else Path()).hashed([plan])[0]
        if number >= len(diff_ids):
            raise ArchiveError("the image has no project layer")
        return self._builder(self._files_of_image(piece, diff_ids[number])).hashed([plan])[0]

    def _files_of_image(self, piece: ProjectPiece, diff_id: DiffID) -> Path:
        """Return where the image has the project's files; no link may lead out of the layer on the way there."""
        folders = {entry.path for entry in self._store.layers.entries(diff_id) if entry.kind == "dir"}
        workdir = piece.workdir.strip("/")
        if strange := parents(f"{workdir}/{file.path}" for file in piece.files) - folders:
            raise ArchiveError(f"/{min(strange)} is no folder of the project layer")
        return self._store.layers.root(diff_id) / workdir

    def _take(self, sha256: str) -> bool:
        if self._store.artifacts.verify(sha256):
            os.link(self._store.artifacts.path(sha256), self._scratch.artifacts.path(sha256))
            return True
        return False

    def _ground(self, layers: Iterable[LayerPlan]) -> list[LayerPlan]:
        """Return what steps in containers stand on, when there are any."""
        layers = list(layers)
        if runs := [layer for layer in layers if run_piece(layer)]:
            every = self._basis.plan.layers
            return list(every[: max(_index(every, layer) for layer in runs)])
        if not any(map(needs_container, layers)):
            return []
        return [layer for layer in self._basis.plan.layers if layer.kind in GROUND]

    def _builder(self, root: Path = Path()) -> Builder:
        http = Http()
        project = self._basis.project or Project(root=root.absolute(), name="", settings=Settings(), sources=())
        target = self._basis.lock.target if self._basis.lock else None
        if target:
            project = project.for_accelerator(target.accelerator)
        places = Places(lambda: indexes_for(project), http, home=self._store.home, root=project.root, target=target)
        snapshot = self._basis.lock.snapshot if self._basis.lock else ""
        where = partial(mirrors, snapshot=snapshot, sources=project.settings.apt_sources)
        named = project.conda.channels if project.conda else ()
        channels = Channels(named, home=self._store.home, learn=http.learn)
        sources = Sources(self._basis.plan, places, where, self._scratch.artifacts, http, self._listener, channels)
        env = os.environ if self._basis.project else {}
        return Builder(self._scratch, sources, step_runner(self._scratch.home), self._listener, root, env=env)


def _index(layers: Sequence[LayerPlan], one: LayerPlan) -> int:
    return next(number for number, layer in enumerate(layers) if layer is one)


def have_tree(scratch: Store, plan: LayerPlan, layer: Layer) -> None:
    """Have the tree of a layer that `Remaker.layers` returned in its scratch store."""
    if not scratch.layers.has(layer.diff_id):
        pieces = [found for piece in plan.pieces if (found := scratch.pieces.get(piece.key))]
        scratch.layers.assemble(plan.key, plan.name, pieces)


def needs_container(layer: LayerPlan) -> bool:
    """Whether making the layer runs code: it is pinned by its output."""
    return any(isinstance(piece, _IN_CONTAINERS) for piece in layer.pieces)


def project_piece(layer: LayerPlan) -> ProjectPiece | None:
    """Return the project's files when the layer holds them."""
    return next((piece for piece in layer.pieces if isinstance(piece, ProjectPiece)), None)
