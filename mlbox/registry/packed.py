"""The images that an archive says it holds: an OCI image layout, or what `docker save` writes.

Docker since 25 and buildkit write both into one archive; then the layout counts, whose digests can be checked.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from mlbox.codec import decode_json
from mlbox.errors import ArchiveError, MlboxError
from mlbox.oci.artifact import ArtifactManifest
from mlbox.oci.digest import Digest, digest_of, hex_of, is_digest
from mlbox.oci.image import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    ImageIndex,
    check_for_linux,
    parse_config,
)
from mlbox.oci.reference import Reference, parse_reference
from mlbox.registry.members import Members, read
from mlbox.store.content import DOCUMENT_LIMIT
from mlbox.store.layout import ATTACHMENTS, REF_NAME

DEPTH = 4
"""How deep an index may lie in an index."""
MOST_IMAGES = 1000
_AGAIN = "the program that wrote it made a mistake: save the image again"
_WHOLE_NAME = "io.containerd.image.name"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A layer in an archive."""

    path: str
    blob: Descriptor | None = None
    """What its manifest says of it; an archive of docker's says nothing."""


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """An image in an archive; its documents are checked, its layers are not."""

    config_bytes: bytes
    layers: tuple[Part, ...]
    names: tuple[Reference, ...]
    bad_names: tuple[str, ...] = ()
    """What the archive calls it, and is no name of an image."""
    manifest_bytes: bytes = b""
    """None in an archive of docker's."""


class _DockerImage(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    config: str
    layers: tuple[str, ...]
    repo_tags: tuple[str, ...] | None = None


def packed_images(members: Members, arch: str) -> list[Packed]:
    """Return the images in an archive; of one for several machines that for linux and `arch`."""
    if members.has("index.json"):
        found = _Layout(members, arch).images()
    elif members.has("manifest.json"):
        found = [_docker_image(members, image) for image in _docker_images(members)]
    else:
        raise ArchiveError(
            f"{members.name} holds no image: neither index.json nor manifest.json is in it",
            hint="a file system ('docker export') is no image; 'docker save' writes one",
        )
    if not found:
        raise ArchiveError(f"{members.name} holds no image", hint=_AGAIN)
    return found


def packed_artifacts(members: Members) -> Iterator[tuple[bytes, ArtifactManifest]]:
    """Yield the artifacts in a layout that are about a manifest, whichever; an artifact comes after its subject."""
    if not members.has("index.json"):
        return
    index = _index(members)
    entries = [*index.manifests]
    if about := index.annotations.get(ATTACHMENTS):
        data = read_blob(members, blob_path(about, members.name), about, DOCUMENT_LIMIT)
        entries += decode_json(data, ImageIndex, what=f"{members.name}: attachments", error=ArchiveError).manifests
    found: dict[Digest, tuple[bytes, ArtifactManifest]] = {}
    for entry in entries[:MOST_IMAGES]:
        if entry.media_type in MANIFEST_TYPES and entry.digest not in found:
            data = document(members, entry)
            manifest = decode_json(data, ArtifactManifest, what=f"manifest {entry.digest}", error=ArchiveError)
            if manifest.subject is not None:
                found[entry.digest] = (data, manifest)
    yield from sorted(found.values(), key=lambda one: one[1].subject is not None and one[1].subject.digest in found)


def document(members: Members, descriptor: Descriptor) -> bytes:
    """Return a manifest or configuration, checked against what refers to it."""
    data = read_blob(members, blob_path(descriptor.digest, members.name), descriptor.digest, DOCUMENT_LIMIT)
    if len(data) != descriptor.size:
        raise ArchiveError(
            f"{members.name}: {descriptor.digest} has {len(data)} bytes, not {descriptor.size}", hint="copy it again"
        )
    return data


def read_blob(members: Members, path: str, digest: str, limit: int) -> bytes:
    """Return a blob of at most `limit` bytes, checked against its digest."""
    data = read(members, path, limit)
    if digest_of(data) != digest:
        raise ArchiveError(f"{members.name}: {path} has another digest than its name says", hint="copy it again")
    return data


def blob_path(digest: str, archive: str) -> str:
    """Return where a layout has the blob."""
    if not is_digest(digest):
        raise ArchiveError(f"{archive}: not a digest: {digest[:100]!r}", hint=_AGAIN)
    return f"blobs/sha256/{hex_of(Digest(digest))}"


def _index(members: Members) -> ImageIndex:
    what = f"{members.name}: index.json"
    return decode_json(read(members, "index.json", DOCUMENT_LIMIT), ImageIndex, what=what, error=ArchiveError)


class _Layout:
    """The images that the index of a layout names."""

    def __init__(self, members: Members, arch: str) -> None:
        self._members = members
        self._arch = arch
        self._found: dict[Digest, Packed] = {}

    def images(self) -> list[Packed]:
        index = _index(self._members)
        entries = [entry for entry in index.manifests if _is_image(entry)]
        if len(entries) > MOST_IMAGES:
            raise ArchiveError(f"{self._members.name} names more than {MOST_IMAGES} images", hint=_AGAIN)
        for name, group in _by_name(entries).items():
            # Several without a name are several images; of those with one name at most one may fit.
            for entry in _fitting(group, self._arch, self._members.name, only=bool(name)):
                self._add(name, self._image(entry, DEPTH))
        return list(self._found.values())

    def _add(self, name: str, image: Packed | None) -> None:
        """Note the image, which may already be there with another name; None is an artifact."""
        if image is None:
            return
        digest = digest_of(image.manifest_bytes)
        known = self._found.get(digest, image)
        reference = _reference(name)
        if reference is not None and reference not in known.names:
            known = msgspec.structs.replace(known, names=(*known.names, reference))
        elif name and reference is None:
            known = msgspec.structs.replace(known, bad_names=(*known.bad_names, name[:200]))
        self._found[digest] = known

    def _image(self, entry: Descriptor, depth: int) -> Packed | None:
        data = document(self._members, entry)
        what = f"{self._members.name}: manifest {entry.digest}"
        if entry.media_type in INDEX_TYPES:
            if not depth:
                raise ArchiveError(f"{what}: an index in an index in an index, {DEPTH} deep", hint=_AGAIN)
            inner = decode_json(data, ImageIndex, what=what, error=ArchiveError)
            if inner.media_type not in INDEX_TYPES:
                raise ArchiveError(f"{what}: an index that says it is {inner.media_type[:100]!r}", hint=_AGAIN)
            fitting = _fitting([one for one in inner.manifests if _is_image(one)], self._arch, what, only=True)
            return self._image(fitting[0], depth - 1)
        manifest = decode_json(data, ArtifactManifest, what=what, error=ArchiveError)
        if manifest.media_type not in ("", entry.media_type):
            raise ArchiveError(f"{what}: a manifest that says it is {manifest.media_type[:100]!r}", hint=_AGAIN)
        if manifest.subject is not None or manifest.artifact_type or manifest.config.media_type not in CONFIG_TYPES:
            return None
        parts = tuple(Part(path=blob_path(layer.digest, self._members.name), blob=layer) for layer in manifest.layers)
        config = document(self._members, manifest.config)
        _check(config, parts, what)
        return Packed(config_bytes=config, layers=parts, names=(), manifest_bytes=data)


def _is_image(entry: Descriptor) -> bool:
    """Whether an entry of an index may be an image; attestations of buildkit are for an 'unknown' machine."""
    unknown = entry.platform is not None and entry.platform.os == "unknown"
    return entry.media_type in (*MANIFEST_TYPES, *INDEX_TYPES) and not unknown and not entry.artifact_type


def _by_name(entries: Iterable[Descriptor]) -> dict[str, list[Descriptor]]:
    found: dict[str, list[Descriptor]] = {}
    for entry in entries:
        name = entry.annotations.get(_WHOLE_NAME) or entry.annotations.get(REF_NAME, "")
        found.setdefault(name, []).append(entry)
    return found


def _fitting(entries: Sequence[Descriptor], arch: str, what: str, *, only: bool = False) -> Sequence[Descriptor]:
    """Return those of `entries` that are for linux and `arch`, `only` the first; a single one is right in any case.

    Entries that are all for one machine are images of their own, not one image for several machines.
    """
    platforms = {(one.platform.os, one.platform.architecture) if one.platform else None for one in entries}
    if len({one.digest for one in entries}) == 1 or (len(platforms) == 1 and not only):
        return entries[:1] if only else entries
    found = [one for one in entries if one.platform and (one.platform.os, one.platform.architecture) == ("linux", arch)]
    if not found:
        known = ", ".join(sorted("/".join(one) for one in platforms if one))[:300]
        raise ArchiveError(
            f"{what} has no image for linux/{arch}; it is for {known or 'no machine'}",
            hint="--arch ARCH takes the image for another machine",
        )
    return found[:1]


def _reference(name: str) -> Reference | None:
    """Return the name of an image, None for a bare tag or what is none."""
    try:
        reference = parse_reference(name)
    except MlboxError:
        return None
    return None if reference.digest or not {":", "/"} & set(name) else reference


def _check(config_bytes: bytes, parts: Sequence[Part], what: str) -> None:
    config = parse_config(config_bytes, ArchiveError)
    if len(config.rootfs.diff_ids) != len(parts):
        raise ArchiveError(
            f"{what}: {len(parts)} layers, and its configuration says {len(config.rootfs.diff_ids)}", hint=_AGAIN
        )
    check_for_linux(config, what, ArchiveError)


def _docker_images(members: Members) -> list[_DockerImage]:
    what = f"{members.name}: manifest.json"
    data = read(members, "manifest.json", DOCUMENT_LIMIT)
    found = decode_json(data, list[_DockerImage], what=what, error=ArchiveError)
    if len(found) > MOST_IMAGES:
        raise ArchiveError(f"{members.name} names more than {MOST_IMAGES} images", hint=_AGAIN)
    return found


def _docker_image(members: Members, image: _DockerImage) -> Packed:
    config = read(members, image.config, DOCUMENT_LIMIT)
    parts = tuple(Part(path=path) for path in image.layers)
    _check(config, parts, f"{members.name}: {image.config[:200]}")
    tags = [(tag, _reference(tag)) for tag in image.repo_tags or ()]
    return Packed(
        config_bytes=config,
        layers=parts,
        names=tuple(dict.fromkeys(reference for _, reference in tags if reference)),
        bad_names=tuple(tag[:200] for tag, reference in tags if reference is None),
    )
