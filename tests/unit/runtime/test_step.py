"""What people see of a build step's output."""

from collections import deque

import pytest

from mlbox.runtime.step import _tail


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (b"one\ntwo\n", "one\ntwo"),
        (b"\x1b[31merror:\x1b[0m no\n", "error: no"),
        (b"\x1b[2J\x1b]0;title\x07gone\x08\x9b", "gone�"),
        (b"\xff\x00x\ty", "�x\ty"),
        (b"10%\r20%\rdone", "10%\n20%\ndone"),
    ],
    ids=["plain", "colours", "a terminal's title", "bytes", "progress"],
)
def test_the_end_of_the_output(output: bytes, shown: str) -> None:
    """No byte of it drives the terminal."""
    assert _tail(deque([output[:5], output[5:]])) == shown


def test_only_the_last_lines() -> None:
    assert _tail(deque([b"line\n" * 100])).count("line") == 30
