"""Reading zip archives of strangers: members are checked before the first byte is written, and streamed."""

import io
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from isal import isal_zlib

from mlbox.errors import ArchiveError
from mlbox.oci.layer import encoded, safe_path

BIG = 4 << 20
"""A member up to this size is read in one go, a bigger one in chunks."""
_CHUNK = 1 << 20
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_INFLATE_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment] # its stub names an instance
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_SIZES_FOLLOW = 0x8
_UTF8 = 0x800
_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_ZIP64 = 0xFFFFFFFF
_MOST_EXTRA = 0xFFFF

DAMAGED = "the file is damaged or was not made by a wheel builder: remove it from the cache, or pin another version"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive may grow to; beyond it is taken for an attack."""

    total: int = 64 << 30
    """Bytes of all members together."""
    ratio: int = 200
    """Unpacked bytes per packed byte, looked at once an archive unpacks to more than `small`."""
    small: int = 256 << 20
    files: int = 500_000


LIMITS = Limits()


class Member(NamedTuple):
    """One file of a zip."""

    name: str
    size: int
    packed: int
    crc: int
    method: int
    flags: int
    executable: bool
    offset: int
    """Where its local header stands."""
    extent: int
    """Bytes until the next member's header or the central directory."""


class Zip:
    """An open zip whose central directory passed every check; use as a context manager.

    Raises ArchiveError naming `archive` for whatever is wrong, on opening or while a member is read.
    """

    def __init__(self, path: Path, archive: str, limits: Limits = LIMITS) -> None:
        self.archive = archive
        self._limits = limits
        self._file = _Bounded(path, limits.files * 512)
        try:
            self.members = self._directory()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Zip":
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def read(self, member: Member, most: int = BIG) -> bytes:
        """Return the content of `member`, which must not be larger than `most` bytes."""
        if member.size > most:
            raise self._error(f"{member.name!r} has {member.size} bytes, more than the {most} such a file may have")
        return b"".join(self.chunks(member))

    def chunks(self, member: Member) -> Iterator[bytes]:
        """Yield the content of `member`; its size and CRC are checked before the last chunk is handed out."""
        if member.size <= BIG and member.packed <= BIG:
            yield self._whole(member)
        else:
            yield from self._stream(member)

    def _directory(self) -> dict[str, Member]:
        try:
            with zipfile.ZipFile(self._file) as directory:
                infos, end = directory.infolist(), directory.start_dir
        except (
            zipfile.BadZipFile,
            zipfile.LargeZipFile,
            NotImplementedError,
            ValueError,
            OSError,
            struct.error,
        ) as problem:
            raise self._error(f"not a readable zip archive: {problem}") from problem
        self._check_totals(infos)
        members: dict[str, Member] = {}
        for info in sorted(infos, key=lambda info: info.header_offset, reverse=True):
            member = self._member(info, end)
            end = member.offset
            if member.name in members:
                raise self._error(f"two members have the name {member.name!r}")
            members[member.name] = member
        return {name: members[name] for name in reversed(members) if not name.endswith("/")}

    def _check_totals(self, infos: list[zipfile.ZipInfo]) -> None:
        limits = self._limits
        total = sum(info.file_size for info in infos)
        packed = sum(info.compress_size for info in infos)
        hint = "if the package is meant to be so, raise the limit"
        if len(infos) > limits.files:
            raise self._error(f"{len(infos)} members, more than the {limits.files} an archive may have", hint)
        if total > limits.total:
            raise self._error(f"would unpack to {total} bytes, more than the {limits.total} allowed", hint)
        if total > limits.small and total > packed * limits.ratio:
            raise self._error(f"would grow from {packed} to {total} bytes, as a zip bomb does", hint)

    def _member(self, info: zipfile.ZipInfo, end: int) -> Member:
        name = info.orig_filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.compress_type not in (_STORED, _DEFLATED):
            raise self._error(
                f"{name!r} is packed with method {info.compress_type}; only stored and deflated are known"
            )
        if info.flag_bits & _ENCRYPTED:
            raise self._error(f"{name!r} is encrypted")
        if "\\" in name:
            raise self._error(f"{name!r} has a backslash in its path")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise self._error(f"{name!r} is a link or a device; only files can stand in such an archive")
        safe_path(name.removesuffix("/"), self.archive)
        if any(len(part) > 255 for part in encoded(name).split(b"/")):
            raise self._error(f"{name[:80]!r}...: a part of the path is longer than 255 bytes")
        extent = end - info.header_offset
        if info.header_offset < 0 or extent < _LOCAL.size + info.compress_size:
            raise self._error(f"{name!r} overlaps the member that follows it")
        executable = kind == stat.S_IFREG and bool(info.external_attr >> 16 & 0o111)
        return Member(
            name,
            info.file_size,
            info.compress_size,
            info.CRC,
            info.compress_type,
            info.flag_bits,
            executable,
            info.header_offset,
            extent,
        )

    def _body(self, member: Member, head: bytes) -> int:
        """Check the local header in `head` against the central directory; return where the data starts in it."""
        if len(head) < _LOCAL.size:
            raise self._damaged(member)
        magic, _, flags, method, _, _, _, packed, size, name_length, extra = _LOCAL.unpack_from(head)
        name = head[_LOCAL.size : _LOCAL.size + name_length]
        expected = member.name.encode("utf-8" if member.flags & _UTF8 else "cp437")
        if magic != b"PK\3\4" or name != expected or method != member.method or flags & _ENCRYPTED:
            raise self._error(f"{member.name!r}: its own header and the central directory disagree")
        if (
            not flags & _SIZES_FOLLOW
            and _ZIP64 not in (packed, size)
            and (packed, size) != (member.packed, member.size)
        ):
            raise self._error(f"{member.name!r}: its own header and the central directory disagree about its size")
        start = _LOCAL.size + int(name_length) + int(extra)
        if start + member.packed > member.extent:
            raise self._error(f"{member.name!r} overlaps the member that follows it")
        return start

    def _whole(self, member: Member) -> bytes:
        head = os.pread(self._file.fileno(), min(member.extent, BIG + 2 * _MOST_EXTRA), member.offset)
        start = self._body(member, head)
        packed = head[start : start + member.packed]
        data = packed if member.method == _STORED else self._inflate(member, packed)
        if len(data) != member.size or isal_zlib.crc32(data) != member.crc:
            raise self._damaged(member)
        return data

    def _inflate(self, member: Member, packed: bytes) -> bytes:
        inflater = isal_zlib.decompressobj(-15)
        try:
            data: bytes = inflater.decompress(packed, member.size + 1)
        except _INFLATE_ERROR as problem:
            raise self._damaged(member) from problem
        if not inflater.eof or inflater.unused_data:
            raise self._damaged(member)
        return data

    def _stream(self, member: Member) -> Iterator[bytes]:
        head = os.pread(self._file.fileno(), _LOCAL.size + 2 * _MOST_EXTRA, member.offset)
        offset = member.offset + self._body(member, head)
        pieces = self._stored(offset, member.packed)
        if member.method == _DEFLATED:
            pieces = self._inflated(member, pieces)
        crc, left = 0, member.size
        for piece in pieces:
            crc = isal_zlib.crc32(piece, crc)
            left -= len(piece)
            if left < 0 or (left == 0 and crc != member.crc):
                raise self._damaged(member)
            yield piece
        if left or crc != member.crc:
            raise self._damaged(member)

    def _stored(self, offset: int, left: int) -> Iterator[bytes]:
        while left:
            piece = os.pread(self._file.fileno(), min(left, _CHUNK), offset)
            if not piece:
                raise self._error("ends in the middle of a member")
            offset += len(piece)
            left -= len(piece)
            yield piece

    def _inflated(self, member: Member, packed: Iterator[bytes]) -> Iterator[bytes]:
        inflater = isal_zlib.decompressobj(-15)
        try:
            for piece in packed:
                rest = piece
                while rest and not inflater.eof:
                    if data := inflater.decompress(rest, _CHUNK):
                        yield data
                    rest = inflater.unconsumed_tail
            while not inflater.eof and (data := inflater.decompress(b"", _CHUNK)):
                yield data
        except _INFLATE_ERROR as problem:
            raise self._damaged(member) from problem
        if not inflater.eof or inflater.unused_data:
            raise self._damaged(member)

    def _damaged(self, member: Member) -> ArchiveError:
        return self._error(f"{member.name!r} is damaged: its data do not have the size or checksum they should")

    def _error(self, message: str, hint: str = DAMAGED) -> ArchiveError:
        return ArchiveError(f"{self.archive}: {message}", hint=hint)


class _Bounded(io.FileIO):
    """A file that refuses one huge read: zipfile takes the central directory's size from the archive itself."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path)
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as io.FileIO does."""
        if size is not None and size > self._most:
            raise zipfile.BadZipFile(f"the central directory wants {size} bytes")
        return super().read(size) or b""
