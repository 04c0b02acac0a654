"""cosign's encrypted private keys: scrypt and NaCl's secretbox in JSON in PEM.

As sigstore/cosign pkg/cosign/keys.go and go-securesystemslib encrypted/encrypted.go write them.
"""

import base64
import binascii
import hashlib

import msgspec

from mlbox.codec import decode_json
from mlbox.errors import TrustError

_PARAMETERS = ((1 << 15, 8, 1), (1 << 16, 8, 1), (1 << 17, 8, 1))
"""scrypt's N, r and p as that library knows them: others would let a file decide how long we compute."""


class _Parameters(msgspec.Struct, frozen=True):
    N: int
    r: int
    p: int


class _Kdf(msgspec.Struct, frozen=True):
    name: str
    params: _Parameters
    salt: bytes


class _Cipher(msgspec.Struct, frozen=True):
    name: str
    nonce: bytes


class _Sealed(msgspec.Struct, frozen=True):
    kdf: _Kdf
    cipher: _Cipher
    ciphertext: bytes


def decrypt(pem: bytes, password: bytes, name: str) -> bytes:
    """Return the PKCS #8 key (DER) inside `pem`; `name` says in messages which file it is."""
    try:
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox
    except ImportError:
        raise TrustError(
            f"{name} is a key in cosign's own form, which needs PyNaCl",
            hint="'pip install pynacl' beside mlbox, or make a key with 'mlbox key generate'",
        ) from None
    sealed = _parse(pem, name)
    n, r, p = sealed.kdf.params.N, sealed.kdf.params.r, sealed.kdf.params.p
    key = hashlib.scrypt(password, salt=sealed.kdf.salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=SecretBox.KEY_SIZE)
    try:
        return SecretBox(key).decrypt(sealed.ciphertext, sealed.cipher.nonce)
    except (CryptoError, ValueError, TypeError):
        raise TrustError(f"cannot open the key {name}: wrong password, or the file is damaged") from None


def _parse(pem: bytes, name: str) -> _Sealed:
    damaged = TrustError(f"{name}: damaged, or of a form that mlbox does not know")
    lines = pem.strip().splitlines()
    try:
        body = base64.b64decode(b"".join(lines[1:-1]), validate=True)
    except binascii.Error:
        raise damaged from None
    sealed = decode_json(body, _Sealed, what=name, error=TrustError)
    parameters = (sealed.kdf.params.N, sealed.kdf.params.r, sealed.kdf.params.p)
    if (sealed.kdf.name, sealed.cipher.name) != ("scrypt", "nacl/secretbox") or parameters not in _PARAMETERS:
        raise damaged
    return sealed
