"""Where the signatures of an image are: in the store, in registries, and how they get there.

Which signatures speak for an image of the store: those of its own manifest; those of a manifest in a registry whose
configuration is the same, byte for byte, for a configuration names every layer by its content; and those of an index
that names such a manifest. The bytes of all of them are in the store.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from mlbox.codec import decode_json
from mlbox.errors import NotFoundError, RegistryError, TrustError
from mlbox.events import Listener
from mlbox.oci.artifact import Artifact, ArtifactManifest, manifest_of, subject_of
from mlbox.oci.digest import Digest, digest_of
from mlbox.oci.image import MANIFEST, Descriptor, Image
from mlbox.oci.reference import Reference, parse_reference
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.registry.client import Registry
    from mlbox.trust.keys import PublicKey
    from mlbox.trust.signature import Signature

_DEPTH = 4
"""How deep an index may lie in an index."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest that stands for an image."""

    subject: Descriptor
    repository: str
    registry: bool = False
    """Whether it lies in a registry; one that only a loaded file names is not asked, and nothing is sent there."""

    @property
    def reference(self) -> Reference:
        return parse_reference(f"{self.repository}@{self.subject.digest}")


def places_of(store: Store, image: Image) -> tuple[Place, ...]:
    """Return the manifests that stand for the image: its own first, then those in registries whose bytes are here."""
    from mlbox.engine.trust.materials import name_of

    own = Place(subject=subject_of(image.digest, image.manifest_bytes), repository=name_of(store, image))
    there = [
        Place(subject=subject, repository=remote.repository, registry=not remote.claimed)
        for remote in store.remotes.of(image.digest)
        if (subject := _stands_for(store, remote.digest, image.manifest.config.digest, _DEPTH))
    ]
    return (own, *there)


class _Pointers(msgspec.Struct, rename="camel"):
    media_type: str = ""
    config: Descriptor | None = None
    manifests: tuple[Descriptor, ...] = ()


def _stands_for(store: Store, digest: Digest, config: Digest, depth: int) -> Descriptor | None:
    """Return how one refers to `digest` when it is a manifest with that `config`, or an index that leads to one."""
    if not depth or not store.content.has(digest):
        return None
    data = store.content.read(digest)
    try:
        document = decode_json(data, _Pointers, what=f"manifest {digest}", error=TrustError)
    except TrustError:
        return None
    leads = (document.config is not None and document.config.digest == config) or any(
        _stands_for(store, child.digest, config, depth - 1) for child in document.manifests[:100]
    )
    return subject_of(digest, data, document.media_type or MANIFEST) if leads else None


def kept_signatures(store: Store, digest: Digest) -> Iterator["Signature"]:
    """Yield the signatures of a manifest that the store has; what is damaged is passed over."""
    from mlbox.trust.signature import BUNDLE_TYPE, LIMIT, SIGNATURE_TYPE

    for kind in (SIGNATURE_TYPE, BUNDLE_TYPE):
        for found in store.referrers.of(digest, kind):
            yield from signatures_in(
                store.referrers.manifest(found.digest), lambda descriptor: store.referrers.blob(descriptor, LIMIT)
            )


def remote_signatures(registry: "Registry", repository: str, digest: Digest) -> Iterator["Signature"]:
    """Yield the signatures of a manifest that a registry has, each once; what is no signature is passed over."""
    from mlbox.trust.signature import BUNDLE_TYPE, LIMIT, MOST, SIGNATURE_TYPE, signature_tag

    def blob(descriptor: Descriptor) -> bytes:
        return registry.blob(repository, descriptor, LIMIT)

    seen: set[Signature] = set()
    manifests = iter([_tagged(registry, repository, signature_tag(digest))])
    for manifest in (*manifests, *referring(registry, repository, digest, (SIGNATURE_TYPE, BUNDLE_TYPE))):
        for signature in signatures_in(manifest, blob) if manifest else ():
            if signature not in seen and len(seen) < MOST:
                seen.add(signature)
                yield signature


def referring(
    registry: "Registry", repository: str, digest: Digest, kinds: tuple[str, ...]
) -> Iterator[ArtifactManifest]:
    for found in registry.referrers(repository, digest):
        if found.artifact_type in kinds and (manifest := _manifest(registry, repository, found.digest)):
            yield manifest


def _tagged(registry: "Registry", repository: str, tag: str) -> ArtifactManifest | None:
    return _manifest(registry, repository, tag) if registry.find(repository, tag) else None


def keeping(store: Store, subject: Descriptor, found: Iterable["Signature"]) -> Iterator["Signature"]:
    for signature in found:
        store.referrers.add(signature.artifact, subject)
        yield signature


def _manifest(registry: "Registry", repository: str, reference: str) -> ArtifactManifest | None:
    try:
        data = registry.manifest(repository, reference).data
    except RegistryError as problem:
        if problem.status == 404:
            return None
        raise
    try:
        return decode_json(data, ArtifactManifest, what=f"manifest {reference}", error=TrustError)
    except TrustError:
        return None


def signatures_in(manifest: ArtifactManifest, blob: Callable[[Descriptor], bytes]) -> Iterator["Signature"]:
    """Yield the signatures that an artifact holds; `blob` gives its documents."""
    from mlbox.trust.signature import (
        ANNOTATION,
        BUNDLE_TYPE,
        LIMIT,
        MOST,
        PREDICATE_ANNOTATION,
        SIGN_PREDICATE,
        SIMPLE_SIGNING,
        Signature,
    )

    if manifest.annotations.get(PREDICATE_ANNOTATION, SIGN_PREDICATE) != SIGN_PREDICATE:
        return  # an attestation: something is said about the image, and it need not be good
    for layer in manifest.layers[:MOST]:
        if layer.size > LIMIT:
            continue
        if layer.media_type == SIMPLE_SIGNING and layer.annotations.get(ANNOTATION):
            yield Signature(SIMPLE_SIGNING, blob(layer), layer.annotations[ANNOTATION])
        elif layer.media_type.startswith("application/vnd.dev.sigstore.bundle"):
            yield Signature(BUNDLE_TYPE, blob(layer))


def push_signatures(
    registry: "Registry",
    repository: str,
    subject: Descriptor,
    signatures: Iterable["Signature"],
    key: "PublicKey",
) -> None:
    """Send signatures of `key` to where all versions of cosign look; a key that signed there already is left out."""
    from mlbox.trust.signature import SIMPLE_SIGNING

    ours = tuple(signatures)
    found = remote_signatures(registry, repository, subject.digest)
    known = signed_by(found, subject.digest, f"{registry.host}/{repository}", key)
    there = {signature.media_type for signature in known}
    missing = [signature for signature in ours if signature.media_type not in there]
    if simple := [signature for signature in missing if signature.media_type == SIMPLE_SIGNING]:
        _append(registry, repository, subject, simple)
    for signature in missing:
        if signature.media_type != SIMPLE_SIGNING:
            push_artifact(registry, repository, signature.artifact, subject)


def push_artifact(registry: "Registry", repository: str, artifact: Artifact, subject: Descriptor) -> None:
    """Send a document about `subject`."""
    from mlbox.oci.artifact import EMPTY_BYTES

    for data in (EMPTY_BYTES, *(blob.data for blob in artifact.blobs)):
        registry.put_blob(repository, data)
    registry.put_referrer(repository, manifest_of(artifact, subject), subject)


def _append(registry: "Registry", repository: str, subject: Descriptor, signatures: Sequence["Signature"]) -> None:
    """Add to the signatures under the tag, as cosign does: whoever signs at the same moment may be lost."""
    from mlbox.trust.signature import signature_config, signature_manifest, signature_tag

    tag = signature_tag(subject.digest)
    old = _tagged(registry, repository, tag)
    layers = [*(old.layers if old else ()), *(signature.blob.descriptor for signature in signatures)]
    for signature in signatures:
        registry.put_blob(repository, signature.payload)
    registry.put_blob(repository, signature_config(layers))
    data = signature_manifest(layers, subject, old.annotations if old else {})
    registry.put_referrer(repository, data, subject)
    registry.put_manifest(repository, tag, data, MANIFEST)


def signed_by(
    found: Iterable["Signature"], digest: Digest, repository: str, key: "PublicKey"
) -> tuple["Signature", ...]:
    """Return those of `found` that `key` made for the manifest in `repository` (with its registry)."""
    from mlbox.trust.signature import is_for, signer

    return tuple(one for one in found if signer(one, digest, (key,)) and is_for(one, repository))


def local_image(store: Store, name: str) -> Image | None:
    """Return the image of the store; None when there is none, but the name says in which registry one may be."""
    try:
        return store.images.load(store.images.resolve(name))
    except NotFoundError:
        first = name.partition("/")[0] if "/" in name else ""
        if "." in first or ":" in first or first == "localhost":
            return None
        raise


def open_for(reference: Reference, listener: Listener) -> "Registry":
    from mlbox.registry.client import open_registry

    return open_registry(reference.registry, listener=listener)


def find_there(registry: "Registry", reference: Reference) -> Descriptor:
    found = registry.find(reference.repository, reference.digest or reference.tag)
    if found is None:
        raise NotFoundError(f"there is no {reference.familiar}, here or in its registry")
    data = registry.manifest(reference.repository, found.digest).data
    return subject_of(digest_of(data), data, found.media_type)
