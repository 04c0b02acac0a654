"""Where a tree on the disk is not what it should be."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.trees import write

from mlbox.plan.model import ProjectFile, ProjectPiece
from mlbox.report.treediff import Difference, compare_hashes, compare_trees

CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")
FILES = {"bin/tool": b"#!/bin/sh\n", "lib/a.so": bytes(range(256)) * 8000, "lib/link": "a.so", "empty": 0o755}


def flip(root: Path) -> None:
    path = root / "lib/a.so"
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"\xff\xff")
    os.utime(path, (stat.st_mtime, stat.st_mtime))


def cut(root: Path) -> None:
    path = root / "bin/tool"
    stat = path.stat()
    path.write_bytes(b"#!/b")
    os.utime(path, (stat.st_mtime, stat.st_mtime))


def relink(root: Path) -> None:
    path = root / "lib/link"
    path.unlink()
    path.symlink_to("/etc/passwd")
    os.utime(path, (315532800, 315532800), follow_symlinks=False)
    os.utime(root / "lib", (315532800, 315532800))


def replace(root: Path) -> None:
    (root / "bin/tool").unlink()
    (root / "bin/tool").mkdir()
    os.utime(root / "bin", (315532800, 315532800))


def pipe(root: Path) -> None:
    (root / "bin/tool").unlink()
    os.mkfifo(root / "bin/tool")
    os.utime(root / "bin", (315532800, 315532800))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (flip, {("lib/a.so", "content", "60 61 62 63 64 65 66 67", "ff ff 62 63 64 65 66 67", 1_500_000)}),
        (cut, {("bin/tool", "size", "69 6e 2f 73 68 0a (10 bytes)", "end of file (4 bytes)", 4)}),
        (lambda root: (root / "bin/tool").chmod(0o4755), {("bin/tool", "mode", "755", "4755", -1)}),
        (lambda root: os.utime(root / "bin/tool", (5, 5)), {("bin/tool", "time", "315532800", "5", -1)}),
        (relink, {("lib/link", "target", "a.so", "/etc/passwd", -1)}),
        (replace, {("bin/tool", "kind", "file", "dir", -1)}),
        (pipe, {("bin/tool", "kind", "file", "device", -1)}),
        (lambda root: os.mkfifo(root / "more"), {("more", "extra", "", "device", -1)}),
        (lambda root: (root / "empty").rmdir(), {("empty", "missing", "dir", "", -1)}),
        (lambda root: (root / "more").write_bytes(b"x"), {("more", "extra", "", "file", -1)}),
    ],
)
def test_every_kind_of_change(
    tmp_path: Path, damage: Callable[[Path], object], expected: set[tuple[str, str, str, str, int]]
) -> None:
    """The file, what about it, and the first byte."""
    tree = write(tmp_path / "good", FILES)
    write(tmp_path / "bad", FILES)
    assert list(compare_trees(tree.entries, tmp_path / "good", tmp_path / "bad")) == []

    damage(tmp_path / "bad")
    found = list(compare_trees(tree.entries, tmp_path / "good", tmp_path / "bad", lambda path: f"of {path}"))

    assert {(one.path, one.what, one.expected, one.found, one.offset) for one in found} == expected
    assert {one.piece for one in found} == {"" if one.what == "extra" else f"of {one.path}" for one in found}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_and_capabilities(tmp_path: Path) -> None:
    """Both decide what a program of the layer may do."""
    tree = write(tmp_path / "good/fs", FILES)
    write(tmp_path / "bad/fs", FILES)
    os.chown(tmp_path / "bad/fs/lib/link", 1000, 100, follow_symlinks=False)
    os.setxattr(tmp_path / "bad/fs/bin/tool", "security.capability", CAP_NET_RAW)

    found = compare_trees(tree.entries, tmp_path / "good/fs", tmp_path / "bad/fs")

    assert [(one.path, one.what, one.expected, one.found) for one in found] == [
        ("bin/tool", "attributes", "none", "security.capability"),
        ("lib/link", "owner", "0:0", "1000:100"),
    ]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    tree = write(tmp_path / "good", FILES)

    found = compare_trees(tree.entries, tmp_path / "good", tmp_path / "none")

    assert {one.what for one in found} == {"missing"}


def test_files_of_which_only_the_hash_is_known(tmp_path: Path) -> None:
    """The plan has hashes of the project's files."""
    write(tmp_path, {"workspace/a.py": b"a", "workspace/b.py": b"b", "workspace/l": "elsewhere"})
    sha256 = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    piece = ProjectPiece(
        workdir="/workspace",
        python="3.11",
        files=(
            ProjectFile("a.py", 0o644, 1, sha256),
            ProjectFile("b.py", 0o644, 1, sha256),
            ProjectFile("gone.py", 0o644, 1, sha256),
            ProjectFile("l", 0o777, 0, "", "a.py"),
        ),
    )

    found = {one.path: one for one in compare_hashes(piece, tmp_path)}

    assert {path: one.what for path, one in found.items()} == {
        "workspace/b.py": "content",
        "workspace/gone.py": "missing",
        "workspace/l": "target",
    }
    assert isinstance(found["workspace/b.py"], Difference)
    assert found["workspace/b.py"].expected == f"sha256 {sha256[:16]}"
