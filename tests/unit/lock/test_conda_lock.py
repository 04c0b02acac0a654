"""What conda-lock is asked, and how its failures are told; the integration tests run it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlbox.errors import LockError, ProcessError, ResolveError
from mlbox.lock.conda import conda_lock as module
from mlbox.lock.conda import stand_in
from mlbox.lock.conda.channels import Channels
from mlbox.lock.conda.conda_lock import CondaQuestion, lock_with_conda_lock
from mlbox.lock.model import CondaPackage, Package, Target
from mlbox.lock.python.model import Index, Indexes
from mlbox.project.model import CondaDependency, CondaSpec

SHA = "a" * 64
KEPT = CondaPackage(
    name="zlib",
    version="1.3",
    build="h1",
    subdir="linux-64",
    filename="zlib-1.3-h1.conda",
    sha256=SHA,
    channel="conda-forge",
)
SIX = Package(name="six", version="1.0", filename="six-1.0-py3-none-any.whl", sha256="b" * 64)
ANSWER = {
    "version": 1,
    "metadata": {"platforms": ["linux-64"]},
    "package": [
        {
            "name": "zlib",
            "version": "1.3",
            "manager": "conda",
            "platform": "linux-64",
            "url": "https://c.example.org/conda-forge/linux-64/zlib-1.3-h1.conda",
            "hash": {"sha256": SHA},
        }
    ],
}


def question(accelerator: str = "cpu", *also: CondaDependency, **more: Any) -> CondaQuestion:
    """Return a question about zlib, and about `also`."""
    spec = CondaSpec(
        path="environment.yml",
        channels=("conda-forge", "nodefaults"),
        dependencies=(CondaDependency(text="ours::zlib >=1", origin="environment.yml:3"), *also),
    )
    target = Target(arch="amd64", python="", python_full="", glibc="2.41", accelerator=accelerator)
    index = Index(name="default", url="https://me:secret@i.example.org/simple")
    return CondaQuestion(spec=spec, target=target, indexes=Indexes(default=index), **more)


class Ran:
    """Stands where conda-lock is started, and keeps what it would have read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, said: str = "", error: str = "") -> None:
        self.files: dict[str, Any] = {}
        self.argv: list[str] = []
        self._said, self._error = said, error
        monkeypatch.setattr(module.process, "run", self)
        monkeypatch.setattr(module, "is_offline", lambda: False)

    def __call__(self, argv: list[str], *, env: dict[str, str], cwd: Path, timeout: float) -> None:
        self.argv = argv
        for path in cwd.iterdir():
            if path.suffix in (".yml", ".json"):
                self.files[path.name] = json.loads(path.read_text())
        assert "secret" not in " ".join([*argv, *env.values()])
        if self._said or self._error:
            if self._error:
                Path(env["MLBOX_CONDA_ANSWER"]).write_text(json.dumps({"error": self._error.format(folder=cwd)}))
            raise ProcessError("failed", returncode=1, stderr=self._said.format(folder=cwd))
        Path(env["MLBOX_CONDA_ANSWER"]).write_text(json.dumps({"sizes": {SHA: 7}}))
        (cwd / "conda-lock.yml").write_text(json.dumps(ANSWER))


def ask(tmp_path: Path, asked: CondaQuestion) -> Any:
    """Ask with channels at known places."""
    places = Channels(environ={"HOME": str(tmp_path), "MLBOX_CONDA_CHANNEL_ALIAS": "https://c.example.org"})
    return lock_with_conda_lock(asked, places, tmp_path / "cache")


def test_what_conda_lock_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses for names, the target's system in place of this one's, the user's index and no other."""
    ran = Ran(monkeypatch)
    found = ask(tmp_path, question("cu126", requirements=("six",)))
    assert [(one.package.name, one.package.size) for one in found.conda] == [("zlib", 7)]
    assert ran.files["environment.yml"] == {
        "channels": ["https://c.example.org/conda-forge", "https://c.example.org/ours"],
        "dependencies": ["ours::zlib >=1", {"pip": ["six"]}],
        "platforms": ["linux-64"],
        "pip-repositories": ["https://me:secret@i.example.org/simple"],
        "allow-pypi-requests": False,
    }
    assert ran.files["virtual.yml"]["subdirs"]["linux-64"]["packages"] == {
        "__unix": "0",
        "__linux": "5.10",
        "__glibc": "2.41",
        "__archspec": "1 x86_64",
        "__cuda": "12.6",
    }
    assert ran.files["question.json"]["channels"]["ours"] == "https://c.example.org/ours"
    assert "conda-lock.yml" not in ran.files
    assert list(tmp_path.glob("mlbox-conda-*")) == []
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700  # rattler writes addresses with their passwords there


@pytest.mark.parametrize("accelerator", ["cpu", "default", "rocm7.1"])
def test_cuda_is_there_where_the_accelerator_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerator: str
) -> None:
    """And nowhere else, whatever this machine has."""
    ran = Ran(monkeypatch)
    ask(tmp_path, question(accelerator))
    assert "__cuda" not in ran.files["virtual.yml"]["subdirs"]["linux-64"]["packages"]


@pytest.mark.parametrize("text", ["pip", "pip=25.0", "conda-forge::pip >=24"])
def test_what_is_asked_of_pip_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """conda-lock asks for any pip beside a pip section; the stand-in is told what the file says."""
    ran = Ran(monkeypatch)
    lines = (CondaDependency(text=one, origin="environment.yml:4") for one in ("ours::pip-tools", text))
    ask(tmp_path, question("cpu", *lines))
    assert ran.files["question.json"]["pip"] == text


def test_what_is_kept_and_what_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conda packages are kept by the stand-in, wheels by conda-lock; a name to upgrade goes to both."""
    ran = Ran(monkeypatch)
    ask(tmp_path, question(keep=(KEPT,), keep_wheels=(SIX,)))
    assert ran.files["question.json"]["locked"] == {SHA: "zlib"}
    assert [(one["name"], one["version"]) for one in ran.files["conda-lock.yml"]["package"]] == [("six", "1.0")]
    assert "--update" not in ran.argv
    ask(tmp_path, question(keep=(KEPT,), keep_wheels=(SIX,), upgrade=("zlib",)))
    assert ran.files["question.json"]["locked"] == {}
    assert ran.argv[-2:] == ["--update", "zlib"]


def test_the_solver_explains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own words, without passwords, tokens and temporary paths; with what mends it where that is known."""
    Ran(monkeypatch, error="nothing provides __cuda >=12 of https://me:secret@h.example.org/t/tk-secret/x {folder}/y")
    with pytest.raises(ResolveError) as caught:
        ask(tmp_path, question())
    assert "nothing provides __cuda >=12" in caught.value.message
    assert "secret" not in caught.value.message
    assert "mlbox-conda-" not in caught.value.message
    assert "accelerator" in str(caught.value.hint)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_channel_that_wants_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    """Is not one that is not there."""
    Ran(monkeypatch, error=f"HTTP status client error ({status}) for url (https://h.example.org/x/repodata.json)")
    with pytest.raises(ResolveError) as caught:
        ask(tmp_path, question())
    assert "password or token" in str(caught.value.hint)


@pytest.mark.parametrize(("said", "times"), [("command died with <Signals.SIGSEGV: 11>.", 2), ("ValueError: no", 1)])
def test_a_solver_that_crashed_is_asked_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, times: int
) -> None:
    ran, runs = Ran(monkeypatch, said=said), []

    def run(argv: list[str], **more: Any) -> None:
        runs.append(argv)
        ran(argv, **more)

    monkeypatch.setattr(module.process, "run", run)
    with pytest.raises(ResolveError):
        ask(tmp_path, question())
    assert len(runs) == times


def test_conda_lock_itself_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of what it said is told."""
    Ran(monkeypatch, said="Traceback\n  x\nValueError: no python in {folder}/environment.yml")
    with pytest.raises(ResolveError, match=r"ValueError: no python in environment\.yml"):
        ask(tmp_path, question())


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named; locks of conda's tools are read all the same."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(LockError, match="needs conda-lock and py-rattler") as caught:
        ask(tmp_path, question())
    assert "mlbox[conda]" in str(caught.value.hint)


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked."""
    Ran(monkeypatch)
    monkeypatch.setattr(module, "is_offline", lambda: True)
    with pytest.raises(ResolveError, match="offline"):
        ask(tmp_path, question())


def test_the_stand_in_says_what_it_is_taken_for(capsys: pytest.CaptureFixture[str]) -> None:
    """A version of conda, folders of packages; a command that it does not know fails."""
    assert stand_in.main(["--version"]) == 0
    assert capsys.readouterr().out == "conda 24.11.0\n"
    assert stand_in.main(["info", "--json"]) == 0
    assert "pkgs_dirs" in json.loads(capsys.readouterr().out)
    assert stand_in.main(["remove", "x"]) == 1
    assert json.loads(capsys.readouterr().out)["success"] is False
