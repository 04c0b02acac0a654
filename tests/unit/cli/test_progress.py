"""What commands say while they work."""

import sys

import pytest

from mlbox.cli.progress import Bars, Lines


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_a_line_is_written_at_once(monkeypatch: pytest.MonkeyPatch, kind: type[Lines | Bars]) -> None:
    """Several threads speak, and a line of one must not end in that of another."""
    written: list[str] = []
    monkeypatch.setattr(sys.stderr, "write", written.append)
    listener = kind()
    listener.step("resolve")
    listener.note("torch moves")
    assert written == ["resolve\n", "note: torch moves\n"]


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_words_of_strangers_do_not_move_the_cursor(
    capsys: pytest.CaptureFixture[str], kind: type[Lines | Bars]
) -> None:
    """Notes name files and images that others made."""
    with kind() as listener:
        listener.note("x\x1b[2Jy\nz")
        listener.expect("pull", 1)  # from here on there may be a bar
        listener.step("x\x1b[2Jy")
    assert "\x1b[2J" not in capsys.readouterr().err
