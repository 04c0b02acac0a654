"""The C library, opened once; the only place where ctypes is used."""

import os
from typing import Any, NamedTuple

_libc: Any = None


def call(name: str, *args: int | bytes | None) -> int:
    """Call the C function `name` and return its value; -1 raises OSError with errno.

    Integers go as C long, bytes as char pointers, None as NULL: all that system calls take.
    """
    global _libc
    import ctypes

    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(_libc, name)
    function.restype = ctypes.c_long if name == "syscall" else ctypes.c_int
    value = int(function(*(ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args)))
    if value == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return value


class Buffer(NamedTuple):
    """Memory that the kernel reads and writes."""

    data: bytearray
    address: int
    owner: object
    """What keeps the memory where it is."""


def buffer_of(data: bytes) -> Buffer:
    """Return a buffer that begins as `data`; its address is good as long as the buffer is held."""
    import ctypes

    memory = bytearray(data)
    owner = (ctypes.c_char * len(memory)).from_buffer(memory)
    return Buffer(memory, ctypes.addressof(owner), owner)
