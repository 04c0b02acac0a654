"""What all readers share: bounded documents, checked values, markers for the target. Nothing in a lock is trusted."""

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from mlbox.codec import load_toml
from mlbox.errors import LockError, ProjectError
from mlbox.http import redact_text
from mlbox.lock.model import Target
from mlbox.lock.python.target import marker_environment
from mlbox.lock.python.vcs import plain_url
from mlbox.project.marker import parse_marker

if TYPE_CHECKING:
    from packaging.markers import Marker

T = TypeVar("T", bound=msgspec.Struct)

MAX_SIZE = 32 << 20
"""Bytes of a lock; one of 1,000 packages with all their wheels has 5 MB."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_FILENAME = re.compile(r"(?!\.)[A-Za-z0-9_.+!~-]{1,255}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,127}")
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_EXTRA = re.compile(r"extra\s*(==|!=)\s*(?:'([^']*)'|\"([^\"]*)\")")
_EXTRA_REVERSED = re.compile(r"(?:'([^']*)'|\"([^\"]*)\")\s*(==|!=)\s*extra\b")


class Read(msgspec.Struct, frozen=True, rename="kebab"):
    """Base of what stands in a lock: unknown keys are a newer tool's and are left alone, wrong types are refused."""


def read_toml(data: bytes, kind: type[T], *, what: str) -> T:
    """Return the TOML document `data` as `kind`; LockError names the key that is wrong."""
    bounded(data, what=what)
    return convert(load_toml(data, what=what, error=LockError), kind, what=what)


def bounded(data: bytes, *, what: str) -> None:
    """Refuse a document that is too large to be one."""
    if len(data) > MAX_SIZE:
        raise LockError(f"{what}: larger than {MAX_SIZE >> 20} MiB", hint="this cannot be a lock")


def convert(document: Any, kind: type[T], *, what: str) -> T:  # noqa: ANN401 (a stranger's document)
    """Return `document` as `kind`; LockError names the key that is wrong."""
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, RecursionError) as problem:
        raise LockError(f"{what}: {problem}", hint="is it whole? its owner makes it again") from problem


def name_of(text: str) -> str:
    """Return a package's, extra's or group's name in its one form (PEP 503)."""
    if not _NAME.fullmatch(text):
        raise LockError(f"{text[:80]!r} is no name of a package")
    return re.sub(r"[-_.]+", "-", text).lower()


def version_of(text: str, name: str) -> str:
    """Return `text` when it can be a version."""
    if not _VERSION.fullmatch(text):
        raise LockError(f"{name}: {text[:80]!r} is no version")
    return text


def sha256_of(text: str) -> str:
    """Return the hex digits of 'sha256:…'; empty for another algorithm, which cannot name a file here."""
    found = _SHA256.fullmatch(text)
    return found[1].lower() if found else ""


def commit_of(text: str, name: str) -> str:
    """Return a full commit."""
    if not _COMMIT.fullmatch(text):
        raise LockError(f"{name}: {text[:80]!r} is not a full commit", hint="lock it again with the tool that owns it")
    return text


def address(url: str, name: str) -> str:
    """Return an address that something can be fetched from, without credentials."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise LockError(f"{name}: {redact_text(url)[:200]!r} is no address (http, https)")
    return plain_url(url)


def repository(url: str, name: str) -> str:
    """Return the address of a git repository as a lock keeps it."""
    url = url.removeprefix("git+")
    if found := re.fullmatch(r"([\w.-]+@[\w.-]+):(?!//)(\S+)", url):  # scp's way of writing it
        url = f"ssh://{found[1]}/{found[2]}"
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https", "ssh", "git") and bool(parts.hostname) and not url.startswith("-")
    except ValueError:
        good = False
    if not good or any(letter.isspace() for letter in url):
        raise LockError(f"{name}: {redact_text(url)[:200]!r} is no address of a git repository")
    return plain_url(url)


def split(url: str, name: str) -> SplitResult:
    """Take an address apart; LockError when it is none."""
    try:
        return urlsplit(url)
    except ValueError as problem:
        raise LockError(f"{name}: {redact_text(url)[:200]!r} is no address") from problem


def inside(path: str, name: str, above: int = 0) -> str:
    """Return a path of the repository, normalised; LockError when it leaves it.

    It may begin in a folder above the lock's, at most so many.
    """
    path = unquote(path.removeprefix("file:")) if path.startswith("file:") else path
    pure = PurePosixPath(path)
    climbs = pure.parts.count("..")
    if not path or "\0" in path or "\\" in path or pure.is_absolute() or ".." in pure.parts[min(climbs, above) :]:
        raise LockError(
            f"{name}: {path[:200]!r} leaves the repository",
            hint="copy it below the project, or depend on it by git URL",
        )
    return pure.as_posix()


def subdirectory_of(path: str | None, name: str) -> str:
    """Return the folder of a source that holds the package; empty for its top."""
    return "" if not path or path in (".", "./") else inside(path, name)


def filename_of(text: str, name: str) -> str:
    """Return the file name that `text`, a name, path or URL, ends with."""
    found = unquote(split(text, name).path if "://" in text else text).rpartition("/")[2]
    if not _FILENAME.fullmatch(found):
        raise LockError(f"{name}: {found[:200]!r} is no file name")
    return found


class Markers:
    """Evaluates environment markers for one target; the same text is parsed once."""

    def __init__(self, target: Target, more: Mapping[str, Any] | None = None) -> None:
        self._environment: dict[str, Any] = {**marker_environment(target), "extra": "", **(more or {})}
        self._plain: dict[str, bool] = {}

    def hold(self, text: str | None, extras: Collection[str] = ()) -> bool:
        """Whether marker `text` (None, empty: always) holds while these `extras` are asked for.

        'extra' is a set here, as all lockers mean it: == asks whether a name is in it.
        """
        if not text:
            return True
        if "extra" in text:
            text = _without_extras(text, extras)
        known = self._plain.get(text)
        if known is None:
            known = self._plain[text] = _parsed(text).evaluate(self._environment)
        return known


def _without_extras(text: str, extras: Collection[str]) -> str:
    def constant(operator: str, value: str) -> str:
        holds = (value in extras or re.sub(r"[-_.]+", "-", value).lower() in extras) == (operator == "==")
        return "python_version >= '0'" if holds else "python_version < '0'"

    text = _EXTRA_REVERSED.sub(lambda found: constant(found[3], found[1] or found[2] or ""), text)
    return _EXTRA.sub(lambda found: constant(found[1], found[2] or found[3] or ""), text)


def _parsed(text: str) -> "Marker":
    if len(text) > 1 << 16:
        raise LockError(f"a marker of {len(text)} characters")
    try:
        return parse_marker(text)
    except ProjectError as problem:
        raise LockError(problem.message, hint=problem.hint) from problem


def check_python(requires: str | None, target: Target, *, what: str) -> None:
    """Refuse a target whose Python the lock was not made for."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        good = SpecifierSet(requires or "").contains(target.python_full, prereleases=True)
    except InvalidSpecifier as problem:
        raise LockError(f"{what}: {str(requires)[:200]!r} names no versions of Python") from problem
    if not good:
        raise LockError(
            f"{what} is for Python {requires}, and the image has {target.python_full}",
            hint="set another python in [tool.mlbox], or lock again with the tool that owns it",
        )
