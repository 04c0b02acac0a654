"""Which indexes count: mlbox's settings, then the user's own uv and pip configuration, then pip's default.

Only the *index* is taken from the host's configuration. Its find-links and extra indexes are not: a lock must not
depend on a folder of one machine, and a name that two indexes know is how dependency confusion works. They are
noted, and count when the project or the command line names them.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlbox.codec import load_toml
from mlbox.errors import LockError, UsageError
from mlbox.events import SILENT, Listener
from mlbox.lock.python.model import Index, Indexes
from mlbox.project.model import Project, Settings

_HINT = "name them in [tool.mlbox] (extra-index-urls, find-links) or pass --find-links, if they are meant"


def indexes_for(
    project: Project,
    *,
    find_links: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    listener: Listener = SILENT,
) -> Indexes:
    """Return the indexes for `project`; what the host's configuration has besides goes to `listener` as a note."""
    settings, options = project.settings, project.index
    links = [*settings.find_links, *options.find_links, *environ.get("MLBOX_FIND_LINKS", "").split(), *find_links]
    extras = [*settings.extra_index_urls, *options.extra_index_urls, *environ.get("MLBOX_EXTRA_INDEX_URL", "").split()]
    host = _Host(environ)
    if settings.index_url or options.index_url:
        url, origin = settings.index_url or options.index_url, "the project"
    else:
        url, origin = host.index()
    for note in host.ignored():
        listener.note(note)
    return Indexes(
        default=None if options.no_index else Index(name="default", url=_checked(url, origin)),
        extra=tuple(
            Index(name=f"extra-{n}", url=_checked(extra, "extra-index-urls"))
            for n, extra in enumerate(dict.fromkeys(extras), 1)
        ),
        find_links=tuple(dict.fromkeys(_place(link, project.root) for link in links)),
        pinned=tuple(
            Index(name=f"pinned-{n}", url=_checked(url, "the index of a pinned package"))
            for n, url in enumerate(dict.fromkeys(pin.url for pin in options.pins), 1)
        ),
        torch=_torch(settings, environ),
        origin=origin,
    )


def _torch(settings: Settings, environ: Mapping[str, str]) -> Index | None:
    """Return the index that is configured for the builds of the accelerator: its own, or a folder of a mirror."""
    name = settings.accelerator
    if own := settings.accelerator_indexes.get(name):
        return Index(name="torch", url=_checked(own, f"accelerator-indexes.{name}"))
    root = environ.get("MLBOX_TORCH_INDEX", "").strip()
    if root and name != "default":
        return Index(name="torch", url=f"{_checked(root, 'MLBOX_TORCH_INDEX')}/{name}")
    return None


class _Host:
    """The parts of the host's uv and pip configuration that say where packages come from."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._uv = dict(_uv_files(environ))
        self._pip = dict(_pip_files(environ))

    def index(self) -> tuple[str, str]:
        """Return the index's address and what says so."""
        for name in ("MLBOX_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
            if value := self._environ.get(name, "").strip():
                return _unnamed(value) if name == "UV_DEFAULT_INDEX" else value, name
        for path, table in self._uv.items():
            if value := _uv_default(table):
                return value, str(path)
        for path, section in reversed(self._pip.items()):
            if value := section.get("index-url", ""):
                return value, str(path)
        return _pip_default(), "pip's default"

    def ignored(self) -> Iterator[str]:
        """Yield a note for each source of packages that does not count."""
        for name in ("UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_FIND_LINKS", "PIP_FIND_LINKS"):
            if self._environ.get(name):
                yield f"{name} is set, but not used: {_HINT}"
        for path, section in self._pip.items():
            for key in ("extra-index-url", "find-links"):
                if section.get(key):
                    yield f"{path} has {key}, which is not used: {_HINT}"
        for path, table in self._uv.items():
            found = [key for key in ("extra-index-url", "find-links") if table.get(key)]
            if any(not index.get("default") for index in _uv_indexes(table)):
                found.append("[[index]]")
            if found:
                yield f"{path} has {', '.join(found)}, which is not used: {_HINT}"


def _uv_files(environ: Mapping[str, str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield uv's configuration files, the stronger first (user before system)."""
    home = Path(environ.get("HOME") or "/root")
    if named := environ.get("UV_CONFIG_FILE"):
        paths = [Path(named)]
    else:
        system = [Path(p) / "uv/uv.toml" for p in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")]
        paths = [
            Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "uv/uv.toml",
            *system,
            Path("/etc/uv/uv.toml"),
        ]
    for path in paths:
        if (data := _read(path)) is not None:
            yield path, load_toml(data, what=str(path), error=LockError)


def _uv_default(table: Mapping[str, Any]) -> str:
    default = [str(index.get("url", "")) for index in _uv_indexes(table) if index.get("default")]
    pip = table.get("pip")
    return (
        default or [str(table.get("index-url", "")) or str(pip.get("index-url", "") if isinstance(pip, dict) else "")]
    )[0]


def _uv_indexes(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = table.get("index")
    return [index for index in found if isinstance(index, dict)] if isinstance(found, list) else []


def _pip_files(environ: Mapping[str, str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield [global] with [install] over it of pip's configuration files, the weaker first, as pip reads them."""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return
    home = Path(environ.get("HOME") or "/root")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    shared = [Path(p) / "pip/pip.conf" for p in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")]
    paths = [
        *shared,
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        config / "pip/pip.conf",
        Path(sys.prefix) / "pip.conf",
    ]
    for path in [*paths, *([Path(named)] if named else [])]:
        if (data := _read(path)) is not None:
            yield path, _pip_section(path, data)


def _pip_section(path: Path, data: bytes) -> dict[str, str]:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(data.decode())
    except (Error, UnicodeDecodeError) as problem:
        raise LockError(f"{path}: not a pip configuration: {str(problem).splitlines()[0]}") from problem
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found.update((key.replace("_", "-"), value) for key, value in parser.items(section))
    return found


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError):
        return None


def _pip_default() -> str:
    from pip._internal.models.index import PyPI

    return str(PyPI.simple_url)


def _unnamed(value: str) -> str:
    """Drop uv's 'name=' before an address."""
    name, equals, url = value.partition("=")
    return url if equals and "/" not in name else value


def _checked(url: str, origin: str) -> str:
    url = _expanded(url)
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise UsageError(f"{origin}: not an http, https or file address of an index", hint="write https://host/simple")
    return url.rstrip("/")


def _place(link: str, root: Path) -> str:
    link = _expanded(link)
    if urlsplit(link).scheme in ("http", "https", "file"):
        return link
    path = (root / Path(link).expanduser()).absolute()
    if not path.exists():
        raise UsageError(f"find-links: no such folder: {link}", hint="correct find-links or --find-links")
    return str(path)


def _expanded(text: str) -> str:
    """Replace ${NAME} by the environment's value, as pip does in requirement files."""
    import re

    return re.sub(r"\$\{([A-Z0-9_]+)\}", lambda match: os.environ.get(match[1], match[0]), text.strip())
