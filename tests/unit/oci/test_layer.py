import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import ArchiveError
from mlbox.oci.layer import BLOCK, END, Entry, encoded, header, padding, parents, safe_path, sort_entries, tar_size

part = st.text("aB-_. \tä漢\U0001f600", min_size=1, max_size=60).filter(lambda text: text not in (".", ".."))
paths = st.lists(part, min_size=1, max_size=6).map("/".join)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    path = draw(paths)
    kind = draw(st.sampled_from(["file", "dir", "symlink"]))
    return Entry(
        path,
        kind,
        draw(st.sampled_from([0o644, 0o755, 0o1777, 0o4755])),
        draw(st.integers(0, 8**11 - 1)),
        draw(st.integers(0, 3 * BLOCK)) if kind == "file" else 0,
        draw(paths | st.just("/abs/x")) if kind == "symlink" else "",
        draw(st.integers(0, 8**7 - 1)),
        draw(st.integers(0, 8**7 - 1)),
    )


def archive(members: tuple[Entry, ...]) -> bytes:
    return b"".join(header(e) + b"x" * e.size + padding(e.size) for e in members) + END


@given(st.lists(entries(), max_size=6))
def test_tarfile_reads_what_was_written(members: list[Entry]) -> None:
    data = archive(tuple(members))
    assert tar_size(members) == len(data)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        infos = tar.getmembers()
    types = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink"}
    got = [Entry(i.name, types[i.type], i.mode, int(i.mtime), i.size, i.linkname, i.uid, i.gid) for i in infos]
    assert got == members
    assert {(i.uname, i.gname) for i in infos} <= {("", "")}


@given(st.lists(paths, max_size=20))
def test_parents_come_before_what_they_hold(found: list[str]) -> None:
    everything = set(found) | parents(found)
    order = [e.path for e in sort_entries(Entry(path, "dir", 0o755) for path in everything)]
    assert [encoded(path) for path in order] == sorted(encoded(path) for path in order)
    seen: set[str] = set()
    for path in order:
        parent = path.rpartition("/")[0]
        assert not parent or parent in seen
        seen.add(path)


@pytest.mark.parametrize("length", [98, 99, 100, 101, 150, 255, 4096])
@pytest.mark.parametrize("kind", ["file", "dir"])
def test_long_names(length: int, kind: str) -> None:
    path = ("d" * 49 + "/") * (length // 50) + "x" * (length % 50 or 1)
    entry = Entry(path.strip("/"), kind, 0o755)  # type: ignore[arg-type]
    with tarfile.open(fileobj=io.BytesIO(archive((entry,))), mode="r:") as tar:
        assert [m.name for m in tar] == [entry.path]


def test_a_short_plain_name_needs_one_block() -> None:
    assert len(header(Entry("a" * 100, "file", 0o644))) == BLOCK
    assert len(header(Entry("a" * 99, "dir", 0o755))) == BLOCK


def test_files_beyond_what_ustar_can_say() -> None:
    big = Entry("big", "file", 0o644, size=8**11)
    with tarfile.open(fileobj=io.BytesIO(header(big)), mode="r:", errorlevel=0) as tar:
        assert tar.firstmember is not None
        assert tar.firstmember.size == 8**11
    assert tar_size([big]) == len(header(big)) + 8**11 + len(END)


def test_names_that_are_not_utf8_keep_their_bytes() -> None:
    path = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert b"path=caf\xe9\n" in header(Entry(path, "file", 0o644))


@pytest.mark.parametrize("change", [{"mtime": -1}, {"mtime": 8**11}, {"uid": 8**7}, {"gid": -1}])
def test_numbers_that_do_not_fit_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ArchiveError, match="does not fit"):
        header(Entry("a", "file", 0o644, **change))


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0b", "x" * 4097])
def test_paths_that_leave_the_tree_are_refused(path: str) -> None:
    with pytest.raises(ArchiveError, match=r"bad\.whl"):
        safe_path(path, "bad.whl")


@given(paths)
def test_other_paths_are_fine(path: str) -> None:
    assert safe_path(path, "good.whl") == path
