"""Which mirrors of a distribution this host uses: read from its apt configuration or from mlbox's settings."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from mlbox.errors import LockError
from mlbox.lock.debian.distributions import DEBIAN, RELEASES, Distribution, distribution_of, is_security

APT = Path("/etc/apt")
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
    archs: tuple[str, ...] = ()
    """The machines it is for; none named means this host's."""


class Mirror(msgspec.Struct, frozen=True, kw_only=True):
    """The root of an archive and the keys its user trusts for it."""

    root: str
    signed_by: tuple[str, ...] = ()


class Mirrors(msgspec.Struct, frozen=True, kw_only=True):
    """Where a distribution comes from; the first that answers is used, the hash decides."""

    main: tuple[Mirror, ...]
    security: tuple[Mirror, ...] = ()

    def of(self, suite: str) -> tuple[Mirror, ...]:
        """Return the mirrors that should carry `suite`."""
        return self.security if suite.endswith("-security") else self.main

    def roots(self, suite: str) -> list[str]:
        """Return the roots below which a file of `suite` may lie, the likeliest first."""
        first = self.of(suite)
        return list(dict.fromkeys(mirror.root for mirror in (*first, *self.main, *self.security)))


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]


def suite_for_python(python: str) -> str:
    """Return the Debian release that has Python `python` ('3.11' or '3.11.4')."""
    wanted = ".".join(python.split(".")[:2])
    for suite, version in RELEASES.items():
        if version == wanted:
            return suite
    available = ", ".join(f"{version} (Debian {suite})" for suite, version in RELEASES.items())
    # What works with one mostly works with the next, and requires-python seldom has an upper bound.
    ordered = sorted(RELEASES.values(), key=_parts)
    nearest = next((version for version in ordered if _parts(version) > _parts(wanted)), ordered[-1])
    raise LockError(
        f"no Debian release has Python {wanted}; available: {available}",
        hint=f'ask for one of these (python = "{nearest}"), or stand on an image that has it:'
        f' base = "docker.io/library/python:{wanted}-slim"',
    )


def read_mirrors(
    apt: Path = APT,
    env: Mapping[str, str] = os.environ,
    distribution: Distribution = DEBIAN,
    *,
    arch: str = "",
    host: str = "",
) -> Mirrors:
    """Return the mirrors of `distribution` that the settings in `env` name, else those of apt at `apt`.

    Where its machines have mirrors of their own, `arch` says whose; `host` (empty: this one's) is the machine that a
    source of apt is for that does not say it.
    """
    if not distribution.ports_mirror:
        arch = ""  # a mirror of Debian has all its machines
    main, security = _settings(distribution, env, arch)
    sources = [] if main and security else _sources_of(distribution, read_sources(apt), arch, host or _this_machine())
    main = main or _unique(source for source in sources if not is_security(source.suite))
    security = security or _unique(source for source in sources if is_security(source.suite))
    if not main:
        raise _unconfigured(distribution, apt, arch)
    # A mirror of Ubuntu has all its suites; Debian's security archive is one of its own.
    return Mirrors(main=main, security=security or (main if distribution.ports_mirror else ()))


def roots(suite: str, apt: Path = APT, env: Mapping[str, str] = os.environ) -> list[str]:
    """Return the roots below which a package of `suite` may lie, for whichever machine it is; the likeliest first."""
    distribution, here = distribution_of(suite), _this_machine()
    found: list[str] = []
    problems: list[LockError] = []
    for arch in sorted(distribution.archs, key=lambda one: one != here):
        try:
            found += read_mirrors(apt, env, distribution, arch=arch).roots(suite)
        except LockError as problem:
            problems.append(problem)
    if not found:
        raise problems[0]
    return list(dict.fromkeys(found))


def _settings(
    distribution: Distribution, env: Mapping[str, str], arch: str
) -> tuple[tuple[Mirror, ...], tuple[Mirror, ...]]:
    if _is_port(distribution, arch):
        ports = _from_setting(env, distribution.ports_mirror)
        return ports, ports
    return _from_setting(env, distribution.mirror), _from_setting(env, distribution.security_mirror)


def _sources_of(distribution: Distribution, sources: Iterable[Source], arch: str, host: str) -> list[Source]:
    ours = [one for one in sources if (release := _release(one.suite)) and distribution.owns(release, one.components)]
    return [one for one in ours if not arch or arch in (one.archs or (host,))]


def _release(suite: str) -> str:
    match = _SUITE.fullmatch(suite)
    return match["release"] if match else ""


def _is_port(distribution: Distribution, arch: str) -> bool:
    return bool(distribution.ports_mirror) and arch != "amd64"


def _unconfigured(distribution: Distribution, apt: Path, arch: str) -> LockError:
    machine = f" for {arch}" if arch else ""
    names = f"{distribution.mirror} (and {distribution.security_mirror})"
    if _is_port(distribution, arch):
        names = distribution.ports_mirror
    name = distribution.name
    return LockError(
        f"no {name} archive{machine} is configured in {apt}, and the base of an image is made of {name} packages",
        hint=f"set {names} to the root of a mirror of {name}{machine}: the address above its 'dists'",
    )


def _this_machine() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "")


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
            archs = tuple(filter(None, settings.get("arch", "").split(",")))
            yield Source(uri=uri, suite=words[2], components=tuple(words[3:]), signed_by=signed_by, archs=archs)


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
                    archs = tuple(fields.get("architectures", "").split())
                    yield Source(uri=root, suite=suite, components=components, signed_by=keys, archs=archs)


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


def _unique(sources: Iterable[Source]) -> tuple[Mirror, ...]:
    mirrors = {source.uri: Mirror(root=source.uri, signed_by=source.signed_by) for source in reversed(list(sources))}
    return tuple(reversed(mirrors.values()))
