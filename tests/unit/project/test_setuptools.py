"""setup.cfg and setup.py: what is written down, what is computed, and that nothing is run."""

from pathlib import Path

import pytest

from mlbox.errors import ProjectError
from mlbox.project.discover import load_project
from mlbox.project.model import Project

CFG = """\
[metadata]
name = Seg.Net
version = attr: segnet.__version__

[options]
package_dir =
    = src
packages = find:
python_requires = >=3.9
install_requires =
    # the core
    numpy>=1.20
    importlib-metadata; python_version < "3.10"

[options.extras_require]
test = pytest
docs =
    sphinx
    furo

[options.entry_points]
console_scripts =
    seg = segnet.cli:main
seg.readers =
    png = segnet.png:Reader

[flake8]
max-line-length = 100
"""

PY = """\
import os
from setuptools import find_packages, setup

REQUIRES = ["numpy>=1.20", "torch"]
EXTRAS = {"test": ["pytest"], ":python_version < '3.10'": ["backport"], "gpu:sys_platform == 'linux'": ["cupy"]}

setup(
    name="seg" + "net",
    version=open("VERSION").read(),
    packages=find_packages("src"),
    package_dir={"": "src"},
    install_requires=REQUIRES + ["tqdm"],
    extras_require=EXTRAS,
    python_requires=">=3.9",
    entry_points={"console_scripts": ["seg = segnet.cli:main"]},
)
os.mkdir("made-by-setup-py")
"""


def project(root: Path, files: dict[str, str | bytes], **options: list[str]) -> Project:
    """Load a project with these files."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return load_project(root, **options)  # type: ignore[arg-type]


def asks(read: Project) -> list[str]:
    """What it requires."""
    return [one.text for one in read.requirements]


def test_setup_cfg(tmp_path: Path) -> None:
    """Requirements, extras and the distribution with its version from the package."""
    files: dict[str, str | bytes] = {"setup.cfg": CFG, "src/segnet/__init__.py": '__version__ = "1.2"\n'}
    read = project(tmp_path, files, extras=["docs"])

    assert [(one.text, one.origin) for one in read.requirements] == [
        ("numpy>=1.20", "setup.cfg install_requires"),
        ('importlib-metadata; python_version < "3.10"', "setup.cfg install_requires"),
        ("sphinx", "setup.cfg extras_require docs"),
        ("furo", "setup.cfg extras_require docs"),
    ]
    assert (read.name, read.requires_python) == ("seg-net", ">=3.9")
    package = read.package
    assert package is not None
    assert (package.name, package.version, package.source) == ("Seg.Net", "1.2", "src")
    assert package.scripts == {"seg": "segnet.cli:main"}
    assert package.entry_points == {"seg.readers": {"png": "segnet.png:Reader"}}
    assert package.extras == ("docs", "test")


def test_setup_py(tmp_path: Path) -> None:
    """Literals, sums of them, and names that are given one; the file is not run."""
    read = project(tmp_path, {"setup.py": PY}, extras=["gpu"])

    assert asks(read) == [
        "numpy>=1.20",
        "torch",
        "tqdm",
        'backport; python_version < "3.10"',
        'cupy; sys_platform == "linux"',
    ]
    assert read.package is not None
    assert (read.package.name, read.package.version) == ("segnet", "0")
    assert [note for note in read.notes if "version is made by the build" in note]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["setup.py"]


def test_both(tmp_path: Path) -> None:
    """Arguments of setup() come before setup.cfg."""
    read = project(tmp_path, {"setup.cfg": CFG, "setup.py": "import setuptools\nsetuptools.setup(name='other')\n"})
    assert asks(read) == ["numpy>=1.20", 'importlib-metadata; python_version < "3.10"']
    assert read.name == "other"


def test_requirements_from_files(tmp_path: Path) -> None:
    """'file:' is setuptools' own word for it."""
    cfg = "[metadata]\nname = x\nversion = file: VERSION\n[options]\ninstall_requires = file: base.txt\n"
    read = project(tmp_path, {"setup.cfg": cfg, "base.txt": "numpy\n", "VERSION": "3.1\n"})
    assert [(one.text, one.origin) for one in read.requirements] == [("numpy", "base.txt:1")]
    assert read.package is not None
    assert read.package.version == "3.1"


def test_a_setup_cfg_of_tools_is_no_spec(tmp_path: Path) -> None:
    """Most of them only configure linters."""
    read = project(tmp_path, {"setup.cfg": "[flake8]\nmax-line-length = 100\n", "mlbox.toml": ""})
    assert asks(read) == []
    assert read.package is None
    assert {source.path: source.reason for source in read.sources}["setup.cfg"] == "names no requirements"


def test_asked_for_by_a_requirements_file(tmp_path: Path) -> None:
    """'-e .' of a project with setup.py: the distribution, its extras and what it requires."""
    read = project(tmp_path, {"setup.py": PY, "requirements.txt": "-e .[test]\nscipy\n"})
    assert asks(read)[0] == "scipy"
    assert {"torch", "pytest"} <= set(asks(read))
    assert read.package is not None
    with pytest.raises(ProjectError, match="there is no extra 'tset'"):
        project(tmp_path, {"requirements.txt": "-e .[tset]\n"})


COMPUTED = {
    "a file": "install_requires=open('r.txt').read().splitlines()",
    "a function": "install_requires=parse('r.txt')",
    "a comprehension": "install_requires=[x for x in ('a', 'b')]",
    "an f-string": "install_requires=[f'torch=={V}']",
    "a changed name": "install_requires=CHANGED",
    "a name given twice": "install_requires=TWICE",
    "a name in a loop": "install_requires=LOOPED",
    "a bomb of names": "install_requires=N40",
}
PREAMBLE = (
    "from setuptools import setup\nV = '1'\nCHANGED = ['a']\nCHANGED.append('b')\nTWICE = ['a']\nTWICE += ['b']\n"
    "for LOOPED in ():\n    pass\nN0 = ['a']\n" + "".join(f"N{n} = N{n - 1} + N{n - 1}\n" for n in range(1, 45))
)


@pytest.mark.parametrize("argument", COMPUTED.values(), ids=COMPUTED)
def test_computed(tmp_path: Path, argument: str) -> None:
    """Said, not guessed: an error when nothing else names requirements, a note when the project is only installed."""
    setup = f"{PREAMBLE}setup(name='x', {argument})\n"
    with pytest.raises(ProjectError, match="install_requires of setup"):
        project(tmp_path, {"setup.py": setup})
    read = project(tmp_path, {"requirements.txt": "-e .\nnumpy\n"})
    assert asks(read) == ["numpy"]
    assert any("setup.py: install_requires of setup() is computed" in note for note in read.notes)


BAD = {
    "truncated": ("setup.py", "setup(install_requires=['a'", "setup.py: is no Python: line 1"),
    "no Python 3": ("setup.py", "print 'x'\nsetup()", "setup.py: is no Python: line 1"),
    "deep": ("setup.py", "x = " + "(" * 5000, "setup.py: is no Python"),
    "deep sums": ("setup.py", "x = " + "+".join(["1"] * 20_000) + "\nsetup(install_requires=x)", "setup.py"),
    "NUL": ("setup.py", "\0", "setup.py: has NUL bytes"),
    "large": ("setup.py", b"#" * (50 * 2**20), "is larger than 10 MiB"),
    "rather large": ("setup.py", "#" * (2**20 + 1), "is larger than 1024 KiB"),
    "twice": ("setup.py", "setup(name='a')\nsetup(name='b')", "calls setup() more than once"),
    "not UTF-8": ("setup.py", b"x = '\xff'", "is not text in utf-8"),
    "a number": ("setup.py", "setup(install_requires=3)", "setup.py install_requires: is nothing that setuptools"),
    "numbers": ("setup.py", "setup(install_requires=[3])", "must be a list of strings"),
    "extras": ("setup.py", "setup(install_requires=['a'], extras_require=['b'])", "extras_require: is nothing"),
    "an extra": ("setup.py", "setup(extras_require={'b': 3})", "extras_require: must be a dict of lists"),
    "entry points": ("setup.py", "setup(install_requires=['a'], entry_points={'x': 1})", "entry_points: must be"),
    "a path outside": ("setup.py", "setup(install_requires=['x @ file:///etc/x'])", "leaves the project's folder"),
    "a name": ("setup.py", "setup(name='../x', install_requires=['a'])", "'../x' is no valid name"),
    "python": ("setup.py", "setup(python_requires='three', install_requires=['a'])", "setup.py python_requires"),
    "no INI": ("setup.cfg", "install_requires = a", "setup.cfg: is no INI file"),
    "a file outside": ("setup.cfg", "[options]\ninstall_requires = file: ../../x.txt", "setup.cfg [tool]"),
    "a requirement": ("setup.cfg", "[options]\ninstall_requires = a=1", "setup.cfg install_requires: invalid"),
}


@pytest.mark.parametrize(("file", "text", "message"), BAD.values(), ids=BAD)
def test_refused(tmp_path: Path, file: str, text: str | bytes, message: str) -> None:
    """With the place."""
    with pytest.raises(ProjectError) as refused:
        project(tmp_path, {file: text})
    assert message in str(refused.value)
