"""Addresses: what of them may be shown, and what they mean."""

import os
import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

# A password may hold an '@' that should have been encoded: everything up to the last one goes.
_CREDENTIALS = re.compile(r"(?<=//)[^/\s]+@")


def redact(url: str) -> str:
    """Return `url`, which may be no address at all, fit for messages and logs: no user, password, query or fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return redact_text(re.split("[?#]", url)[0])
    netloc = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, netloc, parts.path, "***" if parts.query else "", ""))


def without_credentials(url: str) -> str:
    """Return `url` without user and password, otherwise the same address."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def http_address(url: str) -> SplitResult | None:
    """Return the parts of `url` when it is an http or https address with a host; else None."""
    try:
        parts = urlsplit(url)
        return parts if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def redact_text(text: str) -> str:
    """Return the words of another program without anything that could be a user and password."""
    return _CREDENTIALS.sub("", text)


def is_offline() -> bool:
    """Whether the user forbids every use of the network (MLBOX_OFFLINE)."""
    return os.environ.get("MLBOX_OFFLINE", "") not in ("", "0")


def file_path(url: str) -> Path | None:
    """Return the path that a file: URL names, None for other URLs."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def is_loopback(host: str) -> bool:
    """Whether `host` (with or without a port) is this machine."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    if not name.startswith("127.") and ":" not in name:
        return False
    import ipaddress

    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_of(parts: SplitResult) -> str:
    """Return scheme, host and port, which a password belongs to."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


def join(url: str, target: str | None) -> str:
    """Return the address that `target`, which a server at `url` gave, means."""
    return urljoin(without_credentials(url), target or "")
