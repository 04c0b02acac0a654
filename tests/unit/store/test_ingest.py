"""Layers made by others: taken in exactly, or not at all."""

import os
import stat
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes.foreign import SPARSE, digest, ingest, join, shown
from fakes.tars import (
    BLOCK,
    END,
    file,
    folder,
    hardlink,
    header,
    long_name,
    padded,
    pax,
    symlink,
)
from fakes.trees import Files, key, make_layer

from mlbox.errors import ArchiveError, StoreError
from mlbox.oci.layer import Entry
from mlbox.paths import Home
from mlbox.store.fsck import fsck, tree_problem
from mlbox.store.store import Store

ROOT = os.geteuid() == 0
FILES: Files = {
    "bin/x": b"1",
    "lib/a/b": b"b" * 5000,
    "link": "lib/a",
    "tmp": 0o1777,
    "lib/é" * 30: b"",
    "empty": 0o755,
}


@pytest.mark.parametrize("step", [1 << 20, 1000, 512, 7])
def test_our_own_layer_comes_back_as_if_assembled(store: Store, step: int) -> None:
    """The tar of a layer of mlbox needs no frames."""
    layer = make_layer(store, "one", FILES)
    data = join(store.layers.tar(layer.diff_id))
    entries = store.layers.entries(layer.diff_id)
    before = {path: os.lstat(path).st_mtime_ns for path in store.layers.root(layer.diff_id).rglob("*")}
    store.layers.delete(layer.diff_id)
    assert store.layers.find(key("layer one")) is None
    ingest(store, data, step)
    assert store.layers.entries(layer.diff_id) == entries
    assert not store.layers.record(layer.diff_id).frames
    folder = store.layers.folder(layer.diff_id)
    assert sorted(path.name for path in folder.iterdir()) == ["entries", "fs", "record.json"]
    assert {path: os.lstat(path).st_mtime_ns for path in store.layers.root(layer.diff_id).rglob("*")} == before
    assert store.layers.adopt(key("layer one"), "one", layer.diff_id) == layer == store.layers.find(key("layer one"))


def taken(store: Store, *members: bytes) -> dict[str, str | bytes]:
    """Take in the tar of `members` and return what lies on the disk."""
    return shown(store, ingest(store, b"".join(members) + END))


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        pytest.param([file("./a/b", b"1"), folder("./a/"), folder("./")], {"a": "dir", "a/b": b"1"}, id="dots"),
        pytest.param([file("/a//b", b"1")], {"a": "dir", "a/b": b"1"}, id="absolute"),
        pytest.param([file("a", b"1"), file("a", b"22")], {"a": b"22"}, id="twice"),
        pytest.param([file("a", b"1"), folder("a"), file("a/b", b"2")], {"a": "dir", "a/b": b"2"}, id="to a folder"),
        pytest.param(
            [folder("a"), file("a/b", b"1"), folder("a/c"), file("a/c/d", b"2"), file("a", b"3")],
            {"a": b"3"},
            id="to a file",
        ),
        pytest.param([file("a", b"1"), symlink("a", "b"), file("a", b"2")], {"a": b"2"}, id="link and back"),
        pytest.param([symlink("a", "/etc/passwd"), file("a", b"2")], {"a": b"2"}, id="not through a link"),
        pytest.param(
            [file("a", b"1"), hardlink("b", "a"), file("a", b"2")], {"a": b"2", "b": b"1"}, id="linked before"
        ),
        pytest.param(
            [file("a", b"1"), hardlink("b", "a"), file("b", b"2")], {"a": b"1", "b": b"2"}, id="link replaced"
        ),
        pytest.param(
            [file("a", b"1"), hardlink("b", "./a"), hardlink("b", "/b")], {"a": b"1", "b": b"1"}, id="to itself"
        ),
        pytest.param(
            [file("a", b""), hardlink("b", "a"), hardlink("c", "b")], {"a": b"", "b": b"", "c": b""}, id="links"
        ),
        pytest.param([symlink("a", "x"), hardlink("b", "a")], {"a": "-> x", "b": "-> x"}, id="link of a symlink"),
        pytest.param(
            [folder("usr/lib"), symlink("lib", "usr/lib"), file("lib/x", b"1"), hardlink("y", "lib/x")],
            {"lib": "-> usr/lib", "usr": "dir", "usr/lib": "dir", "usr/lib/x": b"1", "y": b"1"},
            id="below a link",
        ),
        pytest.param(
            [folder("a/b"), symlink("a/b/up", "../../../../c"), file("a/b/up/x", b"1")],
            {"a": "dir", "a/b": "dir", "a/b/up": "-> ../../../../c", "c": "dir", "c/x": b"1"},
            id="below a link that climbs",
        ),
        pytest.param(
            [symlink("etc", "/tmp/outside"), file("etc/x", b"1")],
            {"etc": "-> /tmp/outside", "tmp": "dir", "tmp/outside": "dir", "tmp/outside/x": b"1"},
            id="below a link that leads out",
        ),
        pytest.param(
            [symlink("a", "b"), folder("a"), file("a/x", b"1")], {"a": "dir", "a/x": b"1"}, id="link to folder"
        ),
        pytest.param(
            [symlink("a", "b/../c"), file("a/x", b"1")],
            {"a": "-> b/../c", "c": "dir", "c/x": b"1"},
            id="below a link that turns round",
        ),
        pytest.param([header("p", b"6")], {"p": "0o10000"}, id="fifo"),
        pytest.param(
            [header("dev/null", b"3"), header("dev/sda", b"4"), hardlink("dev/b", "dev/sda")],
            {"dev": "dir"},
            id="devices",
        ),
        pytest.param([header("a", b"3"), file("a", b"1")], {"a": b"1"}, id="device replaced"),
        pytest.param(
            [file("a/.wh.b"), file(".wh.c", b"strange")], {"a": "dir", "a/b": "whiteout", "c": "whiteout"}, id="wh"
        ),
        pytest.param([file("a/.wh.b"), file("a/.wh..wh..opq")], {"a": "opaque"}, id="wh in opaque"),
        pytest.param([file(".wh.a"), file("a", b"1")], {"a": b"1"}, id="own file after its whiteout"),
        pytest.param([file("a", b"1"), file(".wh.a")], {"a": b"1"}, id="own file before its whiteout"),
        pytest.param([file(".wh.a"), folder("a")], {"a": "opaque"}, id="own folder after its whiteout"),
        pytest.param(
            [file("a/b", b"1"), file(".wh.a")], {"a": "opaque", "a/b": b"1"}, id="own folder before its whiteout"
        ),
        pytest.param([file("a/b", b"1"), file("a/.wh..wh..opq")], {"a": "opaque", "a/b": b"1"}, id="opaque"),
        pytest.param(
            [file("a/.wh..wh..opq"), folder("a"), file("a/b", b"1")], {"a": "opaque", "a/b": b"1"}, id="opaque first"
        ),
        pytest.param(
            [folder(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"x"), file(".wh..wh.aufs", b"y"), file("a", b"1")],
            {"a": b"1"},
            id="aufs",
        ),
        pytest.param([pax({"comment": "git"}, b"g"), file("a", b"1")], {"a": b"1"}, id="global"),
        pytest.param([], {}, id="empty"),
    ],
)
def test_what_members_mean(store: Store, members: list[bytes], wanted: dict[str, str | bytes]) -> None:
    """Later members win, links stay inside, whiteouts are the overlay's."""
    assert taken(store, *members) == wanted


@pytest.mark.parametrize("end", [b"", bytes(BLOCK), bytes(20 * BLOCK), END + b"garbage" * 400_000], ids=len)
def test_every_end_is_kept(store: Store, end: bytes) -> None:
    """What follows the last member belongs to the digest."""
    assert shown(store, ingest(store, file("a", b"1") + end)) == {"a": b"1"}


def test_no_tar_at_all_is_an_empty_layer(store: Store) -> None:
    """So is one of zeros only."""
    assert shown(store, ingest(store, b"")) == shown(store, ingest(store, END)) == {}


def test_missing_padding_at_the_end(store: Store) -> None:
    """Go's reader does not mind, so neither do we."""
    assert shown(store, ingest(store, header("a", size=3) + b"123")) == {"a": b"123"}


def test_modes_owners_and_times(store: Store) -> None:
    """As the tar says, to the nanosecond, on files, folders, links and the root."""
    diff_id = ingest(
        store,
        pax({"mtime": "1234567890.123456789"})
        + folder("./", mode=0o751, uid=7)
        + pax({"mtime": "1.5"})
        + file("sudo", b"x", mode=0o6755, uid=12, gid=34)
        + folder("tmp", mode=0o3777, gid=5, mtime=99)
        + file("tmp/x", b"", mode=0o4000)
        + file("no", b"1", mode=0)
        + symlink("link", "sudo", uid=1, gid=2, mtime=7)
        + file("old", b"1", mtime=-(2**31) + 5)
        + file("new", b"1", mtime=2**50)
        + header("pipe", b"6", mode=0o622, uid=3)
        + END,
    )
    root = store.layers.root(diff_id)
    found = {name: (root / name).lstat() for name in ("", "sudo", "tmp", "tmp/x", "no", "link", "pipe")}
    modes = {name: stat.S_IMODE(status.st_mode) for name, status in found.items() if name != "link"}
    readable = 0 if ROOT else 0o400  # else its owner could not give it away
    assert modes.pop("no") == readable
    assert modes == {"": 0o751, "sudo": 0o6755, "tmp": 0o3777, "tmp/x": 0o4000 | readable, "pipe": 0o622}
    times = [found[name].st_mtime_ns for name in ("", "sudo", "tmp", "link")]
    assert times == [1234567890123456789, 1_500_000_000, 99 * 10**9, 7 * 10**9]
    if ROOT:
        owners = {name: (status.st_uid, status.st_gid) for name, status in found.items()}
        wanted = {"": (7, 0), "sudo": (12, 34), "tmp": (0, 5), "link": (1, 2), "pipe": (3, 0), "tmp/x": (0, 0)}
        assert owners == {**wanted, "no": (0, 0)}
    entry = next(entry for entry in store.layers.entries(diff_id) if entry.path == "sudo")
    assert entry == Entry("sudo", "file", 0o6755, 1, 1, "", 12, 34)
    assert tree_problem(store.layers.folder(diff_id), deep=True) is None


def test_the_last_name_says_what_a_file_is(store: Store) -> None:
    """Where the names of one file disagree, as in Docker and podman."""
    diff_id = ingest(store, file("a", b"1", mode=0o644) + hardlink("b", "a", mode=0o4755, uid=7, mtime=5) + END)
    found = (store.layers.root(diff_id) / "a").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o4755, 5)
    assert not ROOT or found.st_uid == 7
    assert tree_problem(store.layers.folder(diff_id), deep=True) is None


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
def test_the_last_name_gives_a_file_back_to_root(store: Store) -> None:
    """Also when the owner that it says is who unpacks."""
    diff_id = ingest(store, file("a", b"1", uid=7, gid=8) + hardlink("b", "a") + END)
    status = (store.layers.root(diff_id) / "a").lstat()
    assert (status.st_uid, status.st_gid) == (0, 0)


def test_entries_say_what_the_layer_is(store: Store) -> None:
    """Also what the disk cannot hold."""
    data = file("b", b"12") + hardlink("a", "b") + hardlink("z", "a") + file(".wh.w") + file("o/.wh..wh..opq")
    diff_id = ingest(store, data + header("dev", b"3") + header("p", b"6") + END)
    entries = {e.path: (e.kind, e.size, e.target, e.opaque) for e in store.layers.entries(diff_id)}
    assert entries == {
        "a": ("file", 2, "", False),
        "b": ("link", 0, "a", False),
        "z": ("link", 0, "a", False),
        "dev": ("char", 0, "", False),
        "p": ("fifo", 0, "", False),
        "w": ("whiteout", 0, "", False),
        "o": ("dir", 0, "", True),
    }
    assert store.layers.root(diff_id).joinpath("a").lstat().st_nlink == 3
    assert store.layers.record(diff_id).omitted[0] == "dev: a char device"


def test_attributes(store: Store) -> None:
    """Capabilities and user attributes are set; what belongs to a machine stays in the tar."""
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    records: dict[str, bytes | str] = {
        "SCHILY.xattr.user.x": b"\0\1",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.security.selinux": "x",
        "SCHILY.xattr.system.posix_acl_access": "x",
        "SCHILY.xattr.security.capability": capability,
    }
    diff_id = ingest(store, pax(records) + file("ping", b"x", uid=5) + pax(records) + folder("dir") + END)
    for name in ("ping", "dir"):
        path = store.layers.root(diff_id) / name
        found = {name: os.getxattr(path, name) for name in os.listxattr(path)}
        assert found.pop("user.x") == b"\0\1"
        assert found == ({"security.capability": capability} if ROOT else {})


@pytest.mark.parametrize("data", SPARSE.values(), ids=SPARSE.keys())
@pytest.mark.parametrize("step", [1 << 20, 100])
def test_sparse_files(store: Store, data: bytes, step: int) -> None:
    """Holes are holes, the bytes where they belong."""
    diff_id = ingest(store, data + END, step)
    wanted = bytearray(20_000)
    wanted[512:515], wanted[10_000:10_004] = b"123", b"4567"
    assert shown(store, diff_id) == {"s": bytes(wanted)}
    assert store.layers.root(diff_id).joinpath("s").stat().st_blocks * 512 < 20_000


def test_replaced_content_is_kept(store: Store) -> None:
    """Of plain, linked and sparse files, alone and in folders that go."""
    data = (
        SPARSE["old"]
        + file("s", b"second")
        + hardlink("h", "s")
        + folder("s")
        + file("s/x", b"deep")
        + file("s", b"end")
    )
    diff_id = ingest(store, data + END)
    assert shown(store, diff_id) == {"s": b"end", "h": b"second"}
    assert len(list((store.layers.folder(diff_id) / "kept").iterdir())) == 3
    (store.layers.folder(diff_id) / "kept" / "0").unlink()
    assert tree_problem(store.layers.folder(diff_id)) is None
    assert "shorter than the 515 bytes" in str(tree_problem(store.layers.folder(diff_id), deep=True))


HOSTILE = {
    "climbs": [file("../evil", b"1")],
    "climbs inside": [file("a/../../evil", b"1")],
    "climbs back": [folder("a"), file("a/../evil", b"1")],
    "link climbs": [file("a", b"1"), hardlink("b", "../../etc/passwd")],
    "link to nothing": [hardlink("b", "etc/passwd")],
    "link through a link": [symlink("a", "/etc"), hardlink("b", "a/passwd")],
    "link to a folder": [folder("a"), hardlink("b", "a")],
    "link to the root": [hardlink("b", "/")],
    "link to a whiteout": [file(".wh.a"), hardlink("b", "a")],
    "link to what goes": [folder("a"), file("a/b", b"1"), hardlink("a", "a/b")],
    "link to itself only": [hardlink("a", "a")],
    "below a file": [file("a", b"1"), file("a/b", b"1")],
    "below a device": [header("a", b"3"), file("a/b", b"1")],
    "loop": [symlink("a", "b"), symlink("b", "a"), file("a/x", b"1")],
    "loop to itself": [symlink("a", "a"), file("a/x", b"1")],
    "whiteout of nothing": [file("a/.wh.")],
    "whiteout of here": [file("a/.wh..")],
    "whiteout of above": [file("a/.wh...")],
    "whiteout of whiteout": [file("a/.wh.b/c")],
    "root is a file": [file("./", b"")[:156] + file("./", b"")[156:], symlink("/", "/etc")],
    "long name": [long_name(b"n" * 256), file("n", b"1")],
    "long path": [long_name(b"n/" * 2040 + b"n"), file("n", b"1")],
    "empty link": [symlink("a", "")],
    "size lies": [header("a", size=10 * BLOCK), b"x" * BLOCK],
    "size absurd": [header("a", size=2**62), b"x" * BLOCK],
    "hole absurd": [pax({"GNU.sparse.size": str(2**61), "GNU.sparse.map": "0,1"}), file("s", b"1")],
    "device content": [header("a", b"2", 5, link=b"x" * 10) + padded(b"12345")],
    "unknown": [header("a", b"N")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_harm_is_refused_and_leaves_nothing(store: Store, members: list[bytes], tmp_path: Path) -> None:
    """An error that names layer and member; no layer, no leftovers, nothing outside."""
    data = file("good", b"1") + b"".join(members) + END
    with pytest.raises(ArchiveError, match=r"^layer one: ") as caught:
        store.layers.ingest(digest(data), [data], "layer one")
    assert caught.value.hint
    assert not list(store.layers.diff_ids())
    assert not [path for path in store.home.tmp.iterdir() if path.exists()]
    assert [path.name for path in tmp_path.rglob("*") if path.name in ("evil", "passwd", "b", "f")] == []
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_another_digest_is_refused(store: Store) -> None:
    """However good the tar is: whole, cut at its end, or with one byte more."""
    data = file("a", b"1") + END
    for other in (data[:-1], data + b"\0", file("a", b"2") + END):
        with pytest.raises(ArchiveError, match=f"layer one: its content is {digest(other)}, not {digest(data)}"):
            store.layers.ingest(digest(data), [other], "layer one")
        assert not store.layers.has(digest(data))


def test_limits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of bytes, holes too, and of members, those included that nobody named."""
    data = file("a", b"123") + file("b", b"123") + END
    with pytest.raises(ArchiveError, match=r"layer one: 'b': .*larger"):
        store.layers.ingest(digest(data), [data], "layer one", limit=5)
    store.layers.ingest(digest(data), [data], "layer one", limit=6)
    monkeypatch.setattr("mlbox.store.lower.MAX_MEMBERS", 3)
    ingest(store, file("a/b/c", b"") + END)
    monkeypatch.setattr("mlbox.store.lower.MAX_NAMES", 250)
    data = symlink("a", "b" * 90) + symlink("c", "b" * 90) + file("x" * 40 + "/" + "y" * 40 + "/z", b"")
    with pytest.raises(ArchiveError, match="names are more"):
        store.layers.ingest(digest(data), [data], "layer one")
    for data in (file("a/b/c/d", b"") + END, file("a", b"") * 4 + END):
        with pytest.raises(ArchiveError, match="more than 3 members"):
            store.layers.ingest(digest(data), [data], "layer one")


def test_a_layer_that_is_there_is_not_read(store: Store) -> None:
    """Asking again costs nothing."""
    data = file("a", b"1") + END
    diff_id = ingest(store, data)
    assert store.layers.ingest(diff_id, iter(lambda: pytest.fail("read"), None), "again") == len(data)


def test_two_at_once(store: Store, home: Home) -> None:
    """One of them does the work, both get the layer."""
    data = b"".join(file(f"f{i}", b"x" * 1000) for i in range(200)) + END
    both = threading.Barrier(2)

    def take(one: Store) -> int:
        both.wait()
        return one.layers.ingest(digest(data), [data], "layer one")

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(take, [store, Store(home)])) == [len(data)] * 2
    assert len(shown(store, digest(data))) == 200


def test_a_failing_source_leaves_nothing(store: Store) -> None:
    """What a download raises passes, and the next try works."""
    data = file("a", b"1") + END

    def broken() -> Iterable[bytes]:
        yield data[:600]
        raise StoreError("the line is cut")

    with pytest.raises(StoreError, match="the line is cut"):
        store.layers.ingest(digest(data), broken(), "layer one")
    assert not list(store.home.tmp.iterdir())
    ingest(store, data)


def test_missing_layers_cannot_be_adopted(store: Store) -> None:
    """A key is remembered for what is there only."""
    with pytest.raises(StoreError, match="missing"):
        store.layers.adopt(key("x"), "x", digest(b"x"))


def test_other_users_stay_out(store: Store) -> None:
    """Setuid programs of strangers lie there; what was open before is closed."""
    store.home.layers.mkdir(parents=True, mode=0o755)
    ingest(store, file("sudo", b"x", mode=0o4755) + END)
    make_layer(store, "one", FILES)
    for path in (store.home.layers, store.home.pieces):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_damage_is_found(store: Store) -> None:
    """Of every kind of entry."""
    data = file("a", b"12") + hardlink("b", "a") + file(".wh.w") + file("o/.wh..wh..opq") + header("p", b"6")

    def damage(change: Callable[[Path], object]) -> str | None:
        diff_id = ingest(store, data + END)
        change(store.layers.folder(diff_id))
        problem = tree_problem(store.layers.folder(diff_id), deep=True)
        assert [finding.what for finding in fsck(store, deep=True, repair=True).findings] == [diff_id]
        assert not store.layers.has(diff_id)
        return problem

    def unlinked(folder: Path) -> None:
        (folder / "fs/b").unlink()
        (folder / "fs/b").write_bytes(b"12")
        (folder / "fs/b").chmod(0o644)
        os.utime(folder / "fs/b", (1_700_000_000, 1_700_000_000))

    assert damage(unlinked) == "'b': is another file than 'a'"
    assert damage(lambda folder: (folder / "fs/w").unlink()) == "'w' is missing"
    assert damage(lambda folder: (folder / "fs/p").unlink()) == "'p' is missing"
    assert damage(lambda folder: (folder / "frames").unlink()) == "its frames are missing"
    assert "damaged zstd" in str(damage(lambda folder: (folder / "frames").write_bytes(b"\x28\xb5\x2f\xfd" * 9)))
    assert "ends too early" in str(damage(lambda folder: (folder / "frames").write_bytes(b"x")))
    assert damage(lambda folder: os.utime(folder / "fs/a", (5, 5))) == "'b': was written to"
    assert damage(
        lambda folder: (folder / "fs/a").write_bytes(b"34") and os.utime(folder / "fs/a", (1.7e9, 1.7e9))
    ) == ("its content has another digest")
    if ROOT:
        assert damage(lambda folder: os.removexattr(folder / "fs/o", "trusted.overlay.opaque")) == (
            "'o': does not hide lower layers any more"
        )


def test_the_owner_is_looked_at(store: Store) -> None:
    """By root, who could have set it."""
    diff_id = ingest(store, file("a", b"1", uid=5, gid=6) + END)
    if ROOT:
        os.chown(store.layers.root(diff_id) / "a", 0, 0)
        assert tree_problem(store.layers.folder(diff_id)) == "'a': belongs to 0:0, not 5:6"


def test_very_deep_folders_come_and_go(store: Store) -> None:
    """Deeper than Python's stack and than the descriptors of a process."""
    diff_id = ingest(store, pax({"path": "d/" * 1700 + "f"}) + file("f", b"1") + END)
    store.layers.delete(diff_id)
    assert not store.layers.has(diff_id)
    assert not list(store.home.tmp.iterdir())
