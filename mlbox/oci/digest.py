"""Digests: of blobs (Digest), of uncompressed layers (DiffID)."""

import hashlib
import re
from typing import NewType

from mlbox.errors import MlboxError

Digest = NewType("Digest", str)
DiffID = NewType("DiffID", str)

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: str) -> Digest:
    """Return `text` as a digest; anything but 'sha256:' and 64 lower-case hex digits raises MlboxError."""
    if not is_digest(text):
        raise MlboxError(f"not a digest: {text[:100]!r}", hint="a digest is 'sha256:' and 64 hex digits")
    return Digest(text)


def is_digest(text: str) -> bool:
    """Whether `text` is 'sha256:' and 64 lower-case hex digits."""
    return _SHA256.fullmatch(text) is not None


def parse_diff_id(text: str) -> DiffID:
    """Return `text` as the digest of an uncompressed layer."""
    return DiffID(parse_digest(text))


def digest_of(data: bytes) -> Digest:
    """Return the digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def hex_of(digest: Digest | DiffID) -> str:
    """Return the hex part, which names the file that holds it."""
    return digest.removeprefix("sha256:")
