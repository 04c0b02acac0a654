"""Package indexes that specs name, as index options: which one is the default, which are pinned to packages.

The public index is the one that the user's machine is configured with: a mirror, maybe. So a source that is only
the public index by its usual name and address says nothing that a lock should depend on.
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from mlbox.errors import ProjectError
from mlbox.project.model import IndexOptions, IndexPin
from mlbox.project.requirement import normalize, without_credentials

_ADDRESS = re.compile(r"(?:https?|file)://[^\s]+")
_PUBLIC = re.compile(r"https?://(?:www\.)?pypi\.(?:python\.)?[a-z]{3}(?:/(?:simple|pypi)?/?)?", re.IGNORECASE)

MAX_INDEXES = 50


Rank = Literal["default", "extra", "explicit"]


class NamedIndex(NamedTuple):
    """An index as a spec names it."""

    name: str
    url: str
    rank: Rank = "extra"
    """'explicit' ones serve only the packages that are pinned to them."""

    @property
    def is_public(self) -> bool:
        """Whether this is what everybody has unless their machine is configured otherwise."""
        return self.name.lower() == "pypi" and (not self.url or bool(_PUBLIC.fullmatch(self.url)))


class Use(NamedTuple):
    """A package that is to come from one index."""

    package: str
    source: str
    marker: str = ""


def index_options(indexes: Iterable[NamedIndex], uses: Iterable[Use] = ()) -> IndexOptions:
    """Return options that say the same; ProjectError for what is no address, or an index nobody declared."""
    known: dict[str, NamedIndex] = {}
    for index in indexes:
        if len(known) >= MAX_INDEXES:
            raise ProjectError(f"more than {MAX_INDEXES} indexes")
        if not index.is_public and not _ADDRESS.fullmatch(index.url):
            shown = without_credentials(index.url)[:100]
            raise ProjectError(f"{shown!r} is no address of an index", hint="write https://HOST/PATH")
        known.setdefault(index.name, index)
    named = [index for index in known.values() if not index.is_public]
    return IndexOptions(
        index_url=next((index.url for index in named if index.rank == "default"), ""),
        extra_index_urls=tuple(index.url for index in named if index.rank == "extra"),
        pins=tuple(_pins(known, uses)),
    )


def _pins(known: dict[str, NamedIndex], uses: Iterable[Use]) -> Iterable[IndexPin]:
    for use in uses:
        index = known.get(use.source) or NamedIndex(use.source, "")
        if not index.url and not index.is_public:
            raise ProjectError(f"{use.package} comes from index {use.source[:100]!r}, which is not declared")
        if not index.is_public and index.rank != "default":
            yield IndexPin(package=normalize(use.package), index=index.name, url=index.url, marker=use.marker)
