"""Wheels become pieces: where files go, and what is refused."""

import os
import re
import stat
import zipfile
from pathlib import Path

import pytest
from fakes.wheels import make_wheel, piece_of, record_line, stored_zip, wheel_files, zip_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlbox.build.wheel import unpack_wheel
from mlbox.build.zip import Limits
from mlbox.errors import ArchiveError
from mlbox.store.tree import Tree, below, diff_id_of

ENV = "opt/mlbox/env"
SITE = f"{ENV}/lib/python3.11/site-packages"
INFO = "demo-1.0.dist-info"

Files = dict[str, bytes]


def unpack(tmp_path: Path, wheel: Path, limits: Limits | None = None, **options: object) -> Tree:
    return unpack_wheel(wheel, tmp_path / "root", piece_of(wheel, **options), limits or Limits())  # type: ignore[arg-type]


def content(tmp_path: Path) -> dict[str, str]:
    root = tmp_path / "root"
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def refuse(tmp_path: Path, wheel: Path, message: str, limits: Limits | None = None) -> None:
    with pytest.raises(ArchiveError, match=message) as caught:
        unpack(tmp_path, wheel, limits)
    assert caught.value.message.startswith(wheel.name)
    assert caught.value.hint


def test_files_go_to_site_packages_with_modes_and_times(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {"demo/a.py": b"a", "demo/tool": b"t", "x.pth": b"p"}, executable=["demo/tool"])
    tree = unpack(tmp_path, wheel)
    modes = {entry.path.removeprefix(SITE + "/"): entry.mode for entry in tree.entries if entry.kind == "file"}
    assert modes["demo/a.py"] == modes["x.pth"] == 0o644
    assert modes["demo/tool"] == 0o755
    on_disk = os.lstat(tmp_path / "root" / SITE / "demo/tool")
    assert (stat.S_IMODE(on_disk.st_mode), on_disk.st_mtime) == (0o755, 315532800)
    assert os.lstat(tmp_path / "root" / SITE).st_mtime == 315532800


def test_the_digest_of_the_one_pass_is_that_of_the_tree(tmp_path: Path) -> None:
    files = {"a-b.py": b"1", "a/b.py": b"2" * 5000, "a/é.py": b"3", "Z.py": b"", f"{'d' * 60}/{'e' * 70}.py": b"4"}
    tree = unpack(tmp_path, make_wheel(tmp_path, files))
    assert tree.diff_id == diff_id_of(tree.entries, below(tmp_path / "root"))
    assert list(tree.entries) == sorted(tree.entries, key=lambda entry: entry.path.encode())


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_umask_does_not_matter(tmp_path: Path, umask: int) -> None:
    wheel = make_wheel(tmp_path, {"demo.py": b"x"}, executable=["demo.py"])
    before = os.umask(umask)
    try:
        unpack(tmp_path, wheel)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.lstat(tmp_path / "root" / SITE / "demo.py").st_mode) == 0o755
    assert stat.S_IMODE(os.lstat(tmp_path / "root" / SITE).st_mode) == 0o755


def test_data_schemes(tmp_path: Path) -> None:
    schemes = {"purelib/p.py": b"", "platlib/q.py": b"", "headers/h.h": b"", "data/share/d": b"", "data/lib64/l": b""}
    files = {f"demo-1.0.data/{path}": data for path, data in schemes.items()}
    unpack(tmp_path, make_wheel(tmp_path, files))
    found = content(tmp_path)
    for path in (f"{SITE}/p.py", f"{SITE}/q.py", f"{ENV}/include/site/python3.11/demo/h.h", f"{ENV}/share/d"):
        assert path in found
    assert f"{ENV}/lib/l" in found  # lib64 is a link to lib in the environment
    assert "../../../share/d," in found[f"{SITE}/{INFO}/RECORD"]


def test_scripts_get_the_interpreter_of_the_environment(tmp_path: Path) -> None:
    scripts = {
        "demo-1.0.data/scripts/py": b"#!python -E\r\nprint()\n",
        "demo-1.0.data/scripts/sh": b"#!/bin/sh\n",
        "demo-1.0.data/scripts/pyw": b"#!pythonw\nx",
    }
    unpack(tmp_path, make_wheel(tmp_path, scripts))
    found = content(tmp_path)
    assert found[f"{ENV}/bin/py"] == "#!/opt/mlbox/env/bin/python\nprint()\n"
    assert found[f"{ENV}/bin/pyw"] == "#!/opt/mlbox/env/bin/python\nx"
    assert found[f"{ENV}/bin/sh"] == "#!/bin/sh\n"
    rewritten = record_line("../../../bin/py", b"#!/opt/mlbox/env/bin/python\nprint()\n").strip()
    assert rewritten in found[f"{SITE}/{INFO}/RECORD"]


def test_entry_points_become_launchers_and_replace_the_wheels_own(tmp_path: Path) -> None:
    points = b"[console_scripts]\nrun = demo.cli:app.main [extra]\n[gui_scripts]\nwin=demo:w\n[other]\nx = y\n"
    own = {"demo-1.0.data/scripts/run": b"#!python\nold", "demo-1.0.data/scripts/run-script.py": b"#!python\nold"}
    unpack(tmp_path, make_wheel(tmp_path, {f"{INFO}/entry_points.txt": points, **own}))
    found = content(tmp_path)
    assert sorted(path for path in found if path.startswith(f"{ENV}/bin/")) == [f"{ENV}/bin/run", f"{ENV}/bin/win"]
    assert "from demo.cli import app\n" in found[f"{ENV}/bin/run"]
    assert "sys.exit(app.main())" in found[f"{ENV}/bin/run"]
    assert stat.S_IMODE(os.lstat(tmp_path / "root" / ENV / "bin/run").st_mode) == 0o755
    assert "demo-1.0.data" not in found[f"{SITE}/{INFO}/RECORD"]


def test_pip_gets_the_names_of_the_target_python(tmp_path: Path) -> None:
    points = {f"{INFO}/entry_points.txt": b"[console_scripts]\npip=a:b\npip3=a:b\npip3.99=a:b\n"}
    unpack(tmp_path, make_wheel(tmp_path, points))
    assert sorted(path.name for path in (tmp_path / "root" / ENV / "bin").iterdir()) == ["pip", "pip3", "pip3.11"]


def test_metadata_files(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {"demo.py": b"x"})
    unpack(tmp_path, wheel, requested=True, direct_url='{"url":"x"}')
    found = content(tmp_path)
    assert found[f"{SITE}/{INFO}/INSTALLER"] == "mlbox\n"
    assert found[f"{SITE}/{INFO}/REQUESTED"] == ""
    assert found[f"{SITE}/{INFO}/direct_url.json"] == '{"url":"x"}'
    lines = (tmp_path / "root" / SITE / INFO / "RECORD").read_bytes().decode().split("\r\n")
    assert lines == [*sorted(lines[:-1]), ""]
    assert {line.split(",")[0] for line in lines[:-1]} == {
        path.removeprefix(f"{SITE}/") for path in found if path.startswith(SITE)
    }


def test_without_being_asked_for_there_is_no_requested(tmp_path: Path) -> None:
    unpack(tmp_path, make_wheel(tmp_path, {}))
    assert not (tmp_path / "root" / SITE / INFO / "REQUESTED").exists()
    assert not (tmp_path / "root" / SITE / INFO / "direct_url.json").exists()


def test_a_line_without_hash_is_completed(tmp_path: Path) -> None:
    lines = "demo.py,,\n" + record_line(f"{INFO}/METADATA", wheel_files({})[f"{INFO}/METADATA"])
    lines += record_line(f"{INFO}/WHEEL", wheel_files({})[f"{INFO}/WHEEL"]) + f"{INFO}/RECORD,,\n"
    unpack(tmp_path, make_wheel(tmp_path, {"demo.py": b"x", f"{INFO}/RECORD": lines.encode()}))
    assert record_line("demo.py", b"x").strip() in content(tmp_path)[f"{SITE}/{INFO}/RECORD"]


def test_names_that_differ_in_case_or_normal_form_are_different_files(tmp_path: Path) -> None:
    # Sound wheels hold such pairs, pip installs them on Linux, and the image is for Linux.
    files = {"a.py": b"1", "A.py": b"2", "caf\u00e9.py": b"3", "cafe\u0301.py": b"4"}
    unpack(tmp_path, make_wheel(tmp_path, files))
    found = content(tmp_path)
    assert {found[f"{SITE}/{name}"] for name in files} == {"1", "2", "3", "4"}


def test_signatures_need_no_line_in_record(tmp_path: Path) -> None:
    files = list(wheel_files({}).items())
    wheel = zip_file(tmp_path / "demo-1.0-py3-none-any.whl", [(f"{INFO}/RECORD.jws", b"{}"), *files])
    unpack(tmp_path, wheel)
    assert f"{INFO}/RECORD.jws,,\n" in content(tmp_path)[f"{SITE}/{INFO}/RECORD"]


def test_a_big_member_is_streamed(tmp_path: Path) -> None:
    import tracemalloc

    big = os.urandom(1 << 20) * 24
    wheel = make_wheel(tmp_path, {"big.so": big, "demo-1.0.data/scripts/big": big})
    tracemalloc.start()
    tree = unpack(tmp_path, wheel)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "root" / SITE / "big.so").read_bytes() == big
    assert tree.diff_id == diff_id_of(tree.entries, below(tmp_path / "root"))
    assert peak < 12 << 20


BROKEN: dict[str, tuple[Files, list[str], str]] = {
    "no WHEEL": ({}, [f"{INFO}/WHEEL"], "has no demo-1.0.dist-info/WHEEL"),
    "no METADATA": ({}, [f"{INFO}/METADATA"], "has no demo-1.0.dist-info/METADATA"),
    "no RECORD": ({}, [f"{INFO}/RECORD"], "has no demo-1.0.dist-info/RECORD"),
    "future": ({f"{INFO}/WHEEL": b"Wheel-Version: 2.0\n"}, [], "Wheel-Version is 2.0"),
    "no version": ({f"{INFO}/WHEEL": b"Tag: x\n"}, [], "no valid Wheel-Version"),
    "other name": ({f"{INFO}/METADATA": b"Name: other\nVersion: 1.0\n"}, [], "METADATA says 'other'"),
    "other version": ({f"{INFO}/METADATA": b"Name: demo\nVersion: 2\n"}, [], "METADATA says 'demo' '2'"),
    "two infos": ({"x-1.dist-info/METADATA": b""}, [], "2 .dist-info folders"),
    "absent file": ({"gone.py": b""}, ["gone.py"], "RECORD lists 'gone.py'"),
    "unlisted": ({f"{INFO}/RECORD": f"{INFO}/RECORD,,\n".encode()}, [], "not listed in its RECORD"),
    "no csv": ({f"{INFO}/RECORD": b'"' + b"x" * 200_000}, [], "RECORD cannot be read"),
    "no utf-8": ({f"{INFO}/RECORD": b"\xff\xfe"}, [], "RECORD cannot be read"),
    "climbs": ({"../evil.py": b""}, [], "leaves the archive"),
    "climbs later": ({"a/../../evil.py": b""}, [], "leaves the archive"),
    "absolute": ({"/etc/evil": b""}, [], "leaves the archive"),
    "backslash": ({"a\\b.py": b""}, [], "backslash"),
    "long part": ({"x" * 256: b""}, [], "longer than 255 bytes"),
    "long path": ({"/".join(["d" * 200] * 21): b""}, [], "leaves the archive or is no path"),
    "scheme": ({"demo-1.0.data/kernel/x": b""}, [], "no known place"),
    "scheme only": ({"demo-1.0.data/x": b""}, [], "no known place"),
    "same place": ({"x.py": b"", "demo-1.0.data/purelib/x.py": b""}, [], "two members want the path"),
    "file and folder": ({"x": b"", "x/y": b""}, [], "both a file and a folder"),
    "script climbs": ({f"{INFO}/entry_points.txt": b"[console_scripts]\n../x = a:b\n"}, [], "no file name"),
    "script dots": ({f"{INFO}/entry_points.txt": b"[console_scripts]\n.. = a:b\n"}, [], "no file name"),
    "script unnamed": ({f"{INFO}/entry_points.txt": b"[gui_scripts]\n = a:b\n"}, [], "no file name"),
    "no function": ({f"{INFO}/entry_points.txt": b"[console_scripts]\nx = a\n"}, [], "does not name a function"),
    "injection": ({f"{INFO}/entry_points.txt": b"[gui_scripts]\nx = a:b();c\n"}, [], "does not name a function"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_wheel_is_refused(tmp_path: Path, case: str) -> None:
    files, without, message = BROKEN[case]
    refuse(tmp_path, make_wheel(tmp_path, files, without=without), message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("demo.py,sha256=AAAA,1", "not a sha256"),
        (record_line("demo.py", b"y").strip(), "does not have the hash"),
        (record_line("demo.py", b"x").strip()[:-1] + "2", "has 2 bytes; it has 1"),
        ("demo.py,md5=rL0Y20zC-Fzt72VPzMSk2A,1", "hashes 'demo.py' with 'md5'"),
        (record_line("demo.py", b"x") + record_line("demo.py", b"y"), "two different lines"),
    ],
)
def test_a_record_that_lies_is_refused(tmp_path: Path, line: str, message: str) -> None:
    sound = wheel_files({"demo.py": b"x"})[f"{INFO}/RECORD"].decode()
    lying = re.sub("demo.py,.*\n", line.strip() + "\n", sound)
    refuse(tmp_path, make_wheel(tmp_path, {"demo.py": b"x", f"{INFO}/RECORD": lying.encode()}), message)


def test_another_distribution_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {}).rename(tmp_path / "other-1.0-py3-none-any.whl")
    refuse(tmp_path, wheel, r"is not other 1.0: demo-1.0.dist-info says 'demo'")


def test_equal_versions_may_be_written_differently(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {}).rename(tmp_path / "Demo-1.0.0-py3-none-any.whl")
    assert unpack(tmp_path, wheel).entries


def test_links_in_a_wheel_are_refused(tmp_path: Path) -> None:
    def link(info: zipfile.ZipInfo) -> None:
        if info.filename == "link":
            info.external_attr = 0o120777 << 16

    refuse(tmp_path, make_wheel(tmp_path, {"link": b"/etc/passwd"}, edit=link), "link or a device")


def test_what_unpacks_to_too_much_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {"zeros": bytes(1 << 20)})
    refuse(tmp_path, wheel, "as a zip bomb does", Limits(ratio=100, small=1 << 19))
    refuse(tmp_path, wheel, "more than the 1000 allowed", Limits(total=1000))
    refuse(tmp_path, wheel, "more than the 3 an archive may have", Limits(files=3))
    assert not (tmp_path / "root").exists()
    assert unpack(tmp_path, wheel, Limits(ratio=100)).size > 1 << 20  # small archives may be dense


def test_a_hundred_thousand_files_are_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def count(root: Path, entries: tuple[object, ...], *rest: object) -> Tree:
        written.append(len(entries))
        return Tree(entries=())

    files = wheel_files({f"demo/{number % 100}/{number}.py": b"" for number in range(100_000)})
    wheel = stored_zip(tmp_path / "demo-1.0-py3-none-any.whl", files.items())
    monkeypatch.setattr("mlbox.build.wheel.write_tree", count)
    unpack(tmp_path, wheel)
    assert written == [100_000 + 4 + 100 + 1 + 7]


Names = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters='/\\,"'), min_size=1, max_size=8)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(files=st.dictionaries(Names.filter(lambda name: name.strip(". ") == name), st.binary(max_size=40), max_size=5))
def test_whatever_a_wheel_holds_comes_out(tmp_path_factory: pytest.TempPathFactory, files: Files) -> None:
    tmp_path = tmp_path_factory.mktemp("wheel")
    tree = unpack(tmp_path, make_wheel(tmp_path, {f"pkg/{name}": data for name, data in files.items()}))
    for name, data in files.items():
        assert (tmp_path / "root" / SITE / "pkg" / name).read_bytes() == data
    assert tree.diff_id == diff_id_of(tree.entries, below(tmp_path / "root"))


def test_disk_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    wheel = make_wheel(tmp_path, {"demo.py": b"x"})
    monkeypatch.setattr("os.write", full)
    from mlbox.errors import StoreError

    with pytest.raises(StoreError, match=r"no space left on the disk while unpacking demo-1.0"):
        unpack(tmp_path, wheel)
