"""What differs between two images."""

import msgspec
from fakes.images import SITE, debs, lock_of, make_image, package, wheel

from mlbox.lock.file import encode_lock
from mlbox.lock.model import Lock
from mlbox.oci.image import ContainerConfig
from mlbox.report.diff import ImageDiff, Side, diff_images, lock_lines
from mlbox.report.filediff import FileChange
from mlbox.report.load import load_side
from mlbox.store.store import Store

Layers = dict[str, dict[str, bytes | str | int]]


def diff(store: Store, old: Layers, new: Layers, *configs: ContainerConfig) -> ImageDiff:
    make_image(store, old, config=configs[0] if configs else None, name="old:1")
    make_image(store, new, config=configs[1] if configs else None, name="new:1")
    return diff_images(store, load_side(store, "old:1"), load_side(store, "new:1"))


def files(found: ImageDiff) -> dict[str, FileChange]:
    return {one.path: one for one in found.files}


def test_the_same_image_has_no_differences(store: Store) -> None:
    found = diff(store, {"a": {"x": b"1"}}, {"a": {"x": b"1"}})

    assert found.old_digest == found.new_digest
    assert (found.packages, found.config, found.files) == ((), (), ())
    assert [one.what for one in found.layers] == ["shared"]


def test_layers_that_both_have_are_not_read(store: Store) -> None:
    """Their files are gone, and nobody notices."""
    shared = {"s": b"shared"}
    one, two = {"a": shared, "b": {"x": b"1"}}, {"a": shared, "b": {"x": b"2"}}
    make_image(store, one, name="old:1")
    image = make_image(store, two, name="new:1")
    (store.layers.root(image.config.rootfs.diff_ids[0]) / "s").unlink()

    found = diff_images(store, load_side(store, "old:1"), load_side(store, "new:1"))

    assert list(files(found)) == ["/x"]
    assert [(one.what, one.name) for one in found.layers] == [("shared", "a"), ("changed", "b")]


def test_files(store: Store) -> None:
    """Content is compared where the size is equal; kinds, modes and targets count."""
    old: Layers = {
        "a": {"gone": b"1", "same": b"12", "content": b"12", "size": b"1", "link": "x", "kind": b"1", "d": 0o700}
    }
    new: Layers = {
        "b": {"new": b"1", "same": b"12", "content": b"13", "size": b"12", "link": "y", "kind": "z", "d": 0o755}
    }

    found = {path: (one.what, one.detail) for path, one in files(diff(store, old, new)).items()}

    assert found == {
        "/gone": ("removed", ""),
        "/new": ("added", ""),
        "/content": ("changed", "content"),
        "/size": ("changed", "content"),
        "/link": ("changed", "target x -> y"),
        "/kind": ("changed", "file -> symlink"),
        "/d": ("changed", "mode 700 -> 755"),
    }


def test_config(store: Store) -> None:
    configs = (
        ContainerConfig(env=("A=1", "B=2"), cmd=("x",), user="me", labels={"l": "1"}),
        ContainerConfig(env=("A=2", "C="), cmd=("x", "y"), labels={"l": "1"}, exposed_ports={"80/tcp": {}}),
    )

    found = diff(store, {"a": {}}, {"a": {}}, *configs).config

    assert {(one.field, one.old, one.new) for one in found} == {
        ("env A", "1", "2"),
        ("env B", "2", ""),
        ("cmd", '["x"]', '["x","y"]'),
        ("user", "me", ""),
        ("port 80/tcp", "", "exposed"),
    }


def side_of(store: Store, lock: Lock, layers: Layers) -> Side:
    image = make_image(store, layers, lock=lock)
    return load_side(store, image.digest)


def test_packages_and_the_lines_that_caused_them(store: Store) -> None:
    """Each change says why: the project's line, the chain, the entry in the lock."""
    base = debs(("libc6", "1", "", {"usr/libc": b"1"}))
    newer = debs(("libc6", "2", "", {"usr/libc": b"123"}))
    before = lock_of(
        package("top", wanted_by=("requirements.txt:1",)), package("old", wanted_by=("requirements.txt:2",))
    )
    after = lock_of(
        package("top", "2.0", requires=("leaf",), wanted_by=("requirements.txt:1",)),
        package("leaf"),
        debs=(("libc6", "base"),),
    )
    old = side_of(store, before, {"base": base, "env": {**wheel("top"), **wheel("old")}})
    new = side_of(store, after, {"base": newer, "env": {**wheel("top", "2.0", top__a=b"1"), **wheel("leaf")}})

    found = {one.name: one for one in diff_images(store, old, new).packages}

    assert {(name, one.what, one.old, one.new) for name, one in found.items()} == {
        ("leaf", "added", "", "1.0"),
        ("libc6", "changed", "1", "2"),
        ("old", "removed", "1.0", ""),
        ("top", "changed", "1.0", "2.0"),
    }
    assert found["leaf"].cause == "requirements.txt:1 > top > leaf"
    assert found["old"].cause == "requirements.txt:2 > old"
    assert found["libc6"].cause == ""
    text = encode_lock(after).decode().splitlines()
    assert text[found["leaf"].lock_line - 1] == 'name = "leaf"'
    assert text[found["libc6"].lock_line - 1] == 'name = "libc6"'
    assert {one.name for one in diff_images(store, old, new).lock} >= {"leaf", "old", "top"}


def test_another_file_of_the_same_version_is_a_change(store: Store) -> None:
    one = lock_of(package("a"))
    two = msgspec.structs.replace(one, packages=(msgspec.structs.replace(one.packages[0], sha256="0" * 64),))

    found = diff_images(
        store, side_of(store, one, {"e": wheel("a", a__x=b"1")}), side_of(store, two, {"e": wheel("a")})
    )

    assert [(change.name, change.what) for change in found.packages] == [("a", "changed")]


def test_lines_of_a_lock_are_those_of_its_tables() -> None:
    """Layers have names too, and names may stand in lists."""
    tables = ["[[layer]]", "", "[[package]]", 'version = "1"', "[[deb]]", "[x]"]
    text = "\n".join(f'{table}\nname = "a"\nrequires = ["b"]' for table in tables).encode()

    assert lock_lines(text) == {("package", "a"): 8, ("deb", "a"): 14}


def test_foreign_images(store: Store) -> None:
    """Images without a lock and names of layers: packages are read from inside."""
    found = diff(store, {"": wheel("a")}, {"": {**wheel("a", "2.0"), f"{SITE}/x": b""}})

    assert [(one.name, one.old, one.new, one.lock_line) for one in found.packages] == [("a", "1.0", "2.0", 0)]
    assert found.lock == ()
