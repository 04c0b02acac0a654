"""A store seen as a registry that can only be read: which repositories, tags, manifests and blobs it has.

What has a name is there, under the path of its name: 'me/bert:1' and 'gpu01:5000/me/bert:1' are both in the repository
me/bert. Manifests are those of this store, so every layer is a plain tar whose digest is its diffID.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial

import msgspec

from mlbox.codec import canonical_json
from mlbox.errors import MlboxError
from mlbox.files import chunks
from mlbox.oci.digest import DiffID, Digest, is_digest
from mlbox.oci.image import MANIFEST, Descriptor, Image, ImageIndex
from mlbox.oci.reference import DEFAULT_REGISTRY
from mlbox.store.store import Store

Chunks = Iterable[bytes | memoryview]


class UnknownError(MlboxError):
    """Nothing of that name; `code` is the distribution-spec's word for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest."""

    media_type: str
    digest: Digest
    data: bytes


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that can be sent."""

    digest: Digest
    size: int
    """Bytes."""
    open: Callable[[int], Chunks]
    """Yields the bytes from an offset on; a chunk is valid until the next one."""


def repositories(store: Store) -> tuple[str, ...]:
    """Return the repositories, sorted."""
    return tuple(sorted({repository for _, repository, _, _ in _names(store)}))


def tags(store: Store, repository: str) -> tuple[str, ...]:
    """Return the tags of a repository, sorted; raises UnknownError when there is none."""
    return tuple(sorted(_tagged(store, repository)))


def manifest(store: Store, repository: str, reference: str) -> Document:
    """Return a manifest by tag or digest: of an image, or of an artifact about one."""
    tagged = _tagged(store, repository)
    digest = tagged.get(reference)
    if digest is None and is_digest(reference) and Digest(reference) in _manifests(store, set(tagged.values())):
        digest = Digest(reference)
    if digest is None:
        raise UnknownError("MANIFEST_UNKNOWN", f"no manifest {reference} in {repository}")
    return Document(media_type=MANIFEST, digest=digest, data=store.content.read(digest))


def blob(store: Store, repository: str, digest: Digest) -> Part:
    """Return a blob of an image in the repository, or of an artifact about one."""
    images = set(_tagged(store, repository).values())
    for image in images:
        config, layers = _parts(store, image)
        if digest in layers:
            return Part(digest=digest, size=layers[digest].size, open=partial(store.layers.tar, DiffID(digest)))
        if digest == config.digest:
            return Part(digest=digest, size=config.size, open=partial(_file, store, digest))
    for artifact in _manifests(store, images) - images:
        about = store.referrers.manifest(artifact)
        for one in (about.config, *about.layers):
            if one.digest == digest:
                return Part(digest=digest, size=one.size, open=partial(_file, store, digest))
    raise UnknownError("BLOB_UNKNOWN", f"no blob {digest} in {repository}")


def referrers(store: Store, repository: str, subject: Digest, artifact_type: str = "") -> bytes:
    """Return the index of the artifacts about `subject`, an empty one when nothing is known about it."""
    known = subject in _manifests(store, set(_tagged(store, repository).values()))
    found = store.referrers.of(subject, artifact_type) if known else ()
    described = [
        msgspec.structs.replace(artifact, annotations=store.referrers.manifest(artifact.digest).annotations)
        for artifact in found
    ]
    return canonical_json(ImageIndex(manifests=tuple(described)))


def _names(store: Store) -> Iterator[tuple[str, str, str, Digest]]:
    """Yield registry, repository, tag and image of every name."""
    for reference, digest in store.db.rows("SELECT reference, digest FROM names ORDER BY reference DESC"):
        registry, _, rest = reference.partition("/")
        repository, _, tag = rest.rpartition(":")
        if registry == DEFAULT_REGISTRY:
            repository = repository.removeprefix("library/")
        yield registry, repository, tag, digest


def _tagged(store: Store, repository: str) -> dict[str, Digest]:
    """Return the images of a repository by tag; where two names say the same, the one without a registry counts."""
    found: dict[str, Digest] = {}
    ours: dict[str, Digest] = {}
    for registry, path, tag, digest in _names(store):
        if path == repository:
            (ours if registry == DEFAULT_REGISTRY else found)[tag] = digest
        elif registry == DEFAULT_REGISTRY and f"library/{path}" == repository:
            ours[tag] = digest
    if not (found or ours):
        raise UnknownError("NAME_UNKNOWN", f"no repository {repository}")
    return found | ours


def _manifests(store: Store, images: set[Digest]) -> set[Digest]:
    """Return `images`, the artifacts about them, and the artifacts about those, as signatures of documents are."""
    artifacts = {artifact.digest for image in images for artifact in store.referrers.of(image)}
    deeper = {artifact.digest for digest in artifacts for artifact in store.referrers.of(digest)}
    return images | artifacts | deeper


def _parts(store: Store, image: Digest) -> tuple[Descriptor, dict[Digest, Descriptor]]:
    return _parts_of(store.images.load, image)


@lru_cache(maxsize=256)
def _parts_of(load: Callable[[Digest], Image], image: Digest) -> tuple[Descriptor, dict[Digest, Descriptor]]:
    manifest = load(image).manifest
    return manifest.config, {layer.digest: layer for layer in manifest.layers}


def _file(store: Store, digest: Digest, start: int) -> Iterator[bytes]:
    with store.content.path(digest).open("rb") as file:
        file.seek(start)
        yield from chunks(file)
