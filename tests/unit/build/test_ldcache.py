"""The loader's cache: which libraries, under which names, in which order, in which bytes."""

import shutil
import subprocess
from pathlib import Path

import pytest
from fakes.elf import AMD64, ARM64, shared_library
from hypothesis import given
from hypothesis import strategies as st

from mlbox.build.ldcache import libraries, missing_links
from mlbox.build.union import Union
from mlbox.elf import read_soname
from mlbox.loader import Library, cache_bytes, order
from mlbox.store.tree import TreeWriter

MULTIARCH = "usr/lib/x86_64-linux-gnu"


def union(tmp_path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Union:
    writer = TreeWriter(tmp_path / "tree", "test")
    for path, data in files.items():
        writer.file(path, [data])
    for path, target in {"lib": "usr/lib", "lib64": "usr/lib64", **(links or {})}.items():
        writer.symlink(path, target)
    return Union([(tmp_path / "tree", writer.finish())])


def lines(root: Union) -> list[tuple[str, str]]:
    return [(library.name, library.path) for library in libraries(root, "amd64")]


def test_libraries_are_listed_as_ldconfig_would(tmp_path: Path) -> None:
    root = union(
        tmp_path,
        {
            "etc/ld.so.conf": b"# all\ninclude /etc/ld.so.conf.d/*.conf\n/opt/own/lib # mine\n",
            "etc/ld.so.conf.d/b.conf": b"/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu\n",
            "etc/ld.so.conf.d/a.conf": b"/usr/local/lib\n",
            "etc/ld.so.conf.d/c.txt": b"/not/read\n",
            f"{MULTIARCH}/libone.so.1.2.3": shared_library("libone.so.1"),
            f"{MULTIARCH}/libplugin.so": shared_library(None),
            f"{MULTIARCH}/libarm.so.1": shared_library("libarm.so.1", ARM64),
            f"{MULTIARCH}/libscript.so": b"GROUP ( libone.so.1 )",
            f"{MULTIARCH}/readme.so": shared_library("readme.so"),
            "usr/local/lib/libone.so.1": shared_library("libone.so.1"),
            "opt/own/lib/libten.so.10": shared_library("libten.so.10"),
            "opt/own/lib/libten.so.9": shared_library("libten.so.9"),
            "not/read/libno.so.1": shared_library("libno.so.1"),
        },
        {
            f"{MULTIARCH}/libone.so.1": "libone.so.1.2.3",
            f"{MULTIARCH}/libone.so": "libone.so.1",
            f"{MULTIARCH}/libalias.so.7": "libone.so.1.2.3",
            f"{MULTIARCH}/libgone.so.1": "libgone.so.1.0",
        },
    )
    assert lines(root) == [
        ("libten.so.10", "/opt/own/lib/libten.so.10"),
        ("libten.so.9", "/opt/own/lib/libten.so.9"),
        ("libplugin.so", "/lib/x86_64-linux-gnu/libplugin.so"),
        ("libone.so.1", "/usr/local/lib/libone.so.1"),  # the first directory's goes first
        ("libone.so.1", "/lib/x86_64-linux-gnu/libone.so.1"),
        ("libone.so", "/lib/x86_64-linux-gnu/libone.so"),
    ]
    assert missing_links(root, "amd64") == {}


def test_a_library_without_its_link_gets_one(tmp_path: Path) -> None:
    root = union(
        tmp_path,
        {
            "usr/lib/libx.so.1.9": shared_library("libx.so.1"),
            "usr/lib/libx.so.1.10": shared_library("libx.so.1"),
        },
    )
    assert missing_links(root, "amd64") == {"usr/lib/libx.so.1": "libx.so.1.10"}
    assert lines(root) == [("libx.so.1", "/lib/libx.so.1")]


def test_configuration_that_includes_itself_ends(tmp_path: Path) -> None:
    root = union(
        tmp_path, {"etc/ld.so.conf": b"include /etc/ld.so.conf\n", "usr/lib/liba.so.1": shared_library("liba.so.1")}
    )
    assert lines(root) == [("liba.so.1", "/lib/liba.so.1")]


def test_the_hosts_ldconfig_reads_it(tmp_path: Path) -> None:
    program = shutil.which("ldconfig", path="/usr/sbin:/sbin")
    if program is None:
        pytest.skip("ldconfig is not installed")
    found = [Library("libb.so.2", "/lib/libb.so.2"), Library("liba.so.1", "/opt/a/liba.so.1")]
    (tmp_path / "cache").write_bytes(cache_bytes(found, "amd64"))
    printed = subprocess.run(
        [program, "-p", "-C", str(tmp_path / "cache")], capture_output=True, text=True, check=True
    ).stdout
    assert "2 libs found" in printed
    assert "libb.so.2 (libc6,x86-64) => /lib/libb.so.2" in printed
    assert "liba.so.1 (libc6,x86-64) => /opt/a/liba.so.1" in printed


@given(st.binary(max_size=80), st.integers(0, 330))
def test_no_bytes_break_the_elf_reader(tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int) -> None:
    good = shared_library("libgood.so.1")
    path = tmp_path_factory.mktemp("elf") / "lib.so"
    path.write_bytes(good[:at] + junk + good[at + len(junk) :])
    found = read_soname(path, AMD64)
    assert found is None or "/" not in found


def test_numbers_in_names_count_as_numbers() -> None:
    names = ["liba.so", "liba.so.1", "liba.so.2", "liba.so.10", "liba0.so"]
    assert sorted({*names}, key=order) == names
