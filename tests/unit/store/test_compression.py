import gzip
import hashlib
import subprocess
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from backports import zstd
from hypothesis import assume, given
from hypothesis import strategies as st

from mlbox.errors import ArchiveError
from mlbox.files import CHUNK
from mlbox.store.compression import MEDIA_TYPES, Compression, compressed, decompressed

METHODS: list[Compression] = ["zstd", "gzip", "none"]
TEXT = b"".join(hashlib.sha256(b"%d" % i).hexdigest().encode() for i in range(60_000))  # 3.8 MB


def join(chunks: Iterable[bytes | memoryview]) -> bytes:
    return b"".join(bytes(chunk) for chunk in chunks)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("method", METHODS)
@given(data=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=5), step=st.integers(1, 64))
def test_what_was_compressed_comes_back(method: Compression, data: bytes, cuts: list[int], step: int) -> None:
    """However the content and the compressed bytes are cut."""
    assume(not data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")) and data[1:4] != b"\x2a\x4d\x18")  # no tar does
    parts = [data[a:b] for a, b in pairwise([0, *sorted(cuts), len(data)])]
    packed = join(compressed(parts, method))
    assert join(decompressed(cut(packed, step))) == data


@pytest.mark.parametrize("method", METHODS)
def test_the_bytes_do_not_depend_on_cuts_or_cores(method: Compression, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest of a compressed layer is the same wherever it is made."""
    content = TEXT * (6 if method == "zstd" else 1)  # several of its jobs
    found = set()
    for cores, size in ((1, CHUNK), (2, 70_001), (5, 300_001), (64, len(content))):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        found.add(join(compressed(cut(content, size), method)))
    assert len(found) == 1


def test_other_tools_read_it() -> None:
    """gzip and zstd of the standard kind, without a time in them."""
    assert gzip.decompress(join(compressed([TEXT], "gzip"))) == TEXT
    assert join(compressed([TEXT], "gzip"))[4:8] == bytes(4)
    assert zstd.decompress(join(compressed([TEXT], "zstd"))) == TEXT
    done = subprocess.run(["gzip", "-dc"], input=join(compressed([TEXT], "gzip")), capture_output=True, check=True)
    assert done.stdout == TEXT


def test_media_types() -> None:
    """Every kind has its name in a manifest."""
    assert [MEDIA_TYPES[method].rpartition(".")[2] for method in METHODS] == ["tar+zstd", "tar+gzip", "tar"]


SKIPPABLE = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"stuff"


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(b"one ") + gzip.compress(b"two"),
        gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two") + bytes(1000),
        zstd.compress(b"one ") + zstd.compress(b"two"),
        SKIPPABLE + zstd.compress(b"one ") + SKIPPABLE + SKIPPABLE + zstd.compress(b"two") + SKIPPABLE,
        b"one two",
    ],
    ids=["members", "empty member", "frames", "skippable frames", "plain"],
)
@pytest.mark.parametrize("step", [1, 3, 1 << 20])
def test_members_and_frames_follow_each_other(packed: bytes, step: int) -> None:
    """As estargz, zstd:chunked and parallel compressors make them."""
    assert join(decompressed(cut(packed, step))) == b"one two"


@pytest.mark.parametrize("make", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_no_content(make: Callable[[bytes], bytes]) -> None:
    """Nothing, compressed or not, is nothing."""
    assert join(decompressed([make(b"")])) == join(decompressed([])) == join(decompressed([b"", b""])) == b""


@pytest.mark.parametrize("method", ["zstd", "gzip"])
def test_damage_is_named(method: Compression) -> None:
    """Every cut and every changed byte of the checksums is found."""
    packed = join(compressed([TEXT[:10_000]], method))
    for length in (5, 12, len(packed) // 2, len(packed) - 1):
        with pytest.raises(ArchiveError, match=r"layer two: .*too early"):
            join(decompressed([packed[:length]], name="layer two"))
    for at in (-1, -6, len(packed) // 2) if method == "gzip" else (-1, len(packed) // 2):
        broken = bytearray(packed)
        broken[at] ^= 0x55
        with pytest.raises(ArchiveError, match="layer two: "):
            join(decompressed([bytes(broken)], name="layer two"))
    with pytest.raises(ArchiveError, match="damaged"):
        join(decompressed([packed + b"garbage after it"]))


@pytest.mark.parametrize("method", METHODS)
def test_a_bomb_stops_at_the_limit(method: Compression) -> None:
    """Zeros that compress a thousandfold are refused before they are made."""
    packed = join(compressed([bytes(CHUNK)] * 30, method))
    made = 0
    with pytest.raises(ArchiveError, match="more than 2000000 bytes"):
        for chunk in decompressed([packed] if method != "none" else cut(packed, CHUNK), 2_000_000):
            made += len(chunk)
    assert made <= 2_000_000
    assert len(join(decompressed([packed], 30 * CHUNK))) == 30 * CHUNK


@pytest.mark.parametrize("method", ["zstd", "gzip"])
def test_chunks_stay_small(method: Compression) -> None:
    """A bomb does not come out in one piece."""
    packed = join(compressed([bytes(CHUNK)] * 30, method))
    assert max(len(chunk) for chunk in decompressed([packed])) <= CHUNK


def test_a_frame_may_not_ask_for_any_memory() -> None:
    """A window beyond 128 MiB is refused, as `zstd` does."""
    options = {zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.compression_level: 1}
    compressor = zstd.ZstdCompressor(options=options)
    packed = compressor.compress(bytes(CHUNK)) + compressor.flush()
    with pytest.raises(ArchiveError, match="damaged zstd"):
        join(decompressed([packed]))
