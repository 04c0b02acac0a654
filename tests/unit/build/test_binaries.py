"""What of a layer the loader links."""

from pathlib import Path

import pytest
from fakes.elf import AMD64, ARM64, shared_library

from mlbox.build.binaries import Binary, is_library, read_binaries
from mlbox.oci.layer import Entry

FILES = {
    "site/demo/_x.abi3.so": shared_library(
        None,
        needed=["libc.so.6"],
        runpath="$ORIGIN/../demo.libs",
        versions={"libc.so.6": ["GLIBC_2.2.5", "GLIBC_2.34"]},
    ),
    "site/demo.libs/libz-1a2b.so.1.2.1k": shared_library(
        "libz-1a2b.so.1", versions={"libc.so.6": ["GLIBC_ABI_DT_RELR"]}
    ),
    "site/demo/libother.so": shared_library("libother.so", ARM64),
    "site/demo/_plain.so": shared_library(None, needed=["PyInit__plain"]),
    "site/demo/libmod.so": shared_library(None, needed=["PyInit_libmod"]),
    "site/demo/text.so": b"INPUT(-lx)" * 10,
    "site/demo/small.so": b"\x7fELF",
    "site/demo-1.0.dist-info/RECORD": b"demo/_x.abi3.so,sha256=x,1\ndemo.libs/libz-1a2b.so.1.2.1k,,\n../bin/tool,,\n",
    "bin/tool": shared_library(None, versions={"libm.so.6": ["GLIBC_2.29", "OTHER_1"]}),
    "bin/script": b"#!/bin/sh\n" * 10,
    "site/demo/module.py": shared_library("hidden"),
}


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    for path, data in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    made = [Entry(path, "file", 0o755, size=len(data)) for path, data in FILES.items()]
    return [*made, Entry("site/demo/link.so", "symlink", 0o777, target="libother.so")]


def test_what_is_linked_on_a_machine(tmp_path: Path, entries: list[Entry]) -> None:
    """Libraries and programs of that machine, with the package whose RECORD names them."""
    found = {binary.path: binary for binary in read_binaries(tmp_path, entries, AMD64)}
    libraries = {"site/demo/_plain.so", "site/demo/libmod.so"}
    assert set(found) == {"site/demo/_x.abi3.so", "site/demo.libs/libz-1a2b.so.1.2.1k", "bin/tool"} | libraries
    assert [path for path, one in found.items() if one.is_module] == ["site/demo/_plain.so"]
    module = found["site/demo/_x.abi3.so"]
    assert (module.needed, module.search, module.glibc) == (("libc.so.6",), ("$ORIGIN/../demo.libs",), 34)
    assert {one.package for path, one in found.items() if path not in libraries} == {"demo 1.0"}
    assert found["site/demo.libs/libz-1a2b.so.1.2.1k"].glibc == 36
    assert found["bin/tool"].glibc == 29
    assert [binary.path for binary in read_binaries(tmp_path, entries, ARM64)] == ["site/demo/libother.so"]


def test_a_file_of_no_package(tmp_path: Path, entries: list[Entry]) -> None:
    """Without a RECORD it belongs to nobody."""
    found = read_binaries(tmp_path, [entry for entry in entries if not entry.path.endswith("RECORD")], AMD64)
    assert {binary.package for binary in found} == {""}


def test_names() -> None:
    """Where a file lies and what it is called; what is called as libraries are."""
    one = Binary("a/b/libx.so.1", 1, "libx.so.1", (), ())
    assert (one.folder, one.name) == ("a/b", "libx.so.1")
    assert is_library("libcrypto-5409cd36.so.1.1.1k")
    assert not is_library("x.sound")
    assert not is_library("notes.so.txt/readme")
