"""Repositories whose projects depend on folders of theirs: what the owner's tool would install is what is locked."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import missing
from fakes.index import FakeIndex
from fakes.lockers import Tool, index, tool_of
from fakes.program import Program
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlbox.http import Http
from mlbox.lock.model import Target
from mlbox.lock.python.resolve import lock_python
from mlbox.lock.python.target import marker_environment
from mlbox.project.discover import load_project
from mlbox.project.requirements import logical_lines, split_options

__all__ = ["index", "tool_of"]  # fixtures
pytestmark = pytest.mark.integration

BUILT = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
OLD = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36", accelerator="default")
NEW = Target(arch="arm64", python="3.13", python_full="3.13.5", glibc="2.41", accelerator="default")

BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, settings=None):
    text = pathlib.Path("METADATA").read_text()
    info = pathlib.Path(folder, text.split("Name: ")[1].split()[0] + "-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text(text)
    return info.name
prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel
def get_requires_for_build_wheel(settings=None):
    return []
get_requires_for_build_editable = get_requires_for_build_wheel
def build_wheel(folder, settings=None, metadata=None):
    raise SystemExit("nothing is built when locking")
build_editable = build_wheel
"""
SYSTEM = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'

FOLDERS: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "packages/b": (("core>=1.2", "web[fast]"), {"gpu": ("accel",)}),
    "packages/c": (("b[gpu]; python_version < '3.12'", "helper; sys_platform == 'win32'"), {}),
    "libs/p": (("speed", "q"), {}),
    "libs/q": (("tester; python_version >= '3.12'",), {}),
}
"""What folders ask for: the first two are members of the workspace, the others are not."""


def write(root: Path, name: str, text: str) -> None:
    """Write a file below `root`."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def folders(root: Path, line: Callable[[str, str], str], more: Callable[[str], str] = lambda path: "") -> None:
    """Write the folders; `line` puts a place into a dependency of one, `more` adds a tool's own tables."""
    for path, (lines, extras) in FOLDERS.items():
        name = path.rpartition("/")[2]
        asked = [line(path, one) for one in lines]
        optional = "".join(f"{extra} = {json.dumps(ones)}\n" for extra, ones in extras.items())
        text = f'[project]\nname = "{name}"\nversion = "1.0"\nrequires-python = ">=3.11"\n'
        text += f"dependencies = {json.dumps(asked)}\n[project.optional-dependencies]\n{optional}{SYSTEM}{more(path)}"
        write(root, f"{path}/pyproject.toml", text)
        write(root, f"{path}/backend.py", BACKEND)
        write(root, f"{path}/src/{name}/__init__.py", "")
        told = [f"Requires-Dist: {one}" for one in asked]
        told += [f"Requires-Dist: {one}; extra == '{extra}'" for extra, ones in extras.items() for one in ones]
        told += [f"Provides-Extra: {extra}" for extra in extras]
        write(
            root, f"{path}/METADATA", "\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *told, ""])
        )


def place_of(name: str) -> str:
    """Return where the folder called `name` is; empty for what comes from an index."""
    return next((path for path in FOLDERS if path.endswith(f"/{name}")), "")


def with_url(line: str, root: str) -> str:
    """Return a line with a file URL below `root`, where it names a folder."""
    found = re.match(r"([a-z]+)(\[[^\]]*\])?", line)
    assert found
    place = place_of(found[1])
    return f"{found[0]} @ {root}/{place} {line[found.end() :]}".strip() if place else line


def from_root(here: str, line: str) -> str:
    """Return a line in PDM's words, whose root is the file's own folder."""
    return with_url(line, "file:///${PROJECT_ROOT}" + "/.." * len(Path(here).parts))


Installed = tuple[dict[str, str], set[str]]
"""Versions of packages by name, and the folders."""


def said(text: str, target: Target, own: str = "") -> Installed:
    """Read a requirements file as the tool wrote it."""
    versions: dict[str, str] = {}
    places: set[str] = set()
    for _, whole in logical_lines(text):
        line, options = split_options(whole)
        line = line or options.removeprefix("-e ")
        spec, _, marker = line.partition(" ; " if line.startswith((".", "/", "file:")) else ";")
        parsed = Requirement(f"x ; {marker}") if marker else None
        if parsed and parsed.marker and not parsed.marker.evaluate({**marker_environment(target), "extra": ""}):
            continue
        if folder := re.search(r"(packages|libs)/[a-z]+", spec):
            places.add(folder[0])
        elif not line.startswith((".", "-")):
            one = Requirement(spec)
            versions[canonicalize_name(one.name)] = str(one.specifier).removeprefix("==")
    return versions, places - {own}


def locked(root: Path, index: FakeIndex, target: Target, settings: str = "", **options: list[str]) -> Installed:
    """Lock as `mlbox lock` does."""
    write(root, "mlbox.toml", f'index-url = "{index.url}"\naccelerator = "default"\npip = false\n{settings}')
    found = lock_python(load_project(root, **options), target, http=Http())  # type: ignore[arg-type]
    return {one.name: one.version for one in found.packages}, {one.path for one in found.folders}


WORKSPACE = """
[tool.uv.workspace]
members = ["packages/*"]
[tool.uv.sources]
b = { workspace = true }
c = { workspace = true }
p = { path = "libs/p" }
"""
APP = '[project]\nname = "app"\nversion = "1.0"\nrequires-python = ">=3.11"\ndependencies = ["c", "p", "core"]\n'


@pytest.mark.parametrize("root", ["a project", "no project", "a member"])
def test_uv(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex, root: str) -> None:
    """With its lock and without: one graph of folders, the same versions where one choice is the newest."""
    uv = tool_of("uv")
    sources = '[tool.uv.sources]\nq = { path = "../q" }\n'
    folders(tmp_path, lambda here, line: line, lambda path: sources if path == "libs/p" else "")
    app = "packages/app" if root == "a member" else ""
    if root == "a project":
        write(tmp_path, "pyproject.toml", APP + SYSTEM + WORKSPACE)
    else:
        write(tmp_path, "pyproject.toml", WORKSPACE)
    if app:
        write(tmp_path, f"{app}/pyproject.toml", APP + SYSTEM + '[tool.uv.sources]\np = { path = "../../libs/p" }\n')
    uv(tmp_path, "lock", "--default-index", index.url)
    owner = uv(
        *(tmp_path, "export", "--frozen", "--no-hashes", "--no-default-groups", "--no-header"),
        *(["--package=app"] if app else []),
    )
    settings = 'package = "app"\n' if app else ""
    for target in (OLD, NEW):
        expected = said(owner, target, app)
        assert len(expected[1]) >= 2
        assert locked(tmp_path, index, target, settings) == expected
    (tmp_path / "uv.lock").unlink()
    for target in (OLD, NEW):
        assert locked(tmp_path, index, target, settings) == said(owner, target, app)


def test_poetry(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex) -> None:
    """Groups and extras that lead to folders; Poetry takes what is below them from their own files."""
    poetry = tool_of("poetry", "poetry==2.*", "poetry-plugin-export")
    source = f'[[tool.poetry.source]]\nname = "here"\nurl = "{index.url}"\npriority = "primary"\n'

    folders(tmp_path, lambda here, line: with_url(line, tmp_path.as_uri()))
    text = f"""
[tool.poetry]
name = "app"
version = "1"
package-mode = false
[tool.poetry.dependencies]
python = "^3.11"
core = "*"
c = {{ path = "packages/c", develop = true }}
p = {{ path = "libs/p", optional = true }}
[tool.poetry.extras]
more = ["p"]
[tool.poetry.group.dev.dependencies]
q = {{ path = "libs/q" }}
{source}"""
    write(tmp_path, "pyproject.toml", text)
    poetry(tmp_path, "lock")
    for extras, groups in (((), ()), (("more",), ("dev",))):
        options = [*(f"--extras={extra}" for extra in extras), *(f"--with={group}" for group in groups)]
        options += [] if groups else ["--only=main"]
        owner = poetry(tmp_path, "export", "--format=requirements.txt", "--without-hashes", *options)
        for target in (OLD, NEW):
            found = locked(tmp_path, index, target, extras=list(extras), groups=list(groups))
            assert found == said(owner, target) and "packages/c" in found[1]


def test_poetry_in_a_folder(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex) -> None:
    """A repository of several projects, each with a lock of its own that leads to folders beside it."""
    poetry = tool_of("poetry", "poetry==2.*", "poetry-plugin-export")
    folders(tmp_path, lambda here, line: with_url(line, tmp_path.as_uri()))
    text = f'''
[tool.poetry]
name = "app"
version = "1"
package-mode = false
[tool.poetry.dependencies]
python = "^3.11"
c = {{ path = "../../packages/c", develop = true }}
p = {{ path = "../../libs/p" }}
[[tool.poetry.source]]
name = "here"
url = "{index.url}"
priority = "primary"
'''
    write(tmp_path, "apps/app/pyproject.toml", text)
    poetry(tmp_path / "apps/app", "lock")
    owner = poetry(tmp_path / "apps/app", "export", "--format=requirements.txt", "--without-hashes")
    for target in (OLD, NEW):
        found = locked(tmp_path, index, target, 'package = "apps/app"\n')
        assert found == said(owner, target) and "libs/q" in found[1]


@pytest.mark.parametrize("strategy", ["inherit_metadata", "no_inherit_metadata"])
def test_pdm(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex, strategy: str) -> None:
    """Lines with PDM's word for the root, in [project] and in its own groups."""
    pdm = tool_of("pdm", "pdm[locked]")
    folders(tmp_path, from_root)
    dependencies = json.dumps(["core", "c @ file:///${PROJECT_ROOT}/packages/c"])
    source = f'[tool.pdm]\ndistribution = false\n[[tool.pdm.source]]\nname = "pypi"\nurl = "{index.url}"\n'
    source += '[tool.pdm.dev-dependencies]\ndev = ["-e file:///${PROJECT_ROOT}/libs/p#egg=p"]\n'
    project = f'[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = {dependencies}\n'
    write(tmp_path, "pyproject.toml", project + source)
    owners = {}
    for groups in (["dev"], []):
        # A lock with inherited metadata, which alone can be exported, joins the markers of all groups that it has.
        chosen = [f"-G{name}" for name in groups] or ["--prod"]
        pdm(
            tmp_path,
            "lock",
            *(["-Gdev"] if strategy == "inherit_metadata" else chosen),
            "--strategy",
            "inherit_metadata",
        )
        owners[*groups] = pdm(tmp_path, "export", "--format=requirements", "--without-hashes", *chosen)
    pdm(tmp_path, "lock", "-G", "dev", "--strategy", strategy)
    for groups, owner in owners.items():
        for target in (OLD, NEW):
            found = locked(tmp_path, index, target, groups=list(groups))
            assert found == said(owner, target) and "packages/c" in found[1]


def test_pipenv(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex) -> None:
    """Editable and not, in packages and in a category."""
    pipenv = tool_of("pipenv")
    if shutil.which("python3.11") is None:
        missing("pipenv locks for a Python that is here, and there is no python3.11")

    folders(tmp_path, lambda here, line: with_url(line, tmp_path.as_uri()))
    text = f'[[source]]\nname = "pypi"\nurl = "{index.url}"\nverify_ssl = false\n'
    text += '[packages]\ncore = "*"\nc = { path = "./packages/c", editable = true }\n'
    text += '[dev-packages]\np = { path = "./libs/p" }\n[requires]\npython_version = "3.11"\n'
    write(tmp_path, "Pipfile", text)
    pipenv(tmp_path, "lock")
    for groups in ((), ("dev",)):
        names = ["packages", *(["dev-packages"] if groups else [])]
        owner = pipenv(tmp_path, "requirements", f"--categories={','.join(names)}")
        assert locked(tmp_path, index, OLD, groups=list(groups)) == said(owner, OLD)


def test_pip(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex) -> None:
    """Lines of a requirements file; pip asks each folder's build, mlbox reads what is written down."""
    pip = tool_of("pip")

    folders(tmp_path, lambda here, line: with_url(line, tmp_path.as_uri()))
    write(tmp_path, "requirements.txt", "core\n-e ./packages/c\n./libs/p ; python_version > '3'\n")
    report = tmp_path / "report.json"
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report), "--index-url", index.url]
    pip(tmp_path, "install", *options, "--python-version=3.11", "--only-binary=:all:", "-r", "requirements.txt")
    found = json.loads(report.read_text())["install"]
    places = {re.search(r"(packages|libs)/[a-z]+", one["download_info"]["url"]) for one in found}
    names = {one["metadata"]["name"]: one["metadata"]["version"] for one in found}
    owner = {name: version for name, version in names.items() if not place_of(name)}, {one[0] for one in places if one}
    for resolver in ("uv", "pip-tools"):
        assert locked(tmp_path, index, OLD, f'resolver = "{resolver}"\n') == owner


def test_an_image_of_a_workspace(tmp_path: Path, tool_of: Callable[..., Tool]) -> None:
    """Built, run, explained and proven: folders are imported, called and known as they would be on the host."""
    root = tmp_path / "repo"
    files = {
        "pyproject.toml": '[tool.uv.workspace]\nmembers = ["packages/*"]\n'
        '[tool.mlbox]\npython = "3.11"\npackage = "app"\n',
        "packages/app/pyproject.toml": '[project]\nname = "app"\nversion = "1.0"\nrequires-python = ">=3.11"\n'
        f'dependencies = ["core-lib[more]"]\n{BUILT}[tool.uv.sources]\ncore-lib = {{ workspace = true }}\n'
        '[project.scripts]\napp = "app:main"\n',
        "packages/app/src/app/__init__.py": "import core_lib\ndef main(): print('app', core_lib.NAME)\n",
        "packages/core/pyproject.toml": '[project]\nname = "core-lib"\ndynamic = ["version"]\n'
        f'requires-python = ">=3.11"\ndependencies = ["flat"]\n{BUILT}'
        '[project.optional-dependencies]\nmore = ["idna==3.10"]\n'
        '[tool.hatch.version]\npath = "src/core_lib/__init__.py"\n'
        '[tool.uv.sources]\nflat = { path = "../../libs/flat" }\n[project.scripts]\ncore-lib = "core_lib:main"\n',
        "packages/core/src/core_lib/__init__.py": "import flat, idna\n__version__ = '2.5'\nNAME = 'core ' + flat.NAME\n"
        "def main(): print(NAME)\n",
        "libs/flat/setup.py": "from setuptools import setup\nsetup(name='flat', version='3', py_modules=['flat'])\n",
        "libs/flat/flat.py": "NAME = 'flat'\n",
        "ask.py": "from importlib.metadata import version\n"
        "print(*(f'{name} {version(name)}' for name in ('app', 'core-lib', 'flat')))\n",
    }
    for name, text in files.items():
        write(root, name, text)
    mlbox = Program(tmp_path / "home", root)
    digest = mlbox.build("-t", "folders:1")
    assert mlbox.out("run", "--rm", "folders:1", "app") == "app core flat"
    assert mlbox.out("run", "--rm", "folders:1", "core-lib") == "core flat"
    assert mlbox.out("run", "--rm", "folders:1", "python", "ask.py") == "app 1.0 core-lib 2.5 flat 3"
    assert mlbox.out("run", "--rm", "folders:1", "pip", "check") == "No broken requirements found."
    assert "core-lib > idna" in mlbox.out("why", "folders:1", "idna")
    assert "core-lib > flat" in mlbox.out("why", "folders:1", "flat")
    assert "pkg:generic/flat@3" in mlbox.out("sbom", "folders:1")
    assert "equal" in mlbox.out("verify", "folders:1")
    assert mlbox.build("-t", "folders:1") == digest
    write(root, "libs/flat/flat.py", "NAME = 'changed'\n")
    mlbox.build("-t", "folders:2")
    assert mlbox.out("run", "--rm", "folders:2", "app") == "app core changed"
    write(root, "libs/flat/setup.py", "setup(name='flat', version='3', install_requires=['six'])\n")
    assert "mlbox.lock is stale" in mlbox.run("build", code=1).stderr
    write(root, "libs/flat/setup.py", files["libs/flat/setup.py"])
    uv = tool_of("uv")
    uv(root, "lock")
    mlbox.run("lock")
    assert mlbox.build() and mlbox.out("run", "--rm", "app", "app") == "app core changed"
    write(root, "pylock.toml", mlbox.out("export", "--format", "pylock", "--wheels", str(root / "wheels")))
    uv(root, "venv", "-q", "--python=3.11", str(tmp_path / "venv"))
    uv(root, "pip", "sync", "-q", "--preview", f"--python={tmp_path}/venv/bin/python", "pylock.toml")
    assert (tmp_path / "venv/bin/core-lib").exists()
    mlbox.run("prune", "--built", "-f", code=None)
