"""The words of conda: files, channels, platforms; and a pinned package before its file is known by sha256."""

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from mlbox.errors import LockError
from mlbox.http import redact
from mlbox.lock.model import CHANNEL, PACKAGE_FILE, CondaPackage
from mlbox.lock.python.model import Value

_SUBDIR = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)?")
_TOKEN = re.compile(r"^/t/[^/]*(?=/)")
_BELOW = re.compile(r".*?((?:pkgs/)?[^/]+(?:/label/[^/]+)?)$")
_SCHEMES = ("https", "http", "file")


class PinnedConda(Value, frozen=True, kw_only=True):
    """A package and where it was; its sha256 is empty where only its md5 is known."""

    package: CondaPackage
    url: str
    """Without credentials and tokens."""


def pinned(url: str, *, sha256: str = "", md5: str = "", size: int = 0, requires: Iterable[str] = ()) -> PinnedConda:
    """Return the package at `url`, which says what it is; LockError when it does not, or no hash names its content."""
    place, subdir, filename = split_url(url)
    found = PACKAGE_FILE.fullmatch(filename)
    if found is None:
        raise LockError(f"{redact(url)[:200]!r} does not end with the name of a conda package")
    sha256, md5 = _hex(sha256, 64, filename), _hex(md5, 32, filename)
    if not (sha256 or md5):
        raise LockError(f"{filename}: no sha256 and no md5", hint="lock it again with hashes")
    package = CondaPackage(
        name=found["name"],
        version=found["version"],
        build=found["build"],
        subdir=subdir,
        filename=filename,
        sha256=sha256,
        md5=md5,
        channel=channel_name(place),
        size=max(0, size),
        requires=tuple(sorted(set(requires))),
    )
    return PinnedConda(package=package, url=f"{place}/{subdir}/{filename}")


def split_url(url: str) -> tuple[str, str, str]:
    """Return the channel's address, the subdir and the file name of a package's URL, without credentials."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, host, port = urlsplit(""), "", ""
    path, _, filename = _TOKEN.sub("", parts.path).rpartition("/")
    place, _, subdir = path.rpartition("/")
    if parts.scheme not in _SCHEMES or (not host and parts.scheme != "file") or not _SUBDIR.fullmatch(subdir):
        raise LockError(f"{redact(url)[:200]!r} is no address of a conda package")
    return f"{parts.scheme}://{host}{port}{place}", subdir, unquote(filename)


def channel_name(address: str) -> str:
    """Return what a channel is called, without where it lies: its last part, 'pkgs/main', 'NAME/label/dev'."""
    if "://" not in address:
        return address
    path = _TOKEN.sub("", unquote(urlsplit(address).path).rstrip("/"))
    found = _BELOW.fullmatch(path.lstrip("/"))
    name = found[1] if found else "channel"
    if not CHANNEL.fullmatch(name):
        raise LockError(f"{redact(address)[:200]!r}: no channel can be called {name[:100]!r}")
    return name


def python_of(packages: Iterable[CondaPackage]) -> str:
    """Return the version of the Python among conda `packages`, '' when there is none."""
    found = next((one for one in packages if one.name == "python"), None)
    if found is not None and re.search(r"_cp\d+t$", found.build):
        raise LockError(
            f"{found.filename}: Python without its global lock is not known here",
            hint="ask for a build that has it: python=3.13.*=*_cp313",
        )
    return found.version if found else ""


def _hex(text: str, length: int, filename: str) -> str:
    text = text.lower()
    if text and not re.fullmatch(rf"[0-9a-f]{{{length}}}", text):
        raise LockError(f"{filename}: {text[:80]!r} is no hash of {length} hex digits")
    return text
