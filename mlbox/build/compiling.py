"""Makes the piece of a package that is built from source: its wheel is built or known, then checked and unpacked."""

import mmap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from msgspec import UNSET

from mlbox.build.binaries import Binary, is_library, read_binaries
from mlbox.build.flaws import Flaw, Surroundings, describe, flaws_of, system_packages
from mlbox.build.ground import read_ground
from mlbox.build.sdist import build_wheel
from mlbox.build.sources import Sources
from mlbox.build.step import StepRunner
from mlbox.build.toolkit import make_toolkit
from mlbox.build.wheel import site_packages, unpack_wheel
from mlbox.codec import canonical_json
from mlbox.errors import LackingError
from mlbox.events import Listener
from mlbox.loader import MACHINES
from mlbox.oci.digest import DiffID
from mlbox.plan.model import PREFIX, BuiltWheelPiece, WheelPiece
from mlbox.plan.planner import direct_url
from mlbox.store.built import BuiltWheel
from mlbox.store.pieces import StoredPiece
from mlbox.store.store import Store
from mlbox.store.tree import Tree

_SOURCE = b"/build/source"


class Place(NamedTuple):
    """What a package is built on and for."""

    image: Sequence[DiffID]
    """The layers of the image's system, the lowest first."""
    ground: Sequence[DiffID]
    """Those it is built on, the compilers' stage among them."""
    stage: Sequence[StoredPiece]
    """The unpacked debs of that stage."""
    site: DiffID
    """The layer with the build requirements."""
    environment: Collection[str]
    """The names of the packages that will be beside it."""
    accepted: Collection[str]
    """Libraries that need not be there."""


class Smith:
    """Builds wheels for the pieces of one store."""

    def __init__(self, store: Store, sources: Sources, runner: StepRunner, listener: Listener) -> None:
        self._store = store
        self._sources = sources
        self._runner = runner
        self._listener = listener

    def known(self, piece: BuiltWheelPiece) -> BuiltWheel | None:
        """Return the wheel of `piece` when it was built here before, or pulled."""
        found = self._store.built.get(piece.key)
        return found if found and self._store.artifacts.has(found.sha256) else None

    def fill_known(self, root: Path, piece: BuiltWheelPiece, wheel: BuiltWheel) -> Tree:
        """Write the tree of a `wheel` that is known into `root`."""
        return unpack_wheel(self._store.artifacts.path(wheel.sha256), root, as_wheel(piece, wheel.filename))

    def fill(self, root: Path, piece: BuiltWheelPiece, place: Place) -> Tree:
        """Build the wheel of `piece` and write its tree into `root`.

        Raises BuildError when it cannot be built, LackingError when it needs what the image will not have.
        """
        layers = self._store.layers
        with self._store.scratch("build") as scratch:
            site = layers.root(place.site)
            toolkit = scratch / "cuda"
            wheel = build_wheel(
                piece,
                self._sources.source_of(piece.source, scratch),
                site / PREFIX,
                self._runner,
                [layers.root(diff_id) for diff_id in place.ground],
                scratch,
                toolkit=toolkit if make_toolkit(site / site_packages(piece.python), toolkit) else None,
            )
            tree = unpack_wheel(wheel, root, as_wheel(piece, wheel.name))
            self._check(piece, root, tree, place, is_pure=wheel.name.endswith("-none-any.whl"))
            self._remember(piece, wheel)
            return tree

    def _remember(self, piece: BuiltWheelPiece, wheel: Path) -> None:
        import msgspec

        sha256 = self._store.artifacts.add_file(wheel)
        raw = msgspec.Raw(canonical_json(piece))
        size = wheel.stat().st_size
        self._store.built.put(BuiltWheel(piece=raw, filename=wheel.name, sha256=sha256, size=size))

    def _check(self, piece: BuiltWheelPiece, root: Path, tree: Tree, place: Place, *, is_pure: bool) -> None:
        binaries = read_binaries(root, tree.entries, MACHINES[piece.arch][0])
        if not binaries:
            return
        around = self._surroundings(piece, binaries, place)
        flaws = flaws_of(binaries, piece.python, around, is_pure=is_pure)
        flaws += written_paths(root, binaries)
        name = f"{piece.source.name} {piece.source.version}"
        if fatal := [flaw for flaw in flaws if flaw.is_fatal]:
            raise _refusal(name, fatal)
        for flaw in flaws:
            self._listener.note(f"{name}: {describe(flaw)}")

    def _surroundings(self, piece: BuiltWheelPiece, binaries: Iterable[Binary], place: Place) -> Surroundings:
        ground = partial(self._trees, place.image)
        searched = dict(item.partition("=")[::2] for item in piece.env or ()).get("LD_LIBRARY_PATH", "")
        image = read_ground(ground(), piece.arch, searched, 0)
        stage = dict(self._of_debs(place.stage))
        if piece.build_debs is not UNSET:
            names = read_ground(self._trees(place.ground), piece.arch, searched, 0).names
            stage = {name: stage.get(name, "") for name in names - image.names}
        return Surroundings(
            ground=image,
            stage=stage,
            requirements=self._of_requirements(piece, place.site),
            environment=place.environment,
            accepted=place.accepted,
            driver=_DRIVER,
        )

    def _trees(self, diff_ids: Sequence[DiffID]) -> list[tuple[Path, Tree]]:
        layers = self._store.layers
        return [(layers.root(diff_id), Tree(entries=layers.entries(diff_id))) for diff_id in diff_ids]

    def _of_debs(self, debs: Iterable[StoredPiece]) -> Iterator[tuple[str, str]]:
        for deb in debs:
            package = deb.label.partition(" ")[0]
            for entry in deb.tree.entries:
                if entry.kind != "dir" and is_library(entry.path):
                    yield entry.path.rpartition("/")[2], package

    def _of_requirements(self, piece: BuiltWheelPiece, site: DiffID) -> Mapping[str, str]:
        layers = self._store.layers
        found = read_binaries(layers.root(site), layers.entries(site), MACHINES[piece.arch][0])
        return {binary.name: binary.package.partition(" ")[0] for binary in found}


_DRIVER = ("cuda", "nvidia-ml")
"""Stems of libraries that come with NVIDIA's driver when a container starts, and that extension modules link with."""


def as_wheel(piece: BuiltWheelPiece, filename: str) -> WheelPiece:
    """Return the piece that installs the built wheel called `filename`."""
    return WheelPiece(
        name=piece.source.name,
        version=piece.source.version,
        filename=filename,
        sha256="",
        python=piece.python,
        requested=piece.requested,
        direct_url=direct_url(piece.source),
        epoch=piece.epoch,
    )


def written_paths(root: Path, binaries: Iterable[Binary]) -> list[Flaw]:
    """Return the flaw that binaries have the folder of their build written in them, if any has."""
    found = tuple(binary.path for binary in binaries if _mentions(root / binary.path))
    return [Flaw(kind="path", name=_SOURCE.decode(), files=found)] if found else []


def _mentions(path: Path) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(_SOURCE) >= 0


def _refusal(name: str, fatal: Sequence[Flaw]) -> LackingError:
    debs = tuple(system_packages(fatal))
    pips = sorted({flaw.package for flaw in fatal if flaw.kind == "requirement"})
    hints = [f"add {', '.join(map(repr, debs))} to [tool.mlbox] system-packages"] if debs else []
    hints += [f"add {', '.join(pips)} to the project's requirements"] if pips else []
    hints.append("allow-missing accepts a library that is never used")
    return LackingError(
        f"{name} was built, and does not work without what it was built with: {'; '.join(map(describe, fatal))}",
        packages=debs,
        hint=", or ".join(hints),
    )
