"""What an environment holds, pinned: wheels, or conda packages and wheels beside them."""

from collections.abc import Sequence

import msgspec

from mlbox.engine.compiling import with_architectures
from mlbox.engine.freshness import LockOptions
from mlbox.engine.pythons import check_requires, minor
from mlbox.errors import LockError
from mlbox.events import Listener
from mlbox.http import Http
from mlbox.lock.conda.model import python_of
from mlbox.lock.conda.resolve import is_conda
from mlbox.lock.model import CondaPackage, Lock, Target
from mlbox.lock.python.config import indexes_for
from mlbox.lock.python.model import Pinned
from mlbox.lock.python.resolve import LockedPython, lock_python
from mlbox.paths import Home
from mlbox.project.model import Project


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment holds, and the target with its Python."""

    target: Target
    wheels: LockedPython
    conda: tuple[CondaPackage, ...] = ()


class EnvironmentLocker:
    """Resolves the environment of one project."""

    def __init__(self, project: Project, home: Home, http: Http, listener: Listener, find_links: Sequence[str]) -> None:
        self._project = project
        self._home = home
        self._http = http
        self._listener = listener
        self._find_links = find_links

    def lock(self, target: Target, kept: Lock | None, options: LockOptions) -> Environment:
        """Resolve wheels, or conda packages with their Python and wheels beside them.

        Versions of `kept` stay where they can.
        """
        if not is_conda(self._project):
            return Environment(target=target, wheels=self._python(target, kept, options))
        from mlbox.lock.conda.resolve import lock_conda

        if len(self._project.settings.accelerators) > 1:
            raise LockError(
                "a conda environment is locked for one accelerator",
                hint='write accelerator = "cu126", and lock each in a folder of its own',
            )
        indexes = indexes_for(self._project, find_links=self._find_links)
        locked = lock_conda(
            self._project,
            target,
            indexes,
            previous=kept,
            upgrade=options.upgrade or options.upgrade_packages,
            http=self._http,
            listener=self._listener,
            home=self._home,
        )
        full = python_of(locked.packages)
        target = msgspec.structs.replace(target, python=minor(full), python_full=full)
        self._check_condas_python(full)
        if locked.pins and not full:
            raise LockError(
                "the environment has wheels and no Python",
                hint="ask for python beside the pip section of the environment",
            )
        wheels = self._python(target, kept, options, locked.pins) if full else LockedPython((), ())
        return Environment(target=target, wheels=wheels, conda=locked.packages)

    def _check_condas_python(self, full: str) -> None:
        stated = self._project.settings.python or self._project.python_file
        if full and stated and minor(stated) != minor(full):
            raise LockError(
                f"the conda environment has Python {full}, and the project says {stated}",
                hint=f"write python={minor(stated)} into the environment's file, or say nothing else",
            )
        if full:
            check_requires(self._project, full, "that of the conda environment")

    def _python(
        self, target: Target, kept: Lock | None, options: LockOptions, pins: Sequence[Pinned] | None = None
    ) -> LockedPython:
        found = lock_python(
            self._project,
            target,
            previous=kept,
            upgrade=options.upgrade or options.upgrade_packages,
            http=self._http,
            listener=self._listener,
            find_links=self._find_links,
            home=self._home,
            pins=pins,
        )
        packages = with_architectures(found.packages, target, self._project.settings)
        return LockedPython(packages, found.build_packages)
