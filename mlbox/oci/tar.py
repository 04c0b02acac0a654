"""Tar headers as others write them: v7, ustar, star, GNU and pax, read the way Go's archive/tar reads them.

Docker, containerd, podman and every registry's scanner see layers through that library, so where the formats leave
room, its reading is the right one. Nothing here touches a file.
"""

import re
from collections.abc import Callable
from struct import Struct
from typing import Literal

import msgspec

from mlbox.errors import ArchiveError
from mlbox.oci.layer import BLOCK

MemberKind = Literal["file", "dir", "symlink", "link", "fifo", "char", "block"]
Extents = tuple[tuple[int, int], ...]
Take = Callable[[int], bytes]
"""Returns that many of the next bytes of the tar; fewer only at its end."""

MAX_PATH = 4096
MAX_SPECIAL = 1 << 20
"""Bytes of a pax header or a GNU long name."""
MAX_EXTENTS = 1 << 18

_ZERO = bytes(BLOCK)
_FIELDS = Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_SPARSE = Struct("12s12s")
_MAGIC_USTAR = b"ustar\0"
_MAGIC_GNU = b"ustar  \0"
_TRAILER_STAR = b"tar\0"
_MAX = 1 << 63
_KINDS: dict[bytes, MemberKind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"S": "file",
    b"1": "link",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "dir",
    b"6": "fifo",
}
_TIME = re.compile(rb"(-?)(\d{1,19})(?:\.(\d*))?")
_XATTR = b"SCHILY.xattr."
_NAMES = (b"path", b"linkpath", b"GNU.sparse.name")
_NOT_FOR_ALL = (*_NAMES, b"size", b"GNU.sparse.")

Records = dict[bytes, bytes]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One member of a tar, before anything was made of it; `path` and `target` are as its maker wrote them."""

    path: str
    kind: MemberKind
    mode: int
    uid: int
    gid: int
    mtime: int
    """In nanoseconds."""
    size: int = 0
    """Bytes of the file, holes and all."""
    stored: int = 0
    """Bytes of content that follow in the tar."""
    target: str = ""
    xattrs: dict[str, bytes] = {}
    extents: Extents | None = None
    """Of a sparse file: offset and length of what is stored, in order."""


class _Header(msgspec.Struct):
    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: bytes
    link: bytes
    gnu: bool


class Reader:
    """Reads the headers of one tar; raises ArchiveError naming `archive` and the member."""

    def __init__(self, take: Take, archive: str) -> None:
        self._take = take
        self._archive = archive
        self._everywhere: Records = {}

    def next(self) -> Member | None:
        """Return the next member, None at the end; take its `stored` bytes and their padding before the next."""
        try:
            return self._next()
        except ValueError as problem:
            raise ArchiveError(f"{self._archive}: {problem}", hint="download it again, or ask who made it") from None

    def _next(self) -> Member | None:
        records: list[tuple[bytes, bytes]] = []
        name = link = None
        while (block := self._block()) is not None:
            header = parse_header(block)
            if header.kind in b"xX":
                records = pax_records(self._special(header))
            elif header.kind == b"g":
                self._remember(pax_records(self._special(header)))
            elif header.kind == b"L":
                name = _text(self._special(header))
            elif header.kind == b"K":
                link = _text(self._special(header))
            else:
                return self._member(block, header, records, name, link)
        if records or name or link:
            raise ValueError("the tar ends inside a member's header")
        return None

    def _block(self) -> bytes | None:
        block = self._take(BLOCK)
        if not block:
            return None
        if len(block) < BLOCK:
            raise ValueError("the tar ends inside a header")
        if block != _ZERO:
            return block
        if (second := self._take(BLOCK)).strip(b"\0"):
            raise ValueError(f"a header follows a block of zeros: {second[:100]!r}")
        return None

    def _special(self, header: _Header) -> bytes:
        if not 0 <= header.size <= MAX_SPECIAL:
            raise ValueError(f"a header of {header.size} bytes")
        data = self._take(header.size)
        self._take(-header.size % BLOCK)
        if len(data) < header.size:
            raise ValueError("the tar ends inside a header")
        return data

    def _remember(self, records: list[tuple[bytes, bytes]]) -> None:
        for key, value in records:
            if key.startswith(_NOT_FOR_ALL):  # tools disagree whether it counts
                raise ValueError(f"a global header that sets {key.decode(errors='replace')!r}")
            self._everywhere[key] = value

    def _member(
        self,
        block: bytes,
        header: _Header,
        records: list[tuple[bytes, bytes]],
        name: bytes | None,
        link: bytes | None,
    ) -> Member:
        found = {**self._everywhere, **dict(records)} if records or self._everywhere else {}
        path = name or found.get(b"GNU.sparse.name") or found.get(b"path") or header.name
        try:
            return self._build(block, header, records, found, path, link)
        except ValueError as problem:
            raise ValueError(f"{path[:200].decode(errors='replace')!r}: {problem}") from None

    def _build(
        self,
        block: bytes,
        header: _Header,
        records: list[tuple[bytes, bytes]],
        found: Records,
        path: bytes,
        link: bytes | None,
    ) -> Member:
        kind = _KINDS.get(header.kind)
        if kind is None:
            raise ValueError(f"a member of unknown type {header.kind!r}")
        if kind == "file" and header.kind != b"S" and path.endswith(b"/"):
            kind = "dir"  # as v7 tars say it
        target = link or found.get(b"linkpath") or header.link
        if len(path) > MAX_PATH or len(target) > MAX_PATH:
            raise ValueError(f"a path of more than {MAX_PATH} bytes")
        stored = _decimal(found, b"size", header.size) if kind == "file" else 0
        size, extents = stored, None
        if kind == "file" and (header.kind == b"S" or found):
            size, stored, extents = self._sparse(block, header, records, found, stored)
        owner = _decimal(found, b"uid", header.uid), _decimal(found, b"gid", header.gid)
        if not (0 <= size < _MAX and stored >= 0) or not all(0 <= one < 2**32 - 1 for one in owner):
            raise ValueError("a size or an owner that cannot be")
        return Member(
            path=path.decode("utf-8", "surrogateescape"),
            kind=kind,
            mode=header.mode & 0o7777,
            uid=owner[0],
            gid=owner[1],
            mtime=_time(found[b"mtime"]) if found.get(b"mtime") else header.mtime * 10**9,
            size=size,
            stored=stored,
            target=target.decode("utf-8", "surrogateescape") if kind in ("symlink", "link") else "",
            xattrs=_xattrs(found) if found else {},
            extents=extents,
        )

    def _sparse(
        self, block: bytes, header: _Header, records: list[tuple[bytes, bytes]], found: Records, stored: int
    ) -> tuple[int, int, Extents | None]:
        """Return the size of the file, the bytes stored and where they belong."""
        version = found.get(b"GNU.sparse.major"), found.get(b"GNU.sparse.minor")
        if header.kind == b"S":
            size, extents = self._old_map(block, header)
        elif version == (b"1", b"0"):
            numbers, taken = self._new_map(stored)
            size = _decimal(found, b"GNU.sparse.realsize", -1)
            stored -= taken
            extents = _pairs(numbers)
        elif b"GNU.sparse.map" in found or any(key == b"GNU.sparse.offset" for key, _ in records):
            size = _decimal(found, b"GNU.sparse.size", -1)
            extents = _pairs(_listed(found, records))
        elif b"GNU.sparse.major" in found or b"GNU.sparse.size" in found:
            raise ValueError("a sparse file of an unknown kind")
        else:
            return stored, stored, None
        _check(extents, size, stored)
        return size, stored, extents

    def _old_map(self, block: bytes, header: _Header) -> tuple[int, Extents]:
        if not header.gnu:
            raise ValueError("a sparse file outside a GNU tar")
        size = _number(block[483:495])
        part, more = block[386:482], block[482]
        found: list[tuple[int, int]] = []
        while True:
            for offset, length in _SPARSE.iter_unpack(part):
                if offset[0] == 0 or length[0] == 0:
                    break
                found.append((_number(offset), _number(length)))
            if not more:
                return size, tuple(found)
            block = self._take(BLOCK)
            if len(block) < BLOCK or len(found) > MAX_EXTENTS:
                raise ValueError("a sparse map without an end")
            part, more = block[:504], block[504]

    def _new_map(self, stored: int) -> tuple[list[int], int]:
        """Read the map before the content: a count, then offsets and lengths, a decimal per line, in whole blocks."""
        lines: list[bytes] = []
        text, wanted, taken = b"", 1, 0
        while len(lines) < wanted:
            block = self._take(min(BLOCK, stored - taken))
            taken += len(block)
            if not block or wanted > 2 * MAX_EXTENTS:
                raise ValueError("a sparse map without an end")
            *whole, text = (text + block).split(b"\n")
            lines += whole
            if lines:
                wanted = 1 + 2 * _digits(lines[0])
        return [_digits(line) for line in lines[1:wanted]], taken


def parse_header(block: bytes) -> _Header:
    """Return what the fields of a header block say; raises ValueError."""
    fields = _FIELDS.unpack(block)
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic = fields[:10]
    _compare(block, _number(checksum))
    gnu = magic == _MAGIC_GNU
    name = _text(name)
    if gnu:
        prefix = _misplaced_prefix(block, fields[14])
    elif not magic.startswith(_MAGIC_USTAR):
        prefix = b""
    elif block.endswith(_TRAILER_STAR):
        prefix = _text(fields[14][:131])
    else:
        prefix = _text(fields[14])
    return _Header(
        prefix + b"/" + name if prefix else name,
        _number(mode),
        _number(uid),
        _number(gid),
        _number(size),
        _number(mtime),
        kind,
        _text(link),
        gnu,
    )


def pax_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records of a pax header in their order; raises ValueError."""
    found = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 10)
        end = at + _digits(data[at:space]) if space > at else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not (space < end <= len(data)) or data[end - 1 : end] != b"\n" or not key or not equals:
            raise ValueError("a damaged pax header")
        if key in _NAMES and b"\0" in value:
            raise ValueError("a name with a NUL in it")
        found.append((key, value))
        at = end
    return found


def parts_of(path: str) -> list[str]:
    """Return the parts of a member's path below the root, none for the root; one that climbs raises ValueError."""
    parts = [part for part in path.split("/") if part and part != "."]
    if ".." in parts or "\0" in path:
        raise ValueError("a path that climbs out of the layer")
    return parts


def _compare(block: bytes, checksum: int) -> None:
    unsigned = sum(block) - sum(block[148:156]) + 8 * 32
    if checksum != unsigned:
        high = sum(byte > 127 for byte in block[:148]) + sum(byte > 127 for byte in block[156:])
        if checksum != unsigned - 256 * high:  # some old tars add signed bytes
            raise ValueError(f"a header with a wrong checksum: {block[:100].rstrip(bytes(1))!r}")


def _misplaced_prefix(block: bytes, prefix: bytes) -> bytes:
    """Return the prefix that Go before 1.8, and so old images, wrote into GNU headers, which have times there."""
    try:
        for at in (345, 357):
            if block[at]:
                _number(block[at : at + 12])
    except ValueError:
        found = _text(prefix)
        return found if found.isascii() else b""
    return b""


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256, two's complement below the mark
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        value -= (1 << bits) if field[0] & 0x40 else 0
        if not -_MAX <= value < _MAX:
            raise ValueError("a number that is too large")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise ValueError(f"a header with {field!r} for a number")
    return int(digits, 8)


def _digits(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise ValueError(f"not a number: {text[:40]!r}")
    return int(text)


def _decimal(records: Records, key: bytes, default: int) -> int:
    value = records.get(key)
    return _digits(value) if value else default


def _time(value: bytes) -> int:
    match = _TIME.fullmatch(value)
    if match is None:
        raise ValueError(f"not a time: {value[:40]!r}")
    sign, seconds, fraction = match.groups()
    time = int(seconds) * 10**9 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -time if sign else time


def _xattrs(records: Records) -> dict[str, bytes]:
    return {
        key[len(_XATTR) :].decode("utf-8", "surrogateescape"): value
        for key, value in records.items()
        if key.startswith(_XATTR)
    }


def _listed(found: Records, records: list[tuple[bytes, bytes]]) -> list[int]:
    if value := found.get(b"GNU.sparse.map"):
        return [_digits(number) for number in value.split(b",")]
    wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
    listed = [(key, value) for key, value in records if key in wanted]
    if any(key != wanted[i % 2] for i, (key, _) in enumerate(listed)):
        raise ValueError("a damaged sparse map")
    return [_digits(value) for _, value in listed]


def _pairs(numbers: list[int]) -> Extents:
    if len(numbers) % 2:
        raise ValueError("a damaged sparse map")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _check(extents: Extents, size: int, stored: int) -> None:
    end = total = 0
    for offset, length in extents:
        if offset < end or length < 0:
            raise ValueError("a sparse map that overlaps itself")
        end = offset + length
        total += length
    if len(extents) > MAX_EXTENTS or end > size or total != stored:
        raise ValueError("a sparse map that does not fit its file")
