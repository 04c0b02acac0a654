"""Reading a bundle, which may come from strangers: nothing of it is believed that was not compared."""

import hashlib
import os
import re
import stat
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import ArchiveError, MlboxError
from mlbox.files import CHUNK
from mlbox.oci.digest import Digest, digest_of, hex_of, is_digest
from mlbox.oci.image import LAYER_GZIP, LAYER_TAR, LAYER_ZSTD
from mlbox.oci.layer import BLOCK, END, Entry, header
from mlbox.oci.reference import parse_reference
from mlbox.registry.bundle import (
    CONTENTS,
    CONTENTS_LIMIT,
    FORMAT,
    BundledFile,
    BundledLayer,
    Contents,
    Frame,
    blobs_of,
    documents_of,
    frame_of,
)
from mlbox.registry.bundle_have import Have
from mlbox.store.content import DOCUMENT_LIMIT
from mlbox.store.referrers import ATTACHMENT_LIMIT

LARGEST = 1 << 50
"""Bytes of the largest blob or layer that a bundle may name."""
_SIZE = slice(124, 135)
_OCTAL = re.compile(rb"[0-7]{11}")
_PIECE = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[^/\0-\x1f\x7f]{1,255}")
_WORD = re.compile(r"[a-z0-9._-]{1,64}")
_AGAIN = "copy or make the bundle again; 'mlbox bundle verify FILE' checks all of it"


class Damage(ArchiveError):
    """The bundle is damaged, or was never one."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint=_AGAIN)


class Bundle:
    """An open bundle whose contents have been read. Usable from several threads."""

    def __init__(self, name: str, parts: Sequence[tuple[int, int]]) -> None:
        """`parts` are the open files that make it up, in order, with their sizes."""
        self.name = name
        self._parts = parts
        self.size = sum(size for _, size in parts)
        data = self._contents_bytes()
        self.digest = digest_of(data)
        self.contents = parse_contents(data, name)
        self.frame: Frame = frame_of(self.contents)
        self._check_frame()

    def blob(self, digest: Digest) -> Iterator[bytes]:
        """Yield the blob, which must be read to its end: only there is it known to be what its name says."""
        member = self.frame.blobs[digest]
        if self._read(member.offset, len(member.header)) != member.header:
            raise Damage(f"{self.name}: {member.path} is not where it must be")
        hasher = hashlib.sha256()
        position, end = member.start, member.start + member.size
        while position < end:
            chunk = self._read(position, min(CHUNK, end - position))
            hasher.update(chunk)
            position += len(chunk)
            yield chunk
        if hasher.hexdigest() != hex_of(digest) or any(self._read(end, member.end - end)):
            raise Damage(f"{self.name}: {member.path} was changed: its content has another digest")

    def document(self, digest: Digest) -> bytes:
        """Return a small blob."""
        return b"".join(self.blob(digest))

    def _contents_bytes(self) -> bytes:
        block = self._read(0, min(BLOCK, self.size))
        size = int(block[_SIZE], 8) if _OCTAL.fullmatch(block[_SIZE]) else -1
        if size < 0 or block != header(Entry(CONTENTS, "file", 0o644, size=size)):
            raise Damage(f"{self.name} is no bundle of mlbox")
        if size > CONTENTS_LIMIT:
            raise Damage(f"{self.name}: its contents are larger than {CONTENTS_LIMIT} bytes")
        return self._read(BLOCK, size)

    def _check_frame(self) -> None:
        if self.size < self.frame.size:
            raise Damage(
                f"{self.name}: {self.size} of {self.frame.size} bytes are there: it was cut off, or a part is missing"
            )
        if self.size > self.frame.size:
            raise Damage(f"{self.name}: {self.size - self.frame.size} bytes follow its end")
        if self._read(0, len(self.frame.head)) != self.frame.head or any(self._read(self.size - len(END), len(END))):
            raise Damage(f"{self.name}: what stands around its blobs does not follow from its contents")

    def _read(self, offset: int, size: int) -> bytes:
        found = []
        for fd, length in self._parts:
            while size and offset < length:
                data = os.pread(fd, min(size, length - offset), offset)
                if not data:
                    raise Damage(f"{self.name} became shorter while it was read")
                found.append(data)
                offset += len(data)
                size -= len(data)
            offset -= length
        if size:
            raise Damage(f"{self.name} was cut off")
        return b"".join(found)


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """Open the bundle at `path`, or the parts PATH.001, PATH.002, … of one; Damage when it is none."""
    parts: list[tuple[int, int]] = []
    try:
        for part in parts_of(path):
            parts.append(_open(part))
        yield Bundle(str(path), parts)
    finally:
        for fd, _ in parts:
            os.close(fd)


def parts_of(path: Path) -> list[Path]:
    """Return the files that make up the bundle at `path`, which may be its first part."""
    whole = path.with_suffix("") if path.suffix == ".001" else path
    first = whole.with_name(f"{whole.name}.001")
    if path.suffix != ".001" and (path.exists() or not first.exists()):
        return [path]
    found: list[Path] = []
    while (part := whole.with_name(f"{whole.name}.{len(found) + 1:03}")).exists():
        found.append(part)
    return found or [path]


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
    if not all(_PIECE.fullmatch(piece) for piece in contents.pieces):
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


def given_by(contents: Contents) -> Have:
    """Return what a store has that has loaded a bundle of these `contents`."""
    return Have(
        layers=frozenset(layer.diff_id for layer in contents.layers),
        artifacts=frozenset(hex_of(file.digest) for file in contents.files),
        pieces=frozenset(contents.pieces),
    )


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """What a delta takes for there, and a store does not have."""

    layers: tuple[str, ...] = ()
    """Names with the beginning of their diffIDs."""
    files: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is missing."""
        return bool(self.layers or self.files or self.pieces)

    def __str__(self) -> str:
        """Return it for people; of many things the first few."""
        said = [("layer", self.layers), ("file", self.files), ("unpacked package", self.pieces)]
        return "; ".join(
            f"{len(items)} {what}{'s' if len(items) > 1 else ''}: {', '.join(items[:3])}{', …' if items[3:] else ''}"
            for what, items in said
            if items
        )


def missing_from(have: Have, contents: Contents) -> Missing:
    """Return what a store that has `have` lacks to load a bundle of these `contents`."""
    return Missing(
        layers=tuple(
            f"{layer.name} ({hex_of(layer.diff_id)[:12]})"
            for layer in contents.layers
            if layer.way == "there" and layer.diff_id not in have.layers
        ),
        files=tuple(
            file.filename for file in contents.files if file.there and hex_of(file.digest) not in have.artifacts
        ),
        pieces=tuple(piece[:12] for piece in contents.pieces if piece not in have.pieces),
    )


class _Version(msgspec.Struct):
    format: int


def _is_name(text: str) -> bool:
    with suppress(MlboxError):
        reference = parse_reference(text)
        return str(reference) == text and reference.digest is None
    return False


def _open(path: Path) -> tuple[int, int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as problem:
        raise ArchiveError(f"cannot read {path}: {problem.strerror}") from problem
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise ArchiveError(f"cannot read {path}: a bundle is a file", hint="write what comes through a pipe to a file")
    return fd, status.st_size
