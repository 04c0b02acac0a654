"""The loader's cache as bytes: read as ldconfig reads it, and added to."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from fakes.elf import shared_library
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import ArchiveError
from mlbox.loader import Library, cache_bytes, in_order, parse_cache, with_libraries

CACHE = Path("/etc/ld.so.cache")
LDCONFIG = shutil.which("ldconfig", path="/sbin:/usr/sbin:/usr/bin") or ""
NAMES = st.from_regex(r"lib[a-z0-9]{1,6}\.so(\.[0-9]{1,3}){0,2}", fullmatch=True)
LINES = st.dictionaries(NAMES, st.sampled_from(["/usr/lib", "/opt/nvidia", "/lib/x86_64-linux-gnu"])).map(
    lambda chosen: [Library(name, f"{folder}/{name}") for name, folder in chosen.items()]
)


def listed(path: Path) -> list[tuple[str, str]]:
    """Return what ldconfig says stands in a cache, for this machine and without special processors."""
    return [
        (line.split(" ", 1)[0], line.rpartition(" => ")[2])
        for line in lines_of(path)
        if "libc6,x86-64" in line and "hwcap" not in line
    ]


def lines_of(path: Path) -> list[str]:
    """Return all that ldconfig says of a cache."""
    done = subprocess.run([LDCONFIG, "-p", "-C", path], capture_output=True, text=True, check=True)
    return [line.strip() for line in done.stdout.splitlines() if " => " in line]


@given(LINES)
def test_what_is_written_is_read(lines: list[Library]) -> None:
    """In the cache's order."""
    ordered = in_order(lines)
    assert parse_cache(cache_bytes(ordered, "amd64"), "amd64") == ordered
    assert parse_cache(cache_bytes(ordered, "amd64"), "arm64") == []


@given(LINES, LINES)
def test_added_lines_take_the_place_of_others(lines: list[Library], added: list[Library]) -> None:
    """Of the same name; the rest stays."""
    found = parse_cache(with_libraries(cache_bytes(in_order(lines), "amd64"), added, "amd64"), "amd64")
    assert dict(found) == dict(lines) | dict(added)
    assert found == in_order(found)
    assert parse_cache(with_libraries(b"", added, "amd64"), "amd64") == in_order(added)


@pytest.mark.skipif(not LDCONFIG, reason="this host has no ldconfig")
def test_ldconfig_reads_the_same(tmp_path: Path) -> None:
    """Of this host's own cache, and of one that we added to."""
    assert [tuple(line) for line in parse_cache(CACHE.read_bytes(), "amd64")] == listed(CACHE)
    added = [Library("libcuda.so.1", "/opt/gpu/libcuda.so.1"), Library("libcuda.so", "/opt/gpu/libcuda.so.1")]
    path = tmp_path / "cache"
    path.write_bytes(with_libraries(CACHE.read_bytes(), added, "amd64"))
    assert set(listed(path)) == set(listed(CACHE)) | {tuple(line) for line in added}


def test_added_lines_leave_the_others_as_they_are() -> None:
    """The first of two counts for the loader; other ABIs and special processors have lines of their own."""
    first, second = Library("liba.so.1", "/usr/local/lib/liba.so.1"), Library("liba.so.1", "/usr/lib/liba.so.1")
    added = [Library("libcuda.so.1", "/driver/libcuda.so.1")]
    data = bytearray(cache_bytes([first, second, Library("libb.so.1", "/lib32/libb.so.1")][::-1], "amd64"))
    data[48:52] = struct.pack("<I", 0x0003)  # FLAG_ELF_LIBC6 alone: of 32 bits
    made = with_libraries(bytes(data), added, "amd64")
    assert parse_cache(made, "amd64") == [*added, second, first]
    assert b"/lib32/libb.so.1\0" in made and struct.unpack_from("<I", made, 20) == (4,)


@pytest.mark.skipif(not LDCONFIG, reason="this host has no ldconfig")
def test_libraries_for_special_processors_stay(tmp_path: Path) -> None:
    """ldconfig names the same ones for each subdirectory of glibc-hwcaps as before."""
    root = tmp_path / "root"
    for folder in ("usr/lib", "usr/lib/glibc-hwcaps/x86-64-v2", "usr/lib/glibc-hwcaps/x86-64-v3", "etc"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        if folder != "etc":
            (root / folder / "libspecial.so.1").write_bytes(shared_library("libspecial.so.1"))
    (root / "etc/ld.so.conf").write_text("/usr/lib\n")
    subprocess.run([LDCONFIG, "-r", root], check=True, capture_output=True)
    path = root / "etc/ld.so.cache"
    before = lines_of(path)
    assert sum('hwcap: "x86-64-v' in line for line in before) == 2, before
    added = [Library("libcuda.so.1", "/driver/libcuda.so.1"), Library("liba.so", "/driver/liba.so")]
    path.write_bytes(with_libraries(path.read_bytes(), added, "amd64"))
    assert [line for line in lines_of(path) if "/driver/" not in line] == before
    assert sum("/driver/" in line for line in lines_of(path)) == 2


def test_many_lines_of_one_long_name_are_refused() -> None:
    """A cache of an image could otherwise take all memory: each line is a copy."""
    count = 20_000
    start = 48 + 24 * count
    entry = struct.pack("<iIIIQ", 0x0303, start, start, 0, 0)
    data = struct.pack("<20sIIB3xI12x", b"glibc-ld.so.cache1.1", count, 0, 2, 0) + entry * count + b"1" * 500_000
    with pytest.raises(ArchiveError, match="outside"):
        parse_cache(data, "amd64")
    with pytest.raises(ArchiveError, match="outside"):
        with_libraries(data, [Library("a", "/a")], "amd64")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"ld.so-1.7.0",
        lambda data: data[:60],
        lambda data: data[:-1],
        lambda data: data[:20] + b"\xff\xff\xff\xff" + data[24:],
    ],
)
def test_a_damaged_cache_is_an_error(damage: "type[bytes]") -> None:
    """And no crash: it comes from an image of somebody."""
    data = cache_bytes([Library("liba.so.1", "/usr/lib/liba.so.1")], "amd64")
    with pytest.raises(ArchiveError):
        parse_cache(damage(data), "amd64")
    if damage(data):
        with pytest.raises(ArchiveError):
            with_libraries(damage(data), [], "amd64")


@given(st.binary(max_size=200), st.integers(0, 120))
def test_noise_is_an_error_or_lines(noise: bytes, start: int) -> None:
    """Never anything else."""
    data = bytearray(cache_bytes(in_order([Library(f"lib{n}.so", f"/lib/lib{n}.so") for n in range(3)]), "amd64"))
    data[start : start + len(noise)] = noise
    try:
        lines = parse_cache(bytes(data), "amd64")
        assert {*lines} <= {*parse_cache(with_libraries(bytes(data), [], "amd64"), "amd64")}
    except ArchiveError:
        return
