"""pixi.toml and [tool.pixi]: conda packages, packages of an index, and what belongs to the default environment."""

from pathlib import Path

import pytest

from mlbox.errors import ProjectError
from mlbox.project.discover import load_project
from mlbox.project.model import IndexPin, Project

REALISTIC = """\
[workspace]
name = "seg"
channels = ["conda-forge", {channel = "https://conda.example.org/ours", priority = 1}]
platforms = ["linux-64", "osx-arm64"]

[dependencies]
python = "3.11.*"
numpy = ">=1.26,<2"
pytorch = {version = "2.5.*", build = "cuda*", channel = "conda-forge"}
ffmpeg = "*"

[pypi-dependencies]
timm = "==0.9.2"
accelerate = {version = ">=0.30", extras = ["rich"]}
tool = {git = "https://git.example.org/a/tool", rev = "v1"}
private = {version = "*", index = "https://index.example.org/simple"}
lib = {path = "libs/lib", editable = true}

[target.linux.dependencies]
libgl = "*"

[target.osx-arm64.dependencies]
mps = "*"

[feature.cuda.dependencies]
cuda-version = "12.6"

[feature.test.dependencies]
pytest = "*"

[environments]
default = ["cuda"]
test = ["test"]

[activation]
env = { OMP_NUM_THREADS = "4" }

[pypi-options]
extra-index-urls = ["https://wheels.example.org/simple"]
"""


def project(root: Path, text: str | bytes, file: str = "pixi.toml") -> Project:
    """Load a project with this file."""
    (root / file).write_bytes(text.encode() if isinstance(text, str) else text)
    (root / "libs/lib").mkdir(parents=True, exist_ok=True)
    (root / "libs/lib/setup.py").write_text("setup(name='lib', version='1')")
    return load_project(root)


def test_realistic(tmp_path: Path) -> None:
    """The default environment on Linux, with its features."""
    read = project(tmp_path, REALISTIC)
    conda = read.conda
    assert conda is not None
    assert [(one.text, one.origin) for one in conda.dependencies] == [
        ("python 3.11.*", "pixi.toml [dependencies] python"),
        ("numpy >=1.26,<2", "pixi.toml [dependencies] numpy"),
        ("pytorch[version='2.5.*',build='cuda*',channel='conda-forge']", "pixi.toml [dependencies] pytorch"),
        ("ffmpeg", "pixi.toml [dependencies] ffmpeg"),
        ("cuda-version 12.6", "pixi.toml [feature.cuda.dependencies] cuda-version"),
        ("libgl", "pixi.toml [target.linux.dependencies] libgl"),
    ]
    assert (conda.name, conda.platforms, conda.variables) == (
        "seg",
        ("linux-64", "osx-arm64"),
        {"OMP_NUM_THREADS": "4"},
    )
    assert conda.channels == ("conda-forge", "https://conda.example.org/ours")
    assert {one.text for one in read.requirements} == {
        "./libs/lib",
        "timm==0.9.2",
        "accelerate[rich]>=0.30",
        "tool @ git+https://git.example.org/a/tool@v1",
        "private",
    }
    ours = "https://index.example.org/simple"
    assert read.index.pins == (IndexPin(package="private", index=ours, url=ours),)
    assert read.index.extra_index_urls == ("https://wheels.example.org/simple",)
    assert read.notes == ("pixi.toml [environments]: without a pixi.lock only the default one is read, not test",)


def test_in_pyproject(tmp_path: Path) -> None:
    """Its packages count unless [project] names some."""
    text = (
        "[tool.pixi.workspace]\nchannels = ['c']\n[tool.pixi.dependencies]\nnumpy = '*'\n"
        "[tool.pixi.pypi-dependencies]\ntqdm = '*'\n"
    )
    read = project(tmp_path, text, "pyproject.toml")
    assert read.conda is not None
    assert [one.text for one in read.conda.dependencies] == ["numpy"]
    assert [one.text for one in read.requirements] == ["tqdm"]
    read = project(tmp_path, "[project]\nname = 'x'\nversion = '1'\ndependencies = ['a']\n" + text, "pyproject.toml")
    assert read.conda is None
    assert read.notes == (
        "pyproject.toml [tool.pixi]: numpy of conda count with a pixi.lock only: [project] comes first",
    )


BAD = {
    "truncated": ("[workspace", "pixi.toml: is not TOML"),
    "not UTF-8": (b"\xff", "pixi.toml: is not TOML"),
    "large": (b"#" * (50 * 2**20), "is larger than 10 MiB"),
    "deep": ("a = " + "[" * 5000, "is not TOML"),
    "dependencies": ("dependencies = []", "dependencies must be a table"),
    "a number": ("[dependencies]\na = 1", "pixi.toml [dependencies] a: must be a version or a table"),
    "a path as a name": ("[dependencies]\n'../a' = '*'", "'../a' is no conda package"),
    "a shell word": ("[dependencies]\na = '1; `x`'", "is no conda package"),
    "a field": ("[dependencies]\na = {git = 'https://h/a'}", "'git' is not read"),
    "quotes": ('[dependencies]\na = {build = "x\']y"}', "has quotes or brackets"),
    "a channel": ("[workspace]\nchannels = ['../x']\n[dependencies]\na = '*'", "'../x' is no channel"),
    "a channel's password": (
        "[workspace]\nchannels = ['ftp://me:hunter2@h']\n[dependencies]\na = '*'",
        "'ftp://h' is no channel",
    ),
    "a path outside": ("[pypi-dependencies]\na = {path = '../../a'}", "'../../a' leaves the project's folder"),
    "a package's name": ("[pypi-dependencies]\n'../a' = '*'", "'../a' is no name of a package"),
    "an index": ("[pypi-dependencies]\na = {version = '*', index = 'ftp://h'}", "'ftp://h' is no address"),
    "a feature": ("[dependencies]\na = '*'\n[environments]\ndefault = ['x']", "has no feature 'x'"),
    "a variable": ("[dependencies]\na = '*'\n[activation.env]\n'A=B' = 'x'", "'A=B' is no name"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    """With the place, and no secret."""
    with pytest.raises(ProjectError) as refused:
        project(tmp_path, text)
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)
