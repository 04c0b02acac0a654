"""save, load and serve-store as they are typed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.trees import make_image, make_layer

from mlbox.cli import main
from mlbox.oci.image import Image
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.store import Store


@pytest.fixture
def image(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Image]:
    """An image with two names in the store that the command line uses."""
    monkeypatch.setenv("MLBOX_HOME", str(home.root))
    monkeypatch.chdir(tmp_path)
    store = Store(home)
    image = make_image(store, make_layer(store, "one", {"x": b"1"}))
    for name in ("me/bert:1", "other:2"):
        store.images.tag(image.digest, parse_reference(name))
    yield image
    store.close()


def run(*argv: str, code: int = 0) -> None:
    assert main.run(argv) == code


def test_save_and_load(
    image: Image, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """save prints each digest once; an image asked for by name has that name alone, by digest all of them."""
    run("save", "me/bert:1", "-o", "one.tar")
    run("save", image.digest[7:19], "-o", "all.tar")
    run("save", "me/bert:1", "other:2", "-o", "both.tar.zst", "--format", "docker")
    assert capsys.readouterr().out.split() == [image.digest] * 3
    monkeypatch.setenv("MLBOX_HOME", str(tmp_path / "another"))
    run("load", "-i", "one.tar")
    assert capsys.readouterr().out == f"loaded me/bert:1 {image.digest}\n"
    both = [f"loaded me/bert:1 {image.digest}", f"loaded other:2 {image.digest}"]
    for archive in ("all.tar", "both.tar.zst"):
        run("load", "-i", archive)
        assert sorted(capsys.readouterr().out.splitlines()) == both
    run("load", "-i", "one.tar", "-t", "mine:3", "-t", "mine:4")
    assert capsys.readouterr().out == f"loaded mine:3 {image.digest}\nloaded mine:4 {image.digest}\n"


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["save", "no:1", "-o", "x.tar"], 1, "no image no:1"),
        (["save", "me/bert:1"], 2, "--output"),
        (["save", "me/bert:1", "-o", "folder", "--format", "docker"], 2, "never a folder"),
        (["save", "me/bert:1", "-o", "x.tar", "--format", "docker", "--attachments"], 2, "attachments"),
        (["save", "me/bert:1", "-o", "x.tar", "--format", "rar"], 2, "rar"),
        (["load", "-i", "none.tar"], 1, "none.tar"),
        (["load", "-i", "none.tar", "-t", "UPPER"], 2, "UPPER"),
        (["serve-store", "--listen", "0.0.0.0"], 2, "--token-file"),
        (["serve-store", "--listen", "nowhere.invalid:1"], 2, "nowhere.invalid"),
        (["serve-store", "--cert", "x.pem"], 2, "--key"),
        (["serve-store", "--listen", "127.0.0.1:0", "--cert", "x.pem", "--key", "y.pem"], 2, "x.pem"),
    ],
)
def test_mistakes(
    image: Image, argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each says what is wrong, and leaves nothing behind."""
    before = sorted(path.name for path in tmp_path.iterdir())
    run(*argv, code=code)
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("argv", [["save", "me/bert:1", "-o", "-"], ["load"]])
def test_an_archive_and_a_terminal(
    image: Image, argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is printed on one nor read from one."""
    ours, theirs = os.openpty()
    with os.fdopen(ours), os.fdopen(theirs, "r+b", buffering=0) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        monkeypatch.setattr("sys.stdout", terminal)
        run(*argv, code=2)
    assert "terminal" in capsys.readouterr().err
