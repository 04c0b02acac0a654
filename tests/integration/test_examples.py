"""The examples, used as their READMEs say: trained, served, and asked for predictions."""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import missing
from fakes.program import ROOT, Program

pytestmark = pytest.mark.integration

OWNER = 4321
"""A user who is not root and owns the project; nobody needs to know the number."""

STROKE = [0, 0, 0, 16, 16, 0, 0, 0] * 8
"""An upright stroke, 8 x 8 pixels: a one."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store that the examples share; what still runs at the end is removed."""
    folder = tmp_path_factory.mktemp("home")
    yield folder
    program = Program(folder, folder)
    for container in program.out("ps", "-a", "-q").split():
        program.run("rm", "-f", container)


def example(name: str, home: Path, folder: Path) -> Program:
    """Return the program in a copy of the example, made as a clone has it and owned by a user."""
    target = folder / name
    shutil.copytree(
        ROOT / "examples" / name, target, ignore=shutil.ignore_patterns("outputs", "mlbox.lock", "*.joblib")
    )
    for path in (target, *target.rglob("*")):
        os.chown(path, OWNER, OWNER)
    return Program(home, target)


@pytest.fixture(scope="module")
def trained(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of sklearn-train."""
    mlbox = example("sklearn-train", home, tmp_path_factory.mktemp("trained"))
    mlbox.run("train")
    return mlbox.cwd / "outputs"


@pytest.fixture
def service(home: Path, tmp_path: Path) -> tuple[Program, str]:
    """serve-fastapi without a model, on a free port, and the address it will have."""
    mlbox = example("serve-fastapi", home, tmp_path)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    settings = mlbox.cwd / "mlbox.toml"
    text = settings.read_text()
    assert "port = 8000" in text
    settings.write_text(text.replace("port = 8000", f"port = {port}"))
    return mlbox, f"http://127.0.0.1:{port}"


def post(url: str, body: object) -> Any:
    """Send JSON and return the JSON of the answer."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def wheels() -> list[str]:
    """Return the --find-links that this machine's pip is configured with."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = dict(line.split("=", 1) for line in listed.stdout.splitlines() if "=" in line)
    found = " ".join(value.strip("'\"") for key, value in settings.items() if key.endswith(".find-links"))
    return [word for place in dict.fromkeys(found.split()) for word in ("--find-links", place)]


def test_sklearn_train(trained: Path) -> None:
    """Metrics and a model are in the project's folder and belong to whom the project belongs."""
    metrics = json.loads((trained / "metrics.json").read_text())

    assert metrics["accuracy"] > 0.9
    assert metrics["tested_on"] == 450
    assert {path.name for path in trained.iterdir()} == {"metrics.json", "model.joblib"}
    assert {path.stat().st_uid for path in (trained, *trained.iterdir())} == {OWNER}


def test_sklearn_train_again(home: Path, trained: Path, tmp_path: Path) -> None:
    """Trained elsewhere from its own lock: the same metrics to the byte; with an argument: others."""
    mlbox = example("sklearn-train", home, tmp_path)
    mlbox.run("train")
    metrics = mlbox.cwd / "outputs" / "metrics.json"

    assert metrics.read_bytes() == (trained / "metrics.json").read_bytes()
    mlbox.run("train", "--", "--regularization", "0.0001")
    assert metrics.read_bytes() != (trained / "metrics.json").read_bytes()


def test_serve_fastapi(service: tuple[Program, str], trained: Path) -> None:
    """The service is ready when `serve -d` returns, predicts, refuses nonsense, and stops when asked."""
    mlbox, url = service
    shutil.copy(trained / "model.joblib", mlbox.cwd / "models")
    try:
        assert url in mlbox.out("serve", "-d", "--name", "digits")
        (prediction,) = post(f"{url}/predict", {"images": [STROKE]})["predictions"]
        assert prediction["digit"] == 1
        assert 0.5 < prediction["probability"] <= 1
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(f"{url}/predict", {"images": [STROKE[1:]]})
        assert refused.value.code == 422
        refused.value.close()
        mlbox.run("stop", "digits")
        with pytest.raises(urllib.error.URLError):
            post(f"{url}/predict", {"images": [STROKE]})
    finally:
        mlbox.run("rm", "-f", "digits", code=None)
    assert mlbox.out("ps", "-a", "-q") == ""


def test_serve_fastapi_without_a_model(service: tuple[Program, str]) -> None:
    """It ends at once and says which file is missing and how to get it."""
    mlbox, _ = service
    ended = mlbox.run("serve", code=1)

    assert "no model at models/model.joblib" in ended.stderr
    assert "cp ../sklearn-train/outputs/model.joblib models/" in ended.stderr


def test_torch_train(home: Path, tmp_path: Path) -> None:
    """The package's console script trains with the locked PyTorch and worker processes."""
    mlbox = example("torch-train", home, tmp_path)
    links = wheels()
    locked = mlbox.run("lock", *links, code=None)
    if locked.returncode:
        missing(f"no PyTorch for the CPU can be had: {locked.stderr[-300:]}")
    mlbox.run("train", *links)
    outputs = mlbox.cwd / "outputs"
    metrics = json.loads((outputs / "metrics.json").read_text())

    assert metrics["accuracy"] > 0.9
    assert metrics["device"] == "cpu"
    assert f'version = "{metrics["torch"]}"' in (mlbox.cwd / "mlbox.lock").read_text()
    assert {path.stat().st_uid for path in outputs.iterdir()} == {OWNER}
