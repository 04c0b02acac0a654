"""apt.txt, runtime.txt and the files that name a Python."""

from pathlib import Path

import pytest

from mlbox.errors import ProjectError
from mlbox.project.discover import load_project
from mlbox.project.inputs import inputs_digest
from mlbox.project.model import Project


def project(root: Path, files: dict[str, str | bytes]) -> Project:
    """Load a project with these files."""
    for name, content in {"requirements.txt": "", **files}.items():
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return load_project(root)


def test_apt(tmp_path: Path) -> None:
    """System packages, without versions, which the lock pins; they decide the lock."""
    read = project(tmp_path, {"apt.txt": "# for OpenCV\nlibgl1 ffmpeg\n\ngit=1:2.39  # old\nlibx:amd64\n"})
    assert read.settings.system_packages == ("libgl1", "ffmpeg", "git", "libx")
    assert ("apt.txt", True, "system packages") in {(one.path, one.used, one.reason) for one in read.sources}
    assert inputs_digest(read) != inputs_digest(project(tmp_path, {"apt.txt": "libgl1"}))


def test_apt_and_settings(tmp_path: Path) -> None:
    """What the settings name counts instead; a file that they name counts too."""
    read = project(tmp_path, {"apt.txt": "ffmpeg", "mlbox.toml": 'system-packages = ["git"]'})
    assert read.settings.system_packages == ("git",)
    assert ("apt.txt", "the settings come first") in {(one.path, one.reason) for one in read.sources}
    named = 'requirements = ["requirements.txt", "apt.txt"]\nsystem-packages = ["git"]'
    assert project(tmp_path, {"mlbox.toml": named}).settings.system_packages == ("git", "ffmpeg")


@pytest.mark.parametrize(
    ("files", "python"),
    [
        ({"runtime.txt": "python-3.11.4\n"}, "3.11.4"),
        ({"runtime.txt": "python-3.11"}, "3.11"),
        ({"runtime.txt": "3.11"}, "3.11"),
        ({"runtime.txt": "two words"}, ""),
        ({".tool-versions": "nodejs 20.1.0\npython 3.12.1 system # x\n"}, "3.12.1"),
        ({".tool-versions": "python pypy3.10 3.11.2\n"}, "3.11.2"),
        ({".tool-versions": "pythonx 3.11\n"}, ""),
        ({".python-version": "3.13", ".tool-versions": "python 3.12", "runtime.txt": "python-3.11"}, "3.13"),
        ({".python-version": "system", ".tool-versions": "python 3.12", "runtime.txt": "python-3.11"}, "3.12"),
    ],
)
def test_python(tmp_path: Path, files: dict[str, str | bytes], python: str) -> None:
    """The first file that names one."""
    assert project(tmp_path, files).python_file == python


BAD = {
    "R": ({"runtime.txt": "r-4.1-2021-09-01"}, "runtime.txt: asks for 'r-4.1-2021-09-01'"),
    "Julia": ({"runtime.txt": "julia-1.9"}, "runtime.txt: asks for 'julia-1.9'"),
    "a URL as a package": (
        {"apt.txt": "https://h.example.org/x.deb"},
        "apt.txt:1: 'https://h.example.org/x.deb' is no",
    ),
    "a path as a package": ({"apt.txt": "git\n../x.deb\n"}, "apt.txt:2: '../x.deb' is no Debian package name"),
    "an option": ({"apt.txt": "-o Dir=/"}, "apt.txt:1: '-o' is no Debian package name"),
    "not UTF-8": ({"apt.txt": b"\xff\xfegit"}, "apt.txt: is not text"),
    "large": ({"apt.txt": b"#" * (50 * 2**20)}, "apt.txt: is larger than 10 MiB"),
    "many": ({"apt.txt": "git " * 1001}, "apt.txt: more than 1000 packages"),
    "runtime not UTF-8": ({"runtime.txt": b"\x80"}, "runtime.txt: is not text in utf-8"),
    "contradiction": (
        {"runtime.txt": "python-3.11", "pyproject.toml": '[project]\nname="x"\nrequires-python=">=3.12"'},
        "runtime.txt: Python 3.11 contradicts requires-python '>=3.12' of pyproject.toml",
    ),
}


@pytest.mark.parametrize(("files", "message"), BAD.values(), ids=BAD)
def test_refused(tmp_path: Path, files: dict[str, str | bytes], message: str) -> None:
    """With file and line."""
    with pytest.raises(ProjectError) as refused:
        project(tmp_path, files)
    assert message in str(refused.value)
