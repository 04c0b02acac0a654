"""Packages that a project pins to one index, which uv's sources, Poetry and pipenv can say."""

from collections.abc import Iterable

from mlbox.errors import ResolveError
from mlbox.http import Http, redact
from mlbox.lock.model import Target
from mlbox.lock.python.model import Indexes, Page
from mlbox.project.model import IndexPin


def pinned_pages(
    pins: Iterable[IndexPin], indexes: Indexes, target: Target, http: Http
) -> tuple[tuple[str, Page], ...]:
    """Return what the index of each pin that holds for `target` has of its package; the first pin counts."""
    from mlbox.lock.python.torch import page_of

    names = {index.url: index for index in indexes.pinned}
    found: dict[str, tuple[str, Page]] = {}
    for pin in pins:
        index = names.get(pin.url.rstrip("/"))
        if index is None or pin.package in found or not _holds(pin, target):
            continue
        page = page_of(index, pin.package, http)
        if not page.html:
            raise ResolveError(
                f"{pin.package} is to come from index {pin.index!r}, which does not have it: {redact(index.url)}",
                hint="correct the index, or take the pin away",
            )
        found[pin.package] = (index.name, page)
    return tuple(found.values())


def _holds(pin: IndexPin, target: Target) -> bool:
    if not pin.marker:
        return True
    from packaging.markers import Marker

    from mlbox.lock.python.target import marker_environment

    return Marker(pin.marker).evaluate({**marker_environment(target), "extra": ""})
