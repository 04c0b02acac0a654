"""A registry in memory, and clients of it that do not wait."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.registry import FakeRegistry, registry

from mlbox.http import Limits
from mlbox.registry.client import Registry
from mlbox.registry.credentials import Credentials
from mlbox.registry.hosts import Site, Sites

QUICK = Limits(connect=5, read=10, attempts=3, most=12, unreachable=2)

Open = Callable[..., Registry]


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry that behaves well unless told otherwise."""
    with registry() as running:
        yield running


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    """Another host."""
    with registry() as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    """The pauses the client made, in seconds; none was waited for."""
    return []


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without settings, logins and proxies; returns their home."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("MLBOX_OFFLINE", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
            monkeypatch.delenv(name)
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    return home


@pytest.fixture
def client(own_environment: Path, pauses: list[float]) -> Open:
    """Open a client of a registry, as somebody or as nobody."""

    def open_client(
        fake: FakeRegistry,
        credentials: Credentials | None = None,
        *,
        mirrors: tuple[FakeRegistry, ...] = (),
        scheme: str = "http",
        **more: object,
    ) -> Registry:
        def site(one: FakeRegistry) -> Site:
            return Site(name=one.host, host=one.host, schemes=(scheme,))

        sites = Sites(registry=site(fake), mirrors=tuple(site(one) for one in mirrors))
        settings = {"limits": QUICK, "sleep": pauses.append, **more}
        return Registry(sites, lambda _: lambda _: credentials, **settings)  # type: ignore[arg-type]

    return open_client
