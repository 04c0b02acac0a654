"""Artifacts about the images of a store: locks, plans, signatures, by what they are about."""

from mlbox.codec import decode_json
from mlbox.errors import StoreError
from mlbox.oci.artifact import EMPTY_BYTES, GPU_TYPE, LOCK_TYPE, PLAN_TYPE, Artifact, ArtifactManifest, manifest_of
from mlbox.oci.digest import Digest
from mlbox.oci.image import MANIFEST, Descriptor
from mlbox.store.content import ContentStore
from mlbox.store.db import Database

ATTACHMENT_LIMIT = 64 << 20
"""The largest document about an image that is read, in bytes."""


class Referrers:
    """The artifacts of a store. Their manifests and documents are blobs of its content."""

    def __init__(self, content: ContentStore, db: Database) -> None:
        self._content = content
        self._db = db

    def add(self, artifact: Artifact, subject: Descriptor) -> Digest:
        """Keep what `artifact` says about `subject` (an image here or its manifest elsewhere)."""
        for blob in artifact.blobs:
            self._content.put(blob.data)
        self._content.put(EMPTY_BYTES)
        return self.add_manifest(manifest_of(artifact, subject))

    def add_manifest(self, data: bytes) -> Digest:
        """Keep an artifact's manifest as it is; its documents must be in the content already."""
        manifest = decode_json(data, ArtifactManifest, what="artifact", error=StoreError)
        if manifest.subject is None:
            raise StoreError("an artifact that is about nothing cannot be kept")
        missing = [blob.digest for blob in (*manifest.layers, manifest.config) if not self._content.has(blob.digest)]
        if missing:
            raise StoreError(f"an artifact about {manifest.subject.digest} lacks its document {missing[0]}")
        digest = self._content.put(data)
        with self._db.write() as execute:
            row = (digest, manifest.subject.digest, manifest.kind)
            # Again is last: the lock of the latest build counts.
            execute("DELETE FROM referrers WHERE digest = ?", (digest,))
            execute("INSERT INTO referrers (digest, subject, artifact_type) VALUES (?, ?, ?)", row)
        return digest

    def of(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the artifacts about `subject`, all or those of one type, the oldest first."""
        rows = self._db.rows("SELECT digest, artifact_type FROM referrers WHERE subject = ? ORDER BY id", subject)
        return tuple(
            Descriptor(
                media_type=MANIFEST,
                digest=digest,
                size=self._content.path(digest).stat().st_size,
                artifact_type=kind,
            )
            for digest, kind in rows
            if artifact_type in ("", kind) and self._content.has(digest)
        )

    def sent(self, subject: Digest) -> tuple[Descriptor, ...]:
        """Return the artifacts about `subject` that go where it goes: not what anybody reads from it themselves."""
        return tuple(found for found in self.of(subject) if found.artifact_type != GPU_TYPE)

    def manifest(self, digest: Digest) -> ArtifactManifest:
        """Return the manifest of an artifact; raises StoreError when it is missing or damaged."""
        return decode_json(self._content.read(digest), ArtifactManifest, what=f"artifact {digest}", error=StoreError)

    def blob(self, descriptor: Descriptor, limit: int = ATTACHMENT_LIMIT) -> bytes:
        """Return a document of an artifact."""
        return self._content.read(descriptor.digest, limit)

    def lock_of(self, image: Digest) -> bytes | None:
        """Return the lock that the image was last built from, None for an image that was not built from one."""
        return self._last(image, LOCK_TYPE)

    def plan_of(self, image: Digest) -> bytes | None:
        """Return the plan that the image was built from, as JSON, None when it has none."""
        return self._last(image, PLAN_TYPE)

    def _last(self, image: Digest, kind: str) -> bytes | None:
        found = self.of(image, kind)
        if not found:
            return None
        layers = self.manifest(found[-1].digest).layers
        return self.blob(layers[0]) if layers else None

    def blobs(self) -> set[Digest]:
        """Return the digests of everything that artifacts consist of."""
        found: set[Digest] = set()
        for (digest,) in self._db.rows("SELECT digest FROM referrers"):
            if self._content.has(digest):
                manifest = self.manifest(digest)
                found.update((digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)))
        return found
