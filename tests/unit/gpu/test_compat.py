"""The libraries of a newer driver in an image: when they go before the host's."""

import os
import struct
from pathlib import Path

import pytest
from fakes.elf import shared_library
from fakes.fatbin import library

from mlbox.gpu.compat import FOLDER, Compat, lines_in, read_compat
from mlbox.gpu.model import Version, parse_version
from mlbox.gpu.tables import is_of_data_center
from mlbox.loader import Library

NEWER = "575.57.08"
TEXT = b'{"format":1,"CUDA version":"12.9","driver":[535,550,560,565,570,575],"device":[1,2,7,8,9]}'


def version(text: str) -> Version:
    found = parse_version(text)
    assert found is not None
    return found


def note(text: bytes = TEXT, size: int | None = None) -> bytes:
    """Return a libcuda whose note says `text`."""
    name = b"NVIDIA Corporation\0".ljust(20, b"\0")
    header = struct.pack("<III", 19, len(text) if size is None else size, 1)
    return library((b".note.cuda.fwd_compatibility", header + name + text + bytes(-len(text) % 4)))


def read(tmp_path: Path, data: bytes) -> Compat | None:
    path = tmp_path / "libcuda.so.575.57.08"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_compat(fd, NEWER)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("driver", "branches", "goes"),
    [
        ("550.54.14", (535, 550), True),
        ("545.23.06", (535, 550), False),
        ("580.65.06", (535, 580), False),
        ("575.57.08", (575,), False),
        ("575.51.03", (575,), True),
        ("550.54.14", (), True),
        ("575.51.03", (), False),
    ],
)
def test_newer_and_of_a_branch_it_names(driver: str, branches: tuple[int, ...], goes: bool) -> None:
    """One that names none goes with older branches."""
    assert Compat(version=NEWER, branches=branches).goes_with(version(driver)) == goes


def test_the_note_of_a_libcuda(tmp_path: Path) -> None:
    """Damage is no library; one without a note says nothing."""
    assert read(tmp_path, note()) == Compat(version=NEWER, branches=(535, 550, 560, 565, 570, 575))
    assert read(tmp_path, shared_library("libcuda.so.1")) == Compat(version=NEWER)
    for damaged in (b"", b"text", note(b"{"), note(b'{"driver": "all"}'), note(size=1 << 20), note()[:64]):
        assert read(tmp_path, damaged) is None


def test_what_the_loader_of_a_container_is_told(tmp_path: Path) -> None:
    """Every name in the folder, wherever the link to it leads; nothing where the host's libraries are right."""
    folder = tmp_path / "usr/local/cuda-12.9/compat"
    folder.mkdir(parents=True)
    (tmp_path / "usr/local/cuda").symlink_to("/usr/local/cuda-12.9")
    assert lines_in(tmp_path, version("550.54.14")) == ()
    (folder / f"libcuda.so.{NEWER}").write_bytes(note())
    (folder / "libcuda.so.1").symlink_to(f"libcuda.so.{NEWER}")
    (folder / "README").write_text("")
    assert lines_in(tmp_path, version("550.54.14")) == (
        Library("libcuda.so.1", f"/{FOLDER}/libcuda.so.1"),
        Library(f"libcuda.so.{NEWER}", f"/{FOLDER}/libcuda.so.{NEWER}"),
    )
    assert lines_in(tmp_path, version("580.65.06")) == ()


def test_what_is_no_library_is_none(tmp_path: Path) -> None:
    """A pipe would keep who reads it for ever, a link could lead to the host's files."""
    folder = tmp_path / "root" / FOLDER
    folder.mkdir(parents=True)
    path = folder / f"libcuda.so.{NEWER}"
    os.mkfifo(path)
    assert lines_in(tmp_path / "root", version("550.54.14")) == ()
    path.unlink()
    (tmp_path / "outside").write_bytes(note())
    path.symlink_to(tmp_path / "outside")
    assert lines_in(tmp_path / "root", version("550.54.14")) == ()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA H200", True),
        ("Tesla T4", True),
        ("NVIDIA A100-SXM4-80GB", True),
        ("NVIDIA GeForce RTX 4090", False),
        ("NVIDIA RTX A6000", False),
        ("NVIDIA T400", False),
        ("", False),
    ],
)
def test_gpus_of_data_centers(name: str, found: bool) -> None:
    assert is_of_data_center(name) == found
