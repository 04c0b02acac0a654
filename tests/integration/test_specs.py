"""Repositories of every kind, as people have them: what `mlbox init` says of them, and what is locked."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import missing

from mlbox.errors import FetchError
from mlbox.http import Http
from mlbox.lock.model import Target
from mlbox.lock.python.config import indexes_for
from mlbox.lock.python.resolve import lock_python
from mlbox.project.discover import load_project
from mlbox.project.model import Project, Settings

pytestmark = pytest.mark.integration

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36", accelerator="default")
BUILD = '[build-system]\nrequires = ["x"]\nbuild-backend = "x"\n'
REPOSITORIES = {
    "requirements": {"requirements.txt": "idna>=3,<4\n"},
    "pyproject": {"pyproject.toml": '[project]\nname = "x"\nversion = "1"\ndependencies = ["idna>=3,<4"]\n'},
    "poetry": {
        "pyproject.toml": '[tool.poetry]\nname = "x"\nversion = "1"\n[tool.poetry.dependencies]\nidna = "^3"\n' + BUILD
    },
    "flit": {"pyproject.toml": '[tool.flit.metadata]\nmodule = "x"\nrequires = ["idna>=3,<4"]\n'},
    "uv": {
        "pyproject.toml": '[project]\nname = "x"\nversion = "1"\ndependencies = ["idna"]\n[tool.uv]\n'
        'constraint-dependencies = ["idna<4"]\noverride-dependencies = ["idna>=3"]\n'
    },
    "pdm": {
        "pyproject.toml": '[project]\nname = "x"\nversion = "1"\ndependencies = ["idna"]\n'
        '[tool.pdm.resolution.overrides]\nidna = ">=3,<4"\n'
    },
    "pipenv": {"Pipfile": '[packages]\nidna = ">=3,<4"\n[dev-packages]\nbroken = "==0"\n'},
    "setup.cfg": {"setup.cfg": "[metadata]\nname = x\nversion = 1\n[options]\ninstall_requires =\n    idna>=3,<4\n"},
    "setup.py": {"setup.py": "from setuptools import setup\nR = ['idna>=3,<4']\nsetup(name='x', install_requires=R)\n"},
    "editable": {
        "requirements.txt": "-e .\n",
        "setup.py": "from setuptools import *\nsetup(install_requires=['idna<4'])\n",
    },
    "script": {
        "mlbox.toml": 'requirements = ["run.py"]\n',
        "run.py": "# /// script\n# dependencies = ['idna<4']\n# ///\nimport idna\n",
    },
}


@pytest.fixture(autouse=True)
def index(tmp_path: Path) -> None:
    """The configured index can be read."""
    found = indexes_for(Project(root=tmp_path, name="x", settings=Settings(), sources=())).default
    assert found is not None
    try:
        Http().get(f"{found.url}/idna/", limit=64 << 20)
    except FetchError as problem:
        missing(f"the index cannot be read: {problem.message}")


def init(root: Path, *options: str) -> str:
    """Run `mlbox init` as people do."""
    command = [sys.executable, "-m", "mlbox", "init", "-C", str(root), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("files", REPOSITORIES.values(), ids=REPOSITORIES)
def test_init_and_lock(tmp_path: Path, files: dict[str, str]) -> None:
    """The same package is locked, whatever words it is asked for in; what init wrote changes nothing."""
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    said = init(tmp_path)
    assert "requirements 1" in said
    locked = lock_python(load_project(tmp_path), TARGET)
    assert {package.name for package in locked.packages} == {"idna", "pip"}
    [idna] = [package for package in locked.packages if package.name == "idna"]
    assert idna.version.startswith("3.")
    assert idna.wanted_by[0].partition(":")[0].partition(" ")[0] in files
    assert "unchanged" in init(tmp_path)


def test_a_repository_without_a_spec(tmp_path: Path) -> None:
    """A Dockerfile and a script become settings and requirements, and those a lock."""
    (tmp_path / "Dockerfile").write_text("FROM python:3.11\nRUN pip install 'idna<4'\nCMD python train.py\n")
    (tmp_path / "train.py").write_text("import yaml\n")
    assert "not written" in init(tmp_path)
    assert "wrote        requirements.txt" in init(tmp_path, "--write")
    project = load_project(tmp_path)
    assert (project.settings.python, project.settings.command) == ("3.11", ("python", "train.py"))
    locked = lock_python(project, TARGET)
    assert {package.name for package in locked.packages} == {"idna", "pip", "pyyaml"}
