"""Where the files that pieces are made from lie: in the store, or still on an index or mirror."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from mlbox.build.fetch import Places, Wanted, fetch_one
from mlbox.errors import FetchError
from mlbox.events import Listener
from mlbox.http import Http, HttpError
from mlbox.lock.conda.channels import Channels
from mlbox.lock.debian.distributions import distribution_of
from mlbox.lock.model import CondaPackage, Deb, Package
from mlbox.lock.python.vcs import checkout
from mlbox.plan.model import AnyPiece, BuildPlan, BuiltWheelPiece, CondaPiece, DebPiece, WheelPiece
from mlbox.store.artifacts import ArtifactStore

Mirrors = Callable[[Deb], Sequence[str]]
"""From a Debian package to the roots of the mirrors that may have it."""


class Sources:
    """The locked files of one plan. Safe to use from many threads."""

    def __init__(
        self,
        plan: BuildPlan,
        places: Places,
        mirrors: Mirrors,
        artifacts: ArtifactStore,
        http: Http,
        listener: Listener,
        channels: Channels | None = None,
    ) -> None:
        self._artifacts = artifacts
        self._http = http
        self._listener = listener
        self._debs = {deb.sha256: deb for deb in plan.debs}
        self._wanted = {deb.sha256: _wanted_deb(deb, mirrors) for deb in plan.debs}
        for package in (*plan.packages, *plan.build_packages):
            if package.sha256:
                self._wanted[package.sha256] = places.wanted(package)
        known = channels or Channels(learn=http.learn)
        self._wanted |= {one.sha256: _wanted_conda(one, known) for one in plan.conda or ()}

    def expect(self, pieces: Iterable[AnyPiece]) -> None:
        """Tell the listener how much `fetch` of these pieces will download."""
        missing = {sha256 for piece in pieces for sha256 in _files(piece) if not self._artifacts.has(sha256)}
        if missing:
            self._listener.expect("fetch", sum(self._wanted[sha256].size for sha256 in missing))

    def fetch(self, piece: AnyPiece) -> None:
        """Have every file of `piece` in the store; raises FetchError."""
        for sha256 in _files(piece):
            self._file(sha256)

    def size(self, piece: AnyPiece) -> int:
        """Return the bytes of the files that `piece` is made from."""
        return sum(self._wanted[sha256].size for sha256 in _files(piece))

    def path(self, piece: WheelPiece | DebPiece | CondaPiece) -> Path:
        """Return the file `piece` is unpacked from."""
        return self._file(piece.sha256)

    def source_of(self, package: Package, scratch: Path) -> Path:
        """Return the sdist of `package`, or its git checkout in a new folder below `scratch`."""
        if not package.commit:
            return self._file(package.sha256)
        folder = scratch / "checkout"
        checkout(package.url, package.commit, folder)
        return folder

    def _file(self, sha256: str) -> Path:
        try:
            return fetch_one(self._wanted[sha256], self._artifacts, self._http, self._listener)
        except HttpError as problem:
            if problem.status != 404 or sha256 not in self._debs:
                raise
            raise _vanished(self._debs[sha256], problem) from problem


def _files(piece: AnyPiece) -> tuple[str, ...]:
    match piece:
        case WheelPiece() | DebPiece() | CondaPiece():
            return (piece.sha256,)
        case BuiltWheelPiece():
            return (piece.source.sha256,) if piece.source.sha256 else ()
        case _:
            return ()


def _vanished(deb: Deb, problem: HttpError) -> FetchError:
    """Say that no mirror has the locked version any more: archives keep only the newest of a package."""
    elsewhere = (
        f"the archive of {deb.source} keeps old ones no longer"
        if deb.source
        else (f"a mirror that keeps old ones can stand beside yours in {distribution_of(deb.suite).mirror}")
    )
    return FetchError(
        f"the package {deb.name} {deb.version} of the lock is in no store or bundle here and no longer on the mirror:"
        f" {problem.message}",
        hint=f"'mlbox lock --upgrade {deb.name}' takes the version that is there now; to keep this one, 'mlbox bundle"
        f" load' a bundle with it, or copy it from a machine that built the image; {elsewhere}",
    )


def _wanted_conda(package: CondaPackage, channels: Channels) -> Wanted:
    return Wanted(package.filename, package.sha256, package.size, partial(channels.urls, package))


def _wanted_deb(deb: Deb, mirrors: Mirrors) -> Wanted:
    return Wanted(deb.path.rpartition("/")[2], deb.sha256, deb.size, partial(_deb_urls, deb, mirrors))


def _deb_urls(deb: Deb, mirrors: Mirrors) -> Iterator[str]:
    for root in mirrors(deb):
        yield f"{root.rstrip('/')}/{deb.path}"
