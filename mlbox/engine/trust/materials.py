"""What images are made of, and what they were made from: of the store, and as registries tell it."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

from mlbox.errors import NotFoundError
from mlbox.events import SILENT, Listener
from mlbox.oci.artifact import Artifact, artifact_of
from mlbox.oci.digest import Digest
from mlbox.oci.image import Image
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.lock.model import Lock
    from mlbox.trust.bill import Bill
    from mlbox.trust.keys import PrivateKey

Statement = tuple[str, str, bytes]
"""A document about an image: its media type, in-toto's predicate type for it, its bytes."""

DOCUMENT_LIMIT = 64 << 20
"""The largest document about an image that is taken from a registry, in bytes."""


class BillFormat(StrEnum):
    """The formats of a bill of materials."""

    CYCLONEDX = "cyclonedx"
    SPDX = "spdx"


def sbom(home: Home, name: str, form: BillFormat = BillFormat.CYCLONEDX, *, listener: Listener = SILENT) -> bytes:
    """Return the bill of materials of the image `name`: of one in the store made here, else as its registry has it."""
    from mlbox.engine.trust.signatures import local_image

    store = Store(home)
    with store.using():
        image = local_image(store, name)
        if image is not None:
            bill = bill_of(store, image)
            for place in bill.unread:
                listener.note(f"/{place} of the image tells of packages that mlbox cannot list")
            return bill_writer(form)[2](bill)
        media_type, predicate, _ = bill_writer(form)
        return _attached(name, media_type, predicate, f"bill of materials in {form}", listener)


def provenance(home: Home, name: str, *, listener: Listener = SILENT) -> bytes:
    """Return the provenance of the image `name`: of one in the store made here, else as its registry has it."""
    from mlbox.engine.trust.signatures import local_image
    from mlbox.trust import provenance as slsa

    store = Store(home)
    with store.using():
        image = local_image(store, name)
        if image is not None:
            return write_provenance(store, image)
        return _attached(name, slsa.MEDIA_TYPE, slsa.PREDICATE, "provenance", listener)


def predicate_of(form: BillFormat) -> str:
    """Return in-toto's type for a bill in that format."""
    return bill_writer(form)[1]


def write_bill(store: Store, image: Image, form: BillFormat, *, name: str = "", subject: Digest | None = None) -> bytes:
    """Return the bill of materials of `image`: read from its layers, with what its lock knows besides.

    `subject` is the manifest it is written about (else the image's own), `name` what that is called, without tag.
    """
    return bill_writer(form)[2](bill_of(store, image, name=name, subject=subject))


def bill_of(store: Store, image: Image, *, name: str = "", subject: Digest | None = None) -> "Bill":
    """Return the bill as a value."""
    from mlbox.store.view import effective, read_file
    from mlbox.trust.bill import make_bill
    from mlbox.trust.inventory import read_inventory

    diff_ids = image.config.rootfs.diff_ids
    places = effective([store.layers.entries(diff_id) for diff_id in diff_ids])
    files = {path: place for path, place in places.items() if place.entry.kind in ("file", "link")}
    inventory = read_inventory(
        files, lambda path: read_file(store.layers, diff_ids[files[path].layer], files[path].entry)
    )
    return make_bill(
        inventory,
        _lock(store, image),
        name=name or name_of(store, image),
        digest=subject or image.digest,
        arch=image.config.architecture,
        created=image.config.created,
    )


def write_provenance(store: Store, image: Image, *, name: str = "", subject: Digest | None = None) -> bytes:
    """Return the statement of what `image` was built from; NotFoundError for one that mlbox did not build."""
    from mlbox.codec import decode_json
    from mlbox.errors import StoreError
    from mlbox.lock.file import decode_lock
    from mlbox.plan.model import BuildPlan
    from mlbox.plan.stage import built_pieces
    from mlbox.trust import provenance as slsa

    lock = store.referrers.lock_of(image.digest)
    if lock is None:
        raise NotFoundError(
            f"image {name or image.digest} came without a lock, so nobody here knows what it was built from",
            hint="'mlbox sbom' says what is in it",
        )
    data = store.referrers.plan_of(image.digest)
    plan = decode_json(data, BuildPlan, what="attached plan", error=StoreError) if data else None
    pieces = built_pieces(plan) if plan else ()
    return slsa.provenance(
        subject or image.digest,
        name or name_of(store, image),
        decode_lock(lock, what="attached lock"),
        lock,
        plan,
        {piece.source.name: wheel for piece in pieces if (wheel := store.built.get(piece.key))},
    )


def attachments(
    store: Store,
    image: Image,
    subject: Digest,
    name: str,
    *,
    sbom: bool = False,
    provenance: bool = False,
    key: "PrivateKey | None" = None,
) -> tuple[Artifact, ...]:
    """Return what is asked for about the manifest `subject` of `image`, called `name`; ready to refer to it.

    With a `key` each document comes a second time, as a signed attestation: 'cosign verify-attestation' reads those.
    """
    from mlbox.trust.signature import bundle_artifact, seal_bundle
    from mlbox.trust.statement import statement_of

    documents = list(_documents(store, image, subject, name, sbom=sbom, provenance=provenance))
    plain = [artifact_of(media_type, data) for media_type, _, data in documents]
    if key is None:
        return tuple(plain)
    sealed = [
        bundle_artifact(seal_bundle(statement_of(subject, name, predicate, data), key), predicate)
        for _, predicate, data in documents
    ]
    return (*plain, *sealed)


def name_of(store: Store, image: Image) -> str:
    """Return what an image of the store is called, without tag: the first of its names."""
    names = store.images.names(image.digest)
    return names[0].familiar.partition("@")[0].rpartition(":")[0] or names[0].repository if names else "image"


def _documents(
    store: Store, image: Image, subject: Digest, name: str, *, sbom: bool, provenance: bool
) -> Iterator[Statement]:
    from mlbox.trust import provenance as slsa

    if sbom:
        media_type, predicate, write = bill_writer(BillFormat.CYCLONEDX)
        yield media_type, predicate, write(bill_of(store, image, name=name, subject=subject))
    if provenance:
        yield slsa.MEDIA_TYPE, slsa.PREDICATE, write_provenance(store, image, name=name, subject=subject)


def bill_writer(form: BillFormat) -> "tuple[str, str, Callable[[Bill], bytes]]":
    """Return the media type of a format, in-toto's predicate type for it, and what writes it."""
    from mlbox.trust import cyclonedx, spdx

    if form is BillFormat.SPDX:
        return spdx.MEDIA_TYPE, spdx.PREDICATE, spdx.spdx
    return cyclonedx.MEDIA_TYPE, cyclonedx.PREDICATE, cyclonedx.cyclonedx


def _lock(store: Store, image: Image) -> "Lock | None":
    from mlbox.lock.file import decode_lock

    data = store.referrers.lock_of(image.digest)
    return decode_lock(data, what="attached lock") if data else None


def _attached(name: str, media_type: str, predicate: str, what: str, listener: Listener) -> bytes:
    """Return a document that a registry has about an image, plain or from an attestation; nobody has checked it."""
    from mlbox.engine.trust.signatures import find_there, open_for, referring
    from mlbox.trust.signature import BUNDLE_TYPE, PREDICATE_ANNOTATION, parse_bundle
    from mlbox.trust.statement import document_of, payload_of

    reference = parse_reference(name)
    registry = open_for(reference, listener)
    digest = find_there(registry, reference).digest
    found = list(referring(registry, reference.repository, digest, (media_type, BUNDLE_TYPE)))
    plain = [manifest for manifest in found if manifest.kind == media_type and manifest.layers]
    if plain:
        return registry.blob(reference.repository, plain[-1].layers[0], DOCUMENT_LIMIT)
    sealed = [manifest for manifest in found if manifest.annotations.get(PREDICATE_ANNOTATION) == predicate]
    if sealed and sealed[-1].layers:
        bundle = registry.blob(reference.repository, sealed[-1].layers[0], DOCUMENT_LIMIT)
        return document_of(payload_of(parse_bundle(bundle)), predicate)
    raise NotFoundError(
        f"the registry has no {what} of {reference.familiar}",
        hint=f"'mlbox pull {reference.familiar}' first, then one is made from its files",
    )
