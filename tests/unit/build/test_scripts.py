"""Launchers and entry points."""

from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from mlbox.build.scripts import Script, read_entry_points, scripts_of, with_interpreter
from mlbox.errors import ArchiveError


def test_the_launcher_is_pips() -> None:
    from pip._internal.operations.install.wheel import PipScriptMaker

    wanted = PipScriptMaker.script_template % {"module": "a.b", "import_name": "C", "func": "C.run"}
    assert Script("x", "a.b", "C.run").text().decode() == "#!/opt/mlbox/env/bin/python\n" + wanted


def test_groups_are_read_as_importlib_reads_them(tmp_path: Path) -> None:
    text = "# c\n[console_scripts]\n a = b : c [x,y]\n\n[g]\nq=r\n#z=1\n[console_scripts]\nd = e:f=g\n"
    read = read_entry_points(text.encode(), "x.whl")
    (tmp_path / "demo-1.dist-info").mkdir()
    (tmp_path / "demo-1.dist-info/entry_points.txt").write_text(text)
    points = PathDistribution(tmp_path / "demo-1.dist-info").entry_points
    theirs = {(point.group, point.name, point.value) for point in points}
    assert {(group, name, value) for group, points in read.items() for name, value in points.items()} == theirs


def test_lines_before_any_group_are_no_scripts() -> None:
    assert scripts_of(read_entry_points(b"a = b:c\n", "x.whl"), "3.11", "x.whl") == ()


def test_not_utf8() -> None:
    with pytest.raises(ArchiveError, match=r"x\.whl: entry_points\.txt is not UTF-8"):
        read_entry_points(b"\xff", "x.whl")


@pytest.mark.parametrize("value", ["m:f", "m.n : f.g", "m:f [extra]", "m:f[a,b]", "_m1:ünïcode"])
def test_references_that_work(value: str) -> None:
    (script,) = scripts_of({"console_scripts": {"name": value}}, "3.11", "x")
    compile(script.text(), "x", "exec")


@pytest.mark.parametrize("value", ["", "m", "m:", ":f", "m f:g", "m:f;g", "m:f\nimport os", "1m:f", "m..n:f", "m:f()"])
def test_references_that_cannot_work(value: str) -> None:
    with pytest.raises(ArchiveError, match="does not name a function"):
        scripts_of({"gui_scripts": {"name": value}}, "3.11", "x")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0", "a\nb", "n" * 256])
def test_names_that_are_no_file_names(name: str) -> None:
    with pytest.raises(ArchiveError, match="no file name"):
        scripts_of({"console_scripts": {name: "m:f"}}, "3.11", "x")


def test_only_a_python_shebang_is_rewritten() -> None:
    assert with_interpreter(b"#!python\nx") == b"#!/opt/mlbox/env/bin/python\nx"
    assert with_interpreter(b"#!python3 -u") == b"#!/opt/mlbox/env/bin/python\n"
    for data in (b"#!/usr/bin/python\nx", b"#! python\nx", b"", b"\x7fELF#!python"):
        assert with_interpreter(data) == data
