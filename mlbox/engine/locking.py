"""From a project to its lock: what it stands on, what its environment holds, which layers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from mlbox.engine.arch import host_arch
from mlbox.engine.compiling import Stager, unused_options
from mlbox.engine.environments import Environment, EnvironmentLocker
from mlbox.engine.freshness import LockOptions
from mlbox.engine.pythons import ChosenPython, choose_interpreter_of, choose_python, minor
from mlbox.errors import LockError
from mlbox.events import Listener
from mlbox.http import Http
from mlbox.lock.conda.resolve import group_conda, is_conda
from mlbox.lock.debian import (
    GLIBC,
    KNOWN,
    PYTHON_FULL,
    RELEASES,
    Asked,
    DebianLock,
    distribution_of,
    lock_debian,
    lock_on_base,
    read_extras,
    suite_for_python,
)
from mlbox.lock.grouping import group_layers
from mlbox.lock.model import Arch, Base, Deb, Lock, Target
from mlbox.oci.layer import EPOCH
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.project.discover import inputs_digest
from mlbox.project.model import Project

if TYPE_CHECKING:
    from mlbox.engine.bases import Ground


class Locker:
    """Resolves one project, with what resolving needs from outside."""

    def __init__(
        self, project: Project, home: Home, http: Http, listener: Listener, find_links: Sequence[str] = ()
    ) -> None:
        self._project = project
        self._home = home
        self._http = http
        self._listener = listener
        self._environments = EnvironmentLocker(project, home, http, listener, find_links)

    def lock(self, previous: Lock | None, options: LockOptions) -> Lock:
        """Return the lock of the project; with a `previous` one for the same target only what must move moves."""
        arch = options.arch or (previous.target.arch if previous else host_arch())
        base = self._project.settings.base
        if base == "debian":
            found = self._on_debian(arch, previous, options)
        elif base == "auto":
            found = self._on_what_it_needs(arch, previous, options)
        else:
            found = self._on_image(base, arch, previous, options)
        for note in found.notes:
            self._listener.note(note)
        settings, kept = self._project.settings, self._kept(previous, found.target)
        for name in unused_options(found.environment.wheels.packages, settings):
            self._listener.note(f"[tool.mlbox.build.{name}] changes nothing: no {name} is built from source")
        default_epoch = kept.epoch if kept else EPOCH
        stager = Stager(self._project, self._home, self._http, self._listener, kept, options)
        stage = stager.lock(
            found.environment.wheels.packages,
            found.base,
            found.target,
            found.debs,
            conda=bool(found.environment.conda),
        )
        return Lock(
            inputs=inputs_digest(self._project),
            epoch=options.epoch if options.epoch is not None else default_epoch,
            snapshot=settings.snapshot,
            resolver=settings.resolver,
            accelerators=settings.accelerators,
            target=found.target,
            base=found.base,
            system_packages=found.system,
            found_packages=tuple(name for name in found.system if name not in settings.system_packages),
            packages=found.environment.wheels.packages,
            build_packages=found.environment.wheels.build_packages,
            folders=found.environment.wheels.folders,
            layers=group_layers(found.environment.wheels.packages, kept.layers if kept else ()),
            debs=found.debs,
            conda=found.environment.conda,
            conda_layers=group_conda(found.environment.conda, kept.conda_layers if kept else ()),
            build_base=stage.base,
            build_debs=stage.debs,
        )

    def _on_debian(self, arch: Arch, previous: Lock | None, options: LockOptions) -> "_Found":
        """Resolve debs and the environment side by side; that again when the debs' Python is not the guessed one."""
        conda = is_conda(self._project)
        python = "" if conda else self._choose_python(arch)
        suite = _suite_for_conda(previous, options) if conda else suite_for_python(python)
        what = "" if conda else f" and Python {python}"
        self._listener.step(f"resolve Debian {suite}{what} packages for {arch}")
        guess = self._target(arch, python, "" if conda else PYTHON_FULL[suite], GLIBC[suite])
        kept = self._kept(previous, guess)
        system = self._system_packages(suite, kept, options)
        with ThreadPoolExecutor(1) as pool:
            debs = pool.submit(self._debian, guess, suite, system, kept, options)
            environment = self._environments.lock(guess, kept, options)
            debian = debs.result()
        full = environment.target.python_full if conda else debian.python_full
        target = msgspec.structs.replace(environment.target, python_full=full, glibc=debian.glibc)
        return _Found(
            base=Base(suite=suite),
            system=system,
            environment=environment if target == environment.target else self._environments.lock(target, kept, options),
            debs=debian.debs,
            notes=debian.notes,
        )

    def _choose_python(self, arch: Arch) -> str:
        """Return the newest Python that fits, and for which a foreign lock, if there is one, was made with files."""
        from mlbox.lock.foreign.importing import has_files_for

        foreign, without = self._project.foreign, []

        def is_locked(python: str) -> bool:
            suite = suite_for_python(python)
            target = self._target(arch, python, PYTHON_FULL[suite], GLIBC[suite])
            if foreign and not has_files_for(self._project, target):
                without.append(python)
            return python not in without

        python = choose_python(self._project, is_locked)
        if foreign and without and python not in without:
            self._listener.note(f"Python {python}: {foreign.path} does not have all files for {' and '.join(without)}")
        return python

    def _system_packages(self, suite: str, kept: Lock | None, options: LockOptions) -> tuple[str, ...]:
        """Return the packages that the project names, and those that builds found missing where it wants them added.

        Another release calls them otherwise, and a build will find them again.
        """
        settings = self._project.settings
        if not settings.auto_system_packages:
            return settings.system_packages
        before = kept.found_packages if kept and kept.base.suite == suite else ()
        return tuple(dict.fromkeys((*settings.system_packages, *sorted({*before, *options.found_packages}))))

    def _debian(
        self, target: Target, suite: str, system: Sequence[str], kept: Lock | None, options: LockOptions
    ) -> DebianLock:
        asked = self._asked(suite, target, system, kept, options)
        return lock_debian(asked, with_python=not is_conda(self._project))

    def _on_what_it_needs(self, arch: Arch, previous: Lock | None, options: LockOptions) -> "_Found":
        """Stand on Debian, or on an image of CUDA when packages load libraries of it that no other package brings.

        What was chosen before stays as long as it is right.
        """
        from mlbox.engine.cuda import base_for, environment_of, lacking_for_any

        settings, stated = self._project.settings, self._project.settings.python
        accelerators = settings.accelerators or (settings.accelerator,)
        before = previous.base.reference if previous and not options.upgrade else ""
        found = self._on_image(before, arch, previous, options) if before else self._on_debian(arch, previous, options)
        lack = lacking_for_any(found.environment.wheels.packages, accelerators)
        if not lack or is_conda(self._project):  # its CUDA is conda's
            return self._on_debian(arch, previous, options) if before else found
        of_base = environment_of(found.base)
        if before and not lacking_for_any(found.environment.wheels.packages, accelerators, of_base):
            return found
        image = base_for(lack, self._project.requires_python, minor(stated or self._project.python_file))
        if not image:
            return found
        self._listener.note(f'base = "auto": {image}, for {", ".join(one.package for one in lack)}')
        return self._on_image(image, arch, previous, options)

    def _on_image(self, name: str, arch: Arch, previous: Lock | None, options: LockOptions) -> "_Found":
        """Find the image of that name and its Python, then the debs it lacks, then the wheels."""
        from mlbox.engine.bases import find_base, look_into
        from mlbox.store.store import Store

        reference = parse_reference(name)
        before = previous.base if previous and previous.base.reference == str(reference) else None
        store = Store(self._home)
        with store.using():
            base = find_base(
                store,
                reference,
                arch,
                self._listener,
                locked=None if options.upgrade else before,
                locked_arch=previous.target.arch if previous else "",
            )
            ground = look_into(store, base, arch)
        conda = is_conda(self._project)
        chosen = (
            ChosenPython(python="", full="") if conda else choose_interpreter_of(self._project, ground, base.reference)
        )
        target = self._target(arch, chosen.python, chosen.full, ground.glibc)
        kept = self._kept(previous, target)
        base = msgspec.structs.replace(base, suite=ground.system.suite, home=chosen.home)
        kept_debs = kept if before else None
        system = self._system_packages(base.suite, kept_debs, options)
        debian = self._additions(ground, base, target, system, kept_debs, options)
        if debian is not None:
            full = "" if conda else chosen.full or debian.python_full
            target = msgspec.structs.replace(target, python_full=full, glibc=debian.glibc or ground.glibc)
        if ground.entrypoint and not self._project.settings.entrypoint and base.config != (before and before.config):
            self._listener.note(
                f"the base's entrypoint {list(ground.entrypoint)} is not kept; the setting entrypoint puts one back"
            )
        return _Found(
            base=base,
            system=system,
            environment=self._environments.lock(target, kept, options),
            debs=debian.debs if debian else (),
            notes=(*(debian.notes if debian else ()), *chosen.notes),
        )

    def _additions(
        self,
        ground: "Ground",
        base: Base,
        target: Target,
        system: Sequence[str],
        kept: Lock | None,
        options: LockOptions,
    ) -> DebianLock | None:
        """Return the debs that the project asks for and the image lacks; None when there are none to ask for."""
        wanted = (*system, *(() if base.home or is_conda(self._project) else ("python3",)))
        if not wanted:
            return None
        if not base.suite:
            raise LockError(
                f"system-packages: mlbox adds packages to images of {KNOWN}, and the base {base.reference} is"
                f" {ground.system.name}",
                hint="take a base that has them, or one of these releases: python:3.12-slim-bookworm",
            )
        self._listener.step(f"resolve packages of {distribution_of(base.suite).name} {base.suite} on the base")
        asked = self._asked(base.suite, target, wanted, kept, options)
        return lock_on_base(asked, status=ground.status, movable=ground.merged)

    def _asked(
        self, suite: str, target: Target, packages: Sequence[str], kept: Lock | None, options: LockOptions
    ) -> Asked:
        settings = self._project.settings
        return Asked(
            suite=suite,
            arch=target.arch,
            packages=packages,
            cache=self._home.metadata,
            http=self._http,
            locked=self._locked_debs(kept, options),
            upgrade=options.upgrade,
            snapshot=settings.snapshot,
            extras=read_extras(self._project.root, settings.apt_sources),
        )

    def _locked_debs(self, kept: Lock | None, options: LockOptions) -> list[Deb]:
        """Return the packages whose versions can stay: none when those of another day are wanted."""
        if kept is None or kept.snapshot != self._project.settings.snapshot:
            return []
        return [deb for deb in kept.debs if deb.name not in options.upgrade_packages]

    def _target(self, arch: Arch, python: str, full: str, glibc: str) -> Target:
        settings = self._project.settings
        accelerator = next(iter(settings.accelerators), settings.accelerator)
        return Target(arch=arch, python=python, python_full=full, glibc=glibc, accelerator=accelerator)

    def _kept(self, previous: Lock | None, target: Target) -> Lock | None:
        """Return the previous lock when its versions can stay."""
        if previous is None or previous.target.arch != target.arch:
            return None
        same = previous.conda if is_conda(self._project) else previous.target.python == target.python
        return previous if same else None


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a lock is made of."""

    base: Base
    system: tuple[str, ...]
    environment: Environment
    debs: tuple[Deb, ...]
    notes: tuple[str, ...] = ()

    @property
    def target(self) -> Target:
        """The machine it is for."""
        return self.environment.target


def _suite_for_conda(previous: Lock | None, options: LockOptions) -> str:
    """Return the Debian release below a conda environment: the newest, or the one that was."""
    stays = previous and previous.conda and previous.base.kind == "debian" and not options.upgrade
    return previous.base.suite if previous and stays else list(RELEASES)[-1]
