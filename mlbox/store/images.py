"""Images by digest, and the names people give them."""

import re
import time
from collections.abc import Mapping, Sequence

import msgspec

from mlbox.errors import NotFoundError, StoreError, UsageError
from mlbox.oci.digest import Digest, is_digest
from mlbox.oci.image import Image, parse_image
from mlbox.oci.reference import Reference, parse_reference
from mlbox.store.content import ContentStore
from mlbox.store.db import Database, Execute
from mlbox.store.remotes import Remotes

_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{3,64})")


class ImageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list of images."""

    digest: Digest
    names: tuple[str, ...]
    """As people type them, sorted."""
    created: float
    """When it was added to this store, seconds."""
    size: int
    """Bytes of its layers' tars, shared ones included."""
    layers: int


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What `untag` did."""

    names: tuple[str, ...]
    digest: Digest | None = None
    """The image that is gone, None when it still has a name or a container."""


class ImageStore:
    """The images of a store."""

    def __init__(self, content: ContentStore, db: Database, remotes: Remotes) -> None:
        self._content = content
        self._db = db
        self._remotes = remotes

    def add(self, image: Image) -> None:
        """Keep `image`; its layers are kept by the LayerStore."""
        self._content.put(image.config_bytes)
        self._content.put(image.manifest_bytes)
        size = sum(layer.size for layer in image.manifest.layers)
        row = (image.digest, time.time(), size, len(image.manifest.layers))
        with self._db.write() as execute:
            execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)", row)

    def has(self, digest: Digest) -> bool:
        """Whether the image is there."""
        return self._db.row("SELECT 1 FROM images WHERE digest = ?", digest) is not None

    def get(self, digest: Digest) -> Image:
        """Return the image; raises NotFoundError when it is not there."""
        if not self.has(digest):
            raise NotFoundError(f"no image {digest}", hint="'mlbox images' lists them")
        return self.load(digest)

    def load(self, digest: Digest) -> Image:
        """Return the image from its blobs; raises StoreError when one is missing or damaged."""
        manifest = self._content.read(digest)
        config = msgspec.json.decode(manifest, type=_ConfigOf).config.digest
        return parse_image(manifest, self._content.read(config), StoreError)

    def resolve(self, text: str) -> Digest:
        """Return the image that `text` means: a name, a digest, or the beginning of one that no other has."""
        if prefix := _PREFIX.fullmatch(text):
            if not text.startswith("sha256:") and (named := self._named(parse_reference(text))):
                return named
            return self._by_prefix(text, prefix[1])
        return self._named(parse_reference(text)) or self._unknown(text)

    def names(self, digest: Digest) -> tuple[Reference, ...]:
        """Return the names of an image, sorted."""
        rows = self._db.rows("SELECT reference FROM names WHERE digest = ? ORDER BY reference", digest)
        return tuple(parse_reference(name) for (name,) in rows)

    def tag(self, digest: Digest, reference: Reference) -> None:
        """Give the image a name, which another image may lose by it."""
        if reference.digest:
            raise UsageError(f"a name with a digest cannot be given: {reference.familiar}")
        with self._db.write() as execute:
            if not execute("SELECT 1 FROM images WHERE digest = ?", (digest,)).fetchone():
                raise NotFoundError(f"no image {digest}", hint="'mlbox images' lists them")
            execute("INSERT OR REPLACE INTO names VALUES (?, ?)", (str(reference), digest))

    def untag(
        self, text: str, *, used_by: Mapping[Digest, Sequence[str]] | None = None, force: bool = False
    ) -> Removed:
        """Take away the name `text`, or all names when it is a digest; an image without name goes.

        `used_by` names the containers of each image: such an image is kept, and losing its last name is
        refused unless `force`. So is a digest with several names. Layers stay until the next prune.
        """
        digest = self.resolve(text)
        all_names = [str(name) for name in self.names(digest)]
        reference = "" if text.startswith("sha256:") else str(parse_reference(text))
        going = [reference] if reference in all_names else self._all(text, reference, all_names, force)
        containers = (used_by or {}).get(digest, ())
        last = len(going) == len(all_names)
        if last and containers and not force:
            raise StoreError(
                f"image {text} is used by container {', '.join(containers)}",
                hint=f"'mlbox rm {containers[0]}' removes the container; --force takes only the name away",
            )
        with self._db.write() as execute:
            for name in going:
                execute("DELETE FROM names WHERE reference = ? AND digest = ?", (name, digest))
            if last and not containers:
                forget(execute, digest)
        gone = digest if last and not containers else None
        return Removed(names=tuple(parse_reference(name).familiar for name in going), digest=gone)

    def list(self) -> list[ImageRow]:
        """Return all images, the newest first."""
        names: dict[str, list[str]] = {}
        for reference, digest in self._db.rows("SELECT reference, digest FROM names ORDER BY reference"):
            names.setdefault(digest, []).append(parse_reference(reference).familiar)
        rows = self._db.rows("SELECT digest, created, size, layers FROM images ORDER BY created DESC, digest")
        return [
            ImageRow(digest=digest, names=tuple(names.get(digest, ())), created=created, size=size, layers=layers)
            for digest, created, size, layers in rows
        ]

    def digests(self) -> tuple[Digest, ...]:
        """Return the digests of all images."""
        return tuple(digest for (digest,) in self._db.rows("SELECT digest FROM images ORDER BY digest"))

    def built(self, plan_key: str) -> Digest | None:
        """Return the image that was built from a plan of that key and is still there."""
        sql = "SELECT digest FROM builds JOIN images USING (digest) WHERE key = ?"
        row = self._db.row(sql, plan_key)
        return row[0] if row else None

    def is_built_here(self, digest: Digest) -> bool:
        """Whether the image was built in this store."""
        return self._db.row("SELECT 1 FROM builds WHERE digest = ?", digest) is not None

    def remember_build(self, plan_key: str, digest: Digest) -> None:
        """Note what a plan of that key makes."""
        with self._db.write() as execute:
            execute("INSERT OR REPLACE INTO builds VALUES (?, ?)", (plan_key, digest))

    def remove(self, digest: Digest) -> None:
        """Remove the image, its names and the memory of its build."""
        with self._db.write() as execute:
            execute("DELETE FROM names WHERE digest = ?", (digest,))
            forget(execute, digest)

    def _named(self, reference: Reference) -> Digest | None:
        if reference.digest:
            known = reference.digest if self.has(reference.digest) else None
            return known or self._remotes.image_of(reference.digest, reference.name)
        row = self._db.row("SELECT digest FROM names WHERE reference = ?", str(reference))
        return row[0] if row else None

    def _by_prefix(self, text: str, prefix: str) -> Digest:
        low = f"sha256:{prefix}"
        rows = self._db.rows("SELECT digest FROM images WHERE digest >= ? AND digest <= ? LIMIT 2", low, low + "g")
        if len(rows) > 1:
            raise NotFoundError(f"several images begin with {text}", hint="give more of the digest")
        if rows:
            return Digest(rows[0][0])
        elsewhere = self._remotes.image_of(Digest(low)) if is_digest(low) else None
        return elsewhere or self._unknown(text)

    def _unknown(self, text: str) -> Digest:
        import difflib

        known = [parse_reference(name).familiar for (name,) in self._db.rows("SELECT reference FROM names")]
        close = difflib.get_close_matches(text, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "'mlbox images' lists them, 'mlbox build -t NAME' makes one"
        raise NotFoundError(f"no image {text}", hint=hint)

    @staticmethod
    def _all(text: str, reference: str, names: Sequence[str], force: bool) -> Sequence[str]:
        if len(names) > 1 and not force:
            raise StoreError(f"image {text} has {len(names)} names", hint="give one of them, or --force for all")
        return names


class _Config(msgspec.Struct):
    digest: Digest


class _ConfigOf(msgspec.Struct):
    config: _Config


def forget(execute: Execute, digest: Digest) -> None:
    """Delete the rows of an image that has no name, inside a transaction."""
    execute("DELETE FROM builds WHERE digest = ?", (digest,))
    execute("DELETE FROM remotes WHERE image = ?", (digest,))
    execute("DELETE FROM images WHERE digest = ?", (digest,))
