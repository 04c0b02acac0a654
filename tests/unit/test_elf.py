"""What the dynamic loader reads of ELF files: sound ones, the host's own, and whatever strangers may send."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes.elf import AMD64, ARM64, shared_library
from hypothesis import given
from hypothesis import strategies as st

from mlbox.elf import mentions, read_elf, read_soname

READELF = shutil.which("readelf") or ""
FULL = shared_library(
    "libx.so.1",
    needed=["libc.so.6", "liby.so.2"],
    runpath="$ORIGIN/../lib:/opt/lib",
    versions={"libc.so.6": ["GLIBC_2.2.5", "GLIBC_2.34"], "libm.so.6": ["GLIBC_2.29"]},
)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "x.so"
    path.write_bytes(data)
    return path


def test_everything_the_loader_reads(tmp_path: Path) -> None:
    """Names, needs, folders and versions of symbols."""
    elf = read_elf(written(tmp_path, FULL))
    assert elf is not None
    assert (elf.machine, elf.soname, elf.needed) == (AMD64, "libx.so.1", ("libc.so.6", "liby.so.2"))
    assert elf.search == ("$ORIGIN/../lib", "/opt/lib")
    assert elf.versions == ("GLIBC_2.2.5", "GLIBC_2.29", "GLIBC_2.34")


def test_runpath_comes_before_rpath(tmp_path: Path) -> None:
    """As the loader has it: DT_RPATH counts only where there is no DT_RUNPATH."""
    both = read_elf(written(tmp_path, shared_library(None, rpath="/old", runpath="/new")))
    old = read_elf(written(tmp_path, shared_library(None, ARM64, rpath="/old")))
    assert both is not None
    assert both.search == ("/new",)
    assert old is not None
    assert (old.search, old.soname, old.needed, old.versions) == (("/old",), "", (), ())


@pytest.mark.skipif(not READELF, reason="this host has no readelf")
def test_the_same_as_readelf() -> None:
    """Of the libraries of this host."""
    paths = sorted({path.resolve() for path in Path("/usr/lib/x86_64-linux-gnu").glob("*.so.*")})[:40]
    assert paths
    for path in paths:
        out = subprocess.run([READELF, "-dVW", path], capture_output=True, text=True).stdout
        elf = read_elf(path)
        if "(STRTAB)" not in out:
            assert elf is None
            continue
        assert elf is not None, path
        assert elf.needed == tuple(re.findall(r"\(NEEDED\).*\[(.*)\]", out))
        assert elf.soname == "".join(re.findall(r"\(SONAME\).*\[(.*)\]", out))
        needs = out.partition("Version needs section")[2]
        assert set(elf.versions) == set(re.findall(r"Name: (\S+)  Flags", needs))


def test_symbols(tmp_path: Path) -> None:
    """By their whole names, in the file's own table of them."""
    path = written(tmp_path, FULL)
    assert mentions(path, "GLIBC_2.34")
    assert not mentions(path, "GLIBC_2.3")
    assert not mentions(written(tmp_path, b"\0GLIBC_2.34\0" * 9), "GLIBC_2.34")


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda data: b"\x7fELF\x02\x01" + data))
def test_nonsense_is_no_library(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Nor an error."""
    path = written(tmp_path_factory.getbasetemp(), data)
    assert read_elf(path) is None
    assert read_soname(path, AMD64) is None


@given(st.lists(st.tuples(st.integers(0, len(FULL) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(FULL)))
def test_damage_is_no_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], length: int
) -> None:
    """Whichever bytes are changed and wherever it is cut."""
    data = bytearray(FULL)
    for place, byte in changes:
        data[place] = byte
    path = written(tmp_path_factory.getbasetemp(), bytes(data[:length]))
    read_elf(path)
    read_soname(path, AMD64)
    mentions(path, "libx.so.1")


@pytest.mark.parametrize("name", ["lib\x1b[2Jx.so", "lib\nx.so"])
def test_names_are_for_people(tmp_path: Path, name: str) -> None:
    """One that would do something to a terminal is damage."""
    assert read_elf(written(tmp_path, shared_library(None, needed=[name]))) is None


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    """Is no ELF file."""
    assert read_elf(tmp_path / "nothing") is None
    assert read_elf(tmp_path) is None


def test_a_soname_is_no_path(tmp_path: Path) -> None:
    """Nobody gets a library opened elsewhere by its name."""
    assert read_soname(written(tmp_path, shared_library("../../etc/passwd")), AMD64) is None
    assert read_soname(written(tmp_path, shared_library("libx.so")), ARM64) is None
