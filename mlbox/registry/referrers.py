"""What is about a manifest: asked of the registry, else of the index under the tag that stands for the digest.

Registries without the referrers API (distribution-spec v1.1, "Unavailable Referrers API") keep an index per subject
under the tag 'sha256-HEX', which clients read, extend and write back.
"""

from typing import Any

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import RegistryError
from mlbox.oci.artifact import ArtifactManifest
from mlbox.oci.digest import Digest, digest_of
from mlbox.oci.image import INDEX, MANIFEST, Descriptor
from mlbox.registry import manifests
from mlbox.registry.endpoint import Endpoint, Request
from mlbox.registry.listing import pages
from mlbox.registry.problem import AGAIN

_NO_API = frozenset({400, 404, 405, 501})
_ROUNDS = 4
_MOST = 10_000


class _Listed(msgspec.Struct, frozen=True, kw_only=True):
    manifests: tuple[Descriptor, ...] | None = ()


def referrers(endpoint: Endpoint, repository: str, subject: Digest, artifact_type: str) -> tuple[Descriptor, ...]:
    """Return the manifests about `subject`, of that type unless it is ''."""
    found = _from_api(endpoint, repository, subject, artifact_type)
    if found is None:
        found = _listed(_fallback(endpoint, repository, subject), f"{endpoint.name}: referrers of {subject}")
    unique = {one.digest: one for one in found}
    return tuple(one for one in unique.values() if artifact_type in ("", one.artifact_type))


def put_referrer(endpoint: Endpoint, repository: str, data: bytes, subject: Descriptor) -> Digest:
    """Store a manifest about `subject` so that `referrers` finds it; what it refers to must be there."""
    digest = digest_of(data)
    what = f"{endpoint.name}: referrer {digest}"
    manifest = decode_json(data, ArtifactManifest, what=what, error=RegistryError)
    if manifest.subject is None or manifest.subject.digest != subject.digest:
        raise RegistryError(f"{what}: it is not about {subject.digest}", hint=AGAIN)
    answer = manifests.put(endpoint, repository, digest, data, manifest.media_type or MANIFEST)
    if "oci-subject" not in answer.headers:
        entry = Descriptor(
            media_type=manifest.media_type or MANIFEST,
            digest=digest,
            size=len(data),
            annotations=manifest.annotations,
            artifact_type=manifest.kind,
        )
        _enter(endpoint, repository, subject.digest, entry)
    return digest


def fallback_tag(subject: Digest) -> str:
    """Return the tag under which registries without the API keep what is about `subject`."""
    return subject.replace(":", "-")


def _from_api(
    endpoint: Endpoint, repository: str, subject: Digest, artifact_type: str
) -> tuple[Descriptor, ...] | None:
    """Return what the registry knows, None when it has no such API."""
    from urllib.parse import quote

    asked = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
    request = Request(
        what=f"referrers of {repository}@{subject}",
        url=endpoint.url(repository, f"referrers/{subject}{asked}"),
        scope=endpoint.scope(repository),
        headers={"Accept": INDEX},
        ok=frozenset({200} | _NO_API),
    )
    found: list[Descriptor] = []
    for answer in pages(endpoint, request):
        if answer.status in _NO_API or "json" not in answer.headers.get("content-type", ""):
            return None
        found += _listed(answer.data, f"{endpoint.name}: {request.what}")
        if len(found) > _MOST:
            endpoint.fail(request.what, f"more than {_MOST}")
    return tuple(found)


def _listed(data: bytes, what: str) -> tuple[Descriptor, ...]:
    return (decode_json(data, _Listed, what=what, error=RegistryError).manifests or ()) if data else ()


def _fallback(endpoint: Endpoint, repository: str, subject: Digest) -> bytes:
    """Return the index that stands in for the API, b'' when there is none."""
    try:
        found = manifests.fetch(endpoint, repository, fallback_tag(subject), (INDEX,))
    except RegistryError as problem:
        if problem.status == 404:
            return b""
        raise
    return found.data if found.is_index else b""


def _enter(endpoint: Endpoint, repository: str, subject: Digest, entry: Descriptor) -> None:
    """Add `entry` to the index that stands in for the API; who writes at the same time is noticed and joined."""
    what = f"referrers of {repository}@{subject}"
    for _ in range(_ROUNDS):
        old = _fallback(endpoint, repository, subject)
        if entry.digest in {one.digest for one in _listed(old, what)}:
            return
        manifests.put(endpoint, repository, fallback_tag(subject), _extended(old, entry, what), INDEX)
    listed = _listed(_fallback(endpoint, repository, subject), what)
    if entry.digest not in {one.digest for one in listed}:
        endpoint.fail(what, "others keep changing the list", hint="try again")


def _extended(old: bytes, entry: Descriptor, what: str) -> bytes:
    """Return the index with one more entry; what others wrote stays as it is."""
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX}
    if old:
        document |= decode_json(old, dict[str, Any], what=what, error=RegistryError)
    document["manifests"] = [*(document.get("manifests") or ()), msgspec.to_builtins(entry)]
    return canonical_json(document)
