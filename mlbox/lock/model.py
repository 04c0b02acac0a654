"""The lock as values: everything that decides what an image holds, and no host, path or time."""

import re
from typing import Literal

import msgspec

from mlbox.oci.digest import DiffID, Digest
from mlbox.oci.image import LAYER_GZIP
from mlbox.oci.layer import EPOCH, RULES

LOCK_VERSION = 1
FOLDER = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._+-]{1,64}){1,16}")
"""Where a Python may lie in an image: a path that needs no quoting anywhere."""

PACKAGE_FILE = re.compile(
    r"(?P<name>[a-z0-9_][a-z0-9._-]{0,127})-(?P<version>[0-9A-Za-z._+!~]{1,128})-(?P<build>[0-9A-Za-z._+]{1,128}?)"
    r"(?:\.conda|\.tar\.bz2)"
)
"""The file name of a conda package."""
CHANNEL = re.compile(r"(?!\.)[\w.+-]{1,128}(?:/(?!\.)[\w.+-]{1,128}){0,3}", re.ASCII)
"""The name of a conda channel."""

Arch = Literal["amd64", "arm64"]
SUBDIRS: dict[Arch, str] = {"amd64": "linux-64", "arm64": "linux-aarch64"}
"""What conda calls these machines."""


class Locked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, rename="kebab"):
    """Base of everything that stands in mlbox.lock."""


class Target(Locked, frozen=True, kw_only=True):
    """The machine an environment is locked for, which need not be this one."""

    arch: Arch
    python: str
    """Major and minor version: '3.11'; empty for a conda environment without Python."""
    python_full: str
    """The exact version: '3.11.2'; markers are evaluated for it."""
    glibc: str
    """The base's glibc, which bounds the manylinux tags: '2.36'."""
    accelerator: str = "cpu"


class BaseLayer(Locked, frozen=True, kw_only=True):
    """One layer of an image that others stand on."""

    digest: Digest
    """Of the blob in the registry, compressed as it is there."""
    diff_id: DiffID
    """Of the tar: what the layer is."""
    size: int
    """Bytes of the blob."""
    media_type: str = LAYER_GZIP


class Base(Locked, frozen=True, kw_only=True):
    """What the image stands on.

    A Debian base is assembled from the debs whose role is 'base'; only `suite` is set. An image of a registry is
    named by digests; the debs whose role is 'system' are what is added to it.
    """

    kind: Literal["debian", "image"] = "debian"
    suite: str = ""
    """Codename of the release: 'bookworm', 'noble'; empty when the image is of none whose packages can be added."""
    reference: str = ""
    """The image's whole name as the project asks for it: 'docker.io/library/python:3.12-slim'."""
    digest: Digest = Digest("")
    """What that name meant: of the index where there is one, else of the manifest."""
    manifest: Digest = Digest("")
    """Of the manifest for the target's machine."""
    config: Digest = Digest("")
    home: str = ""
    """The folder of the image's own Python, '/usr/local/bin'; empty when Python comes with the debs."""
    user: str = ""
    env: tuple[str, ...] = ()
    """What the image sets for its containers: 'NAME=VALUE'."""
    labels: tuple[str, ...] = ()
    """'NAME=VALUE', sorted."""
    layers: tuple[BaseLayer, ...] = ()
    """Lowest first."""


class Deb(Locked, frozen=True, kw_only=True):
    """One exact Debian package file."""

    name: str
    version: str
    arch: str
    path: str
    """Below the mirror's root: 'pool/main/g/glibc/libc6_2.36-9_amd64.deb'."""
    sha256: str
    size: int
    suite: str
    source: str = ""
    """Name of the project's source of packages that it is of; empty for the release's own archive."""
    role: Literal["base", "system", "build"]
    """'build': of the stage that packages are compiled in, never of the image."""


class Package(Locked, frozen=True, kw_only=True):
    """One exact Python distribution and the file it comes from."""

    name: str
    """Normalised (PEP 503)."""
    version: str
    filename: str
    """File name of the wheel or sdist; for a git checkout '<name>-<commit>.git'."""
    sha256: str
    """Of the file (hex); empty for a git checkout, whose commit says the same."""
    size: int = 0
    index: str = "default"
    """Name of the configured index; 'find-links', 'direct' or 'git' otherwise."""
    url: str = ""
    """Only for direct URLs and git: without credentials."""
    commit: str = ""
    subdirectory: str = ""
    requires: tuple[str, ...] = ()
    """Names of the locked packages that this one asked for."""
    wanted_by: tuple[str, ...] = ()
    """Where the project itself asks for it: 'requirements.txt:3'."""
    accelerators: tuple[str, ...] = ()
    """The lock's accelerators that it is for; empty: all of them."""
    compiled: tuple[str, ...] = ()
    """Of a source: what of it needs a compiler ('c', 'cuda', 'rust'); empty when it is pure Python."""
    gpu_architectures: tuple[str, ...] = ()
    """What its device code is compiled for: '8.0', '12.0+PTX'."""
    build_env: tuple[str, ...] = ()
    """'NAME=VALUE', for its build only."""
    config_settings: tuple[str, ...] = ()
    """'KEY=VALUE', for its build back end (PEP 517)."""
    build_gpu: bool = False
    """Whether its build sees the host's GPUs; what comes out may depend on them."""
    build_network: bool = False
    """Whether its build may use the network; what comes out may depend on it."""

    @property
    def is_wheel(self) -> bool:
        """Whether the file is a wheel, and so needs no build."""
        return self.filename.endswith(".whl")


class Folder(Locked, frozen=True, kw_only=True):
    """A folder of the project that is installed as it stands: what is in it is the project's, and pinned by no lock."""

    name: str
    """Of its distribution, normalised (PEP 503)."""
    path: str
    """Relative to the project: 'libs/thing'; '.' is the project's root."""
    requires: tuple[str, ...] = ()
    """Names of the locked packages and folders that this one asks for."""
    wanted_by: tuple[str, ...] = ()
    """Where the project itself asks for it: 'requirements.txt:3'."""
    accelerators: tuple[str, ...] = ()
    """The lock's accelerators that it is for; empty: all of them."""


class CondaPackage(Locked, frozen=True, kw_only=True):
    """One exact conda package file."""

    name: str
    version: str
    build: str
    """The build string: 'py311h64a7726_0'."""
    subdir: str
    """The part of its channel it lies in: 'linux-64', 'noarch'."""
    filename: str
    sha256: str
    md5: str = ""
    """Of the file (hex), where it is known. Nothing here trusts it; conda-lock wants it in its own lock."""
    channel: str
    """Name of the channel: where that is, the user's conda configuration says."""
    size: int = 0
    requires: tuple[str, ...] = ()
    """Names of the locked conda packages that this one asked for."""
    wanted_by: tuple[str, ...] = ()
    """Where the project itself asks for it: 'environment.yml:5'."""
    accelerators: tuple[str, ...] = ()
    """The lock's accelerators that it is for; empty: all of them."""


class LayerGroup(Locked, frozen=True, kw_only=True):
    """Packages that share a layer, by name; frozen here so that layers do not reshuffle."""

    name: str
    packages: tuple[str, ...]


class Lock(Locked, frozen=True, kw_only=True):
    """The whole of mlbox.lock."""

    version: int = LOCK_VERSION
    rules: int = RULES
    """Version of the unpack and layer rules (mlbox.oci.layer.RULES)."""
    inputs: str
    """Digest of everything the lock was made from; a build refuses a lock whose inputs changed."""
    epoch: int = EPOCH
    """mtime of every file, seconds."""
    snapshot: str = ""
    """The date that the release's packages are of, when the project wants those of one."""
    resolver: str = "uv"
    accelerators: tuple[str, ...] = ()
    """All that the lock holds, the target's first; empty: only the target's. Packages are then of one or of several.

    `mlbox.lock.accelerators.for_accelerator` makes the lock of one of them, which is what everything after locking
    works on.
    """
    target: Target
    base: Base
    system_packages: tuple[str, ...] = ()
    found_packages: tuple[str, ...] = ()
    """Those of them that nobody named: a build found that the environment needs their libraries."""
    packages: tuple[Package, ...] = ()
    build_packages: tuple[Package, ...] = ()
    """What building the packages that are no wheels needs; never part of the image."""
    folders: tuple[Folder, ...] = ()
    """Sorted by name: they are installed with the project, and are in its layer."""
    layers: tuple[LayerGroup, ...] = ()
    debs: tuple[Deb, ...] = ()
    conda: tuple[CondaPackage, ...] = ()
    """Sorted by name; when there are some, they are what the environment begins with, their Python the interpreter."""
    conda_layers: tuple[LayerGroup, ...] = ()
    build_base: Base | None = None
    """The image that packages are compiled on; None: on the image's own base and debs."""
    build_debs: tuple[Deb, ...] = ()
    """What they are compiled with, laid over that; never part of the image."""
