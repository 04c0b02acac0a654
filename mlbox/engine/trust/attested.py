"""Documents about images that somebody signed: bills of materials and provenance, from the store or a registry."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from mlbox.engine.trust.materials import DOCUMENT_LIMIT
from mlbox.engine.trust.signatures import Place, find_there, local_image, open_for, places_of, referring
from mlbox.errors import TrustError
from mlbox.events import SILENT, Listener
from mlbox.oci.artifact import ArtifactManifest
from mlbox.oci.image import Descriptor
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.trust.keys import PublicKey

Blob = Callable[[Descriptor], bytes]


def attested(
    home: Home, name: str, predicate: str, keys: Sequence["PublicKey"], *, listener: Listener = SILENT
) -> bytes:
    """Return what one of `keys` signed about the image `name`: the document of the in-toto type `predicate`.

    The store is looked into first, then the registries that the image is known to be in. Raises TrustError when there
    is none: a document that is unsigned, signed by others, or about another image is passed over.
    """
    store = Store(home)
    with store.using():
        for place, manifest, blob in _bundles(store, name, listener):
            document = _checked(place, manifest, blob, predicate, tuple(keys))
            if document is not None:
                return document
    raise TrustError(
        f"nobody with the key {' or '.join(key.name for key in keys)} has signed such a document about {name}",
        hint=f"'mlbox sign {name} --key FILE --sbom --provenance' makes and signs them",
    )


def _bundles(store: Store, name: str, listener: Listener) -> Iterator[tuple[Place, ArtifactManifest, Blob]]:
    from mlbox.trust.signature import BUNDLE_TYPE

    image = local_image(store, name)
    if image is not None:
        places = places_of(store, image)
    else:
        reference = parse_reference(name)
        subject = find_there(open_for(reference, listener), reference)
        places = (Place(subject=subject, repository=reference.name, registry=True),)
    for place in places:
        for found in store.referrers.of(place.subject.digest, BUNDLE_TYPE):
            yield place, store.referrers.manifest(found.digest), store.referrers.blob
    for place in places:
        if place.registry:
            yield from _there(place, BUNDLE_TYPE, listener)


def _there(place: Place, kind: str, listener: Listener) -> Iterator[tuple[Place, ArtifactManifest, Blob]]:
    registry, repository = open_for(place.reference, listener), place.reference.repository
    for manifest in referring(registry, repository, place.subject.digest, (kind,)):
        yield place, manifest, lambda descriptor: registry.blob(repository, descriptor, DOCUMENT_LIMIT)


def _checked(
    place: Place, manifest: ArtifactManifest, blob: Blob, predicate: str, keys: tuple["PublicKey", ...]
) -> bytes | None:
    from mlbox.trust.signature import PREDICATE_ANNOTATION, parse_bundle
    from mlbox.trust.statement import document_of, parse_statement, payload_of, signer_of

    if manifest.annotations.get(PREDICATE_ANNOTATION) != predicate or not manifest.layers:
        return None
    try:
        envelope = parse_bundle(blob(manifest.layers[0]))
        if signer_of(envelope, keys) is None:
            return None
        payload = payload_of(envelope)
        if not parse_statement(payload).is_about(place.subject.digest):
            return None
        return document_of(payload, predicate)
    except TrustError:
        return None
