"""Writing images for other tools: an OCI image layout (a folder or an archive), or the archive of `docker save`."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import StoreError, UsageError
from mlbox.files import output_errors, output_path, write_atomic
from mlbox.oci.digest import DiffID, Digest, digest_of, hex_of, parse_digest
from mlbox.oci.image import INDEX, MANIFEST, Descriptor, Image, ImageIndex, Platform
from mlbox.oci.layer import END, Entry, header, padding, parents, sort_entries
from mlbox.oci.reference import Reference
from mlbox.store.compression import Compression, compressed
from mlbox.store.publish import file_beside, folder_beside
from mlbox.store.store import Store

REF_NAME = "org.opencontainers.image.ref.name"
"""The image-spec's annotation for a name inside a layout."""
ATTACHMENTS = "vnd.mlbox.attachments"
"""An annotation of index.json: the digest of an index (a blob beside the others) of artifacts about the images.

As entries of index.json itself they would keep podman, and skopeo without a name, from finding the one image.
"""
MARKER = canonical_json({"imageLayoutVersion": "1.0.0"})
ARCHIVES: dict[str, Compression] = {".tar": "none", ".tar.gz": "gzip", ".tgz": "gzip", ".tar.zst": "zstd"}
"""Endings of names that mean an archive, and how it is compressed."""

Chunks = Iterable[bytes | memoryview]
Form = Literal["oci", "docker"]


class Chosen(NamedTuple):
    """An image to write, and the names it has there."""

    image: Image
    names: tuple[Reference, ...] = ()


class _File(NamedTuple):
    """A file of an archive or a layout; its content must have the digest."""

    digest: Digest
    size: int
    chunks: Callable[[], Chunks]


def export_layout(store: Store, image: Image, target: Path, names: Sequence[Reference] = ()) -> None:
    """Write one image to `target` as `export` does."""
    export(store, [Chosen(image, tuple(names))], target)


def export(
    store: Store, chosen: Sequence[Chosen], target: Path, *, form: Form = "oci", attachments: bool = False
) -> None:
    """Write images to `target`: an archive when its name ends like one (ARCHIVES), else a folder.

    A folder that holds a layout gets the images in addition (a name moves to its new image); any other folder that
    is not empty is refused. Nobody sees half an image: the last step is a rename. `attachments` adds the artifacts
    about the images (OCI only).
    """
    compression = compression_of(target)
    with output_errors(target):
        if compression:
            _refuse(target, target.is_dir(), "is a folder, and the name says archive")
            with _archive(target) as file:
                write_archive(store, chosen, file, form=form, attachments=attachments, compression=compression)
            return
        if form == "docker":
            raise UsageError("docker's format is an archive, never a folder", hint="name a file: -o FILE.tar")
        if (target / "oci-layout").is_file():
            with _alone(target):
                _fill(store, chosen, target, attachments)
            return
        _refuse(target, target.exists() and not _is_empty(target), "is there and is no OCI image layout")
        with folder_beside(target) as folder:
            path = folder / target.name
            path.mkdir()
            _fill(store, chosen, path, attachments)
            try:
                path.rename(target)
            except OSError as problem:
                if problem.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                # Somebody else was faster: as if that had been there before.
                export(store, chosen, target, form=form, attachments=attachments)


def compression_of(target: Path) -> Compression | None:
    """Return how an archive of that name is compressed, None when the name means a folder."""
    return next((how for ending, how in ARCHIVES.items() if target.name.endswith(ending)), None)


def write_archive(
    store: Store,
    chosen: Sequence[Chosen],
    out: BinaryIO,
    *,
    form: Form = "oci",
    attachments: bool = False,
    compression: Compression = "none",
) -> None:
    """Write images to `out` as one tar; equal images, names and attachments make equal bytes."""
    files = _docker_files(store, chosen) if form == "docker" else _oci_files(store, chosen, attachments)
    for chunk in compressed(_tar(files), compression):
        out.write(chunk)


def _tar(files: dict[str, _File]) -> Iterator[bytes | memoryview]:
    entries = [Entry(path, "dir", 0o755) for path in parents(files)]
    entries += [Entry(path, "file", 0o644, size=file.size) for path, file in files.items()]
    for entry in sort_entries(entries):
        yield header(entry)
        if file := files.get(entry.path):
            yield from _checked(file)
            yield padding(entry.size)
    yield END


def _oci_files(store: Store, chosen: Sequence[Chosen], attachments: bool) -> dict[str, _File]:
    about = _attachments(store, chosen) if attachments else None
    files = {f"blobs/sha256/{hex_of(file.digest)}": file for file in _blobs(store, chosen, about)}
    index = _index(chosen, about, {})
    return {**files, "oci-layout": _bytes(MARKER), "index.json": _bytes(index)}


def _docker_files(store: Store, chosen: Sequence[Chosen]) -> dict[str, _File]:
    """Return the files of an archive like that of `docker save`: layers by diffID, configurations by digest."""
    files: dict[str, _File] = {}
    manifest: dict[Digest, dict[str, Any]] = {}
    repositories: dict[str, dict[str, str]] = {}
    for image, names in chosen:
        for layer in image.manifest.layers:
            files[f"{hex_of(layer.digest)}.tar"] = _layer(store, layer)
        config = f"{hex_of(image.manifest.config.digest)}.json"
        files[config] = _bytes(image.config_bytes)
        layers = [f"{hex_of(layer.digest)}.tar" for layer in image.manifest.layers]
        entry = manifest.setdefault(image.digest, {"Config": config, "RepoTags": [], "Layers": layers})
        for name in names:
            entry["RepoTags"].append(name.familiar)
            top = layers[-1].removesuffix(".tar") if layers else ""
            repositories.setdefault(name.familiar.removesuffix(f":{name.tag}"), {})[name.tag] = top
    files["manifest.json"] = _bytes(canonical_json(list(manifest.values())))
    files["repositories"] = _bytes(canonical_json(repositories))
    return files


def _fill(store: Store, chosen: Sequence[Chosen], folder: Path, attachments: bool) -> None:
    known = _known(folder / "index.json")
    about = _attachments(store, chosen, _known_attachments(folder, known)) if attachments else None
    for file in _blobs(store, chosen, about):
        path = _blob_path(folder, file.digest)
        if not _is_blob(path, file):
            with file_beside(path) as out:
                for chunk in _checked(file):
                    out.write(chunk)
    write_atomic(folder / "oci-layout", MARKER)
    write_atomic(folder / "index.json", _index(chosen, about, known))


def _attachments(store: Store, chosen: Sequence[Chosen], known: Sequence[Descriptor] = ()) -> bytes:
    """Return an index of the artifacts about the images and of those about them, as signatures of documents are."""
    found = {artifact.digest: artifact for artifact in known}
    for image, _ in chosen:
        for artifact in store.referrers.of(image.digest):
            found[artifact.digest] = artifact
            found |= {deeper.digest: deeper for deeper in store.referrers.of(artifact.digest)}
    return canonical_json(ImageIndex(manifests=tuple(found.values())))


def _blobs(store: Store, chosen: Sequence[Chosen], about: bytes | None) -> Iterator[_File]:
    """Yield every blob once; layers are made again from their trees, as they are read."""
    found: dict[Digest, _File] = {}
    for image, _ in chosen:
        found[image.manifest.config.digest] = _bytes(image.config_bytes)
        found[image.digest] = _bytes(image.manifest_bytes)
        found.update((layer.digest, _layer(store, layer)) for layer in image.manifest.layers)
    if about is not None:
        found[digest_of(about)] = _bytes(about)
        for artifact in decode_json(about, ImageIndex, what="attachments").manifests:
            if store.content.has(artifact.digest):  # else it was in the folder before
                manifest = store.referrers.manifest(artifact.digest)
                for blob in (artifact, manifest.config, *manifest.layers):
                    found[blob.digest] = _File(blob.digest, blob.size, partial(_attached, store, blob))
    yield from found.values()


def _bytes(data: bytes) -> _File:
    return _File(digest_of(data), len(data), lambda: (data,))


def _layer(store: Store, layer: Descriptor) -> _File:
    return _File(layer.digest, layer.size, partial(store.layers.tar, DiffID(layer.digest)))


def _attached(store: Store, blob: Descriptor) -> Chunks:
    return (store.referrers.blob(blob),)


def _checked(file: _File) -> Iterator[bytes | memoryview]:
    digest, size = hashlib.sha256(), 0
    for chunk in file.chunks():
        digest.update(chunk)
        size += len(chunk)
        yield chunk
    if size != file.size or digest.hexdigest() != hex_of(file.digest):
        raise StoreError(f"blob {file.digest} was changed on the disk", hint="run 'mlbox fsck --deep --repair'")


def _index(chosen: Sequence[Chosen], about: bytes | None, known: dict[str, Any]) -> bytes:
    """Return the index `known` with one more entry per name of each image; an older entry of that name goes.

    The rest of `known` was written by others and stays as it is.
    """
    new: dict[str, Descriptor] = {}
    for image, names in chosen:
        new |= {name.familiar: _entry(image, {REF_NAME: name.familiar}) for name in names}
        if not names:
            new[image.digest] = _entry(image, {})
    document = known or {"schemaVersion": 2, "mediaType": INDEX}
    old = document.get("manifests") or []
    kept = [entry for entry in old if (entry.get("annotations") or {}).get(REF_NAME, entry.get("digest")) not in new]
    if about is not None:
        document = {**document, "annotations": {**(document.get("annotations") or {}), ATTACHMENTS: digest_of(about)}}
    return canonical_json({**document, "manifests": [*kept, *new.values()]})


def _entry(image: Image, annotations: dict[str, str]) -> Descriptor:
    config = image.config
    return Descriptor(
        media_type=MANIFEST,
        digest=image.digest,
        size=len(image.manifest_bytes),
        annotations=annotations,
        platform=Platform(architecture=config.architecture, os=config.os, variant=config.variant),
    )


def _known(index: Path) -> dict[str, Any]:
    if not index.is_file():
        return {}
    data = index.read_bytes()
    decode_json(data, ImageIndex, what=str(index), error=StoreError)
    return decode_json(data, dict[str, Any], what=str(index), error=StoreError)


def _known_attachments(folder: Path, index: dict[str, Any]) -> tuple[Descriptor, ...]:
    digest = (index.get("annotations") or {}).get(ATTACHMENTS)
    if digest is None:
        return ()
    path = _blob_path(folder, parse_digest(digest))
    return decode_json(path.read_bytes(), ImageIndex, what=str(path), error=StoreError).manifests


def _blob_path(folder: Path, digest: Digest) -> Path:
    return folder / "blobs" / "sha256" / hex_of(digest)


def _is_blob(path: Path, file: _File) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as there:
        return hashlib.file_digest(there, "sha256").hexdigest() == hex_of(file.digest)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time change an index; where folders have no locks, as on NFS, nobody waits."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _refuse(target: Path, condition: bool, reason: str) -> None:
    if condition:
        raise StoreError(f"{target} {reason}", hint="give another path, or remove it first")


@contextmanager
def _archive(target: Path) -> Iterator[BinaryIO]:
    """Yield the file that will be at `target` when all went well."""
    place = output_path(target)
    if place is None:
        with target.open("wb") as pipe:
            yield pipe
        return
    with file_beside(place) as file:
        yield file
