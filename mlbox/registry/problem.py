"""What a registry's refusal means, in few words, with what mends it."""

import re
from typing import TYPE_CHECKING

import msgspec

from mlbox.errors import RegistryError
from mlbox.http.transport import PROXY_HINTS

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

AT_FAULT = "the registry, or a proxy before it, does not keep to the distribution-spec: tell who runs it"
AGAIN = "whoever made or pushed it made a mistake: have it pushed again"

_MOST = 1 << 16
_SHOWN = 300
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    code: str = ""
    message: str | None = ""


class _Problems(msgspec.Struct, frozen=True, kw_only=True):
    errors: tuple[_Problem, ...] = ()


def clean(text: str) -> str:
    """Return a server's words fit for a terminal: one short line without control characters."""
    return _UNPRINTABLE.sub(" ", text).strip()[:_SHOWN]


def reason_of(response: "BaseHTTPResponse") -> str:
    """Return why the registry refused: its own words (distribution-spec, "Error Codes"), else the status."""
    words = _words(_body(response))
    return f"the registry answered {response.status}" + (f": {words}" if words else "")


def refusal(host: str, what: str, response: "BaseHTTPResponse", *, known: bool, reason: str) -> RegistryError:
    """Return the error for an answer; `known` says whether a login was used."""
    hint = hints(host, known=known).get(response.status)
    return RegistryError(f"{host}: {what}: {reason}", status=response.status, hint=hint)


def hints(host: str, *, known: bool) -> dict[int, str]:
    """Return what mends a refusal of the registry `host`, by status; `known` says whether a login was used."""
    again = "the stored login is not accepted or not enough: " if known else ""
    return {
        401: f"{again}'mlbox login {host}', then try again",
        403: f"{again}'mlbox login {host}' as somebody who may do this",
        407: PROXY_HINTS["407"],
        404: f"check the name; for what is private, 'mlbox login {host}' first",
        413: "the registry limits the size of uploads: ask who runs it",
        429: f"the registry limits how often it may be asked: wait, or 'mlbox login {host}'",
    }


def _body(response: "BaseHTTPResponse") -> bytes:
    import urllib3.exceptions as errors

    try:
        return response.read(_MOST, decode_content=False) or b""
    except errors.HTTPError:
        return b""


def _words(body: bytes) -> str:
    try:
        problems = msgspec.json.decode(body, type=_Problems).errors
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return clean("; ".join(": ".join(filter(None, (one.code, one.message))) for one in problems[:3]))
