import bz2
import gzip
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.index import make_sdist
from fakes.tars import END, file, header
from fakes.wheels import zip_file

from mlbox.build.sdist import unpack_sdist
from mlbox.errors import ArchiveError
from mlbox.lock.python.sdist import read_archive, read_tree, system_of


def sdist(tmp_path: Path, pyproject: str | None, files: dict[str, bytes] | None = None) -> Path:
    name, data = make_sdist("thing", "1.0", pyproject=pyproject, files=files)
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


@pytest.mark.parametrize(
    ("pyproject", "expected"),
    [
        (None, ("setuptools>=40.8.0",)),
        ("", ("setuptools>=40.8.0",)),
        ("[project]\nname='x'", ("setuptools>=40.8.0",)),
        ("[build-system]\nrequires=['flit_core >=3']\nbuild-backend='flit_core.buildapi'", ("flit_core >=3",)),
        ("[build-system]\nrequires=['wheel']", ("wheel", "setuptools>=40.8.0")),
        (
            "[build-system]\nrequires=['meson-python']\nbuild-backend='mesonpy'",
            ("meson-python", "ninja>=1.8.2"),
        ),
    ],
)
def test_build_requires(tmp_path: Path, pyproject: str | None, expected: tuple[str, ...]) -> None:
    assert read_archive(sdist(tmp_path, pyproject)).requires == expected


def test_only_the_top_folder_counts(tmp_path: Path) -> None:
    nested = {"tests/pyproject.toml": b"[build-system]\nrequires=['wrong']\nbuild-backend='x'"}
    assert read_archive(sdist(tmp_path, None, nested)).requires == ("setuptools>=40.8.0",)
    assert read_archive(sdist(tmp_path, None, nested), subdirectory="tests").requires == ("wrong",)


@pytest.mark.parametrize("text", ["[build-system]", "[build-system]\nrequires=1", "build-system=3", "[", "\x00"])
def test_broken_pyproject_names_the_archive(tmp_path: Path, text: str) -> None:
    with pytest.raises(ArchiveError, match=r"thing-1\.0\.tar\.gz"):
        read_archive(sdist(tmp_path, text))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no file"),
        (b"nonsense", "ends inside a header"),
        (gzip.compress(b"nonsense" * 100), "a header with .* for a number"),
        (gzip.compress(random.Random(1).randbytes(9999))[:-100], "not a readable source archive|a header with"),
        (gzip.compress(header("x/y", size=99999)), "ends inside a file"),
    ],
    ids=["empty", "text", "no tar", "cut", "short"],
)
def test_what_is_no_archive_is_said(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "thing-1.0.tar.gz"
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=rf"thing-1\.0\.tar\.gz: .*({message})"):
        read_archive(path)


def test_a_zip_that_is_encrypted(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "thing-1.0.zip", [("thing-1.0/pyproject.toml", b"x")])
    data = bytearray(path.read_bytes())
    for sign, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(sign) + at] |= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="encrypted"):
        read_archive(path)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_header_is_never_read_whole(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "thing-1.0.tar.gz"
    path.write_bytes(gzip.compress(header("x", kind, 1 << 30)))
    with pytest.raises(ArchiveError, match=r"a header of 1073741824 bytes|headers without an end"):
        read_archive(path)
    with pytest.raises(ArchiveError, match=r"a header of 1073741824 bytes|headers without an end"):
        unpack_sdist(path, tmp_path / "out", path.name)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_however_it_is_packed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "thing-1.0.tar.gz"
    path.write_bytes(pack(file("thing-1.0/pyproject.toml", b"[build-system]\nrequires=['a']") + END))
    assert read_archive(path).requires == ("a", "setuptools>=40.8.0")
    unpack_sdist(path, tmp_path / "out", path.name)
    assert (tmp_path / "out/thing-1.0/pyproject.toml").exists()


def test_huge_pyproject_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="larger than"):
        read_archive(sdist(tmp_path, "#" * (2 << 20)))


def test_tree(tmp_path: Path) -> None:
    assert read_tree(tmp_path, what="x").requires == system_of(None, what="x").requires
    (tmp_path / "pyproject.toml").write_text("[build-system]\nrequires=['a']\nbuild-backend='a'")
    assert read_tree(tmp_path, what="x").requires == ("a",)


def test_tree_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").symlink_to("/dev/zero")
    assert read_tree(tmp_path, what="x").requires == system_of(None, what="x").requires
