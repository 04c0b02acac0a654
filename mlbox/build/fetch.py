"""Fetching a locked file into the artifact store: resumed, verified, from the first place that has it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from threading import Lock as Mutex
from typing import NamedTuple, Protocol

from mlbox.errors import FetchError
from mlbox.events import SILENT, Listener
from mlbox.http import Http
from mlbox.lock.model import Package, Target
from mlbox.lock.python.choosing import url_hint
from mlbox.lock.python.model import File, Indexes
from mlbox.lock.python.pages import files_of_link, files_of_project
from mlbox.lock.python.resolve import torch_places
from mlbox.paths import Home


class Artifacts(Protocol):
    """The part of the artifact store that fetching needs."""

    def path(self, sha256: str) -> Path:
        """Return where the artifact lies, whether it is there or not."""

    def has(self, sha256: str) -> bool:
        """Whether the artifact is there, whole."""

    def partial(self, sha256: str) -> Path:
        """Return where its download is collected."""

    def fetching(self, sha256: str) -> AbstractContextManager[None]:
        """Let one process at a time fetch this artifact."""

    def publish(self, partial: Path, sha256: str, *, checked: bool = False) -> Path:
        """Move the finished download to its place."""


class Wanted(NamedTuple):
    """A locked file and where it may be had; the places are asked for only when the file is missing."""

    filename: str
    sha256: str
    size: int
    urls: Callable[[], Iterable[str]]


def fetch_one(wanted: Wanted, artifacts: Artifacts, http: Http, listener: Listener = SILENT) -> Path:
    """Return the path of the wanted file in `artifacts`, fetched and verified when it is not there yet."""
    if artifacts.has(wanted.sha256):
        return artifacts.path(wanted.sha256)
    with artifacts.fetching(wanted.sha256):
        if artifacts.has(wanted.sha256):
            return artifacts.path(wanted.sha256)
        part = artifacts.partial(wanted.sha256)
        http.download(
            wanted.urls(),
            part,
            sha256=wanted.sha256,
            size=wanted.size,
            listener=listener,
            name=wanted.filename,
        )
        return artifacts.publish(part, wanted.sha256, checked=True)


class Places:
    """Knows where locked Python files may be had. Safe to use from many threads."""

    def __init__(
        self, indexes: Callable[[], Indexes], http: Http, *, home: Home, root: Path, target: Target | None = None
    ) -> None:
        """`indexes` is called when something must be looked up; paths of the project are below `root`."""
        self._read_indexes = indexes
        self._http = http
        self._home = home
        self._root = root
        self._target = target
        self._pages: dict[tuple[str, str], tuple[File, ...]] = {}
        self._mutex = Mutex()

    def wanted(self, package: Package) -> Wanted:
        """Return what `fetch_one` needs to know of a wheel or sdist (not of a git checkout)."""
        return Wanted(package.filename, package.sha256, package.size, partial(self.urls, package))

    def urls(self, package: Package) -> Iterator[str]:
        """Yield where the file may be, the cheapest to find first; FetchError when no index has it."""
        if package.index == "direct":
            yield package.url if "://" in package.url else (self._root / package.url).absolute().as_uri()
            return
        self._learn()
        hint = url_hint(self._home, package.sha256)
        hinted = hint.read_text() if hint.is_file() else ""
        if hinted:
            yield hinted
        yield from (url for url in self._looked_up(package) if url != hinted)

    def _looked_up(self, package: Package) -> Iterator[str]:
        problems: list[FetchError] = []
        found = False
        for look_up in self._lookups(package):
            try:
                files = look_up()
            except FetchError as problem:
                problems.append(problem)
                continue
            for file in files:
                if file.filename == package.filename and file.sha256 in ("", package.sha256):
                    found = True
                    yield file.url
        if found:
            return
        if problems:
            raise problems[0]
        raise FetchError(
            f"{package.name} {package.version}: no index has {package.filename} any more with the locked content",
            hint=f"it may have been removed: 'mlbox lock --upgrade {package.name}' takes another version, "
            "or the tool whose lock the project has; a file of a local folder needs --find-links",
        )

    def _lookups(self, package: Package) -> Iterator[Callable[[], tuple[File, ...]]]:
        for link in self._indexes.find_links:
            yield partial(self._page, link, "")
        pinned = [index for index in self._indexes.pinned if index.name == package.index]
        for index in (*pinned, *sorted(self._indexes.all, key=lambda index: index.name != package.index)):
            yield partial(self._page, index.url, package.name)
        if package.index == "torch" and (torch := self._indexes.torch):
            yield partial(self._page, torch.url, package.name)
        elif package.index == "torch" and self._target is not None:
            target = self._target
            yield lambda: tuple(
                File(filename=package.filename, url=url, sha256=package.sha256)
                for url in torch_places(package, target, self._indexes)
            )

    def _page(self, place: str, name: str) -> tuple[File, ...]:
        """Return the files at `place`, read once."""
        known = self._pages.get((place, name))
        if known is None:
            known = files_of_project(self._http, place, name) if name else files_of_link(self._http, place)
            self._pages[place, name] = known
        return known

    @cached_property
    def _indexes(self) -> Indexes:
        return self._read_indexes()

    def _learn(self) -> None:
        """Give the passwords of the indexes to the files that lie on the same hosts."""
        with self._mutex:
            for index in (*self._indexes.all, *self._indexes.pinned, *filter(None, [self._indexes.torch])):
                self._http.learn(index.url)
