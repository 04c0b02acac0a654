"""Blobs from a registry into files: resumed, verified, and nothing kept that is not what was asked for."""

from pathlib import Path
from typing import TYPE_CHECKING

from mlbox.events import Listener
from mlbox.files import disk_errors
from mlbox.http.part import Advice, Part
from mlbox.oci.digest import digest_of, hex_of
from mlbox.oci.image import Descriptor
from mlbox.registry.endpoint import Endpoint, Request

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_DAMAGED = (
    "the registry's storage is damaged or somebody changed the blob: push the image again, or pull from another place"
)
LOST = "the registry lost what its manifest names: push the image again, or pull from another place"
_ADVICE = Advice(replaced=_DAMAGED, resized=_DAMAGED, work="pull")


def download(
    endpoint: Endpoint, repository: str, descriptor: Descriptor, target: Path, *, listener: Listener, name: str
) -> int:
    """Make `target` the blob: what an earlier call left there is completed, size and sha256 are verified.

    After a RegistryError a part may be there that the next call completes, never a whole blob of wrong bytes. Returns
    the bytes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    what = name or f"blob {descriptor.digest}"
    try:
        with disk_errors(f"downloading {what}"), target.open("a+b") as file:
            part = Part(file, what, hex_of(descriptor.digest), descriptor.size, listener, _ADVICE)
            if descriptor.size:
                _complete(endpoint, repository, descriptor, part)
            else:
                part.restart()
                if descriptor.digest != digest_of(b""):
                    endpoint.fail(what, "a blob of 0 bytes with another digest than nothing has")
    except BaseException:
        if target.exists() and not target.stat().st_size:
            target.unlink()
        raise
    return descriptor.size


def _complete(endpoint: Endpoint, repository: str, descriptor: Descriptor, part: Part) -> None:
    with endpoint.errors():
        url = endpoint.url(repository, f"blobs/{descriptor.digest}")
        scope = endpoint.scope(repository)

        def receive(response: "BaseHTTPResponse", found: str) -> None:
            part.check_range(response)
            part.receive(response, found)

        def once() -> None:
            if not part.whole:
                request = Request(
                    what=part.what,
                    url=url,
                    scope=scope,
                    headers=part.headers(),
                    ok=frozenset({200, 206, 416}),
                    missing=LOST,
                )
                endpoint.once(request, receive)

        part.complete(url, lambda: endpoint.retrying(url, once, progress=lambda: part.received))
