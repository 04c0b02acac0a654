"""Bundles of a few bytes, sound ones and ones that a stranger might write."""

import io
from collections.abc import Mapping
from typing import Any

import msgspec

from mlbox.codec import canonical_json
from mlbox.oci.digest import DiffID, Digest, digest_of, hex_of
from mlbox.oci.image import CONFIG, LAYER_TAR, MANIFEST, Descriptor
from mlbox.oci.layer import END, Entry, header, padding
from mlbox.registry.bundle import (
    FORMAT,
    MARKER,
    BundledFile,
    BundledImage,
    BundledLayer,
    BundledReferrer,
    Contents,
)
from mlbox.registry.bundle_write import write_bundle

CONFIG_BYTES = b'{"architecture":"amd64","os":"linux"}'
MANIFEST_BYTES = b'{"schemaVersion":2}'
LAYER_BYTES = b"layer" * 200
WHEEL_BYTES = b"wheel" * 300
REFERRER_BYTES = b'{"about":"it"}'
NOTE_BYTES = b"a note"
BLOBS = {
    digest_of(data): data
    for data in (CONFIG_BYTES, MANIFEST_BYTES, LAYER_BYTES, WHEEL_BYTES, REFERRER_BYTES, NOTE_BYTES)
}
NAME = "docker.io/me/bert:1"


def described(data: bytes, media_type: str = "text/plain") -> Descriptor:
    """Return how a document refers to `data`."""
    return Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))


def small() -> Contents:
    """Return contents with one of everything, whose blobs are BLOBS."""
    image = digest_of(b"image")
    return Contents(
        format=FORMAT,
        images=(
            BundledImage(
                digest=image,
                names=(NAME,),
                config=described(CONFIG_BYTES, CONFIG),
                architecture="amd64",
                os="linux",
                manifest=described(MANIFEST_BYTES, MANIFEST),
            ),
        ),
        layers=(
            BundledLayer(
                diff_id=DiffID(digest_of(LAYER_BYTES)),
                size=len(LAYER_BYTES),
                name="numpy",
                way="blob",
                blob=described(LAYER_BYTES, LAYER_TAR),
            ),
        ),
        referrers=(
            BundledReferrer(
                subject=image, manifest=described(REFERRER_BYTES, MANIFEST), blobs=(described(NOTE_BYTES),)
            ),
        ),
        files=(BundledFile(digest=digest_of(WHEEL_BYTES), size=len(WHEEL_BYTES), filename="numpy-1-py3-none-any.whl"),),
    )


def written(contents: Contents, blobs: Mapping[Digest, bytes] = BLOBS) -> bytes:
    """Return the bundle of `contents`."""
    out = io.BytesIO()
    assert write_bundle(contents, lambda digest: [blobs[digest]], out) == len(out.getvalue())
    return out.getvalue()


def plain(contents: Contents) -> dict[str, Any]:
    """Return `contents` as a document that can be changed."""
    document = msgspec.json.decode(canonical_json(contents))
    assert isinstance(document, dict)
    return document


def forged(document: object, *members: tuple[Entry, bytes]) -> bytes:
    """Return a tar whose bundle.json is `document` (an object, or bytes as they are), followed by any members."""
    data = document if isinstance(document, bytes) else canonical_json(document)
    parts = [
        (Entry("bundle.json", "file", 0o644, size=len(data)), data),
        (Entry("bundle.sha256", "file", 0o644, size=78), f"{hex_of(digest_of(data))}  bundle.json\n".encode()),
        (Entry("oci-layout", "file", 0o644, size=len(MARKER)), MARKER),
        *members,
    ]
    return b"".join(header(entry) + content + padding(len(content)) for entry, content in parts) + END
