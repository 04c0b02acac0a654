"""From a project to its lock: which Python, which Debian, which wheels, which layers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from mlbox.engine.arch import host_arch
from mlbox.errors import LockError
from mlbox.events import Listener
from mlbox.http import Http
from mlbox.lock.debian import GLIBC, PYTHON_FULL, RELEASES, DebianLock, lock_debian, suite_for_python
from mlbox.lock.file import FILENAME
from mlbox.lock.grouping import group_layers
from mlbox.lock.model import Arch, Base, Lock, Target
from mlbox.lock.python.resolve import LockedPython, lock_python
from mlbox.oci.layer import EPOCH
from mlbox.paths import Home
from mlbox.project.discover import inputs_digest
from mlbox.project.model import Project


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


class Locker:
    """Resolves one project, with what resolving needs from outside."""

    def __init__(
        self, project: Project, home: Home, http: Http, listener: Listener, find_links: Sequence[str] = ()
    ) -> None:
        self._project = project
        self._home = home
        self._http = http
        self._listener = listener
        self._find_links = find_links

    def lock(self, previous: Lock | None, options: LockOptions) -> Lock:
        """Return the lock of the project; with a `previous` one for the same target only what must move moves."""
        settings = self._project.settings
        if settings.base != "debian":
            raise LockError(
                f"base {settings.base!r}: only 'debian' can be a base in this version of mlbox",
                hint='leave base out; python = "3.11" or "3.13" picks the Debian release',
            )
        python = choose_python(self._project)
        suite = suite_for_python(python)
        arch = options.arch or (previous.target.arch if previous else host_arch())
        kept = previous if previous and (previous.target.arch, previous.target.python) == (arch, python) else None
        self._listener.step(f"resolve Debian {suite} and Python {python} packages for {arch}")
        target = Target(
            arch=arch,
            python=python,
            python_full=PYTHON_FULL[suite],
            glibc=GLIBC[suite],
            accelerator=settings.accelerator,
        )
        debian, target, packages = self._resolve(target, suite, kept, options)
        for note in debian.notes:
            self._listener.note(note)
        default_epoch = kept.epoch if kept else EPOCH
        return Lock(
            inputs=inputs_digest(self._project),
            epoch=options.epoch if options.epoch is not None else default_epoch,
            resolver=settings.resolver,
            target=target,
            base=Base(suite=suite),
            system_packages=settings.system_packages,
            packages=packages.packages,
            build_packages=packages.build_packages,
            layers=group_layers(packages.packages, kept.layers if kept else ()),
            debs=debian.debs,
        )

    def _resolve(
        self, guess: Target, suite: str, kept: Lock | None, options: LockOptions
    ) -> tuple[DebianLock, Target, LockedPython]:
        """Resolve debs and wheels side by side; the wheels again when the debs' Python is not the guessed one."""
        with ThreadPoolExecutor(1) as pool:
            debs = pool.submit(self._debian, guess, suite, kept, options)
            packages = self._python(guess, kept, options)
            debian = debs.result()
        target = msgspec.structs.replace(guess, python_full=debian.python_full, glibc=debian.glibc)
        return debian, target, packages if target == guess else self._python(target, kept, options)

    def _debian(self, target: Target, suite: str, kept: Lock | None, options: LockOptions) -> DebianLock:
        return lock_debian(
            suite=suite,
            arch=target.arch,
            system_packages=self._project.settings.system_packages,
            cache=self._home.metadata,
            http=self._http,
            locked=[deb for deb in kept.debs if deb.name not in options.upgrade_packages] if kept else (),
            upgrade=options.upgrade,
        )

    def _python(self, target: Target, kept: Lock | None, options: LockOptions) -> LockedPython:
        return lock_python(
            self._project,
            target,
            previous=kept,
            upgrade=options.upgrade or options.upgrade_packages,
            http=self._http,
            listener=self._listener,
            find_links=self._find_links,
            home=self._home,
        )


def lock_path(root: Path) -> Path:
    """Return where the lock of the project at `root` lies."""
    return root / FILENAME


def check_fresh(lock: Lock, project: Project) -> None:
    """Raise LockError when `lock` was made from other inputs than the project has now."""
    if lock.inputs != inputs_digest(project):
        raise LockError(
            f"{FILENAME} is stale: the project's requirements or settings changed after it was made",
            hint="'mlbox lock' updates it, 'mlbox lock --diff' shows what would move, 'mlbox build --relock' does both",
        )
