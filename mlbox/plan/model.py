"""The build plan as values: layers of pieces, each named by the hash of what goes into it."""

from functools import cached_property
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from mlbox.codec import key_of
from mlbox.lock.model import Arch, Base, CondaPackage, Deb, Package
from mlbox.oci.digest import DiffID
from mlbox.oci.image import ContainerConfig
from mlbox.oci.layer import EPOCH, RULES
from mlbox.project.model import Package as ProjectPackage

PREFIX = "opt/mlbox/env"
"""The environment's prefix in the image (no leading slash): the same in every image, so pieces are shared."""
PATH = f"/{PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, in the image and where its packages are built."""
HOME = "/usr/bin"
"""Where Debian's Python lies, which is the one unless a piece says otherwise."""


class Piece(msgspec.Struct, frozen=True, kw_only=True, tag_field="piece"):
    """Something that is unpacked to a tree; equal pieces make equal trees."""

    epoch: int = EPOCH
    rules: int = RULES

    @property
    def key(self) -> str:
        """The piece's identity (hex): a hash of everything that decides its tree."""
        return key_of(self)


class ImageLayerPiece(Piece, frozen=True, kw_only=True, tag="image-layer"):
    """A whole layer of an image that this one stands on; its content is its name, so there is nothing to make."""

    diff_id: DiffID


class DebPiece(Piece, frozen=True, kw_only=True, tag="deb"):
    """A .deb's data, without running its scripts."""

    name: str
    version: str
    arch: str
    sha256: str


class RootfsPiece(Piece, frozen=True, kw_only=True, tag="rootfs"):
    """What maintainer scripts would have made of those .debs: users, ld.so.cache, CA bundle, dpkg status."""

    suite: str
    arch: Arch
    debs: tuple[DebPiece, ...]


class AdditionPiece(Piece, frozen=True, kw_only=True, tag="addition"):
    """What maintainer scripts would have made of `debs` on an image that has the layers `base`, lowest first."""

    suite: str
    arch: Arch
    debs: tuple[DebPiece, ...]
    base: tuple[DiffID, ...]


class ConfiguredPiece(Piece, frozen=True, kw_only=True, tag="configured"):
    """What the maintainer scripts of `packages` make in that root file system: pinned by its output."""

    suite: str
    arch: Arch
    debs: tuple[DebPiece, ...]
    packages: tuple[str, ...]
    base: tuple[DiffID, ...] | UnsetType = UNSET
    """The layers below the debs, when the image stands on another one. (Unset, it is no part of the key.)"""


class EnvPiece(Piece, frozen=True, kw_only=True, tag="env"):
    """The empty virtual environment at PREFIX."""

    python: str
    python_full: str
    home: str | UnsetType = UNSET
    """The folder of the interpreter, when it is not HOME."""


class WheelPiece(Piece, frozen=True, kw_only=True, tag="wheel"):
    """A wheel installed into PREFIX as pip would."""

    name: str
    version: str
    filename: str
    sha256: str
    python: str
    requested: bool = False
    """Whether the project asks for it itself (pip's REQUESTED file)."""
    direct_url: str = ""
    """Content of direct_url.json (PEP 610), empty for packages of an index."""


class CondaEnvPiece(Piece, frozen=True, kw_only=True, tag="conda-env"):
    """The empty conda environment at PREFIX."""


class CondaPiece(Piece, frozen=True, kw_only=True, tag="conda"):
    """A conda package linked into PREFIX, without running its scripts."""

    name: str
    version: str
    build: str
    subdir: str
    channel: str
    filename: str
    sha256: str
    python: str | UnsetType = UNSET
    """The environment's Python ('3.11'), for packages of 'noarch', whose modules go where it looks for them."""


class CondaConfiguredPiece(Piece, frozen=True, kw_only=True, tag="conda-configured"):
    """What the link scripts of `packages` make in that environment: pinned by its output."""

    ground: tuple[str, ...]
    """The keys of the pieces below: the root file system it runs in."""
    conda: tuple[CondaPiece, ...]
    packages: tuple[str, ...]


class BuiltWheelPiece(Piece, frozen=True, kw_only=True, tag="built-wheel"):
    """A wheel that must first be built in a container from `source`: pinned by its output."""

    source: Package
    build_packages: tuple[Package, ...]
    debs: tuple[DebPiece, ...]
    """The root file system it is built in."""
    python: str
    suite: str
    arch: Arch
    python_full: str
    requested: bool = False
    home: str | UnsetType = UNSET
    base: tuple[DiffID, ...] | UnsetType = UNSET
    env: tuple[str, ...] | UnsetType = UNSET
    """What the image below sets, its compilers' paths for one; mlbox's own variables win."""
    conda: tuple[CondaPiece, ...] | UnsetType = UNSET
    """The environment it is built in, when it is conda's."""
    build_debs: tuple[DebPiece, ...] | UnsetType = UNSET
    """What is laid over that to compile with. (Unset, it is built on what the image itself stands on.)"""
    recipe: int | UnsetType = UNSET
    """Version of how back ends are called there: a new one makes other wheels of the same source."""


class BytecodePiece(Piece, frozen=True, kw_only=True, tag="bytecode"):
    """The byte code of a package's modules."""

    of: WheelPiece | BuiltWheelPiece | DebPiece | CondaPiece
    python: str
    interpreter: str
    """The exact one that compiles: 'python3.11-minimal 3.11.2-6+deb12u6', '/usr/local/bin/python3.12 of sha256:…'."""
    home: str | UnsetType = UNSET

    @property
    def label(self) -> str:
        """What it is called in messages."""
        one = self.of.source if isinstance(self.of, BuiltWheelPiece) else self.of
        return f"{one.name} {one.version}"


class ProjectFile(msgspec.Struct, frozen=True, array_like=True):
    """One file of the project: `sha256` of its content, or the target of a symlink."""

    path: str
    mode: int
    size: int
    sha256: str = ""
    target: str = ""


class ProjectPiece(Piece, frozen=True, kw_only=True, tag="project"):
    """The project's own files below `workdir`, and its distribution metadata when it is a package."""

    workdir: str
    python: str
    files: tuple[ProjectFile, ...]
    package: ProjectPackage | None = None
    folders: tuple[ProjectPackage, ...] | UnsetType = UNSET
    """The folders among those files that are distributions too, which the project depends on."""

    @property
    def packages(self) -> tuple[ProjectPackage, ...]:
        """The distributions that are installed with the files."""
        return (*(self.folders or ()), *([self.package] if self.package else []))


class RunPiece(Piece, frozen=True, kw_only=True, tag="run"):
    """What a command changes in the image so far: pinned by its output, a layer of its own."""

    command: tuple[str, ...]
    below: str
    """Key of the layers that it runs on."""
    arch: Arch
    workdir: str
    env: tuple[str, ...]
    """'NAME=VALUE'."""
    inputs: tuple[ProjectFile, ...] = ()
    """Files of the project that it sees below the working directory, whether the image has them or not."""
    input_names: tuple[str, ...] = ()
    """The files and folders that these are, or are in."""
    network: bool = False
    gpu: bool = False
    secrets: tuple[str, ...] = ()
    """Their names; what they are is no part of anything."""


AnyPiece = (
    ImageLayerPiece
    | DebPiece
    | RootfsPiece
    | AdditionPiece
    | ConfiguredPiece
    | EnvPiece
    | WheelPiece
    | BuiltWheelPiece
    | CondaEnvPiece
    | CondaPiece
    | CondaConfiguredPiece
    | BytecodePiece
    | ProjectPiece
    | RunPiece
)

LayerKind = Literal["base", "system", "configured", "conda", "environment", "project", "run"]
RECIPE = 1
"""See BuiltWheelPiece.recipe."""

GROUND: frozenset[LayerKind] = frozenset(("base", "system", "conda"))
"""The layers that steps in containers stand on."""


class LayerPlan(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One layer: the union of its pieces; where two hold the same file, the later piece wins."""

    name: str
    kind: LayerKind
    pieces: tuple[AnyPiece, ...]
    reason: str = ""
    """Why these pieces share a layer, for people."""

    @cached_property
    def key(self) -> str:
        """The layer's identity (hex): names what is built, before it is built."""
        return key_of([piece.key for piece in self.pieces])


class BuildPlan(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A whole image before it is built."""

    arch: str
    layers: tuple[LayerPlan, ...]
    config: ContainerConfig
    epoch: int = EPOCH
    base: Base | None = None
    """The image below, whose layers come first; None for a base made of debs."""
    debs: tuple[Deb, ...] = ()
    """Those of the image, and those that sources are compiled with."""
    packages: tuple[Package, ...] = ()
    build_packages: tuple[Package, ...] = ()
    conda: tuple[CondaPackage, ...] | UnsetType = UNSET
    build_base: Base | UnsetType = UNSET
    """The image that sources are compiled on, when it is another one."""

    @cached_property
    def key(self) -> str:
        """The image's identity before it is built: equal plans make equal images."""
        # The base's configuration holds its history, which becomes part of the image's.
        below = (self.base.config,) if self.base else ()
        return key_of([self.arch, self.epoch, [layer.key for layer in self.layers], self.config, *below])
