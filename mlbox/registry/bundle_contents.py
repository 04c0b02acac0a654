"""What bundle.json says, which may be written by strangers: every contradiction in it is found before it is used."""

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import suppress

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import ArchiveError, MlboxError
from mlbox.oci.digest import Digest, is_digest
from mlbox.oci.image import LAYER_GZIP, LAYER_TAR, LAYER_ZSTD
from mlbox.oci.reference import parse_reference
from mlbox.registry.bundle import CONTENTS, FORMAT, BundledFile, BundledLayer, Contents, blobs_of, documents_of
from mlbox.store.content import DOCUMENT_LIMIT
from mlbox.store.referrers import ATTACHMENT_LIMIT

LARGEST = 1 << 50
"""Bytes of the largest blob or layer that a bundle may name."""
_PIECE = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[^/\0-\x1f\x7f]{1,255}")
_WORD = re.compile(r"[a-z0-9._-]{1,64}")
_AGAIN = "copy or make the bundle again; 'mlbox bundle verify FILE' checks all of it"


class Damage(ArchiveError):
    """The bundle is damaged, or was never one."""

    def __init__(self, message: str, *, hint: str | None = _AGAIN) -> None:
        super().__init__(message, hint=hint)


def parse_contents(data: bytes, what: str) -> Contents:
    """Return the contents that `data` is the one text of; Damage naming `what` when it cannot be believed."""
    version = decode_json(data, _Version, what=f"{what}: {CONTENTS}", error=Damage).format
    if version != FORMAT:
        raise ArchiveError(
            f"{what}: a bundle of format {version}, this mlbox knows {FORMAT}",
            hint="upgrade mlbox, or make the bundle with this version of it",
        )
    contents = decode_json(data, Contents, what=f"{what}: {CONTENTS}", error=Damage)
    if canonical_json(contents) != data:
        raise Damage(f"{what}: {CONTENTS} is not written as mlbox writes it")
    for problem in problems_of(contents):
        raise Damage(f"{what}: {CONTENTS}: {problem}")
    return contents


def problems_of(contents: Contents) -> Iterator[str]:
    """Yield what contradicts itself in `contents`."""
    yield from _digests(contents)
    if not contents.images:
        yield "no image"
    yield from _order("images", [image.digest for image in contents.images])
    yield from _order("layers", [layer.diff_id for layer in contents.layers])
    yield from _order("remotes", [(remote.repository, remote.manifest.digest) for remote in contents.remotes])
    yield from _order("files", [file.digest for file in contents.files])
    yield from _order("pieces", contents.pieces)
    yield from _order("since", contents.since)
    yield from _order("names", sorted(name for image in contents.images for name in image.names))
    yield from _words(contents)
    yield from _sizes(contents)
    yield from _forms(contents)
    yield from _subjects(contents)


def _digests(contents: Contents) -> Iterator[str]:
    found = (
        *(image.digest for image in contents.images),
        *(layer.diff_id for layer in contents.layers),
        *(remote.image for remote in contents.remotes),
        *(referrer.subject for referrer in contents.referrers),
        *(file.digest for file in contents.files),
        *contents.since,
    )
    yield from (f"not a digest: {digest[:100]!r}" for digest in found if not is_digest(digest))
    if any(not 0 <= size <= LARGEST for item in (contents.layers, contents.files) for size in _sizes_of(item)):
        yield "a size that nothing has"


def _sizes_of(items: Iterable[BundledLayer] | Iterable[BundledFile]) -> Iterator[int]:
    return (item.size for item in items)


def _order(what: str, items: Sequence[Hashable]) -> Iterator[str]:
    if list(items) != sorted(set(items)):  # type: ignore[type-var]  # all of one kind
        yield f"its {what} are not sorted, or one comes twice"


def _words(contents: Contents) -> Iterator[str]:
    for image in contents.images:
        yield from (f"not a name: {name[:100]!r}" for name in image.names if not _is_name(name))
        if not (_WORD.fullmatch(image.architecture) and _WORD.fullmatch(image.os)):
            yield f"image {image.digest}: no platform"
    for remote in contents.remotes:
        if not _is_name(f"{remote.repository}:latest"):
            yield f"not a repository: {remote.repository[:100]!r}"
    for file in contents.files:
        if not _PLAIN.fullmatch(file.filename):
            yield f"not a file name: {file.filename[:100]!r}"
    built = (key for file in contents.files for key in file.built)
    if not all(_PIECE.fullmatch(piece) for piece in (*contents.pieces, *built)):
        yield "a piece's key that is none"
    if any(len(layer.name) > 255 or not layer.name.isprintable() for layer in contents.layers):
        yield "a layer's name that is none"


def _sizes(contents: Contents) -> Iterator[str]:
    sizes: dict[Digest, int] = {}
    for blob in blobs_of(contents):
        if sizes.setdefault(blob.digest, blob.size) != blob.size:
            yield f"blob {blob.digest} has two sizes"
    if any(size > LARGEST for size in sizes.values()):
        yield "a size that nothing has"
    documents = {blob.digest for referrer in contents.referrers for blob in referrer.blobs}
    for blob in documents_of(contents):
        if blob.size > (ATTACHMENT_LIMIT if blob.digest in documents else DOCUMENT_LIMIT):
            yield f"document {blob.digest} is too large: {blob.size} bytes"


def _forms(contents: Contents) -> Iterator[str]:
    for layer in contents.layers:
        if (layer.blob is not None) != (layer.way == "blob"):
            yield f"layer {layer.diff_id} contradicts itself"
        if layer.blob and layer.blob.media_type not in (LAYER_TAR, LAYER_GZIP, LAYER_ZSTD):
            yield f"layer {layer.diff_id} has the type {layer.blob.media_type[:100]!r}"
    for image in contents.images:
        if (image.manifest is not None) != contents.has_all_layers:
            yield f"image {image.digest} contradicts itself"


def _subjects(contents: Contents) -> Iterator[str]:
    known: set[Digest] = {image.digest for image in contents.images}
    yield from (f"{r.manifest.digest} is of no image here" for r in contents.remotes if r.image not in known)
    known.update(remote.manifest.digest for remote in contents.remotes)
    for referrer in contents.referrers:
        if referrer.subject not in known:
            yield f"artifact {referrer.manifest.digest} is about nothing here"
        known.add(referrer.manifest.digest)


class _Version(msgspec.Struct):
    format: int


def _is_name(text: str) -> bool:
    with suppress(MlboxError):
        reference = parse_reference(text)
        return str(reference) == text and reference.digest is None
    return False
