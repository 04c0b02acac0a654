"""The C library, opened once; the only place where ctypes is used."""

import os
from typing import Any

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
