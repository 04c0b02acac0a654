"""What is asked of a resolver and what it answers, the same for every resolver."""

from typing import Literal

import msgspec

from mlbox.lock.model import Target

SDISTS = (".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz")
"""How the file names of source distributions end."""


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the values below."""


class Index(Value, frozen=True, kw_only=True):
    """A place that serves packages: the lock knows its name only."""

    name: str
    url: str
    """May carry a user and a password; never shown, never stored."""


class Indexes(Value, frozen=True, kw_only=True):
    """Where packages come from."""

    default: Index | None
    """None: find-links only (--no-index)."""
    extra: tuple[Index, ...] = ()
    """Asked before the default; the first that knows a name is the only one asked for it."""
    find_links: tuple[str, ...] = ()
    """Absolute folders or addresses of pages."""
    pinned: tuple[Index, ...] = ()
    """Serve only the packages that the project pins to them."""
    torch: Index | None = None
    """Has the builds of PyTorch and its like for the accelerator; None: PyTorch's own, which only uv knows."""
    origin: str = ""
    """What the default was taken from: 'mlbox settings', 'PIP_INDEX_URL', a file."""

    @property
    def all(self) -> tuple[Index, ...]:
        """Return the extra indexes and the default, in the order they are asked."""
        return (*self.extra, self.default) if self.default else self.extra


class Page(Value, frozen=True, kw_only=True):
    """What an index has of one project."""

    name: str
    html: str
    """As PEP 503 has it, with whole addresses: they may carry a user and a password."""


class Question(Value, frozen=True, kw_only=True):
    """Everything that decides a resolution."""

    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    """Names that no index may be asked for: folders of the project are called so."""
    overrides: tuple[str, ...] = ()
    """Take the place of what anybody asks for of the same packages."""
    target: Target
    indexes: Indexes
    preferences: dict[str, str] = {}
    """Versions that are kept where the requirements allow it."""
    pre: bool = False
    only_binary: tuple[str, ...] = ()
    no_binary: tuple[str, ...] = ()
    torch_backend: str = ""
    pinned_pages: tuple[tuple[str, Page], ...] = ()
    """With the name of the index: these packages come from nowhere else."""
    torch_pages: tuple[Page, ...] = ()
    """Take the place of the backend: where the packages with builds for the accelerator come from."""
    lasting: bool = False
    """Whether the indexes' answers count for the questions that follow within a minute."""


class File(Value, frozen=True, kw_only=True, order=True):
    """A file that an index offers."""

    filename: str
    url: str
    sha256: str
    size: int = 0


class Pinned(Value, frozen=True, kw_only=True):
    """One resolved package with the files it may be taken from."""

    name: str
    version: str
    kind: Literal["index", "archive", "vcs", "directory"] = "index"
    index: str = "default"
    files: tuple[File, ...] = ()
    hashes: tuple[str, ...] = ()
    """sha256 of the files that count, where a foreign lock names hashes but no files."""
    url: str = ""
    """Of an archive or repository; the path of a directory."""
    commit: str = ""
    subdirectory: str = ""
    requires: tuple[str, ...] = ()
