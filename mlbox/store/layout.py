"""Writing an image as an OCI image layout, a folder or an archive, that other tools read."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import StoreError
from mlbox.files import disk_errors, write_atomic
from mlbox.oci.digest import DiffID, Digest, hex_of
from mlbox.oci.image import INDEX, MANIFEST, Descriptor, Image, ImageIndex, Platform
from mlbox.oci.layer import END, Entry, header, padding, sort_entries
from mlbox.oci.reference import Reference
from mlbox.store.publish import publish_file, remove_tree
from mlbox.store.store import Store

REF_NAME = "org.opencontainers.image.ref.name"
"""The image-spec's annotation for a name inside a layout."""
MARKER = canonical_json({"imageLayoutVersion": "1.0.0"})

Chunks = Iterable[bytes | memoryview]


class _Blob(NamedTuple):
    digest: Digest
    size: int
    chunks: Callable[[], Chunks]


def export_layout(store: Store, image: Image, target: Path, names: Sequence[Reference] = ()) -> None:
    """Write `image` to `target`: an archive when it ends in '.tar', else a folder.

    A folder that holds a layout gets the image in addition (a name moves to it); any other folder that is not
    empty is refused. Nobody sees half an image: the last step is a rename.
    """
    with disk_errors(f"writing {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".tar":
            _refuse(target, target.is_dir(), "is a folder, and the name says archive")
            with _beside(target) as path, path.open("xb") as file:
                write_archive(store, image, file, names)
                publish_file(path, file, target)
        elif (target / "oci-layout").is_file():
            _fill(store, image, target, names)
        else:
            _refuse(target, target.exists() and not _is_empty(target), "is there and is no OCI image layout")
            with _beside(target) as path:
                path.mkdir()
                _fill(store, image, path, names)
                path.rename(target)


def write_archive(store: Store, image: Image, out: BinaryIO, names: Sequence[Reference] = ()) -> None:
    """Write `image` to `out` as one tar of a layout; equal images and names make equal bytes."""
    documents = {"oci-layout": MARKER, "index.json": _index(image, names)}
    blobs = {f"blobs/sha256/{hex_of(blob.digest)}": blob for blob in _blobs(store, image)}
    entries = [Entry("blobs", "dir", 0o755), Entry("blobs/sha256", "dir", 0o755)]
    entries += [Entry(path, "file", 0o644, size=len(data)) for path, data in documents.items()]
    entries += [Entry(path, "file", 0o644, size=blob.size) for path, blob in blobs.items()]
    for entry in sort_entries(entries):
        out.write(header(entry))
        if blob := blobs.get(entry.path):
            for chunk in _checked(blob):
                out.write(chunk)
        out.write(documents.get(entry.path, b""))
        out.write(padding(entry.size))
    out.write(END)


def _fill(store: Store, image: Image, folder: Path, names: Sequence[Reference]) -> None:
    for blob in _blobs(store, image):
        path = folder / "blobs" / "sha256" / hex_of(blob.digest)
        if not _is_blob(path, blob):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _beside(path) as temporary, temporary.open("xb") as file:
                for chunk in _checked(blob):
                    file.write(chunk)
                publish_file(temporary, file, path)
    index = folder / "index.json"
    known = _known(index)
    write_atomic(folder / "oci-layout", MARKER)
    write_atomic(index, _index(image, names, known))


def _blobs(store: Store, image: Image) -> Iterator[_Blob]:
    """Yield every blob of `image` once; layers are made again from their trees, as they are read."""
    yield _Blob(image.manifest.config.digest, len(image.config_bytes), lambda: (image.config_bytes,))
    yield _Blob(image.digest, len(image.manifest_bytes), lambda: (image.manifest_bytes,))
    for layer in dict.fromkeys((layer.digest, layer.size) for layer in image.manifest.layers):
        yield _Blob(*layer, partial(store.layers.tar, DiffID(layer[0])))


def _checked(blob: _Blob) -> Iterator[bytes | memoryview]:
    digest, size = hashlib.sha256(), 0
    for chunk in blob.chunks():
        digest.update(chunk)
        size += len(chunk)
        yield chunk
    if size != blob.size or digest.hexdigest() != hex_of(blob.digest):
        raise StoreError(f"blob {blob.digest} was changed on the disk", hint="run 'mlbox fsck --deep --repair'")


def _index(image: Image, names: Sequence[Reference], known: dict[str, Any] | None = None) -> bytes:
    """Return the index `known` with one more entry per name of `image`; an older entry of that name goes.

    The rest of `known` was written by others and stays as it is.
    """
    new = [_entry(image, {REF_NAME: name.familiar}) for name in names] or [_entry(image, {})]
    taken = {entry.annotations.get(REF_NAME, entry.digest) for entry in new}
    document = known or {"schemaVersion": 2, "mediaType": INDEX}
    old = document.get("manifests") or []
    kept = [entry for entry in old if (entry.get("annotations") or {}).get(REF_NAME, entry.get("digest")) not in taken]
    return canonical_json({**document, "manifests": [*kept, *new]})


def _entry(image: Image, annotations: dict[str, str]) -> Descriptor:
    return Descriptor(
        media_type=MANIFEST,
        digest=image.digest,
        size=len(image.manifest_bytes),
        annotations=annotations,
        platform=Platform(architecture=image.config.architecture, os=image.config.os),
    )


def _known(index: Path) -> dict[str, Any] | None:
    if not index.is_file():
        return None
    data = index.read_bytes()
    decode_json(data, ImageIndex, what=str(index), error=StoreError)
    return decode_json(data, dict[str, Any], what=str(index), error=StoreError)


def _is_blob(path: Path, blob: _Blob) -> bool:
    if not path.is_file() or path.stat().st_size != blob.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == hex_of(blob.digest)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _refuse(target: Path, condition: bool, reason: str) -> None:
    if condition:
        raise StoreError(f"{target} {reason}", hint="give another path, or remove it first")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Yield a free path in the folder of `target`; what is still there at the end is removed."""
    path = target.with_name(f".tmp-{os.urandom(8).hex()}")
    try:
        yield path
    finally:
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
