import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from fakes.trees import write

from mlbox.errors import ArchiveError
from mlbox.files import CHUNK
from mlbox.oci.layer import EPOCH, tar_size
from mlbox.store.tree import TreeWriter, below, diff_id_of, tar_chunks


def tar_of(root: Path, entries: tuple) -> bytes:
    return b"".join(bytes(chunk) for chunk in tar_chunks(entries, below(root)))


@pytest.fixture
def umask() -> None:
    old = os.umask(0o077)
    yield
    os.umask(old)


def test_the_tar_is_the_tree(tmp_path: Path, umask: None) -> None:
    big = os.urandom(2 * CHUNK + 7)
    files = {"bin/run": b"#!/bin/sh\n", "lib/big": big, "lib/empty": b"", "lib/ä": b"x" * 512}
    files |= {"tmp": 0o1777, "l": "lib/big"}
    tree = write(tmp_path / "fs", files)
    data = tar_of(tmp_path / "fs", tree.entries)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        tar.extractall(tmp_path / "out", filter="fully_trusted")
        assert {member.mtime for member in tar} == {EPOCH}
    for path, what in files.items():
        copy, original = tmp_path / "out" / path, tmp_path / "fs" / path
        assert copy.lstat().st_mode == original.lstat().st_mode
        assert original.lstat().st_mtime == EPOCH
        if isinstance(what, bytes):
            assert copy.read_bytes() == what
    assert (tmp_path / "fs/bin/run").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out/l").readlink() == Path("lib/big")
    assert diff_id_of(tree.entries, below(tmp_path / "fs")) == "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, CHUNK - 512, CHUNK - 511, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_sizes_around_the_buffer(tmp_path: Path, size: int) -> None:
    files = {f"{i:04}": bytes([i % 251]) * (size if i % 10 == 7 else 30_000) for i in range(40)}
    tree = write(tmp_path, files)
    data = tar_of(tmp_path, tree.entries)
    assert len(data) == tar_size(tree.entries)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == files


def test_no_entries_are_an_empty_tar(tmp_path: Path) -> None:
    assert tar_of(tmp_path, ()) == bytes(1024)


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    tree = write(tmp_path, {"a": b"123"})
    os.truncate(tmp_path / "a", 2)
    with pytest.raises(ArchiveError, match="shorter than the 3 bytes"):
        tar_of(tmp_path, tree.entries)


def test_a_file_that_became_a_symlink_is_not_followed(tmp_path: Path) -> None:
    tree = write(tmp_path, {"a": b"123"})
    (tmp_path / "secret").write_bytes(b"abc")
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to("secret")
    with pytest.raises(OSError, match="symbolic links"):
        tar_of(tmp_path, tree.entries)


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    writer = TreeWriter(tmp_path / "fs", "bad.whl")
    writer.symlink("out", str(tmp_path))
    writer.file("file", [b""])
    for path in ("../x", "/x", "out/x", "file/x"):
        with pytest.raises(ArchiveError, match=r"bad\.whl"):
            writer.file(path, [b"x"])
    assert [path.name for path in tmp_path.iterdir()] == ["fs"]


def test_two_members_of_one_path_are_refused(tmp_path: Path) -> None:
    writer = TreeWriter(tmp_path / "fs", "bad.whl")
    writer.file("a/b", [b"1"])
    writer.directory("a", 0o700)
    for again, path in ((writer.directory, "a/b"), (lambda at: writer.symlink(at, "x"), "a")):
        with pytest.raises(ArchiveError, match=r"bad\.whl: two members want the path"):
            again(path)
    with pytest.raises(ArchiveError, match=r"bad\.whl: two members want the path"):
        writer.file("a/b", [b"2"])
    assert [(entry.path, entry.mode) for entry in writer.finish().entries] == [("a", 0o700), ("a/b", 0o644)]


def test_a_path_of_a_thousand_folders_is_refused(tmp_path: Path) -> None:
    """Each would take a call in a call, and whoever removes them another."""
    writer = TreeWriter(tmp_path / "tree", "deep.whl")
    writer.file("a/" * 200 + "b", [b"x"])
    with pytest.raises(ArchiveError, match="more than 256 folders"):
        writer.file("b/" * 1500 + "b", [b"x"])
    assert not (tmp_path / "tree/b").exists()
