"""One request and its tries: what may pass with time is tried again, what will not is said."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from mlbox import __version__
from mlbox.errors import FetchError
from mlbox.http.pool import Tls, make_pool, proxy_for
from mlbox.http.url import is_offline, redact, without_credentials

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager
    from urllib3.util import Timeout

T = TypeVar("T")

CHUNK = 1 << 18
RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
PROXY_HINTS = {
    "403": "it does not let you there: NO_PROXY names hosts that are reached without it",
    "407": "it wants a user and a password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
}
"""What mends a refusal of a proxy, by status."""
_REFUSED = re.compile(r"Tunnel connection failed: (40[37])")  # http.client's words
_ABOUT_OURS = re.compile("CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED")
_OFFLINE_HINT = "MLBOX_OFFLINE is set: unset it, or fetch the file once while online"


class HttpError(FetchError):
    """The server answered, but not with the document; `status` is its status code."""

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


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


class Hints(NamedTuple):
    """What the user can do when a server cannot be reached, keeps failing, is not trusted, or does not trust us."""

    unreachable: str = (
        "is this machine online? a proxy is taken from HTTPS_PROXY, a mirror from your pip, uv or apt configuration"
    )
    failing: str = "try again later, or configure another mirror"
    untrusted: str = "name your organisation's CA bundle in SSL_CERT_FILE"
    plain: str = "is it an http address?"
    unknown: str = "ask who runs the server: mlbox shows certificates to registries only"


class Body(Protocol):
    """What is sent with a request, a piece at a time; its length stands in the request's Content-Length."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next piece, none at the end."""


class TemporaryError(Exception):
    """Worth another try; `after` is the pause the server asked for, in seconds, `status` its answer's, else 0."""

    def __init__(self, reason: str, *, after: float = 0.0, unreachable: bool = False, status: int = 0) -> None:
        super().__init__(reason)
        self.after = after
        self.status = status
        self.unreachable = unreachable


class Transport:
    """Connections to any number of servers under one TLS configuration; safe to use from many threads.

    Proxies come from the environment, the CA bundle from SSL_CERT_FILE, REQUESTS_CA_BUNDLE or PIP_CERT.
    """

    def __init__(
        self,
        *,
        limits: Limits = LIMITS,
        sleep: Callable[[float], None] = time.sleep,
        tls: Tls | None = None,
        hints: Hints | None = None,
    ) -> None:
        self.limits = limits
        self._sleep = sleep
        self._tls = tls or Tls()
        self._hints = hints or Hints()
        self._pools: dict[str, PoolManager] = {}
        self._lock = threading.Lock()

    def warm_up(self, url: str) -> None:
        """Get ready to ask `url`, without asking: worth a tenth of a second while something else is waited for."""
        if urlsplit(url).scheme in ("http", "https"):
            with suppress(FetchError):
                self._pool(urlsplit(url))

    def retrying(self, url: str, action: Callable[[], T], *, progress: Callable[[], int] = lambda: 0) -> T:
        """Call `action` until it succeeds, fails for good, or the limits say that it never will.

        It says by TemporaryError that another try may help; `progress` (bytes so far) tells a slow success from none.
        """
        if is_offline():
            raise FetchError(f"{redact(url)}: not fetched, mlbox is offline", hint=_OFFLINE_HINT)
        started, failures, seen = time.monotonic(), 0, progress()
        for tries in range(1, self.limits.most + 1):
            try:
                return action()
            except TemporaryError as problem:
                failures = 1 if progress() > seen else failures + 1
                seen = progress()
                elapsed = time.monotonic() - started
                hopeless = problem.unreachable and elapsed > self.limits.unreachable / 2
                if hopeless or failures >= self.limits.attempts or tries == self.limits.most:
                    hint = self._hints.unreachable if problem.unreachable else self._hints.failing
                    raise FetchError(f"{redact(url)}: {problem} (tried {tries} times)", hint=hint) from problem
                self._sleep(max(min(problem.after, self.limits.wait), _pause(failures)))
        raise AssertionError("the loop returns or raises")

    @contextmanager
    def open(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        body: bytes | Body | None = None,
        redirects: int = 8,
        patience: float = 0.0,
    ) -> Iterator["BaseHTTPResponse"]:
        """Send one request and yield the answer, whatever its status; its content is read with `chunks`.

        What may pass with time comes out as TemporaryError, also while the answer is read. At most `redirects` are
        followed, without Authorization to another host; with 0 they are answers like others. `patience` is how many
        seconds the server may think, if that is more than usual.
        """
        import urllib3.exceptions as errors
        from urllib3.util import Retry

        once = Retry(
            total=None, connect=0, read=0, status=0, other=0, redirect=redirects, respect_retry_after_header=False
        )
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FetchError(f"{redact(url)}: not an http, https or file address")
        try:
            response = self._pool(parts).request(
                method,
                without_credentials(url),
                headers={"User-Agent": f"mlbox/{__version__}", "Accept-Encoding": "identity", **headers},
                body=cast("IO[bytes] | bytes | None", body),
                redirect=redirects > 0,
                preload_content=False,
                decode_content=False,
                retries=once,
                timeout=self._timeout(body is not None, patience),
            )
            try:
                yield response
            except BaseException:
                response.close()  # half-read connections are not reused
                raise
            else:
                _finish(response)
        except errors.HTTPError as problem:
            raise self._translated(problem, url) from problem

    def _timeout(self, sends: bool, patience: float) -> "Timeout":
        from urllib3.util import Timeout

        read = max(self.limits.read, patience)
        # urllib3 sends bodies under the time limit for connecting
        return Timeout(connect=max(self.limits.connect, self.limits.read) if sends else self.limits.connect, read=read)

    def _pool(self, parts: SplitResult) -> "PoolManager":
        proxy = proxy_for(parts)
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = make_pool(proxy, self._tls)
            return self._pools[proxy]

    def _translated(self, problem: Exception, url: str) -> Exception:
        """Turn urllib3's exception into ours; its text, which may hold the URL, is not used."""
        import urllib3.exceptions as errors

        if isinstance(problem, errors.MaxRetryError) and problem.reason is not None:
            problem = problem.reason
        match problem:
            case errors.ProxyError() if refused := _REFUSED.search(str(problem.original_error)):
                return FetchError(f"{redact(url)}: the proxy answered {refused[1]}", hint=PROXY_HINTS.get(refused[1]))
            case errors.ProxyError():
                return TemporaryError("the proxy could not be reached", unreachable=True)
            case errors.NameResolutionError() if _is_unknown(problem.__cause__):
                reason = "the host name could not be resolved"
                return FetchError(f"{redact(url)}: {reason}", hint=self._hints.unreachable)
            case errors.NameResolutionError():
                return TemporaryError("the host name could not be resolved", unreachable=True)
            case errors.NewConnectionError():
                return TemporaryError("nobody accepts connections there", unreachable=True)
            case errors.ConnectTimeoutError():
                return TemporaryError("no connection within the time limit", unreachable=True)
            case errors.SSLError():
                reason, hint = _tls_problem(problem, self._hints)
                return FetchError(f"{redact(url)}: {reason}", hint=hint)
            case errors.ReadTimeoutError():
                return TemporaryError("the server stopped answering")
            case errors.ResponseError():
                return FetchError(f"{redact(url)}: too many redirects")
            case errors.LocationValueError() | errors.DecodeError():
                return FetchError(f"{redact(url)}: not a usable answer or address ({type(problem).__name__})")
        return TemporaryError("the connection broke")


def chunks(response: "BaseHTTPResponse", *, decoded: bool = False) -> Iterator[bytes]:
    """Yield the content of an answer, unpacked when `decoded`."""
    while chunk := response.read(CHUNK, decode_content=decoded):
        yield chunk


def _finish(response: "BaseHTTPResponse") -> None:
    """Make the connection ready for another request, unless more is left to read than that is worth."""
    import urllib3.exceptions as errors

    try:
        if len(response.read(CHUNK, decode_content=False)) < CHUNK:
            response.release_conn()
            return
    except errors.HTTPError:
        pass
    response.close()


def retry_after(response: "BaseHTTPResponse") -> float:
    """Return the seconds that the Retry-After header asks for (RFC 9110: a number or a date)."""
    from email.utils import parsedate_to_datetime

    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value[:6])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _pause(failures: int) -> float:
    return min(0.2 * 2.0**failures, 5.0) * random.uniform(0.75, 1.25)  # noqa: S311 - only spreads retries


def _is_unknown(problem: BaseException | None) -> bool:
    """Whether a name server said that there is no such host, which no further try will change."""
    import socket

    return isinstance(problem, socket.gaierror) and problem.errno == socket.EAI_NONAME


def _tls_problem(problem: Exception, hints: Hints) -> tuple[str, str]:
    """Return what is wrong and what mends it."""
    import ssl

    cause = problem.args[0] if problem.args else problem
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {cause.verify_message}", hints.untrusted
    reason = cause.reason or "" if isinstance(cause, ssl.SSLError) else ""
    if reason == "WRONG_VERSION_NUMBER":
        return "the server does not speak TLS", hints.plain
    if "ALERT" in reason and _ABOUT_OURS.search(reason):  # what it was sent by the server
        return f"the server wants a certificate of ours, one that it knows ({reason})", hints.unknown
    return f"no TLS connection: {reason or type(cause).__name__}", hints.untrusted
