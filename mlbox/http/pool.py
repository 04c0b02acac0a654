"""Pools of connections: proxies of the environment, certificates of the system, the user or one server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote

import msgspec

from mlbox.errors import FetchError
from mlbox.http.url import http_address, is_loopback, redact, without_credentials

if TYPE_CHECKING:
    import ssl

    from urllib3 import PoolManager

_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
_BLOCK = 1 << 17  # what is sent of a file at a time: 16 kB, urllib3's own, costs a third of the rate


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """What the connections to one server are made with, besides the authorities that everybody trusts."""

    authorities: tuple[Path, ...] = ()
    """Files of CA certificates (PEM)."""
    certificate: Path | None = None
    """Our own certificate, for servers that want one, and its `key` (None: in the same file)."""
    key: Path | None = None


def ca_bundle() -> str:
    """Return the CA bundle (file or folder) that the environment names, '' for the system's own."""
    return next((os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), "")


def proxy_for(parts: SplitResult) -> str:
    """Return the proxy that the environment names for that address, '' for none and for this machine."""
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    host = parts.netloc.rpartition("@")[2]
    proxies = getproxies_environment()
    if is_loopback(host) or proxy_bypass_environment(host, proxies):
        return ""
    proxy: str = proxies.get(parts.scheme) or proxies.get("all") or ""
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def make_pool(proxy: str, tls: Tls) -> "PoolManager":
    """Return a pool that goes through `proxy` ('' for none); raises FetchError when a certificate cannot be read."""
    import urllib3

    context = _context(tls)  # one for all connections: reading the bundle takes as long as a handshake
    if not proxy:
        return urllib3.PoolManager(maxsize=16, ssl_context=context, blocksize=_BLOCK)
    if (parts := http_address(proxy)) is None:
        hint = "HTTPS_PROXY=http://HOST:PORT; SOCKS proxies are not supported"
        raise FetchError(f"{redact(proxy)}: not an http proxy", hint=hint)
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
    plain = without_credentials(proxy)
    return urllib3.ProxyManager(plain, maxsize=16, proxy_headers=headers, ssl_context=context, blocksize=_BLOCK)


def _context(tls: Tls) -> "ssl.SSLContext":
    from urllib3.util.ssl_ import create_urllib3_context

    bundle = ca_bundle() or _pip_bundle()
    if bundle and not Path(bundle).exists():
        raise FetchError(f"CA bundle not found: {bundle}", hint=f"correct {', '.join(_CA_VARIABLES)}")
    context = create_urllib3_context()
    if bundle:
        folder = Path(bundle).is_dir()
        context.load_verify_locations(cafile=None if folder else bundle, capath=bundle if folder else None)
    else:
        context.load_default_certs()
    for path in tls.authorities:
        with _certificate_errors(path):
            context.load_verify_locations(cafile=path)
    if tls.certificate:
        with _certificate_errors(tls.key or tls.certificate):
            # an encrypted key would make OpenSSL ask on the terminal
            context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    return context


@contextmanager
def _certificate_errors(path: Path) -> Iterator[None]:
    import ssl

    try:
        yield
    except ssl.SSLError as problem:
        raise FetchError(f"{path}: not a usable certificate or key in PEM form ({problem.reason})") from problem
    except OSError as problem:
        raise FetchError(f"{path}: {problem.strerror}") from problem


def _pip_bundle() -> str:
    """Return pip's CA bundle when the system has none (a Debian without ca-certificates), else ''."""
    import ssl

    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())):
        return ""
    from pip._vendor import certifi

    return str(certifi.where())
