"""cosign's encrypted private keys: scrypt and NaCl's secretbox in JSON in PEM.

As sigstore/cosign pkg/cosign/keys.go and go-securesystemslib encrypted/encrypted.go write them. Keys that mlbox makes
have this form too: 'cosign sign --key' takes them, and scrypt makes every guess at the password cost 64 MiB.
"""

import base64
import binascii
import hashlib
import os
import textwrap

import msgspec

from mlbox.codec import decode_json
from mlbox.errors import TrustError

_PARAMETERS = ((1 << 15, 8, 1), (1 << 16, 8, 1), (1 << 17, 8, 1))
"""scrypt's N, r and p as that library knows them: others would let a file decide how long we compute."""
_OURS = _PARAMETERS[1]
_LABEL = "ENCRYPTED SIGSTORE PRIVATE KEY"


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


def encrypt(der: bytes, password: bytes) -> bytes:
    """Return the PEM file of a PKCS #8 key (DER), encrypted with `password`."""
    from nacl.secret import SecretBox

    salt, nonce = os.urandom(32), os.urandom(SecretBox.NONCE_SIZE)
    n, r, p = _OURS
    sealed = _Sealed(
        kdf=_Kdf(name="scrypt", params=_Parameters(N=n, r=r, p=p), salt=salt),
        cipher=_Cipher(name="nacl/secretbox", nonce=nonce),
        ciphertext=SecretBox(_stretched(password, salt, _OURS)).encrypt(der, nonce).ciphertext,
    )
    body = "\n".join(textwrap.wrap(base64.b64encode(msgspec.json.encode(sealed)).decode(), 64))
    return f"-----BEGIN {_LABEL}-----\n{body}\n-----END {_LABEL}-----\n".encode()


def decrypt(pem: bytes, password: bytes, name: str) -> bytes:
    """Return the PKCS #8 key (DER) inside `pem`; `name` says in messages which file it is."""
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    sealed = _parse(pem, name)
    parameters = sealed.kdf.params
    key = _stretched(password, sealed.kdf.salt, (parameters.N, parameters.r, parameters.p))
    try:
        return SecretBox(key).decrypt(sealed.ciphertext, sealed.cipher.nonce)
    except (CryptoError, ValueError, TypeError):
        raise TrustError(f"cannot open the key {name}: wrong password, or the file is damaged") from None


def _stretched(password: bytes, salt: bytes, parameters: tuple[int, int, int]) -> bytes:
    n, r, p = parameters
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32)


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
