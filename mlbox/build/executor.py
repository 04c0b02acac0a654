"""Carries out a build plan: what is there already is left alone, the rest is fetched, unpacked and assembled."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from mlbox.build.activation import read_activation
from mlbox.build.addition import fill_addition
from mlbox.build.bytecode import compile_pieces, fill_bytecode
from mlbox.build.changes import Changes
from mlbox.build.clobber import clobbers
from mlbox.build.compiling import Place, Smith
from mlbox.build.conda import fill_conda_env, link_scripts, unpack_conda
from mlbox.build.configure import configure, run_link_scripts
from mlbox.build.deb import unpack_deb
from mlbox.build.env import fill_env
from mlbox.build.image import assemble_image
from mlbox.build.project import fill_project
from mlbox.build.rootfs import fill_rootfs, needs_configure
from mlbox.build.run import run_command
from mlbox.build.sources import Sources
from mlbox.build.step import StepRunner
from mlbox.build.wheel import unpack_wheel
from mlbox.codec import key_of
from mlbox.errors import BuildError
from mlbox.events import Listener
from mlbox.lock.model import Base
from mlbox.oci.image import (
    Image,
    ImageConfig,
)
from mlbox.plan.label import label
from mlbox.plan.model import (
    GROUND,
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
    RunPiece,
    WheelPiece,
)
from mlbox.plan.run import below_key, run_piece, title
from mlbox.plan.stage import ground_of
from mlbox.store.layers import Layer
from mlbox.store.pieces import StoredPiece
from mlbox.store.store import Store
from mlbox.store.tree import Tree

_DOWNLOADS = 8
_SYSTEM = RootfsPiece | AdditionPiece
_IN_CONTAINERS = ConfiguredPiece | CondaConfiguredPiece | BuiltWheelPiece | BytecodePiece
_MADE_FROM_OTHERS = ImageLayerPiece | _SYSTEM | _IN_CONTAINERS | RunPiece


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
        env: Mapping[str, str] = {},
        accepted: Collection[str] = (),
    ) -> None:
        """`env` are the variables of this process that commands may ask for as secrets.

        `accepted` are libraries that a built package may lack.
        """
        self._store = store
        self._sources = sources
        self._runner = runner
        self._listener = listener
        self._project_root = project_root
        self._bases = bases
        self._host_env = env
        self._accepted = accepted
        self._smith = Smith(store, sources, runner, listener)
        self._places: dict[str, Place] = {}
        self._quiet: set[str] = set()
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
            self._make_in_containers(plan)
            layers = self._all_layers(plan.layers)
            activation = read_activation(self._store, plan, layers)
            for script in activation.scripts:
                self._listener.note(
                    f"activating the environment would run {script}, which is no list of variables; if something misses"
                    " what it sets, say it in [tool.mlbox] env"
                )
            for clobber in clobbers(self._conda_pieces(plan)):
                self._listener.note(clobber.message)
            image = assemble_image(plan, layers, below, activation.env)
            self._store.images.add(image)
            self._store.images.remember_build(plan.key, image.digest)
        return image

    def _conda_pieces(self, plan: BuildPlan) -> list[StoredPiece]:
        """Return the unpacked conda packages, in the order of their layers, as far as they are here."""
        pieces = (piece for layer in plan.layers for piece in layer.pieces if isinstance(piece, CondaPiece))
        return [stored for piece in pieces if (stored := self._store.pieces.get(piece.key))]

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

    def _all_layers(self, plans: Sequence[LayerPlan]) -> list[Layer]:
        """Return the layers; those of commands one after the other, each on all that are below it."""
        with ThreadPoolExecutor(_workers()) as pool:
            ready = pool.map(self._layer, [plan for plan in plans if run_piece(plan) is None])
            made: list[Layer] = []
            for plan in plans:
                piece = run_piece(plan)
                made.append(self._run(plan, piece, plans[: len(made)], made) if piece else next(ready))
        return made

    def _run(self, plan: LayerPlan, piece: RunPiece, below: Sequence[LayerPlan], made: Sequence[Layer]) -> Layer:
        """Return the layer of a command, which runs when nobody has run it on these layers."""
        if piece.below != below_key(below):
            raise BuildError(f"layer {plan.name}: the plan has it on other layers than those it was planned for")
        name = f"{plan.name}, {title(piece.command)}"
        return self._store.layers.capture(plan.key, name, partial(self._run_command, piece, made))

    def _run_command(self, piece: RunPiece, made: Sequence[Layer], scratch: Path) -> Changes:
        self._listener.step(f"run {title(piece.command)} in a container")
        layers = self._store.layers
        lower = [(layers.root(one.diff_id), Tree(entries=layers.entries(one.diff_id))) for one in made]
        changes = run_command(piece, lower, self._project_root, self._runner, scratch, self._host_env)
        for note in changes.notes:
            self._listener.note(f"{title(piece.command)}: {note}")
        return changes

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

    def _make_in_containers(self, plan: BuildPlan) -> None:
        """Make what must run code, one after the other: a compiler takes all processors itself."""
        missing = self._missing(plan.layers)
        for piece in missing:
            if isinstance(piece, ConfiguredPiece | CondaConfiguredPiece):
                self._piece(piece)
        compiled = [piece for piece in missing if isinstance(piece, BytecodePiece)]
        sources = {piece.of.key: piece.of for piece in compiled if isinstance(piece.of, BuiltWheelPiece)}
        sources |= {piece.key: piece for piece in missing if isinstance(piece, BuiltWheelPiece)}
        self._build(plan, [piece for key, piece in sources.items() if not self._store.pieces.has(key)])
        self._compile(compiled)

    def _build(self, plan: BuildPlan, pieces: Sequence[BuiltWheelPiece]) -> None:
        """Build packages from source, each on its stage; what is known of them is unpacked."""
        unknown = [piece for piece in pieces if self._smith.known(piece) is None]
        needed = {piece.key: piece for one in unknown for piece in build_pieces(one)}
        self._in_parallel([piece for key, piece in needed.items() if not self._store.pieces.has(key)])
        if unknown and plan.build_base and self._bases:
            self._bases(plan.build_base)
        for piece in unknown:
            self._places[piece.key] = self._place(plan, piece)
        for piece in pieces:
            self._piece(piece)

    def _place(self, plan: BuildPlan, piece: BuiltWheelPiece) -> Place:
        """Have what `piece` is built on and with."""
        ground = ground_of(plan, piece)
        self._quiet.update(part.key for layer in ground for part in layer.pieces)
        self._make_pieces(ground)
        site = self._store.layers.assemble(
            key_of([needed.key for needed in build_pieces(piece)]),
            f"build requirements of {piece.source.name}",
            [self._piece(needed) for needed in build_pieces(piece)],
        )
        return Place(
            image=[self._layer(layer).diff_id for layer in plan.layers if layer.kind in GROUND],
            ground=[self._layer(layer).diff_id for layer in ground],
            stage=[self._piece(deb) for deb in piece.build_debs or ()],
            site=site.diff_id,
            environment=frozenset(package.name for package in plan.packages),
            accepted=self._accepted,
        )

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
            case RunPiece():
                raise BuildError(f"{label(piece)}: what a command makes is a layer, and no part of one")

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
        if piece.key in self._quiet:  # of a stage, which nobody lives in
            return trees
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
        if (wheel := self._smith.known(piece)) is not None:
            return self._smith.fill_known(root, piece, wheel)
        self._listener.step(f"build a wheel of {piece.source.name} {piece.source.version} in a container")
        return self._smith.fill(root, piece, self._places[piece.key])


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


def configured_packages(plan: BuildPlan) -> frozenset[str]:
    """Return the packages whose scripts the plan runs."""
    run = (piece for layer in plan.layers for piece in layer.pieces)
    kinds = (ConfiguredPiece, CondaConfiguredPiece)
    return frozenset(name for piece in run if isinstance(piece, kinds) for name in piece.packages)


def _workers() -> int:
    return len(os.sched_getaffinity(0))
