"""What is known of images elsewhere: which digest in a registry is which image here, which blob is which layer.

An image here refers to its layers uncompressed; the same image in a registry refers to compressed blobs, so its
manifest has another digest. Both have the same configuration.
"""

from typing import NamedTuple

from mlbox.oci.digest import DiffID, Digest
from mlbox.oci.image import Descriptor
from mlbox.store.db import Database


class Remote(NamedTuple):
    """A manifest or an index of an image, where it lies."""

    digest: Digest
    repository: str
    """With its registry: 'docker.io/library/python'."""
    claimed: bool = False
    """Whether only a file that was loaded says so: anybody can write one that claims any origin."""


class Remotes:
    """What a store remembers of registries. The bytes of the manifests and indexes are in its content."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def remember(self, digest: Digest, repository: str, image: Digest, *, claimed: bool = False) -> None:
        """Note that `digest` in `repository` is the `image` of this store; what is `claimed` replaces nothing."""
        sql = "INSERT OR IGNORE INTO" if claimed else "INSERT OR REPLACE INTO"
        with self._db.write() as execute:
            execute(f"{sql} remotes VALUES (?, ?, ?, ?)", (digest, repository, image, claimed))

    def image_of(self, digest: Digest, repository: str = "") -> Digest | None:
        """Return the image that `digest` is (in `repository`, else anywhere), None when that is not known."""
        sql = "SELECT image FROM remotes JOIN images ON images.digest = image WHERE remotes.digest = ?"
        where = (" AND repository = ?", (digest, repository)) if repository else ("", (digest,))
        row = self._db.row(sql + where[0], *where[1])
        return row[0] if row else None

    def of(self, image: Digest) -> tuple[Remote, ...]:
        """Return where else the image lies, sorted."""
        sql = "SELECT digest, repository, claimed FROM remotes WHERE image = ? ORDER BY repository, digest"
        return tuple(
            Remote(digest, repository, bool(claimed)) for digest, repository, claimed in self._db.rows(sql, image)
        )

    def remember_blob(self, digest: Digest, diff_id: DiffID, media_type: str, size: int) -> None:
        """Note that the blob of `digest` and `size` (bytes) is the layer `diff_id`; only say so after checking."""
        with self._db.write() as execute:
            execute("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?)", (digest, diff_id, media_type, size))

    def blobs_of(self, diff_id: DiffID) -> tuple[Descriptor, ...]:
        """Return the blobs that are known to be the layer, sorted by digest."""
        rows = self._db.rows("SELECT digest, media_type, size FROM blobs WHERE diff_id = ? ORDER BY digest", diff_id)
        return tuple(Descriptor(media_type=media_type, digest=digest, size=size) for digest, media_type, size in rows)

    def diff_id_of(self, digest: Digest) -> DiffID | None:
        """Return the layer that the blob is, None when that is not known."""
        row = self._db.row("SELECT diff_id FROM blobs WHERE digest = ?", digest)
        return row[0] if row else None
