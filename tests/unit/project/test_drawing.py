"""`mlbox init`: what a Dockerfile, a cog.yaml and the code suggest, what is left, and what is written."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from mlbox.cli.main import run
from mlbox.errors import ProjectError
from mlbox.project.cog import read_cog
from mlbox.project.discover import load_project
from mlbox.project.dockerfile import read_dockerfile
from mlbox.project.drawing import draw, usable
from mlbox.project.imports import read_imports
from mlbox.project.proposal import Proposal
from mlbox.project.shell import read_commands

DOCKERFILE = """\
# syntax=docker/dockerfile:1
ARG CUDA=12.6.3
FROM node:20 AS web
RUN npm ci
FROM nvidia/cuda:${CUDA}-cudnn-devel-ubuntu22.04 AS base
ENV DEBIAN_FRONTEND=noninteractive PYTHONUNBUFFERED=1 HF_HOME="/models of ours" API_TOKEN=hunter2
RUN apt-get update && apt-get install -y --no-install-recommends \\
    git ffmpeg \\
    # for OpenCV
    libgl1=1.2 && rm -rf /var/lib/apt/lists/*
FROM base
WORKDIR /app
RUN <<EOT
set -e
pip install --no-cache-dir -U pip && python3 -m pip install torch==2.5.1 'numpy<2' \\
    --index-url https://wheels.example.org/whl/cu126
EOT
RUN ["pip", "install", "-r", "requirements.txt"]
RUN make -C ext && curl https://me:hunter2@x.example.org/i.sh | bash
RUN pip install git+https://git.example.org/a/b.git . '.[dev]'
LABEL org.example.team="a b"
USER 1000
COPY --from=web /a /b
EXPOSE 8000/tcp
CMD ["ignored"]
ENTRYPOINT ["uvicorn", "--port", "8000"]
CMD ["app:app"]
HEALTHCHECK CMD curl x
"""


def settings(proposal: Proposal) -> dict[str, object]:
    """Return the suggested values by key."""
    return {key: one.value for key, one in proposal.settings().items()}


def wishes(proposal: Proposal) -> list[str]:
    """Return the packages."""
    return [wish.text for wish in proposal.wishes]


def test_dockerfile() -> None:
    """The last stage and what it stands on; what cannot be taken is told, without its secrets."""
    found = read_dockerfile(DOCKERFILE.encode())

    assert settings(found) == {
        "accelerator": "cu126",
        "env": {"PYTHONUNBUFFERED": "1", "HF_HOME": "/models of ours"},
        "system-packages": ["git", "ffmpeg", "libgl1"],
        "workdir": "/app",
        "requirements": ["requirements.txt"],
        "labels": {"org.example.team": "a b"},
        "user": "1000",
        "entrypoint": ["uvicorn", "--port", "8000"],
        "command": ["app:app"],
        "serve": {"command": ["uvicorn", "--port", "8000", "app:app"], "port": 8000},
    }
    assert wishes(found) == ["torch==2.5.1", "numpy<2"]
    assert found.suggestions[0].origin == "Dockerfile:5"
    assert found.left == (
        "Dockerfile: 1 other stage and what is copied from there",
        "Dockerfile:6: ENV API_TOKEN looks like a secret: pass it with 'mlbox run -e NAME'",
        "Dockerfile:19: make -C ext and 2 more commands are not taken",
        "Dockerfile:20: pip install git+https://git.example.org/a/b.git is not taken",
    )


@pytest.mark.parametrize(
    ("image", "suggested", "packages"),
    [
        ("python:3.11-slim-bookworm", {"python": "3.11"}, []),
        ("docker.io/library/python:3.13", {"python": "3.13"}, []),
        ("python:3.12-slim", {"python": "3.12", "base": "docker.io/library/python:3.12-slim"}, []),
        ("python", {"base": "docker.io/library/python:latest"}, []),
        ("debian:bookworm", {}, []),
        ("scratch", {}, []),
        ("ubuntu:24.04", {"base": "docker.io/library/ubuntu:24.04"}, []),
        ("nvidia/cuda:12.8.1-runtime-ubuntu24.04", {"accelerator": "cu128"}, []),
        ("pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime", {"accelerator": "cu124"}, ["torch==2.5.1"]),
        ("tensorflow/tensorflow:2.15.0-gpu", {}, ["tensorflow==2.15.0"]),
        ("registry.example.org:5000/team/base:1", {"base": "registry.example.org:5000/team/base:1"}, []),
        ("$UNKNOWN", {}, []),
    ],
)
def test_from(image: str, suggested: dict[str, object], packages: list[str]) -> None:
    """A base, a Python, an accelerator or a package, whichever the image stands for."""
    found = read_dockerfile(f"FROM {image}\n".encode())
    assert settings(found) == suggested
    assert wishes(found) == packages
    assert bool(found.left) == (image == "$UNKNOWN")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ('CMD ["python", "a.py"]', ["python", "a.py"]),
        ("CMD python a.py --name 'a b'", ["python", "a.py", "--name", "a b"]),
        ("CMD python a.py && echo $HOME", ["sh", "-c", "python a.py && echo $HOME"]),
        ("CMD it's", ["sh", "-c", "it's"]),
    ],
)
def test_commands(line: str, command: list[str]) -> None:
    """A shell stays where it has something to do."""
    assert settings(read_dockerfile(f"FROM scratch\n{line}\n".encode())) == {"command": command}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pip install a b==1 'c>=2,<3' d[x]~=1.0", ["a", "b==1", "c>=2,<3", "d[x]~=1.0"]),
        ("pip3.11 install --no-cache-dir -c limits.txt a", ["a"]),
        ("/opt/venv/bin/pip install a; pip install b", ["a", "b"]),
        ("python -m pip install a", ["a"]),
        ("uv pip install --system a", ["a"]),
        ("sudo X=1 pip install a", ["a"]),
        ("pip --no-input install a", ["a"]),
        ("pip install --upgrade pip setuptools wheel", []),
        ("pip uninstall a", []),
        ("( pip install a )", ["a"]),
        ("echo pip install a", []),
        ("pip install ../evil /etc/x https://h.example.org/a.whl", []),
    ],
)
def test_pip(text: str, expected: list[str]) -> None:
    """Whoever starts it; only names of packages are taken."""
    assert wishes(read_commands(text, "x:1")) == expected


def test_indexes_of_pip() -> None:
    """Addresses with passwords are not taken, and not shown."""
    found = read_commands("pip install -i https://i.example.org/simple -f https://me:hunter2@h.example.org/x a", "x:1")
    assert settings(found) == {"index-url": "https://i.example.org/simple"}
    assert found.left == ("x:1: -f https://h.example.org/x is not taken",)


BAD = {
    "nothing": (b"", "Dockerfile: has no FROM"),
    "an instruction nobody knows": (b"FROM a\nFOO x", "line 2: unknown instruction"),
    "an open heredoc": (b"FROM a\nRUN <<EOF\nx", "unterminated heredoc"),
    "not UTF-8": (b"FROM \xff", "Dockerfile: 'utf-8'"),
    "large": (b"#" * (2**20 + 1), "is larger than 1024 KiB"),
    "many": (b"FROM a\n" + b"USER x\n" * 2001, "more than 2000 instructions"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_no_dockerfile(data: bytes, message: str) -> None:
    """Refused with the line."""
    with pytest.raises(ProjectError) as refused:
        read_dockerfile(data)
    assert message in str(refused.value)


def test_variables_that_double() -> None:
    """They stop to be expanded before they fill the memory."""
    lines = "".join(f"ENV A{n}=$A{n - 1}$A{n - 1}\n" for n in range(1, 100))
    found = read_dockerfile(f"FROM scratch\nENV A0=xxxxxxxxxx\n{lines}".encode())
    assert all(len(value) < 2**17 for value in found.settings()["env"].value.values())


@pytest.mark.parametrize(
    ("image", "accelerator"),
    [
        ("nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04", "cu126"),
        ("nvidia/cuda:12.2.0-base-ubuntu22.04", "cu121"),
        ("nvidia/cuda:11.4.2-devel-ubuntu20.04", "cu113"),
        ("nvidia/cuda:13.1.0-base-ubuntu24.04", "cu130"),
        ("nvidia/cuda:12.0.1-base-ubuntu22.04", None),
    ],
)
def test_cuda_that_pytorch_is_built_for(image: str, accelerator: str | None) -> None:
    """Wheels bring a CUDA of their own: the newest of the same major that is not newer."""
    assert settings(read_dockerfile(f"FROM {image}\n".encode())).get("accelerator") == accelerator
    cog = f'build: {{gpu: true, cuda: "{image.partition(":")[2][:4]}"}}'
    assert settings(read_cog(cog.encode())).get("accelerator", "default") == (accelerator or "default")


def test_scripts_of_a_shell_are_read_for_what_they_install() -> None:
    """Whatever they depend on; the rest is told in one line."""
    lines = 'RUN if [ "$A" = b ]; then apt-get install -y git; useradd x; else for i in 1 2; do foo $i; done; fi'
    found = read_dockerfile(f"FROM debian\n{lines}\nENV P=$UNKNOWN:/x\n".encode())
    assert settings(found) == {"system-packages": ["git"], "env": {"P": ":/x"}}
    assert found.left == ("Dockerfile:2: useradd x and 1 more command are not taken",)


def test_a_python_that_the_project_does_not_admit(tmp_path: Path) -> None:
    """Is not written into its settings."""
    text = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = ["a"]\n'
    make(tmp_path, {"Dockerfile": "FROM python:3.9\n", "pyproject.toml": text})
    fitting = usable(draw(tmp_path), load_project(tmp_path), frozenset(), tmp_path)
    assert settings(fitting) == {}
    assert fitting.left == ("Dockerfile:1: python = 3.9 is not taken: requires-python is '>=3.10'",)


COG = b"""\
build:
  gpu: true
  cuda: "12.6"
  python_version: 3.11.4
  system_packages: [libsndfile1, ../x.deb]
  python_packages: [torch==2.5.0, einops]
  python_requirements: requirements.txt
  run:
    - make all
    - command: pip install x
  fast: true
predict: predict.py:Predictor
concurrency: {max: 4}
"""


def test_cog() -> None:
    """Pythons, packages and CUDA; commands and the prediction are told."""
    found = read_cog(COG)
    assert settings(found) == {
        "python": "3.11",
        "accelerator": "cu126",
        "system-packages": ["libsndfile1"],
        "requirements": ["requirements.txt"],
    }
    assert wishes(found) == ["torch==2.5.0", "einops"]
    assert [text.partition(": ")[0] for text in found.left] == [f"cog.yaml:{line}" for line in (5, 9, 10, 11, 12, 13)]


def test_cog_without_a_version_of_cuda() -> None:
    """The frameworks say which, as Cog has it; without a GPU there is nothing to say."""
    assert settings(read_cog(b"build: {gpu: true, python_packages: [torch]}")) == {"accelerator": "default"}
    assert settings(read_cog(b"build: {gpu: false}")) == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"build: [", "cog.yaml: is not YAML"),
        (b"build: 1", "cog.yaml: line 1: build must be a map"),
        (b"build: {python_packages: x}", "python_packages must be a list"),
        (b"build: {system_packages: [[x]]}", "must be one word"),
        (b"a: &a [*a]", "anchors and aliases"),
        (b"build: !!python/object:x {}", "the tag"),
    ],
    ids=range(6),
)
def test_bad_cog(data: bytes, message: str) -> None:
    """With the line."""
    with pytest.raises(ProjectError) as refused:
        read_cog(data)
    assert message in str(refused.value)


SCRIPT = """\
import os, sys
import numpy as np, cv2
from PIL import Image
from sklearn.svm import SVC
from . import local
from helpers import x
import package.module
import mystery_module
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import pandas
try:
    import apex
except (ImportError, OSError):
    apex = None
def late():
    with open("x"):
        import yaml
"""


def make(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write `files` below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def test_imports(tmp_path: Path) -> None:
    """Without the standard library, the repository's own modules and what the code can do without."""
    cells = ["%matplotlib inline\n", "!pip install timm==0.9\n", "import matplotlib.pyplot as plt\n"]
    notebook = {"nbformat": 4, "cells": [{"cell_type": "code", "source": cells}]}
    files: dict[str, str | bytes] = {
        "train.py": SCRIPT,
        "helpers.py": "import torch",
        "package/module.py": "import torch",
        "tests/test_x.py": "import hypothesis",
        ".hidden/x.py": "import hidden",
        "venv/pyvenv.cfg": "",
        "venv/lib/x.py": "import inside",
        "node_modules/x.py": "import node",
        "setup.py": "import setuptools",
        "a\nevil==1  #.py": "import evil",
        "b\x1b[2J/x.py": "import evil",
        "nb.ipynb": json.dumps(notebook),
        "block.py": "# /// script\n# dependencies = ['rich>=13']\n# ///\nimport rich, unknown\n",
        "broken.py": "print 'x'",
        "binary.py": b"\xff\xfe",
    }
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    found = read_imports(make(tmp_path, files))

    assert {wish.text: (wish.origin, wish.sure) for wish in found.wishes} == {
        "PyYAML": ("train.py:18", True),
        "matplotlib": ("nb.ipynb:3", True),
        "mystery-module": ("train.py:8", False),
        "numpy": ("train.py:2", True),
        "opencv-python-headless": ("train.py:2", True),
        "pillow": ("train.py:3", True),
        "rich>=13": ("block.py [script]", True),
        "scikit-learn": ("train.py:4", True),
        "timm==0.9": ("nb.ipynb", True),
        "torch": ("helpers.py:1", True),
    }
    assert [text.partition(":")[0] for text in found.left] == ["binary.py", "broken.py"]


def test_a_notebook_of_ipython(tmp_path: Path) -> None:
    """Magics stand in blocks, are assigned, or own their cell; a cell that is no Python leaves the others."""
    cells = [
        "if colab:\n    !pip install einops\n    %cd work\nfiles = !ls\nkernel, = %get x\nimport torch",
        "%%bash\nfor x in *; do echo $x; done",
        "%%time\nimport scipy\nscipy?\n?scipy",
        "print 'old'\nimport pandas",
        "\nimport numpy",
    ]
    notebook = {"nbformat": 4, "cells": [{"cell_type": "code", "source": cell} for cell in cells]}
    found = read_imports(make(tmp_path, {"a.ipynb": json.dumps(notebook)}))
    assert {wish.text: wish.origin for wish in found.wishes} == {
        "einops": "a.ipynb",
        "torch": "a.ipynb:6",
        "scipy": "a.ipynb:12",
        "numpy": "a.ipynb:20",
    }
    assert [text.partition(" is not read")[0] for text in found.left] == ["a.ipynb: cell 4"]


@pytest.mark.parametrize(
    "text",
    ["x = " + "(" * 10_000, "\0", "if 1:\n" * 200, "-" * 50_000 + "1", "import " + ".".join("a" * 5000)],
    ids=range(5),
)
def test_hostile_code(tmp_path: Path, text: str) -> None:
    """Is left, and nothing falls over."""
    read_imports(make(tmp_path, {"a.py": text}))


def test_only_what_fits(tmp_path: Path) -> None:
    """What is declared stays; what the settings would refuse is left with the reason."""
    dockerfile = (
        "FROM python:3.11\nENV A=1\nWORKDIR /usr/src/app\nRUN pip install -r ../up.txt\nRUN pip install a b\nCMD x\n"
    )
    make(tmp_path, {"Dockerfile": dockerfile, "requirements.txt": "A>=1", "app.py": "import numpy"})
    fitting = usable(draw(tmp_path, code=False), load_project(tmp_path), frozenset({"python"}), tmp_path)
    assert settings(fitting) == {"env": {"A": "1"}, "command": ["x"]}
    assert wishes(fitting) == ["b"]
    assert wishes(draw(tmp_path)) == ["a", "b", "numpy"]
    assert fitting.left == (
        "Dockerfile:3: workdir = /usr/src/app is not taken: '/usr/src/app' belongs to the system",
        "Dockerfile:4: requirements = ../up.txt is not taken: '../up.txt' leaves the project's folder",
    )


def test_a_broken_dockerfile_does_no_harm(tmp_path: Path) -> None:
    """It only suggests."""
    make(tmp_path, {"Dockerfile": "FOO", "cog.yaml": "[", "requirements.txt": ""})
    assert [text.partition(":")[0] for text in draw(tmp_path).left] == ["cog.yaml", "Dockerfile"]


Init = Callable[..., str]


@pytest.fixture
def init(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Init:
    """Run `mlbox init` in the folder and return what it says."""

    def run_init(*options: str) -> str:
        try:
            run(["init", "-C", str(tmp_path), *options])
        except SystemExit as end:
            assert not end.code
        return capsys.readouterr().out

    return run_init


def test_init_shows_and_writes_guesses_when_told(tmp_path: Path, init: Init) -> None:
    """Guesses are written with --write only, and what is not sure as a comment."""
    make(tmp_path, {"Dockerfile": "FROM python:3.11\nENV A=1\nCMD python train.py\n", "train.py": SCRIPT, "x.py": ""})

    out = init()
    assert "guess        numpy  (train.py:2)" in out
    assert "mlbox init --write" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dockerfile", "train.py", "x.py"]

    assert "guess        numpy" in init("--dry-run", "--write")
    assert not (tmp_path / "requirements.txt").exists()

    out = init("--write")
    assert "wrote        requirements.txt" in out
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    assert "numpy  # train.py:2" in lines
    assert "# mystery-module  # train.py:8; only a module is called so" in lines
    written = tomllib.loads((tmp_path / "mlbox.toml").read_text())
    assert written == {
        "python": "3.11",
        "env": {"A": "1"},
        "command": "python train.py",
        "train": {"command": "python train.py"},
    }
    assert {one.text for one in load_project(tmp_path).requirements} >= {"numpy", "pillow"}

    before = (tmp_path / "mlbox.toml").read_bytes()
    assert "unchanged    mlbox.toml" in init("--write")
    assert (tmp_path / "mlbox.toml").read_bytes() == before


def test_init_keeps_what_is_declared(tmp_path: Path, init: Init) -> None:
    """Settings that are there stay as they are, with their comments."""
    mine = '# mine\npython = "3.13"  # ours\n\n[train]\ncommand = "x"\n'
    make(tmp_path, {"Dockerfile": "FROM python:3.11\nENV A=1\n", "requirements.txt": "a", "mlbox.toml": mine})
    init()
    text = (tmp_path / "mlbox.toml").read_text()
    assert tomllib.loads(text) == {"python": "3.13", "env": {"A": "1"}, "train": {"command": "x"}}
    assert '# mine\npython = "3.13"  # ours\n' in text
