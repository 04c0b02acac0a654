"""How much room the store takes, and how to get it back."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from mlbox.errors import StoreError
from mlbox.files import disk_errors
from mlbox.oci.digest import DiffID, Digest
from mlbox.store.built import files_of
from mlbox.store.memory import discard_from_memory
from mlbox.store.publish import discard_leftovers
from mlbox.store.store import Store

What = Literal["unused", "built", "artifacts"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The room one kind of thing takes."""

    kind: str
    count: int
    size: int
    """Bytes on the disk; a file that pieces and layers share counts once, as the piece's."""


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune removed."""

    images: int
    layers: int
    pieces: int
    artifacts: int
    size: int
    """Bytes on the disk that became free."""


def df(store: Store) -> list[Usage]:
    """Return the room taken, by kind."""
    seen: set[tuple[int, int]] = set()
    home = store.home
    folders = {
        "artifacts": home.artifacts,
        "pieces": home.pieces,
        "layers": home.layers,
        "containers": home.containers,
        "content": home.content / "blobs" / "sha256",
        "metadata": home.metadata,
        "unfinished": home.tmp,
    }
    return [
        Usage(kind=kind, count=len(_children(folder)), size=_size(folder, seen)) for kind, folder in folders.items()
    ]


def prune(
    store: Store,
    what: What,
    *,
    used_digests: Collection[Digest] = (),
    used_layers: Collection[DiffID] = (),
    used_artifacts: Collection[str] = (),
) -> Pruned:
    """Remove things nobody needs; never a used image or layer (what containers stand on).

    'unused': images without a name, then layers of no image and pieces of no layer. 'built': everything that was
    built, whether it has a name or not; downloads stay. 'artifacts': downloads but the `used_artifacts`. Downloads that
    were never finished go in any case. Raises StoreError when a build or the start of a container is under way.
    """
    with store.alone() as alone, disk_errors("removing what is not used"):
        if not alone:
            raise StoreError(
                "another mlbox is using the store: a build, a pull, a download from it, the start of a container",
                hint="wait until it is done, then prune again",
            )
        before = _total(store)
        discard_leftovers(store.home.tmp)
        discard_from_memory()
        for partial in store.artifacts.partials():
            partial.unlink(missing_ok=True)
        images = layers = pieces = artifacts = 0
        if what == "artifacts":
            artifacts = _prune_artifacts(store, used_artifacts)
        else:
            images = _prune_images(store, what, used_digests)
            layers = _prune_layers(store, used_layers)
            pieces = _prune_pieces(store, what)
            _prune_knowledge(store)
            _prune_content(store)
        freed = max(0, before - _total(store))
    return Pruned(images=images, layers=layers, pieces=pieces, artifacts=artifacts, size=freed)


def _prune_artifacts(store: Store, used: Collection[str]) -> int:
    kept = files_of(store.built)  # no index can give them back
    going = [sha256 for sha256 in store.artifacts.hashes() if sha256 not in used and sha256 not in kept]
    for sha256 in going:
        store.artifacts.delete(sha256)
    return len(going)


def _prune_images(store: Store, what: What, used: Collection[Digest]) -> int:
    built = {digest for (digest,) in store.db.rows("SELECT digest FROM builds")} if what == "built" else set()
    going = [row.digest for row in store.images.list() if row.digest not in used]
    going = [digest for digest in going if digest in built or not store.images.names(digest)]
    for digest in going:
        store.images.remove(digest)
    with store.db.write() as execute:
        execute("DELETE FROM builds WHERE digest NOT IN (SELECT digest FROM images)")
    return len(going)


def _prune_layers(store: Store, used: Collection[DiffID]) -> int:
    keep = set(used)
    for digest in store.images.digests():
        keep.update(store.images.load(digest).config.rootfs.diff_ids)
    going = [diff_id for diff_id in store.layers.diff_ids() if diff_id not in keep]
    for diff_id in going:
        store.layers.delete(diff_id)
    return len(going)


def _prune_pieces(store: Store, what: What) -> int:
    keep: set[str] = set()
    if what == "unused":
        for diff_id in store.layers.diff_ids():
            keep.update(store.layers.record(diff_id).pieces)
    going = [key for key in store.pieces.keys() if key not in keep]  # noqa: SIM118 - not a mapping
    for key in going:
        store.pieces.delete(key)
    for wheel in list(store.built.all()):
        if wheel.key in going or what == "built":
            store.built.delete(wheel.key)
            store.artifacts.delete(wheel.sha256)
    return len(going)


def _prune_knowledge(store: Store) -> None:
    """Forget the artifacts about images that are gone, and which blobs were layers that are gone."""
    with store.db.write() as execute:
        execute("DELETE FROM remotes WHERE image NOT IN (SELECT digest FROM images)")
        execute(
            "DELETE FROM referrers WHERE subject NOT IN (SELECT digest FROM images)"
            " AND subject NOT IN (SELECT digest FROM remotes) AND subject NOT IN (SELECT digest FROM referrers)"
        )
        for (diff_id,) in execute("SELECT DISTINCT diff_id FROM blobs").fetchall():
            if not store.layers.has(diff_id):
                execute("DELETE FROM blobs WHERE diff_id = ?", (diff_id,))


def _prune_content(store: Store) -> None:
    keep = store.referrers.blobs()
    keep.update(digest for (digest,) in store.db.rows("SELECT digest FROM remotes"))
    for digest in store.images.digests():
        keep.update((digest, store.images.load(digest).manifest.config.digest))
    for digest in store.content.digests():
        if digest not in keep:
            store.content.delete(digest)


def _total(store: Store) -> int:
    return sum(usage.size for usage in df(store))


def _children(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names only


def _size(folder: Path, seen: set[tuple[int, int]]) -> int:
    size = 0
    for status in _walk(str(folder)):
        inode = (status.st_dev, status.st_ino)
        if status.st_nlink == 1 or inode not in seen:
            size += status.st_blocks * 512
            seen.add(inode)
    return size


def _walk(root: str) -> Iterator[os.stat_result]:
    """Yield the status of everything below `root` on the same device: containers have other things mounted."""
    folders = [root]
    device = None
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                for item in found:
                    status = item.stat(follow_symlinks=False)
                    device = device or status.st_dev
                    if status.st_dev == device:
                        yield status
                        if item.is_dir(follow_symlinks=False):
                            folders.append(item.path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # it went while we looked
