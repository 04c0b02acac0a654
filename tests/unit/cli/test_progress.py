"""What commands say while they work."""

import io
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


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize("stdout", [io.StringIO, Terminal])
def test_data_is_not_touched_by_the_bars(monkeypatch: pytest.MonkeyPatch, stdout: type[io.StringIO]) -> None:
    """`$(mlbox pull …)` on a terminal gets the digest, and a terminal gets it in one line."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdout", stdout())
    monkeypatch.setenv("COLUMNS", "40")
    data, shown = sys.stdout, sys.stderr
    with Bars() as bars:
        bars.expect("load", 0)
        bars.expect("pull", 7)
        print("sha256:" + "0" * 64)
        bars.note("x" * 100)
    assert isinstance(data, io.StringIO)
    assert isinstance(shown, io.StringIO)
    assert f"sha256:{'0' * 64}\n" in (shown if data.isatty() else data).getvalue()
    assert "x" * 100 in shown.getvalue()
    assert "load" not in shown.getvalue()
