"""in-toto statements, and DSSE, the envelope they are signed in.

in-toto Attestation Framework v1; secure-systems-lab/dsse protocol.md.
"""

import base64
import binascii
from typing import Any

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import TrustError
from mlbox.oci.digest import Digest, hex_of
from mlbox.trust.keys import PrivateKey, PublicKey

STATEMENT = "https://in-toto.io/Statement/v1"
STATEMENTS = (STATEMENT, "https://in-toto.io/Statement/v0.1")
_PROVENANCE = "https://slsa.dev/provenance/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


class ResourceDescriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A thing by its digests."""

    name: str = ""
    uri: str = ""
    digest: dict[str, str] = {}
    media_type: str = ""
    annotations: dict[str, Any] = {}


class Statement(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is said (`predicate`, of a known type) about which things (`subject`)."""

    type: str = msgspec.field(name="_type", default=STATEMENT)
    subject: tuple[ResourceDescriptor, ...]
    predicate_type: str
    predicate: msgspec.Raw = msgspec.Raw(b"{}")

    def is_about(self, digest: Digest) -> bool:
        """Whether one of the subjects is `digest`."""
        return any(subject.digest.get("sha256") == hex_of(digest) for subject in self.subject)


class EnvelopeSignature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One signature of an envelope, base64."""

    sig: str
    keyid: str = ""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A signed payload, base64."""

    payload: str
    payload_type: str
    signatures: tuple[EnvelopeSignature, ...]


def statement_about(digest: Digest, name: str, predicate_type: str, predicate: object) -> bytes:
    """Return the statement that says `predicate` about the manifest `digest`; equal values make equal bytes."""
    subject = ResourceDescriptor(name=name, digest={"sha256": hex_of(digest)})
    body = msgspec.Raw(canonical_json(predicate))
    return canonical_json(Statement(subject=(subject,), predicate_type=predicate_type, predicate=body))


def statement_of(digest: Digest, name: str, predicate_type: str, document: bytes) -> bytes:
    """Return `document` (JSON) as a statement about the manifest; one that is a statement already stays as it is."""
    if predicate_type == _PROVENANCE:
        return document
    predicate = decode_json(document, dict[str, Any], what="document", error=TrustError)
    return statement_about(digest, name, predicate_type, predicate)


def document_of(statement: bytes, predicate_type: str) -> bytes:
    """Return the document that `statement_of` made the statement from."""
    found = parse_statement(statement)
    if found.predicate_type != predicate_type:
        raise TrustError(f"a statement of the type {found.predicate_type[:100]!r} in the place of {predicate_type}")
    return statement if predicate_type == _PROVENANCE else bytes(found.predicate)


def parse_statement(data: bytes) -> Statement:
    """Return the statement that `data` is; raises TrustError when it is none."""
    statement = decode_json(data, Statement, what="in-toto statement", error=TrustError)
    if statement.type not in STATEMENTS:
        raise TrustError(f"an in-toto statement of an unknown type: {statement.type[:100]!r}")
    return statement


def authenticated(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: DSSE's pre-authentication encoding, in which the type cannot be swapped."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(statement: bytes, key: PrivateKey) -> Envelope:
    """Sign a statement."""
    signature = key.sign(authenticated(PAYLOAD_TYPE, statement))
    return Envelope(
        payload=base64.b64encode(statement).decode(),
        payload_type=PAYLOAD_TYPE,
        signatures=(EnvelopeSignature(sig=base64.b64encode(signature).decode()),),
    )


def payload_of(envelope: Envelope) -> bytes:
    """Return the statement inside, whoever signed it."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise TrustError(f"an envelope around something else than a statement: {envelope.payload_type[:100]!r}")
    return unbase64(envelope.payload)


def signer_of(envelope: Envelope, keys: tuple[PublicKey, ...]) -> PublicKey | None:
    """Return the first of `keys` that signed the envelope, None when none did."""
    data = authenticated(PAYLOAD_TYPE, payload_of(envelope))
    signatures = [unbase64(signature.sig) for signature in envelope.signatures[:_MOST]]
    return next((key for key in keys if any(key.verifies(signature, data) for signature in signatures)), None)


def unbase64(text: str) -> bytes:
    """Return the bytes of base64 `text`; raises TrustError when it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise TrustError("a signature or its payload is no base64") from None


_MOST = 100
"""Signatures of one envelope that are looked at."""
