"""Signatures: the bytes cosign expects, and everything that is no signature."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.oci.digest import Digest, digest_of
from mlbox.oci.image import MANIFEST, Descriptor
from mlbox.trust.keys import PrivateKey
from mlbox.trust.signature import (
    ANNOTATION,
    BUNDLE_TYPE,
    SIMPLE_SIGNING,
    Signature,
    is_for,
    parse_bundle,
    seal_bundle,
    sign,
    signature_config,
    signature_manifest,
    signature_tag,
    signer,
    signers,
    simple_payload,
)
from mlbox.trust.statement import PAYLOAD_TYPE, authenticated, payload_of, statement_about

ONE = Digest("sha256:" + "ab" * 32)
OTHER = Digest("sha256:" + "cd" * 32)
REPOSITORY = "registry.example/team/bert"


def simple(payload: bytes, key: PrivateKey) -> Signature:
    return Signature(SIMPLE_SIGNING, payload, base64.b64encode(key.sign(payload)).decode())


def bundle(digest: Digest, predicate: str, key: PrivateKey) -> Signature:
    return Signature(BUNDLE_TYPE, seal_bundle(statement_about(digest, "", predicate, {}), key))


def test_the_payload_is_cosigns_byte_for_byte() -> None:
    """The order of keys, the spaces and the null are those of Go's encoder for cosign's struct."""
    assert simple_payload(ONE, REPOSITORY) == (
        b'{"critical":{"identity":{"docker-reference":"registry.example/team/bert"},'
        b'"image":{"docker-manifest-digest":"sha256:' + b"ab" * 32 + b'"},'
        b'"type":"cosign container image signature"},"optional":null}'
    )


def test_docker_hub_has_the_name_cosign_gives_it() -> None:
    """go-containerregistry calls docker.io index.docker.io."""
    assert b'"index.docker.io/library/python"' in simple_payload(ONE, "docker.io/library/python")


def test_both_forms_verify_for_this_image_and_key_only(key: PrivateKey, stranger: PrivateKey) -> None:
    """A signature copied from another image is none, nor is one by another key."""
    for signature in sign(ONE, REPOSITORY, key):
        assert signer(signature, ONE, [stranger.public, key.public]) == key.public
        assert signer(signature, OTHER, [key.public]) is None
        assert signer(signature, ONE, [stranger.public]) is None
        assert signer(signature, ONE, []) is None


def test_changed_payloads_are_refused(key: PrivateKey) -> None:
    """One other byte in the payload, the signature or the statement, and it is none."""
    plain, sealed = sign(ONE, REPOSITORY, key)
    assert signer(plain._replace(payload=plain.payload.replace(b"team", b"evil")), ONE, [key.public]) is None
    assert signer(plain._replace(payload=plain.payload.replace(b"ab", b"cd")), OTHER, [key.public]) is None
    turned = base64.b64encode(base64.b64decode(plain.signature)[:-1] + b"\0").decode()
    assert signer(plain._replace(signature=turned), ONE, [key.public]) is None
    document = json.loads(sealed.payload)
    statement = base64.b64decode(document["dsseEnvelope"]["payload"]).replace(b"ab" * 32, b"cd" * 32)
    document["dsseEnvelope"]["payload"] = base64.b64encode(statement).decode()
    assert signer(sealed._replace(payload=json.dumps(document).encode()), OTHER, [key.public]) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"cosign container image signature", b"atomic container signature"),
        (b'"docker-manifest-digest"', b'"Docker-manifest-digest"'),
        (b'{"critical"', b'["critical"'),
        (b"sha256:", b"sha512:"),
    ],
)
def test_signed_nonsense_is_no_signature(key: PrivateKey, old: bytes, new: bytes) -> None:
    """What a trusted key signed, but is no claim about this image, does not count."""
    assert signer(simple(simple_payload(ONE, REPOSITORY).replace(old, new), key), ONE, [key.public]) is None


def test_other_tools_optional_claims_are_no_obstacle(key: PrivateKey) -> None:
    """cosign -a writes annotations into the payload."""
    payload = simple_payload(ONE, REPOSITORY).replace(b'"optional":null', b'"optional":{"ci":[1,{"a":null}]}')
    assert signer(simple(payload, key), ONE, [key.public]) == key.public


def test_attestations_are_no_signatures(key: PrivateKey) -> None:
    """A signed list of holes must not open a door."""
    assert signer(bundle(ONE, "https://cyclonedx.org/bom", key), ONE, [key.public]) is None
    assert signer(bundle(ONE, "https://sigstore.dev/cosign/sign/v1", key), ONE, [key.public]) == key.public


def test_the_type_in_the_envelope_is_signed_too(key: PrivateKey) -> None:
    """DSSE: an envelope whose payload type was changed is worth nothing."""
    _, sealed = sign(ONE, REPOSITORY, key)
    assert authenticated("a b", b"c") == b"DSSEv1 3 a b 1 c"
    assert (
        signer(sealed._replace(payload=sealed.payload.replace(b"in-toto+json", b"other+json")), ONE, [key.public])
        is None
    )


def test_securesystemslib_finds_the_envelope_good(key: PrivateKey, stranger: PrivateKey) -> None:
    """The reference implementation of DSSE verifies what we sealed."""
    dsse = pytest.importorskip("securesystemslib.dsse")
    signers_module = pytest.importorskip("securesystemslib.signer")
    errors = pytest.importorskip("securesystemslib.exceptions")
    envelope = parse_bundle(sign(ONE, REPOSITORY, key)[1].payload)
    theirs = signers_module.SSlibKey.from_crypto(key.public.key)
    signatures = [{"sig": envelope.signatures[0].sig, "keyid": theirs.keyid}]
    found = dsse.Envelope.from_dict(
        {"payload": envelope.payload, "payloadType": PAYLOAD_TYPE, "signatures": signatures}
    )
    assert found.verify([theirs], 1)
    assert found.payload == payload_of(envelope)
    with pytest.raises(errors.VerificationError):
        found.verify([signers_module.SSlibKey.from_crypto(stranger.public.key)], 1)


@pytest.mark.parametrize(
    ("claimed", "asked", "fits"),
    [
        (REPOSITORY, REPOSITORY, True),
        (f"{REPOSITORY}:1", REPOSITORY, True),
        (f"{REPOSITORY}@{ONE}", REPOSITORY, True),
        (f"{REPOSITORY}2", REPOSITORY, False),
        ("other.example/team/bert", REPOSITORY, False),
        ("docker.io/library/python", "docker.io/library/python", True),
    ],
)
def test_the_repository_a_signature_is_for(key: PrivateKey, claimed: str, asked: str, fits: bool) -> None:
    """cosign writes the repository, and newer versions a tag or a digest behind it."""
    plain, sealed = sign(ONE, claimed, key)
    assert is_for(plain, asked) is fits
    assert is_for(sealed, asked)
    assert not is_for(plain._replace(payload=b"{}"), asked)


def test_several_keys_are_found_in_their_order(key: PrivateKey, stranger: PrivateKey) -> None:
    """Signatures add up."""
    found = [*sign(ONE, REPOSITORY, stranger), *sign(ONE, REPOSITORY, key)]
    assert signers(found, ONE, [key.public, stranger.public]) == (key.public, stranger.public)
    assert signers(found, OTHER, [key.public, stranger.public]) == ()


def test_the_manifest_under_the_tag(key: PrivateKey) -> None:
    """It has cosign's tag, an image configuration that cosign can add to, and says what it is about."""
    plain, _ = sign(ONE, REPOSITORY, key)
    layer = plain.blob.descriptor
    subject = Descriptor(media_type=MANIFEST, digest=ONE, size=7)
    manifest = json.loads(signature_manifest([layer], subject, {}))
    config = signature_config([layer])
    assert signature_tag(ONE) == f"sha256-{'ab' * 32}.sig"
    assert manifest == {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(config),
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": SIMPLE_SIGNING,
                "digest": digest_of(plain.payload),
                "size": len(plain.payload),
                "annotations": {ANNOTATION: plain.signature},
            }
        ],
        "subject": {"mediaType": MANIFEST, "digest": ONE, "size": 7},
    }
    assert json.loads(config)["rootfs"] == {"type": "layers", "diff_ids": [digest_of(plain.payload)]}


def test_the_bundle_is_a_sigstore_bundle(key: PrivateKey) -> None:
    """What cosign 3 needs of one: the type, the key's hint, and a statement with cosign's predicate."""
    document: dict[str, Any] = json.loads(sign(ONE, REPOSITORY, key)[1].payload)
    statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    assert document["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert base64.b64decode(document["verificationMaterial"]["publicKey"]["hint"]).hex() == key.public.fingerprint
    assert statement == {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
        "subject": [{"digest": {"sha256": "ab" * 32}}],
    }


hostile = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["critical", "image", "dsseEnvelope", "mediaType", "payload"]), inner)
        ),
    ).map(msgspec.json.encode),
    st.just(b"[" * 100_000),
)


@given(payload=hostile, signature=st.text(max_size=20), kind=st.sampled_from([SIMPLE_SIGNING, BUNDLE_TYPE]))
def test_nothing_found_in_a_registry_is_taken_for_a_signature(
    key: PrivateKey, payload: bytes, signature: str, kind: str
) -> None:
    """Whatever the bytes are: no exception, and no approval."""
    assert signer(Signature(kind, payload, signature), ONE, [key.public]) is None


@given(payload=hostile)
def test_what_a_trusted_key_signed_is_still_read_with_care(key: PrivateKey, payload: bytes) -> None:
    """Signed garbage is garbage."""
    assert signer(simple(payload, key), ONE, [key.public]) is None
