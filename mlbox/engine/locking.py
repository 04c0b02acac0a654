"""From a project to its lock: which Python, which Debian, which wheels, which layers."""

import platform
from collections.abc import Sequence
from pathlib import Path

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from mlbox.errors import LockError
from mlbox.events import Listener
from mlbox.http import Http
from mlbox.lock.debian import RELEASES, lock_debian, suite_for_python
from mlbox.lock.grouping import group_layers
from mlbox.lock.model import Arch, Base, Lock, Target
from mlbox.lock.python.resolve import lock_python
from mlbox.oci.layer import EPOCH
from mlbox.paths import Home
from mlbox.project.discover import inputs_digest
from mlbox.project.model import Project

LOCK_FILE = "mlbox.lock"


class LockOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `mlbox lock` was asked beyond what stands in the project."""

    arch: Arch | None = None
    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    epoch: int | None = None
    """From SOURCE_DATE_EPOCH; None keeps the previous lock's or the default."""


def choose_python(project: Project) -> str:
    """Return the Python ('3.11') to lock for: what the settings say, .python-version, else the newest that fits.

    Raises LockError when nothing fits.
    """
    allowed = SpecifierSet(project.requires_python)
    stated = project.settings.python or project.python_file
    if stated:
        return _minor(stated)
    fitting = [python for python in RELEASES.values() if _admits(allowed, python)]
    if not fitting:
        raise LockError(
            f"requires-python {project.requires_python!r} admits none of the Pythons of Debian's releases: "
            + ", ".join(RELEASES.values()),
            hint="widen requires-python",
        )
    return max(fitting, key=Version)


def _admits(allowed: SpecifierSet, python: str) -> bool:
    # Which patch release the base has is known only after it is resolved: any of them may fit.
    return allowed.contains(f"{python}.0") or allowed.contains(f"{python}.99")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def host_arch() -> Arch:
    """Return this machine's architecture in Debian's and OCI's words."""
    return "arm64" if platform.machine() in ("aarch64", "arm64") else "amd64"


def make_lock(
    project: Project,
    home: Home,
    http: Http,
    listener: Listener,
    previous: Lock | None,
    options: LockOptions,
    find_links: Sequence[str] = (),
) -> Lock:
    """Resolve `project`; with a `previous` lock only what must move moves."""
    python = choose_python(project)
    arch = options.arch or (previous.target.arch if previous else host_arch())
    kept = previous if previous and previous.target.arch == arch and previous.target.python == python else None
    listener.step(f"resolve Debian packages for Python {python} on {arch}")
    debian = lock_debian(
        suite=suite_for_python(python),
        arch=arch,
        system_packages=project.settings.system_packages,
        cache=home.metadata,
        http=http,
        locked=kept.debs if kept else (),
        upgrade=options.upgrade,
    )
    target = Target(
        arch=arch,
        python=python,
        python_full=debian.python_full,
        glibc=debian.glibc,
        accelerator=project.settings.accelerator,
    )
    for note in debian.notes:
        listener.note(note)
    python_packages = lock_python(
        project,
        target,
        previous=kept,
        upgrade=options.upgrade or options.upgrade_packages,
        http=http,
        listener=listener,
        find_links=find_links,
        home=home,
    )
    default_epoch = kept.epoch if kept else EPOCH
    return Lock(
        inputs=inputs_digest(project),
        epoch=options.epoch if options.epoch is not None else default_epoch,
        resolver=project.settings.resolver,
        target=target,
        base=Base(suite=debian.suite),
        system_packages=project.settings.system_packages,
        packages=python_packages.packages,
        build_packages=python_packages.build_packages,
        layers=group_layers(python_packages.packages, kept.layers if kept else ()),
        debs=debian.debs,
    )


def lock_path(root: Path) -> Path:
    """Return where the lock of the project at `root` lies."""
    return root / LOCK_FILE


def check_fresh(lock: Lock, project: Project) -> None:
    """Raise LockError when `lock` was made from other inputs than the project has now."""
    if lock.inputs != inputs_digest(project):
        raise LockError(
            f"{LOCK_FILE} is stale: the project's requirements or settings changed after it was made",
            hint="'mlbox lock' updates it, 'mlbox lock --diff' shows what would move, 'mlbox build --relock' does both",
        )
