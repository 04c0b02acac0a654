"""Reading from indexes and mirrors: whole documents, and files with a known hash from the first place that has them."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from mlbox.errors import FetchError
from mlbox.events import SILENT, Listener
from mlbox.files import disk_errors
from mlbox.http.part import Part
from mlbox.http.transport import (
    CHUNK,
    LIMITS,
    RETRIED_STATUS,
    HttpError,
    Limits,
    TemporaryError,
    Transport,
    chunks,
    retry_after,
)
from mlbox.http.url import file_path, host_of, join, redact

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

B = TypeVar("B", bytes, bytearray)


class Answer(NamedTuple):
    """A whole document; `url` is where redirects led, headers have lower-case names."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Http:
    """One pool of connections; safe to use from many threads.

    Proxies come from the environment, the CA bundle from SSL_CERT_FILE, REQUESTS_CA_BUNDLE or PIP_CERT,
    passwords from the URL or ~/.netrc.
    """

    def __init__(self, *, limits: Limits = LIMITS, sleep: Callable[[float], None] = time.sleep) -> None:
        self._transport = Transport(limits=limits, sleep=sleep)
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
        return self._transport.retrying(url, lambda: self._fetch_once(url, limit, headers or {}))

    def size_of(self, url: str) -> int:
        """Return the size of the file at `url`, 0 when the server does not say or cannot be asked."""
        if (path := file_path(url)) is not None:
            return path.stat().st_size if path.is_file() else 0
        try:
            return self._transport.retrying(url, lambda: self._size_once(url))
        except FetchError:
            return 0

    def warm_up(self, url: str) -> None:
        """Get ready to ask `url`, without asking: worth a tenth of a second while something else is waited for."""
        self._transport.warm_up(url)

    def learn(self, url: str) -> None:
        """Remember the user and password in `url` for other addresses of the same host, which come without."""
        parts = urlsplit(url)
        if parts.username:
            with self._lock:
                self._logins[host_of(parts)] = (unquote(parts.username), unquote(parts.password or ""))

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

        Where nothing better is known, `sha256` may be an md5, of 32 digits.

        Nobody else may write `target` meanwhile. What an earlier call left there is completed; after a FetchError,
        which names the file (`name`, else the target's) and what went wrong at each URL, a part may be there.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with disk_errors(f"downloading {name or target.name}"), target.open("a+b") as file:
            self._download_any(urls, Part(file, name or target.name, sha256, size, listener))

    def _download_any(self, urls: Iterable[str], part: Part) -> None:
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
        message = f"{part.what}: every place it could come from failed:{text}"
        if all(isinstance(problem, HttpError) and problem.status == 404 for problem in problems):
            raise HttpError(message, status=404, hint=problems[-1].hint)
        raise FetchError(message, hint=problems[-1].hint)

    def _download_one(self, url: str, part: Part) -> None:
        part.complete(url, lambda: self._transfer(url, part))

    def _transfer(self, url: str, part: Part) -> None:
        if (path := file_path(url)) is not None:
            part.restart()
            with _reading_local(path) as source:
                while chunk := source.read(CHUNK):
                    part.write(chunk, url)
            return
        self._transport.retrying(url, lambda: self._transfer_once(url, part), progress=lambda: part.received)

    def _transfer_once(self, url: str, part: Part) -> None:
        if part.whole:
            return
        with self._open(url, part.headers()) as response:
            part.check_range(response)
            self._check(response, url)
            part.receive(response, url)

    def _fetch_once(self, url: str, limit: int, headers: Mapping[str, str]) -> Answer:
        with self._open(url, {"Accept-Encoding": "gzip", **headers}) as response:
            self._check(response, url)
            body = bytearray()
            for chunk in chunks(response, decoded=True):
                body += chunk
                _bounded(body, limit, url)
            found = {key.lower(): value for key, value in response.headers.items()}
            return Answer(join(url, response.geturl()), found, bytes(body))

    def _size_once(self, url: str) -> int:
        with self._open(url, {}, method="HEAD") as response:
            self._check(response, url)
            length = response.headers.get("content-length", "")
            return int(length) if length.isdecimal() else 0

    @contextmanager
    def _open(self, url: str, headers: Mapping[str, str], *, method: str = "GET") -> Iterator["BaseHTTPResponse"]:
        authorization = self._authorization(urlsplit(url))
        with self._transport.open(url, {**headers, **authorization}, method=method) as response:
            yield response

    def _check(self, response: "BaseHTTPResponse", url: str) -> None:
        status = response.status
        if status in (200, 206):
            return
        if status in RETRIED_STATUS:
            raise TemporaryError(f"the server answered {status}", after=retry_after(response))
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
        elif (learned := self._logins.get(host_of(parts))) is not None:
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


@contextmanager
def _reading_local(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as problem:
        raise HttpError(f"{path}: {problem.strerror}", status=404) from problem
    except (IsADirectoryError, NotADirectoryError, PermissionError) as problem:
        raise FetchError(f"{path}: {problem.strerror}") from problem


def _bounded(body: B, limit: int, url: str) -> B:
    if len(body) > limit:
        raise FetchError(f"{redact(url)}: more than {limit} bytes", hint="this is not what mlbox expects there")
    return body


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
