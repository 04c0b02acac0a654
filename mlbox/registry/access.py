"""Who may read a served store: where it listens, the token, TLS."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mlbox.errors import UsageError

TOKEN_VARIABLE = "MLBOX_STORE_TOKEN"  # noqa: S105 - its name
DEFAULT_PORT = 5000
_SHORTEST = 16


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a store is served."""

    host: str
    port: int = DEFAULT_PORT
    """0 takes a free one."""
    token: str = ""
    """Without one everybody on this machine may read, and nobody else."""
    cert: Path | None = None
    key: Path | None = None

    def url(self, port: int) -> str:
        """Return the address, with the port that was taken."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.cert else 'http'}://{host}:{port}"


def options_of(
    listen: str,
    *,
    token_file: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    environment: Mapping[str, str],
) -> Options:
    """Return the options of a command line; what would let strangers in raises UsageError.

    A token file that is not there is made, with a new token in it that only its owner can read.
    """
    host, port = _address(listen)
    if (cert is None) != (key is None):
        raise UsageError(
            "TLS needs both --cert and --key", hint="the certificate with its chain, and its key, as PEM files"
        )
    token = _token(token_file) if token_file else environment.get(TOKEN_VARIABLE, "").strip()
    if token and len(token) < _SHORTEST:
        raise UsageError(f"the token is shorter than {_SHORTEST} characters", hint="let --token-file make one")
    if not token and not is_loopback(host):
        raise UsageError(
            f"{host} can be reached by other machines, so a token is needed",
            hint=f"--token-file FILE makes one (or set {TOKEN_VARIABLE}); it is the password of any user",
        )
    return Options(host=host, port=port, token=token, cert=cert, key=key)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as problem:
        raise UsageError(
            f"cannot listen on {host}: {problem.strerror}", hint="an address of this machine, like 127.0.0.1:5000"
        ) from problem
    return all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)


def may_enter(authorization: str, token: str) -> bool:
    """Whether an Authorization header shows `token`: as a bearer token, or as the password of any user."""
    kind, _, given = authorization.partition(" ")
    given = given.strip()
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif kind.lower() != "bearer":
        return False
    # Digests are equally long, so that neither time nor length says anything about the token.
    return hmac.compare_digest(_digest(given), _digest(token))


def names_this_machine(host: str) -> bool:
    """Whether a Host header is one of this machine's own names.

    A page in a browser can make its own name mean 127.0.0.1 and read what is served there without a token.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if name in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def tls_context(options: Options) -> ssl.SSLContext | None:
    """Return the TLS settings, None without a certificate."""
    if options.cert is None or options.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.cert, options.key)
    except (OSError, ssl.SSLError) as problem:
        raise UsageError(
            f"cannot use {options.cert} with {options.key}: {problem.strerror or problem}",
            hint="both are PEM files: a certificate with its chain, and its key without a password",
        ) from problem
    return context


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or listen.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = listen, str(DEFAULT_PORT)  # a name, or an IPv6 address without a port
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(
            f"not an address to listen on: {listen!r}", hint="like 127.0.0.1:5000, or 0.0.0.0:5000 for all"
        )
    return host, int(port)


def _token(path: Path) -> str:
    try:
        return path.read_text().strip() or _new_token(path)
    except FileNotFoundError:
        return _new_token(path)
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(
            f"cannot read the token in {path}: {problem}", hint="name a file of one line; one that is not there is made"
        ) from problem


def _new_token(path: Path) -> str:
    token = secrets.token_urlsafe(32)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            os.fchmod(file.fileno(), 0o600)  # an empty file that was there keeps the mode it had
            file.write(token + "\n")
    except OSError as problem:
        raise UsageError(
            f"cannot write a token to {path}: {problem.strerror}", hint="name a file in a folder that you may write"
        ) from problem
    return token


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
