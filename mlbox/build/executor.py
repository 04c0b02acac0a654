"""Carries out a build plan: what is there already is left alone, the rest is fetched, unpacked and assembled."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from mlbox.build.addition import fill_addition
from mlbox.build.bytecode import compile_pieces, fill_bytecode
from mlbox.build.conda import fill_conda_env, link_scripts, unpack_conda
from mlbox.build.configure import configure, run_link_scripts
from mlbox.build.deb import unpack_deb
from mlbox.build.env import fill_env
from mlbox.build.project import fill_project
from mlbox.build.rootfs import fill_rootfs, needs_configure
from mlbox.build.sdist import build_wheel
from mlbox.build.sources import Sources
from mlbox.build.step import StepRunner
from mlbox.build.wheel import unpack_wheel
from mlbox.codec import key_of
from mlbox.events import Listener
from mlbox.lock.model import Base
from mlbox.oci.image import (
    History,
    Image,
    ImageConfig,
    RootFS,
    image_of,
)
from mlbox.plan.model import (
    GROUND,
    PREFIX,
    AdditionPiece,
    AnyPiece,
    BuildPlan,
    BuiltWheelPiece,
    BytecodePiece,
    CondaConfiguredPiece,
    CondaEnvPiece,
    CondaPiece,
    ConfiguredPiece,
    DebPiece,
    EnvPiece,
    ImageLayerPiece,
    LayerPlan,
    ProjectPiece,
    RootfsPiece,
    WheelPiece,
)
from mlbox.plan.planner import created, direct_url
from mlbox.store.layers import Layer
from mlbox.store.pieces import StoredPiece
from mlbox.store.store import Store
from mlbox.store.tree import Tree

_DOWNLOADS = 8
_SYSTEM = RootfsPiece | AdditionPiece
_IN_CONTAINERS = ConfiguredPiece | CondaConfiguredPiece | BuiltWheelPiece | BytecodePiece
_MADE_FROM_OTHERS = ImageLayerPiece | _SYSTEM | _IN_CONTAINERS


Bases = Callable[[Base], ImageConfig]
"""Has the layers of an image below in the store, and returns its configuration."""


class Builder:
    """Turns plans into images of one store."""

    def __init__(
        self,
        store: Store,
        sources: Sources,
        runner: StepRunner,
        listener: Listener,
        project_root: Path,
        bases: Bases | None = None,
    ) -> None:
        self._store = store
        self._sources = sources
        self._runner = runner
        self._listener = listener
        self._project_root = project_root
        self._bases = bases
        self._lower: tuple[Path, ...] = ()
        self._env: tuple[str, ...] = ()
        self._configured: frozenset[str] = frozenset()

    def build(self, plan: BuildPlan) -> Image:
        """Return the image of `plan`; equal plans give equal digests, whatever was in the store before."""
        with self._store.using():
            known = self._store.images.built(plan.key)
            if known is not None:
                return self._store.images.load(known)
            below = self._bases(plan.base) if plan.base and self._bases else None
            self._env = plan.base.env if plan.base else ()
            self._configured = configured_packages(plan)
            ground = [layer for layer in plan.layers if layer.kind in GROUND]
            self._make_pieces(plan.layers)
            self._lower = tuple(self._store.layers.root(self._layer(layer).diff_id) for layer in ground)
            self._make_in_containers(plan.layers)
            with ThreadPoolExecutor(_workers()) as pool:
                layers = list(pool.map(self._layer, plan.layers))
            image = assemble_image(plan, layers, below)
            self._store.images.add(image)
            self._store.images.remember_build(plan.key, image.digest)
        return image

    def layers(self, plans: Sequence[LayerPlan]) -> list[Layer]:
        """Return those layers of a plan alone; none of them may need a container (see mlbox.build.rebuild)."""
        with self._store.using():
            self._make_pieces(plans)
            with ThreadPoolExecutor(_workers()) as pool:
                return list(pool.map(self._layer, plans))

    def hashed(self, plans: Sequence[LayerPlan]) -> list[Layer]:
        """Return what `layers` would, but only the pieces are there afterwards."""
        with self._store.using():
            self._make_pieces(plans)
            with ThreadPoolExecutor(_workers()) as pool:
                return list(pool.map(self._hashed, plans))

    def _hashed(self, plan: LayerPlan) -> Layer:
        if any(isinstance(piece, ImageLayerPiece) for piece in plan.pieces):
            return self._layer(plan)
        return self._store.layers.hashed(plan.key, plan.name, [self._piece(piece) for piece in plan.pieces])

    def _layer(self, plan: LayerPlan) -> Layer:
        found = self._store.layers.find(plan.key)
        if found is not None:
            return found
        match plan.pieces:
            case (ImageLayerPiece(diff_id=diff_id),):
                return self._store.layers.adopt(plan.key, plan.name, diff_id)
        return self._store.layers.assemble(plan.key, plan.name, [self._piece(piece) for piece in plan.pieces])

    def _missing(self, layers: Iterable[LayerPlan]) -> list[AnyPiece]:
        """Return the pieces of the layers that are neither built nor unpacked, each once."""
        unbuilt = (layer for layer in layers if self._store.layers.find(layer.key) is None)
        pieces = {piece.key: piece for layer in unbuilt for piece in layer.pieces}
        return [piece for key, piece in pieces.items() if not self._store.pieces.has(key)]

    def _make_pieces(self, layers: Iterable[LayerPlan]) -> None:
        """Unpack the archives that are missing, then make what is made from them."""
        missing = self._missing(layers)
        rootfs = [piece for piece in missing if isinstance(piece, _SYSTEM)]
        below = {deb.key: deb for piece in rootfs for deb in piece.debs}
        leaves = {piece.key: piece for piece in missing if not isinstance(piece, _MADE_FROM_OTHERS)}
        self._in_parallel([piece for key, piece in (leaves | below).items() if not self._store.pieces.has(key)])
        for piece in rootfs:
            self._piece(piece)

    def _make_in_containers(self, layers: Iterable[LayerPlan]) -> None:
        """Make what must run code, one after the other: a compiler takes all processors itself."""
        missing = self._missing(layers)
        for piece in missing:
            if isinstance(piece, ConfiguredPiece | CondaConfiguredPiece):
                self._piece(piece)
        built = [piece for piece in missing if isinstance(piece, BuiltWheelPiece)]
        needed = {piece.key: piece for one in built for piece in build_pieces(one)}
        self._in_parallel([piece for key, piece in needed.items() if not self._store.pieces.has(key)])
        for piece in built:
            self._piece(piece)
        self._compile([piece for piece in missing if isinstance(piece, BytecodePiece)])

    def _compile(self, pieces: list[BytecodePiece]) -> None:
        """Compile the byte code of many packages in one container."""
        if not pieces:
            return
        self._listener.step(f"compile the byte code of {len(pieces)} packages in a container")
        sources = {self._piece(piece.of).key: piece for piece in pieces}
        with self._store.scratch("compile") as scratch:
            env = dict(item.partition("=")[::2] for item in self._env)
            out = compile_pieces(sources, self._store.home.pieces, self._lower, self._runner, scratch, env)
            for key, piece in sources.items():
                self._store.pieces.make(piece.key, label(piece), partial(_filled, out / key, piece))

    def _in_parallel(self, pieces: Iterable[AnyPiece]) -> None:
        """Download with many threads and unpack with one per processor, each archive as soon as it is there."""
        largest_first = sorted(pieces, key=lambda piece: -self._sources.size(piece))
        self._sources.expect(largest_first)
        with ThreadPoolExecutor(_DOWNLOADS) as network, ThreadPoolExecutor(_workers()) as processors:
            fetches = {network.submit(self._sources.fetch, piece): piece for piece in largest_first}
            jobs: list[Future[StoredPiece]] = []
            try:
                for fetched in as_completed(fetches):
                    fetched.result()
                    jobs.append(processors.submit(self._piece, fetches[fetched]))
                for job in jobs:
                    job.result()
            except BaseException:
                network.shutdown(wait=False, cancel_futures=True)
                processors.shutdown(wait=False, cancel_futures=True)
                raise

    def _piece(self, piece: AnyPiece) -> StoredPiece:
        found = self._store.pieces.get(piece.key)
        return found or self._store.pieces.make(piece.key, label(piece), self._filler(piece))

    def _filler(self, piece: AnyPiece) -> Callable[[Path], Tree]:
        """Return what writes the tree of `piece` into an empty folder."""
        match piece:
            case WheelPiece():
                return lambda root: unpack_wheel(self._sources.path(piece), root, piece)
            case DebPiece():
                return lambda root: unpack_deb(self._sources.path(piece), root, epoch=piece.epoch)
            case EnvPiece():
                return lambda root: fill_env(root, piece)
            case CondaEnvPiece():
                return lambda root: fill_conda_env(root, piece)
            case CondaPiece():
                return lambda root: self._conda(root, piece)
            case CondaConfiguredPiece():
                return lambda root: self._link(root, piece)
            case ProjectPiece():
                return lambda root: fill_project(root, piece, self._project_root)
            case RootfsPiece():
                return lambda root: self._rootfs(root, piece)
            case AdditionPiece():
                return lambda root: self._addition(root, piece)
            case ConfiguredPiece():
                return lambda root: self._configure(root, piece)
            case BuiltWheelPiece():
                return lambda root: self._built_wheel(root, piece)
            case BytecodePiece():
                raise AssertionError("byte code is compiled for many packages at once")
            case ImageLayerPiece():
                raise AssertionError("a layer of an image is there, or was fetched")

    def _rootfs(self, root: Path, piece: RootfsPiece) -> Tree:
        trees = self._unpacked(piece)
        return fill_rootfs(root, trees, suite=piece.suite, arch=piece.arch, epoch=piece.epoch)

    def _addition(self, root: Path, piece: AdditionPiece) -> Tree:
        layers = self._store.layers
        base = [(layers.root(diff_id), Tree(entries=layers.entries(diff_id))) for diff_id in piece.base]
        return fill_addition(root, base, self._unpacked(piece), arch=piece.arch, epoch=piece.epoch)

    def _unpacked(self, piece: RootfsPiece | AdditionPiece) -> list[tuple[Path, Tree]]:
        """Return the unpacked .debs of a root file system, saying whose scripts would have done more than mlbox."""
        trees = [(stored.root, stored.tree) for stored in map(self._piece, piece.debs)]
        if scripted := [name for name in needs_configure(trees) if name not in self._configured]:
            self._listener.note(
                f"the maintainer scripts of {', '.join(scripted)} make files that this image lacks; "
                "if something misses them, name the package in [tool.mlbox] configure"
            )
        return trees

    def _configure(self, root: Path, piece: ConfiguredPiece) -> Tree:
        self._listener.step(f"configure {', '.join(piece.packages)} in a container")
        with self._store.scratch("configure") as scratch:
            return configure(root, piece, self._lower, self._runner, scratch)

    def _conda(self, root: Path, piece: CondaPiece) -> Tree:
        tree = unpack_conda(self._sources.path(piece), root, piece)
        if link_scripts(tree, piece.name) and piece.name not in self._configured:
            self._listener.note(
                f"conda would run a script when it links {piece.name} {piece.version}, and mlbox runs none by itself; "
                "if something misses what it makes, name the package in [tool.mlbox] configure"
            )
        return tree

    def _link(self, root: Path, piece: CondaConfiguredPiece) -> Tree:
        self._listener.step(f"run the link scripts of {', '.join(piece.packages)} in a container")
        with self._store.scratch("configure") as scratch:
            return run_link_scripts(root, piece, self._lower, self._runner, scratch)

    def _built_wheel(self, root: Path, piece: BuiltWheelPiece) -> Tree:
        self._listener.step(f"build a wheel of {piece.source.name} {piece.source.version} in a container")
        with self._store.scratch("build") as scratch:
            site = self._store.layers.assemble(
                key_of([needed.key for needed in build_pieces(piece)]),
                f"build requirements of {piece.source.name}",
                [self._piece(needed) for needed in build_pieces(piece)],
            )
            wheel = build_wheel(
                piece,
                self._sources.source_of(piece.source, scratch),
                self._store.layers.root(site.diff_id) / PREFIX,
                self._runner,
                self._lower,
                scratch,
            )
            return unpack_wheel(wheel, root, as_wheel(piece, wheel))


def _filled(compiled: Path, piece: BytecodePiece, root: Path) -> Tree:
    return fill_bytecode(root, compiled, piece)


def build_pieces(piece: BuiltWheelPiece) -> tuple[EnvPiece | CondaPiece | WheelPiece, ...]:
    """Return the pieces of the environment that `piece` is built in."""
    env = EnvPiece(python=piece.python, python_full=piece.python_full, home=piece.home, epoch=piece.epoch)
    below: tuple[EnvPiece | CondaPiece, ...] = piece.conda or (env,)
    wheels = (
        WheelPiece(
            name=needed.name,
            version=needed.version,
            filename=needed.filename,
            sha256=needed.sha256,
            python=piece.python,
            epoch=piece.epoch,
        )
        for needed in piece.build_packages
    )
    return *below, *wheels


def as_wheel(piece: BuiltWheelPiece, wheel: Path) -> WheelPiece:
    """Return the piece that installs the built `wheel`."""
    return WheelPiece(
        name=piece.source.name,
        version=piece.source.version,
        filename=wheel.name,
        sha256="",
        python=piece.python,
        requested=piece.requested,
        direct_url=direct_url(piece.source),
        epoch=piece.epoch,
    )


def assemble_image(plan: BuildPlan, layers: Sequence[Layer], below: ImageConfig | None = None) -> Image:
    """Return the image of `plan` over its built layers and the configuration of the image `below` them, if any.

    Every byte follows from these.
    """
    when = created(plan.epoch)
    history = [History(created=when, created_by=f"mlbox: {layer.name}", comment=layer.reason) for layer in plan.layers]
    if below is not None and sum(not one.empty_layer for one in below.history) == len(below.rootfs.diff_ids):
        history = [*below.history, *history[len(below.rootfs.diff_ids) :]]
    config = ImageConfig(
        created=when,
        architecture=plan.arch,
        os="linux",
        variant=below.variant if below else "",
        config=plan.config,
        rootfs=RootFS(diff_ids=tuple(layer.diff_id for layer in layers)),
        history=tuple(history),
    )
    return image_of(config, tuple(layer.descriptor for layer in layers))


def configured_packages(plan: BuildPlan) -> frozenset[str]:
    """Return the packages whose scripts the plan runs."""
    run = (piece for layer in plan.layers for piece in layer.pieces)
    kinds = (ConfiguredPiece, CondaConfiguredPiece)
    return frozenset(name for piece in run if isinstance(piece, kinds) for name in piece.packages)


def label(piece: AnyPiece) -> str:
    """Return what a piece is called in messages."""
    match piece:
        case WheelPiece() | DebPiece() | CondaPiece():
            return f"{piece.name} {piece.version}"
        case BytecodePiece():
            return f"byte code of {piece.label}"
        case BuiltWheelPiece():
            return f"{piece.source.name} {piece.source.version}"
        case RootfsPiece():
            return f"root file system of Debian {piece.suite}"
        case AdditionPiece():
            return f"packages of {piece.suite} on the base"
        case ImageLayerPiece():
            return f"layer {piece.diff_id}"
        case ConfiguredPiece() | CondaConfiguredPiece():
            return f"configured {', '.join(piece.packages)}"
        case CondaEnvPiece():
            return "conda environment"
        case EnvPiece():
            return f"environment for Python {piece.python}"
        case ProjectPiece():
            return "project files"


def _workers() -> int:
    return len(os.sched_getaffinity(0))
