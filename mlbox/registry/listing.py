"""Lists that come in pages: each page links to the next (RFC 8288)."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from mlbox.registry.endpoint import Answer, Endpoint, Request

_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_NEXT = re.compile(r';\s*rel\s*=\s*"?\s*next\s*"?(?=\s*(?:[;,]|$))', re.IGNORECASE)
_PAGE = 4 << 20
_MOST_PAGES = 10_000


def pages(endpoint: Endpoint, request: Request) -> Iterator[Answer]:
    """Yield the page that `request` asks for and all that follow; each is asked for when it is wanted."""
    seen = set()
    for _ in range(_MOST_PAGES):
        seen.add(request.url)
        answer = endpoint.ask(request, limit=_PAGE)
        yield answer
        target = next_page(answer.headers.get("link", ""))
        if target is None:
            return
        following = endpoint.location(answer.url, target, request.what)
        if urlsplit(following)[:2] != urlsplit(request.url)[:2]:
            endpoint.fail(request.what, "the list goes on at another host")
        if following in seen:
            endpoint.fail(request.what, "the list has no end: a page links back")
        request = msgspec.structs.replace(request, url=following)
    endpoint.fail(request.what, f"the list has more than {_MOST_PAGES} pages")


def next_page(header: str) -> str | None:
    """Return the address, absolute or not, of the page after the one with that Link header, None after the last."""
    for link in _LINK.finditer(header[: 1 << 13]):
        if _NEXT.search(link[2]):
            return link[1]
    return None
