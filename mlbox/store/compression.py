"""Layers as registries carry them: tars compressed with gzip or zstd, or not at all."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Literal, Protocol

from mlbox.errors import ArchiveError
from mlbox.files import CHUNK
from mlbox.oci.image import LAYER_GZIP, LAYER_TAR, LAYER_ZSTD

Compression = Literal["zstd", "gzip", "none"]
MEDIA_TYPES: dict[Compression, str] = {"zstd": LAYER_ZSTD, "gzip": LAYER_GZIP, "none": LAYER_TAR}
"""How a manifest names a layer of each kind."""

_BZIP2 = b"BZh"
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_LEVEL = 3
_GZIP_LEVEL = 6
_WINDOW_LOG = 27
"""128 MiB: what `zstd` itself takes without being told to; a frame may ask for terabytes."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes | memoryview, max_length: int = -1) -> bytes: ...


def decompressed(
    chunks: Iterable[bytes | memoryview], limit: int | None = None, *, name: str = "the layer", bzip2: bool = False
) -> Iterator[bytes | memoryview]:
    """Yield the content of `chunks`, which are gzip (any number of members), zstd (of frames) or plain bytes.

    They may be `bzip2` too, which no layer is. What they are is told by their first bytes. More than `limit` bytes of
    content, damaged data, and data that ends too early raise ArchiveError naming `name`.
    """
    head, chunks = _peek(chunks)
    if head.startswith(_GZIP):
        content: Iterator[bytes | memoryview] = _inflated(chunks, _gunzip, "gzip", name)
    elif head == _ZSTD or _is_skippable(head):
        content = _inflated(chunks, _unzstd, "zstd", name)
    elif bzip2 and head.startswith(_BZIP2):
        content = _inflated(chunks, _bunzip2, "bzip2", name)
    else:
        content = iter(chunks)
    return content if limit is None else _limited(content, limit, name)


def compressed(chunks: Iterable[bytes | memoryview], method: Compression = "zstd") -> Iterator[bytes | memoryview]:
    """Yield `chunks` compressed; equal content makes equal bytes, however it is cut and on however many cores."""
    if method == "zstd":
        return _zstd(chunks)
    return _gzip(chunks) if method == "gzip" else iter(chunks)


def _peek(chunks: Iterable[bytes | memoryview]) -> tuple[bytes, Iterable[bytes | memoryview]]:
    rest, head = iter(chunks), b""
    while len(head) < len(_ZSTD):
        chunk = next(rest, None)
        if chunk is None:
            break
        if not head and len(chunk) >= len(_ZSTD):
            return bytes(chunk[: len(_ZSTD)]), chain((chunk,), rest)
        head += chunk  # a memoryview lives only until the next chunk
    return head[: len(_ZSTD)], chain((head,), rest)


def _is_skippable(head: bytes) -> bool:
    return len(head) == 4 and head[1:] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def _inflated(
    chunks: Iterable[bytes | memoryview], make: Callable[[], _Decompressor], kind: str, name: str
) -> Iterator[bytes]:
    current: _Decompressor | None = None
    first = True
    for chunk in chunks:
        data: bytes | memoryview = chunk
        while len(data) or (current is not None and not current.needs_input):
            if current is None:
                if kind == "gzip" and not first and not (data := bytes(data).lstrip(b"\0")):
                    break  # tapes and some writers pad with zeros
                current = make()
            try:
                content = current.decompress(data, CHUNK)
            except Exception as problem:  # each library has its own error
                raise ArchiveError(f"{name}: damaged {kind} data: {problem}", hint="download it again") from problem
            data = b""
            first = False
            if content:
                yield content
            if current.eof:
                data, current = current.unused_data, None
    if current is not None:
        raise ArchiveError(f"{name}: the {kind} data ends too early", hint="download it again")


def _limited(chunks: Iterable[bytes | memoryview], limit: int, name: str) -> Iterator[bytes | memoryview]:
    left = limit
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise ArchiveError(
                f"{name}: it unpacks to more than {limit} bytes",
                hint="do not use this image: whoever made it made a mistake or means harm",
            )
        yield chunk


def _bunzip2() -> _Decompressor:
    from bz2 import BZ2Decompressor

    return BZ2Decompressor()


def _gunzip() -> _Decompressor:
    from isal import igzip_lib

    decompressor: _Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return decompressor


def _unzstd() -> _Decompressor:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})


def _zstd(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    # Without worker threads zstd cuts its input elsewhere, so the bytes would depend on the machine.
    workers = min(len(os.sched_getaffinity(0)), 8)
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: _ZSTD_LEVEL,
        zstd.CompressionParameter.nb_workers: workers,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    for chunk in chunks:
        if data := compressor.compress(chunk):
            yield data
    yield compressor.flush()


def _gzip(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    from zlib_ng import zlib_ng

    compressor = zlib_ng.compressobj(_GZIP_LEVEL, zlib_ng.DEFLATED, 31)
    for chunk in _even(chunks):  # zlib-ng's matches depend on how its input is cut
        if data := compressor.compress(chunk):
            yield data
    yield compressor.flush()


def _even(chunks: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """Yield `chunks` cut into pieces of CHUNK bytes; each is valid until the next is asked for."""
    view, filled = memoryview(bytearray(CHUNK)), 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            part = rest[: CHUNK - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            rest = rest[len(part) :]
            if filled == CHUNK:
                yield view
                filled = 0
    if filled:
        yield view[:filled]
