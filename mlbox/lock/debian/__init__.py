"""A Debian base, or packages on an image of Debian or Ubuntu, as exact .debs, resolved from signed metadata."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from mlbox.errors import LockError
from mlbox.lock.debian.closure import Archive, Closure, MovedError
from mlbox.lock.debian.distributions import (
    GLIBC,
    KNOWN,
    PYTHON_FULL,
    RELEASES,
    Distribution,
    distribution_of,
    series_of,
)
from mlbox.lock.debian.extra import Extra, extra_roots, fetch_extra, read_extras
from mlbox.lock.debian.installed import Ground, read_status
from mlbox.lock.debian.packages import Candidate, Packages
from mlbox.lock.debian.release import Http, Keys, Release, fetch_index, fetch_release
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


def lock_debian(
    *,
    suite: str,
    arch: str,
    system_packages: Sequence[str],
    http: Http,
    cache: Path,
    mirrors: Mirrors | None = None,
    keys: Keys | None = None,
    locked: Iterable[Deb] = (),
    upgrade: bool = False,
    now: datetime | None = None,
    snapshot: str = "",
    extras: Sequence[Extra] = (),
    with_python: bool = True,
) -> DebianLock:
    """Resolve the base of Debian `suite` and `system_packages` for `arch`.

    Versions in `locked` are kept while the archive offers them and they fit together; `upgrade`
    takes the newest of everything. With a `snapshot` that is what the archive had on that day. Packages of `extras`
    stand beside the release's as in apt: the highest version is taken, whoever has it; what is essential, only the
    release says. The base does not depend on `system_packages`. Downloaded indexes stay in `cache`: with nothing new in
    the archive only the InRelease files are fetched.
    Without `with_python` the base is what a conda environment stands on.
    Raises SignatureError, ResolveError, FetchError or LockError.
    """
    python = RELEASES.get(suite)
    if python is None:
        raise LockError(f"no Debian release {suite!r} is known as a base; known: {', '.join(RELEASES)}")
    asking = _Asking(suite, arch, http, keys or Keys(), cache / "debian", now, snapshot)
    sources = asking.mirrors(mirrors)
    suites = asking.packages(sources, extras)
    kept = {} if upgrade else {deb.name: deb.version for deb in locked}
    archive = Archive(suites, kept)
    base, everything = _resolve(archive, system_packages, with_python)
    debs = tuple(_deb(everything[name], "base" if name in base else "system") for name in sorted(everything))
    return DebianLock(
        suite=suite,
        python_full=upstream_version(everything[f"python{python}"].version) if with_python else "",
        glibc=".".join(upstream_version(everything["libc6"].version).split(".")[:2]),
        debs=debs,
        notes=_notes(suite, sources),
    )


def lock_on_base(
    *,
    suite: str,
    arch: str,
    status: bytes,
    movable: bool,
    packages: Sequence[str],
    http: Http,
    cache: Path,
    mirrors: Mirrors | None = None,
    keys: Keys | None = None,
    locked: Iterable[Deb] = (),
    upgrade: bool = False,
    now: datetime | None = None,
    snapshot: str = "",
    extras: Sequence[Extra] = (),
) -> DebianLock:
    """Resolve what an image of Debian's or Ubuntu's release `suite` needs besides what it has to get `packages`.

    `status` is dpkg's status file of the image. An installed package stays as it is, unless something needs a newer
    version, which then is among the debs; that is an error when they are not `movable`. Otherwise as lock_debian.
    """
    series = series_of(suite)
    if series is None:
        raise LockError(f"no packages are known for {suite!r}; known: {KNOWN}")
    asking = _Asking(suite, arch, http, keys or Keys(), cache / "debian", now, snapshot)
    sources = asking.mirrors(mirrors)
    suites = asking.packages(sources, extras)
    installed = read_status(status, arch)
    kept = {} if upgrade else {deb.name: deb.version for deb in locked}
    ground = Ground(suites, kept, installed, movable=movable)
    everything = _resolve_on(ground, sorted(installed), packages)
    moves = [f"{move.name} {move.old} -> {move.new}" for move in ground.moves(everything)]
    notes = (f"newer than in the base, because something needs it: {', '.join(moves)}",) if moves else ()
    return DebianLock(
        suite=suite,
        python_full=_upstream(everything.get(f"python{series.python}")),
        glibc=".".join(_upstream(everything.get("libc6")).split(".")[:2]),
        debs=tuple(_deb(one, "system") for _, one in sorted(everything.items()) if one.path),
        notes=(*notes, *_notes(suite, sources)),
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


class _Asking(NamedTuple):
    """Which packages are asked for, and with what."""

    suite: str
    arch: str
    http: Http
    keys: Keys
    cache: Path
    now: datetime | None
    snapshot: str

    @property
    def distribution(self) -> Distribution:
        return distribution_of(self.suite)

    def mirrors(self, given: Mirrors | None) -> Mirrors:
        """Return the mirrors to ask: the `given` ones, those of the day that is asked for, or the host's."""
        if given or not self.snapshot:
            return given or read_mirrors(distribution=self.distribution, arch=self.arch)
        return Snapshot(text=self.snapshot).mirrors(self.distribution)

    def packages(self, sources: Mirrors, extras: Sequence[Extra]) -> list[Packages]:
        """Return what the suites of the release offer, and then what `extras` do."""
        names = [self.suite, f"{self.suite}-updates", *([f"{self.suite}-security"] if sources.security else [])]
        with ThreadPoolExecutor(len(names) + len(extras)) as pool:
            own = pool.map(lambda name: self._suite(sources, name), names)
            more = pool.map(self._extra, extras)
            return [packages for found in (*own, *more) for packages in found]

    def _suite(self, sources: Mirrors, name: str) -> list[Packages]:
        release = self._release(sources, name)
        paths = [f"{component}/binary-{self.arch}/Packages" for component in self.distribution.components]
        return [Packages(fetch_index(release, path, self.http, self.cache), name) for path in paths]

    def _release(self, sources: Mirrors, name: str) -> Release:
        fetch = partial(fetch_release, sources.of(name), name, self.http, keys=self.keys)
        if not self.snapshot:
            return fetch(now=self._clock, cache=self.cache if self._clock else None)
        day = Snapshot(text=self.snapshot)
        return day.check(fetch(now=day.begin))

    def _extra(self, extra: Extra) -> list[Packages]:
        return fetch_extra(extra, self.arch, self.http, self.cache, self._clock)

    @property
    def _clock(self) -> datetime | None:
        ignored = os.environ.get("MLBOX_DEBIAN_VALID_UNTIL") == "ignore"
        return None if ignored else self.now or datetime.now(UTC)


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
