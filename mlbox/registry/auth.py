"""Proving to a registry who one is: basic passwords, and bearer tokens bought from a token server.

A password goes to the registry it belongs to, or to the token server that this registry names over TLS (or on this
machine). It never follows a redirect to another host, and a registry spoken to in plain text cannot send it elsewhere.
"""

import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import msgspec

from mlbox.codec import decode_json
from mlbox.errors import RegistryError
from mlbox.http.transport import RETRIED_STATUS, TemporaryError, Transport, chunks, retry_after
from mlbox.http.url import host_of, http_address, is_loopback, redact, redact_text
from mlbox.registry.challenge import Challenge
from mlbox.registry.credentials import Credentials
from mlbox.registry.hosts import Site
from mlbox.registry.problem import AT_FAULT, clean

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CLIENT = "mlbox"
_LARGEST = 1 << 20
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")
_SCOPE = re.compile(r"[a-z]{1,40}(?:\([a-z]{1,40}\))?:[A-Za-z0-9*._:/-]{1,300}:[a-z*,]{1,100}")
_MOST_SCOPES = 8
_USUAL_LIFE, _LONGEST_LIFE, _MARGIN = 60.0, 3600.0, 10.0

Look = Callable[[str], Credentials | None]
"""Returns who one is to a repository of the registry, None for nobody."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


class _Token(msgspec.Struct, frozen=True, kw_only=True):
    value: str
    ends: float


class _Realm(msgspec.Struct, frozen=True, kw_only=True):
    """The token server that a registry names."""

    url: str
    service: str


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What one means to do: to a `repository`, and to read from `source` when something is mounted from there."""

    repository: str = ""
    actions: str = "pull"
    source: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """As token servers write it."""
        own = (f"repository:{self.repository}:{self.actions}",) if self.repository else ()
        return own + ((f"repository:{self.source}:pull",) if self.source else ())


class Authorizer:
    """Knows what to send to one registry; safe to use from many threads."""

    def __init__(
        self,
        site: Site,
        look_up: Look,
        transport_to: Callable[[str], Transport],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site, self._look_up, self._transport_to, self._clock = site, look_up, transport_to, clock
        self._lock = threading.RLock()
        self._realm: _Realm | None = None
        self._base = ""
        self._basic = False
        self._tokens: dict[Scope, _Token] = {}
        self._asked: dict[Scope, tuple[str, ...]] = {}
        self._secrets: set[str] = set()

    def header(self, scope: Scope) -> str:
        """Return the Authorization for `scope`, '' as long as the registry asked for none."""
        with self._lock:
            if self._realm is None and not self._basic:
                return ""
            credentials = self._credentials(scope)
            if credentials.registry_token:
                return f"Bearer {credentials.registry_token}"
            if self._realm is not None:
                return f"Bearer {self._token(self._realm, scope, credentials)}"
            return credentials.basic

    def learn(self, challenges: tuple[Challenge, ...], scope: Scope, sent: str, base: str) -> bool:
        """Take notice of a 401 from the registry at `base` to what was `sent`; return whether another try may help."""
        with self._lock:
            self._base = base
            for challenge in challenges:
                if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                    return self._learn_bearer(challenge, scope, sent)
            if any(challenge.scheme == "basic" for challenge in challenges):
                self._realm, self._basic = None, True
                basic = self._credentials(scope).basic
                return basic not in ("", sent)
            return False

    def is_known(self, scope: Scope) -> bool:
        """Whether there is a login for `scope`."""
        with self._lock:
            return self._credentials(scope) != Credentials()

    def scrub(self, text: str) -> str:
        """Return `text` without any secret that was used."""
        with self._lock:
            for secret in sorted(self._secrets, key=len, reverse=True):
                text = text.replace(secret, "***")
        return text

    def _learn_bearer(self, challenge: Challenge, scope: Scope, sent: str) -> bool:
        self._realm = _Realm(url=self._usable(challenge), service=challenge.parameters.get("service", ""))
        wanted = [word for word in challenge.parameters.get("scope", "").split() if _SCOPE.fullmatch(word)]
        self._asked[scope] = tuple(dict.fromkeys([*scope.words, *wanted]))[:_MOST_SCOPES]
        self._tokens = {key: token for key, token in self._tokens.items() if sent != f"Bearer {token.value}"}
        credentials = self._credentials(scope)
        return not credentials.registry_token or sent != f"Bearer {credentials.registry_token}"

    def _usable(self, challenge: Challenge) -> str:
        """Return the token server's address, if it is one."""
        url = challenge.parameters["realm"]
        if http_address(url):
            return url
        raise RegistryError(
            f"{self._site.name}: it names a strange token server: {clean(redact_text(url))[:200]!r}", hint=AT_FAULT
        )

    def _credentials(self, scope: Scope) -> Credentials:
        found = self._look_up(scope.repository) or Credentials()
        self._secrets.update(secret for secret in found.secrets if len(secret) > 3)
        return found

    def _token(self, realm: _Realm, scope: Scope, credentials: Credentials) -> str:
        token = self._kept(scope)
        if token is None:
            token = self._buy(realm, self._asked.get(scope, scope.words), credentials)
            self._tokens[scope] = token
            self._secrets.add(token.value)
        return token.value

    def _kept(self, scope: Scope) -> _Token | None:
        """Return a token that is still good for `scope`; one for pushing is good for pulling too."""
        more = Scope(repository=scope.repository, actions="pull,push") if scope.actions == "pull" else scope
        found = (self._tokens.get(one) for one in (scope, more))
        return next((token for token in found if token is not None and token.ends > self._clock()), None)

    def _buy(self, realm: _Realm, scopes: tuple[str, ...], credentials: Credentials) -> _Token:
        if credentials != Credentials():
            self._check_realm(realm.url)
        url, headers, form = _request(realm, scopes, credentials)
        transport = self._transport_to(url)
        anonymous = credentials == Credentials()
        started = self._clock()
        answer = transport.retrying(realm.url, lambda: self._ask(transport, url, headers, form, anonymous=anonymous))
        value = answer.token or answer.access_token
        if not _TOKEN.fullmatch(value):
            raise self._problem(realm.url, "its answer holds no usable token")
        life = _USUAL_LIFE if answer.expires_in is None else min(answer.expires_in, _LONGEST_LIFE)
        return _Token(value=value, ends=started + max(life - _MARGIN, life / 2))

    def _check_realm(self, url: str) -> None:
        """Refuse to send a password where somebody on the way may have pointed to."""
        registry, realm = urlsplit(self._base), urlsplit(url)
        if registry.scheme == "https":
            safe = realm.scheme == "https"
        elif is_loopback(registry.netloc):
            safe = realm.scheme == "https" or is_loopback(realm.netloc)
        else:
            safe = realm.hostname == registry.hostname
        if not safe:
            raise RegistryError(
                f"{self._site.name}: it wants the password sent to {redact(host_of(realm))}, which is not safe",
                hint="a registry without TLS cannot be trusted with where a password goes: use https",
            )

    def _ask(
        self, transport: Transport, url: str, headers: dict[str, str], form: bytes | None, *, anonymous: bool
    ) -> _Answer:
        method = "GET" if form is None else "POST"
        with transport.open(url, headers, method=method, body=form, redirects=0) as response:
            if response.status in RETRIED_STATUS:
                raise TemporaryError(
                    f"the token server answered {response.status}", after=retry_after(response), status=response.status
                )
            if response.status != 200:
                raise self._refused(url, response.status, anonymous=anonymous)
            return decode_json(
                self._document(url, response), _Answer, what=f"token server {redact(url)}", error=RegistryError
            )

    def _document(self, url: str, response: "BaseHTTPResponse") -> bytes:
        data = bytearray()
        for chunk in chunks(response):
            data += chunk
            if len(data) > _LARGEST:
                raise self._problem(url, f"its answer is longer than {_LARGEST} bytes")
        return bytes(data)

    def _refused(self, url: str, status: int, *, anonymous: bool) -> RegistryError:
        if status not in (400, 401, 403):
            return self._problem(url, f"it answered {status}")
        if anonymous:
            return RegistryError(
                f"{self._site.name}: a login is needed",
                status=401,
                hint=f"'mlbox login {self._site.name}', then try again",
            )
        return RegistryError(
            f"{self._site.name}: the token server does not accept this login (status {status})",
            status=401,
            hint=f"'mlbox login {self._site.name}' with the right user and password or access token",
        )

    def _problem(self, url: str, reason: str) -> RegistryError:
        return RegistryError(f"{self._site.name}: token server {redact(url)}: {reason}", hint=AT_FAULT)


def _request(
    realm: _Realm, scopes: tuple[str, ...], credentials: Credentials
) -> tuple[str, dict[str, str], bytes | None]:
    """Return address, headers and form of the request for a token."""
    service = [("service", realm.service)] if realm.service else []
    if credentials.identity_token:
        fields = [("grant_type", "refresh_token"), *service, ("client_id", _CLIENT)]
        fields += [("scope", " ".join(scopes)), ("refresh_token", credentials.identity_token)]
        return realm.url, {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(fields).encode()
    query = [*service, *(("scope", scope) for scope in scopes), ("client_id", _CLIENT)]
    headers = {}
    if credentials.basic:
        query.append(("account", credentials.username))
        headers["Authorization"] = credentials.basic
    joint = "&" if urlsplit(realm.url).query else "?"
    return f"{realm.url.partition('#')[0]}{joint}{urlencode(query)}", headers, None
