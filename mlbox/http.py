"""Reading from indexes and mirrors: bounded, retried, resumed, verified, and without a credential in any message."""

import hashlib
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from mlbox import __version__
from mlbox.errors import FetchError
from mlbox.events import SILENT, Listener
from mlbox.files import disk_errors

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

T = TypeVar("T")
B = TypeVar("B", bytes, bytearray)

_CHUNK = 1 << 18
_UNKNOWN_SIZE_LIMIT = 1 << 36
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
# A password may hold an '@' that should have been encoded: everything up to the last one goes.
_CREDENTIALS = re.compile(r"(?<=//)[^/\s]+@")
_OFFLINE_HINT = "MLBOX_OFFLINE is set: unset it, or fetch the file once while online"
_NETWORK_HINT = (
    "is this machine online? a proxy is taken from HTTPS_PROXY, a mirror from your pip, uv or apt configuration"
)


class HttpError(FetchError):
    """The server answered, but not with the document; `status` is its status code."""

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Answer(NamedTuple):
    """A whole document; `url` is where redirects led, headers have lower-case names."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Limits(NamedTuple):
    """How long a server is waited for."""

    connect: float = 4.0
    read: float = 20.0
    attempts: int = 4
    """Tries in a row that bring nothing."""
    most: int = 40
    """Tries in all, for a download that breaks again and again."""
    unreachable: float = 8.0
    """Seconds after which a host that cannot be connected to is given up."""
    wait: float = 20.0
    """The longest pause that a server's Retry-After is granted."""


LIMITS = Limits()


class _TemporaryError(Exception):
    """Worth another try; `after` is the pause the server asked for."""

    def __init__(self, reason: str, *, after: float = 0.0, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        self.unreachable = unreachable


def redact(url: str) -> str:
    """Return `url` fit for messages and logs: without user, password, query and fragment."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, netloc, parts.path, "***" if parts.query else "", ""))


def without_credentials(url: str) -> str:
    """Return `url` without user and password, otherwise the same address."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


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


class Http:
    """One pool of connections; safe to use from many threads.

    Proxies come from the environment, the CA bundle from SSL_CERT_FILE, REQUESTS_CA_BUNDLE or PIP_CERT,
    passwords from the URL or ~/.netrc.
    """

    def __init__(self, *, limits: Limits = LIMITS, sleep: Callable[[float], None] = time.sleep) -> None:
        self._limits = limits
        self._sleep = sleep
        self._pools: dict[str, PoolManager] = {}
        self._logins: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()
        self._netrc: Callable[[str], tuple[str, str] | None] | None = None

    def get(self, url: str, *, limit: int, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the document at `url` (http, https, file); more than `limit` bytes is an error."""
        return self.fetch(url, limit=limit, headers=headers).body

    def fetch(self, url: str, *, limit: int, headers: Mapping[str, str] | None = None) -> Answer:
        """Return the document at `url` with its headers and its address after redirects."""
        if (path := file_path(url)) is not None:
            with _reading_local(path) as file:
                return Answer(url, {}, _bounded(file.read(limit + 1), limit, url))
        return self._retrying(url, lambda: self._fetch_once(url, limit, headers or {}))

    def size_of(self, url: str) -> int:
        """Return the size of the file at `url`, 0 when the server does not say or cannot be asked."""
        if (path := file_path(url)) is not None:
            return path.stat().st_size if path.is_file() else 0
        try:
            return self._retrying(url, lambda: self._size_once(url))
        except FetchError:
            return 0

    def warm_up(self, url: str) -> None:
        """Get ready to ask `url`, without asking: worth a tenth of a second while something else is waited for."""
        if urlsplit(url).scheme in ("http", "https"):
            with suppress(FetchError):
                self._pool(urlsplit(url))

    def learn(self, url: str) -> None:
        """Remember the user and password in `url` for other addresses of the same host, which come without."""
        parts = urlsplit(url)
        if parts.username:
            with self._lock:
                self._logins[_host_of(parts)] = (unquote(parts.username), unquote(parts.password or ""))

    def download(
        self,
        urls: Iterable[str],
        target: Path,
        *,
        sha256: str,
        size: int = 0,
        listener: Listener = SILENT,
        name: str = "",
    ) -> None:
        """Make `target` the file with this sha256 (and `size`, unless 0), from the first of `urls` that has it.

        Nobody else may write `target` meanwhile. What an earlier call left there is completed; after a FetchError,
        which names the file (`name`, else the target's) and what went wrong at each URL, a part may be there.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with disk_errors(f"downloading {name or target.name}"), target.open("a+b") as file:
            self._download_any(urls, _Part(file, name or target.name, sha256, size, listener))

    def _download_any(self, urls: Iterable[str], part: "_Part") -> None:
        problems: list[FetchError] = []
        places = iter(urls)
        while True:
            try:  # asking for the next place may itself fail: it may have to be looked up in an index
                if (url := next(places, None)) is None:
                    break
                self._download_one(url, part)
                return
            except FetchError as problem:
                problems.append(problem)
        if not problems:
            raise FetchError(f"{part.what}: no place to fetch it from", hint="check the configured index")
        if len(problems) == 1:
            raise problems[0]
        text = "".join(f"\n  {problem.message}" for problem in problems)
        raise FetchError(f"{part.what}: every place it could come from failed:{text}", hint=problems[-1].hint)

    def _download_one(self, url: str, part: "_Part") -> None:
        resumed = part.done > 0
        self._transfer(url, part)
        if part.matches():
            return
        if resumed:  # what an earlier try left may be the wrong half: once more from the start
            part.restart()
            self._transfer(url, part)
            if part.matches():
                return
        problem = part.mismatch(url)
        part.restart()
        raise problem

    def _transfer(self, url: str, part: "_Part") -> None:
        if (path := file_path(url)) is not None:
            part.restart()
            with _reading_local(path) as source:
                while chunk := source.read(_CHUNK):
                    part.write(chunk, url)
            return
        self._retrying(url, lambda: self._transfer_once(url, part), progress=lambda: part.received)

    def _transfer_once(self, url: str, part: "_Part") -> None:
        if part.size and part.done == part.size:
            return
        headers = {"Range": f"bytes={part.done}-"} if part.done else {}
        with self._open(url, headers) as response:
            if response.status == 416 or (response.status == 206 and not _starts_at(response, part.done)):
                part.restart()
                raise _TemporaryError("the server could not resume the download")
            self._check(response, url)
            if response.status != 206:
                part.restart()
            part.expect_length(response.headers.get("content-length"), url)
            for chunk in _chunks(response):
                part.write(chunk, url)
        if part.size and part.done < part.size:
            raise _TemporaryError(f"the connection ended after {part.done} of {part.size} bytes")

    def _fetch_once(self, url: str, limit: int, headers: Mapping[str, str]) -> Answer:
        with self._open(url, headers, encoded=True) as response:
            self._check(response, url)
            body = bytearray()
            for chunk in _chunks(response, decoded=True):
                body += chunk
                _bounded(body, limit, url)
            found = {key.lower(): value for key, value in response.headers.items()}
            return Answer(_join(url, response.geturl()), found, bytes(body))

    def _size_once(self, url: str) -> int:
        with self._open(url, {}, method="HEAD") as response:
            self._check(response, url)
            length = response.headers.get("content-length", "")
            return int(length) if length.isdecimal() else 0

    def _retrying(self, url: str, action: Callable[[], T], *, progress: Callable[[], int] = lambda: 0) -> T:
        """Call `action` until it succeeds, fails for good, or the limits say that it never will."""
        if is_offline():
            raise FetchError(f"{redact(url)}: not fetched, mlbox is offline", hint=_OFFLINE_HINT)
        started, failures, seen = time.monotonic(), 0, progress()
        for tries in range(1, self._limits.most + 1):
            try:
                return action()
            except _TemporaryError as problem:
                failures = 1 if progress() > seen else failures + 1
                seen = progress()
                elapsed = time.monotonic() - started
                hopeless = problem.unreachable and elapsed > self._limits.unreachable / 2
                if hopeless or failures >= self._limits.attempts or tries == self._limits.most:
                    hint = _NETWORK_HINT if problem.unreachable else "try again later, or configure another mirror"
                    raise FetchError(f"{redact(url)}: {problem} (tried {tries} times)", hint=hint) from problem
                self._sleep(max(min(problem.after, self._limits.wait), _pause(failures)))
        raise AssertionError("the loop returns or raises")

    @contextmanager
    def _open(
        self, url: str, headers: Mapping[str, str], *, encoded: bool = False, method: str = "GET"
    ) -> Iterator["BaseHTTPResponse"]:
        """Yield the response; what may pass with time comes out as _TemporaryError."""
        import urllib3.exceptions as errors
        from urllib3.util import Retry, Timeout

        once = Retry(total=None, connect=0, read=0, status=0, other=0, redirect=8, respect_retry_after_header=False)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FetchError(f"{redact(url)}: not an http, https or file address")
        sent = {"User-Agent": f"mlbox/{__version__}", "Accept-Encoding": "gzip" if encoded else "identity", **headers}
        sent.update(self._authorization(parts))
        try:
            response = self._pool(parts).request(
                method,
                without_credentials(url),
                headers=sent,
                preload_content=False,
                decode_content=False,
                retries=once,
                timeout=Timeout(connect=self._limits.connect, read=self._limits.read),
            )
            try:
                yield response
            except BaseException:
                response.close()  # half-read connections are not reused
                raise
            else:
                response.release_conn()
        except errors.HTTPError as problem:
            raise _translated(problem, url) from problem

    def _check(self, response: "BaseHTTPResponse", url: str) -> None:
        status = response.status
        if status in (200, 206):
            return
        if status in _RETRIED_STATUS:
            raise _TemporaryError(f"the server answered {status}", after=_retry_after(response))
        hints = {
            401: "the server wants a password: put it into the URL or ~/.netrc",
            403: "the server refuses access: check the password in the URL or ~/.netrc",
            404: "it may have been removed or renamed: run 'mlbox lock' again, or check the configured index",
        }
        raise HttpError(f"{redact(url)}: the server answered {status}", status=status, hint=hints.get(status))

    def _authorization(self, parts: SplitResult) -> dict[str, str]:
        from urllib3.util import make_headers

        if parts.username:
            self.learn(urlunsplit(parts))
            pair = (unquote(parts.username), unquote(parts.password or ""))
        elif (learned := self._logins.get(_host_of(parts))) is not None:
            pair = learned
        elif (found := self._from_netrc(parts.hostname or "")) is not None:
            pair = found
        else:
            return {}
        return dict(make_headers(basic_auth=":".join(pair)))

    def _from_netrc(self, host: str) -> tuple[str, str] | None:
        with self._lock:
            if self._netrc is None:
                self._netrc = _read_netrc()
            return self._netrc(host)

    def _pool(self, parts: SplitResult) -> "PoolManager":
        proxy = _proxy_for(parts)
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = _make_pool(proxy)
            return self._pools[proxy]


class _Part:
    """A download under way: its file and the hash of what is in it."""

    def __init__(self, file: BinaryIO, what: str, sha256: str, size: int, listener: Listener) -> None:
        self.file, self.what, self.sha256, self.size, self.listener = file, what, sha256, size, listener
        self.done = self.received = 0
        self._hash = hashlib.sha256()
        file.seek(0)
        while chunk := file.read(_CHUNK):
            self._hash.update(chunk)
            self.done += len(chunk)
        if size and self.done > size:
            self.restart()
        listener.advance("fetch", self.done)

    def write(self, chunk: bytes, url: str) -> None:
        """Append `chunk`; more bytes than announced is an error, so that nobody can fill the disk."""
        if self.done + len(chunk) > (self.size or _UNKNOWN_SIZE_LIMIT):
            self.restart()
            raise self._wrong_size(url, f"more than {self.size}")
        self.file.write(chunk)
        self._hash.update(chunk)
        self.done += len(chunk)
        self.received += len(chunk)
        self.listener.advance("fetch", len(chunk))

    def restart(self) -> None:
        """Forget what arrived."""
        self.file.seek(0)
        self.file.truncate()
        self.listener.advance("fetch", -self.done)
        self.done = 0
        self._hash = hashlib.sha256()

    def expect_length(self, length: str | None, url: str) -> None:
        """Compare the announced length with the locked size before anything is transferred."""
        if self.size and length is not None and length.isdecimal() and self.done + int(length) != self.size:
            announced = self.done + int(length)
            self.restart()
            raise self._wrong_size(url, str(announced))

    def matches(self) -> bool:
        """Whether the file is the one that was asked for."""
        self.file.flush()
        return self._hash.hexdigest() == self.sha256 and self.size in (0, self.done)

    def mismatch(self, url: str) -> FetchError:
        """Return the error that names both hashes."""
        return FetchError(
            f"{self.what}: {redact(url)} has sha256 {self._hash.hexdigest()}, expected {self.sha256}",
            hint="the file was replaced on the server or damaged on the way: "
            "compare with another mirror; if the new file is wanted, run 'mlbox lock --upgrade'",
        )

    def _wrong_size(self, url: str, found: str) -> FetchError:
        return FetchError(
            f"{self.what}: {redact(url)} has {found} bytes, expected {self.size}",
            hint="the file was replaced on the server, or the lock was edited: run 'mlbox lock' again",
        )


def _host_of(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


@contextmanager
def _reading_local(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as problem:
        raise FetchError(f"{path}: {problem.strerror}") from problem


def _bounded(body: B, limit: int, url: str) -> B:
    if len(body) > limit:
        raise FetchError(f"{redact(url)}: more than {limit} bytes", hint="this is not what mlbox expects there")
    return body


def _chunks(response: "BaseHTTPResponse", *, decoded: bool = False) -> Iterator[bytes]:
    while chunk := response.read(_CHUNK, decode_content=decoded):
        yield chunk


def _starts_at(response: "BaseHTTPResponse", offset: int) -> bool:
    return response.headers.get("content-range", "").startswith(f"bytes {offset}-")


def _join(url: str, final: str | None) -> str:
    from urllib.parse import urljoin

    return urljoin(without_credentials(url), final or "")


def _pause(failures: int) -> float:
    return min(0.2 * 2.0**failures, 5.0) * random.uniform(0.75, 1.25)  # noqa: S311 - only spreads retries


def _retry_after(response: "BaseHTTPResponse") -> float:
    """Return the seconds that the Retry-After header asks for (RFC 9110: a number or a date)."""
    from email.utils import parsedate_to_datetime

    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value[:6])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _translated(problem: Exception, url: str) -> Exception:
    """Turn urllib3's exception into _TemporaryError or FetchError; its text, which may hold the URL, is not used."""
    import urllib3.exceptions as errors

    if isinstance(problem, errors.MaxRetryError) and problem.reason is not None:
        problem = problem.reason
    match problem:
        case errors.ProxyError():
            return _TemporaryError("the proxy could not be reached", unreachable=True)
        case errors.NameResolutionError():
            return _TemporaryError("the host name could not be resolved", unreachable=True)
        case errors.NewConnectionError():
            return _TemporaryError("nobody accepts connections there", unreachable=True)
        case errors.ConnectTimeoutError():
            return _TemporaryError("no connection within the time limit", unreachable=True)
        case errors.SSLError():
            return FetchError(
                f"{redact(url)}: the server's certificate is not trusted: {_tls_reason(problem)}",
                hint="name your organisation's CA bundle in SSL_CERT_FILE",
            )
        case errors.ReadTimeoutError():
            return _TemporaryError("the server stopped answering")
        case errors.ResponseError():
            return FetchError(f"{redact(url)}: too many redirects")
        case errors.LocationValueError() | errors.DecodeError():
            return FetchError(f"{redact(url)}: not a usable answer or address ({type(problem).__name__})")
    return _TemporaryError("the connection broke")


def _tls_reason(problem: Exception) -> str:
    import ssl

    cause = problem.args[0] if problem.args else problem
    return cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else type(cause).__name__


def _proxy_for(parts: SplitResult) -> str:
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    proxies = getproxies_environment()
    if proxy_bypass_environment(parts.netloc.rpartition("@")[2], proxies):
        return ""
    proxy: str = proxies.get(parts.scheme) or proxies.get("all") or ""
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def ca_bundle() -> str:
    """Return the CA bundle (file or folder) that the environment names, '' for the system's own."""
    return next((os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), "")


def _make_pool(proxy: str) -> "PoolManager":
    import urllib3
    from urllib3.util.ssl_ import create_urllib3_context

    bundle = ca_bundle() or _pip_bundle()
    if bundle and not Path(bundle).exists():
        raise FetchError(f"CA bundle not found: {bundle}", hint=f"correct {', '.join(_CA_VARIABLES)}")
    context = create_urllib3_context()  # one for all connections: reading the bundle takes as long as a handshake
    if bundle:
        folder = Path(bundle).is_dir()
        context.load_verify_locations(cafile=None if folder else bundle, capath=bundle if folder else None)
    else:
        context.load_default_certs()
    if not proxy:
        return urllib3.PoolManager(maxsize=16, ssl_context=context)
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https"):
        raise FetchError(f"{redact(proxy)}: not an http proxy", hint="SOCKS proxies are not supported")
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
    plain = without_credentials(proxy)
    return urllib3.ProxyManager(plain, maxsize=16, proxy_headers=headers, ssl_context=context)


def _pip_bundle() -> str:
    """Return pip's CA bundle when the system has none (a Debian without ca-certificates), else ''."""
    import ssl

    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())):
        return ""
    from pip._vendor import certifi

    return str(certifi.where())


def _read_netrc() -> Callable[[str], tuple[str, str] | None]:
    import netrc

    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        entries = netrc.netrc(str(path))
    except (OSError, netrc.NetrcParseError, RuntimeError):
        return lambda _host: None

    def look_up(host: str) -> tuple[str, str] | None:
        found = entries.authenticators(host)
        return (found[0], found[2] or "") if found else None

    return look_up
