"""Built wheels in a registry: an OCI artifact each, found by the key of all that went into it.

Its configuration is the piece as canonical JSON, whose digest *is* the key; its one layer is the wheel. So nothing has
to be believed about what a wheel was made from, only that it was. (image-spec v1.1, "Guidelines for Artifact Usage".)
"""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import RegistryError
from mlbox.events import Listener
from mlbox.oci.artifact import ArtifactManifest
from mlbox.oci.digest import Digest, digest_of, hex_of
from mlbox.oci.image import MANIFEST, Descriptor
from mlbox.registry.client import Registry
from mlbox.store.built import BuiltWheel
from mlbox.store.store import Store

TYPE = "application/vnd.mlbox.built-wheel.v1+json"
WHEEL = "application/vnd.pypa.wheel.v1+zip"
TITLE = "org.opencontainers.image.title"
_OTHERS = "something else was pushed there: name another repository for built wheels"
_TAG = re.compile(r"wheel-([0-9a-f]{64})")
_FILENAME = re.compile(r"[A-Za-z0-9_.+!]+(?:-[A-Za-z0-9_.+!]+){4,5}\.whl")
_LARGEST_PIECE = 16 << 20
_LARGEST_WHEEL = 16 << 30


class RemoteWheel(msgspec.Struct, frozen=True, kw_only=True):
    """A built wheel as a registry has it."""

    key: str
    digest: Digest
    """Of its manifest."""
    filename: str
    piece: Descriptor
    wheel: Descriptor


def find_wheel(registry: Registry, repository: str, key: str) -> RemoteWheel | None:
    """Return the wheel of the piece `key`, None when the repository has none; RegistryError for nonsense."""
    if registry.find(repository, tag_of(key)) is None:
        return None
    fetched = registry.manifest(repository, tag_of(key))
    what = f"{registry.host}/{repository}:{tag_of(key)}"
    manifest = decode_json(fetched.data, ArtifactManifest, what=what, error=RegistryError)
    layers = manifest.layers
    filename = layers[0].annotations.get(TITLE, "") if len(layers) == 1 else ""
    if manifest.kind != TYPE or not _FILENAME.fullmatch(filename) or layers[0].size > _LARGEST_WHEEL:
        raise RegistryError(f"{what} is no built wheel of mlbox", hint=_OTHERS)
    if hex_of(manifest.config.digest) != key:
        raise RegistryError(
            f"{what} was made from something else than its name says: {manifest.config.digest}", hint=_OTHERS
        )
    return RemoteWheel(
        key=key, digest=digest_of(fetched.data), filename=filename, piece=manifest.config, wheel=layers[0]
    )


def push_wheel(store: Store, registry: Registry, repository: str, wheel: BuiltWheel, listener: Listener) -> Digest:
    """Send a wheel of the store and return the digest of its manifest."""
    piece = bytes(wheel.piece)
    layer = Descriptor(
        media_type=WHEEL, digest=Digest(f"sha256:{wheel.sha256}"), size=wheel.size, annotations={TITLE: wheel.filename}
    )
    manifest = canonical_json(
        ArtifactManifest(
            schema_version=2,
            media_type=MANIFEST,
            artifact_type=TYPE,
            config=Descriptor(media_type=TYPE, digest=digest_of(piece), size=len(piece)),
            layers=(layer,),
        )
    )
    registry.put_blob(repository, piece)
    if not registry.has_blob(repository, layer.digest):
        listener.expect("push", wheel.size)
        registry.upload(repository, store.artifacts.path(wheel.sha256), layer, listener=listener)
    registry.put_manifest(repository, tag_of(wheel.key), manifest, MANIFEST)
    return digest_of(manifest)


def read_piece(registry: Registry, repository: str, remote: RemoteWheel) -> bytes:
    """Return what the wheel was made from; its hash is the key."""
    return registry.blob(repository, remote.piece, _LARGEST_PIECE)


def pull_wheel(
    store: Store, registry: Registry, repository: str, remote: RemoteWheel, listener: Listener
) -> BuiltWheel:
    """Have the wheel among the artifacts, checked against its digest, and return it; it is not remembered yet."""
    piece, sha256 = read_piece(registry, repository, remote), hex_of(remote.wheel.digest)
    if not store.artifacts.has(sha256):
        with store.artifacts.fetching(sha256):
            partial: Path = store.artifacts.partial(sha256)
            listener.expect("pull", remote.wheel.size)
            registry.download(repository, remote.wheel, partial, listener=listener, name=remote.filename)
            store.artifacts.publish(partial, sha256, checked=True)
    return BuiltWheel(
        piece=msgspec.Raw(piece),
        filename=remote.filename,
        sha256=sha256,
        size=remote.wheel.size,
        origin=f"{registry.host}/{repository}@{remote.digest}",
    )


def list_keys(registry: Registry, repository: str) -> Iterator[str]:
    """Yield the keys of all built wheels in the repository."""
    yield from (found[1] for tag in registry.tags(repository) if (found := _TAG.fullmatch(tag)))


def tag_of(key: str) -> str:
    """Return the tag under which the wheel of a piece lies."""
    return f"wheel-{key}"
