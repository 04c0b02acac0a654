"""Locks what sources are compiled in: a base, compilers and headers, and the GPUs device code is made for."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from mlbox.engine.freshness import LockOptions
from mlbox.errors import LockError
from mlbox.events import Listener
from mlbox.http import Http
from mlbox.lock.base import choose_interpreter
from mlbox.lock.debian import KNOWN, Asked, distribution_of, lock_debian, lock_on_base, read_extras
from mlbox.lock.model import Base, Deb, Lock, Package, Target
from mlbox.lock.python.building import cuda_of
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.project.building import architecture
from mlbox.project.model import Project, Settings

if TYPE_CHECKING:
    from mlbox.engine.bases import Ground

_COMPILERS = {"fortran": "gfortran", "rust": "cargo"}
"""What a language needs besides build-essential, which has C and C++."""
_CUDA = re.compile(r"cuda:([0-9]+\.[0-9]+)")
"""How NVIDIA's images say their CUDA."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What compiling takes."""

    base: Base | None = None
    debs: tuple[Deb, ...] = ()
    """Sorted by name; none of them is in the image."""


def with_architectures(packages: Sequence[Package], target: Target, settings: Settings) -> tuple[Package, ...]:
    """Say of each package with device code what it is compiled for: the setting, else what PyTorch of its CUDA is."""
    if not any("cuda" in package.compiled for package in packages):
        return tuple(packages)
    from mlbox.gpu.model import parse_version
    from mlbox.gpu.tables import cuda_table

    said = tuple(dict.fromkeys(filter(None, map(architecture, settings.gpu_architectures))))
    named = _CUDA.search(settings.build_base)
    cuda = cuda_of(packages, target.accelerator) or (named[1] if named else "")
    chosen = said or cuda_table().architectures_for(parse_version(cuda))
    return tuple(
        msgspec.structs.replace(one, gpu_architectures=chosen) if "cuda" in one.compiled else one for one in packages
    )


def stage_packages(packages: Sequence[Package], settings: Settings, python: str, *, headers: bool) -> tuple[str, ...]:
    """Return the names of the Debian packages that building the sources among `packages` needs.

    `headers`: whether those of Python ('3.11') are to be had from Debian too. Nothing when nothing is compiled.
    """
    sources = [package for package in packages if not package.is_wheel]
    compiled = sorted({language for package in sources for language in package.compiled})
    wanted = [*(settings.build_packages if sources else ())]
    if compiled:
        wanted += ["build-essential", *([f"python{python}-dev"] if headers else [])]
        wanted += [_COMPILERS[language] for language in compiled if language in _COMPILERS]
    return tuple(dict.fromkeys(wanted))


def unused_options(packages: Sequence[Package], settings: Settings) -> list[str]:
    """Return the names in [tool.mlbox.build] of which no package is built from source."""
    from packaging.utils import canonicalize_name

    built = {package.name for package in packages if not package.is_wheel}
    return sorted(name for name in settings.build if canonicalize_name(name) not in built)


class Stager:
    """Locks the stage of one project."""

    def __init__(
        self,
        project: Project,
        home: Home,
        http: Http,
        listener: Listener,
        previous: Lock | None,
        options: LockOptions,
    ) -> None:
        """`previous` is a lock whose versions are kept where possible."""
        self._settings = project.settings
        self._extras = read_extras(project.root, project.settings.apt_sources)
        self._home = home
        self._http = http
        self._listener = listener
        self._previous = previous
        self._options = options

    def lock(
        self, packages: Sequence[Package], base: Base, target: Target, debs: Sequence[Deb], *, conda: bool = False
    ) -> Stage:
        """Return the stage for the sources among `packages`, in an image of `base` and `debs`, or with Python by conda.

        Raises LockError when there is no way to have a compiler.
        """
        settings = self._settings
        wanted = stage_packages(packages, settings, target.python, headers=not conda and base.home in ("", "/usr/bin"))
        if not wanted:
            return Stage()
        if settings.build_base:
            return self._on_build_base(packages, target)
        if base.kind == "debian":
            self._listener.step(f"resolve what packages are compiled with: {', '.join(wanted)}")
            added = lock_debian(self._asked(base, target, debs, wanted)).debs
        else:
            added = self._on_base(self._look_into(base, target), base, target, debs, wanted)
        return Stage(debs=_beyond(debs, added))

    def _on_base(
        self, ground: "Ground", base: Base, target: Target, debs: Sequence[Deb], wanted: Sequence[str]
    ) -> tuple[Deb, ...]:
        if not base.suite:
            if not self._settings.build_packages and ground.root.resolve("usr/bin/gcc"):
                return ()
            raise LockError(
                f"sources are to be compiled on {base.reference}, which is {ground.system.name} and has no compiler; "
                f"mlbox can add one only to {KNOWN}",
                hint='take a base that has gcc, or one of these releases: "docker.io/library/python:3.12-slim"',
            )
        self._listener.step(
            f"resolve what packages are compiled with on {distribution_of(base.suite).name} {base.suite}: "
            + ", ".join(wanted)
        )
        asked = self._asked(base, target, debs, wanted)
        return lock_on_base(asked, status=ground.status, movable=ground.merged).debs

    def _asked(self, base: Base, target: Target, debs: Sequence[Deb], wanted: Sequence[str]) -> Asked:
        return Asked(
            suite=base.suite,
            arch=target.arch,
            packages=[*(deb.name for deb in debs), *wanted],
            cache=self._home.metadata,
            http=self._http,
            locked=[*self._kept(), *debs],
            snapshot=self._settings.snapshot,
            extras=self._extras,
        )

    def _on_build_base(self, packages: Sequence[Package], target: Target) -> Stage:
        """Return the stage on an image of its own, which must have the Python and no newer glibc."""
        base = self._find(self._settings.build_base, target)
        ground = self._look_into(base, target)
        name = f"{base.reference} (build-base)"
        if _newer(ground.glibc, target.glibc):
            raise LockError(
                f"base {name} has glibc {ground.glibc}, and the image has {target.glibc}: what is compiled there would "
                "not run",
                hint="take a build-base of the same release as the base, or an older one",
            )
        chosen = choose_interpreter(ground.interpreters, target.python, name=name, system=ground.system)
        base = msgspec.structs.replace(base, suite=ground.system.suite, home=chosen.home if chosen else "")
        wanted = stage_packages(
            packages, self._settings, target.python, headers=base.home in ("", "/usr/bin") and bool(base.suite)
        )
        added = self._on_base(ground, base, target, (), (*wanted, *(() if chosen else ("python3",))))
        return Stage(base=base, debs=_beyond((), added))

    def _find(self, name: str, target: Target) -> Base:
        from mlbox.engine.bases import find_base
        from mlbox.store.store import Store

        reference, before = parse_reference(name), self._previous.build_base if self._previous else None
        same = before if before and before.reference == str(reference) and not self._options.upgrade else None
        store = Store(self._home)
        return find_base(store, reference, target.arch, self._listener, locked=same, locked_arch=target.arch)

    def _look_into(self, base: Base, target: Target) -> "Ground":
        from mlbox.engine.bases import look_into
        from mlbox.store.store import Store

        store = Store(self._home)
        with store.using():
            return look_into(store, base, target.arch)

    def _kept(self) -> Iterator[Deb]:
        same_day = self._previous and self._previous.snapshot == self._settings.snapshot
        if self._previous and same_day and not self._options.upgrade:
            yield from (deb for deb in self._previous.build_debs if deb.name not in self._options.upgrade_packages)


def _beyond(debs: Sequence[Deb], stage: Sequence[Deb]) -> tuple[Deb, ...]:
    """Return those of the stage's debs that the image does not have, or has in another version."""
    there = {(deb.name, deb.sha256) for deb in debs}
    return tuple(msgspec.structs.replace(deb, role="build") for deb in stage if (deb.name, deb.sha256) not in there)


def _newer(one: str, other: str) -> bool:
    numbers = [tuple(int(part) for part in text.split(".")[:2] if part.isdigit()) for text in (one, other)]
    return numbers[0] > numbers[1]
