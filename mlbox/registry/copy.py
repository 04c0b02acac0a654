"""From one registry to another: the same bytes, so the same digests, without unpacking anything."""

from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from mlbox.codec import decode_json
from mlbox.errors import RegistryError
from mlbox.events import SILENT, Listener
from mlbox.oci.artifact import ArtifactManifest
from mlbox.oci.digest import Digest, hex_of
from mlbox.oci.image import INDEX_TYPES, Descriptor
from mlbox.oci.reference import Reference
from mlbox.registry.client import Registry
from mlbox.registry.manifests import Fetched
from mlbox.registry.parallel import Stop, in_threads
from mlbox.registry.push import put_manifest
from mlbox.registry.transfer import DEPTH, index_of, kind_of, require_arch, resolve

CONNECTIONS = 4
_MOST_MANIFESTS = 1000


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A name and the registry that it is in."""

    registry: Registry
    name: Reference

    @property
    def repository(self) -> str:
        """The repository, without the registry."""
        return self.name.repository


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy did."""

    digest: Digest
    """Of what the name stands for: equal in both registries."""
    manifests: int
    """How many there were: indexes, images, artifacts about them."""
    there: int
    """Blobs that the target had."""
    mounted: int
    uploaded: int
    moved: int
    """Bytes of the uploaded blobs."""


def copy_image(
    source: Place, target: Place, scratch: Path, *, arch: str = "", referrers: bool = True, listener: Listener = SILENT
) -> Copied:
    """Copy what `source` names to `target`: an index with all its images, or only the image for `arch`.

    Manifests keep their bytes and so their digests. `referrers` copies the artifacts about them (signatures, locks)
    too. Blobs pass through `scratch`, a folder, one file each.
    """
    work = _Copy(source, target, scratch, referrers, listener)
    if arch:
        found = resolve(source.registry, source.name, arch)
        if found.index is None:
            require_arch(found, arch)
        first = Fetched(media_type=found.media_type, digest=found.digest, data=found.manifest_bytes)
    else:
        first = source.registry.manifest(source.repository, source.name.digest or source.name.tag)
    if target.name.digest not in (None, first.digest):
        raise RegistryError(
            f"{source.name.familiar} is {first.digest}, which cannot be copied to {target.name.familiar}",
            hint="give the target a tag",
        )
    work.manifest(first, target.name, DEPTH)
    return Copied(
        digest=first.digest,
        manifests=len(work.done),
        there=work.there,
        mounted=work.mounted,
        uploaded=work.uploaded,
        moved=work.moved,
    )


class _Copy:
    def __init__(self, source: Place, target: Place, scratch: Path, referrers: bool, listener: Listener) -> None:
        self._source = source
        self._target = target
        self._scratch = scratch
        self._referrers = referrers
        self._listener = listener
        self._same_host = source.name.registry == target.name.registry
        self.done: dict[Digest, None] = {}
        self.there = self.mounted = self.uploaded = self.moved = 0

    def manifest(self, fetched: Fetched, name: Reference, depth: int) -> None:
        """Copy a manifest and everything it refers to, what is referred to first."""
        if fetched.digest in self.done:
            return
        self.done[fetched.digest] = None
        if depth < 0 or len(self.done) > _MOST_MANIFESTS:
            raise RegistryError(
                f"{self._source.name.familiar}: too many manifests that refer to each other",
                hint="--arch copies one of them",
            )
        kind = kind_of(fetched)
        if kind in INDEX_TYPES:
            for entry in index_of(fetched).manifests:
                self.manifest(self._get(entry.digest), self._by_digest(entry.digest), depth - 1)
        else:
            self._blobs(_manifest(fetched))
        put_manifest(self._target.registry, name, fetched.data, kind)
        if self._referrers and depth > 0:
            subject = Descriptor(media_type=kind, digest=fetched.digest, size=len(fetched.data))
            self._about(subject, depth)
            self._tagged(fetched.digest)

    def _about(self, subject: Descriptor, depth: int) -> None:
        """Copy the artifacts about `subject`, and those about them."""
        for entry in self._source.registry.referrers(self._source.repository, subject.digest):
            if entry.digest in self.done or depth <= 0:
                continue
            fetched = self._get(entry.digest)
            if kind_of(fetched) in INDEX_TYPES or len(self.done) > _MOST_MANIFESTS:
                continue
            self.done[entry.digest] = None
            self._blobs(_manifest(fetched))
            if self._target.registry.find(self._target.repository, entry.digest) is None:
                self._target.registry.put_referrer(self._target.repository, fetched.data, subject)
            inner = Descriptor(media_type=entry.media_type, digest=entry.digest, size=len(fetched.data))
            self._about(inner, depth - 1)

    def _tagged(self, subject: Digest) -> None:
        """Copy what cosign keeps about `subject` under tags of its own, as it did before there were referrers."""
        for ending in ("sig", "att"):
            tag = f"{subject.replace(':', '-')}.{ending}"
            found = self._source.registry.find(self._source.repository, tag)
            if found is not None:
                fetched = self._get(found.digest)
                self.manifest(fetched, self._by_digest(found.digest), 0)
                name = msgspec.structs.replace(self._by_digest(found.digest), tag=tag, digest=None)
                put_manifest(self._target.registry, name, fetched.data, kind_of(fetched))

    def _get(self, digest: Digest) -> Fetched:
        return self._source.registry.manifest(self._source.repository, digest)

    def _by_digest(self, digest: Digest) -> Reference:
        return Reference(registry=self._target.name.registry, repository=self._target.name.repository, digest=digest)

    def _blobs(self, manifest: ArtifactManifest) -> None:
        blobs = list({blob.digest: blob for blob in (*manifest.layers, manifest.config)}.values())
        stop = Stop()
        outcomes = in_threads(partial(self._blob, stop.listener(SILENT)), blobs, CONNECTIONS, stop)
        self.there += outcomes.count("there")
        self.mounted += outcomes.count("mounted")
        self.uploaded += outcomes.count("uploaded")
        self.moved += sum(blob.size for blob, how in zip(blobs, outcomes, strict=True) if how == "uploaded")

    def _blob(self, listener: Listener, blob: Descriptor) -> str:
        target = self._target
        if target.registry.has_blob(target.repository, blob.digest):
            return "there"
        if self._same_host and target.registry.mount(target.repository, blob.digest, self._source.repository):
            return "mounted"
        path = self._scratch / hex_of(blob.digest)
        self._listener.expect("copy", blob.size)
        try:
            self._source.registry.download(
                self._source.repository, blob, path, listener=listener, name=f"blob {blob.digest[7:19]}"
            )
            target.registry.upload(target.repository, path, blob, listener=listener)
        finally:
            with suppress(FileNotFoundError):
                path.unlink()
        self._listener.advance("copy", blob.size)
        return "uploaded"


def _manifest(fetched: Fetched) -> ArtifactManifest:
    return decode_json(fetched.data, ArtifactManifest, what=f"manifest {fetched.digest}", error=RegistryError)
