"""Blobs by digest: the manifests and configurations of images.

The folder has the shape of an OCI image layout (blobs/sha256/HEX) but promises no index.json: layers are not
kept as tars. `mlbox.store.layout` writes a whole layout for other tools.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlbox.errors import StoreError
from mlbox.files import disk_errors
from mlbox.oci.digest import Digest, digest_of, hex_of, parse_digest
from mlbox.paths import Home
from mlbox.store.publish import publish_file, temporary_file, withdraw

DOCUMENT_LIMIT = 4 << 20
"""The largest manifest or configuration that is read; the distribution-spec asks registries for this much."""


class ContentStore:
    """The content/ folder of a store."""

    def __init__(self, home: Home) -> None:
        self._blobs = home.content / "blobs" / "sha256"
        self._tmp = home.tmp

    def path(self, digest: Digest) -> Path:
        """Return where the blob lies, whether it is there or not."""
        return self._blobs / hex_of(parse_digest(digest))

    def has(self, digest: Digest) -> bool:
        """Whether the blob is there."""
        return self.path(digest).is_file()

    def put(self, data: bytes) -> Digest:
        """Keep `data` and return its digest."""
        digest = digest_of(data)
        if not self.has(digest):
            self.ingest([data], digest, len(data))
        return digest

    def ingest(self, chunks: Iterable[bytes | memoryview], digest: Digest, size: int) -> None:
        """Keep the blob that `chunks` make; raises StoreError when it is not the `digest` and `size` expected."""
        hasher = hashlib.sha256()
        got = 0
        with disk_errors(f"storing blob {digest}"), temporary_file(self._tmp, "blob") as (path, file):
            for chunk in chunks:
                got += len(chunk)
                if got > size:
                    break
                hasher.update(chunk)
                file.write(chunk)
            if got != size or hasher.hexdigest() != hex_of(digest):
                raise StoreError(f"blob {digest}: its content has another digest or is not {size} bytes long")
            publish_file(path, file, self.path(digest))

    def read(self, digest: Digest, limit: int = DOCUMENT_LIMIT) -> bytes:
        """Return the blob's bytes, checked against its digest; at most `limit` bytes are read."""
        try:
            with self.path(digest).open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise StoreError(f"blob {digest} is missing from the store", hint="run 'mlbox fsck --repair'") from None
        if len(data) > limit:
            raise StoreError(f"blob {digest} is larger than {limit} bytes")
        if digest_of(data) != digest:
            raise StoreError(f"blob {digest} was changed on the disk", hint="run 'mlbox fsck --repair'")
        return data

    def delete(self, digest: Digest) -> None:
        """Remove the blob; a missing one is fine."""
        withdraw(self._tmp, self.path(digest))

    def digests(self) -> Iterator[Digest]:
        """Yield the digest of every blob."""
        if self._blobs.is_dir():
            yield from (Digest(f"sha256:{path.name}") for path in sorted(self._blobs.iterdir()))
