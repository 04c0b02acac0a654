"""The client of a registry (distribution-spec v1.1): what `mlbox pull`, `push` and their kin are made of."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from mlbox.codec import decode_json
from mlbox.errors import RegistryError
from mlbox.events import SILENT, Listener
from mlbox.http.transport import Limits
from mlbox.oci.digest import Digest, digest_of
from mlbox.oci.image import Descriptor
from mlbox.registry import manifests
from mlbox.registry.auth import Look
from mlbox.registry.download import LOST, download
from mlbox.registry.endpoint import LIMITS, Endpoint, Request
from mlbox.registry.hosts import Site, Sites, sites_of
from mlbox.registry.listing import pages
from mlbox.registry.manifests import ALL, Fetched
from mlbox.registry.referrers import put_referrer, referrers
from mlbox.registry.upload import Upload, has_blob, mount, upload

T = TypeVar("T")

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_SMALL = 4 << 20


class _Tags(msgspec.Struct, frozen=True, kw_only=True):
    tags: tuple[str, ...] | None = ()


class Registry:
    """One registry under the name that images have it; safe to use from many threads.

    Repositories are named as in `mlbox.oci.reference` ('library/python' on Docker Hub). Every failure is a
    RegistryError. What is read is asked of the mirrors first; what is written goes to the registry itself.
    """

    def __init__(
        self,
        sites: Sites,
        look_up: Callable[[Site], Look],
        *,
        listener: Listener = SILENT,
        limits: Limits = LIMITS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        def endpoint(site: Site) -> Endpoint:
            return Endpoint(site, look_up(site), limits=limits, sleep=sleep, clock=clock)

        self._listener = listener
        self._endpoint = endpoint(sites.registry)
        self._mirrors = tuple(endpoint(site) for site in sites.mirrors)
        self._given_up: set[Endpoint] = set()

    @property
    def host(self) -> str:
        """The registry's name, as in image names: 'docker.io', 'registry.example:5000'."""
        return self._endpoint.name

    def check_login(self) -> bool:
        """Return when the registry accepts the login: True, or False when it did not want to see it."""
        return self._endpoint.check_login()

    def manifest(self, repository: str, reference: str, accept: tuple[str, ...] = ALL) -> Fetched:
        """Return the manifest or index that a tag or digest names, at most 4 MiB of it."""
        return self._read(lambda endpoint: manifests.fetch(endpoint, repository, reference, accept))

    def find(self, repository: str, reference: str) -> Descriptor | None:
        """Return the descriptor of what a tag or digest names, None when there is nothing."""
        return self._read(lambda endpoint: manifests.find(endpoint, repository, reference))

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> None:
        """Store a manifest or index under a tag or its digest; what it refers to must be there."""
        manifests.put(self._endpoint, repository, reference, data, media_type)

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Whether the repository has the blob (the registry's own, not a mirror's)."""
        return has_blob(self._endpoint, repository, digest)

    def blob(self, repository: str, descriptor: Descriptor, limit: int = _SMALL) -> bytes:
        """Return a small blob, verified; one of more than `limit` bytes is an error."""
        return self._read(lambda endpoint: _blob(endpoint, repository, descriptor, limit))

    def download(
        self,
        repository: str,
        descriptor: Descriptor,
        target: Path,
        *,
        listener: Listener | None = None,
        name: str = "",
    ) -> None:
        """Make `target` the blob, completing what an earlier call left there; size and sha256 are verified.

        The listener hears advance('pull', bytes); errors call the blob `name`. Nobody else may write `target`.
        """
        hears = listener or self._listener
        self._read(lambda endpoint: download(endpoint, repository, descriptor, target, listener=hears, name=name))

    def upload(self, repository: str, path: Path, descriptor: Descriptor, *, listener: Listener | None = None) -> None:
        """Make the file at `path` a blob of the repository; the listener hears advance('push', bytes)."""
        upload(self._endpoint, repository, path, descriptor, listener=listener or self._listener)

    def put_blob(self, repository: str, data: bytes) -> None:
        """Make `data` a blob of the repository, unless it is one."""
        from io import BytesIO

        descriptor = Descriptor(media_type="application/octet-stream", digest=digest_of(data), size=len(data))
        if not has_blob(self._endpoint, repository, descriptor.digest):
            Upload(self._endpoint, repository, BytesIO(data), descriptor, SILENT).run()

    def mount(self, repository: str, digest: Digest, source_repository: str) -> bool:
        """Make a blob of another repository one of `repository` without moving it; False when it must be uploaded."""
        return mount(self._endpoint, repository, digest, source_repository)

    def tags(self, repository: str) -> Iterator[str]:
        """Yield the tags of the repository in the registry's order, a page at a time."""
        request = Request(
            what=f"tags of {repository}",
            url=self._endpoint.url(repository, "tags/list?n=1000"),
            scope=self._endpoint.scope(repository),
        )
        for page in pages(self._endpoint, request):
            document = decode_json(page.data, _Tags, what=f"{self.host}: {request.what}", error=RegistryError)
            yield from (tag for tag in document.tags or () if _TAG.fullmatch(tag))

    def referrers(self, repository: str, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the manifests that are about the one with that digest, of one type unless it is ''."""
        return self._read(lambda endpoint: referrers(endpoint, repository, digest, artifact_type))

    def put_referrer(self, repository: str, data: bytes, subject: Descriptor) -> Digest:
        """Store a manifest about `subject` (its blobs must be there) so that `referrers` finds it."""
        return put_referrer(self._endpoint, repository, data, subject)

    def _read(self, ask: Callable[[Endpoint], T]) -> T:
        """Ask the mirrors in order, then the registry; a mirror that fails or has nothing is passed over."""
        nothing: list[T] = []
        for mirror in [mirror for mirror in self._mirrors if mirror not in self._given_up]:
            try:
                found = ask(mirror)
            except RegistryError as problem:
                self._pass_over(mirror, problem)
                continue
            if found not in (None, ()):
                return found
            nothing.append(found)
        try:
            return ask(self._endpoint)
        except RegistryError as problem:
            if nothing and not problem.status:  # out of reach, but a mirror answered that there is nothing
                return nothing[0]
            raise

    def _pass_over(self, mirror: Endpoint, problem: RegistryError) -> None:
        """Go on without the mirror; one that has something else than nothing to say is not asked for each layer."""
        if problem.status == 404 or mirror in self._given_up:
            return
        self._given_up.add(mirror)
        self._listener.note(f"mirror {mirror.name} of {self.host} is passed over: {problem.message}")


def open_registry(host: str, *, listener: Listener = SILENT) -> Registry:
    """Return the registry that image names call `host`, with the user's settings and logins."""
    from mlbox.registry.dockerconfig import logins_of

    return Registry(sites_of(host), lambda site: logins_of(site.name), listener=listener)


def _blob(endpoint: Endpoint, repository: str, descriptor: Descriptor, limit: int) -> bytes:
    what = f"blob {descriptor.digest}"
    if descriptor.size > limit:
        endpoint.fail(what, f"it has {descriptor.size} bytes, more than {limit}")
    request = Request(
        what=what,
        url=endpoint.url(repository, f"blobs/{descriptor.digest}"),
        scope=endpoint.scope(repository),
        missing=LOST,
    )
    data = endpoint.ask(request, limit=descriptor.size).data
    if digest_of(data) != descriptor.digest:
        endpoint.fail(
            what,
            f"the registry sent {len(data)} bytes with digest {digest_of(data)}",
            hint="its storage is damaged or somebody changed the blob: push the image again",
        )
    return data
