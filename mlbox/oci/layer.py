"""Layer tars as pure bytes: an Entry per member, a header per Entry.

The rules (version 1): entries sorted by the bytes of their path, so a directory comes before what
it holds; ustar headers, with pax records only where ustar cannot say it; nothing that depends on
the machine: no user names, no access times, no device numbers.
"""

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from mlbox.errors import ArchiveError

RULES = 1
EPOCH = 315532800
"""Default mtime: 1980-01-01, the earliest that a zip file can hold (wheels built inside would fail before it)."""

BLOCK = 512
END = bytes(2 * BLOCK)

Kind = Literal["file", "dir", "symlink", "link", "whiteout", "fifo", "char", "block"]
"""What an entry is. Layers that mlbox makes hold the first three only. A 'link' is one more name of the file at
`target`; a 'whiteout' hides what lower layers have at that path."""
_TYPE: dict[Kind, bytes] = {"file": b"0", "dir": b"5", "symlink": b"2"}
_UNSAFE = re.compile(r"(?:^|/)(?:\.{1,2})?(?:/|$)|\0")


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One member of a layer: `path` has no leading slash and no '.', '..' or empty parts."""

    path: str
    kind: Kind
    mode: int
    mtime: int = EPOCH
    size: int = 0
    target: str = ""
    uid: int = 0
    gid: int = 0
    opaque: bool = False
    """Of a directory: it hides what lower layers have below that path."""


def safe_path(path: str, archive: str) -> str:
    """Return `path` when it stays inside the tree it is unpacked to; else raise ArchiveError naming `archive`."""
    if not path or len(path.encode("utf-8", "surrogateescape")) > 4096 or _UNSAFE.search(path):
        raise ArchiveError(
            f"{archive}: a member's path leaves the archive or is no path: {path[:200]!r}",
            hint="do not use this file: whoever made it made a mistake or means harm",
        )
    return path


def encoded(path: str) -> bytes:
    """Return the bytes of a path as they stand in the file system and in the tar."""
    return path.encode("utf-8", "surrogateescape")


def sort_entries(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return `entries` in the order they have in the tar."""
    return tuple(sorted(entries, key=lambda entry: encoded(entry.path)))


def parents(paths: Iterable[str]) -> set[str]:
    """Return every directory above any of `paths`."""
    found: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def header(entry: Entry) -> bytes:
    """Return the tar header blocks of `entry`: a ustar block, with a pax header before it where needed."""
    name = encoded(entry.path) + (b"/" if entry.kind == "dir" else b"")
    link = encoded(entry.target)
    if not (0 <= entry.mtime < 8**11 and 0 <= entry.uid < 8**7 and 0 <= entry.gid < 8**7):
        raise ArchiveError(f"{entry.path!r}: a time or an owner that does not fit into a tar header")
    if entry.kind not in _TYPE:
        raise ArchiveError(f"{entry.path!r}: a {entry.kind} has no place in a layer that mlbox makes")
    records = {}
    if len(name) > 100 or not name.isascii():
        records["path"] = name
    if len(link) > 100 or not link.isascii():
        records["linkpath"] = link
    if entry.size >= 8**11:
        records["size"] = b"%d" % entry.size
    size = 0 if "size" in records else entry.size
    block = _ustar(name, entry.mode, entry.uid, entry.gid, size, entry.mtime, _TYPE[entry.kind], link)
    return _pax(records) + block if records else block


def padding(size: int) -> bytes:
    """Return the zeros that follow `size` bytes of content."""
    return bytes(-size % BLOCK)


def tar_size(entries: Iterable[Entry]) -> int:
    """Return the exact size in bytes of the tar of `entries`."""
    return sum(_header_size(e) + e.size + (-e.size % BLOCK) for e in entries) + len(END)


def _header_size(entry: Entry) -> int:
    plain = len(entry.path) < 100 > len(entry.target) and entry.path.isascii() and entry.target.isascii()
    return BLOCK if plain and entry.size < 8**11 else len(header(entry))


def _pax(records: dict[str, bytes]) -> bytes:
    body = b"".join(_pax_record(key, value) for key, value in sorted(records.items()))
    return _ustar(b"PaxHeaders/x", 0o644, 0, 0, len(body), 0, b"x", b"") + body + padding(len(body))


def _pax_record(key: str, value: bytes) -> bytes:
    # "%d key=value\n", where the number counts itself too (POSIX pax, extended header).
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    return b"%d" % (len(rest) + len(str(length))) + rest


def _ustar(name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, link: bytes) -> bytes:
    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            b"%07o\0%07o\0%07o\0" % (mode & 0o7777, uid, gid),
            b"%011o\0%011o\0" % (size, mtime),
            b" " * 8,
            kind,
            link[:100].ljust(100, b"\0"),
            b"ustar\x0000",
        )
    ).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
