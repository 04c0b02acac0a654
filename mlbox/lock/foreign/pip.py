"""A Python package that a conda lock names by one address."""

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, unquote, urldefrag, urlsplit

from mlbox.errors import LockError
from mlbox.http import redact, without_credentials
from mlbox.lock.python.model import File, Pinned
from mlbox.project.requirement import normalize

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,127}")
_FILENAME = re.compile(r"(?!\.)[A-Za-z0-9_.+!~-]{1,255}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def pinned_from_url(
    name: str,
    version: str,
    url: str,
    *,
    sha256: str,
    direct: bool = False,
    local: bool = False,
    requires: Iterable[str] = (),
) -> Pinned:
    """Return the package; a `direct` one is asked for by that address. LockError for what cannot be had by it."""
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise LockError(f"{name[:100]!r} {version[:100]!r} is no Python package")
    name = normalize(name)
    if url.startswith("git+"):
        return _checkout(name, version, url, requires)
    parts = _parts(url, name)
    plain = without_credentials(urldefrag(url)[0])
    filename = unquote(parts.path).rpartition("/")[2]
    good = (parts.scheme in ("http", "https") and parts.hostname) or (local and parts.scheme == "file")
    if not good or not _FILENAME.fullmatch(filename):
        raise LockError(
            f"{name} {version}: {redact(url)[:200]!r} is no address (http, https) of a file",
            hint="publish it on an index, or depend on it by git URL",
        )
    if not _SHA256.fullmatch(sha256.lower()):
        raise LockError(f"{name} {version}: no sha256 of {filename}", hint="lock it again with hashes")
    file = File(filename=filename, url=plain, sha256=sha256.lower())
    if direct:
        return Pinned(
            name=name, version=version, kind="archive", index="direct", url=plain, files=(file,), requires=(*requires,)
        )
    return Pinned(name=name, version=version, files=(file,), requires=(*requires,))


def _checkout(name: str, version: str, url: str, requires: Iterable[str]) -> Pinned:
    address, _, commit = url.removeprefix("git+").partition("#")[0].rpartition("@")
    parts = _parts(address, name)
    if not _COMMIT.fullmatch(commit) or parts.scheme not in ("https", "http", "ssh", "git") or not parts.hostname:
        raise LockError(f"{name} {version}: {redact(url)[:200]!r} names no repository and commit")
    return Pinned(
        name=name,
        version=version,
        kind="vcs",
        index="git",
        url=without_credentials(address),
        commit=commit,
        requires=(*requires,),
    )


def _parts(url: str, name: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as problem:
        raise LockError(f"{name}: {redact(url)[:200]!r} is no address") from problem
