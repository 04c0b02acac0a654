"""Poetry's tables: dependencies in all their forms, groups, extras, sources; alone and beside [project]."""

from pathlib import Path

import pytest

from mlbox.errors import ProjectError
from mlbox.project.discover import load_project
from mlbox.project.model import IndexPin, Project

REALISTIC = """\
[tool.poetry]
name = "Seg-Net"
version = "0.3.1"
packages = [{include = "segnet", from = "src"}]

[tool.poetry.dependencies]
python = ">=3.9,<3.13"
numpy = "^1.24"
pandas = "~2.1"
scipy = "1.11.*"
tqdm = "*"
requests = {version = "^2.31", extras = ["socks"]}
torch = {version = "2.5.1", source = "pytorch"}
tensorflow = [
    {version = "<2.11", python = "<3.10"},
    {version = "^2.15", python = "^3.10", platform = "linux"},
]
wandb = {version = "^0.16", optional = true}
uvicorn = {version = "^0.30", markers = "sys_platform != 'win32'"}
tool = {git = "https://git.example.org/a/tool.git", branch = "main", subdirectory = "py"}
exact = {git = "ssh://git@git.example.org/a/exact.git", rev = "0123abc"}
lib = {path = "libs/lib", develop = true}
wheel = {url = "https://files.example.org/wheel-1.0-py3-none-any.whl"}

[tool.poetry.extras]
track = ["wandb"]

[tool.poetry.group.dev.dependencies]
pytest = "^8.0"

[tool.poetry.group.docs]
optional = true
include-groups = ["dev"]

[tool.poetry.group.docs.dependencies]
sphinx = ">=7,<8"

[[tool.poetry.source]]
name = "pytorch"
url = "https://wheels.example.org/cu126"
priority = "explicit"

[tool.poetry.scripts]
seg = "segnet.cli:main"

[tool.poetry.plugins."seg.readers"]
png = "segnet.png:Reader"

[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"
"""


def project(root: Path, text: str | bytes, **options: list[str]) -> Project:
    """Load a project with this pyproject.toml."""
    (root / "pyproject.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    (root / "libs/lib").mkdir(parents=True, exist_ok=True)
    (root / "libs/lib/setup.py").write_text("setup(name='lib', version='1')")
    (root / "src/segnet").mkdir(parents=True, exist_ok=True)
    return load_project(root, **options)  # type: ignore[arg-type]


def asks(read: Project) -> list[str]:
    """What it requires."""
    return [one.text for one in read.requirements]


MAIN = [
    "numpy<2.0,>=1.24",
    "pandas<2.2,>=2.1",
    "scipy==1.11.*",
    "tqdm",
    "requests[socks]<3.0,>=2.31",
    "torch==2.5.1",
    'tensorflow<2.11; python_version < "3.10"',
    'tensorflow<3.0,>=2.15; (python_version >= "3.10" and python_version < "4.0") and sys_platform == "linux"',
    'uvicorn<0.31,>=0.30; sys_platform != "win32"',
    "tool @ git+https://git.example.org/a/tool.git@main#subdirectory=py",
    "exact @ git+ssh://git@git.example.org/a/exact.git@0123abc",
    "./libs/lib",
    "wheel @ https://files.example.org/wheel-1.0-py3-none-any.whl",
]


def test_realistic(tmp_path: Path) -> None:
    """Every form of a dependency, and the distribution itself."""
    read = project(tmp_path, REALISTIC)

    assert asks(read) == MAIN
    assert {one.origin for one in read.requirements} == {"pyproject.toml [tool.poetry.dependencies]"}
    assert read.requires_python == "<3.13,>=3.9"
    assert read.index.pins == (IndexPin(package="torch", index="pytorch", url="https://wheels.example.org/cu126"),)
    assert (read.index.index_url, read.index.extra_index_urls) == ("", ())
    package = read.package
    assert package is not None
    assert (package.name, package.version, package.source) == ("Seg-Net", "0.3.1", "src")
    assert package.scripts == {"seg": "segnet.cli:main"}
    assert package.entry_points == {"seg.readers": {"png": "segnet.png:Reader"}}
    assert package.extras == ("track",)
    assert [source.reason for source in read.sources] == [
        "[tool.poetry.dependencies], requires-python",
        "folder lib, which pyproject.toml [tool.poetry.dependencies] asks for",
    ]


def test_extras_and_groups(tmp_path: Path) -> None:
    """Optional dependencies come with their extra; groups when they are asked for, with those they include."""
    assert asks(project(tmp_path, REALISTIC, extras=["track"])) == [*MAIN, "wandb<0.17,>=0.16"]
    assert asks(project(tmp_path, REALISTIC, groups=["docs"])) == [*MAIN, "pytest<9.0,>=8.0", "sphinx<8,>=7"]
    with pytest.raises(ProjectError, match="there is no extra 'trak'"):
        project(tmp_path, REALISTIC, extras=["trak"])


def test_old_words(tmp_path: Path) -> None:
    """dev-dependencies, and the flags that sources had before priorities."""
    text = (
        "[tool.poetry.dependencies]\na = '*'\n[tool.poetry.dev-dependencies]\nblack = '^24'\n"
        "[[tool.poetry.source]]\nname = 'main'\nurl = 'https://i.example.org/simple'\ndefault = true\n"
        "[[tool.poetry.source]]\nname = 'more'\nurl = 'https://j.example.org/simple'\nsecondary = true\n"
        "[tool.poetry]\npackage-mode = false\n[build-system]\nrequires = []\n"
    )
    read = project(tmp_path, text, groups=["dev"])
    assert asks(read) == ["a", "black<25,>=24"]
    assert read.index.index_url == "https://i.example.org/simple"
    assert read.index.extra_index_urls == ("https://j.example.org/simple",)
    assert read.notes == ("pyproject.toml [tool.poetry.source] more: is asked before the others, not after them",)
    assert read.package is None


def test_primary_sources_in_their_order(tmp_path: Path) -> None:
    """The public index among them stays the machine's own, which is asked last."""
    text = (
        "[tool.poetry.dependencies]\na = '*'\n"
        "[[tool.poetry.source]]\nname = 'ours'\nurl = 'https://i.example.org/simple'\n"
        "[[tool.poetry.source]]\nname = 'PyPI'\n"
    )
    read = project(tmp_path, text)
    assert (read.index.index_url, read.index.extra_index_urls) == ("", ("https://i.example.org/simple",))


def test_beside_project(tmp_path: Path) -> None:
    """Poetry 2: [project] says what is needed, Poetry's table where some of it comes from."""
    text = (
        "[project]\nname = 'x'\nversion = '1'\ndependencies = ['torch>=2', 'tool[cli] ; os_name == \"posix\"', 'a']\n"
        "[tool.poetry.dependencies]\ntorch = {source = 'p'}\ntool = {git = 'https://g.example.org/t', tag = 'v1'}\n"
        "[[tool.poetry.source]]\nname = 'p'\nurl = 'https://p.example.org/simple'\npriority = 'explicit'\n"
        "[tool.poetry.group.test.dependencies]\npytest = '*'\n[dependency-groups]\nlint = ['ruff']\n"
    )
    read = project(tmp_path, text, groups=["test", "lint"])
    assert asks(read) == [
        "torch>=2",
        'tool[cli] @ git+https://g.example.org/t@v1 ; os_name == "posix"',
        "a",
        "pytest",
        "ruff",
    ]
    assert [pin.package for pin in read.index.pins] == ["torch"]


def test_dynamic_dependencies(tmp_path: Path) -> None:
    """[project] may leave them to Poetry's table."""
    text = "[project]\nname = 'x'\nversion = '1'\ndynamic = ['dependencies']\n[tool.poetry.dependencies]\na = '^1.2'\n"
    read = project(tmp_path, text)
    assert [(one.text, one.origin) for one in read.requirements] == [
        ("a<2.0,>=1.2", "pyproject.toml [tool.poetry.dependencies]")
    ]


def test_before_requirement_files(tmp_path: Path) -> None:
    """As [project] is; the other file says why it does not count."""
    (tmp_path / "requirements.txt").write_text("b")
    read = project(tmp_path, "[tool.poetry.dependencies]\na = '*'\n")
    assert asks(read) == ["a"]
    assert [(source.path, source.reason) for source in read.sources][-1] == (
        "requirements.txt",
        "pyproject.toml comes first",
    )


DEPENDENCIES = "[tool.poetry.dependencies]\n"
BAD = {
    "truncated": ("[tool.poetry.dep", "pyproject.toml: is not TOML"),
    "not UTF-8": (b"[tool.poetry]\nname = '\xff'", "pyproject.toml: is not TOML"),
    "deep": ("[tool.poetry]\na = " + "[" * 5000, "pyproject.toml: is not TOML"),
    "large": (b"[tool.poetry]\n" + b"#" * (50 * 2**20), "is larger than 10 MiB"),
    "no table": ("[tool]\npoetry = 1", "pyproject.toml [tool.poetry]: poetry must be a table"),
    "dependencies are a list": ("[tool.poetry]\ndependencies = ['a']", "dependencies must be a table"),
    "a number": (DEPENDENCIES + "a = 1", "[tool.poetry.dependencies] a: must be a constraint or a table"),
    "a number in a list": (DEPENDENCIES + "a = ['*', 1]", "[tool.poetry.dependencies] a: must be a constraint"),
    "no constraint": (DEPENDENCIES + "a = '1.2.x.y'", "[tool.poetry.dependencies] a: '1.2.x.y' is no version"),
    "a choice": (DEPENDENCIES + "a = '^1 || ^3.5'", "a choice between ranges cannot be handed to a resolver"),
    "an injected URL": (DEPENDENCIES + "a = '@ https://evil.example.org/a.whl'", "is no version constraint"),
    "an injected marker": (DEPENDENCIES + "a = '^1; os_name == \"x\"'", "is no version constraint"),
    "a name that is a path": (DEPENDENCIES + "'../../evil' = '*'", "'../../evil' is no name of a package"),
    "a path outside": (DEPENDENCIES + "a = {path = '../../lib'}", "'../../lib' leaves the project's folder"),
    "an absolute path": (DEPENDENCIES + "a = {path = '/srv/lib'}", "'/srv/lib' leaves the project's folder"),
    "a git path": (DEPENDENCIES + "a = {git = '../lib.git'}", "pyproject.toml [tool.poetry.dependencies]"),
    "a branch": (DEPENDENCIES + "a = {git = 'https://h/a', branch = 'a b'}", "'a b' is no git revision"),
    "a password": (DEPENDENCIES + "a = {git = 'https://me:hunter2@h/a b'}", "is no place"),
    "python": (DEPENDENCIES + "python = 'three'", "[tool.poetry.dependencies] python: 'three' is no version"),
    "a platform": (DEPENDENCIES + "a = {version = '*', platform = '\" or \"'}", "is not known"),
    "a marker of two lines": (DEPENDENCIES + 'a = {version = "*", markers = "os_name\\n== \'x\'"}', "has one line"),
    "extras": (DEPENDENCIES + "a = {version = '*', extras = 'x'}", "extras must be a list"),
    "an extra of nothing": (DEPENDENCIES + "a = '*'\n[tool.poetry.extras]\nx = ['b']", "x names 'b', which"),
    "a group": ("[tool.poetry]\ngroup = []", "[tool.poetry.group]: group must be a table"),
    "a group's table": ("[tool.poetry.group]\nx = 1", "[tool.poetry.group.x]: must be a table"),
    "a source": ("[[tool.poetry.source]]\nname = 'x'\nurl = 'ftp://me:hunter2@h'", "'ftp://h' is no address"),
    "a priority": ("[[tool.poetry.source]]\nname = 'x'\nurl = 'https://h'\npriority = 'high'", "'high' is not known"),
    "an unknown source": (DEPENDENCIES + "a = {version = '*', source = 'x'}", "comes from index 'x', which is not"),
    "a name": ("[tool.poetry]\nname = '../x'\n[tool.poetry.dependencies]\na = '*'", "'../x' is no valid name"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    """With the place, and no secret; nothing reads as something else."""
    with pytest.raises(ProjectError) as refused:
        project(tmp_path, text)
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)
