"""The fields of a tar header, as pure functions on bytes; what is wrong raises ValueError."""

import re
from struct import Struct

import msgspec

NAMES = (b"path", b"linkpath", b"GNU.sparse.name")
"""The pax records that name something."""

_FIELDS = Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_MAGIC_USTAR = b"ustar\0"
_MAGIC_GNU = b"ustar  \0"
_TRAILER_STAR = b"tar\0"
_MAX = 1 << 63
_TIME = re.compile(rb"(-?)(\d{1,19})(?:\.(\d*))?")

Records = dict[bytes, bytes]


class Header(msgspec.Struct):
    """One header block; `gnu` when its magic is GNU tar's."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: bytes
    link: bytes
    gnu: bool


def parse_header(block: bytes) -> Header:
    """Return what the fields of a header block say; raises ValueError."""
    fields = _FIELDS.unpack(block)
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic = fields[:10]
    _compare(block, number_of(checksum))
    gnu = magic == _MAGIC_GNU
    name = text_of(name)
    if gnu:
        prefix = _misplaced_prefix(block, fields[14])
    elif not magic.startswith(_MAGIC_USTAR):
        prefix = b""
    elif block.endswith(_TRAILER_STAR):
        prefix = text_of(fields[14][:131])
    else:
        prefix = text_of(fields[14])
    return Header(
        prefix + b"/" + name if prefix else name,
        number_of(mode),
        number_of(uid),
        number_of(gid),
        number_of(size),
        number_of(mtime),
        kind,
        text_of(link),
        gnu,
    )


def pax_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records of a pax header in their order; raises ValueError."""
    found = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 10)
        end = at + digits_of(data[at:space]) if space > at else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not (space < end <= len(data)) or data[end - 1 : end] != b"\n" or not key or not equals:
            raise ValueError("a damaged pax header")
        if key in NAMES and b"\0" in value:
            raise ValueError("a name with a NUL in it")
        found.append((key, value))
        at = end
    return found


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
                number_of(block[at : at + 12])
    except ValueError:
        found = text_of(prefix)
        return found if found.isascii() else b""
    return b""


def text_of(field: bytes) -> bytes:
    """Return what stands before the first NUL."""
    return field.partition(b"\0")[0]


def number_of(field: bytes) -> int:
    """Return a number of a header: octal, or base 256; nothing is 0."""
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


def digits_of(text: bytes) -> int:
    """Return a decimal number of at most 19 digits, without a sign."""
    if not text.isdigit() or len(text) > 19:
        raise ValueError(f"not a number: {text[:40]!r}")
    return int(text)


def decimal_of(records: Records, key: bytes, default: int) -> int:
    """Return the number in the record `key`, `default` when it is missing or empty."""
    value = records.get(key)
    return digits_of(value) if value else default


def time_of(value: bytes) -> int:
    """Return a pax time, seconds with a fraction, in nanoseconds."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise ValueError(f"not a time: {value[:40]!r}")
    sign, seconds, fraction = match.groups()
    time = int(seconds) * 10**9 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -time if sign else time
