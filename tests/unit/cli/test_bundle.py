"""The words of `mlbox bundle`: verbs, and images that need none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.sites import build

from mlbox.cli.main import run
from mlbox.paths import Home
from mlbox.store.store import Store

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda fd: None)  # nobody pulls the plug here; a kill loses nothing


@pytest.fixture
def store(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store that commands use, with two images."""
    monkeypatch.setenv("MLBOX_HOME", str(home.root))
    store = Store(home)
    build(store, tmp_path, "me/bert:1", {"one": b"1"})
    build(store, tmp_path, "have", {"one": b"1"}, b"2")
    yield store
    store.close()


def test_an_image_needs_no_verb(store: Store, tmp_path: Path, capsys: Capture) -> None:
    """Options may stand before it or after; what was written can be checked."""
    path = tmp_path / "x"
    for argv in (
        ["me/bert:1", "-o", str(path)],
        ["-o", str(path), "me/bert:1"],
        ["create", "me/bert:1", "-o", str(path)],
    ):
        assert run(["bundle", *argv]) == 0
        assert run(["bundle", "verify", str(path)]) == 0
        assert capsys.readouterr().out.count(str(store.images.resolve("me/bert:1"))) == 2
        path.unlink()


def test_an_image_that_is_called_like_a_verb(store: Store, tmp_path: Path, capsys: Capture) -> None:
    """With its tag it is an image."""
    assert run(["bundle", "have"]) == 0
    assert capsys.readouterr().out.startswith("mlbox-have 1\n")
    assert run(["bundle", "have:latest", "-o", str(tmp_path / "x")]) == 0
    assert str(store.images.resolve("have")) in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [["me/bert:1"], ["-o", "x"], ["load"], ["verify"], ["me/bert:1", "-o", "x", "--split", "1k"]]
)
def test_what_is_left_out_is_said(store: Store, capsys: Capture, argv: list[str]) -> None:
    """Usage errors end with 2."""
    assert run(["bundle", *argv]) == 2
    assert capsys.readouterr().err


def test_a_pipe_takes_no_parts(store: Store, capsys: Capture) -> None:
    """Nor does a bundle go to a terminal."""
    assert run(["bundle", "me/bert:1", "-o", "-", "--split", "4G"]) == 2
    assert "--split needs files" in capsys.readouterr().err


def test_damage_ends_with_one(store: Store, tmp_path: Path, capsys: Capture) -> None:
    """The first thing that is wrong is named, and no traceback follows."""
    path = tmp_path / "x"
    assert run(["bundle", "me/bert:1", "-o", str(path)]) == 0
    path.write_bytes(path.read_bytes()[:-600])
    assert run(["bundle", "verify", str(path)]) == 1
    assert run(["bundle", "load", str(path)]) == 1
    error = capsys.readouterr().err
    assert "it was cut off" in error
    assert "hint: " in error


def test_lists_and_older_bundles_add_up(store: Store, tmp_path: Path, capsys: Capture) -> None:
    """What either has is left out, and said to be."""
    assert run(["bundle", "have", "-o", str(tmp_path / "list")]) == 0
    assert run(["bundle", "me/bert:1", "-o", str(tmp_path / "old")]) == 0
    since = ["--since", str(tmp_path / "old"), "--have", str(tmp_path / "list")]
    assert run(["bundle", "me/bert:1", "-o", str(tmp_path / "new"), *since]) == 0
    assert "layer project" in capsys.readouterr().err
    assert (tmp_path / "new").stat().st_size < (tmp_path / "old").stat().st_size
    assert run(["bundle", "load", str(tmp_path / "new")]) == 0
