"""What one wants of an archive of packages, and all that the archive offers for it."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from mlbox.lock.debian.distributions import Distribution, distribution_of
from mlbox.lock.debian.extra import Extra, fetch_extra
from mlbox.lock.debian.packages import Packages
from mlbox.lock.debian.release import Http, Keys, Release, fetch_index, fetch_release
from mlbox.lock.debian.snapshot import Snapshot
from mlbox.lock.debian.sources import Mirrors, read_mirrors
from mlbox.lock.model import Deb


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Packages of a release, for one architecture, and where and how they are looked for.

    Downloaded indexes stay in `cache`: with nothing new in the archive only the InRelease files are fetched.
    """

    suite: str
    arch: str
    packages: Sequence[str] = ()
    """Besides those that are in any base."""
    http: Http
    cache: Path
    mirrors: Mirrors | None = None
    """Default: those of the host, or of the snapshot."""
    keys: Keys = field(default_factory=Keys)
    locked: Iterable[Deb] = ()
    """Their versions are kept while the archive offers them and they fit together."""
    upgrade: bool = False
    """Take the newest of everything instead."""
    snapshot: str = ""
    """The day whose packages count."""
    extras: Sequence[Extra] = ()
    """Their packages stand beside the release's as in apt: the highest version is taken, whoever has it; what is
    essential, only the release says."""
    now: datetime | None = None

    @property
    def distribution(self) -> Distribution:
        """Return whose release it is."""
        return distribution_of(self.suite)

    @property
    def kept(self) -> dict[str, str]:
        """Return the version of each package that is to stay as it is."""
        return {} if self.upgrade else {deb.name: deb.version for deb in self.locked}

    def sources(self) -> Mirrors:
        """Return the mirrors to ask: those given, those of the day that is asked for, or the host's."""
        if self.mirrors or not self.snapshot:
            return self.mirrors or read_mirrors(distribution=self.distribution, arch=self.arch)
        return Snapshot(text=self.snapshot).mirrors(self.distribution)

    def offered(self, sources: Mirrors) -> list[Packages]:
        """Return what the suites of the release have, and then what the extra archives have.

        Raises SignatureError, FetchError or LockError.
        """
        names = [self.suite, f"{self.suite}-updates", *([f"{self.suite}-security"] if sources.security else [])]
        with ThreadPoolExecutor(len(names) + len(self.extras)) as pool:
            own = pool.map(lambda name: self._suite(sources, name), names)
            more = pool.map(self._extra, self.extras)
            return [packages for found in (*own, *more) for packages in found]

    def _suite(self, sources: Mirrors, name: str) -> list[Packages]:
        release = self._release(sources, name)
        paths = [f"{component}/binary-{self.arch}/Packages" for component in self.distribution.components]
        return [Packages(fetch_index(release, path, self.http, self._indexes), name) for path in paths]

    def _release(self, sources: Mirrors, name: str) -> Release:
        fetch = partial(fetch_release, sources.of(name), name, self.http, keys=self.keys)
        if not self.snapshot:
            return fetch(now=self._clock, cache=self._indexes if self._clock else None)
        day = Snapshot(text=self.snapshot)
        return day.check(fetch(now=day.begin))

    def _extra(self, extra: Extra) -> list[Packages]:
        return fetch_extra(extra, self.arch, self.http, self._indexes, self._clock)

    @property
    def _indexes(self) -> Path:
        return self.cache / "debian"

    @property
    def _clock(self) -> datetime | None:
        ignored = os.environ.get("MLBOX_DEBIAN_VALID_UNTIL") == "ignore"
        return None if ignored else self.now or datetime.now(UTC)
