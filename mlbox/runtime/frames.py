"""What a monitor and its clients say to each other over a socket: a letter, a length, a payload."""

import struct
from collections.abc import Iterator

import msgspec

_HEADER = struct.Struct(">cI")
_LIMIT = 1 << 20

# From the client.
HELLO = b"h"  # JSON of Hello: what the client wants
STDIN = b"i"  # bytes for the program; none: end of input
RESIZE = b"w"  # two big-endian 16-bit numbers: rows, columns
SIGNAL = b"s"  # one byte: a signal for the program
STOP = b"q"  # one byte: the same, and it is not started again
EXEC = b"c"  # the name of the file in the container's folder that describes one more process
RELEASE = b"r"  # the name of a file that the grant holds open: let it go
# From the monitor.
STDOUT = b"o"
STDERR = b"e"
STARTED = b"u"
EXECUTED = b"d"  # one byte: the runtime's exit code for the EXEC of this client
RELEASED = b"l"  # one byte: whether the grant held the file of this client's RELEASE
ENDED = b"x"  # JSON of Ended: the last frame


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants: the output, and whether the program's input ends with it."""

    output: bool = False
    stdin: bool = False


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How the program ended, or why it never ran (`error`)."""

    exit_code: int
    error: str = ""
    hint: str | None = None
    oom_killed: bool = False
    timed_out: bool = False


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return _HEADER.pack(kind, len(payload)) + payload


class Decoder:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Take `data` and yield the frames that are complete; one that is too long raises ValueError."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if length > _LIMIT:
                raise ValueError(f"a frame of {length} bytes")
            if len(self._buffer) < _HEADER.size + length:
                return
            payload = bytes(self._buffer[_HEADER.size : _HEADER.size + length])
            del self._buffer[: _HEADER.size + length]
            yield kind, payload
