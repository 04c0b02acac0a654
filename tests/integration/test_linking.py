"""Libraries that wheels need and no metadata names: what a build says is what the loader in the image finds."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.program import Program

pytestmark = pytest.mark.integration

ASK_THE_LOADER = """
import json, os, subprocess
present, asked = set(), set()
for folder, _, names in os.walk("/opt/mlbox/env"):
    for name in names:
        path = os.path.join(folder, name)
        present.add(name)
        with open(path, "rb") as file:
            if os.path.islink(path) or file.read(4) != bytes([127]) + b"ELF":
                continue
        said = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
        asked.update(line.split()[0] for line in said.splitlines() if line.endswith("not found"))
print(json.dumps(sorted(asked - present)))
"""


@pytest.fixture
def mlbox(tmp_path: Path) -> Iterator[Program]:
    """The program, standing in a project that wants OpenCV."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "requirements.txt").write_text("opencv-python==4.11.0.86\n")
    (folder / "mlbox.toml").write_text('python = "3.11"\n')
    program = Program(tmp_path / "home", folder)
    yield program
    program.run("prune", "--built", "-f", code=None)


def missing(mlbox: Program, image: str) -> list[str]:
    """Return the libraries that mlbox says the image lacks."""
    (inspected,) = json.loads(mlbox.out("inspect", image))
    return sorted({one["name"] for one in inspected["libraries"] if one["kind"] == "missing"})


def test_opencv_needs_libraries_of_the_system(mlbox: Program) -> None:
    """The error has the line that mends it; without, the loader misses what mlbox says, no more and no less."""
    refused = mlbox.run("build", "-t", "test/cv", code=1).stderr
    assert "opencv-python 4.11.0.86: its extension module (cv2.cv2) needs libGL.so.1 (package libgl1)" in refused
    assert mlbox.run("build", code=1).stderr.count("libGL.so.1") == 2
    found = re.search(r"system-packages = \[.*?\]", refused)
    accepted = re.search(r"allow-missing = \[.*?\]", refused)
    assert found
    assert accepted

    settings = mlbox.cwd / "mlbox.toml"
    settings.write_text(f'python = "3.11"\n{accepted[0]}\n')
    mlbox.build("-t", "test/without")
    lacking = missing(mlbox, "test/without")
    assert "needs libGL.so.1" in mlbox.run("check", "test/without").stderr
    assert set(tomllib.loads(accepted[0])["allow-missing"]) <= set(lacking)
    assert json.loads(mlbox.out("run", "--rm", "test/without", "python", "-c", ASK_THE_LOADER)) == lacking

    settings.write_text(f'python = "3.11"\n{found[0]}\n')
    mlbox.build("--relock", "-t", "test/with")
    assert mlbox.out("run", "--rm", "test/with", "python", "-c", "import cv2; print(cv2.__version__)") == "4.11.0"
    assert json.loads(mlbox.out("run", "--rm", "test/with", "python", "-c", ASK_THE_LOADER)) == missing(
        mlbox, "test/with"
    )


def test_a_build_adds_what_is_missing(mlbox: Program) -> None:
    """Where the project wants it: to the lock, from which the next build is the same."""
    (mlbox.cwd / "mlbox.toml").write_text('python = "3.11"\nauto-system-packages = true\n')
    digest = mlbox.build("-t", "test/auto")
    lock = tomllib.loads((mlbox.cwd / "mlbox.lock").read_text())
    assert lock["found-packages"] == lock["system-packages"] == ["libgl1", "libglib2.0-0"]
    assert mlbox.out("run", "--rm", "test/auto", "python", "-c", "import cv2; print(cv2.__version__)") == "4.11.0"
    assert mlbox.build("--locked") == digest
    assert mlbox.build("--relock") == digest
