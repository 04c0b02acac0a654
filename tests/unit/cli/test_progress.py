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
