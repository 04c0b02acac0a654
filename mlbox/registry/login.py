"""Logging in and out: a login is checked with the registry before it is kept."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from mlbox.http.transport import Limits
from mlbox.registry import dockerconfig
from mlbox.registry.client import Registry
from mlbox.registry.credentials import Credentials
from mlbox.registry.endpoint import LIMITS
from mlbox.registry.hosts import Sites, canonical_host, sites_of


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True):
    """Where a login is kept now, in words, and whether the registry looked at it (some let everybody in)."""

    registry: str
    place: str
    checked: bool


def log_in(
    host: str,
    credentials: Credentials,
    *,
    sites: Sites | None = None,
    path: Path | None = None,
    limits: Limits = LIMITS,
    sleep: Callable[[float], None] = time.sleep,
) -> LoggedIn:
    """Keep the login to `host` where Docker and podman find it too; a RegistryError says that it is wrong."""
    registry = Registry(sites or sites_of(host), lambda _: lambda _: credentials, limits=limits, sleep=sleep)
    checked = registry.check_login()
    place = dockerconfig.save_login(registry.host, credentials, path or dockerconfig.login_paths()[0])
    return LoggedIn(registry=registry.host, place=place, checked=checked)


def log_out(host: str, *, paths: tuple[Path, ...] | None = None) -> tuple[str, ...]:
    """Forget the login to the registry `host`; return where it was kept, nothing when it was nowhere."""
    return dockerconfig.erase_login(canonical_host(host), dockerconfig.login_paths() if paths is None else paths)
