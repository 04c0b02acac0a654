"""Shared libraries of a few hundred bytes, enough for whoever reads their names and needs."""

import struct
from collections.abc import Callable, Mapping, Sequence

AMD64, ARM64, I386 = 62, 183, 3
_BASE = 0x10000


def shared_library(
    soname: str | None,
    machine: int = AMD64,
    *,
    needed: Sequence[str] = (),
    runpath: str | None = None,
    rpath: str | None = None,
    versions: Mapping[str, Sequence[str]] = {},
) -> bytes:
    """Return an ELF64 shared library; without DT_SONAME when `soname` is None.

    `versions` are those of symbols, by the library that has them: {'libc.so.6': ['GLIBC_2.34']}.
    """
    strings = bytearray(b"\0")

    def string(text: str) -> int:
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text.encode()) - 1

    tags = [(1, string(name)) for name in needed]
    for tag, text in ((14, soname), (15, rpath), (29, runpath)):
        tags += [(tag, string(text))] if text is not None else []
    versioned = _versions(versions, string)
    dynamic_at = 64 + 2 * 56
    count = len(tags) + 3 + (2 if versions else 0)
    versions_at = dynamic_at + 16 * count
    strings_at = versions_at + len(versioned)
    tags += [(0x6FFFFFFE, _BASE + versions_at), (0x6FFFFFFF, len(versions))] if versions else []
    tags += [(5, _BASE + strings_at), (10, len(strings)), (0, 0)]
    total = strings_at + len(strings)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, total, total, 4096)
    dynamic = struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, _BASE + dynamic_at, 0, 16 * count, 16 * count, 8)
    return header + load + dynamic + b"".join(struct.pack("<qQ", *tag) for tag in tags) + versioned + bytes(strings)


def _versions(versions: Mapping[str, Sequence[str]], string: Callable[[str], int]) -> bytes:
    out = bytearray()
    for number, (library, names) in enumerate(versions.items(), 1):
        size = 16 * (1 + len(names))
        out += struct.pack("<HHIII", 1, len(names), string(library), 16, size if number < len(versions) else 0)
        for place, name in enumerate(names, 1):
            out += struct.pack("<IHHII", 0, 0, place, string(name), 16 if place < len(names) else 0)
    return bytes(out)
