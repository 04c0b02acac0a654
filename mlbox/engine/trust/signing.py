"""Signing images and finding out who signed them, here and in registries."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mlbox.engine.trust.signatures import (
    Place,
    find_there,
    keeping,
    kept_signatures,
    local_image,
    open_for,
    places_of,
    push_artifact,
    push_signatures,
    remote_signatures,
    signed_by,
)
from mlbox.errors import NotFoundError, TrustError
from mlbox.events import SILENT, Listener
from mlbox.oci.artifact import Artifact
from mlbox.oci.digest import Digest
from mlbox.oci.image import Descriptor, Image
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.registry.client import Registry
    from mlbox.trust.keys import PrivateKey, PublicKey
    from mlbox.trust.signature import Signature


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """One manifest that `sign` dealt with."""

    digest: Digest
    repository: str
    """Where it lies, with its registry; the image's name for the manifest of the store."""
    new: bool
    """False when this key had signed it before."""
    pushed: bool = False


class SignReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `sign` did."""

    name: str
    key: str
    """Fingerprint of the public key (hex)."""
    signed: tuple[Signed, ...]


class CheckedManifest(msgspec.Struct, frozen=True, kw_only=True):
    """One manifest of an image and who signed it."""

    digest: Digest
    repository: str
    keys: tuple[str, ...]
    """Those of the asked-for keys that signed it, as they were named."""
    signatures: int
    """All that were found, by whomever."""


class SignatureReport(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed an image."""

    name: str
    manifests: tuple[CheckedManifest, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that signed the image; none: nobody asked for did."""
        return tuple(dict.fromkeys(key for manifest in self.manifests for key in manifest.keys))


def sign(
    home: Home,
    name: str,
    key: "PrivateKey",
    *,
    sbom: bool = False,
    provenance: bool = False,
    push: bool = False,
    listener: Listener = SILENT,
) -> SignReport:
    """Sign the image `name` with `key`: the one of the store, else the one in the registry that the name says.

    An image of the store is signed under all digests it is known by, and the signatures stay in the store; with
    `push` those of registries are sent there too. With `sbom` or `provenance` signed attestations are added.
    """
    store = Store(home)
    with store.using():
        image = local_image(store, name)
        if image is None:
            signed: tuple[Signed, ...] = (_sign_there(store, name, key, attest=sbom or provenance, listener=listener),)
        else:
            work = _Signing(store, image, key, sbom, provenance, listener)
            signed = tuple(work.sign(place, push=push and place.registry) for place in places_of(store, image))
    return SignReport(name=name, key=key.public.fingerprint, signed=signed)


class _Signing:
    """Signs one image of the store."""

    def __init__(
        self, store: Store, image: Image, key: "PrivateKey", sbom: bool, provenance: bool, listener: Listener
    ) -> None:
        self._store = store
        self._image = image
        self._key = key
        self._asked = {"sbom": sbom, "provenance": provenance}
        self._listener = listener

    def sign(self, place: Place, *, push: bool) -> Signed:
        digest = place.subject.digest
        ours, known = _signatures(self._store, place.subject, place.repository, self._key)
        attached = self._attach(place)
        if push:
            self._listener.step(f"push signatures to {place.repository}")
            registry = open_for(place.reference, self._listener)
            push_signatures(registry, place.reference.repository, place.subject, ours, self._key.public)
            for artifact in attached:
                push_artifact(registry, place.reference.repository, artifact, place.subject)
        return Signed(digest=digest, repository=place.repository, new=not known, pushed=push)

    def _attach(self, place: Place) -> tuple[Artifact, ...]:
        from mlbox.engine.trust.materials import attachments

        if not any(self._asked.values()):
            return ()
        made = attachments(
            self._store, self._image, place.subject.digest, place.repository, key=self._key, **self._asked
        )
        for artifact in made:
            self._store.referrers.add(artifact, place.subject)
        return made


def _sign_there(store: Store, name: str, key: "PrivateKey", *, attest: bool, listener: Listener) -> Signed:
    from mlbox.trust.signature import sign

    reference = parse_reference(name)
    if attest:
        raise NotFoundError(
            f"{reference.familiar} is not in the store, so what it is made of is not known here",
            hint=f"'mlbox pull {reference.familiar}' first",
        )
    registry = open_for(reference, listener)
    subject = find_there(registry, reference)
    there = remote_signatures(registry, reference.repository, subject.digest)
    found = signed_by(there, subject.digest, reference.name, key.public)
    ours = sign(subject.digest, reference.name, key)
    push_signatures(registry, reference.repository, subject, ours, key.public)
    return Signed(digest=subject.digest, repository=reference.name, new=not found, pushed=True)


def sign_pushed(
    store: Store, registry: "Registry", repository: str, subject: Descriptor, key: "PrivateKey"
) -> tuple["Signature", ...]:
    """Sign what was just pushed (`subject` in `repository`), in the registry and in the store."""
    ours, _ = _signatures(store, subject, f"{registry.host}/{repository}", key)
    push_signatures(registry, repository, subject, ours, key.public)
    return ours


def _signatures(
    store: Store, subject: Descriptor, repository: str, key: "PrivateKey"
) -> tuple[tuple["Signature", ...], bool]:
    """Return the signatures of a manifest by `key` for `repository`, kept in the store, and whether they were there."""
    from mlbox.trust.signature import sign

    known = signed_by(kept_signatures(store, subject.digest), subject.digest, repository, key.public)
    made = sign(subject.digest, repository, key)
    if {one.media_type for one in known} >= {one.media_type for one in made}:
        return known, True
    for signature in made:
        store.referrers.add(signature.artifact, subject)
    return made, False


class Publication(NamedTuple):
    """What is said about an image when it is pushed, besides its lock and its plan."""

    sbom: bool = False
    provenance: bool = False
    key: "PrivateKey | None" = None
    """Signs the image and the documents."""


def publish(
    store: Store,
    registry: "Registry",
    repository: str,
    image: Image,
    subject: Descriptor,
    what: Publication,
) -> tuple[Digest, ...]:
    """Send what is asked for about a pushed image (`subject` in `repository`), and keep it too.

    Returns the digests of the documents' manifests.
    """
    from mlbox.engine.trust.materials import attachments

    name = f"{registry.host}/{repository}"
    asked = what.sbom or what.provenance
    made = attachments(store, image, subject.digest, name, **what._asdict()) if asked else ()
    for artifact in made:
        push_artifact(registry, repository, artifact, subject)
    if what.key is not None:
        sign_pushed(store, registry, repository, subject, what.key)
    return tuple(store.referrers.add(artifact, subject) for artifact in made)


def verify(home: Home, name: str, keys: Sequence["PublicKey"], *, listener: Listener = SILENT) -> SignatureReport:
    """Return which of `keys` signed the image `name`: the one of the store, else the one in a registry.

    For an image of the store whose signatures are not there, the registries that it came from are asked.
    """
    store = Store(home)
    with store.using():
        image = local_image(store, name)
        if image is None:
            reference = parse_reference(name)
            registry = open_for(reference, listener)
            subject = find_there(registry, reference)
            found = remote_signatures(registry, reference.repository, subject.digest)
            place = Place(subject=subject, repository=reference.name, registry=True)
            return SignatureReport(name=name, manifests=(_checked(place, found, keys),))
        places = places_of(store, image)
        report = tuple(_checked(place, kept_signatures(store, place.subject.digest), keys) for place in places)
        if not any(manifest.keys for manifest in report):
            report = tuple(_checked(place, _fetched(store, place, listener), keys) for place in places)
    return SignatureReport(name=name, manifests=report)


def require(report: SignatureReport, keys: Sequence["PublicKey"]) -> None:
    """Raise TrustError when none of `keys` signed the image."""
    if not report.keys:
        count = sum(manifest.signatures for manifest in report.manifests)
        what = f"none of its {count} signatures is by" if count else "it has no signature, so none by"
        raise TrustError(
            f"{report.name} is not signed as asked: {what} {' or '.join(key.name for key in keys)}",
            hint=f"'mlbox sign {report.name} --key FILE' signs it, if you vouch for it",
        )


def _checked(place: Place, found: Iterable["Signature"], keys: Sequence["PublicKey"]) -> CheckedManifest:
    from mlbox.trust.signature import signers

    signatures = tuple(found)
    who = signers(signatures, place.subject.digest, keys)
    return CheckedManifest(
        digest=place.subject.digest,
        repository=place.repository,
        keys=tuple(key.name for key in who),
        signatures=len(signatures),
    )


def _fetched(store: Store, place: Place, listener: Listener) -> Iterator["Signature"]:
    """Yield the signatures of a manifest from where it lies, and keep them."""
    if not place.registry:
        yield from kept_signatures(store, place.subject.digest)
        return
    registry = open_for(place.reference, listener)
    yield from keeping(
        store, place.subject, remote_signatures(registry, place.reference.repository, place.subject.digest)
    )
