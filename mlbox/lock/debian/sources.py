"""Which Debian mirrors this host uses: read from its apt configuration or from mlbox's settings."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from mlbox.errors import LockError

APT = Path("/etc/apt")
MIRROR = "MLBOX_DEBIAN_MIRROR"
SECURITY_MIRROR = "MLBOX_DEBIAN_SECURITY_MIRROR"

RELEASES = {"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13"}
"""The Python of each Debian release that can be a base."""
PYTHON_FULL = {"bullseye": "3.9.2", "bookworm": "3.11.2", "trixie": "3.13.5"}
GLIBC = {"bullseye": "2.31", "bookworm": "2.36", "trixie": "2.41"}
"""What a release has kept since it was made; only a guess that lets wheels be resolved beside the debs."""

_CODENAMES = {*RELEASES, "stretch", "buster", "forky", "duke", "sid"}
_ALIASES = {"stable", "oldstable", "oldoldstable", "testing", "unstable", "experimental"}
_SUITE = re.compile(r"(?P<release>[a-z]+)(?:-(?P<pocket>security|updates|backports|proposed-updates)|/updates)?/?")
_OPTIONS = re.compile(r"\[([^\]]*)\]")
_LIMIT = 1 << 20


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One archive of the apt configuration."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: tuple[str, ...] = ()
    """Paths of keyrings, or one inline armored key."""


class Mirror(msgspec.Struct, frozen=True, kw_only=True):
    """The root of a Debian archive and the keys its user trusts for it."""

    root: str
    signed_by: tuple[str, ...] = ()


class Mirrors(msgspec.Struct, frozen=True, kw_only=True):
    """Where Debian comes from; the first that answers is used, the hash decides."""

    main: tuple[Mirror, ...]
    security: tuple[Mirror, ...] = ()

    def of(self, suite: str) -> tuple[Mirror, ...]:
        """Return the mirrors that should carry `suite`."""
        return self.security if suite.endswith("-security") else self.main

    def roots(self, suite: str) -> list[str]:
        """Return the roots below which a file of `suite` may lie, the likeliest first."""
        first = self.of(suite)
        return list(dict.fromkeys(mirror.root for mirror in (*first, *self.main, *self.security)))


def suite_for_python(python: str) -> str:
    """Return the Debian release that has Python `python` ('3.11' or '3.11.4')."""
    wanted = ".".join(python.split(".")[:2])
    for suite, version in RELEASES.items():
        if version == wanted:
            return suite
    available = ", ".join(f"{version} (Debian {suite})" for suite, version in RELEASES.items())
    raise LockError(
        f"no Debian release has Python {wanted}; available: {available}",
        hint='ask for one of these (python = "3.11"), or stand on an image that has it:'
        f' base = "docker.io/library/python:{wanted}-slim"',
    )


def read_mirrors(apt: Path = APT, env: Mapping[str, str] = os.environ) -> Mirrors:
    """Return the mirrors that MLBOX_DEBIAN_MIRROR and MLBOX_DEBIAN_SECURITY_MIRROR name, else those of apt at `apt`."""
    main = _from_setting(env, MIRROR)
    security = _from_setting(env, SECURITY_MIRROR)
    debian = [] if main and security else [source for source in read_sources(apt) if _is_debian(source)]
    main = main or _unique(s for s in debian if not _is_security(s.suite))
    security = security or _unique(s for s in debian if _is_security(s.suite))
    if not main:
        raise LockError(
            f"no Debian archive is configured in {apt}, and the base of an image is made of Debian packages",
            hint=f"set {MIRROR} (and {SECURITY_MIRROR}) to the root of a Debian mirror: the address above its 'dists'",
        )
    return Mirrors(main=main, security=security)


def read_sources(apt: Path = APT) -> list[Source]:
    """Return every binary archive of sources.list and sources.list.d below `apt`, in apt's order."""
    folder = apt / "sources.list.d"
    files = [apt / "sources.list", *sorted(folder.glob("*"))] if folder.is_dir() else [apt / "sources.list"]
    found: list[Source] = []
    for path in files:
        if path.suffix == ".list":
            found += _one_line(_read(path), apt)
        elif path.suffix == ".sources":
            found += _deb822(_read(path), apt)
    return found


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""  # missing, or unreadable for this user: as if it were not configured


def _one_line(text: str, apt: Path) -> Iterator[Source]:
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        options = _OPTIONS.search(line)
        words = _OPTIONS.sub(" ", line, count=1).split()
        if len(words) < 4 or words[0] != "deb":
            continue
        settings = dict(word.partition("=")[::2] for word in (options[1].split() if options else ()))
        signed_by = tuple(filter(None, settings.get("signed-by", "").split(",")))
        for uri in _expand(words[1], apt):
            yield Source(uri=uri, suite=words[2], components=tuple(words[3:]), signed_by=signed_by)


def _deb822(text: str, apt: Path) -> Iterator[Source]:
    for fields in stanzas(text):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").strip().lower() in _NO:
            continue
        signed_by = fields.get("signed-by", "").strip()
        keys = (_dedent(signed_by),) if "BEGIN PGP" in signed_by else tuple(signed_by.replace(",", " ").split())
        for uri in fields.get("uris", "").split():
            for root in _expand(uri, apt):
                for suite in fields.get("suites", "").split():
                    components = tuple(fields.get("components", "").split())
                    yield Source(uri=root, suite=suite, components=components, signed_by=keys)


_NO = {"no", "false", "without", "off", "disable", "0"}


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield the stanzas of deb822 `text`; field names in lower case, continuation lines kept with their newlines."""
    fields: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, last = {}, ""
        elif line[0] in " \t":
            if last:
                fields[last] += "\n" + line
        else:
            name, _, value = line.partition(":")
            last = name.strip().lower()
            fields[last] = value.strip()
    if fields:
        yield fields


def _dedent(key: str) -> str:
    # Lines of an inline key are indented by one space; an empty line is written ' .'.
    lines = (line.strip() for line in key.strip().splitlines())
    return "\n".join("" if line == "." else line for line in lines) + "\n"


def _expand(uri: str, apt: Path) -> list[str]:
    scheme, _, rest = uri.partition(":")
    if scheme == "mirror+file":
        listed = Path("/" + rest.lstrip("/"))
        listed = apt / listed.relative_to(APT) if listed.is_relative_to(APT) else listed
        lines = (line.partition("#")[0].split() for line in _read(listed).splitlines())
        return [root for words in lines if words for root in _expand(words[0], apt)]
    return [uri.rstrip("/")] if scheme in ("http", "https", "file") else []


def _from_setting(env: Mapping[str, str], name: str) -> tuple[Mirror, ...]:
    return tuple(Mirror(root=root.rstrip("/")) for root in env.get(name, "").split())


def _is_debian(source: Source) -> bool:
    match = _SUITE.fullmatch(source.suite)
    return bool(match and match["release"] in _CODENAMES | _ALIASES and "main" in source.components)


def _is_security(suite: str) -> bool:
    return suite.endswith("-security") or "/updates" in suite


def _unique(sources: Iterable[Source]) -> tuple[Mirror, ...]:
    mirrors = {source.uri: Mirror(root=source.uri, signed_by=source.signed_by) for source in reversed(list(sources))}
    return tuple(reversed(mirrors.values()))
