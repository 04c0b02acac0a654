"""Manifests and indexes: their exact bytes, what they are, and whether they are what was asked for."""

import msgspec

from mlbox.errors import RegistryError
from mlbox.oci.digest import Digest, digest_of, is_digest
from mlbox.oci.image import INDEX, INDEX_TYPES, MANIFEST, MANIFEST_TYPES, Descriptor
from mlbox.registry.endpoint import Answer, Endpoint, Request
from mlbox.registry.problem import AGAIN

LIMIT = 4 << 20
"""The largest manifest in bytes; registries promise no more."""
ALL = (*MANIFEST_TYPES, *INDEX_TYPES)
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest or an index as it was received; the digest is that of `data`."""

    media_type: str
    digest: Digest
    data: bytes

    @property
    def is_index(self) -> bool:
        """Whether it lists images rather than being one."""
        return self.media_type in INDEX_TYPES

    @property
    def descriptor(self) -> Descriptor:
        """How others refer to it."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.data))


class _Shape(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    config: object = None
    layers: object = None
    manifests: object = None


def fetch(endpoint: Endpoint, repository: str, reference: str, accept: tuple[str, ...]) -> Fetched:
    """Return the manifest that a tag or digest names."""
    what = _name(repository, reference)
    answer = endpoint.ask(_request(endpoint, repository, reference, accept, "GET"), limit=LIMIT)
    digest = digest_of(answer.data)
    said = answer.headers.get("docker-content-digest", "")
    expected = reference if is_digest(reference) else said if is_digest(said) else digest
    if digest != expected:
        endpoint.fail(
            what,
            f"the registry sent a manifest with digest {digest}, expected {expected}",
            hint="its storage is damaged or somebody changed the manifest: push the image again",
        )
    return Fetched(
        media_type=judged(f"{endpoint.name}: {what}", answer.data, _content_type(answer)),
        digest=digest,
        data=answer.data,
    )


def find(endpoint: Endpoint, repository: str, reference: str) -> Descriptor | None:
    """Return the descriptor of what a tag or digest names, None when there is nothing."""
    request = _request(endpoint, repository, reference, ALL, "HEAD")
    answer = endpoint.ask(msgspec.structs.replace(request, ok=frozenset({200, 404})), limit=0)
    if answer.status == 404:
        return None
    media_type, size = _content_type(answer), answer.headers.get("content-length", "")
    digest = answer.headers.get("docker-content-digest", reference)
    if media_type in ALL and is_digest(digest) and size.isdecimal():
        if is_digest(reference) and digest != reference:
            endpoint.fail(_name(repository, reference), f"the registry answers with {digest}")
        return Descriptor(media_type=media_type, digest=Digest(digest), size=int(size[:18]))
    return fetch(endpoint, repository, reference, ALL).descriptor


def put(endpoint: Endpoint, repository: str, reference: str, data: bytes, media_type: str) -> Answer:
    """Store a manifest under a tag or its digest; what it refers to must be there."""
    what = _name(repository, reference)
    if len(data) > LIMIT:
        endpoint.fail(what, f"a manifest of {len(data)} bytes; registries take {LIMIT}")
    request = Request(
        what=f"push of {what}",
        url=endpoint.url(repository, f"manifests/{reference}"),
        scope=endpoint.scope(repository, "pull,push"),
        method="PUT",
        headers={"Content-Type": media_type, "Content-Length": str(len(data))},
        body=lambda: data,
        ok=frozenset({200, 201, 202}),
    )
    answer = endpoint.ask(request, limit=1 << 16)
    found = answer.headers.get("docker-content-digest", "")
    if is_digest(found) and found != digest_of(data):
        endpoint.fail(what, "the registry stored other bytes than were sent")
    return answer


def judged(what: str, data: bytes, content_type: str) -> str:
    """Return the media type of a document: its own word, else the registry's, else what it looks like.

    Raises RegistryError when these contradict each other: one and the same digest must not be an image here and a
    list of images there.
    """
    try:
        shape = msgspec.json.decode(data, type=_Shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise RegistryError(f"{what}: not a manifest: {problem}", hint=AGAIN) from problem
    if shape.schema_version == 1 or content_type.startswith(_SCHEMA_1):
        raise RegistryError(
            f"{what}: an image in the format of 2015 (schema 1)", hint="push it again with a newer tool"
        )
    looks = {INDEX: shape.manifests is not None, MANIFEST: shape.layers is not None or shape.config is not None}
    if all(looks.values()):
        raise RegistryError(f"{what}: a manifest and an index at once", hint="nobody should trust this image")
    words = [word for word in (shape.media_type, content_type) if word in ALL]
    words += [word for word, fits in looks.items() if fits]
    if not words:
        raise RegistryError(f"{what}: neither a manifest nor an index", hint=AGAIN)
    if len({word in INDEX_TYPES for word in words}) > 1:
        raise RegistryError(
            f"{what}: it is said to be {words[0]}, but also {words[1]}", hint="nobody should trust this image"
        )
    return words[0]


def _request(endpoint: Endpoint, repository: str, reference: str, accept: tuple[str, ...], method: str) -> Request:
    return Request(
        what=_name(repository, reference),
        url=endpoint.url(repository, f"manifests/{reference}"),
        scope=endpoint.scope(repository),
        method=method,
        headers={"Accept": ", ".join(accept)},
    )


def _name(repository: str, reference: str) -> str:
    return f"{repository}{'@' if is_digest(reference) else ':'}{reference}"


def _content_type(answer: Answer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()
