"""Tars of every tool, and tars of no tool, taken in and made again."""

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fakes.foreign import SPARSE, digest, ingest
from fakes.tars import END, GNU, file, folder, hardlink, header, long_name, padded, pax, symlink
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlbox.errors import ArchiveError
from mlbox.store.fsck import tree_problem
from mlbox.store.store import Store

ROOT = os.geteuid() == 0

NAMES = st.sampled_from(
    ["a", "b", "a/b", "a/c", "b/a", "./a", "a/b/c", "/b", "lib/x", "é", "x" * 120, ".wh.a", "a/.wh.b"]
)
RAW = st.one_of(
    st.builds(file, NAMES, st.binary(max_size=1200), mode=st.sampled_from([0o644, 0o4755]), uid=st.integers(0, 3)),
    st.builds(folder, NAMES | st.just("a/"), mtime=st.integers(0, 2**33)),
    st.builds(symlink, NAMES, st.sampled_from(["a", "/b", "..", "../..", "a/b", "nothing"])),
    st.builds(hardlink, NAMES, NAMES),
    st.builds(header, NAMES, st.sampled_from([b"3", b"4", b"6"])),
    st.builds(lambda name, mtime: pax({"path": name, "mtime": mtime}) + file("x", b"1"), NAMES, st.just("1.25")),
    st.builds(lambda name: long_name(name.encode()) + file("x", b"1", magic=GNU), NAMES),
    st.sampled_from([*SPARSE.values(), file("a/.wh..wh..opq"), folder("./"), file(".wh..wh.aufs", b"1")]),
    st.binary(max_size=600).map(padded),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(RAW, max_size=8),
    st.sampled_from([END, b"", END + b"x", bytes(10240)]),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 255)), max_size=2),
)
def test_any_tar(store: Store, raw: list[bytes], end: bytes, flips: list[tuple[int, int]]) -> None:
    """Either an ArchiveError, or a layer that makes the same tar; what lies on the disk is what the entries say."""
    data = bytearray(b"".join(raw) + end)
    for at, flip in flips:
        if at < len(data):
            data[at] ^= flip
    try:
        diff_id = ingest(store, bytes(data))
    except ArchiveError:
        assert not store.layers.has(digest(bytes(data)))
        assert not list(store.home.tmp.iterdir())
        return
    assert tree_problem(store.layers.folder(diff_id), deep=True, diff_id=diff_id) is None
    store.layers.delete(diff_id)


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_tarfile(store: Store, kind: int, tmp_path: Path) -> None:
    """A real tree, packed by Python."""
    out = io.BytesIO()
    source = made(tmp_path / "source", short=kind == tarfile.USTAR_FORMAT)
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        tar.add(source, ".")
    compare(source, store.layers.root(ingest(store, out.getvalue())))


@pytest.mark.parametrize(
    "options",
    [
        ["--format=v7"],
        ["--format=oldgnu", "--sparse"],
        ["--format=gnu", "--sparse", "--hole-detection=raw"],
        ["--format=ustar"],
        ["--format=posix", "--sparse", "--sparse-version=0.0"],
        ["--format=posix", "--sparse", "--sparse-version=0.1"],
        ["--format=posix", "--sparse", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"],
        ["--format=posix", "--sort=name", "--blocking-factor=1", "--pax-option=globexthdr.name=g,comment=x"],
    ],
    ids=" ".join,
)
def test_tars_of_gnu_tar(store: Store, options: list[str], tmp_path: Path, need: Callable[[str], str]) -> None:
    """A real tree in every format that GNU tar knows."""
    source = made(tmp_path / "source", short="v7" in options[0] or "ustar" in options[0])
    command = [need("tar"), "--create", "--file=-", *options, "--directory", str(source), "."]
    done = subprocess.run(command, capture_output=True, check=True)
    compare(source, store.layers.root(ingest(store, done.stdout)), nanoseconds="posix" in options[0])


@pytest.mark.parametrize("kind", ["pax", "ustar", "gnutar", "v7"])
def test_tars_of_bsdtar(store: Store, kind: str, tmp_path: Path, need: Callable[[str], str]) -> None:
    """And libarchive."""
    source = made(tmp_path / "source", short=kind in ("v7", "ustar"))
    command = [need("bsdtar"), "-c", "-f", "-", "--format", kind, "-C", str(source), "."]
    done = subprocess.run(command, capture_output=True, check=True)
    compare(source, store.layers.root(ingest(store, done.stdout)), nanoseconds=kind == "pax")


def made(root: Path, *, short: bool = False) -> Path:
    """Make a tree with a bit of everything."""
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/bin").mkdir(mode=0o2755)
    for i in range(30):
        (root / f"usr/lib/lib{i}.so").write_bytes(b"%d" % i * i * 100)
    (root / "lib").symlink_to("usr/lib")
    (root / "usr/bin/tool").write_bytes(b"tool")
    (root / "usr/bin/tool").chmod(0o755)
    (root / "usr/bin/alias").hardlink_to(root / "usr/bin/tool")
    with (root / "sparse").open("wb") as file:
        for at in (0, 300_000, 900_000, 1_500_000, 2_000_000, 3_000_000):
            file.seek(at)
            file.write(b"content" * 100)
        file.truncate(4_000_000)
    with suppress(OSError):
        os.setxattr(root / "usr/bin/tool", "user.note", b"x")
    if not short:
        os.mkfifo(root / "pipe")
        (root / "usr/lib/ümläut").write_bytes(b"u")
        (root / "usr" / ("long" * 40)).mkdir()
        (root / "usr" / ("long" * 40) / ("name" * 40)).symlink_to("target" * 30)
    if ROOT:
        os.chown(root / "usr/bin/tool", 1234, 5678)
    return root


def compare(source: Path, root: Path, *, nanoseconds: bool = False) -> None:
    """Compare two trees file by file; the fractions of times only where the format has them."""
    paths = {path.relative_to(source) for path in source.rglob("*")}
    assert paths == {path.relative_to(root) for path in root.rglob("*")}
    for path in paths:
        one, two = (source / path).lstat(), (root / path).lstat()
        names = ["st_mode", "st_nlink", *(["st_uid", "st_gid"] if ROOT else [])]
        names += ["st_mtime_ns"] if nanoseconds else []
        assert [getattr(one, name) for name in names] == [getattr(two, name) for name in names], path
        assert one.st_mtime_ns // 10**9 == two.st_mtime_ns // 10**9
        if stat.S_ISREG(one.st_mode):
            assert (source / path).read_bytes() == (root / path).read_bytes()
        elif stat.S_ISLNK(one.st_mode):
            assert (source / path).readlink() == (root / path).readlink()
