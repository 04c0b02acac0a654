"""Removing what a container wrote, and maps of owners; the mounts themselves are tested with real containers."""

import os
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from mlbox.runtime.rootfs import owner_of, remove_tree, swap

LAST = 0xFFFFFFFE
IDS = st.integers(0, LAST)


def outside(lines: list[tuple[int, int, int]], inside: int) -> list[int]:
    """Return what a map makes of an id."""
    return [start + inside - first for first, start, count in lines if first <= inside < first + count]


@given(IDS, IDS, IDS)
@example(0, 0, 5)
@example(0, LAST, LAST)
@example(LAST, LAST - 1, LAST)
def test_swapping_keeps_everyone(one: int, two: int, other: int) -> None:
    """Two ids change places, every other stays, each has exactly one image; the kernel takes five lines."""
    lines = list(swap(one, two))
    assert outside(lines, one) == [two]
    assert outside(lines, two) == [one]
    assert outside(lines, other) == [{one: two, two: one}.get(other, other)]
    assert len(lines) <= 5
    assert sum(count for _, _, count in lines) == LAST + 1
    assert all(count > 0 for _, _, count in lines)


def test_owner(tmp_path: Path) -> None:
    """Who called through sudo, else who owns the source."""
    assert owner_of(str(tmp_path), (7, 8)) == (7, 8)
    assert owner_of(str(tmp_path), None) == (tmp_path.stat().st_uid, tmp_path.stat().st_gid)


def test_removing_follows_no_link_and_needs_no_stack(tmp_path: Path) -> None:
    """Links, pipes, names of any bytes, thousands of levels, folders without permissions."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/link").symlink_to(precious)
    (tree / "link").symlink_to("/")
    os.link(precious / "file", tree / "a/hard")
    os.mkfifo(tree / "a/b/pipe")
    (tree / os.fsdecode(b"\xff\n")).mkdir()
    (tree / os.fsdecode(b"\xff\n") / "x").touch()
    here = os.open(tree, os.O_RDONLY)
    for number in range(1500):
        os.mkdir("deep", dir_fd=here)
        if number % 500 == 0:
            os.close(os.open("deep/../file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_tree(tree)
    assert not tree.exists()
    assert (precious / "file").exists()
    remove_tree(tree)
