"""Layers of others, mounted and run: the merged view is the one that umoci and podman make."""

import hashlib
import json
import os
import random
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.foreign import SPARSE, digest, ingest
from fakes.tars import END, GNU, file, folder, hardlink, header, long_name, pax, symlink

from mlbox.oci.digest import DiffID, Digest
from mlbox.oci.image import LAYER_TAR, ContainerConfig, Descriptor, Image, ImageConfig, RootFS, image_of
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.layout import export_layout
from mlbox.store.store import Store

pytestmark = pytest.mark.integration

NAME = "me/foreign:1"
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
TESTS = Path(__file__).parents[1]
Listing = dict[str, list[Any]]

# Mounts the layers as a container's monitor does, in a mount namespace of its own, and lists what is there.
MOUNT = """
import json, sys
from pathlib import Path
from integration.test_foreign_layers import listing
from mlbox.runtime.rootfs import enter_private_mounts, mount_overlay
folder, *lower = map(Path, sys.argv[1:])
for name in ("upper", "work", "merged"):
    (folder / name).mkdir(parents=True)
enter_private_mounts()
mount_overlay(lower, folder / "upper", folder / "work", folder / "merged", volatile=True)
print(json.dumps(listing(folder / "merged")))
"""


def listing(root: Path) -> Listing:
    """Return what lies below `root`: type, mode, owner, links, size or target or content, attributes, time."""
    found: Listing = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        what: object = None
        if stat.S_ISREG(status.st_mode):
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            what = str(path.readlink())
        links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
        names = [name for name in os.listxattr(path, follow_symlinks=False) if "overlay" not in name]
        attributes = [[name, os.getxattr(path, name, follow_symlinks=False).hex()] for name in sorted(names)]
        time = int(status.st_mtime) if not stat.S_ISDIR(status.st_mode) else 0
        owner = [status.st_uid, status.st_gid]
        found[str(path.relative_to(root))] = [oct(status.st_mode), owner, links, what, attributes, time]
    return found


def layers(busybox: str) -> list[bytes]:
    """Return the tars of an image: a system, and three that change it in every way there is."""
    program = Path(busybox).read_bytes()
    system = [folder("./"), folder("bin"), folder("etc"), folder("proc"), folder("sys"), folder("dev"), folder("usr")]
    system += [
        folder("tmp", mode=0o1777),
        file("bin/busybox", program, mode=0o755),
        hardlink("bin/ls", "bin/busybox", mode=0o755),
    ]
    system += [symlink("bin/sh", "busybox"), symlink("bin/cat", "busybox"), symlink("bin/id", "busybox")]
    system += [file("etc/passwd", b"root:x:0:0::/:/bin/sh\nme:x:1234:5678::/:/bin/sh\n")]
    system += [folder("usr/lib"), symlink("lib", "usr/lib"), file("lib/one", b"1", uid=12, gid=34)]
    system += [folder("gone"), file("gone/a", b"a"), file("gone/b", b"b"), folder("new"), file("new/old", b"old")]
    system += [
        file("etc/shadow", b"secret", mode=0o600, gid=42),
        file("file", b"was a file"),
        folder("dir"),
        file("dir/x"),
    ]
    system += [pax({"SCHILY.xattr.security.capability": CAPABILITY, "mtime": "1234567890.5"})]
    system += [file("bin/ping", b"ping", mode=0o755), file("bin/sudo", b"sudo", mode=0o4755)]
    second = [folder("gone"), file("gone/.wh.a"), folder("etc"), file("etc/.wh.shadow"), file(".wh.file")]
    second += [folder("new"), file("new/.wh..wh..opq"), file("new/now", b"new"), folder("bin"), file("bin/x", b"x")]
    second += [hardlink("bin/y", "bin/x"), hardlink("bin/z", "bin/y"), file(".wh.dir"), SPARSE["1.0"]]
    third = [folder("file"), file("file/inside", b"1"), file("dir", b"was a folder"), folder("etc")]
    third += [file("etc/shadow", b"again", mode=0o640, uid=1, gid=2**31), header("etc/pipe", b"6", mode=0o600)]
    third += [long_name(b"usr/" + b"n" * 200), file("cut", b"long", magic=GNU), symlink("usr/loop", "loop")]
    fourth = [file(".wh.gone"), folder("usr"), folder("usr/lib"), file("usr/lib/one", b"3", mode=0o444)]
    return [b"".join(members) + END for members in (system, second, third, fourth)]


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    """An empty store."""
    store = Store(home)
    yield store
    store.close()


@pytest.fixture
def image(store: Store, need: Callable[[str], str]) -> Image:
    """The image of `layers`, named."""
    tars = layers(need("busybox"))
    image = added(store, tuple(ingest(store, data) for data in tars), tuple(map(len, tars)))
    store.images.tag(image.digest, parse_reference(NAME))
    return image


def added(store: Store, diff_ids: tuple[DiffID, ...], sizes: tuple[int, ...]) -> Image:
    """Return the image of layers that are there."""
    config = ImageConfig(
        architecture="amd64", os="linux", config=ContainerConfig(cmd=("/bin/sh",)), rootfs=RootFS(diff_ids=diff_ids)
    )
    both = zip(diff_ids, sizes, strict=True)
    found = tuple(Descriptor(media_type=LAYER_TAR, digest=Digest(diff_id), size=size) for diff_id, size in both)
    image = image_of(config, found)
    store.images.add(image)
    return image


def merged(store: Store, image: Image, folder: Path) -> Listing:
    """Return what a container of `image` would see."""
    return mounted([store.layers.root(diff_id) for diff_id in image.config.rootfs.diff_ids], folder)


def mounted(lower: list[Path], folder: Path) -> Listing:
    """Return what lies in the overlay of `lower`."""
    command = [sys.executable, "-c", MOUNT, str(folder), *map(str, lower)]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found: Listing = json.loads(done.stdout)
    return found


def different(ours: Listing, theirs: Listing) -> dict[str, tuple[object, object]]:
    """Return where two views are not the same."""
    paths = (path for path in ours | theirs if ours.get(path) != theirs.get(path))
    return {path: (ours.get(path), theirs.get(path)) for path in paths}


def out(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_merged_view_is_what_umoci_unpacks(
    store: Store, image: Image, tmp_path: Path, need: Callable[[str], str]
) -> None:
    """File by file: types, modes, owners, links, contents, targets, attributes."""
    umoci = need("umoci")
    export_layout(store, image, tmp_path / "layout", (parse_reference(NAME),))
    out(umoci, "unpack", "--image", f"{tmp_path}/layout:{NAME}", str(tmp_path / "bundle"))
    ours, theirs = merged(store, image, tmp_path / "mounts"), listing(tmp_path / "bundle" / "rootfs")
    assert different(ours, theirs) == {}
    assert ours["bin/z"][2] == 3
    assert ours["bin/ping"][4] == [["security.capability", CAPABILITY.hex()]]
    assert "file/inside" in ours
    assert not {"gone", "new/old", "dir/x"} & set(ours)


def test_a_layer_that_comes_twice(store: Store, image: Image, tmp_path: Path, need: Callable[[str], str]) -> None:
    """Empty ones above all, but also one that hides what came after it the first time."""
    umoci = need("umoci")
    size = {layer.digest: layer.size for layer in image.manifest.layers}
    one, two, three, four = image.config.rootfs.diff_ids
    empty = ingest(store, END)
    order = (empty, one, two, empty, three, two, four, empty)
    twice = added(store, order, tuple(size.get(Digest(diff_id), len(END)) for diff_id in order))
    export_layout(store, twice, tmp_path / "layout", (parse_reference(NAME),))
    out(umoci, "unpack", "--image", f"{tmp_path}/layout:{NAME}", str(tmp_path / "bundle"))
    ours, theirs = merged(store, twice, tmp_path / "mounts"), listing(tmp_path / "bundle" / "rootfs")
    assert different(ours, theirs) == {}


def test_the_merged_view_is_what_podman_mounts(
    store: Store, image: Image, tmp_path: Path, need: Callable[[str], str]
) -> None:
    """The same for containers/storage."""
    podman = need("podman")
    export_layout(store, image, tmp_path / "layout", (parse_reference(NAME),))
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # podman wants short paths
        storage = [podman, "--root", f"{short}/s", "--runroot", f"{short}/r", "--storage-driver", "overlay"]
        try:
            out(*storage, "pull", "-q", f"oci:{tmp_path}/layout:{NAME}")
            (name,) = out(*storage, "images", "-q").split()
            theirs = listing(Path(out(*storage, "image", "mount", name)))
        finally:
            subprocess.run([*storage, "image", "umount", "--all"], capture_output=True)
            subprocess.run(["umount", f"{short}/s/overlay"], capture_output=True)
    assert different(merged(store, image, tmp_path / "mounts"), theirs) == {}


def test_containers_run_on_it(home: Home, image: Image, need: Callable[[str], str]) -> None:
    """As root and as a user of the image, and nobody else on the host gets to its files."""
    need("runc")
    environment = {**os.environ, "MLBOX_HOME": str(home.root), "PYTHONPATH": str(TESTS.parent)}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "mlbox", "run", "--rm", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(NAME, "sh", "-c", "cat lib/one dir new/now bin/z; ls gone 2>&1 || true").startswith("3was a foldernewx")
    assert run("-u", "me", NAME, "sh", "-c", "id -u; id -g; cat lib/one") == "1234\n5678\n3"
    assert stat.S_IMODE(home.layers.stat().st_mode) == 0o700


def stacked(chance: random.Random) -> list[bytes]:
    """Return three layers that make, replace and hide a few names again and again."""
    tars = []
    for _ in range(3):
        top = [name for name in ("a", "b", "c") if chance.random() < 0.6]
        members = [b for name in top for b in made(chance, name)]
        for parent in ("d", "e"):
            inside = [name for name in ("x", "y", "z") if chance.random() < 0.6]
            if inside or chance.random() < 0.3:
                members.append(folder(parent, mode=chance.choice([0o755, 0o700, 0o1777])))
                members += [file(f"{parent}/.wh..wh..opq")] * (chance.random() < 0.3)
                members += [b for name in inside for b in made(chance, f"{parent}/{name}")]
            elif chance.random() < 0.3:
                members.append(file(f".wh.{parent}"))
        tars.append(b"".join(members) + END)
    return tars


def made(chance: random.Random, name: str) -> list[bytes]:
    """Return the members that make `name` something, or hide it."""
    parent, _, last = name.rpartition("/")
    hidden = file(f"{parent}/.wh.{last}" if parent else f".wh.{last}")
    choices = [
        [hidden],
        [file(name, chance.randbytes(600), uid=chance.choice([0, 7]))],
        [folder(name), file(f"{name}/in", b"1")],
        [symlink(name, "d/x")],
        [file(name, b"1"), hardlink(f"{name}-too", name)],
        [header(name, b"6")],
    ]
    return chance.choice(choices)


def test_any_layers_look_as_umoci_has_them(store: Store, tmp_path: Path, need: Callable[[str], str]) -> None:
    """Fifteen images of three layers by chance, the same chance every time."""
    umoci, chance = need("umoci"), random.Random(1)
    for number in range(15):
        diff_ids = tuple(ingest(store, data) for data in stacked(chance))
        image = added(store, diff_ids, tuple(store.layers.record(diff_id).size for diff_id in diff_ids))
        folder = tmp_path / str(number)
        export_layout(store, image, folder / "layout", (parse_reference(NAME),))
        out(umoci, "unpack", "--image", f"{folder}/layout:{NAME}", str(folder / "bundle"))
        views = merged(store, image, folder / "mounts"), listing(folder / "bundle" / "rootfs")
        for view in views:
            for row in view.values():
                row[2] = 0  # an overlay counts the names that a higher layer hides, too
        assert different(*views) == {}


@pytest.mark.parametrize("count", [127, 400])
def test_very_many_layers(store: Store, tmp_path: Path, count: int) -> None:
    """More than one page of options can name."""
    roots = [
        store.layers.root(ingest(store, file(f"f{i}", b"%d" % i) + file("top", b"%d" % i) + END)) for i in range(count)
    ]
    found = mounted(roots, tmp_path / "mounts")
    assert set(found) == {"top", *(f"f{i}" for i in range(count))}
    assert found["top"][3] == hashlib.sha256(b"%d" % (count - 1)).hexdigest()


def test_a_root_that_hides_everything(store: Store, tmp_path: Path) -> None:
    """The kernel overlooks an opaque root, the mount does not."""
    tars = [file("a", b"1") + END, file(".wh..wh..opq") + file("b", b"2") + END, file("c", b"3") + END]
    found = mounted([store.layers.root(ingest(store, data)) for data in tars], tmp_path / "mounts")
    assert set(found) == {"b", "c"}
    assert digest(tars[0]) in set(store.layers.diff_ids())
