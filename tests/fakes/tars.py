"""Tars as others write them, block by block, right and wrong."""

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR = b"ustar\x0000"
GNU = b"ustar  \0"


def number(value: int, width: int) -> bytes:
    """Return a field: octal, or base 256 when that is too small or the number is negative."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    mark = 0x80 if value >= 0 else 0
    raw = (value % (1 << (8 * width))).to_bytes(width, "big")
    return bytes([raw[0] | mark]) + raw[1:]


def header(
    name: bytes | str,
    kind: bytes = b"0",
    size: int = 0,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 1_700_000_000,
    link: bytes | str = b"",
    magic: bytes = USTAR,
    prefix: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """Return one header block; `tail` is what stands from byte 345 on, instead of `prefix`."""
    name = name.encode() if isinstance(name, str) else name
    link = link.encode() if isinstance(link, str) else link
    block = name.ljust(100, b"\0") + number(mode, 8) + number(uid, 8) + number(gid, 8) + number(size, 12)
    block += number(mtime, 12) + b" " * 8 + kind + link.ljust(100, b"\0") + magic.ljust(8, b"\0")
    block = block.ljust(345, b"\0") + (tail or prefix)
    return summed(block.ljust(BLOCK, b"\0"))


def summed(block: bytes) -> bytes:
    """Return `block` with the right checksum."""
    plain = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(plain) + block[156:]


def padded(data: bytes) -> bytes:
    """Return `data` and the zeros after it."""
    return data + bytes(-len(data) % BLOCK)


def file(name: bytes | str, data: bytes = b"", **fields: object) -> bytes:
    """Return a regular file."""
    return header(name, b"0", len(data), **fields) + padded(data)  # type: ignore[arg-type]


def folder(name: bytes | str, **fields: object) -> bytes:
    """Return a directory."""
    return header(name, b"5", **{"mode": 0o755, **fields})  # type: ignore[arg-type]


def symlink(name: bytes | str, target: bytes | str, **fields: object) -> bytes:
    """Return a symlink."""
    return header(name, b"2", link=target, **{"mode": 0o777, **fields})  # type: ignore[arg-type]


def hardlink(name: bytes | str, target: bytes | str, **fields: object) -> bytes:
    """Return a hard link."""
    return header(name, b"1", link=target, **fields)  # type: ignore[arg-type]


def pax(records: list[tuple[str, bytes | str]] | dict[str, bytes | str], kind: bytes = b"x") -> bytes:
    """Return a pax header."""
    items = records.items() if isinstance(records, dict) else records
    body = b"".join(record(key, value) for key, value in items)
    return header("PaxHeaders/x", kind, len(body)) + padded(body)


def record(key: str, value: bytes | str) -> bytes:
    """Return one pax record."""
    value = value.encode() if isinstance(value, str) else value
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(b"%d" % length) + len(rest):
        length += 1
    return b"%d" % length + rest


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """Return GNU's header for a long name (L) or link (K)."""
    return header("././@LongLink", kind, len(name) + 1, magic=GNU) + padded(name + b"\0")
