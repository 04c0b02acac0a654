"""The CA bundle and the hashed directory that update-ca-certificates would make."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

from mlbox.build.union import Union

SHARED = "usr/share/ca-certificates"
CERTS = "etc/ssl/certs"

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_SET, _SEQUENCE, _UTF8, _VERSION = 0x31, 0x30, 0x0C, 0xA0
# String types that the hash sees as UTF-8, and how they are encoded (X.680; T61 is read as Latin-1, as OpenSSL does).
_STRINGS = {
    0x0C: "utf-8",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1A: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}


def ca_files(root: Union) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the files and the symlinks (path: target) that make the CA certificates of `root` usable."""
    found = [(name, data) for name in _certificates(root) if (data := root.read(f"{SHARED}/{name}"))]
    if not found:
        return {}, {}
    files = {
        f"{CERTS}/ca-certificates.crt": b"".join(data if data.endswith(b"\n") else data + b"\n" for _, data in found),
        "etc/ca-certificates.conf": "".join(f"{name}\n" for name, _ in found).encode(),
    }
    links: dict[str, str] = {}
    for name, _ in found:
        pem = re.sub(r"[()]", "=", re.sub(r"[ ,]", "_", name.rpartition("/")[2].removesuffix(".crt"))) + ".pem"
        links[f"{CERTS}/{pem}"] = f"/{SHARED}/{name}"
    for path, (_, data) in sorted(zip(list(links), found, strict=True)):
        if (digest := subject_hash(data)) is not None:
            number = next(n for n in range(len(found)) if f"{CERTS}/{digest}.{n}" not in links)
            links[f"{CERTS}/{digest}.{number}"] = path.rpartition("/")[2]
    return files, links


def _certificates(root: Union) -> list[str]:
    prefix = len(SHARED) + 1
    return sorted(path[prefix:] for path in root.below(SHARED) if path.endswith(".crt"))


def subject_hash(pem: bytes) -> str | None:
    """Return the name OpenSSL looks a certificate up by in a hashed directory; None for what is no certificate."""
    match = _PEM.search(pem)
    try:
        der = base64.b64decode(match[1] if match else b"", validate=False)
        subject = _subject(der)
        canonical = b"".join(_rdn(content) for _, content, _ in _items(subject))
    except (binascii.Error, IndexError, UnicodeDecodeError, StopIteration, ValueError):
        return None
    digest = hashlib.sha1(canonical, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _subject(der: bytes) -> bytes:
    certificate = next(_items(der))[1]
    fields = [item for item in _items(next(_items(certificate))[1]) if item[0] != _VERSION]
    return fields[4][1]  # serial, algorithm, issuer, validity, subject


def _items(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield tag, content and whole bytes of each DER value in `data`."""
    position = 0
    while position < len(data):
        tag, length, start = data[position], data[position + 1], position + 2
        if length >= 0x80:
            width = length & 0x7F
            length, start = int.from_bytes(data[start : start + width], "big"), start + width
        if start + length > len(data):
            raise ValueError("a value ends outside its container")
        yield tag, data[start : start + length], data[position : start + length]
        position = start + length


def _rdn(content: bytes) -> bytes:
    return _tlv(_SET, b"".join(sorted(_attribute(attribute) for _, attribute, _ in _items(content))))


def _attribute(content: bytes) -> bytes:
    (_, _, kind), (tag, value, whole) = _items(content)
    if tag in _STRINGS:
        text = value.decode(_STRINGS[tag])
        folded = re.sub(r"[ \t\n\v\f\r]+", " ", text).strip(" ").encode().lower()  # bytes.lower is ASCII only
        whole = _tlv(_UTF8, folded)
    return _tlv(_SEQUENCE, kind + whole)


def _tlv(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content
