"""Where registries are and how they are spoken to: mlbox's registries.toml, Docker's and containers' certs.d.

    [hosts."registry.example:5000"]
    insecure = true                         # plain http
    ca = "/etc/ssl/our-ca.pem"              # besides the authorities of the system
    cert = "client.pem"                     # for registries that want one; relative to this file
    key = "client.key"

    [hosts."docker.io"]
    mirrors = ["cache.example/dockerhub"]   # asked first when something is pulled; the last is always the registry
    location = "hub.example/library"        # the registry really is there

Names without a file of settings need none: https, or plain http for the machine itself.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlbox.codec import load_toml
from mlbox.errors import RegistryError, UsageError
from mlbox.http.pool import Tls
from mlbox.http.url import is_loopback
from mlbox.oci.reference import DEFAULT_REGISTRY

_HUB = "registry-1.docker.io"
_HUB_NAMES = frozenset({DEFAULT_REGISTRY, "index.docker.io", _HUB})
_PLACE = re.compile(
    r"((?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?)(?:/([a-z0-9._/-]+))?"
)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What registries.toml says of one host."""

    insecure: bool | None = None
    ca: str = ""
    cert: str = ""
    key: str = ""
    mirrors: tuple[str, ...] = ()
    location: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hosts: dict[str, Settings] = {}


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """One server that holds repositories: where it is and how it is spoken to."""

    name: str
    """What passwords and messages call it."""
    host: str
    prefix: str = ""
    """What stands before the names of its repositories."""
    schemes: tuple[str, ...] = ("https",)
    """Tried in this order, the first that answers is kept."""
    tls: Tls = Tls()
    elsewhere: dict[str, Tls] = {}
    """The certificates for other hosts that it may send us on to: token servers, storage."""


class Sites(msgspec.Struct, frozen=True, kw_only=True):
    """A registry, and the mirrors that are asked before it when something is read."""

    registry: Site
    mirrors: tuple[Site, ...] = ()


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """The files and folders that are read; the later ones win."""

    settings: tuple[Path, ...]
    certificates: tuple[Path, ...]


def default_places() -> Places:
    """Return where the system and the user keep their settings."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Places(
        settings=(Path("/etc/mlbox/registries.toml"), config / "mlbox/registries.toml"),
        certificates=(
            Path("/etc/docker/certs.d"),
            Path("/etc/containers/certs.d"),
            config / "containers/certs.d",
        ),
    )


def canonical_host(text: str) -> str:
    """Return the registry that `text` names, in lower case; Docker Hub has several names and one is used.

    Raises UsageError when it is no host, or one with a scheme, a password or a path.
    """
    host, namespace = parse_place(text)
    if namespace:
        raise _no_registry(text)
    return host


def parse_place(text: str) -> tuple[str, str]:
    """Return the registry and the namespace ('' for all of it) that `text` names, as in 'registry.example/team'."""
    match = _PLACE.fullmatch(text.removesuffix("/"))
    if match is None:
        raise _no_registry(text)
    host = match[1].lower()
    return DEFAULT_REGISTRY if host in _HUB_NAMES else host, match[2] or ""


def load_settings(files: Sequence[Path]) -> dict[str, Settings]:
    """Return the settings by host; a later file's keys replace an earlier one's, paths become absolute."""
    found: dict[str, Settings] = {}
    for path in files:
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as problem:
            raise RegistryError(
                f"{path}: {problem.strerror}", hint="it says how registries are reached: let it be read"
            ) from problem
        for host, settings in _decode(path, data).items():
            key = canonical_host(host)
            found[key] = _merged(found.get(key, Settings()), _absolute(settings, path.parent))
    return found


def sites_of(host: str, places: Places | None = None) -> Sites:
    """Return where the registry `host` and its mirrors are."""
    places = places or default_places()
    settings = load_settings(places.settings)
    name = canonical_host(host)
    own = settings.get(name, Settings())
    elsewhere = _all_tls(settings, places)
    registry = _site(name, own.location or (_HUB if name == DEFAULT_REGISTRY else name), own, places, elsewhere)
    mirrors = []
    for place in own.mirrors:
        mirror = canonical_host(_place(place)[0])
        mirrors.append(_site(mirror, place, settings.get(mirror, Settings()), places, elsewhere))
    return Sites(registry=registry, mirrors=tuple(mirrors))


def _site(name: str, place: str, own: Settings, places: Places, elsewhere: dict[str, Tls]) -> Site:
    host, prefix = _place(place)
    tls = _tls(host, own, places)
    return Site(name=name, host=host, prefix=prefix, schemes=_schemes(host, own, tls), tls=tls, elsewhere=elsewhere)


def _all_tls(settings: dict[str, Settings], places: Places) -> dict[str, Tls]:
    """Return the certificates of every host that has some of its own."""
    folders = [folder.name for place in places.certificates if place.is_dir() for folder in place.iterdir()]
    found = {host: _tls(host, settings.get(host, Settings()), places) for host in [*settings, *folders]}
    return {host: tls for host, tls in found.items() if tls != Tls()}


def _schemes(host: str, own: Settings, tls: Tls) -> tuple[str, ...]:
    if own.insecure is not None:
        return ("http",) if own.insecure else ("https",)
    if is_loopback(host) and tls == Tls():
        return ("http", "https")
    return ("https",)


def _tls(host: str, own: Settings, places: Places) -> Tls:
    authorities: list[Path] = []
    certificate: Path | None = None
    key: Path | None = None
    for folder in (place / host for place in places.certificates):
        authorities += sorted(folder.glob("*.crt"))
        for candidate in sorted(folder.glob("*.cert")):
            if candidate.with_suffix(".key").exists():
                certificate, key = candidate, candidate.with_suffix(".key")
    if own.ca:
        authorities.append(Path(own.ca))
    if own.cert:
        certificate, key = Path(own.cert), Path(own.key) if own.key else None
    return Tls(authorities=tuple(authorities), certificate=certificate, key=key)


def _place(text: str) -> tuple[str, str]:
    match = _PLACE.fullmatch(text.removesuffix("/"))
    if match is None:
        raise RegistryError(
            f"registries.toml: not a place of a registry: {_shown(text)}",
            hint='write "host:port" or "host:port/path", without https://',
        )
    return match[1].lower(), match[2] or ""


def _decode(path: Path, data: bytes) -> dict[str, Settings]:
    document = load_toml(data, what=str(path), error=RegistryError)
    try:
        return msgspec.convert(document, _File).hosts
    except msgspec.ValidationError as problem:
        raise RegistryError(
            f"{path}: {problem}", hint="a host has the keys insecure, ca, cert, key, mirrors and location"
        ) from problem


def _absolute(settings: Settings, folder: Path) -> Settings:
    paths = {
        name: str(folder / Path(value).expanduser())
        for name in ("ca", "cert", "key")
        if (value := getattr(settings, name))
    }
    return msgspec.structs.replace(settings, **paths)


def _merged(old: Settings, new: Settings) -> Settings:
    given = {
        name: value
        for name, default in zip(Settings.__struct_fields__, Settings.__struct_defaults__, strict=True)
        if (value := getattr(new, name)) != default
    }
    return msgspec.structs.replace(old, **given)


def _no_registry(text: str) -> UsageError:
    hint = "write its host, with the port if it has one: registry.example:5000"
    return UsageError(f"not a registry: {_shown(text)}", hint=hint)


def _shown(text: str) -> str:
    return repr(text.rpartition("@")[2][:100])
