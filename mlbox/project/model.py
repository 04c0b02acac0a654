"""What a repository asks for, as values."""

import re
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

Accelerator = str
ACCELERATOR = re.compile(r"default|cpu|xpu|cu[0-9]{3}|rocm[0-9]+(\.[0-9]+){1,2}")
"""The builds of PyTorch as its index names them; 'default' is what the configured index has by itself."""


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the values below."""


class Requirement(Value, frozen=True, kw_only=True):
    """One line that a resolver understands, and where it stands."""

    text: str
    """PEP 508 (with hashes and URL forms as pip allows them), never '-r' or '-c': those are already followed."""
    origin: str
    """'requirements.txt:3' or 'pyproject.toml [project.dependencies]', relative to the project."""
    kind: Literal["named", "url", "vcs", "path", "folder"] = "named"
    """'path' (a wheel or sdist) and 'folder' are written './libs/thing', relative to the project's root."""
    name: str = ""
    """Of a folder: what the line calls it, normalised; empty when it says nothing but the place."""
    asked_by: str = ""
    """The folder (its distribution's name) in whose files it stands; empty when the project itself asks for it."""
    config_settings: tuple[str, ...] = ()
    """pip's --config-settings of this line ('KEY=VALUE'), for the build backend."""


class IndexPin(Value, frozen=True, kw_only=True):
    """A package that may come from one index only, which nothing else may come from."""

    package: str
    """Normalised."""
    index: str
    """The index's name in the file that pins it."""
    url: str
    """May carry a user and a password."""
    marker: str = ""
    """Where the pin holds; elsewhere the package comes from where the others do."""


class IndexOptions(Value, frozen=True, kw_only=True):
    """Index options that requirement files or settings carry; addresses, in the order they were written."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    pre: bool = False
    prefer_binary: bool = False
    require_hashes: bool = False
    trusted_hosts: tuple[str, ...] = ()
    only_binary: tuple[str, ...] = ()
    no_binary: tuple[str, ...] = ()
    pins: tuple[IndexPin, ...] = ()


class Health(Value, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """How `mlbox serve` knows that a service is ready."""

    path: str = "/"
    timeout: float = 60.0
    """Seconds until the service must have answered with a 2xx."""


class Task(Value, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A declared command: [tool.mlbox.train], [tool.mlbox.serve]."""

    command: tuple[str, ...]
    outputs: str = ""
    """Folder of the project, mounted read-write at the same place below the working directory."""
    inputs: tuple[str, ...] = ()
    """Folders of the project that are mounted read-only instead of copied into the image."""
    port: int = 0
    health: Health | None = None
    gpus: str | int = ""
    """As --gpus takes it: 'all', 2, 'device=0'."""
    env: dict[str, str] = {}


class AptSource(Value, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """An archive of Debian packages besides the release's own."""

    name: str
    """What the lock calls it; where it is, may change."""
    uri: str = ""
    """The root of the archive; empty when only MLBOX_APT_SOURCE_<NAME> says it."""
    suite: str
    """As in a line of apt: 'llvm-toolchain-bookworm-19', or a folder with a slash at its end ('./')."""
    components: tuple[str, ...] = ()
    key: str
    """The file of the project with the only key that may have signed it."""


class RunStep(Value, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A command that changes the image, for what nothing else can express."""

    command: tuple[str, ...]
    """One written as a string is run by a shell."""
    network: bool = False
    gpu: bool = False
    env: dict[str, str] = {}
    inputs: tuple[str, ...] = ()
    """Files and folders of the project that it sees below the working directory; they decide whether it runs again."""
    secrets: tuple[str, ...] = ()
    """Variables of the host that it finds as files in /run/secrets, and that nothing keeps."""
    after: Literal["environment", "project"] = "environment"
    """What is there already when it runs."""


class BuildOptions(Value, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """How one package is built from its source: [tool.mlbox.build.NAME]."""

    env: dict[str, str] = {}
    config_settings: dict[str, str | tuple[str, ...]] = {}
    """For its build back end (PEP 517), as pip's --config-settings."""
    requires: tuple[str, ...] = ()
    """What its build needs and its source does not say: 'torch'."""
    gpu: bool = False
    """Whether its build sees the host's GPUs."""
    network: bool = False
    """Whether its build may use the network."""


class Settings(Value, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """[tool.mlbox] of pyproject.toml, or mlbox.toml."""

    python: str = ""
    """'3.11'; empty: .python-version, then the newest that requires-python and the base allow."""
    base: str = "debian"
    """'debian', or the image of a registry that this one stands on; 'auto' is one with CUDA where packages need it."""
    accelerator: Accelerator = "cpu"
    accelerators: tuple[Accelerator, ...] = ()
    """Several in one lock; builds and runs choose. Empty: only `accelerator`."""
    accelerator_indexes: dict[Accelerator, str] = {}
    """Where the builds of PyTorch and its like for an accelerator are, in place of PyTorch's own index."""
    resolver: Literal["uv", "pip-tools"] = "uv"
    requirements: tuple[str, ...] = ()
    """Requirement files that count, instead of the ones found."""
    package: str = ""
    """The member of the workspace (or folder with a pyproject.toml) that is meant, in place of the repository."""
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    auto_system_packages: bool = False
    """Whether a build adds the packages with libraries that the environment turns out to lack, and locks them."""
    allow_missing: tuple[str, ...] = ()
    """Libraries ('libGL.so.1') that packages of the environment ask for and that need not be there."""
    apt_sources: tuple[AptSource, ...] = ()
    snapshot: str = ""
    """The day ('2026-09-01') or second ('2026-09-01T12:00:00Z') that the release's packages are taken of."""
    configure: tuple[str, ...] = ()
    """Debian packages whose maintainer scripts are run in a container, because mlbox does not replicate them."""
    run: tuple[RunStep, ...] = ()
    build_packages: tuple[str, ...] = ()
    """Debian packages that are there while sources are built, besides the compiler; never in the image."""
    build_base: str = ""
    """The image that sources are built on, with nvcc for one; empty: the image's own base."""
    gpu_architectures: tuple[str, ...] = ()
    """What device code is compiled for: '8.0' or 'sm_80', '12.0+PTX'; empty: what PyTorch is built for."""
    build: dict[str, BuildOptions] = {}
    """By name of the package."""
    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    pip: bool = True
    """Whether pip itself is part of the environment."""
    bytecode: bool = False
    """Whether modules are compiled while building, once per wheel, instead of at each start of a container."""
    workdir: str = "/workspace"
    env: dict[str, str] = {}
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    labels: dict[str, str] = {}
    ignore: tuple[str, ...] = ()
    """Patterns (gitignore syntax) of project files that stay out of the image, besides the ignore files'."""
    train: Task | None = None
    serve: Task | None = None
    tasks: dict[str, Task] = {}


class Package(Value, frozen=True, kw_only=True):
    """The project as an installable distribution: what its pyproject.toml says statically."""

    name: str
    version: str
    requires_python: str = ""
    scripts: dict[str, str] = {}
    gui_scripts: dict[str, str] = {}
    entry_points: dict[str, dict[str, str]] = {}
    requires: tuple[str, ...] = ()
    """Requires-Dist lines: the dependencies, and those of extras with their marker."""
    extras: tuple[str, ...] = ()
    source: str = ""
    """Folder that goes on sys.path, relative to the project: 'src', or '' for the project itself."""
    folder: str | UnsetType = UNSET
    """Where its pyproject.toml lies, relative to the project. (Unset, that is the project's root, and in no key.)"""


class Folder(Value, frozen=True, kw_only=True):
    """A folder of the repository that the project depends on."""

    path: str
    """Relative to the project: 'libs/thing'; '.' is its root, when the project is a member of a workspace."""
    name: str
    """Of its distribution, normalised."""
    package: Package | None
    """None: what it asks for counts, and it is not installed itself."""


class Source(Value, frozen=True, kw_only=True):
    """A spec file that was found, whether it counts, and why."""

    path: str
    used: bool
    reason: str


class ForeignLock(Value, frozen=True, kw_only=True):
    """Another tool's lock that counts: its pins are taken, nothing is resolved."""

    path: str
    """Relative to the project."""
    kind: Literal["uv", "pylock", "poetry", "pdm", "pipenv", "conda-lock", "pixi", "conda-explicit"]
    sha256: str
    """Of its bytes (hex): a change makes mlbox.lock stale."""


class CondaDependency(Value, frozen=True, kw_only=True):
    """One conda package that is asked for, and where it stands."""

    text: str
    """A MatchSpec as it was written, on one line: 'numpy >=1.26,<2', 'conda-forge::python=3.11'."""
    origin: str
    """'environment.yml:7'."""


class CondaSpec(Value, frozen=True, kw_only=True):
    """A conda environment as environment.yml or pixi.toml asks for it; nothing in it is resolved."""

    path: str
    """The file, relative to the project."""
    name: str = ""
    channels: tuple[str, ...] = ()
    """Names and addresses (credentials and all, so never into a lock as they are), the strongest first."""
    dependencies: tuple[CondaDependency, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    """What its pip section asks for; Project.requirements has these too, and what else comes from an index."""
    variables: dict[str, str] = {}
    """Of the environment, set when it is activated."""
    platforms: tuple[str, ...] = ()
    """'linux-64'; empty when it does not say."""


class Project(Value, frozen=True, kw_only=True):
    """Everything a repository asks for."""

    root: Path
    name: str
    """For default image names: the distribution's or the folder's name, normalised."""
    settings: Settings
    sources: tuple[Source, ...]
    requirements: tuple[Requirement, ...] = ()
    constraints: tuple[Requirement, ...] = ()
    overrides: tuple[Requirement, ...] = ()
    """They replace whatever anything else asks for of the same package."""
    index: IndexOptions = IndexOptions()
    requires_python: str = ""
    """Specifier set; empty when nothing says."""
    python_file: str = ""
    """Content of .python-version; empty when there is none."""
    package: Package | None = None
    member: str = ""
    """The folder of the member that the settings name in place of the repository; empty for the root."""
    folders: tuple[Folder, ...] = ()
    """The folders that the requirements lead to, sorted; what these ask for is among the requirements."""
    foreign: ForeignLock | None = None
    """The lock of another tool that decides the versions; None when mlbox resolves the requirements itself."""
    variants: dict[Accelerator, tuple[Requirement, ...]] = {}
    """What only one of settings.accelerators asks for: the extra of the project that is called like it."""
    conda: CondaSpec | None = None
    """The conda environment that counts; None when everything is a Python or system package."""
    notes: tuple[str, ...] = ()
    """What was read but has no effect, one sentence each, for people."""

    def for_accelerator(self, name: Accelerator) -> "Project":
        """Return what the project asks for on one of its accelerators."""
        extra = (name,) if name in self.variants else ()
        settings = msgspec.structs.replace(
            self.settings, accelerator=name, accelerators=(), extras=(*self.settings.extras, *extra)
        )
        requirements = (*self.requirements, *self.variants.get(name, ()))
        return msgspec.structs.replace(self, settings=settings, requirements=requirements, variants={})
