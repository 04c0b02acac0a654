"""Signatures of images as cosign makes, stores and finds them.

Two forms, both written and both read:

- simple signing, which all versions of cosign know (sigstore/cosign specs/SIGNATURE_SPEC.md): a JSON payload that names
  the digest, signed as it is; payload and signature are a layer of the manifest with the tag `sha256-<hex>.sig`.
- a sigstore bundle, what cosign 3 looks for first (specs/BUNDLE_SPEC.md): a DSSE envelope around an in-toto statement
  with the predicate type SIGN_PREDICATE, as a referrer of the image.

What they hold is checked with

    cosign verify --key k.pub --insecure-ignore-tlog=true REGISTRY/REPOSITORY@sha256:HEX

--insecure-ignore-tlog, because the signature is in no public log. cosign 2 reads the tag alone (pkg/cosign/verify.go,
VerifyImageSignatures); cosign 3 takes the bundles among the referrers, and the tag when there is none
(cmd/cosign/cli/verify/verify.go, GetBundles). `--experimental-oci11` finds the manifest of the tag as a referrer too.
"""

import base64
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import TrustError
from mlbox.oci.artifact import Artifact, ArtifactManifest, Blob
from mlbox.oci.digest import Digest, digest_of, hex_of
from mlbox.oci.image import CONFIG, MANIFEST, Descriptor
from mlbox.oci.reference import DEFAULT_REGISTRY
from mlbox.trust.keys import PrivateKey, PublicKey
from mlbox.trust.statement import (
    Envelope,
    parse_statement,
    payload_of,
    seal,
    signer_of,
    statement_about,
    unbase64,
)

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_TYPE = "application/vnd.dev.cosign.artifact.sig.v1+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
ANNOTATION = "dev.cosignproject.cosign/signature"
PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"
LIMIT = 256 << 10
"""The largest payload or bundle that is read, in bytes; what is larger has a document inside and is no signature."""
MOST = 100
"""The most signatures of one image that are looked at."""

_CLAIM = "cosign container image signature"


class _Identity(msgspec.Struct, frozen=True, rename="kebab"):
    docker_reference: str = ""


class _Image(msgspec.Struct, frozen=True, rename="kebab"):
    docker_manifest_digest: str


class _Critical(msgspec.Struct, frozen=True):
    identity: _Identity
    image: _Image
    type: str


class SimpleSigning(msgspec.Struct, frozen=True):
    """The payload of a simple signature; the order of the fields is cosign's."""

    critical: _Critical
    optional: dict[str, object] | None = None


class _PublicKeyHint(msgspec.Struct, frozen=True):
    hint: str = ""


class _Material(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    public_key: _PublicKeyHint | None = None


class Bundle(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A sigstore bundle (protobuf-specs, sigstore_bundle.proto), of which a key's signature needs this much."""

    media_type: str
    verification_material: _Material = _Material()
    dsse_envelope: Envelope | None = None


class Signature(NamedTuple):
    """One signature as it was found, of either form; nothing in it has been checked."""

    media_type: str
    payload: bytes
    """The simple signing payload, or the whole bundle."""
    signature: str = ""
    """Of a simple one: base64."""

    @property
    def blob(self) -> Blob:
        """How it is stored."""
        annotations = {ANNOTATION: self.signature} if self.media_type == SIMPLE_SIGNING else {}
        return Blob(media_type=self.media_type, data=self.payload, annotations=annotations)

    @property
    def artifact(self) -> Artifact:
        """How it refers to what it is about."""
        if self.media_type == SIMPLE_SIGNING:
            return Artifact(artifact_type=SIGNATURE_TYPE, blobs=(self.blob,))
        return bundle_artifact(self.payload, SIGN_PREDICATE)


def sign(digest: Digest, repository: str, key: PrivateKey) -> tuple[Signature, Signature]:
    """Sign the manifest `digest` of `repository` (with its registry), in both forms."""
    claim = simple_payload(digest, repository)
    simple = Signature(SIMPLE_SIGNING, claim, base64.b64encode(key.sign(claim)).decode())
    statement = statement_about(digest, "", SIGN_PREDICATE, {})
    return simple, Signature(BUNDLE_TYPE, seal_bundle(statement, key))


def simple_payload(digest: Digest, repository: str) -> bytes:
    """Return the payload byte for byte as cosign makes it (sigstore pkg/signature/payload/payload.go)."""
    critical = _Critical(_Identity(_spelled(repository)), _Image(digest), _CLAIM)
    return msgspec.json.encode(SimpleSigning(critical))


def is_for(signature: Signature, repository: str) -> bool:
    """Whether the signature can lie in `repository`: cosign does not look at the name in it, but others do."""
    if signature.media_type != SIMPLE_SIGNING:
        return True
    try:
        claim = decode_json(signature.payload, SimpleSigning, what="signature", error=TrustError).critical
    except TrustError:
        return False
    name = claim.identity.docker_reference.partition("@")[0]
    return name == _spelled(repository) or name.startswith(_spelled(repository) + ":")


def _spelled(repository: str) -> str:
    # go-containerregistry calls docker.io so.
    return f"index.{repository}" if repository.startswith(DEFAULT_REGISTRY + "/") else repository


def seal_bundle(statement: bytes, key: PrivateKey) -> bytes:
    """Return the bundle of a statement, signed with `key`."""
    hint = base64.b64encode(bytes.fromhex(key.public.fingerprint)).decode()
    bundle = Bundle(
        media_type=BUNDLE_TYPE,
        verification_material=_Material(public_key=_PublicKeyHint(hint)),
        dsse_envelope=seal(statement, key),
    )
    return canonical_json(bundle)


def bundle_artifact(bundle: bytes, predicate_type: str) -> Artifact:
    """Return how a bundle is stored (cosign pkg/oci/remote/write.go, WriteAttestationNewBundleFormat)."""
    annotations = {"dev.sigstore.bundle.content": "dsse-envelope", PREDICATE_ANNOTATION: predicate_type}
    return Artifact(
        artifact_type=BUNDLE_TYPE, blobs=(Blob(media_type=BUNDLE_TYPE, data=bundle),), annotations=annotations
    )


def parse_bundle(data: bytes) -> Envelope:
    """Return the envelope of a bundle; raises TrustError when there is none."""
    bundle = decode_json(data, Bundle, what="sigstore bundle", error=TrustError)
    if not bundle.media_type.startswith("application/vnd.dev.sigstore.bundle") or bundle.dsse_envelope is None:
        raise TrustError("a sigstore bundle without a statement about an image")
    return bundle.dsse_envelope


def signer(signature: Signature, digest: Digest, keys: Sequence[PublicKey]) -> PublicKey | None:
    """Return the first of `keys` that signed the manifest `digest` with `signature`, None when none of them did.

    A signature that is damaged, that is about another image, or that says something else than "I sign this" counts
    as none: an attestation with a list of known holes is no approval.
    """
    try:
        if signature.media_type == SIMPLE_SIGNING:
            return _simple_signer(signature, digest, keys)
        return _bundle_signer(signature, digest, keys)
    except TrustError:
        return None


def signers(found: Iterable[Signature], digest: Digest, keys: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
    """Return those of `keys` that signed the manifest `digest`, in their order."""
    who = [one for signature in found for key in keys if (one := signer(signature, digest, (key,)))]
    return tuple(key for key in keys if any(key.fingerprint == one.fingerprint for one in who))


def _simple_signer(signature: Signature, digest: Digest, keys: Sequence[PublicKey]) -> PublicKey | None:
    # The key first: nothing is parsed that nobody we trust has signed.
    sealed = unbase64(signature.signature)
    key = next((key for key in keys if key.verifies(sealed, signature.payload)), None)
    if key is None:
        return None
    claim = decode_json(signature.payload, SimpleSigning, what="signature", error=TrustError).critical
    return key if claim.type == _CLAIM and claim.image.docker_manifest_digest == digest else None


def _bundle_signer(signature: Signature, digest: Digest, keys: Sequence[PublicKey]) -> PublicKey | None:
    envelope = parse_bundle(signature.payload)
    key = signer_of(envelope, tuple(keys))
    if key is None:
        return None
    statement = parse_statement(payload_of(envelope))
    return key if statement.predicate_type == SIGN_PREDICATE and statement.is_about(digest) else None


# The manifest at the tag sha256-<hex>.sig: one layer per signature, in the shape cosign appends to.


def signature_tag(digest: Digest) -> str:
    """Return the tag under which the signatures of a manifest lie (SIGNATURE_SPEC, "Tag-based Discovery")."""
    return f"sha256-{hex_of(digest)}.sig"


def signature_config(layers: Sequence[Descriptor]) -> bytes:
    """Return the image configuration that a manifest of signatures has, or cosign could not append to it."""
    never = "0001-01-01T00:00:00Z"  # Go's zero time
    return canonical_json(
        {
            "architecture": "",
            "config": {},
            "created": never,
            "history": [{"created": never} for _ in layers],
            "os": "",
            "rootfs": {"diff_ids": [layer.digest for layer in layers], "type": "layers"},
        }
    )


def signature_manifest(layers: Sequence[Descriptor], subject: Descriptor, annotations: dict[str, str]) -> bytes:
    """Return the manifest of all signatures of `subject`; it also is a referrer, for who looks there."""
    config = signature_config(layers)
    return canonical_json(
        ArtifactManifest(
            schema_version=2,
            media_type=MANIFEST,
            artifact_type=SIGNATURE_TYPE,
            config=Descriptor(media_type=CONFIG, digest=digest_of(config), size=len(config)),
            layers=tuple(layers),
            subject=Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size),
            annotations=annotations,
        )
    )
