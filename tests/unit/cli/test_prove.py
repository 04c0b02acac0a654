"""What diff, why and du print, and how verify ends."""

import json
from pathlib import Path

import pytest
from fakes.images import debs, lock_of, make_image, package, wheel

from mlbox.cli.main import run
from mlbox.cli.prove_text import print_verification
from mlbox.engine.verifying import LayerCheck, Verification
from mlbox.lock.file import write_lock
from mlbox.oci.digest import DiffID, Digest
from mlbox.paths import Home
from mlbox.report.treediff import Difference
from mlbox.store.store import Store

DIGEST = "sha256:" + "a" * 64
LOCK = lock_of(package("top", requires=("leaf",), wanted_by=("requirements.txt:7",)), package("leaf"))


@pytest.fixture(autouse=True)
def _store(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBOX_HOME", str(home.root))
    store = Store(home)
    base = debs(("libc6", "2.36", "", {"usr/lib/libc.so": bytes(2000)}))
    make_image(store, {"base": base, "env": wheel("top")}, name="me:1")
    make_image(store, {"base": base, "env": {**wheel("top"), **wheel("leaf", x=b"1")}}, lock=LOCK, name="me:2")
    store.close()


def test_diff(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", "me:1", "me:2", "--files"]) == 0

    out = capsys.readouterr().out
    assert "+  leaf  1.0  Python" in out
    assert "requirements.txt:7 > top > leaf" in out
    assert "=  base" in out
    assert "+ /opt/mlbox/env/lib/python3.11/site-packages/x" in out


def test_names_of_strangers_do_not_move_the_cursor(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in what is said of an image nor in an error about it."""
    files = {"etc/a\x1b[2Jb": b"x", "etc/new\nline": b"y", "etc/\u202egpj.exe": b"z"}
    store = Store(home)
    make_image(store, {"env": {**wheel("top"), **files}}, name="evil:1")
    store.close()

    assert run(["diff", "me:1", "evil:1", "--files"]) == 0
    assert run(["why", "evil:1", "/etc/new\nline"]) == 0
    assert run(["why", "evil:1", "/etc/a\x1b[2J"]) == 1

    said = capsys.readouterr()
    assert "+ /etc/a\\x1b[2Jb" in said.out
    assert "/etc/new\\nline (file" in said.out
    assert "\\u202egpj.exe" in said.out
    assert "did you mean /etc/a\\x1b[2Jb?" in said.err
    assert not {"\x1b", "\u202e"} & {*said.out, *said.err}


def test_diff_of_locks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files, or an image with the lock attached to it; without one there is a hint."""
    write_lock(tmp_path / "other.lock", lock_of(package("top", "2.0")))

    assert run(["diff", "me:2", str(tmp_path / "other.lock")]) == 0
    assert "~ top 1.0 -> 2.0" in capsys.readouterr().out
    assert run(["diff", "me:1", str(tmp_path / "other.lock")]) == 1
    assert "two lock files" in capsys.readouterr().err


def test_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", "me:2", "leaf"]) == 0
    assert "asked for by requirements.txt:7 > top > leaf" in capsys.readouterr().out
    assert run(["why", "me:2", "libc6"]) == 0
    assert "also in me:1" in capsys.readouterr().out
    assert run(["why", "me:2", "/usr/lib/libc.so"]) == 0
    assert "from libc6 2.36" in capsys.readouterr().out
    assert run(["why", "me:2"]) == 2


def test_du(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["du", "me:1"]) == 0
    assert "libc6" in capsys.readouterr().out
    assert run(["du", "me:1", "--html", str(tmp_path / "map.html"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["packages"][0]["name"] == "libc6"
    assert "libc6" in (tmp_path / "map.html").read_text()


def test_verify_of_what_has_no_lock(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "me:1"]) == 1
    assert "no lock and plan attached" in capsys.readouterr().err
    assert run(["verify", "nothing.lock", "me:1"]) == 2


def verification(*layers: LayerCheck, problems: tuple[str, ...] = ()) -> Verification:
    return Verification(
        image="me:1",
        digest=Digest(DIGEST),
        basis="a lock",
        layers=layers,
        config="equal",
        manifest="equal",
        problems=problems,
    )


@pytest.mark.parametrize(
    ("layer", "problems", "verdict"),
    [
        (LayerCheck(number=1, name="l", state="equal", diff_id=DiffID(DIGEST)), (), ": equal ("),
        (LayerCheck(number=1, name="l", state="equal", diff_id=DiffID(DIGEST)), ("x",), "BUT NOT ALL WELL: x"),
        (LayerCheck(number=1, name="l", state="not checked", diff_id=DiffID(DIGEST), reason="r"), (), "NOT PROVEN"),
        (LayerCheck(number=1, name="l", state="different", diff_id=""), (), "NOT EQUAL"),
    ],
)
def test_verdicts(
    layer: LayerCheck, problems: tuple[str, ...], verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was not checked is never called equal."""
    found = verification(layer, problems=problems)
    print_verification(found)

    assert verdict in capsys.readouterr().out
    assert found.ok == (verdict == ": equal (")


def test_differences_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Which bytes, of which package; many are counted."""
    one = Difference(path="a/b.so", what="content", expected="00 01", found="ff 01", offset=7, piece="numpy 2")
    many = tuple(Difference(path=f"x{number}", what="extra", found="file") for number in range(20))
    print_verification(
        verification(
            LayerCheck(
                number=3, name="numpy", state="changed on disk", diff_id=DiffID(DIGEST), differences=(one, *many)
            )
        )
    )

    out = capsys.readouterr().out
    assert "/a/b.so of numpy 2: from byte 7 on ff 01, not 00 01" in out
    assert "and 11 more files" in out
    assert "fsck --deep --repair" in out
