"""Tar headers as others write them: v7, ustar, star, GNU and pax, read the way Go's archive/tar reads them.

Docker, containerd, podman and every registry's scanner see layers through that library, so where the formats leave
room, its reading is the right one. Nothing here touches a file.
"""

from collections.abc import Callable
from struct import Struct
from typing import Literal

import msgspec

from mlbox.errors import ArchiveError
from mlbox.oci.layer import BLOCK
from mlbox.oci.tarfields import (
    NAMES,
    Header,
    Records,
    decimal_of,
    digits_of,
    number_of,
    parse_header,
    pax_records,
    text_of,
    time_of,
)

MemberKind = Literal["file", "dir", "symlink", "link", "fifo", "char", "block"]
Extents = tuple[tuple[int, int], ...]
Take = Callable[[int], bytes]
"""Returns that many of the next bytes of the tar; fewer only at its end."""

MAX_PATH = 4096
MAX_SPECIAL = 1 << 20
"""Bytes of a pax header or a GNU long name."""
MAX_SPECIALS = 32
"""Of those before one member."""
MAX_EXTENTS = 1 << 18

_ZERO = bytes(BLOCK)
_SPARSE = Struct("12s12s")
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
_XATTR = b"SCHILY.xattr."
_FOR_ALL = (b"uid", b"gid", b"mtime")
_NOT_FOR_ALL = (*NAMES, b"size", b"GNU.sparse.")


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


class Reader:
    """Reads the headers of one tar; raises ArchiveError naming `archive` and the member."""

    def __init__(self, take: Take, archive: str) -> None:
        self._take = take
        self._archive = archive
        self._everywhere: Records = {}
        self._global = 0

    def next(self) -> Member | None:
        """Return the next member, None at the end; take its `stored` bytes and their padding before the next."""
        try:
            return self._next()
        except ValueError as problem:
            raise ArchiveError(f"{self._archive}: {problem}", hint="download it again, or ask who made it") from None

    def _next(self) -> Member | None:
        records: list[tuple[bytes, bytes]] = []
        name = link = None
        left = MAX_SPECIALS
        while (block := self._block()) is not None:
            header = parse_header(block)
            if header.kind in b"xX":
                records = pax_records(self._special(header))
            elif header.kind == b"g":
                self._global += header.size
                if self._global > MAX_SPECIAL:
                    raise ValueError("global headers without an end")
                self._remember(pax_records(self._special(header)))
            elif header.kind == b"L":
                name = text_of(self._special(header))
            elif header.kind == b"K":
                link = text_of(self._special(header))
            else:
                return self._member(block, header, records, name, link)
            left -= 1
            if not left:
                raise ValueError("too many headers for one member")
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

    def _special(self, header: Header) -> bytes:
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
            if key in _FOR_ALL:
                self._everywhere[key] = value

    def _member(
        self,
        block: bytes,
        header: Header,
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
        header: Header,
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
        stored = decimal_of(found, b"size", header.size) if kind == "file" else 0
        size, extents = stored, None
        if kind == "file" and (header.kind == b"S" or found):
            size, stored, extents = self._sparse(block, header, records, found, stored)
        owner = decimal_of(found, b"uid", header.uid), decimal_of(found, b"gid", header.gid)
        if not (0 <= size < _MAX and stored >= 0) or not all(0 <= one < 2**32 - 1 for one in owner):
            raise ValueError("a size or an owner that cannot be")
        return Member(
            path=path.decode("utf-8", "surrogateescape"),
            kind=kind,
            mode=header.mode & 0o7777,
            uid=owner[0],
            gid=owner[1],
            mtime=time_of(found[b"mtime"]) if found.get(b"mtime") else header.mtime * 10**9,
            size=size,
            stored=stored,
            target=target.decode("utf-8", "surrogateescape") if kind in ("symlink", "link") else "",
            xattrs=_xattrs(found) if found else {},
            extents=extents,
        )

    def _sparse(
        self, block: bytes, header: Header, records: list[tuple[bytes, bytes]], found: Records, stored: int
    ) -> tuple[int, int, Extents | None]:
        """Return the size of the file, the bytes stored and where they belong."""
        version = found.get(b"GNU.sparse.major"), found.get(b"GNU.sparse.minor")
        if header.kind == b"S":
            size, extents = self._old_map(block, header)
        elif version == (b"1", b"0"):
            numbers, taken = self._new_map(stored)
            size = decimal_of(found, b"GNU.sparse.realsize", -1)
            stored -= taken
            extents = _pairs(numbers)
        elif b"GNU.sparse.map" in found or any(key == b"GNU.sparse.offset" for key, _ in records):
            size = decimal_of(found, b"GNU.sparse.size", -1)
            extents = _pairs(_listed(found, records))
        elif b"GNU.sparse.major" in found or b"GNU.sparse.size" in found:
            raise ValueError("a sparse file of an unknown kind")
        else:
            return stored, stored, None
        _check(extents, size, stored)
        return size, stored, extents

    def _old_map(self, block: bytes, header: Header) -> tuple[int, Extents]:
        if not header.gnu:
            raise ValueError("a sparse file outside a GNU tar")
        size = number_of(block[483:495])
        part, more = block[386:482], block[482]
        found: list[tuple[int, int]] = []
        while True:
            for offset, length in _SPARSE.iter_unpack(part):
                if offset[0] == 0 or length[0] == 0:
                    break
                found.append((number_of(offset), number_of(length)))
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
                wanted = 1 + 2 * digits_of(lines[0])
        return [digits_of(line) for line in lines[1:wanted]], taken


def parts_of(path: str) -> list[str]:
    """Return the parts of a member's path below the root, none for the root; one that climbs raises ValueError."""
    parts = [part for part in path.split("/") if part and part != "."]
    if ".." in parts or "\0" in path:
        raise ValueError("a path that climbs out of the layer")
    return parts


def _xattrs(records: Records) -> dict[str, bytes]:
    return {
        key[len(_XATTR) :].decode("utf-8", "surrogateescape"): value
        for key, value in records.items()
        if key.startswith(_XATTR)
    }


def _listed(found: Records, records: list[tuple[bytes, bytes]]) -> list[int]:
    if value := found.get(b"GNU.sparse.map"):
        return [digits_of(number) for number in value.split(b",")]
    wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
    listed = [(key, value) for key, value in records if key in wanted]
    if any(key != wanted[i % 2] for i, (key, _) in enumerate(listed)):
        raise ValueError("a damaged sparse map")
    return [digits_of(value) for _, value in listed]


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
