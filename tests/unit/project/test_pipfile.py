"""Pipfile: packages, categories, markers, sources, and what is refused."""

from pathlib import Path

import pytest

from mlbox.errors import ProjectError
from mlbox.project.discover import load_project
from mlbox.project.model import IndexPin, Project

REALISTIC = """\
[[source]]
url = "https://mirror.example.org/simple"
verify_ssl = true
name = "mirror"

[[source]]
url = "https://me:hunter2@wheels.example.org/cu126"
name = "torch"

[packages]
numpy = "*"
pandas = ">=1.5,<3"
scipy = "1.11.4"
requests = {version = "~=2.31", extras = ["socks", "security"]}
torch = {version = "==2.5.1", index = "torch"}
pywin32 = {version = "*", sys_platform = "== 'win32'"}
backport = {version = "*", markers = "python_version < '3.11'", os_name = "== 'posix'"}
tool = {git = "https://git.example.org/a/tool.git", ref = "v1.2", subdirectory = "python"}
other = {git = "git@git.example.org:a/other.git"}
archive = {file = "https://files.example.org/archive-1.0.tar.gz"}
local = {path = "./libs/local", editable = true}
thing = {path = "."}

[dev-packages]
pytest = "*"

[docs]
sphinx = ">=7"

[requires]
python_version = "3.11"

[pipenv]
allow_prereleases = true

[scripts]
train = "python train.py"
"""


def project(root: Path, text: str | bytes, **options: list[str]) -> Project:
    """Load a project with this Pipfile and nothing else that counts."""
    data = text.encode() if isinstance(text, str) else text
    (root / "Pipfile").write_bytes(data)
    (root / "libs/local").mkdir(parents=True, exist_ok=True)
    (root / "libs/local/setup.py").write_text("setup(name='local')")
    (root / "pyproject.toml").write_text('[project]\nname = "thing"\nversion = "1"\n')
    return load_project(root, **options)  # type: ignore[arg-type]


def test_realistic(tmp_path: Path) -> None:
    """Every form of a package; a source besides the first serves what names it."""
    read = project(tmp_path, REALISTIC)

    assert {one.text: one.kind for one in read.requirements} == {
        "numpy": "named",
        "pandas<3,>=1.5": "named",
        "scipy==1.11.4": "named",
        "requests[security,socks]~=2.31": "named",
        "torch==2.5.1": "named",
        'pywin32; sys_platform == "win32"': "named",
        'backport; python_version < "3.11" and os_name == "posix"': "named",
        "tool @ git+https://git.example.org/a/tool.git@v1.2#subdirectory=python": "vcs",
        "other @ git+ssh://git@git.example.org/a/other.git": "vcs",
        "archive @ https://files.example.org/archive-1.0.tar.gz": "url",
        "./libs/local": "folder",
    }
    assert {one.origin for one in read.requirements} == {"Pipfile [packages]", "Pipfile [packages] local"}
    assert read.python_file == "3.11"
    assert read.index.index_url == "https://mirror.example.org/simple"
    assert read.index.extra_index_urls == ()
    assert read.index.pre
    url = "https://me:hunter2@wheels.example.org/cu126"
    assert read.index.pins == (IndexPin(package="torch", index="torch", url=url),)
    assert read.package is not None  # asked for by the path that is the project itself
    assert ("Pipfile", True) in {(source.path, source.used) for source in read.sources}


@pytest.mark.parametrize(
    ("group", "more"),
    [("dev", "pytest"), ("dev-packages", "pytest"), ("Dev_Packages", "pytest"), ("docs", "sphinx>=7")],
)
def test_categories(tmp_path: Path, group: str, more: str) -> None:
    """They are groups; 'dev' is what pipenv calls the one for development."""
    read = project(tmp_path, REALISTIC, groups=[group])
    assert [one.text for one in read.requirements if one.origin != "Pipfile [packages]"][-1] == more


def test_unknown_category(tmp_path: Path) -> None:
    """With the ones there are."""
    with pytest.raises(ProjectError, match="there is no dependency group 'doc'") as refused:
        project(tmp_path, REALISTIC, groups=["doc"])
    assert refused.value.hint == "did you mean 'docs'?"


def test_the_public_index_is_the_users_own(tmp_path: Path) -> None:
    """What every Pipfile has says nothing: the machine's configured mirror stays in use."""
    host = ".".join(("pypi", "org"))
    read = project(tmp_path, f'[[source]]\nname = "pypi"\nurl = "https://{host}/simple"\n[packages]\na = "*"')
    assert read.index.index_url == ""
    read = project(tmp_path, '[[source]]\nname = "pypi"\nurl = "https://m.example.org/simple"\n[packages]\na = "*"')
    assert read.index.index_url == "https://m.example.org/simple"


BAD = {
    "truncated": ("[packages", "Pipfile: is not TOML"),
    "not UTF-8": (b"[packages]\na = '\xff'", "Pipfile: is not TOML"),
    "deep": ("a = " + "[" * 5000, "Pipfile: is not TOML"),
    "large": (b"#" * (50 * 2**20), "is larger than 10 MiB"),
    "packages are a list": ("packages = []", "Pipfile [packages]: packages must be a table"),
    "a number": ("[packages]\na = 1", "Pipfile [packages] a: must be a version or a table"),
    "a version is a list": ("[packages]\na = {version = []}", "Pipfile [packages] a: version must be a string"),
    "extras are a word": ("[packages]\na = {extras = 'x'}", "extras must be a list"),
    "extras with a bracket": ("[packages]\na = {extras = ['x] @ y']}", "is no name of an extra"),
    "a name that is a path": ("[packages]\n'../../evil' = '*'", "'../../evil' is no name of a package"),
    "a name that is an option": ("[packages]\n'--index-url' = '*'", "'--index-url' is no name of a package"),
    "a version that is a URL": ("[packages]\na = '@ https://x.example.org/a.whl'", "is no version"),
    "no version": ("[packages]\na = 'newest'", "Pipfile [packages]: invalid requirement 'a==newest'"),
    "a marker": ("[packages]\na = {markers = 'what'}", "Pipfile [packages]: invalid requirement"),
    "a path outside": ("[packages]\na = {path = '../..'}", "'../..' leaves the project's folder"),
    "a file outside": ("[packages]\na = {file = '/etc/passwd'}", "'/etc/passwd' leaves the project's folder"),
    "another VCS": ("[packages]\na = {hg = 'https://h.example.org/a'}", "nothing can be fetched by 'hg'"),
    "two places": ("[packages]\na = {git = 'https://h/a', path = 'b'}", "git and path say different places"),
    "a revision": ("[packages]\na = {git = 'https://h/a', ref = 'x#egg=y'}", "'x#egg=y' is no git revision"),
    "a revision that is an option": ("[packages]\na = {git = 'https://h/a', ref = '--x'}", "is no git revision"),
    "a local repository": ("[packages]\na = {git = '/srv/a'}", "Pipfile [packages]"),
    "a source": ("source = [{url = 'ftp://me:hunter2@h'}]\n[packages]\na = '*'", "'ftp://h' is no address"),
    "an unknown index": ("[packages]\na = {version = '*', index = 'x'}", "comes from index 'x', which is not"),
    "requires": ("requires = 1\n[packages]\na = '*'", "Pipfile: requires must be a table"),
    "python": ("[packages]\na = '*'\n[requires]\npython_version = 3.1", "python_version must be a string"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    """With the place, and no secret."""
    with pytest.raises(ProjectError) as refused:
        project(tmp_path, text)
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)
