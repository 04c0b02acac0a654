"""Libraries with device code, as nvcc lays it out; the code itself is zeros."""

import struct
from collections.abc import Iterable

KINDS = {"ptx": 1, "sass": 2}
FLAGS = {"": 0x11, "a": 0x100011, "f": 0x200011}
SECTION = struct.Struct("<IIQQQQIIQQ")

Code = tuple[str, int, str]
"""Kind, architecture (90, 120), suffix."""


def container(codes: Iterable[Code], size: int = 40) -> bytes:
    """Return one container with an entry of each code, whose payload has `size` bytes."""
    entries = b"".join(
        struct.pack("<HHIQIIHHIIIQQQ", KINDS[kind], 0x101, 80, size, 0, 0, 8, 1, arch, 0, 0, FLAGS[suffix], 0, 0).ljust(
            80, b"\0"
        )
        + bytes(size)
        for kind, arch, suffix in codes
    )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def library(*sections: tuple[bytes, bytes]) -> bytes:
    """Return an ELF64 file with sections of these names and contents."""
    names = b"\0" + b"".join(name + b"\0" for name, _ in sections) + b".shstrtab\0"
    body, headers = bytearray(64), [bytes(SECTION.size)]
    for name, data in (*sections, (b".shstrtab", names)):
        body += bytes(-len(body) % 8)
        headers.append(SECTION.pack(names.index(name + b"\0"), 1, 0, 0, len(body), len(data), 0, 0, 8, 0))
        body += data
    body += bytes(-len(body) % 8)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    body[:64] = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 3, 62, 1, 0, 0, len(body), 0, 64, 56, 0, 64, len(headers), len(headers) - 1
    )
    return bytes(body) + b"".join(headers)


def cuda_library(*codes: Code, times: int = 1) -> bytes:
    """Return a library with `times` containers of these codes."""
    data = (container(codes) + bytes(16)) * times
    return library((b".text", b"x" * 100), (b".nv_fatbin", data))
