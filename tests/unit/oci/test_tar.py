"""Tar headers of every kind, read as Go's archive/tar does."""

import io
import tarfile
from contextlib import suppress
from typing import Any

import pytest
from fakes.tars import (
    BLOCK,
    END,
    GNU,
    USTAR,
    file,
    folder,
    hardlink,
    header,
    long_name,
    number,
    padded,
    pax,
    record,
    summed,
    symlink,
)
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import ArchiveError
from mlbox.oci.tar import MAX_EXTENTS, MAX_SPECIAL, Member, Reader, parts_of
from mlbox.oci.tarfields import pax_records


def members(data: bytes) -> list[Member]:
    """Return the members of the tar `data`, having skipped what they hold."""
    stream = io.BytesIO(data)
    reader = Reader(stream.read, "layer one")
    found = []
    while (member := reader.next()) is not None:
        found.append(member)
        stream.read(member.stored + -member.stored % BLOCK)
    return found


def one(data: bytes) -> Member:
    (member,) = members(data + END)
    return member


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (header("a", b"0"), {"path": "a", "kind": "file", "mode": 0o644, "mtime": 1_700_000_000 * 10**9}),
        (header("a", b"\0", magic=b""), {"kind": "file"}),
        (header("a", b"7"), {"kind": "file"}),
        (header("a/", b"\0", magic=b""), {"kind": "dir", "path": "a/"}),
        (header("a/", b"0", 9), {"kind": "dir", "stored": 0}),
        (header("a", b"5", 9), {"kind": "dir", "stored": 0, "size": 0}),
        (header("a", b"1", 9, link="b"), {"kind": "link", "target": "b", "stored": 0}),
        (header("a", b"2", link="../b"), {"kind": "symlink", "target": "../b"}),
        (header("a", b"0", link="b"), {"target": ""}),
        (header("a", b"3"), {"kind": "char"}),
        (header("a", b"4"), {"kind": "block"}),
        (header("a", b"6"), {"kind": "fifo"}),
        (header("b", prefix=b"a/a"), {"path": "a/a/b"}),
        (header("b", prefix=b"a/a", magic=b""), {"path": "b"}),
        (header("b", tail=b"a".ljust(131, b"\0") + bytes(32) + b"tar\0"), {"path": "a/b"}),
        (header("b", magic=GNU, tail=number(5, 12) + number(6, 12)), {"path": "b"}),
        (header("b", magic=GNU, prefix=b"usr/lib/python"), {"path": "usr/lib/python/b"}),
        (header("b", magic=GNU, prefix="usr/lib/é/zz".encode()), {"path": "b"}),
        (header("n" * 100), {"path": "n" * 100}),
        (header(b"caf\xe9"), {"path": "caf\udce9"}),
        (header("a", mode=0o107755), {"mode": 0o7755}),
        (header("a", uid=2**31, gid=2**32 - 2), {"uid": 2**31, "gid": 2**32 - 2}),
        (header("a", mtime=-5), {"mtime": -5 * 10**9}),
        (header("a", mtime=2**40), {"mtime": 2**40 * 10**9}),
        (long_name(b"x/" * 200 + b"y") + header("cut off", magic=GNU), {"path": "x/" * 200 + "y"}),
        (long_name(b"t" * 200, b"K") + header("a", b"2", magic=GNU), {"target": "t" * 200}),
        (
            long_name(b"t" * 200, b"K") + long_name(b"n" * 200) + header("a", b"1", magic=GNU),
            {"target": "t" * 200, "path": "n" * 200},
        ),
        (pax({"path": "漢" * 100}) + header("cut"), {"path": "漢" * 100}),
        (pax({"linkpath": "l" * 300}) + header("a", b"2"), {"target": "l" * 300}),
        (pax({"path": "p"}) + long_name(b"gnu wins") + header("a"), {"path": "gnu wins"}),
        (pax({"path": "one"}) + pax({"mtime": "1"}) + header("a"), {"path": "a", "mtime": 10**9}),
        (pax({"path": ""}) + header("a"), {"path": "a"}),
        (pax([("path", "one"), ("path", "two")]) + header("a"), {"path": "two"}),
        (pax({"size": "700"}) + header("a") + bytes(1024), {"size": 700, "stored": 700}),
        (pax({"uid": "4000000000", "gid": "7"}) + header("a"), {"uid": 4_000_000_000, "gid": 7}),
        (pax({"mtime": "1.5"}) + header("a"), {"mtime": 1_500_000_000}),
        (pax({"mtime": "1.123456789123"}) + header("a"), {"mtime": 1_123_456_789}),
        (pax({"mtime": "-1.25"}) + header("a"), {"mtime": -1_250_000_000}),
        (pax({"mtime": "7."}) + header("a"), {"mtime": 7 * 10**9}),
        (pax({"hdrcharset": "BINARY", "path": b"\xff\xfe"}) + header("a"), {"path": "\udcff\udcfe"}),
        (pax({"SCHILY.xattr.user.x": b"\0=\n"}) + header("a"), {"xattrs": {"user.x": b"\0=\n"}}),
        (pax({"uid": "9", "mtime": "3"}, b"g") + header("a"), {"uid": 9, "mtime": 3 * 10**9}),
        (pax({"uid": "9"}, b"g") + pax({"uid": "8"}) + header("a"), {"uid": 8}),
        (pax({"path": "solaris"}, b"X") + header("a"), {"path": "solaris"}),
    ],
)
def test_every_kind_of_header(data: bytes, wanted: dict[str, Any]) -> None:
    """v7, ustar, star, GNU and pax, and the order in which they count."""
    member = one(data)
    assert {name: getattr(member, name) for name in wanted} == wanted


def test_a_global_header_lasts() -> None:
    """It counts for all that follow, a local one for the next only."""
    data = pax({"uid": "9"}, b"g") + file("a", b"1") + pax({"uid": "8"}) + file("b") + file("c")
    assert [member.uid for member in members(data + END)] == [9, 8, 9]


def test_signed_checksums() -> None:
    """Old tars add bytes as signed numbers."""
    block = header("é")
    wrong = sum(block[:148]) + sum(block[156:]) + 8 * 32 - 256 * 2
    assert one(block[:148] + b"%06o\0 " % wrong + block[156:]).path == "é"


@pytest.mark.parametrize(
    "end", [b"", bytes(BLOCK), END, bytes(10 * BLOCK), END + b"garbage", bytes(BLOCK) + bytes(100)]
)
def test_ends(end: bytes) -> None:
    """Missing, short and long ends are all ends."""
    assert [member.path for member in members(file("a", b"1") + end)] == ["a"]


def old_sparse(size: int, *extents: tuple[int, int], kind: bytes = GNU) -> bytes:
    """Return a sparse file as GNU tar wrote it before pax."""
    fields = [number(offset, 12) + number(length, 12) for offset, length in extents]
    tail = bytes(41) + b"".join(fields[:4]).ljust(96, b"\0") + bytes([len(fields) > 4]) + number(size, 12)
    data = header("s", b"S", sum(length for _, length in extents), magic=kind, tail=tail)
    rest = fields[4:]
    while rest:
        data += (b"".join(rest[:21]).ljust(504, b"\0") + bytes([len(rest) > 21])).ljust(BLOCK, b"\0")
        rest = rest[21:]
    return data


MANY = tuple((i * 10, 5) for i in range(60))


@pytest.mark.parametrize("extents", [(), ((0, 5),), ((10, 0),), MANY[:4], MANY[:5], MANY[:25], MANY[:26], MANY])
def test_sparse_files_of_old_gnu_tar(extents: tuple[tuple[int, int], ...]) -> None:
    """Four pieces in the header, 21 in each block that follows."""
    member = one(old_sparse(1000, *extents) + padded(bytes(sum(length for _, length in extents))))
    assert (member.size, member.extents, member.kind) == (1000, extents, "file")
    assert member.stored == sum(length for _, length in extents)


def test_sparse_files_of_pax() -> None:
    """The versions 0.0, 0.1 and 1.0."""
    extents = ((0, 3), (1000, 4))
    numbers = [str(n) for pair in extents for n in pair]
    pairs = list(zip(["GNU.sparse.offset", "GNU.sparse.numbytes"] * 2, numbers, strict=True))
    first = pax([("GNU.sparse.size", "2000"), ("GNU.sparse.numblocks", "2"), *pairs]) + file("s", b"1234567")
    second = pax({"GNU.sparse.size": "2000", "GNU.sparse.map": ",".join(numbers), "GNU.sparse.name": "s"})
    second += file("GNUSparseFile.0/s", b"1234567")
    body = padded(b"2\n0\n3\n1000\n4\n") + b"1234567"
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "2000", "GNU.sparse.name": "s"}
    third = pax(records) + file("GNUSparseFile.0/s", body)
    for data in (first, second, third):
        member = one(data)
        assert (member.path, member.size, member.stored, member.extents) == ("s", 2000, 7, extents)


WRONG = {
    "checksum": header("a")[:-1] + b"x",
    "number": summed(header("a")[:124] + b"0o7".ljust(12, b"\0") + header("a")[136:]),
    "octal": summed(header("a")[:124] + b"00000000008\0" + header("a")[136:]),
    "underscore": summed(header("a")[:124] + b"1_0".ljust(12, b"\0") + header("a")[136:]),
    "minus": summed(header("a")[:124] + b"-1".ljust(12, b"\0") + header("a")[136:]),
    "size below zero": header("a", size=-1),
    "size beyond all": header("a", size=2**63 - 1).replace(b"\x80", b"\xbf", 1),
    "number beyond all": summed(header("a")[:124] + b"\x80\xff" + bytes(10) + header("a")[136:]),
    "owner below zero": header("a", uid=-1),
    "owner beyond all": header("a", uid=2**33),
    "nobody": pax({"uid": str(2**32 - 1)}) + header("a"),
    "kind": header("a", b"Z"),
    "multi volume": header("a", b"M"),
    "pax size": pax({"size": "-1"}) + header("a"),
    "pax time": pax({"mtime": "soon"}) + header("a"),
    "pax name with NUL": pax({"path": "a\0b"}) + header("a"),
    "pax link with NUL": pax({"linkpath": "a\0b"}) + header("a", b"2"),
    "pax without a key": header("x", b"x", 5) + padded(b"5 =a\n"),
    "pax without a value": header("x", b"x", 5) + padded(b"5 ab\n"),
    "pax length": header("x", b"x", 6) + padded(b"9 a=b\n"),
    "pax zero": header("x", b"x", 6) + padded(b"0 a=b\n"),
    "pax line": header("x", b"x", 6) + padded(b"6 a=bc"),
    "pax too large": header("x", b"x", MAX_SPECIAL + 1) + padded(bytes(MAX_SPECIAL + 1)),
    "long name too large": header("x", b"L", MAX_SPECIAL + 1),
    "long name below zero": header("x", b"L", -1),
    "name too long": long_name(b"n" * 4097) + header("a"),
    "link too long": pax({"linkpath": "n" * 4097}) + header("a", b"2"),
    "header for nobody": pax({"path": "a"}),
    "name for nobody": long_name(b"a") + END,
    "after zeros": bytes(BLOCK) + header("a"),
    "headers without an end": pax({"mtime": "1"}) * 40 + header("a"),
    "path for all": pax({"path": "a"}, b"g") + header("b"),
    "size for all": pax({"size": "1"}, b"g") + header("b"),
    "sparse for all": pax({"GNU.sparse.major": "1"}, b"g") + header("b"),
    "sparse outside GNU": old_sparse(10, (0, 5), kind=USTAR) + padded(b"12345"),
    "sparse overlaps": old_sparse(10, (0, 5), (4, 1)) + padded(b"123456"),
    "sparse beyond the end": old_sparse(10, (8, 5)) + padded(b"12345"),
    "sparse without blocks": old_sparse(1000, *MANY)[:BLOCK],
    "sparse of another size": pax({"GNU.sparse.size": "9", "GNU.sparse.map": "0,5"}) + file("s", b"1234"),
    "sparse map odd": pax({"GNU.sparse.size": "9", "GNU.sparse.map": "0,5,7"}) + file("s", b"12345"),
    "sparse map no number": pax({"GNU.sparse.size": "9", "GNU.sparse.map": "0,x"}) + file("s", b"12345"),
    "sparse map out of order": pax([("GNU.sparse.size", "9"), ("GNU.sparse.numbytes", "0"), ("GNU.sparse.offset", "5")])
    + file("s", b""),
    "sparse without a size": pax({"GNU.sparse.map": "0,5"}) + file("s", b"12345"),
    "sparse of version 2": pax({"GNU.sparse.major": "2", "GNU.sparse.minor": "0"}) + file("s", b"12345"),
    "sparse 1.0 without an end": pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})
    + file("s", padded(b"5\n0\n")),
    "sparse 1.0 of too many": pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})
    + file("s", padded(b"%d\n0\n" % (MAX_EXTENTS + 1)) * 5),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_refused(data: bytes) -> None:
    """With an error that names the layer."""
    with pytest.raises(ArchiveError, match=r"^layer one: ") as caught:
        members(data + END)
    assert caught.value.hint


@pytest.mark.parametrize(
    "data",
    [header("a")[:300], header("x", b"L", 5000) + bytes(600), pax({"path": "a"}), pax({"path": "a"})[:700]],
)
def test_an_end_inside_a_header(data: bytes) -> None:
    """Is no end."""
    with pytest.raises(ArchiveError, match=r"^layer one: .*ends inside"):
        members(data)


@pytest.mark.parametrize("wanted", ["'etc/passwd'", "sparse map"])
def test_errors_name_the_member(wanted: str) -> None:
    """Which member of which layer."""
    with pytest.raises(ArchiveError, match=wanted):
        members(pax({"GNU.sparse.size": "9", "GNU.sparse.map": "0,5"}) + file("etc/passwd", b"1234"))


@given(st.lists(st.tuples(st.text(st.characters(exclude_characters="=\0", codec="utf-8"), min_size=1), st.binary())))
def test_pax_records_come_back(records: list[tuple[str, bytes]]) -> None:
    """Whatever is in them."""
    wanted = [(key.encode(), value) for key, value in records]
    assert pax_records(b"".join(record(key, value) for key, value in records)) == wanted


@given(st.binary(max_size=2000), st.booleans())
def test_any_bytes(data: bytes, sums: bool) -> None:
    """Any bytes are a tar or an ArchiveError, nothing else."""
    if sums and len(data) >= BLOCK:
        data = summed(data[:BLOCK]) + data[BLOCK:]
    with suppress(ArchiveError):
        members(data)


@given(
    st.lists(
        st.builds(
            lambda name, size, uid, mtime, mode, kind: (name, size if kind == b"0" else 0, uid, mtime, mode, kind),
            st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=300).filter(
                lambda name: not name.endswith("/")
            ),
            st.integers(0, 2000),
            st.integers(0, 2**32 - 2),
            st.integers(-(2**33), 2**40),
            st.integers(0, 0o7777),
            st.sampled_from([b"0", b"2", b"6"]),
        ),
        max_size=4,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_tarfile_writes(wanted: list[tuple[str, int, int, int, int, bytes]], kind: int) -> None:
    """Names, numbers and times that only one format or the other can say."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for name, size, uid, mtime, mode, typeflag in wanted:
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.mtime, info.mode, info.type = size, uid, mtime, mode, typeflag
            tar.addfile(info, io.BytesIO(bytes(size)))
    kinds = {"file": b"0", "symlink": b"2", "fifo": b"6"}
    found = members(out.getvalue())
    assert [(m.path, m.size, m.uid, m.mtime // 10**9, m.mode, kinds[m.kind]) for m in found] == wanted


def test_paths() -> None:
    """Slashes and dots that say nothing go, what climbs is refused."""
    assert parts_of("./a//b/./c/") == parts_of("/a/b/c") == ["a", "b", "c"]
    assert parts_of("./") == parts_of("/") == parts_of(".") == []
    for path in ("..", "a/../b", "../a", "a/.."):
        with pytest.raises(ValueError, match="climbs"):
            parts_of(path)


def test_nothing_else_is_read() -> None:
    """Content is not touched: who reads the headers takes it."""
    data = file("a", b"x" * 600) + folder("d") + symlink("l", "a") + hardlink("h", "a") + END
    assert [(m.path, m.kind) for m in members(data)] == [("a", "file"), ("d", "dir"), ("l", "symlink"), ("h", "link")]
