"""The loader's cache as bytes: read as ldconfig reads it, and added to."""

import shutil
import subprocess
from pathlib import Path

import pytest
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
    done = subprocess.run([LDCONFIG, "-p", "-C", path], capture_output=True, text=True, check=True)
    lines = [line.strip() for line in done.stdout.splitlines() if " => " in line]
    return [
        (line.split(" ", 1)[0], line.rpartition(" => ")[2])
        for line in lines
        if "libc6,x86-64" in line and "hwcap" not in line
    ]


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


@given(st.binary(max_size=200), st.integers(0, 120))
def test_noise_is_an_error_or_lines(noise: bytes, start: int) -> None:
    """Never anything else."""
    data = bytearray(cache_bytes(in_order([Library(f"lib{n}.so", f"/lib/lib{n}.so") for n in range(3)]), "amd64"))
    data[start : start + len(noise)] = noise
    try:
        parse_cache(bytes(data), "amd64")
    except ArchiveError:
        return
