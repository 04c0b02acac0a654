"""mlbox login, logout and tags: checked before kept, and a password only where nobody else reads it."""

import io
import json
import sys
from pathlib import Path

import pytest
from fakes.registry import FakeRegistry

from mlbox.cli import main
from mlbox.registry.dockerconfig import logins_of

SECRET = "open-sesame-4711"

pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.fixture
def locked(fake: FakeRegistry) -> FakeRegistry:
    """A registry that knows one user."""
    fake.auth, fake.users = "bearer", {"me": SECRET}
    return fake


def typed(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Make `text` what comes from stdin."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_login_and_logout(
    locked: FakeRegistry,
    own_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    auth: str,
) -> None:
    """There and away again, with what was said."""
    locked.auth = auth
    typed(monkeypatch, SECRET.encode() + b"\r\n")

    assert main.run(["login", locked.host, "-u", "me", "--password-stdin"]) == 0

    config = own_environment / ".docker/config.json"
    assert str(config) in capsys.readouterr().out
    assert list(json.loads(config.read_text())["auths"]) == [locked.host]
    assert logins_of(locked.host)("") is not None
    assert main.run(["logout", locked.host]) == 0
    assert str(config) in capsys.readouterr().out
    assert logins_of(locked.host)("") is None
    assert main.run(["logout", locked.host]) == 0
    assert "not logged in" in capsys.readouterr().err


def test_login_to_a_namespace(locked: FakeRegistry, own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A team's password is not the registry's."""
    typed(monkeypatch, SECRET.encode())
    assert main.run(["login", f"{locked.host}/team", "-u", "me", "--password-stdin"]) == 0
    logins = json.loads((own_environment / ".docker/config.json").read_text())["auths"]
    assert list(logins) == [f"{locked.host}/team"]
    assert logins_of(locked.host)("team/bert") is not None
    assert logins_of(locked.host)("other/bert") is None
    assert main.run(["logout", f"{locked.host}/team"]) == 0
    assert logins_of(locked.host)("team/bert") is None


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_wrong_passwords_are_not_kept(
    locked: FakeRegistry,
    own_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    auth: str,
) -> None:
    """The registry is asked first."""
    locked.auth = auth
    typed(monkeypatch, b"wrong-4711")
    assert main.run(["login", locked.host, "-u", "me", "--password-stdin"]) == 1
    said = capsys.readouterr()
    assert "401" in said.err
    assert "hint: the user or the password (or access token) is wrong" in said.err
    assert "hint: " in said.err
    assert "wrong-4711" not in said.err + said.out
    assert not (own_environment / ".docker").exists()


def test_open_registries_check_nothing(
    fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that is said."""
    typed(monkeypatch, b"anything")
    assert main.run(["login", fake.host, "-u", "me", "--password-stdin"]) == 0
    assert "not checked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "stdin", "words"),
    [
        (["-u", "me", "-p", SECRET], b"", "read by everybody"),
        (["-u", "me", f"--password={SECRET}"], b"", "read by everybody"),
        (["-u", "me"], b"", "no terminal"),
        (["--password-stdin"], b"x", "no terminal"),
        (["-u", "a:b", "--password-stdin"], b"x", "holds no ':'"),
        (["-u", "me", "--password-stdin"], b"\n", "empty"),
        (["-u", "me", "--password-stdin"], b"\xff\xfe", "not UTF-8"),
        (["-u", "me", "--password-stdin"], b"x" * 70_000, "too long"),
    ],
)
def test_refusals(
    locked: FakeRegistry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    stdin: bytes,
    words: str,
) -> None:
    """Before anybody is asked."""
    typed(monkeypatch, stdin)
    assert main.run(["login", locked.host, *argv]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert SECRET not in said.err
    assert locked.requests == []


def test_typed_on_a_terminal(locked: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name and password are asked for, the password without echo."""
    import typer

    typed(monkeypatch, b"")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    asked: list[tuple[str, bool]] = []

    def prompt(what: str, *, hide_input: bool, err: bool) -> str:
        asked.append((what, hide_input))
        return SECRET if hide_input else "me"

    monkeypatch.setattr(typer, "prompt", prompt)
    assert main.run(["login", locked.host]) == 0
    assert asked == [("Username", False), ("Password", True)]


@pytest.mark.parametrize("host", ["https://x.example", "me:open-sesame-4711@x.example", "x.example/UPPER"])
def test_what_is_no_registry(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Is said for what it is."""
    assert main.run(["login", host, "-u", "me", "--password-stdin"]) == 2
    said = capsys.readouterr()
    assert "not a registry" in said.err
    assert SECRET not in said.err


def test_tags(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    """One a line, or JSON."""
    fake.manifests["team/bert"] = {}
    fake.tags["team/bert"] = {"1": "x", "2": "x"}
    assert main.run(["tags", f"{fake.host}/team/bert"]) == 0
    assert capsys.readouterr().out == "1\n2\n"
    assert main.run(["tags", f"{fake.host}/team/bert", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == ["1", "2"]
    assert main.run(["tags", f"{fake.host}/no/such"]) == 1
    assert "404" in capsys.readouterr().err
