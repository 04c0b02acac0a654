"""A container's output on disk."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbox.runtime.log import LogWriter, follow_log, read_log
from mlbox.runtime.record import timestamp


def texts(path: Path, **options: int) -> list[str]:
    """Return the lines' texts."""
    return [line.log for line in read_log(path, **options)]


def test_lines_of_both_streams(tmp_path: Path) -> None:
    """A line is written when it is whole, a carriage return ends one, the rest at the end; all of it is JSON."""
    path = tmp_path / "log.json"
    writer = LogWriter(path, 1 << 20)
    writer.write("stdout", b"one\ntw")
    writer.write("stderr", b"err\r\n 50%\r")
    assert texts(path) == ["one\n", "err\r\n", " 50%\r"]
    writer.write("stdout", b"o\n\xff\xc3")
    writer.close()
    assert texts(path) == ["one\n", "err\r\n", " 50%\r", "two\n", "��"]
    first = json.loads(path.read_text().splitlines()[0])
    assert first["stream"] == "stdout"
    assert first["time"].endswith("Z")


def test_long_lines_are_cut_between_characters(tmp_path: Path) -> None:
    """Megabytes without a newline are pieces of 16 KiB; no character is lost in a cut."""
    path = tmp_path / "log.json"
    writer = LogWriter(path, 1 << 24)
    text = "aé€😀" * 20_000
    data = text.encode()
    for start in range(0, len(data), 50_001):
        writer.write("stdout", data[start : start + 50_001])
    writer.close()
    assert "".join(texts(path)) == text
    assert max(len(piece.encode()) for piece in texts(path)) <= 16 << 10


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=60), max_size=20))
def test_any_output_is_kept(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    """Joined, the log is the output, with what is no UTF-8 replaced."""
    path = tmp_path_factory.mktemp("log") / "log.json"
    writer = LogWriter(path, 1 << 20)
    for chunk in chunks:
        writer.write("stdout", chunk)
    writer.close()
    lines = b"".join(chunks).splitlines(keepends=True)
    assert "".join(texts(path)) == "".join(line.decode("utf-8", "replace") for line in lines)


def test_size_is_bounded_and_the_newest_is_kept(tmp_path: Path) -> None:
    """Two files, together no more than the limit and a line."""
    path = tmp_path / "log.json"
    writer = LogWriter(path, 64 << 10)
    for number in range(3000):
        writer.write("stdout", f"line {number}\n".encode())
    writer.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 64 << 10
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.json", "log.json.1"]
    kept = texts(path)
    assert kept[-1] == "line 2999\n"
    assert kept == [f"line {number}\n" for number in range(3000 - len(kept), 3000)]


def test_tail_and_since(tmp_path: Path) -> None:
    """The last lines, across both files; and none from before a moment."""
    path = tmp_path / "log.json"
    writer = LogWriter(path, 1 << 20)
    writer.write("stdout", b"old\n")
    path.rename(tmp_path / "log.json.1")
    moment = timestamp()
    again = LogWriter(path, 1 << 20)
    again.write("stdout", b"new\nnewer\n")
    assert texts(path, tail=2) == ["new\n", "newer\n"]
    assert texts(path, tail=0) == []
    assert len(texts(path, tail=9)) == 3
    assert [line.log for line in read_log(path, since=moment)] == ["new\n", "newer\n"]
    writer.close()
    again.close()


def test_following_through_a_rotation_and_a_damaged_line(tmp_path: Path) -> None:
    """Nothing is lost when the file is put aside between two looks, nothing stops at half a line."""
    path = tmp_path / "log.json"
    writer = LogWriter(path, 32 << 10)
    writer.write("stdout", b"first\n")
    rounds = iter(range(4))
    over = False

    def done() -> bool:
        nonlocal over
        number = next(rounds, None)
        over = number is None
        if number is not None:
            for count in range(60):
                writer.write("stdout", f"{number} {count} {'x' * 100}\n".encode())
        return over

    with path.open("ab") as file:
        file.write(b'{"log": "cut\n')
    found = [line.log for line in follow_log(path, done)]
    writer.close()
    assert found[0] == "first\n"
    assert [line.split()[:2] for line in found[1:]] == [[str(n), str(c)] for n in range(4) for c in range(60)]
    assert (tmp_path / "log.json.1").exists()
    assert over


def test_a_full_disk_is_noted(tmp_path: Path) -> None:
    """The writer says so and goes on."""
    path = tmp_path / "log.json"
    path.symlink_to("/dev/full")
    writer = LogWriter(path, 1 << 20)
    writer.write("stdout", b"x\n")
    writer.close()
    assert "No space left" in writer.failed
