"""A Debian base, or packages on an image of Debian or Ubuntu, as exact .debs, resolved from signed metadata."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mlbox.errors import LockError
from mlbox.lock.debian.asked import Asked
from mlbox.lock.debian.closure import Archive, Closure, MovedError
from mlbox.lock.debian.distributions import (
    GLIBC,
    KNOWN,
    PYTHON_FULL,
    RELEASES,
    distribution_of,
    series_of,
)
from mlbox.lock.debian.extra import Extra, extra_roots, read_extras
from mlbox.lock.debian.installed import Ground, read_status
from mlbox.lock.debian.packages import Candidate
from mlbox.lock.debian.release import Keys
from mlbox.lock.debian.snapshot import Snapshot
from mlbox.lock.debian.sources import APT, Mirrors, read_mirrors, roots, suite_for_python
from mlbox.lock.debian.version import upstream_version
from mlbox.lock.model import Deb
from mlbox.project.model import AptSource

__all__ = [
    "GLIBC",
    "KNOWN",
    "PYTHON_FULL",
    "RELEASES",
    "Asked",
    "DebianLock",
    "Extra",
    "Keys",
    "Mirrors",
    "distribution_of",
    "lock_debian",
    "lock_on_base",
    "mirrors",
    "read_extras",
    "read_mirrors",
    "series_of",
    "suite_for_python",
]

BASE = ("apt", "ca-certificates", "libgomp1", "netbase", "passwd", "python3", "tzdata")
"""What the base holds besides Debian's essential packages."""
_SETUP_CODE = "python3-distutils"
BASE_OF_CONDA = ("ca-certificates", "libstdc++6", "netbase", "passwd", "tzdata")
"""The same for an environment of conda, which has its own Python and libraries; wheels beside them may count on the
C++ library of any system (manylinux)."""
BASE_WHERE_OFFERED = (
    "debian-archive-keyring",  # apt inside the image
    _SETUP_CODE,  # a package of its own up to Python 3.11, where setup code still imports it
    "usr-is-merged",  # the light one of two ways to say that /usr is merged (bookworm)
)


class DebianLock(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome: exact packages, and what they say about the target."""

    suite: str
    python_full: str
    glibc: str
    debs: tuple[Deb, ...]
    """Sorted by name."""
    notes: tuple[str, ...] = ()
    """What the user should know."""


def lock_debian(asked: Asked, *, with_python: bool = True) -> DebianLock:
    """Resolve the base of a release of Debian, which does not depend on the packages asked for, and those.

    Without `with_python` the base is what a conda environment stands on.
    Raises SignatureError, ResolveError, FetchError or LockError.
    """
    python = RELEASES.get(asked.suite)
    if python is None:
        raise LockError(f"no Debian release {asked.suite!r} is known as a base; known: {', '.join(RELEASES)}")
    sources = asked.sources()
    archive = Archive(asked.offered(sources), asked.kept)
    base, everything = _resolve(archive, asked.packages, with_python)
    debs = tuple(_deb(everything[name], "base" if name in base else "system") for name in sorted(everything))
    return DebianLock(
        suite=asked.suite,
        python_full=upstream_version(everything[f"python{python}"].version) if with_python else "",
        glibc=_glibc(everything),
        debs=debs,
        notes=_notes(asked.suite, sources),
    )


def lock_on_base(asked: Asked, *, status: bytes, movable: bool) -> DebianLock:
    """Resolve what an image of a release of Debian or Ubuntu needs besides what it has to get the packages asked for.

    `status` is dpkg's status file of the image. An installed package stays as it is, unless something needs a newer
    version, which then is among the debs; that is an error when they are not `movable`. Raises as lock_debian.
    """
    series = series_of(asked.suite)
    if series is None:
        raise LockError(f"no packages are known for {asked.suite!r}; known: {KNOWN}")
    sources = asked.sources()
    installed = read_status(status, asked.arch)
    ground = Ground(asked.offered(sources), asked.kept, installed, movable=movable)
    everything = _resolve_on(ground, sorted(installed), asked.packages)
    moves = [f"{move.name} {move.old} -> {move.new}" for move in ground.moves(everything)]
    notes = (f"newer than in the base, because something needs it: {', '.join(moves)}",) if moves else ()
    return DebianLock(
        suite=asked.suite,
        python_full=_upstream(everything.get(f"python{series.python}")),
        glibc=_glibc(everything),
        debs=tuple(_deb(one, "system") for _, one in sorted(everything.items()) if one.path),
        notes=(*notes, *_notes(asked.suite, sources)),
    )


def _resolve_on(ground: Ground, installed: Sequence[str], packages: Sequence[str]) -> dict[str, Candidate]:
    while True:
        try:
            closure = Closure(ground)
            closure.add(installed)
            with_python = "python3" in packages and ground.best(_SETUP_CODE)
            return closure.add([*sorted(packages), *((_SETUP_CODE,) if with_python else ())])
        except MovedError:
            continue  # each time one version fewer that is held, so this ends


def _upstream(one: Candidate | None) -> str:
    return upstream_version(one.version) if one else ""


def _glibc(found: Mapping[str, Candidate]) -> str:
    return ".".join(_upstream(found.get("libc6")).split(".")[:2])


def _notes(suite: str, sources: Mirrors) -> tuple[str, ...]:
    return () if sources.security else (f"no security archive is configured: Debian {suite} without its updates",)


def mirrors(
    deb: Deb,
    *,
    snapshot: str = "",
    sources: Iterable[AptSource] = (),
    apt: Path = APT,
    env: Mapping[str, str] = os.environ,
) -> list[str]:
    """Return the roots to put before Deb.path, the likeliest first; the hash decides.

    `snapshot` and `sources` are what the lock and the project say. Raises LockError when nothing says where it may be.
    """
    if deb.source:
        return list(extra_roots(deb.source, sources, env))
    distribution = distribution_of(deb.suite)
    keeps_old = bool(snapshot and env.get(distribution.snapshot))
    old = Snapshot(text=snapshot).mirrors(distribution, env).roots(deb.suite) if keeps_old else []
    try:
        return [*roots(deb.suite, apt, env), *old]
    except LockError:
        if old:
            return old
        raise


def _resolve(archive: Archive, wanted: Sequence[str], with_python: bool) -> tuple[set[str], dict[str, Candidate]]:
    names = (*BASE, *BASE_WHERE_OFFERED) if with_python else (*BASE_OF_CONDA, "usr-is-merged")
    while True:
        try:
            closure = Closure(archive)
            offered = [name for name in names if name not in BASE_WHERE_OFFERED or archive.best(name)]
            base = set(closure.add([*archive.essential(), *offered]))
            return base, closure.add(sorted(wanted))
        except MovedError:
            continue  # each time one locked version fewer, so this ends


def _deb(one: Candidate, role: Literal["base", "system"]) -> Deb:
    return Deb(
        name=one.name,
        version=one.version,
        arch=one.arch,
        path=one.path,
        sha256=one.sha256,
        size=one.size,
        suite=one.suite,
        source=one.source,
        role=role,
    )
