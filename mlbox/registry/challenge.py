"""What a registry says with 401: the WWW-Authenticate header (RFC 9110, section 11.6.1)."""

import re
from collections.abc import Iterable

import msgspec

_LONGEST = 1 << 13
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SEPARATORS = re.compile(r"[ \t,]*")
_SCHEME = re.compile(rf"({_WORD})(?=[ \t,]|$)")
# A URL that should have been quoted is understood too.
_PARAMETER = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s",=][^\s",]*))(?=[ \t,]|$)')
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """One way to prove who one is; the scheme and the names of the parameters are in lower case."""

    scheme: str
    parameters: dict[str, str] = {}


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """Return the challenges of all WWW-Authenticate headers, in order; what comes after nonsense is left out."""
    return tuple(challenge for value in values for challenge in _parse(value[:_LONGEST]))


def _parse(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = _skip(text, 0)
    while scheme := _SCHEME.match(text, at):
        parameters: dict[str, str] = {}
        at = _skip(text, scheme.end())
        while parameter := _PARAMETER.match(text, at):
            name, quoted, plain = parameter.groups()
            parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if plain is None else plain)
            at = _skip(text, parameter.end())
        if not parameters and "," not in text[scheme.end() : at] and (token := _TOKEN68.match(text, at)):
            at = _skip(text, token.end())
        found.append(Challenge(scheme=scheme[1].lower(), parameters=parameters))
    return found


def _skip(text: str, at: int) -> int:
    separators = _SEPARATORS.match(text, at)
    return separators.end() if separators else at
