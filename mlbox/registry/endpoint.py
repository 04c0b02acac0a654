"""One server that holds repositories: requests with the right Authorization, redirects, tries, and errors in words."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import urlsplit

import msgspec

from mlbox.errors import FetchError, RegistryError
from mlbox.http.pool import Tls
from mlbox.http.transport import RETRIED_STATUS, Body, Hints, Limits, TemporaryError, Transport, chunks, retry_after
from mlbox.http.url import host_of, join, redact, redact_text
from mlbox.registry.auth import Authorizer, Look, Scope
from mlbox.registry.challenge import Challenge, parse_challenges
from mlbox.registry.hosts import Site
from mlbox.registry.problem import AT_FAULT, clean, hints, reason_of, refusal

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

T = TypeVar("T")

LIMITS = Limits(read=60.0)
_TRIES = 3  # without a token, with one, with a fresh one
_REDIRECTS = 8
_HINTS = Hints(
    unreachable="is the host right, and this machine online? a proxy is taken from HTTPS_PROXY, mirrors and plain http "
    "are set in registries.toml",
    failing="try again later",
    untrusted="name your organisation's CA as 'ca' of this host in registries.toml, or in SSL_CERT_FILE",
    plain="if that is meant, say 'insecure = true' of this host in registries.toml",
    unknown="name it as 'cert' of this host in registries.toml, and its 'key'",
)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One thing asked of a registry; `what` names it in messages."""

    what: str
    url: str
    scope: Scope
    method: str = "GET"
    headers: Mapping[str, str] = {}
    body: Callable[[], bytes | Body] | None = None
    """Makes the content anew for each try; its length stands in the headers."""
    ok: frozenset[int] = frozenset({200})
    """The statuses that are an answer; others become errors."""
    missing: str = ""
    """What mends a 404, when the name cannot be wrong."""
    patience: float = 0.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A small document from a registry; the names of headers are in lower case."""

    status: int
    url: str
    headers: dict[str, str]
    data: bytes


class Endpoint:
    """One registry or mirror; safe to use from many threads."""

    def __init__(
        self,
        site: Site,
        look_up: Look,
        *,
        limits: Limits = LIMITS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.site = site
        self._open_transport = partial(Transport, limits=limits, sleep=sleep, hints=_HINTS)
        self._transport = self._open_transport(tls=site.tls)
        self._others: dict[Tls, Transport] = {}
        self._authorizer = Authorizer(site, look_up, self._transport_to, clock=clock)
        self._lock = threading.Lock()
        self._base = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.site.name

    def url(self, repository: str, rest: str) -> str:
        """Return the address of `rest` (as in 'manifests/latest') of a repository."""
        prefix = f"{self.site.prefix}/" if self.site.prefix else ""
        return f"{self.base()}/v2/{prefix}{repository}/{rest}"

    def scope(self, repository: str, actions: str = "pull", source: str = "") -> Scope:
        """Return what doing `actions` in `repository` needs, in the registry's own names."""
        prefix = f"{self.site.prefix}/" if self.site.prefix else ""
        return Scope(repository=prefix + repository, actions=actions, source=prefix + source if source else "")

    def base(self) -> str:
        """Return scheme and host, after asking the server once whether it is there and what it wants to know."""
        with self._lock:
            if not self._base:
                base, challenges = self._found()
                if challenges:
                    with self.errors():
                        self._authorizer.learn(challenges, Scope(), "", base)
                self._base = base
            return self._base

    def check_login(self) -> bool:
        """Ask for what only a login gets; raises RegistryError when the registry does not accept it.

        Returns whether the registry wanted to see it.
        """
        base = self.base()
        self.ask(Request(what="login", url=f"{base}/v2/", scope=Scope()), limit=1 << 16)
        with self.errors():
            return bool(self._authorizer.header(Scope()))

    def ask(self, request: Request, *, limit: int) -> Answer:
        """Return the answer with its content; more than `limit` bytes is an error."""
        return self.retrying(
            request.url, lambda: self.once(request, lambda *found: self._document(request, limit, *found))
        )

    def retrying(self, url: str, action: Callable[[], T], *, progress: Callable[[], int] = lambda: 0) -> T:
        """Call `action` as long as TemporaryError says that another try may help; other failures are RegistryErrors."""
        with self.errors():
            return self._transport.retrying(url, action, progress=progress)

    def once(self, request: Request, use: Callable[["BaseHTTPResponse", str], T]) -> T:
        """Send `request` once, but for what proving oneself takes; return what `use` makes of the answer.

        `use` gets the answer and its address, which redirects may have changed.
        """
        for _ in range(_TRIES):
            sent = self._authorizer.header(request.scope)
            with self._following(request, sent) as (response, url, own):
                if response.status != 401 or not own:
                    return self._judged(request, response, url, use, own=own)
                challenges = parse_challenges(response.headers.getlist("www-authenticate"))
                problem = self._refusal(request, response)
            if not self._authorizer.learn(challenges, request.scope, sent, _origin(url)):
                break
        raise problem

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn every failure inside into a RegistryError without a secret."""
        try:
            yield
        except FetchError as problem:
            status = getattr(problem.__cause__, "status", 0)
            message = self._authorizer.scrub(problem.message)
            hint = hints(self.name, known=False)[429] if status == 429 else problem.hint
            raise RegistryError(message, status=status, hint=hint) from None
        except RegistryError as problem:
            problem.message = self._authorizer.scrub(problem.message)
            problem.args = (problem.message,)
            raise

    def fail(self, what: str, reason: str, *, hint: str = AT_FAULT) -> NoReturn:
        """Raise the error about `what` of this registry."""
        raise RegistryError(f"{self.name}: {what}: {reason}", hint=hint)

    def location(self, url: str, target: str, what: str) -> str:
        """Return the address that the server at `url` sends us on to, if it may be used."""
        try:
            found = join(url, target)
            parts, base = urlsplit(found), urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            self.fail(what, f"the registry sends us to a strange address: {clean(redact_text(target))[:200]!r}")
        if parts.scheme == "http" and base.scheme == "https" and parts.hostname == base.hostname:
            # the registry does not know that a proxy in front of it speaks TLS
            parts = parts._replace(scheme="https", netloc=base.netloc)
        if base.scheme == "https" and parts.scheme != "https":
            self.fail(what, f"the registry sends us from https to plain http: {redact(host_of(parts))}")
        return parts.geturl()

    def _found(self) -> tuple[str, tuple[Challenge, ...]]:
        """Return the base and what it wants to know.

        On this machine, where nobody listens in, plain http is tried before https.
        """
        schemes = self.site.schemes
        if len(schemes) > 1:
            try:
                return self._ping(schemes[0])
            except TemporaryError as problem:
                if problem.status or problem.unreachable:
                    schemes = schemes[:1]
            except (RegistryError, FetchError):
                pass
        scheme = schemes[-1]
        return self.retrying(f"{scheme}://{self.site.host}", lambda: self._ping(scheme))

    def _ping(self, scheme: str) -> tuple[str, tuple[Challenge, ...]]:
        """Return the base and what it wants to know when a registry answers there."""
        url = f"{scheme}://{self.site.host}"
        with self._transport.open(f"{url}/v2/", {}, redirects=0) as response:
            if response.status in RETRIED_STATUS:
                raise TemporaryError(
                    f"the registry answered {response.status}", after=retry_after(response), status=response.status
                )
            if scheme == "http" and response.status in (301, 302, 307, 308, 400):
                raise RegistryError(
                    f"{self.name}: it does not answer to plain http (status {response.status})",
                    status=response.status,
                    hint="leave 'insecure' out of registries.toml",
                )
            asks = response.headers.getlist("www-authenticate") if response.status == 401 else []
        return url, parse_challenges(asks)

    @contextmanager
    def _following(self, request: Request, sent: str) -> Iterator[tuple["BaseHTTPResponse", str, bool]]:
        """Yield the answer, its address, and whether it is the registry's own: others never see the Authorization."""
        url, own = request.url, True
        for _ in range(_REDIRECTS):
            own = own and _origin(url) == _origin(self.base())
            headers = {**request.headers, "Authorization": sent} if own and sent else dict(request.headers)
            transport = self._transport if own else self._transport_to(url)
            body = request.body() if request.body else None
            with transport.open(
                url, headers, method=request.method, body=body, redirects=0, patience=request.patience
            ) as response:
                target = self._redirect(request, response)
                if not target:
                    yield response, url, own
                    return
            url = self.location(url, target, request.what)
        self.fail(request.what, "too many redirects")

    def _transport_to(self, url: str) -> Transport:
        """Return what to speak with: our certificates are for the registry's own host only."""
        parts = urlsplit(url)
        if parts.hostname == urlsplit(f"//{self.site.host}").hostname:
            return self._transport
        host = parts.netloc.rpartition("@")[2].lower()
        tls = self.site.elsewhere.get(host, Tls())
        if tls not in self._others:
            self._others[tls] = self._open_transport(tls=tls)
        return self._others[tls]

    def _redirect(self, request: Request, response: "BaseHTTPResponse") -> str:
        reads = request.method in ("GET", "HEAD")
        if response.status not in ((301, 302, 303, 307, 308) if reads else (307, 308)):
            return ""
        return response.headers.get("location", "")

    def _judged(
        self,
        request: Request,
        response: "BaseHTTPResponse",
        url: str,
        use: Callable[["BaseHTTPResponse", str], T],
        *,
        own: bool,
    ) -> T:
        if response.status in request.ok:
            return use(response, url)
        if response.status in RETRIED_STATUS:
            raise TemporaryError(
                self._authorizer.scrub(reason_of(response)), after=retry_after(response), status=response.status
            )
        if not own:
            reason = f"the storage behind the registry, {_origin(url)}, answered {response.status}"
            raise RegistryError(f"{self.name}: {request.what}: {reason}", status=response.status, hint=AT_FAULT)
        raise self._refusal(request, response)

    def _refusal(self, request: Request, response: "BaseHTTPResponse") -> RegistryError:
        known = self._authorizer.is_known(request.scope)
        problem = refusal(self.name, request.what, response, known=known, reason=reason_of(response))
        if problem.status == 404 and request.missing:
            problem.hint = request.missing
        return problem

    def _document(self, request: Request, limit: int, response: "BaseHTTPResponse", url: str) -> Answer:
        data = bytearray()
        for chunk in chunks(response):
            data += chunk
            if len(data) > limit:
                self.fail(request.what, f"more than {limit} bytes", hint="this is not what mlbox expects there")
        headers = {key.lower(): value for key, value in response.headers.items()}
        return Answer(status=response.status, url=url, headers=headers, data=bytes(data))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return host_of(parts).removesuffix(f":{default}")
