"""Where the files that pieces are made from lie: in the store, or still on an index or mirror."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from mlbox.build.fetch import Places, Wanted, fetch_one
from mlbox.events import Listener
from mlbox.http import Http
from mlbox.lock.model import Deb, Package
from mlbox.lock.python.vcs import checkout
from mlbox.plan.model import AnyPiece, BuildPlan, BuiltWheelPiece, DebPiece, WheelPiece
from mlbox.store.artifacts import ArtifactStore

Mirrors = Callable[[str], Sequence[str]]
"""From a Debian suite to the roots of its mirrors."""


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
    ) -> None:
        self._artifacts = artifacts
        self._http = http
        self._listener = listener
        self._wanted = {deb.sha256: _wanted_deb(deb, mirrors) for deb in plan.debs}
        for package in (*plan.packages, *plan.build_packages):
            if package.sha256:
                self._wanted[package.sha256] = places.wanted(package)

    def expect(self, pieces: Iterable[AnyPiece]) -> None:
        """Tell the listener how much `fetch` of these pieces will download."""
        missing = {sha256 for piece in pieces for sha256 in _files(piece) if not self._artifacts.has(sha256)}
        if missing:
            self._listener.expect("fetch", sum(self._wanted[sha256].size for sha256 in missing))

    def fetch(self, piece: AnyPiece) -> None:
        """Have every file of `piece` in the store; raises FetchError."""
        for sha256 in _files(piece):
            fetch_one(self._wanted[sha256], self._artifacts, self._http, self._listener)

    def size(self, piece: AnyPiece) -> int:
        """Return the bytes of the files that `piece` is made from."""
        return sum(self._wanted[sha256].size for sha256 in _files(piece))

    def path(self, piece: WheelPiece | DebPiece) -> Path:
        """Return the file `piece` is unpacked from."""
        return fetch_one(self._wanted[piece.sha256], self._artifacts, self._http, self._listener)

    def source_of(self, package: Package, scratch: Path) -> Path:
        """Return the sdist of `package`, or its git checkout in a new folder below `scratch`."""
        if not package.commit:
            return fetch_one(self._wanted[package.sha256], self._artifacts, self._http, self._listener)
        folder = scratch / "checkout"
        checkout(package.url, package.commit, folder)
        return folder


def _files(piece: AnyPiece) -> tuple[str, ...]:
    match piece:
        case WheelPiece() | DebPiece():
            return (piece.sha256,)
        case BuiltWheelPiece():
            return (piece.source.sha256,) if piece.source.sha256 else ()
        case _:
            return ()


def _wanted_deb(deb: Deb, mirrors: Mirrors) -> Wanted:
    return Wanted(deb.path.rpartition("/")[2], deb.sha256, deb.size, partial(_deb_urls, deb, mirrors))


def _deb_urls(deb: Deb, mirrors: Mirrors) -> Iterator[str]:
    for root in mirrors(deb.suite):
        yield f"{root.rstrip('/')}/{deb.path}"
