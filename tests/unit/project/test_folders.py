"""Folders of the repository as dependencies: what they ask for is what the project asks for."""

from pathlib import Path
from typing import Any

import pytest

from mlbox.errors import ProjectError
from mlbox.project import folders
from mlbox.project.discover import inputs_digest, load_project
from mlbox.project.model import Folder, Package, Project


def make(root: Path, files: dict[str, str]) -> None:
    """Write `files` below `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def spec(name: str, *dependencies: str, more: str = "") -> str:
    """A pyproject.toml of a distribution."""
    lines = ", ".join(repr(line) for line in dependencies)
    return f'[project]\nname = "{name}"\nversion = "1.0"\ndependencies = [{lines}]\n{more}'


def asks(read: Project) -> list[str]:
    """What it requires."""
    return [one.text for one in read.requirements]


def found(read: Project) -> dict[str, str]:
    """Its folders by name."""
    return {one.name: one.path for one in read.folders}


def refused(root: Path, **options: Any) -> ProjectError:
    """What is said of it."""
    with pytest.raises(ProjectError) as caught:
        load_project(root, **options)
    return caught.value


@pytest.mark.parametrize(
    "line",
    [
        "-e ./libs/x",
        "./libs/x",
        "libs/x",
        "x @ file:./libs/x",
        "x @ ./libs/x",
        "-e file:libs/x#egg=x",
        "X @ file:libs/x",
    ],
)
def test_requirement_files(tmp_path: Path, line: str) -> None:
    """However pip and uv let a folder be written, it is that folder, and its needs are the project's."""
    make(tmp_path, {"requirements.txt": f"six\n{line}\n", "libs/x/pyproject.toml": spec("x", "numpy>=1")})
    read = load_project(tmp_path)
    assert asks(read) == ["six", "./libs/x", "numpy>=1"]
    assert [(one.kind, one.asked_by) for one in read.requirements] == [("named", ""), ("folder", ""), ("named", "x")]
    assert read.requirements[2].origin == "libs/x/pyproject.toml [project.dependencies]"
    assert [one.path for one in read.sources if one.used] == ["requirements.txt", "libs/x/pyproject.toml"]


def test_what_a_folder_is_installed_as(tmp_path: Path) -> None:
    """Its own name, version and source, below the project's root; paths of this machine are no metadata."""
    more = '[project.scripts]\ngo = "x:main"\n[build-system]\nbuild-backend = "hatchling.build"\n'
    files = {"requirements.txt": "./libs/x", "libs/x/src/x/__init__.py": "", "libs/y/setup.py": 'setup(name="y")'}
    make(tmp_path, {**files, "libs/x/pyproject.toml": spec("x", "y @ file:../y", more=more)})
    x, y = load_project(tmp_path).folders
    assert x == Folder(
        path="libs/x",
        name="x",
        package=Package(
            name="x", version="1.0", scripts={"go": "x:main"}, requires=("y",), source="libs/x/src", folder="libs/x"
        ),
    )
    assert y.package and (y.package.source, y.package.folder) == ("libs/y", "libs/y")


def test_markers_hold_together(tmp_path: Path) -> None:
    """A folder asked for on one machine asks for nothing on another; the weakest condition is enough."""
    files = {
        "requirements.txt": "./a ; sys_platform == 'linux'\n",
        "a/pyproject.toml": spec("a", "six ; python_version < '3.12' or os_name == 'x'", "b @ file:../b", "tomli>=1"),
        "b/pyproject.toml": spec("b", "idna @ https://h.example/idna-1-py3-none-any.whl"),
    }
    make(tmp_path, files)
    assert asks(load_project(tmp_path)) == [
        './a ; sys_platform == "linux"',
        'six; (python_version < "3.12" or os_name == "x") and (sys_platform == "linux")',
        './b ; sys_platform == "linux"',
        'tomli>=1; sys_platform == "linux"',
        'idna @ https://h.example/idna-1-py3-none-any.whl ; sys_platform == "linux"',
    ]
    make(tmp_path, {"requirements.txt": "./a\n./a ; sys_platform == 'linux'\n"})
    assert asks(load_project(tmp_path))[2:] == [
        'six; python_version < "3.12" or os_name == "x"',
        "./b",
        "tomli>=1",
        "idna @ https://h.example/idna-1-py3-none-any.whl",
    ]


def test_extras_of_folders(tmp_path: Path) -> None:
    """They are followed by path, through other folders, and where somebody asks for them by name alone."""
    extras = '[project.optional-dependencies]\ngpu = ["torch"]\nall = ["a[gpu]", "b[fast]", "click"]\n'
    files = {
        "requirements.txt": "./a[all]\n./b\n",
        "a/pyproject.toml": spec("a", "numpy", more=extras),
        "b/pyproject.toml": spec("b", more='[project.optional-dependencies]\nfast = ["orjson"]\n'),
    }
    make(tmp_path, files)
    assert asks(load_project(tmp_path)) == ["./a[all]", "./b", "numpy", "torch", "b[fast]", "click", "orjson"]
    make(tmp_path, {"requirements.txt": "./a[al]\n"})
    problem = refused(tmp_path)
    assert problem.message == "requirements.txt:1: a has no extra 'al'" and problem.hint == "did you mean 'all'?"


def test_circles_end(tmp_path: Path) -> None:
    """As uv has it, folders may depend on one another, and on the project, under whatever conditions."""
    source = '[tool.uv.sources]\n{0} = {{ path = "{1}" }}\n'
    files = {
        "pyproject.toml": spec("app", "a", more=source.format("a", "a")),
        "a/pyproject.toml": spec("a", "b ; os_name == 'posix'", more=source.format("b", "../b")),
        "b/pyproject.toml": spec(
            "b",
            "a ; os_name == 'x'",
            "app",
            "six",
            more='[tool.uv.sources]\na = { path = "../a" }\napp = { path = ".." }\n',
        ),
    }
    make(tmp_path, files)
    read = load_project(tmp_path)
    assert found(read) == {"a": "a", "b": "b"}
    assert 'six; os_name == "posix"' in asks(read) and len(asks(read)) == 5


def test_uv_workspace(tmp_path: Path) -> None:
    """Sources and indexes of the root hold for members, but for what these say; excluded folders are none."""
    root = """
[tool.uv.workspace]
members = ["packages/*"]
exclude = ["packages/old"]
[tool.uv.sources]
b = { workspace = true }
c = { path = "libs/c" }
torch = { index = "t" }
[[tool.uv.index]]
name = "t"
url = "https://t.example/simple"
explicit = true
"""
    member = """
[tool.uv.sources]
six = { index = "s" }
[[tool.uv.index]]
name = "s"
url = "https://s.example/simple"
"""
    files = {
        "pyproject.toml": spec("app", "a", more=f"{root}\n[tool.uv.sources.a]\nworkspace = true\n"),
        "packages/a/pyproject.toml": spec("a", "b", "c", "torch", "six", more=member),
        "packages/b/pyproject.toml": spec("b", "click"),
        "packages/old/pyproject.toml": spec("b", "old"),
        "libs/c/pyproject.toml": spec("c", "idna"),
    }
    make(tmp_path, files)
    read = load_project(tmp_path)
    assert found(read) == {"a": "packages/a", "b": "packages/b", "c": "libs/c"}
    assert asks(read) == ["./packages/a", "./packages/b", "./libs/c", "torch", "six", "click", "idna"]
    assert {(pin.package, pin.url) for pin in read.index.pins} == {
        ("torch", "https://t.example/simple"),
        ("six", "https://s.example/simple"),
    }
    assert not read.index.extra_index_urls
    make(tmp_path, {"packages/c/pyproject.toml": spec("b")})
    assert "packages/b and packages/c are both called 'b'" in refused(tmp_path).message


VIRTUAL = {
    "pyproject.toml": '[tool.uv.workspace]\nmembers = ["packages/*"]\n[tool.uv.sources]\nb = { workspace = true }\n'
    '[dependency-groups]\ndev = ["pytest"]\n',
    "packages/a/pyproject.toml": spec(
        "a",
        "b",
        more='requires-python = ">=3.10"\n[project.optional-dependencies]\ngpu = ["torch"]\n'
        '[dependency-groups]\ndev = ["mypy"]\n[build-system]\nrequires = ["hatchling"]\n',
    ),
    "packages/b/pyproject.toml": spec("b", "click"),
    "packages/c/pyproject.toml": spec("c", "idna", more='requires-python = "<3.14"\n'),
}


def test_a_root_that_is_no_project_is_all_members(tmp_path: Path) -> None:
    """As `uv sync` has it; a member without a build system that nothing depends on is only what it asks for."""
    make(tmp_path, VIRTUAL)
    read = load_project(tmp_path, extras=["gpu"], groups=["dev"])
    assert found(read) == {"a": "packages/a", "b": "packages/b"}
    assert sorted(set(asks(read))) == ["./packages/a[gpu]", "./packages/b", "click", "idna", "mypy", "pytest", "torch"]
    assert read.package is None and set(read.requires_python.split(",")) == {">=3.10", "<3.14"}
    assert "there is no extra 'gp'" in refused(tmp_path, extras=["gp"]).message
    assert "of packages/c/pyproject.toml" in refused(tmp_path, python="3.14").message


@pytest.mark.parametrize("name", ["a", "packages/a"])
def test_a_member_is_the_project(tmp_path: Path, name: str) -> None:
    """`package` names it, as `uv sync --package` does, or the folder it lies in."""
    make(tmp_path, {**VIRTUAL, "mlbox.toml": f'package = "{name}"\ngroups = ["dev"]\n'})
    read = load_project(tmp_path, extras=["gpu"])
    assert found(read) == {"b": "packages/b"} and read.member == "packages/a" and read.name == "a"
    assert asks(read) == ["./packages/b", "torch", "mypy", "click"]
    assert read.package and (read.package.source, read.package.folder) == ("packages/a", "packages/a")
    other = load_project(tmp_path, extras=["gpu"])
    make(tmp_path, {"packages/c/pyproject.toml": spec("c", "more")})
    assert inputs_digest(load_project(tmp_path, extras=["gpu"])) == inputs_digest(other)
    make(tmp_path, {"packages/b/pyproject.toml": spec("b", "click>=8")})
    assert inputs_digest(load_project(tmp_path, extras=["gpu"])) != inputs_digest(other)


def test_what_counts_beside_a_workspace(tmp_path: Path) -> None:
    """Members come before requirement files, which count when they are named; settings are the root's alone."""
    make(tmp_path, {**VIRTUAL, "requirements.txt": "six\n"})
    assert "six" not in asks(load_project(tmp_path)) and "idna" in asks(load_project(tmp_path))
    assert asks(load_project(tmp_path, requirements=["requirements.txt"])) == ["six"]
    make(tmp_path, {"pyproject.toml": VIRTUAL["pyproject.toml"] + '[tool.mlbox]\npackage = "b"\n'})
    make(tmp_path, {"packages/b/pyproject.toml": spec("b", "click", more='[tool.mlbox]\npython = "3.11"\n')})
    read = load_project(tmp_path)
    assert read.settings.python == "" and asks(read) == ["click"]
    assert read.notes == ("packages/b/pyproject.toml [tool.mlbox] has no effect: the settings are those of the root",)
    assert [(one.path, one.reason) for one in read.sources if one.used] == [
        ("pyproject.toml", "settings"),
        ("packages/b/pyproject.toml", "[project] dependencies"),
    ]


def test_a_member_that_is_none(tmp_path: Path) -> None:
    make(tmp_path, {**VIRTUAL, "mlbox.toml": 'package = "aa"\n'})
    problem = refused(tmp_path)
    assert "mlbox.toml [package]: there is no package 'aa'" in problem.message and problem.hint == "did you mean 'a'?"
    make(tmp_path, {"mlbox.toml": 'package = "../x"\n'})
    assert "there is no package '../x'" in refused(tmp_path).message


def test_started_in_a_member(tmp_path: Path) -> None:
    """What lies beside it is in no image of it: mlbox says where to go."""
    make(tmp_path, {**VIRTUAL, ".git/HEAD": "", "packages/c/pyproject.toml": spec("c", "d @ file:../b")})
    problem = refused(tmp_path / "packages/c")
    assert "b' leaves the project's folder" in problem.message
    assert problem.hint == f"run mlbox in {tmp_path / 'packages'}, with package = 'c' in [tool.mlbox] there"
    make(tmp_path, {"packages/c/pyproject.toml": spec("c", "b", more="[tool.uv.sources]\nb = { workspace = true }\n")})
    problem = refused(tmp_path / "packages/c")
    assert "b: the workspace has no such member" in problem.message
    assert (
        problem.hint == f"b lies beside it: run mlbox in {tmp_path}, with package = 'packages/c' in [tool.mlbox] there"
    )
    make(tmp_path, {"packages/c/pyproject.toml": spec("c", "idna")})
    (note,) = load_project(tmp_path / "packages/c").notes
    assert note.startswith(f"this is a member of the workspace {tmp_path}, whose lock does not count here")
    make(tmp_path, {"other/pyproject.toml": spec("other", "idna")})
    assert load_project(tmp_path / "other").notes == ()


POETRY = '[tool.poetry]\nname = "{}"\nversion = "1.0"\n[tool.poetry.dependencies]\npython = "^3.10"\n'


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", POETRY.format("app") + 'x = { path = "libs/x", develop = true }\n'),
        ("pyproject.toml", spec("app", "x @ file:///${PROJECT_ROOT}/libs/x", more="[tool.pdm]\ndistribution = true\n")),
        (
            "pyproject.toml",
            spec("app", "x @ {root:uri}/libs/x", more="[tool.hatch.metadata]\nallow-direct-references = true\n"),
        ),
        ("pyproject.toml", spec("app", "x", more='[tool.uv.sources]\nx = { path = "libs/x", editable = true }\n')),
        ("Pipfile", '[packages]\nx = { path = "./libs/x", editable = true }\n'),
        ("pixi.toml", '[workspace]\nchannels = ["c"]\n[pypi-dependencies]\nx = { path = "libs/x" }\n'),
        ("setup.cfg", "[metadata]\nname = app\n[options]\ninstall_requires =\n    x @ file:./libs/x\n"),
        ("environment.yml", "dependencies:\n  - python\n  - pip:\n      - -e ./libs/x\n"),
    ],
    ids=["poetry", "pdm", "hatch", "uv", "pipenv", "pixi", "setuptools", "conda"],
)
def test_every_tool_has_its_words(tmp_path: Path, file: str, text: str) -> None:
    """And the folder may be another tool's."""
    inner = POETRY.format("x") + 'numpy = "^2"\ny = { path = "../y" }\n'
    make(
        tmp_path,
        {
            file: text,
            "libs/x/pyproject.toml": inner,
            "libs/y/setup.cfg": "[metadata]\nname = y\n",
            "libs/y/setup.py": "setup()",
        },
    )
    read = load_project(tmp_path)
    assert found(read) == {"x": "libs/x", "y": "libs/y"}
    assert "numpy>=2,<3" in asks(read) or "numpy<3,>=2" in asks(read)


def test_poetrys_groups_and_hatchs_parents(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": POETRY.format("app") + '[tool.poetry.group.dev.dependencies]\nx = { path = "libs/x" }\n',
        "libs/x/pyproject.toml": spec("x", "y @ {root:parent:uri}/y", more="[tool.hatch.envs.a]\n"),
        "libs/y/pyproject.toml": spec("y"),
    }
    make(tmp_path, files)
    assert found(load_project(tmp_path)) == {}
    assert found(load_project(tmp_path, groups=["dev"])) == {"x": "libs/x", "y": "libs/y"}


def test_dependencies_in_files_of_the_folder(tmp_path: Path) -> None:
    dynamic = '[project]\nname = "x"\ndynamic = ["dependencies"]\n{}'
    files = {"requirements.txt": "./x", "x/deps.txt": "numpy\n", "deps.txt": "wrong\n"}
    make(
        tmp_path,
        {
            **files,
            "x/pyproject.toml": dynamic.format('[tool.setuptools.dynamic]\ndependencies = { file = "deps.txt" }\n'),
        },
    )
    assert asks(load_project(tmp_path)) == ["./x", "numpy"]
    make(tmp_path, {"x/pyproject.toml": dynamic.format(""), "x/setup.py": "setup(install_requires=['six'])"})
    assert asks(load_project(tmp_path)) == ["./x", "six"]
    make(tmp_path, {"x/setup.py": "setup(install_requires=open('deps.txt').readlines())"})
    message = refused(tmp_path).message
    assert "install_requires of setup() is computed" in message and "left to the build backend" in message


def test_a_folder_that_is_only_what_it_asks_for(tmp_path: Path) -> None:
    make(
        tmp_path, {"requirements.txt": "./x", "x/pyproject.toml": spec("x", "six", more="[tool.uv]\npackage = false\n")}
    )
    read = load_project(tmp_path)
    assert read.folders == (Folder(path="x", name="x", package=None),)
    assert [one.asked_by for one in read.requirements] == ["", ""]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"libs/x/pyproject.toml": spec("x", "up @ file:../../../up")}, "../up' leaves the project's folder"),
        ({"libs/x/pyproject.toml": spec("x", "up @ file:///etc")}, "'file:///etc' leaves the project's folder"),
        ({"libs/x/pyproject.toml": spec("x", "y @ file:../y"), "libs/y": "text"}, "neither a folder nor an archive"),
        ({"libs/x/pyproject.toml": spec("x", "y @ file:../y")}, "'file:../y' does not exist"),
        (
            {"libs/x/pyproject.toml": spec("x", "y @ file:../y"), "libs/y/README": ""},
            "neither pyproject.toml nor setup.py",
        ),
        ({"libs/x/pyproject.toml": spec("z")}, "libs/x is called 'z', not 'x'"),
        ({"libs/x/pyproject.toml": "[project]\ndependencies = []\n"}, "'' is no valid name"),
        ({"libs/x/pyproject.toml": "["}, "libs/x/pyproject.toml: is not TOML"),
        (
            {"libs/x/pyproject.toml": spec("x", "y @ file:../y"), "libs/y/pyproject.toml": spec("X")},
            "libs/y and libs/x are both called 'x'",
        ),
        (
            {"libs/x/pyproject.toml": spec("x", "y @ file:../y"), "libs/y/pyproject.toml": spec("App")},
            "libs/y and the project are both called 'app'",
        ),
        (
            {"libs/x/pyproject.toml": spec("x", more='[build-system]\nbuild-backend = "maturin"\n')},
            "what maturin builds is compiled",
        ),
        (
            {"libs/x/pyproject.toml": spec("x"), "libs/x/setup.py": "setup(ext_modules=[E('a')])"},
            "ext_modules is compiled",
        ),
        (
            {"libs/x/pyproject.toml": spec("x", more="[[tool.setuptools.ext-modules]]\nname = 'a'\n")},
            "ext-modules is compiled",
        ),
    ],
)
def test_hostile_folders(tmp_path: Path, files: dict[str, str], message: str) -> None:
    """Each is one clear error, which names file and place."""
    root = tmp_path / "root"
    make(tmp_path, {"up/pyproject.toml": spec("up")})
    make(root, {"pyproject.toml": spec("app", "x @ file:./libs/x"), **files})
    problem = refused(root)
    assert message in problem.message and problem.message.startswith(("libs/", "pyproject.toml", "2 problems"))


def test_links_that_leave_the_repository(tmp_path: Path) -> None:
    """Neither a folder nor a file of one is read elsewhere."""
    root = tmp_path / "root"
    make(tmp_path, {"out/pyproject.toml": spec("out", "secret"), "out/setup.py": ""})
    make(root, {"requirements.txt": "./libs/out"})
    (root / "libs").mkdir()
    (root / "libs/out").symlink_to(tmp_path / "out")
    assert "'./libs/out' leaves the project's folder" in refused(root).message
    make(root, {"requirements.txt": "./libs/x", "libs/x/setup.py": "setup(name='x')"})
    (root / "libs/x/pyproject.toml").symlink_to(tmp_path / "out/pyproject.toml")
    assert "is a link that leaves the repository" in refused(root).message
    make(root, {"pyproject.toml": '[tool.uv.workspace]\nmembers = ["libs/*"]\n'})
    assert "is a link that leaves the repository" in refused(root).message


def test_a_link_inside_is_the_folder_it_leads_to(tmp_path: Path) -> None:
    make(tmp_path, {"requirements.txt": "./one\n./two", "one/pyproject.toml": spec("one")})
    (tmp_path / "two").symlink_to("one")
    assert found(load_project(tmp_path)) == {"one": "one"}


def test_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of folders ends somewhere, as does what they ask of one another."""
    for number in range(6):
        make(tmp_path, {f"f{number}/pyproject.toml": spec(f"f{number}", f"f{number + 1} @ file:../f{number + 1}")})
    make(tmp_path, {"requirements.txt": "./f0", "f6/pyproject.toml": spec("f6")})
    assert len(load_project(tmp_path).folders) == 7
    monkeypatch.setattr(folders, "MAX_FOLDERS", 3)
    assert "more than 3 folders" in refused(tmp_path).message
    monkeypatch.setattr(folders, "MAX_FOLDERS", 9)
    monkeypatch.setattr(folders, "MAX_STEPS", 5)
    assert "more than 5 things" in refused(tmp_path).message


def test_conditions_do_not_grow_without_end(tmp_path: Path) -> None:
    """Folders that ask for one another in every way there is are refused, in bounded time and memory."""
    for number in range(12):
        others = [other for other in range(12) if other != number]
        markers = {one: " or ".join(f"python_version != '{number}.{one}.{n}'" for n in range(100)) for one in others}
        lines = [f"f{one} @ file:../f{one} ; {marker}" for one, marker in markers.items()]
        make(tmp_path, {f"f{number}/pyproject.toml": spec(f"f{number}", *lines)})
    make(tmp_path, {"requirements.txt": "./f0"})
    assert "the folders ask for more than 10000 things of one another" in refused(tmp_path).message
    for number in range(12):
        marker = " or ".join(f"python_version != '{number}.{one}'" for one in range(100))
        line = f"f{number + 1} @ file:../f{number + 1} ; {marker}"
        make(tmp_path, {f"f{number}/pyproject.toml": spec(f"f{number}", line), f"f{number + 1}/setup.py": ""})
    assert "is asked for under conditions of" in refused(tmp_path).message


def test_variants_of_accelerators_lead_to_folders(tmp_path: Path) -> None:
    more = '[project.optional-dependencies]\ncu126 = ["x[gpu] @ file:./x"]\n'
    more += '[tool.mlbox]\naccelerators = ["cpu", "cu126"]\n'
    extra = '[project.optional-dependencies]\ngpu = ["cupy"]\n'
    make(
        tmp_path, {"pyproject.toml": spec("app", "six", more=more), "x/pyproject.toml": spec("x", "torch", more=extra)}
    )
    read = load_project(tmp_path)
    assert asks(read.for_accelerator("cpu")) == ["six"]
    assert asks(read.for_accelerator("cu126")) == ["six", "./x[gpu]", "torch", "cupy"]
