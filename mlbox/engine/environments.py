"""What an environment holds, pinned: wheels, or conda packages and wheels beside them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from mlbox.engine.compiling import with_architectures
from mlbox.engine.freshness import LockOptions
from mlbox.engine.pythons import check_requires, minor
from mlbox.errors import LockError
from mlbox.events import Listener, Once
from mlbox.http import Http
from mlbox.lock.accelerators import merge_packages, nearest, speaking_of
from mlbox.lock.conda.model import python_of
from mlbox.lock.conda.resolve import is_conda
from mlbox.lock.model import CondaPackage, Lock, Target
from mlbox.lock.python.builds import differing
from mlbox.lock.python.config import indexes_for
from mlbox.lock.python.model import Pinned
from mlbox.lock.python.resolve import LockedPython, lock_python
from mlbox.paths import Home
from mlbox.project.model import Project

if TYPE_CHECKING:
    from mlbox.lock.conda.resolve import LockedConda


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
        found = self._conda(target, kept, options)
        full = _python_of(found)
        target = msgspec.structs.replace(target, python=minor(full), python_full=full)
        self._check_condas_python(full)
        pins = {name: one.pins for name, one in found.items()}
        if any(pins.values()) and not full:
            raise LockError(
                "the environment has wheels and no Python",
                hint="ask for python beside the pip section of the environment",
            )
        wheels = self._python(target, kept, options, pins) if full else LockedPython((), ())
        packages = {name: one.packages for name, one in found.items()}
        for note in differing(packages):
            self._listener.note(note)
        return Environment(target=target, wheels=wheels, conda=merge_packages(packages))

    def _conda(self, target: Target, kept: Lock | None, options: LockOptions) -> "dict[str, LockedConda]":
        """Return the conda packages of each accelerator; a solver waits for channels most of the time."""
        from mlbox.lock.conda.resolve import lock_conda

        names = self._project.settings.accelerators
        listener = Once(self._listener)

        def lock(project: Project, name: str) -> "LockedConda":
            return lock_conda(
                project,
                msgspec.structs.replace(target, accelerator=name),
                indexes_for(project, find_links=self._find_links),
                previous=nearest(kept, name),
                upgrade=options.upgrade or options.upgrade_packages,
                http=self._http,
                listener=listener,
                home=self._home,
            )

        def lock_for(name: str) -> "LockedConda":
            with speaking_of(name):
                return lock(self._project.for_accelerator(name), name)

        if not names:
            return {target.accelerator: lock(self._project, target.accelerator)}
        with ThreadPoolExecutor(len(names)) as pool:
            return dict(zip(names, pool.map(lock_for, names), strict=True))

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
        self,
        target: Target,
        kept: Lock | None,
        options: LockOptions,
        pins: Mapping[str, Sequence[Pinned]] | None = None,
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
        return found._replace(packages=packages)


def _python_of(found: "Mapping[str, LockedConda]") -> str:
    """Return the version of conda's Python, which all accelerators have in common; '' when there is none."""
    versions = {name: python_of(one.packages) for name, one in found.items()}
    if len(set(versions.values())) > 1:
        which = ", ".join(f"{version or 'none'} for {name}" for name, version in versions.items())
        raise LockError(
            f"the conda environment has not the same Python for all accelerators: {which}",
            hint="name one in the environment's file: python=3.12.7",
        )
    return next(iter(versions.values()))
