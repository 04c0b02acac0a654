"""Archives of packages besides the release's own, each with a key that the project has and nobody else's."""

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec

from mlbox.errors import FetchError, LockError, SignatureError
from mlbox.http import redact
from mlbox.lock.debian.packages import Packages
from mlbox.lock.debian.release import (
    RELEASE_LIMIT,
    Http,
    Release,
    certificates_in,
    fetch_index,
    folder_of,
    newest,
    release_of,
    signed_part,
)
from mlbox.lock.debian.sources import Mirror, stanzas
from mlbox.project.model import AptSource

_KEY_LIMIT = 1 << 20


class Extra(msgspec.Struct, frozen=True, kw_only=True):
    """A source of packages, and where and by which key it is had on this host."""

    source: AptSource
    roots: tuple[str, ...]
    key: bytes

    @property
    def name(self) -> str:
        """What the lock calls it."""
        return self.source.name


def variable_of(name: str) -> str:
    """Return the setting that says where the source of packages `name` is."""
    return f"MLBOX_APT_SOURCE_{name.upper().replace('-', '_')}"


def extra_roots(name: str, sources: Iterable[AptSource] = (), env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the roots of the source of packages `name`: those of its variable, else the project's.

    Raises LockError when neither says.
    """
    project = next((one.uri for one in sources if one.name == name), "")
    if found := tuple(root.rstrip("/") for root in (env.get(variable_of(name)) or project).split()):
        return found
    raise LockError(
        f"nothing says where the source of packages {name!r} is",
        hint=f"set {variable_of(name)} to its root, or write its uri into the project's apt-sources",
    )


def read_extras(root: Path, sources: Iterable[AptSource], env: Mapping[str, str] = os.environ) -> tuple[Extra, ...]:
    """Return the sources of packages of the project at `root`, ready to be asked."""
    sources = tuple(sources)
    return tuple(
        Extra(source=one, roots=extra_roots(one.name, sources, env), key=_read_key(root, one)) for one in sources
    )


def _read_key(root: Path, source: AptSource) -> bytes:
    try:
        with (root / source.key).open("rb") as file:
            key = file.read(_KEY_LIMIT + 1)
    except OSError as problem:
        raise LockError(f"the key of the source {source.name}, {source.key}: {problem.strerror}") from problem
    if len(key) > _KEY_LIMIT or not certificates_in(key):
        raise LockError(
            f"the key of the source {source.name}, {source.key}, is no OpenPGP public key",
            hint="it is the file that Signed-By names: binary, or text with BEGIN PGP PUBLIC KEY BLOCK",
        )
    return key


def fetch_extra(extra: Extra, arch: str, http: Http, cache: Path, now: datetime | None) -> list[Packages]:
    """Return the packages of a source for `arch`, after its signature was checked with its own key alone."""
    release = _fetch_release(extra, http, cache, now)
    paths = [path for component in extra.source.components or ("",) for path in _paths(release, component, arch)]
    return [Packages(fetch_index(release, path, http, cache), extra.source.suite, extra.name, arch) for path in paths]


def _paths(release: Release, component: str, arch: str) -> Iterator[str]:
    """Yield where the indexes of `component` are; packages for every machine may have one of their own."""
    if not component:
        yield "Packages"
        return
    machine, every = (f"{component}/binary-{name}/Packages" for name in (arch, "all"))
    there = [path for path in (machine, every) if any(path + end in release.files for end in ("", ".gz", ".xz"))]
    yield from there or (machine,)


def _fetch_release(extra: Extra, http: Http, cache: Path, now: datetime | None) -> Release:
    problem: FetchError | None = None
    for root in extra.roots:
        try:
            url, raw, signature = _get_release(folder_of(root, extra.source.suite), http)
        except FetchError as failure:
            problem = problem or failure
            continue
        shown = redact(url)
        try:
            signed = signed_part(raw, certificates_in(extra.key), signature)
        except ValueError as failure:
            raise SignatureError(
                f"{shown}: not signed by {extra.source.key}, the key of the source {extra.name} ({failure})",
                hint="the archive may be damaged or dishonest, or have a new key: ask its makers for that",
            ) from failure
        return newest(
            partial(_parse, extra=extra, mirror=Mirror(root=root), url=shown, now=now),
            signed,
            url,
            cache if now else None,
        )
    assert problem  # noqa: S101 - a source has a root
    raise problem


def _get_release(folder: str, http: Http) -> tuple[str, bytes, bytes | None]:
    """Return address, bytes and detached signature (None: it is within) of a release: InRelease, else Release."""
    try:
        return f"{folder}/InRelease", http.get(f"{folder}/InRelease", limit=RELEASE_LIMIT), None
    except FetchError as problem:
        try:
            raw = http.get(f"{folder}/Release", limit=RELEASE_LIMIT)
            return f"{folder}/Release", raw, http.get(f"{folder}/Release.gpg", limit=RELEASE_LIMIT)
        except FetchError:
            raise problem from None


def _parse(signed: bytes, extra: Extra, mirror: Mirror, url: str, now: datetime | None) -> Release:
    fields, suite = next(stanzas(signed.decode("utf-8", "replace")), {}), extra.source.suite
    named = {fields[field] for field in ("suite", "codename") if fields.get(field)}
    if named and not suite.endswith("/") and suite not in named:
        has = " or ".join(sorted(named))
        raise SignatureError(
            f"{url}: asked for the suite {suite} of {extra.name}, but the signed file is of {has}",
            hint="write the suite that it has into apt-sources, or check where the address leads",
        )
    return release_of(fields, mirror, suite, f"source {extra.name} {suite}", url=url, now=now)
