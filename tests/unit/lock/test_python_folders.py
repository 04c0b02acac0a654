"""Folders of the project in its lock, whoever pins the rest."""

import hashlib
import json
from pathlib import Path

import pytest
from fakes.desk import TARGET, Desk, desk

from mlbox.errors import LockError, MlboxError, ResolveError
from mlbox.http import Http
from mlbox.lock.model import Folder
from mlbox.lock.python.resolve import LockedPython, lock_python
from mlbox.project.discover import load_project

__all__ = ["desk"]  # a fixture

A = "a" * 64
both_resolvers = pytest.mark.parametrize("resolver", ["uv", "pip-tools"])


def write(root: Path, files: dict[str, str]) -> None:
    """Write `files` below `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def spec(name: str, *dependencies: str, more: str = "") -> str:
    """A pyproject.toml of a distribution."""
    return f'[project]\nname = "{name}"\nversion = "1.0"\ndependencies = {json.dumps(dependencies)}\n{more}'


def locked(desk: Desk, root: Path, files: dict[str, str], *, resolver: str = "uv", settings: str = "") -> LockedPython:
    """Lock the project that `files` are."""
    text = f'index-url = "{desk.index.url}"\nresolver = "{resolver}"\npip = false\n{settings}'
    if "accelerator" not in settings:
        text += 'accelerator = "default"\n'
    write(root, {"mlbox.toml": text, **files})
    return lock_python(load_project(root), TARGET, http=Http(), home=desk.home)


def names(found: LockedPython) -> list[str]:
    """What comes from elsewhere."""
    return [package.name for package in found.packages]


@both_resolvers
def test_what_folders_ask_for_is_resolved_with_the_rest(desk: Desk, tmp_path: Path, resolver: str) -> None:
    """One resolution: the versions fit all; who asks for what is said folder by folder."""
    for version in ("1.0", "2.0"):
        desk.wheel("dep", version)
    desk.wheel("old", "1.0")
    files = {
        "requirements.txt": "dep\n-e ./x\n",
        "x/pyproject.toml": spec("x", "dep<2", "y @ file:../y", "old; python_version < '3.0'"),
        "y/setup.py": "setup(name='Y', install_requires=['old'])",
    }
    found = locked(desk, tmp_path, files, resolver=resolver)
    assert [(one.name, one.version, one.wanted_by) for one in found.packages] == [
        ("dep", "1.0", ("requirements.txt:1",)),
        ("old", "1.0", ()),
    ]
    assert found.folders == (
        Folder(name="x", path="x", requires=("dep", "y"), wanted_by=("requirements.txt:2",)),
        Folder(name="y", path="y", requires=("old",)),
    )


def test_a_folder_for_another_machine_is_not_installed(desk: Desk, tmp_path: Path) -> None:
    """Nor is what it asks for."""
    files = {"requirements.txt": "./x ; sys_platform == 'win32'\n", "x/pyproject.toml": spec("x", "nowhere")}
    assert locked(desk, tmp_path, files) == LockedPython((), ())


@both_resolvers
def test_no_index_is_asked_for_the_name_of_a_folder(desk: Desk, tmp_path: Path, resolver: str) -> None:
    """Whoever publishes a package under that name gets nothing into an image, even if another one asks for it."""
    desk.wheel("x", "99.0")
    desk.wheel("dep", "1.0", requires=["six"])
    desk.wheel("six", "1.0")
    files = {"requirements.txt": "./x\nX>=0.5\ndep\n", "x/pyproject.toml": spec("x", "six")}
    found = locked(desk, tmp_path, files, resolver=resolver)
    assert names(found) == ["dep", "six"]
    assert found.folders[0].wanted_by == ("requirements.txt:1", "requirements.txt:2")
    desk.wheel("dep", "2.0", requires=["x", "six"])
    if resolver == "uv":
        assert next((one.name, one.version) for one in locked(desk, tmp_path, files).packages) == ("dep", "2.0")
    else:
        write(tmp_path, {"requirements.txt": "./x\ndep>=2\n"})
        with pytest.raises(ResolveError, match="x is a folder of the project, and a package of an index asks for it"):
            locked(desk, tmp_path, {}, resolver=resolver)
    assert not [path for path in desk.server.requests if "/x-99.0" in str(path)]


def test_each_accelerator_has_its_folders(desk: Desk, tmp_path: Path) -> None:
    """One lock says whose a folder is."""
    more = '[project.optional-dependencies]\ncu126 = ["x @ file:./x"]\n[build-system]\n'
    files = {
        "pyproject.toml": spec("app", "y @ file:./y", more=more),
        "x/pyproject.toml": spec("x"),
        "y/pyproject.toml": spec("y"),
    }
    found = locked(desk, tmp_path, files, settings='accelerators = ["cpu", "cu126"]\n')
    assert [(one.name, one.accelerators) for one in found.folders] == [("x", ("cu126",)), ("y", ())]


def test_hashes_of_a_whole_file_are_those_of_the_folders_too(desk: Desk, tmp_path: Path) -> None:
    """As uv exports a workspace: what a folder asks for loosely, the file has exactly."""
    digest = hashlib.sha256(desk.wheel("dep", "1.0")).hexdigest()
    desk.wheel("other", "1.0")
    files = {"requirements.txt": f"-e ./x\ndep==1.0 --hash=sha256:{digest}\n", "x/pyproject.toml": spec("x", "dep>0.1")}
    assert names(locked(desk, tmp_path, files)) == ["dep"]
    with pytest.raises(ResolveError, match="no hash for other"):
        locked(desk, tmp_path, {"x/pyproject.toml": spec("x", "other")})


UV = """
version = 1
requires-python = ">=3.10"
[manifest]
members = ["app", "x"]
[[package]]
name = "app"
version = "1.0"
source = { editable = "." }
dependencies = [{ name = "x" }]
[package.metadata]
requires-dist = [{ name = "x", editable = "x" }]
[[package]]
name = "x"
version = "1.0"
source = { editable = "x" }
dependencies = [{ name = "dep" }]
[package.metadata]
requires-dist = [{ name = "dep" }]
[[package]]
name = "dep"
version = "1.0"
source = { registry = "https://i.example/simple" }
wheels = [{ url = "https://i.example/dep-1.0-py3-none-any.whl", hash = "sha256:HASH", size = 5 }]
""".replace("HASH", A)

POETRY = """
[[package]]
name = "dep"
version = "1.0"
optional = false
python-versions = "*"
groups = ["main"]
files = [{ file = "dep-1.0-py3-none-any.whl", hash = "sha256:HASH" }]
[[package]]
name = "x"
version = "1.0"
optional = false
python-versions = "*"
groups = ["main"]
files = []
develop = true
[package.dependencies]
dep = "*"
[package.source]
type = "directory"
url = "x"
[metadata]
lock-version = "2.1"
python-versions = "*"
content-hash = ""
"""

PDM = """
[metadata]
groups = ["default"]
strategy = ["inherit_metadata"]
lock_version = "4.5.0"
content_hash = ""
[[package]]
name = "dep"
version = "1.0"
groups = ["default"]
files = [{ file = "dep-1.0-py3-none-any.whl", hash = "sha256:HASH" }]
[[package]]
name = "x"
version = "1.0"
path = "./x"
editable = true
groups = ["default"]
dependencies = ["dep"]
"""

PYLOCK = """
lock-version = "1.0"
created-by = "test"
[[packages]]
name = "dep"
version = "1.0"
[[packages.wheels]]
url = "https://i.example/dep-1.0-py3-none-any.whl"
hashes = { sha256 = "HASH" }
size = 5
[[packages]]
name = "x"
directory = { path = "x", editable = true }
""".replace("HASH", A)

MEMBER = "[tool.uv.workspace]\nmembers = ['x']\n[tool.uv.sources]\nx = { workspace = true }\n[build-system]\n"
TOOLS = {
    "uv.lock": ("pyproject.toml", spec("app", "x", more=MEMBER), UV),
    "poetry.lock": (
        "pyproject.toml",
        '[tool.poetry]\nname = "app"\nversion = "1"\n[tool.poetry.dependencies]\nx = { path = "x" }\n',
        POETRY,
    ),
    "pdm.lock": ("pyproject.toml", spec("app", "x @ file:///${PROJECT_ROOT}/x", more="[tool.pdm]\n"), PDM),
    "pylock.toml": ("README", "no spec at all", PYLOCK),
    "Pipfile.lock": ("Pipfile", '[packages]\nx = { path = "x", editable = true }\n', ""),
}


@pytest.mark.parametrize("file", TOOLS)
def test_folders_of_other_tools_locks(desk: Desk, tmp_path: Path, file: str) -> None:
    """They are installed with what that lock has; what a folder asks for by now must be there."""
    digest = hashlib.sha256(desk.wheel("dep", "1.0")).hexdigest()
    name, text, lock = TOOLS[file]
    packages = {"dep": {"version": "==1.0", "hashes": [f"sha256:{digest}"]}, "x": {"path": "x", "editable": True}}
    lock = lock.replace("HASH", digest) or json.dumps({"_meta": {"pipfile-spec": 6}, "default": packages})
    found = locked(desk, tmp_path, {name: text, file: lock, "x/pyproject.toml": spec("x", "dep")})
    assert names(found) == ["dep"]
    whole = file != "pylock.toml"  # alone, it says nothing of who asks for whom
    assert [(one.name, one.path, one.requires) for one in found.folders] == [("x", "x", ("dep",) if whole else ())]
    if whole:
        with pytest.raises(LockError) as caught:
            locked(desk, tmp_path, {"x/pyproject.toml": spec("x", "dep", "more")})
        assert caught.value.message in (
            f"{file} has no more, which the folder x asks for",
            "uv.lock does not fit x/pyproject.toml any more: more is asked for",
        )


def test_members_of_a_workspace_as_uv_locked_them(desk: Desk, tmp_path: Path) -> None:
    """Where the root is no project, each is installed; where one is named, it is the project."""
    virtual = UV.replace('source = { editable = "." }', 'source = { editable = "app" }')
    files = {
        "pyproject.toml": "[tool.uv.workspace]\nmembers = ['x', 'app']\n[tool.uv.sources]\nx = { workspace = true }\n",
        "app/pyproject.toml": spec("app", "x", more="[build-system]\n"),
        "x/pyproject.toml": spec("x", "dep"),
        "uv.lock": virtual,
    }
    found = locked(desk, tmp_path, files)
    assert [(one.name, one.path) for one in found.folders] == [("app", "app"), ("x", "x")] and names(found) == ["dep"]
    found = locked(desk, tmp_path, {}, settings='package = "app"\n')
    assert [(one.name, one.path) for one in found.folders] == [("x", "x")] and names(found) == ["dep"]
    assert locked(desk, tmp_path, {}, settings='package = "x"\n').folders == ()
    with pytest.raises(LockError, match=r"uv\.lock does not fit app/pyproject\.toml any more: six is asked for"):
        locked(desk, tmp_path, {"app/pyproject.toml": spec("app", "x", "six")})


def test_a_virtual_member_is_what_it_asks_for(desk: Desk, tmp_path: Path) -> None:
    lock = UV.replace('source = { editable = "x" }', 'source = { virtual = "x" }')
    member = spec("x", "dep", more="[tool.uv]\npackage = false\n")
    files = {"pyproject.toml": TOOLS["uv.lock"][1], "x/pyproject.toml": member, "uv.lock": lock}
    found = locked(desk, tmp_path, files)
    assert found.folders == () and names(found) == ["dep"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../x", "leaves the repository"),
        ("/etc", "leaves the repository"),
        ("gone", r"x: gone is not there"),
        ("README", r"x: README is no folder"),
        ("out", r"x: 'out' leaves the project's folder"),
    ],
)
def test_a_lock_with_a_folder_that_is_none(desk: Desk, tmp_path: Path, path: str, message: str) -> None:
    """Nothing outside is looked at, not even through a link."""
    (tmp_path / "outside").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path / "outside")
    with pytest.raises(LockError, match=message):
        locked(desk, root, {"README": "", "pylock.toml": PYLOCK.replace('path = "x"', f'path = "{path}"')})


def test_a_package_that_is_called_like_a_folder(desk: Desk, tmp_path: Path) -> None:
    """A lock of another tool that has both is refused: one would hide the other."""
    twice = PYLOCK.replace('name = "x"', 'name = "y"') + PYLOCK.partition("[[packages]]")[2].join(["[[packages]]", ""])
    lock = twice.replace('name = "dep"', 'name = "y"', 1).replace("dep-1.0", "y-1.0", 1)
    with pytest.raises(MlboxError, match="y"):
        locked(desk, tmp_path, {"pylock.toml": lock, "x/pyproject.toml": spec("y")})


def test_a_member_with_a_lock_of_its_own(desk: Desk, tmp_path: Path) -> None:
    """Poetry's repositories have a lock for each project, whose folders lie above it; none lies above the project."""
    digest = hashlib.sha256(desk.wheel("dep", "1.0")).hexdigest()
    lock = POETRY.replace("HASH", digest).replace('url = "x"', 'url = "../../x"')
    text = '[tool.poetry]\nname = "app"\nversion = "1"\n[tool.poetry.dependencies]\nx = { path = "../../x" }\n'
    files = {"apps/app/pyproject.toml": text, "apps/app/poetry.lock": lock, "x/pyproject.toml": spec("x", "dep")}
    settings = 'package = "apps/app"\n'
    found = locked(desk, tmp_path, files, settings=settings)
    assert names(found) == ["dep"]
    origin = "apps/app/pyproject.toml [tool.poetry.dependencies]"
    assert found.folders == (Folder(name="x", path="x", requires=("dep",), wanted_by=(origin,)),)
    old = lock.replace("2.1", "2.0").replace('groups = ["main"]\n', "")
    assert locked(desk, tmp_path, {"apps/app/poetry.lock": old}, settings=settings).folders == found.folders
    pdm = PDM.replace("HASH", digest).replace('"./x"', '"../../x"')
    pyproject = spec("app", "x @ file:///${PROJECT_ROOT}/../../x", more="[tool.pdm]\n")
    (tmp_path / "apps/app/poetry.lock").unlink()
    files = {"apps/app/pyproject.toml": pyproject, "apps/app/pdm.lock": pdm}
    assert [one.path for one in locked(desk, tmp_path, files, settings=settings).folders] == ["x"]
    with pytest.raises(LockError, match=r"x: '\.\./\.\./\.\./x' leaves the repository"):
        locked(desk, tmp_path, {"apps/app/pdm.lock": pdm.replace("../../x", "../../../x")}, settings=settings)
    (tmp_path / "apps/app/pdm.lock").unlink()
    assert [one.path for one in locked(desk, tmp_path, {}, settings=settings).folders] == ["x"]


def test_what_is_excluded_is_not_missed(desk: Desk, tmp_path: Path) -> None:
    """PDM's excludes, as uv's, take a package out whoever asks for it."""
    digest = hashlib.sha256(desk.wheel("dep", "1.0")).hexdigest()
    tables = '[tool.pdm.resolution]\nexcludes = ["more"]\n'
    files = {"pyproject.toml": spec("app", "x @ file:./x", more=tables), "pdm.lock": PDM.replace("HASH", digest)}
    files["x/pyproject.toml"] = spec("x", "dep", "more")
    assert names(locked(desk, tmp_path, files)) == ["dep"]
    (tmp_path / "pdm.lock").unlink()
    assert names(locked(desk, tmp_path, {})) == ["dep"]
    uv = '[tool.uv]\nexclude-dependencies = ["more"]\n'
    assert names(locked(desk, tmp_path, {"pyproject.toml": spec("app", "x @ file:./x", more=uv)})) == ["dep"]
