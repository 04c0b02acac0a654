import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.trees import key, make_image, make_layer

from mlbox.errors import StoreError
from mlbox.oci.image import Image
from mlbox.oci.layer import EPOCH
from mlbox.oci.reference import parse_reference
from mlbox.store.fsck import fsck
from mlbox.store.store import Store

FILES = {"bin/x": b"1", "lib/y": b"22", "link": "lib/y"}


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Image:
    image = make_image(store, make_layer(store, "one", FILES))
    store.images.tag(image.digest, parse_reference("me/one"))
    store.images.remember_build(key("plan"), image.digest)
    (tmp_path / "x.whl").write_bytes(b"wheel")
    store.artifacts.add_file(tmp_path / "x.whl")
    return image


def piece_folder(store: Store) -> Path:
    return store.pieces.folder(key("one"))


def layer_folder(store: Store) -> Path:
    return store.layers.folder(next(store.layers.diff_ids()))


def test_a_good_store_is_clean(store: Store, image: Image) -> None:
    store.artifacts.partial("a" * 64).write_bytes(b"half a download is fine")
    assert fsck(store, deep=True).clean


def test_an_empty_store_is_clean(store: Store) -> None:
    assert fsck(store, deep=True, repair=True).clean


def test_leftovers_are_removed_and_no_damage(store: Store, image: Image) -> None:
    (store.home.tmp / "piece-dead/fs").mkdir(parents=True)
    with store.scratch("alive") as alive:
        report = fsck(store)
        assert alive.is_dir()
    assert report.leftovers == ("piece-dead",)
    assert report.clean


def replace(path: Path, data: bytes, mtime: int = EPOCH) -> None:
    """Change one name of a file, not the inode it shares with others."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(data)
    path.chmod(mode)
    os.utime(path, (mtime, mtime))


def grant(path: Path) -> None:
    replace(path, path.read_bytes())
    os.setxattr(path, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


TREE_DAMAGE: list[tuple[Callable[[Path], object], str, bool]] = [
    (lambda f: (f / "fs/lib/y").unlink(), "'lib/y' is missing", False),
    (lambda f: shutil.rmtree(f / "fs"), "is missing", False),
    (lambda f: (f / "fs/lib/new").write_bytes(b""), "'lib/new' was added", False),
    (lambda f: replace(f / "fs/lib/y", b"333"), "'lib/y': has 3 bytes, not 2", False),
    (lambda f: replace(f / "fs/lib/y", b"33", EPOCH + 1), "'lib/y': was written to", False),
    (lambda f: (f / "fs/lib").chmod(0o700), "'lib': has mode 700, not 755", False),
    (lambda f: relink(f / "fs/link", "bin/x"), "'link': points elsewhere", False),
    (lambda f: relink(f / "fs/lib/y", "../bin/x"), "'lib/y': is no file", False),
    (lambda f: (f / "entries").write_bytes(b""), "entries", False),
    (lambda f: (f / "record.json").unlink(), "record", False),
    (lambda f: (f / "record.json").write_bytes(b"{}"), "record.json", False),
    (lambda f: replace(f / "fs/lib/y", b"33"), "its content has another digest", True),
]
if os.geteuid() == 0:
    TREE_DAMAGE += [
        (lambda f: os.chown(f / "fs/lib", 1000, 100), "'lib': belongs to 1000:100, not 0:0", False),
        (lambda f: grant(f / "fs/lib/y"), "'lib/y': has capabilities", False),
    ]


@pytest.mark.parametrize("kind", ["piece", "layer"])
@pytest.mark.parametrize(("damage", "problem", "deep"), TREE_DAMAGE)
def test_damaged_trees(
    store: Store, image: Image, kind: str, damage: Callable[[Path], object], problem: str, deep: bool
) -> None:
    damage(piece_folder(store) if kind == "piece" else layer_folder(store))
    if deep:
        assert fsck(store).clean
    found = fsck(store, deep=deep).findings
    assert [(f.kind, f.repaired) for f in found] == [(kind, False)]
    assert problem in found[0].problem
    fsck(store, deep=deep, repair=True)
    assert fsck(store, deep=True).clean
    # What was lost can be made again.
    again = make_image(store, make_layer(store, "one", FILES))
    assert again.digest == image.digest
    assert fsck(store, deep=True).clean


def test_a_layer_takes_its_images_with_it(store: Store, image: Image) -> None:
    shutil.rmtree(layer_folder(store))
    found = fsck(store, repair=True).findings
    assert [(f.kind, f.repaired) for f in found] == [("layer", True), ("image", True)]
    assert "is missing" in found[1].problem
    assert store.images.list() == []
    assert store.images.built(key("plan")) is None
    assert fsck(store).clean


def test_a_layer_that_a_container_stands_on_is_left_alone(store: Store, image: Image) -> None:
    (layer_folder(store) / "fs/lib/y").unlink()
    found = fsck(store, repair=True, used_layers=image.config.rootfs.diff_ids).findings
    assert [(f.kind, f.repaired) for f in found] == [("layer", False)]
    assert "a container stands on it" in found[0].problem
    assert layer_folder(store).is_dir()


@pytest.mark.parametrize("which", ["manifest", "config"])
@pytest.mark.parametrize("data", [None, b"{}"])
def test_damaged_blobs(store: Store, image: Image, which: str, data: bytes | None) -> None:
    path = store.content.path(image.digest if which == "manifest" else image.manifest.config.digest)
    path.unlink()
    if data:
        path.write_bytes(data)
    kinds = {f.kind for f in fsck(store).findings}
    assert kinds == ({"content", "image"} if data else {"image"})
    fsck(store, repair=True)
    assert fsck(store).clean


def test_names_pointing_nowhere(store: Store, image: Image) -> None:
    with store.db.write() as execute:
        execute("DELETE FROM images")
    assert [(f.kind, f.what) for f in fsck(store, repair=True).findings] == [("name", "docker.io/me/one:latest")]
    assert fsck(store).clean


@pytest.mark.parametrize("folder", ["pieces", "layers", "artifacts", "content/blobs/sha256"])
def test_strangers(store: Store, image: Image, folder: str) -> None:
    (store.home.root / folder / "README").write_text("hello")
    found = fsck(store, repair=True).findings
    assert [(f.what, f.problem, f.repaired) for f in found] == [("README", "it does not belong here", True)]
    assert fsck(store).clean


def test_a_changed_artifact_is_found_when_looked_at_deeply(store: Store, image: Image) -> None:
    path = next(store.home.artifacts.iterdir())
    path.write_bytes(b"wheeL")
    assert fsck(store).clean
    assert [(f.kind, f.what) for f in fsck(store, deep=True, repair=True).findings] == [("artifact", path.name)]
    assert not path.exists()


def test_a_destroyed_database(store: Store, image: Image) -> None:
    store.close()
    store.home.db.write_bytes(b"garbage" * 1000)
    found = fsck(store).findings
    assert [(f.kind, f.repaired) for f in found] == [("database", False)]
    assert fsck(store, repair=True).findings[0].repaired
    assert fsck(store, deep=True).clean
    again = make_image(store, make_layer(store, "one", FILES))
    assert again.digest == image.digest


def test_a_newer_database_is_not_damage(store: Store, image: Image) -> None:
    store.close()
    connection = sqlite3.connect(store.home.db)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="newer mlbox"):
        fsck(store, repair=True)
    assert store.home.db.exists()


def test_no_repair_during_a_build(store: Store, image: Image) -> None:
    with store.using():
        assert fsck(store).clean
        with pytest.raises(StoreError, match="another mlbox is using the store"):
            fsck(store, repair=True)
