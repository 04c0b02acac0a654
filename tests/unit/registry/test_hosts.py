"""Where registries are: names, settings, certificates."""

from pathlib import Path

import pytest

from mlbox.errors import RegistryError, UsageError
from mlbox.http.pool import Tls
from mlbox.http.url import is_loopback
from mlbox.registry.hosts import Places, Site, canonical_host, default_places, sites_of


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Files of settings of the system and the user, and one folder of certificates; none is there yet."""
    return Places(
        settings=(tmp_path / "etc/registries.toml", tmp_path / "user/registries.toml"),
        certificates=(tmp_path / "certs.d",),
    )


def write(path: Path, text: str) -> None:
    """Write a file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("GHCR.io", "ghcr.io"),
        ("registry.example:5000/", "registry.example:5000"),
        ("localhost", "localhost"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_canonical_names(text: str, host: str) -> None:
    """One name per registry."""
    assert canonical_host(text) == host


@pytest.mark.parametrize("text", ["", "https://x.example", "x.example/path", "me:pw@x.example", "a b", "x:port", "-x"])
def test_what_is_no_host(text: str) -> None:
    """Is refused, and a password in it is not shown."""
    with pytest.raises(UsageError, match="not a registry") as caught:
        canonical_host(text)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.1.2.3:80", True),
        ("[::1]:5000", True),
        ("x.localhost", True),
        ("10.0.0.1", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("[::2]:5000", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    """Only this machine is this machine."""
    assert is_loopback(host) is expected


def test_without_settings(places: Places) -> None:
    """https everywhere but on this machine; Docker Hub is elsewhere than its name says."""
    assert sites_of("docker.io", places).registry == Site(name="docker.io", host="registry-1.docker.io")
    assert sites_of("ghcr.io", places).registry == Site(name="ghcr.io", host="ghcr.io")
    assert sites_of("localhost:5000", places).registry.schemes == ("http", "https")


def test_settings(places: Places) -> None:
    """The user's keys go before the system's; paths are relative to the file; mirrors have settings of their own."""
    write(
        places.settings[0],
        """
        [hosts."docker.io"]
        mirrors = ["cache.example/hub", "localhost:5000"]
        ca = "/etc/ca.pem"
        [hosts."cache.example"]
        insecure = true
        """,
    )
    write(
        places.settings[1],
        """
        [hosts."docker.io"]
        ca = "my.pem"
        cert = "me.crt"
        key = "me.key"
        location = "hub.example:8443/mirror"
        """,
    )
    folder = places.settings[1].parent

    sites = sites_of("docker.io", places)
    own = Tls(authorities=(folder / "my.pem",), certificate=folder / "me.crt", key=folder / "me.key")

    assert sites.registry == Site(
        name="docker.io",
        host="hub.example:8443",
        prefix="mirror",
        tls=own,
        elsewhere={"docker.io": own},
    )
    assert sites.mirrors == (
        Site(name="cache.example", host="cache.example", prefix="hub", schemes=("http",), elsewhere={"docker.io": own}),
        Site(name="localhost:5000", host="localhost:5000", schemes=("http", "https"), elsewhere={"docker.io": own}),
    )


def test_insecure_says_no_as_well(places: Places) -> None:
    """`insecure = false` wants TLS on this machine too."""
    write(places.settings[0], '[hosts."localhost:5000"]\ninsecure = false')
    assert sites_of("localhost:5000", places).registry.schemes == ("https",)


def test_certificates_of_docker(places: Places) -> None:
    """certs.d/HOST:PORT: all *.crt are authorities, a *.cert with its *.key is ours; plain http is not tried then."""
    folder = places.certificates[0] / "localhost:5000"
    for name in ("a.crt", "b.crt", "client.cert", "client.key", "alone.cert"):
        write(folder / name, "")

    site = sites_of("localhost:5000", places).registry
    assert sites_of("other.example", places).registry.elsewhere == {"localhost:5000": site.tls}

    assert site.tls == Tls(
        authorities=(folder / "a.crt", folder / "b.crt"), certificate=folder / "client.cert", key=folder / "client.key"
    )
    assert site.schemes == ("https",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[hosts", "registries.toml"),
        ('[hosts."x"]\ninsecur = true', "insecur"),
        ('[hosts."x"]\ninsecure = "yes"', "Expected `bool"),
        ('[hosts."x"]\nmirrors = ["https://y"]', "not a place"),
        ('[hosts."x"]\nlocation = "me:pw@y"', "not a place"),
        ("[host]", "host"),
    ],
)
def test_mistakes_are_said(places: Places, text: str, words: str) -> None:
    """With the file and the key."""
    write(places.settings[1], text)
    with pytest.raises(RegistryError, match=words) as caught:
        sites_of("x", places)
    assert "registries.toml" in str(caught.value)
    assert "pw" not in str(caught.value)


def test_default_places(own_environment: Path) -> None:
    """The system's before the user's."""
    assert default_places().settings == (
        Path("/etc/mlbox/registries.toml"),
        own_environment / ".config/mlbox/registries.toml",
    )
