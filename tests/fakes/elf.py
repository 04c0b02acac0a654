"""Shared libraries of a few hundred bytes, enough for whoever reads their soname."""

import struct

AMD64, ARM64, I386 = 62, 183, 3


def shared_library(soname: str | None, machine: int = AMD64) -> bytes:
    """Return an ELF64 shared library; without DT_SONAME when `soname` is None."""
    strings = b"\0" + (soname or "").encode() + b"\0"
    dynamic_at = 64 + 2 * 56
    count = 3 if soname is not None else 2
    strings_at = dynamic_at + 16 * count
    base = 0x10000
    tags = [(5, base + strings_at), *([(14, 1)] if soname is not None else []), (0, 0)]
    total = strings_at + len(strings)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, total, total, 4096)
    dynamic = struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, base + dynamic_at, 0, 16 * count, 16 * count, 8)
    return header + load + dynamic + b"".join(struct.pack("<qQ", *tag) for tag in tags) + strings
