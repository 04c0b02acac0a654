"""Blobs from files into a registry: in one piece or in chunks, resumed where the registry says it stands."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urlsplit

from mlbox.errors import RegistryError
from mlbox.events import Listener
from mlbox.http.transport import TemporaryError
from mlbox.oci.digest import Digest
from mlbox.oci.image import Descriptor
from mlbox.registry.endpoint import Answer, Endpoint, Request
from mlbox.registry.problem import AT_FAULT

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

CHUNK = 1 << 26
"""Bytes sent in one request, unless the registry asks for more: proxies in front of registries limit it to 100 MB."""
PATIENCE = 300.0
"""Seconds a registry may take to put a blob where it belongs."""

_ANSWER = 1 << 16
_NO_CHUNKS = frozenset({400, 404, 405, 411, 415, 416, 422, 501})
_BINARY = "application/octet-stream"


def upload(endpoint: Endpoint, repository: str, path: Path, descriptor: Descriptor, *, listener: Listener) -> None:
    """Make the file at `path` a blob of the repository; its size is compared, its digest is left to the registry."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size != descriptor.size:
            raise RegistryError(f"{path}: has {size} bytes, expected {descriptor.size}", hint="it changed: try again")
        Upload(endpoint, repository, file, descriptor, listener).run()


def has_blob(endpoint: Endpoint, repository: str, digest: Digest) -> bool:
    """Whether the repository has the blob."""
    request = Request(
        what=f"blob {digest}",
        url=endpoint.url(repository, f"blobs/{digest}"),
        scope=endpoint.scope(repository),
        method="HEAD",
        ok=frozenset({200, 404}),
    )
    return endpoint.ask(request, limit=0).status == 200


def mount(endpoint: Endpoint, repository: str, digest: Digest, source: str) -> bool:
    """Make a blob of the repository `source` one of `repository` too; False when the registry would rather not."""
    request = Request(
        what=f"mount of blob {digest}",
        url=endpoint.url(
            repository, f"blobs/uploads/?mount={quote(digest, safe='')}&from={quote(_full(endpoint, source), safe='')}"
        ),
        scope=endpoint.scope(repository, "pull,push", source),
        method="POST",
        headers={"Content-Length": "0"},
        body=lambda: b"",
        ok=frozenset({201, 202}),
    )
    try:
        answer = endpoint.ask(request, limit=_ANSWER)
    except RegistryError as problem:
        if problem.status in (400, 401, 403, 404, 405):
            return False
        raise
    if answer.status == 202:
        _cancel(endpoint, repository, answer)
    return answer.status == 201


def _full(endpoint: Endpoint, repository: str) -> str:
    return f"{endpoint.site.prefix}/{repository}" if endpoint.site.prefix else repository


def _cancel(endpoint: Endpoint, repository: str, answer: Answer) -> None:
    """Close the upload that a registry opened where it should have mounted."""
    location = answer.headers.get("location", "")
    if location:
        request = Request(
            what="cancel an upload",
            url=endpoint.location(answer.url, location, "mount"),
            scope=endpoint.scope(repository, "pull,push"),
            method="DELETE",
            ok=frozenset(range(200, 500)),
        )
        try:
            endpoint.once(request, lambda response, url: None)
        except (RegistryError, TemporaryError):
            return


class Upload:
    """One blob on its way; `run` ends when the registry has it."""

    def __init__(
        self, endpoint: Endpoint, repository: str, file: BinaryIO, descriptor: Descriptor, listener: Listener
    ) -> None:
        self._endpoint, self._repository, self._file, self._listener = endpoint, repository, file, listener
        self._digest, self._size = descriptor.digest, descriptor.size
        self._what = f"upload of blob {descriptor.digest}"
        self._scope = endpoint.scope(repository, "pull,push")
        self._location = ""
        self._chunk = CHUNK
        self._offset = self._furthest = self._told = self._disagreed = 0
        self._whole = descriptor.size <= CHUNK
        self._resumed = self._switched = False

    def run(self) -> None:
        """Send the blob."""
        url = self._endpoint.url(self._repository, "blobs/uploads/")
        self._endpoint.retrying(url, lambda: self._try(url), progress=lambda: self._furthest)

    def _try(self, url: str) -> None:
        try:
            if self._location and not self._whole:
                self._resume()
            elif self._furthest == self._size > 0 and has_blob(self._endpoint, self._repository, self._digest):
                self._move(self._size)  # only the registry's last word was lost
                return
            else:
                self._start(url)
            self._send()
        except TemporaryError:
            self._tell(self._offset)
            raise
        except RegistryError as problem:
            self._tell(0)
            if not self._another_way(problem.status):
                raise
            self._location = ""
            self._try(url)  # not for ever: each other way is one less

    def _another_way(self, status: int) -> bool:
        """Whether what a registry refused may work once more, in one piece or in several, or from the start."""
        if self._resumed:
            self._resumed = False
            return True
        if self._switched:
            return False
        if (self._whole and status == 413) or (not self._whole and self._location and status in _NO_CHUNKS):
            self._whole, self._switched = not self._whole, True
            self._chunk = min(self._chunk, max(self._size // 2, 1 << 20)) if status == 413 else self._chunk
            return True
        return False

    def _start(self, url: str) -> None:
        answer = self._ask("POST", url, ok=202)
        self._move(0)
        self._follow(answer)
        if not self._location:
            self._endpoint.fail(self._what, "the registry does not say where to send it")
        least = answer.headers.get("oci-chunk-min-length", "")
        if least.isdecimal():
            self._chunk = max(self._chunk, int(least[:18]))

    def _resume(self) -> None:
        """Ask how much arrived; where the registry does not know the upload any more, begin again."""
        try:
            answer = self._ask("GET", self._location, ok=204)
        except RegistryError:
            self._location = ""
            self._move(0)
            raise TemporaryError("the registry forgot the upload") from None
        self._follow(answer)
        self._move(_received(answer))
        self._resumed = True

    def _send(self) -> None:
        if self._whole:
            self._finish(0)
            return
        while self._offset < self._size:
            end = min(self._offset + self._chunk, self._size)
            answer = self._patch(self._offset, end)
            self._follow(answer)
            taken = min(_received(answer), end) if "range" in answer.headers else end
            if taken <= self._offset:
                raise TemporaryError("the registry took nothing of what was sent")
            self._move(taken)
        self._finish(self._size)

    def _patch(self, start: int, end: int) -> Answer:
        headers = {"Content-Range": f"{start}-{end - 1}"}
        answer = self._ask("PATCH", self._location, start, end, headers=headers, ok=202)
        if answer.status == 416:
            self._disagreed += 1
            if self._disagreed > 1:
                raise RegistryError(
                    f"{self._endpoint.name}: {self._what}: it takes no such chunk", status=416, hint=AT_FAULT
                )
            raise TemporaryError("the registry and mlbox do not agree how much was sent", status=416)
        return answer

    def _finish(self, start: int) -> None:
        joint = "&" if urlsplit(self._location).query else "?"
        url = f"{self._location}{joint}digest={quote(self._digest, safe='')}"
        answer = self._ask("PUT", url, start, self._size, ok=201)
        found = answer.headers.get("docker-content-digest", "")
        if found.startswith("sha256:") and found != self._digest:
            self._endpoint.fail(self._what, f"the registry stored it as {found[:80]!r}")
        self._move(self._size)

    def _ask(
        self,
        method: str,
        url: str,
        start: int = 0,
        end: int = 0,
        *,
        ok: int,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send the bytes from `start` to `end` of the blob, if any."""
        body = {} if method == "GET" else {"Content-Length": str(end - start), "Content-Type": _BINARY}
        request = Request(
            what=self._what,
            url=url,
            scope=self._scope,
            method=method,
            headers={**body, **(headers or {})},
            body=None if method == "GET" else lambda: _Span(self._file, start, end, self._tell),
            ok=frozenset({ok, 200, 201, 202, 204} | ({416} if method == "PATCH" else set())),
            patience=PATIENCE if method in ("PATCH", "PUT") else 0.0,
        )
        return self._endpoint.once(request, _answer)

    def _follow(self, answer: Answer) -> None:
        if location := answer.headers.get("location", ""):
            self._location = self._endpoint.location(answer.url, location, self._what)

    def _move(self, offset: int) -> None:
        self._offset = offset
        self._furthest = max(self._furthest, offset)
        self._tell(offset)

    def _tell(self, offset: int) -> None:
        """Let the listener know that `offset` bytes are away."""
        self._listener.advance("push", offset - self._told)
        self._told = offset


class _Span:
    """A part of a file, to be read from its start."""

    def __init__(self, file: BinaryIO, start: int, end: int, tell: Callable[[int], None]) -> None:
        self._file, self._at, self._end, self._tell = file, start, end, tell

    def read(self, size: int = -1, /) -> bytes:
        """Return the next piece, none at the end."""
        self._tell(self._at)  # what was read before is sent now
        self._file.seek(self._at)
        piece = self._file.read(self._end - self._at if size < 0 else min(size, self._end - self._at))
        self._at += len(piece)
        return piece


def _received(answer: Answer) -> int:
    """Return how many bytes the registry has; '0-0' is what one that has none says."""
    match = re.fullmatch(r"(?:bytes[= ])?0-([0-9]{1,18})", answer.headers.get("range", "").strip())
    last = int(match[1]) if match else 0
    return last + 1 if last else 0


def _answer(response: "BaseHTTPResponse", url: str) -> Answer:
    response.read(_ANSWER, decode_content=False)
    headers = {key.lower(): value for key, value in response.headers.items()}
    return Answer(status=response.status, url=url, headers=headers, data=b"")
