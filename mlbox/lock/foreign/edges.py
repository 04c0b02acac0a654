"""Who asks for whom, where a lock does not say: by the metadata that indexes offer beside wheels (PEP 658)."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec.structs import replace

from mlbox.errors import FetchError, LockError
from mlbox.http import Http, is_offline
from mlbox.lock.foreign.graph import Asked
from mlbox.lock.foreign.reading import Markers
from mlbox.lock.foreign.requires import asked_by
from mlbox.lock.model import Package, Target
from mlbox.lock.python.model import Pinned

_ASKED_AT_ONCE = 16
_LIMIT = 4 << 20


def with_edges(
    pins: Sequence[Pinned], roots: Iterable[str], target: Target, http: Http, known: Sequence[Package] = ()
) -> tuple[Pinned, ...]:
    """Return `pins` with what each asks for, as far as that can be had; it explains a lock and decides nothing.

    What `known` packages say of the same files counts where the index does not answer. `roots` are the project's own
    requirements.
    """
    before = {package.sha256: package.requires for package in known if package.sha256}
    with ThreadPoolExecutor(max_workers=_ASKED_AT_ONCE) as pool:
        answers = zip([pin.name for pin in pins], pool.map(lambda pin: _lines(pin, http), pins), strict=True)
        lines = {name: found for name, found in answers if found is not None}
    markers = Markers(target)
    names = {pin.name for pin in pins}
    extras: dict[str, set[str]] = {}
    for one in (*asked_by(roots, markers), *(one for found in lines.values() for one in _asked(found, markers, ()))):
        extras.setdefault(one.name, set()).update(one.extras)

    def needed(pin: Pinned) -> tuple[str, ...]:
        if pin.name not in lines:
            return tuple(name for name in before.get(_file(pin), ()) if name in names)
        found = {one.name for one in _asked(lines[pin.name], markers, extras.get(pin.name, ()))}
        return tuple(sorted((found & names) - {pin.name}))

    return tuple(replace(pin, requires=needed(pin)) for pin in pins)


def _file(pin: Pinned) -> str:
    return pin.files[0].sha256 if len(pin.files) == 1 else ""


def _lines(pin: Pinned, http: Http) -> tuple[str, ...] | None:
    """Return the Requires-Dist lines of the pin's wheel; None when nobody says."""
    from email.parser import BytesParser

    file = pin.files[0] if len(pin.files) == 1 else None
    if is_offline() or file is None or not (file.filename.endswith(".whl") and file.url.startswith("http")):
        return None
    try:
        data = http.get(f"{file.url}.metadata", limit=_LIMIT)
    except FetchError:
        return None
    return tuple(BytesParser().parsebytes(data, headersonly=True).get_all("Requires-Dist", ()))


def _asked(lines: Iterable[str], markers: Markers, extras: Iterable[str]) -> list[Asked]:
    from packaging.requirements import Requirement

    found: list[Asked] = []
    for line in lines:
        try:
            (one,) = asked_by([line])
            marker = str(Requirement(line).marker or "")
            if markers.hold(marker, frozenset(extras)):
                found.append(one)
        except LockError:  # metadata of old that no tool could follow either
            continue
    return found
