"""Logging in and out: a login is checked with the registry before it is kept."""

import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import msgspec

from mlbox.errors import RegistryError
from mlbox.http.transport import Limits
from mlbox.registry import dockerconfig
from mlbox.registry.client import Registry
from mlbox.registry.credentials import Credentials
from mlbox.registry.endpoint import LIMITS
from mlbox.registry.hosts import Sites, parse_place, sites_of


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True):
    """Where a login is kept now, in words, and whether the registry looked at it (some let everybody in)."""

    registry: str
    place: str
    checked: bool


def log_in(
    place: str,
    credentials: Credentials,
    *,
    sites: Sites | None = None,
    path: Path | None = None,
    limits: Limits = LIMITS,
    sleep: Callable[[float], None] = time.sleep,
) -> LoggedIn:
    """Keep the login to a registry, or to a namespace in it, where podman (and Docker, but for namespaces) find it too.

    Raises RegistryError when the registry does not accept it.
    """
    host, namespace = parse_place(place)
    registry = Registry(sites or sites_of(host), lambda _: lambda _: credentials, limits=limits, sleep=sleep)
    try:
        checked = registry.check_login()
    except RegistryError as problem:
        if problem.status == HTTPStatus.UNAUTHORIZED:
            problem.hint = "the user or the password (or access token) is wrong; nothing was kept"
        raise
    kept = dockerconfig.save_login(host, credentials, path or dockerconfig.login_paths()[0], namespace)
    return LoggedIn(registry=f"{host}/{namespace}" if namespace else host, place=kept, checked=checked)


def log_out(place: str, *, paths: tuple[Path, ...] | None = None) -> tuple[str, ...]:
    """Forget the login to a registry, or to a namespace in it; return where it was kept, nothing when nowhere."""
    host, namespace = parse_place(place)
    return dockerconfig.erase_login(host, dockerconfig.login_paths() if paths is None else paths, namespace)
