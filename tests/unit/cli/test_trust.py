"""sbom, provenance, key and sign on the command line; passwords come in by three doors and go out by none."""

import io
import json
import sys
from pathlib import Path

import pytest
from fakes.trees import make_image, make_layer

from mlbox.cli import main
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.store import Store

PASSWORD = "hunter2-secret"
SITE = "opt/mlbox/env/lib/python3.11/site-packages"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBOX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MLBOX_KEY_PASSWORD", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> str:
    """An image called team/x:1 with one package."""
    store = Store(Home(tmp_path / "home"))
    metadata = {f"{SITE}/numpy-2.0.dist-info/METADATA": b"Name: numpy\nVersion: 2.0\n"}
    image = make_image(store, make_layer(store, "one", metadata))
    store.images.tag(image.digest, parse_reference("team/x:1"))
    store.close()
    return str(image.digest)


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_a_key_signs_with_a_password_from_stdin_or_the_environment(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that is printed has the password in it."""
    typed(monkeypatch, f"{PASSWORD}\nsecond line\n")
    assert main.run(["key", "generate", "team", "--password-stdin"]) == 0
    assert capsys.readouterr().out == "team.key\nteam.pub\n"
    monkeypatch.setenv("MLBOX_KEY_PASSWORD", PASSWORD)
    assert main.run(["key", "public", "team.key"]) == 0
    assert capsys.readouterr().out == (tmp_path / "team.pub").read_text()
    assert main.run(["sign", "team/x:1", "--key", "team.key"]) == 0
    assert main.run(["sign", "team/x:1", "--key", "team.key"]) == 0
    said = capsys.readouterr()
    assert said.out == f"signed team/x@{image}\nwas signed team/x@{image}\n"
    assert main.run(["sign", "team/x:1", "--key", "team.key", "--format", "json"]) == 0
    assert [one["digest"] for one in json.loads(capsys.readouterr().out)["signed"]] == [image]
    monkeypatch.setenv("MLBOX_KEY_PASSWORD", f"{PASSWORD}-wrong")
    assert main.run(["sign", "team/x:1", "--key", "team.key"]) == 1
    said = capsys.readouterr()
    assert "wrong password" in said.err
    assert PASSWORD not in said.out + said.err


def test_signatures_are_shown_and_required(
    image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a key a list; with keys an error unless one of their owners signed."""
    monkeypatch.setenv("MLBOX_KEY_PASSWORD", PASSWORD)
    for name in ("team", "stranger"):
        assert main.run(["key", "generate", name]) == 0
    assert main.run(["signatures", "team/x:1", "--key", "team.pub"]) == 1
    assert "it has no signature" in capsys.readouterr().err
    assert main.run(["sign", "team/x:1", "--key", "team.key"]) == 0
    assert main.run(["signatures", "team/x:1", "--key", "stranger.pub"]) == 1
    said = capsys.readouterr()
    assert "none of its 2 signatures" in said.err
    assert image in said.out
    assert main.run(["signatures", "team/x:1", "--key", "stranger.pub", "--key", "team.pub"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["team/x", image, "2", "team.pub"]
    assert main.run(["signatures", "team/x:1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifests"][0]["signatures"] == 2


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["key", "generate"], 2, "MLBOX_KEY_PASSWORD"),
        (["sign", "team/x:1"], 2, "--key"),
        (["sign", "team/x:1", "--key", "none.key"], 1, "key generate"),
        (["sbom", "nowhere"], 1, "no image nowhere"),
        (["provenance", "team/x:1"], 1, "without a lock"),
        (["sbom", "team/x:1", "--format", "csv"], 2, "csv"),
    ],
)
def test_mistakes(
    image: str,
    argv: list[str],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each has its exit code and says what to do."""
    typed(monkeypatch, "")
    assert main.run(argv) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""


@pytest.mark.parametrize("form", ["cyclonedx", "spdx"])
def test_a_bill_goes_to_stdout_or_to_a_file(
    image: str, form: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The same bytes."""
    assert main.run(["sbom", "team/x:1", "--format", form]) == 0
    printed = capsysbinary.readouterr().out
    assert main.run(["sbom", "team/x:1", "--format", form, "-o", "bill.json"]) == 0
    assert capsysbinary.readouterr().out == b""
    assert (tmp_path / "bill.json").read_bytes() == printed
    assert b"pkg:pypi/numpy@2.0" in printed


def test_a_policy_stops_a_run_before_anything_is_made(
    image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With Docker's exit code for what could not be started."""
    (tmp_path / "config/mlbox").mkdir(parents=True)
    (tmp_path / "config/mlbox/policy.toml").write_text('local = "deny"\n')
    assert main.run(["run", "--rm", "team/x:1", "true"]) == 125
    assert str(tmp_path / "config/mlbox/policy.toml") in capsys.readouterr().err
    assert not list((tmp_path / "home").glob("containers/*"))
