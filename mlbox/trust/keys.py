"""Keys: files that sign and verify.

mlbox signs with ECDSA P-256 and SHA-256, the one scheme that every tool which reads cosign's signatures must know. It
verifies with what cosign's users have besides: P-384, P-521, RSA (PKCS #1 v1.5) and Ed25519.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlbox.errors import TrustError, UsageError
from mlbox.files import disk_errors

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

Ask = Callable[[], bytes]
"""Returns the password of a key; called only for a key that has one."""

_LIMIT = 64 << 10
_RSA_BITS = range(2048, 8193)
_PASSWORD_HINT = "give its password: at the prompt, in MLBOX_KEY_PASSWORD, or with --password-stdin"  # noqa: S105


class PublicKey(NamedTuple):
    """A key that verifies, and where it was read from."""

    name: str
    fingerprint: str
    """sha256 (hex) of the key's DER form: the same for every file that holds this key."""
    key: Any

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether this key signed `data`."""
        from cryptography.exceptions import InvalidSignature

        for check in _checks(self.key):
            try:
                check(signature, data)
            except (InvalidSignature, ValueError):
                continue
            return True
        return False

    @property
    def pem(self) -> bytes:
        """The key as others read it."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        pem: bytes = self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem


class PrivateKey(NamedTuple):
    """A key that signs."""

    public: PublicKey
    key: "EllipticCurvePrivateKey"

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data` (DER): the same for the same data (RFC 6979), where OpenSSL can do that.

        So an image that is pushed and signed twice has one signature.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            return self.key.sign(data, ECDSA(SHA256(), deterministic_signing=True))
        except UnsupportedAlgorithm:
            return self.key.sign(data, ECDSA(SHA256()))

    def __repr__(self) -> str:
        """Say which key it is, and nothing of it."""
        return f"PrivateKey({self.public.name})"


def generate(prefix: Path, password: bytes) -> tuple[Path, Path]:
    """Make a key pair: PREFIX.key (encrypted with `password`, for its owner only) and PREFIX.pub; return their paths.

    A file that is there is never written over.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from mlbox.trust.cosign_key import encrypt

    if not password:
        raise UsageError("a signing key needs a password", hint=_PASSWORD_HINT)
    if not prefix.name:
        raise UsageError(f"{prefix} is a folder", hint="give the beginning of a file's name: PREFIX.key, PREFIX.pub")
    private, public = (prefix.with_name(prefix.name + ending) for ending in (".key", ".pub"))
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists, and keys are never overwritten", hint="give another prefix")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = encrypt(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), password)
    with disk_errors(f"writing {private}"):
        private.parent.mkdir(parents=True, exist_ok=True)
        _write(private, pem, 0o600)
        _write(public, _public(key.public_key(), str(public)).pem, 0o644)
    return private, public


def load_public(path: Path) -> PublicKey:
    """Return the public key of the PEM file `path`."""
    return parse_public(_read(path), str(path))


def parse_public(data: bytes, name: str) -> PublicKey:
    """Return the public key that the PEM text `data` holds; `name` says in messages where it is from."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in data:
        raise TrustError(f"{name} is a private key", hint=f"verify with the public one: 'mlbox key public {name}'")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise TrustError(f"{name}: no public key in PEM form", hint="'mlbox key generate' makes a pair") from None
    return _public(key, name)


def load_private(path: Path, ask: Ask) -> PrivateKey:
    """Return the private key of the file `path`; `ask` is called for its password when it has one.

    Reads cosign's encrypted form, which `generate` writes, and PKCS #8, which openssl does.
    """
    data = _read(path)
    if b"COSIGN PRIVATE KEY" in data or b"SIGSTORE PRIVATE KEY" in data:
        from mlbox.trust.cosign_key import decrypt

        return _private(decrypt(data, ask(), str(path)), path, None)
    if b"PRIVATE KEY" not in data:
        raise TrustError(f"{path}: no private key in PEM form", hint="sign with the .key file of the pair")
    locked = b"ENCRYPTED" in data
    return _private(data, path, ask() if locked else None)


def _private(data: bytes, path: Path, password: bytes | None) -> PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    load = serialization.load_pem_private_key if data.startswith(b"-----") else serialization.load_der_private_key
    try:
        key = load(data, password or None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What the library says may quote the key; so nothing of it, and no cause.
        reason = "wrong password, or the file is damaged" if password is not None else "the file is damaged"
        raise TrustError(f"cannot open the key {path}: {reason}", hint=_PASSWORD_HINT) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustError(
            f"{path}: mlbox signs with ECDSA P-256 keys only", hint="'mlbox key generate' makes one; others can verify"
        )
    return PrivateKey(_public(key.public_key(), str(path)), key)


def _public(key: Any, name: str) -> PublicKey:  # noqa: ANN401 - one of cryptography's many
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    curves = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
    known = (
        (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, curves))
        or (isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS)
        or isinstance(key, ed25519.Ed25519PublicKey)
    )
    if not known:
        raise TrustError(
            f"{name}: a key of a kind that mlbox does not verify with",
            hint="use ECDSA P-256, P-384 or P-521, RSA of 2048 bits or more, or Ed25519",
        )
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(name, hashlib.sha256(der).hexdigest(), key)


def _checks(key: Any) -> list[Callable[[bytes, bytes], None]]:  # noqa: ANN401 - one of cryptography's many
    """Return the ways in which `key` may have signed.

    The hash is not written down anywhere: cosign takes SHA-256 for all keys (its SIGNATURE_SPEC, "Hashing Algorithms")
    and, since version 3, the one of the curve's size.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    if isinstance(key, ed25519.Ed25519PublicKey):
        return [key.verify]
    if isinstance(key, rsa.RSAPublicKey):
        return [lambda signature, data: key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())]
    of_curve: dict[str, hashes.HashAlgorithm] = {"secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
    kinds = {kind.name: kind for kind in (of_curve.get(key.curve.name, hashes.SHA256()), hashes.SHA256())}
    return [
        lambda signature, data, kind=kind: key.verify(signature, data, ec.ECDSA(kind))  # type: ignore[misc]
        for kind in kinds.values()
    ]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        raise TrustError(f"there is no key {path}", hint="'mlbox key generate' makes a pair") from None
    except OSError as problem:
        raise TrustError(f"cannot read the key {path}: {problem.strerror}") from problem
    if len(data) > _LIMIT:
        raise TrustError(f"{path} is too large for a key")
    return data


def _write(path: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
