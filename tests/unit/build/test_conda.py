"""Conda packages become pieces: prefix, places, commands, records; and what is damaged or hostile is refused."""

import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fakes.conda import PLACEHOLDER, File, Made, make_package, tar
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbox.build.conda import fill_conda_env, link_scripts, unpack_conda, with_prefix
from mlbox.build.zip import Limits
from mlbox.errors import ArchiveError
from mlbox.oci.layer import EPOCH
from mlbox.plan.model import CondaEnvPiece, CondaPiece
from mlbox.store.tree import Tree, below, diff_id_of

ENV = "opt/mlbox/env"
PREFIX = f"/{ENV}".encode()


def piece_of(made: Made, **more: Any) -> CondaPiece:
    """Return the piece of a package."""
    index = made.index
    python = {"python": "3.11"} if index["subdir"] == "noarch" else {}
    known = {"name": index["name"], "version": index["version"], "build": index["build"], "subdir": index["subdir"]}
    return CondaPiece(
        **{**known, **python, "channel": "tests", "filename": made.filename, "sha256": made.sha256, **more}
    )


def unpack(made: Made, folder: Path, piece: CondaPiece | None = None, **more: Any) -> tuple[Path, Tree]:
    """Unpack a package below `folder`."""
    path = folder / "artifact"
    path.write_bytes(made.data)
    root = folder / "root"
    return root / ENV, unpack_conda(path, root, piece or piece_of(made), **more)


def paths(tree: Tree) -> set[str]:
    """Return what is in the environment, folders left out."""
    return {entry.path.removeprefix(f"{ENV}/") for entry in tree.entries if entry.kind != "dir"}


FILES = {
    "bin/tool": File(f"#!/bin/sh\nexec {PLACEHOLDER}/bin/x {PLACEHOLDER}\n".encode(), 0o755),
    "lib/libx.so.1": File(b"\x7fELF\0" + f"{PLACEHOLDER}/lib:{PLACEHOLDER}/share".encode() + b"\0after\0", 0o755),
    "lib/libx.so": File(link="libx.so.1", mode=0o777),
    "lib/same.txt": File(link="share/x/data.txt", hard=True),
    "share/x/data.txt": b"data\n",
    "share/x/empty": b"",
}


@pytest.mark.parametrize("kind", [".conda", ".tar.bz2"])
@pytest.mark.parametrize("info_last", [False, True], ids=["info first", "info last"])
def test_a_package_is_linked_into_the_prefix(tmp_path: Path, kind: str, info_last: bool) -> None:
    """Text and binaries name the environment; a binary keeps its size; modes, links and times are as everywhere."""
    files = dict(FILES)
    files["lib/same.txt"] = files.pop("lib/same.txt")  # after its target
    env, tree = unpack(make_package("x", files=files, kind=kind, info_last=info_last), tmp_path)
    assert (env / "bin/tool").read_text() == f"#!/bin/sh\nexec /{ENV}/bin/x /{ENV}\n"
    binary = FILES["lib/libx.so.1"]
    assert isinstance(binary, File)
    data = (env / "lib/libx.so.1").read_bytes()
    assert len(data) == len(binary.data)
    assert data.startswith(b"\x7fELF\0" + PREFIX + b"/lib:" + PREFIX + b"/share\0")
    assert data.endswith(b"\0after\0")
    assert (env / "lib/libx.so").readlink() == Path("libx.so.1")
    assert (env / "lib/same.txt").read_bytes() == b"data\n"
    assert (env / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert (env / "share/x/data.txt").stat().st_mode & 0o777 == 0o644
    assert {entry.mtime for entry in tree.entries} == {EPOCH}
    assert paths(tree) == {*files, "conda-meta/x-1.0-h0_0.json"}


def test_both_formats_make_the_same_but_for_their_record(tmp_path: Path) -> None:
    """What is in the archive counts, not how it is packed."""
    found = []
    for number, kind in enumerate((".conda", ".tar.bz2")):
        (tmp_path / str(number)).mkdir()
        files = {path: one for path, one in FILES.items() if path != "lib/same.txt"}
        env, tree = unpack(make_package("x", files=files, kind=kind), tmp_path / str(number))
        (env / "conda-meta/x-1.0-h0_0.json").write_bytes(b"")
        entries = tuple(entry for entry in tree.entries if not entry.path.endswith(".json"))
        found.append(diff_id_of(entries, below(env.parents[2])))
    assert found[0] == found[1]


def test_modules_of_noarch_packages_go_where_this_python_looks(tmp_path: Path) -> None:
    """And their commands start with its interpreter."""
    files = {"site-packages/hello/__init__.py": b"def main(): pass\n", "python-scripts/old": File(b"#!x\n", 0o755)}
    made = make_package(
        "hello", files=files, noarch="python", subdir="noarch", entry_points=["hello = hello:main", "pip = hello:main"]
    )
    env, tree = unpack(made, tmp_path)
    assert paths(tree) == {
        "lib/python3.11/site-packages/hello/__init__.py",
        "bin/old",
        "bin/hello",
        "bin/pip",
        "conda-meta/hello-1.0-h0_0.json",
    }
    assert (env / "bin/hello").read_text().startswith(f"#!/{ENV}/bin/python\n")
    assert os.access(env / "bin/hello", os.X_OK)


def test_the_record_says_what_is_there_and_nothing_of_a_machine(tmp_path: Path) -> None:
    """What conda reads to list, verify and remove packages."""
    made = make_package(
        "hello", files={"site-packages/a.py": b"a"}, noarch="python", subdir="noarch", depends=["python"]
    )
    env, _ = unpack(made, tmp_path)
    record = json.loads((env / "conda-meta/hello-1.0-h0_0.json").read_bytes())
    assert record["name"] == "hello"
    assert record["fn"] == "hello-1.0-h0_0.conda"
    assert record["depends"] == ["python"]
    assert record["files"] == ["lib/python3.11/site-packages/a.py"]
    assert record["sha256"] == made.sha256
    assert record["channel"] == "tests"
    assert not {"url", "extracted_package_dir", "package_tarball_full_path", "link"} & record.keys()
    assert str(tmp_path) not in json.dumps(record)


def test_members_that_paths_json_does_not_name_stay_out(tmp_path: Path) -> None:
    """As conda and rattler link packages."""
    named = make_package("x", files={"a": b"a"})
    made = make_package("x", files={"a": b"a", "b": b"b"}, paths=json.loads(_info(named, "paths.json"))["paths"])
    _, tree = unpack(made, tmp_path)
    assert paths(tree) == {"a", "conda-meta/x-1.0-h0_0.json"}


def _info(made: Made, name: str) -> bytes:
    import io
    import tarfile

    from fakes.conda import zstd

    archive = zipfile.ZipFile(io.BytesIO(made.data))
    member = next(one for one in archive.namelist() if one.startswith("info-"))
    with tarfile.open(fileobj=io.BytesIO(zstd.decompress(archive.read(member)))) as found:
        file = found.extractfile(f"info/{name}")
        assert file
        return file.read()


def test_packages_from_before_paths_json_are_read(tmp_path: Path) -> None:
    """Their files stand in a list, their prefixes in another; without a word it is the oldest placeholder, as text."""
    old = "/opt/anaconda1anaconda2anaconda3"
    made = make_package(
        "x",
        files={"a": f"{PLACEHOLDER}/a\n".encode(), "b": f"{old}/b\n".encode(), "c": b"c\n"},
        info={"info/paths.json": b"none", "info/has_prefix": f'"{PLACEHOLDER}" text "a"\nb\n'.encode()},
        kind=".tar.bz2",
    )
    env, _ = unpack(made, tmp_path)
    assert [(env / name).read_text() for name in "abc"] == [f"/{ENV}/a\n", f"/{ENV}/b\n", "c\n"]


def test_byte_code_of_a_package_stays_valid(tmp_path: Path) -> None:
    """Its source has another time than when it was compiled; what was stale stays stale."""

    def compiled(time: int) -> bytes:
        return b"\xa7\r\r\n" + bytes(4) + time.to_bytes(4, "little") + b"\5\0\0\0" + b"code"

    files = {
        "lib/a/__pycache__/m.cpython-311.pyc": compiled(1767225600),
        "lib/a/m.py": b"x = 1",
        "lib/a/__pycache__/stale.cpython-311.pyc": compiled(5),
        "lib/a/stale.py": b"x = 2",
        "lib/a/__pycache__/hashed.cpython-311.pyc": b"\xa7\r\r\n\1\0\0\0" + b"12345678" + b"code",
        "lib/a/hashed.py": b"x = 3",
        "lib/a/short.pyc": b"\xa7\r",
    }
    env, _ = unpack(make_package("x", files=files), tmp_path)
    folder = env / "lib/a/__pycache__"
    assert (folder / "m.cpython-311.pyc").read_bytes() == compiled(EPOCH)
    assert (folder / "m.cpython-311.pyc").stat().st_mtime == EPOCH
    assert (folder / "stale.cpython-311.pyc").read_bytes() == compiled(5)
    assert b"12345678" in (folder / "hashed.cpython-311.pyc").read_bytes()


def test_link_scripts_are_seen(tmp_path: Path) -> None:
    """They are part of the package, and only reported."""
    files = {"bin/.x-post-link.sh": File(b"touch y\n", 0o755)}
    _, tree = unpack(make_package("x", files=files), tmp_path)
    assert link_scripts(tree, "x")
    assert not link_scripts(tree, "y")


def test_the_empty_environment_is_one_that_conda_knows(tmp_path: Path) -> None:
    """conda looks for this file."""
    fill_conda_env(tmp_path / "root", CondaEnvPiece())
    assert (tmp_path / "root" / ENV / "conda-meta/history").read_bytes() == b""


texts = st.lists(
    st.sampled_from(
        [b"", b"a", b"/lib", b"\0", b"\0\0", PLACEHOLDER.encode(), PLACEHOLDER.encode()[:-1], b":", PREFIX]
    ),
    max_size=12,
).map(b"".join)


@given(texts)
@settings(max_examples=300)
def test_binaries_keep_their_size_and_their_other_bytes(data: bytes) -> None:
    """Each string, from its first prefix to its end, is the replaced one with zeros behind; the rest is untouched."""
    placeholder = PLACEHOLDER.encode()
    made = with_prefix(data, placeholder, "binary")
    assert len(made) == len(data)
    assert placeholder not in made
    expected = b"\0".join(
        part.replace(placeholder, PREFIX).ljust(len(part), b"\0") if placeholder in part else part
        for part in data.split(b"\0")
    )
    assert made == expected


@given(texts)
def test_text_is_replaced_everywhere(data: bytes) -> None:
    """Nothing is padded."""
    placeholder = PLACEHOLDER.encode()
    assert with_prefix(data, placeholder, "text") == data.replace(placeholder, PREFIX)


def test_a_prefix_that_does_not_fit_is_refused() -> None:
    """A binary cannot grow."""
    with pytest.raises(ValueError, match="shorter"):
        with_prefix(b"/a/b\0", b"/a", "binary")


def test_a_placeholder_of_one_letter_is_no_bomb() -> None:
    """A short one may be short, but a file does not become many times as large."""
    assert with_prefix(b"/a /a", b"/a", "text") == PREFIX + b" " + PREFIX
    with pytest.raises(ValueError, match="would make"):
        with_prefix(b"/" * (1 << 20), b"/", "text")


def _paths(**more: Any) -> list[dict[str, Any]]:
    return [{"_path": "a", "path_type": "hardlink"} | more]


def _zip(**members: bytes) -> Made:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "-").replace("_", "."), data)
    return make_package("x", files={"a": b"a"})._replace(data=buffer.getvalue())


GOOD = make_package("x", files={"a": b"a"})
BZ2 = make_package("x", files={"a": b"a" * 5000}, kind=".tar.bz2")
BAD: dict[str, tuple[Made, str]] = {
    "not an archive": (GOOD._replace(data=b"nothing"), "not a readable zip"),
    "empty": (GOOD._replace(data=b""), "not a readable zip"),
    "truncated": (GOOD._replace(data=GOOD.data[:-40]), "not a readable zip"),
    "truncated bzip2": (BZ2._replace(data=BZ2.data[:-40]), "ends too early|cut off|ends inside|damaged"),
    "damaged bzip2": (BZ2._replace(data=BZ2.data[:60] + b"\xff" * 9 + BZ2.data[69:]), "damaged"),
    "bzip2 of nothing": (BZ2._replace(data=b"BZh9\x17rE8P\x90\0\0\0\0"), "has no info/"),
    "no content": (_zip(metadata_json=b"{}"), r"has 0 info-\*"),
    "content that is no zstd": (
        _zip(pkg__x_tar_zst=b"xxxxxxxx" * 99, info__x_tar_zst=b"yyyyyyyy" * 99),
        "ends inside|header|checksum",
    ),
    "another package": (
        make_package("y", files={"a": b"a"})._replace(filename=GOOD.filename, index=GOOD.index),
        "is not x",
    ),
    "no index.json": (make_package("x", info={"info/index.json": b"none"}), "has no info/index.json"),
    "no paths.json": (
        make_package("x", info={"info/paths.json": b"none", "info/files": b"none"}),
        "has no info/paths.json",
    ),
    "index.json is no JSON": (make_package("x", info={"info/index.json": b"{"}), "info/index.json"),
    "index.json is a list": (make_package("x", info={"info/index.json": b"[]"}), "info/index.json.*Expected `object`"),
    "index.json is deep": (make_package("x", info={"info/index.json": b'{"a":' * 100_000}), "info/index.json"),
    "paths.json is a word": (make_package("x", info={"info/paths.json": b'"a"'}), "info/paths.json"),
    "paths.json of unknown kinds": (make_package("x", files={"a": b"a"}, paths=_paths(path_type="door")), "paths.json"),
    "a path climbs": (make_package("x", files={"../../etc/passwd": b"x"}), "leaves the archive or is no path"),
    "a path is absolute": (make_package("x", files={"/etc/passwd": b"x"}), "leaves the archive or is no path"),
    "a path is a dot": (make_package("x", files={"a/./b": b"x"}), "leaves the archive or is no path"),
    "an old list climbs": (
        make_package("x", info={"info/paths.json": b"none", "info/files": b"../x\n"}),
        "leaves the archive or is no path",
    ),
    "a path twice": (make_package("x", files={"a": b"a"}, paths=_paths() * 2), "names 'a' twice"),
    "a member twice": (
        make_package("x", files={"a": b"a", "./a": b"b"}, paths=_paths()),
        "two members have the name 'a'",
    ),
    "a link that climbs": (make_package("x", files={"a": File(link="../../../../etc")}), "leaves the environment"),
    "a link to nothing": (
        make_package("x", files={"lib/a": File(link="../../env2/x")}),
        "leaves the environment",
    ),
    "through a link": (
        make_package("x", files={"a": File(link="/etc"), "a/passwd": b"x"}),
        "lies below .* which is no directory",
    ),
    "a hard link to nothing": (make_package("x", files={"a": File(link="b", hard=True)}), "no such file before it"),
    "a hard link out": (make_package("x", files={"a": File(link="../../etc/x", hard=True)}), "no such file before it"),
    "a hard link to a link": (
        make_package("x", files={"b": File(link="c"), "a": File(link="b", hard=True)}),
        "is something else",
    ),
    "a device": (make_package("x", files={"a": File(kind=b"3")}), "is a device, a fifo or a sparse file"),
    "a fifo": (make_package("x", files={"a": File(kind=b"6")}), "is a device, a fifo or a sparse file"),
    "another hash": (make_package("x", files={"a": b"a"}, paths=_paths(sha256="0" * 64)), "does not have the sha256"),
    "another size": (make_package("x", files={"a": b"a"}, paths=_paths(size_in_bytes=7)), "paths.json says 7"),
    "a missing member": (make_package("x", files={}, paths=_paths()), "names 'a', which it does not have"),
    "a short placeholder": (
        make_package("x", files={"a": b"/x\0"}, paths=_paths(prefix_placeholder="/x", file_mode="binary")),
        "shorter than the prefix",
    ),
    "an entry point without a function": (
        make_package("x", noarch="python", subdir="noarch", entry_points=["a"]),
        "is no entry point",
    ),
    "an entry point that is a path": (
        make_package("x", noarch="python", subdir="noarch", entry_points=["../../etc/x = a:b"]),
        "which is no file name",
    ),
    "an entry point with code": (
        make_package("x", noarch="python", subdir="noarch", entry_points=["a = os:system; evil"]),
        "does not name a function",
    ),
    "a record that is there": (
        make_package("x", files={"conda-meta/x-1.0-h0_0.json": b"{}"}),
        "two members want the path",
    ),
    "a description twice": (
        make_package(
            "x", files={"./info/index.json": b"{}", "a": b"a"}, kind=".tar.bz2", info_last=True, paths=_paths()
        ),
        "two members have the name 'info/index.json'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_packages_are_refused(tmp_path: Path, case: str) -> None:
    """One ArchiveError that names the file; nothing outside the target is touched."""
    made, reason = BAD[case]
    with pytest.raises(ArchiveError) as caught:
        unpack(made, tmp_path, piece_of(made))
    assert made.filename in caught.value.message
    assert re.search(reason, caught.value.message), caught.value.message
    assert {path.name for path in tmp_path.iterdir()} <= {"artifact", "root"}


@pytest.mark.parametrize("kind", [".conda", ".tar.bz2"])
def test_bombs_are_refused(tmp_path: Path, kind: str) -> None:
    """A small file that would become a big one."""
    made = make_package("x", files={"a": bytes(8 << 20)}, kind=kind)
    assert len(made.data) < 10_000
    with pytest.raises(ArchiveError, match=r"more than|bomb"):
        unpack(made, tmp_path, limits=Limits(small=1 << 20, ratio=100))


def test_modules_without_a_python_are_refused(tmp_path: Path) -> None:
    """Nobody could import them."""
    made = make_package("x", noarch="python", subdir="noarch")
    with pytest.raises(ArchiveError, match="the environment has no Python"):
        unpack(made, tmp_path, CondaPiece(**{**_fields(piece_of(made)), "python": ""}))


def _fields(piece: CondaPiece) -> dict[str, Any]:
    return {name: getattr(piece, name) for name in piece.__struct_fields__}


def test_a_tar_helper_is_a_tar() -> None:
    """The maker of these packages writes what tarfile reads."""
    assert len(tar({"a": File(b"x")})) % 512 == 0
