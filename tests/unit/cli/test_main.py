"""Errors, exit codes and refusals of the command line."""

import signal
import sys
from pathlib import Path

import pytest

from mlbox import process
from mlbox.cli import main


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBOX_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["nonsense"], 2, "no command 'nonsense'\nhint: 'mlbox -h' lists all"),
        (["bulid", "-t", "x"], 2, "did you mean 'mlbox build'?"),
        (["image", "ls"], 2, "'mlbox images'"),
        (["volume", "create", "x"], 2, "'volume' is not in this version of mlbox\nhint: -v "),
        (["run"], 2, "IMAGE"),
        (["run", "--no-such", "x"], 2, "--no-such"),
        (["run", "-p", "80:80", "x"], 2, "bridge"),
        (["run", "--gpus", "some", "x"], 2, "--gpus 'some': not understood"),
        (["run", "--network", "bridge", "x"], 2, "bridge"),
        (["run", "-it", "x"], 2, "terminal"),
        (["exec", "-it", "x", "sh"], 2, "terminal"),
        (["run", "--pull", "never", "--cidfile", "/no/such/folder/id", "x"], 125, "--cidfile"),
        (["run", "--pull", "never", "--rm", "x"], 125, "no image x"),
        (["run", "UPPER"], 2, "UPPER"),
        (["rmi", "x"], 1, "no image x"),
        (["logs", "x"], 1, "no such container"),
        (["kill", "-s", "NOPE", "x"], 2, "NOPE"),
        (["build"], 1, "hint:"),
        (["build", "-t", "a@sha256:" + "0" * 64], 1, "hint:"),
        (["prune", "--built", "--artifacts"], 2, "two different"),
        (["lock", "numpy"], 2, "--upgrade"),
    ],
)
def test_mistakes_are_said_clearly(argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 for a wrong command line, 125 for a container that cannot be, 1 for the rest; never a traceback."""
    assert main.run(argv) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_bug_is_reported_as_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An unexpected exception names its place and asks for a report."""

    def broken() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(main, "_run", lambda argv: broken())

    assert main.run(["images"]) == 1
    assert "a bug in mlbox: ZeroDivisionError: by zero (test_main.py:" in capsys.readouterr().err


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell counts it."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_run", lambda argv: interrupted())

    assert main.run(["images"]) == 130


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command of the table exists and explains itself."""
    assert main.run([name, "--help"]) == 0
    assert "Usage: mlbox " + name in capsys.readouterr().out


def test_empty_store(capsys: pytest.CaptureFixture[str]) -> None:
    """Listing commands work where nothing is, and make nothing."""
    for argv in (["images"], ["ps", "-a"], ["df"]):
        assert main.run(argv) == 0
    assert capsys.readouterr().out.startswith("IMAGE")


def test_file_names_are_utf8_in_every_locale() -> None:
    """In a locale with another encoding mlbox starts again in UTF-8."""
    program = (
        "import sys; from mlbox.__main__ import main; print(sys.getfilesystemencoding()); "
        "sys.argv = ['mlbox', 'version']; main()"
    )
    other = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": ":".join(sys.path)}
    assert process.run([sys.executable, "-c", program], env=other).stdout.startswith(b"utf-8\nmlbox ")


def test_what_the_system_refuses_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that cannot be there is said with its path."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLBOX_HOME", str(tmp_path / "file"))
    assert main.run(["images"]) == 1
    words = capsys.readouterr().err
    assert str(tmp_path / "file") in words
    assert "bug" not in words


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    """Nothing that mlbox opens takes the place of a stream that the caller closed."""
    ends = process.run(["sh", "-c", f'"$0" -m mlbox images {closed}', sys.executable], env=_ours(), ok=(0,))
    assert b"bug" not in ends.stdout + ends.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_ended_cleans_up(number: signal.Signals) -> None:
    """A signal ends mlbox with the exit code of the shell, after everything was put away."""
    program = (
        "import os, signal, mlbox.__main__ as m\n"
        f"signal.signal({int(number)}, signal.SIG_DFL); m._prepare()\n"  # a parent may ignore it, as nohup does
        f"try: os.kill(os.getpid(), {int(number)})\nfinally: print('put away')"
    )
    ended = process.run([sys.executable, "-c", program], env=_ours(), ok=(128 + number,))
    assert ended.stdout == b"put away\n"


def _ours() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path), "MLBOX_HOME": str(Path.cwd() / "home")}
