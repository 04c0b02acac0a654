"""[tool.uv], [tool.pdm], [tool.flit] and [tool.hatch]: what they add to [project]."""

import itertools
from pathlib import Path

import pytest
from packaging.markers import Marker

from mlbox.errors import ProjectError
from mlbox.project.discover import load_project
from mlbox.project.model import IndexPin, Project
from mlbox.project.tables import opposite

PROJECT = '[project]\nname = "x"\nversion = "1"\n'
UV = (
    PROJECT
    + """\
dependencies = ["torch>=2.5", "torchvision", "tool[cli]>=1; sys_platform == 'linux'", "member", "numpy", "private"]

[project.optional-dependencies]
cpu = ["torch>=2.5"]
cu126 = ["torch>=2.5"]

[dependency-groups]
lint = ["ruff", "tool"]

[tool.uv]
constraint-dependencies = ["numpy<2.2"]
override-dependencies = ["pillow>=11"]
dev-dependencies = ["pytest>=8"]
environments = ["sys_platform == 'linux'", "sys_platform == 'darwin'"]
prerelease = "allow"
find-links = ["wheels"]

[tool.uv.sources]
torch = [
    { index = "torch-cpu", marker = "platform_machine == 'aarch64'" },
    { index = "torch-cu126", extra = "cu126" },
]
torchvision = { index = "torch-cpu" }
tool = { git = "https://git.example.org/a/tool", tag = "v2", subdirectory = "py" }
member = { workspace = true }
private = { index = "ours" }

[tool.uv.workspace]
members = ["packages/*"]

[[tool.uv.index]]
name = "torch-cpu"
url = "https://wheels.example.org/cpu"
explicit = true

[[tool.uv.index]]
name = "torch-cu126"
url = "https://wheels.example.org/cu126"
explicit = true

[[tool.uv.index]]
name = "ours"
url = "https://me:hunter2@index.example.org/simple"

[[tool.uv.index]]
name = "mirror"
url = "https://mirror.example.org/simple"
default = true
"""
)


def project(root: Path, text: str | bytes, **options: list[str]) -> Project:
    """Load a project with this pyproject.toml, in a workspace with one member."""
    (root / "pyproject.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    (root / "packages/a").mkdir(parents=True, exist_ok=True)
    (root / "packages/a/pyproject.toml").write_text('[project]\nname = "Member"\nversion = "1"\n')
    return load_project(root, **options)  # type: ignore[arg-type]


def asks(read: Project) -> list[str]:
    """What it requires."""
    return [one.text for one in read.requirements]


def test_uv(tmp_path: Path) -> None:
    """Sources, indexes, constraints and overrides, each where it holds."""
    read = project(tmp_path, UV)

    assert asks(read) == [
        "torch>=2.5",
        "torchvision",
        'tool[cli] @ git+https://git.example.org/a/tool@v2#subdirectory=py ; sys_platform == "linux"',
        "./packages/a",
        "numpy",
        "private",
    ]
    assert [(one.text, one.origin) for one in read.constraints] == [
        ("numpy<2.2", "pyproject.toml [tool.uv.constraint-dependencies]")
    ]
    assert [(one.text, one.origin) for one in read.overrides] == [
        ("pillow>=11", "pyproject.toml [tool.uv.override-dependencies]")
    ]
    index = read.index
    assert (index.index_url, index.extra_index_urls) == (
        "https://mirror.example.org/simple",
        ("https://me:hunter2@index.example.org/simple",),
    )
    assert (index.find_links, index.pre) == (("wheels",), True)
    cpu = "https://wheels.example.org/cpu"
    assert set(index.pins) == {
        IndexPin(package="torch", index="torch-cpu", url=cpu, marker="platform_machine == 'aarch64'"),
        IndexPin(package="torchvision", index="torch-cpu", url=cpu),
        IndexPin(package="private", index="ours", url="https://me:hunter2@index.example.org/simple"),
    }


@pytest.mark.parametrize(
    ("sources", "asked"),
    [
        (
            "{ path = 'libs/a', marker = \"os_name == 'x'\" }",
            ['./libs/a ; os_name == "x"', 'a>=1; os_name != "x"'],
        ),
        ("[{ path = 'libs/a' }, { index = 'i', marker = \"os_name == 'x'\" }]", ["./libs/a"]),
        (
            "[{ url = 'https://h/a.whl', marker = \"os_name == 'x'\" }, { index = 'i' }]",
            ['a @ https://h/a.whl ; os_name == "x"', 'a>=1; os_name != "x"'],
        ),
    ],
)
def test_uv_sources_that_do_not_count_everywhere(tmp_path: Path, sources: str, asked: list[str]) -> None:
    """Where none does, the package comes from the index; never from both."""
    (tmp_path / "libs/a").mkdir(parents=True)
    (tmp_path / "libs/a/pyproject.toml").write_text('[project]\nname = "a"\n')
    index = "[[tool.uv.index]]\nname = 'i'\nurl = 'https://i.example.org/simple'\n"
    text = PROJECT + f"dependencies = ['a>=1']\n[tool.uv.sources]\na = {sources}\n{index}"
    assert asks(project(tmp_path, text)) == asked


@pytest.mark.parametrize(
    "marker",
    [
        "sys_platform == 'win32'",
        "sys_platform == 'linux' and python_version < '3.12' or 'arm' in platform_machine",
        "(os_name == 'nt' or python_version >= '3.11') and (platform_machine == 'x86_64' or python_version > '3.12')",
        "python_version not in '3.10 3.11' or os_name != 'nt' and (python_full_version <= '3.12.4')",
    ],
)
def test_an_opposite_marker_holds_where_the_marker_does_not(marker: str) -> None:
    """Whatever the machine."""
    for values in itertools.product(("3.11", "3.12", "3.13"), ("linux", "win32"), ("x86_64", "arm64"), ("posix", "nt")):
        python, system, machine, name = values
        where = {"python_version": python, "python_full_version": f"{python}.4", "sys_platform": system}
        where |= {"platform_machine": machine, "os_name": name}
        assert Marker(opposite(marker)).evaluate(where) is not Marker(marker).evaluate(where), values


def test_uv_extras_and_groups(tmp_path: Path) -> None:
    """A source for an extra counts with it; groups have sources too, and the old name of one."""
    pins = project(tmp_path, UV, extras=["cu126"]).index.pins
    assert IndexPin(package="torch", index="torch-cu126", url="https://wheels.example.org/cu126") in pins
    assert asks(project(tmp_path, UV, groups=["lint", "dev"]))[6:] == [
        "ruff",
        "tool @ git+https://git.example.org/a/tool@v2#subdirectory=py",
        "pytest>=8",
    ]


def test_uv_counts_with_project(tmp_path: Path) -> None:
    """When requirement files are named instead, so are its indexes and constraints left."""
    (tmp_path / "r.txt").write_text("a")
    (tmp_path / "mlbox.toml").write_text('requirements = ["r.txt"]')
    read = project(tmp_path, UV)
    assert (asks(read), read.constraints, read.overrides, read.index.pins) == (["a"], (), (), ())


def test_uv_without_a_package(tmp_path: Path) -> None:
    """package = false: the project itself is not installed."""
    build = '[build-system]\nrequires = []\nbuild-backend = "hatchling.build"\n'
    assert project(tmp_path, PROJECT + build).package is not None
    assert project(tmp_path, PROJECT + build + "[tool.uv]\npackage = false\n").package is None


PDM = """\
[project]
name = "x"
version = "1"
dependencies = ["a"]
[tool.pdm.dev-dependencies]
test = ["pytest>=8", "-e file:///${PROJECT_ROOT}/sub#egg=sub"]
[tool.pdm.resolution]
allow-prereleases = true
[tool.pdm.resolution.overrides]
b = "1.2"
c = ">=2"
d = "https://files.example.org/d-1.0-py3-none-any.whl"
[[tool.pdm.source]]
name = "pypi"
url = "https://mirror.example.org/simple"
[[tool.pdm.source]]
name = "ours"
url = "https://index.example.org/simple"
[[tool.pdm.source]]
name = "page"
type = "find_links"
url = "https://pages.example.org/wheels"
"""


def test_pdm(tmp_path: Path) -> None:
    """Groups of its own, with folders below the root, sources and overrides."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/pyproject.toml").write_text('[project]\nname = "sub"\ndependencies = ["six"]\n')
    read = project(tmp_path, PDM, groups=["test"])
    assert asks(read) == ["a", "pytest>=8", "./sub", "six"]
    assert [one.text for one in read.overrides] == [
        "b==1.2",
        "c>=2",
        "d @ https://files.example.org/d-1.0-py3-none-any.whl",
    ]
    assert read.index.index_url == "https://mirror.example.org/simple"
    assert read.index.extra_index_urls == ("https://index.example.org/simple",)
    assert read.index.find_links == ("https://pages.example.org/wheels",)
    assert read.index.pre
    assert not [note for note in read.notes if "-e" in note]


FLIT = """\
[build-system]
requires = ["flit_core<4"]
build-backend = "flit_core.buildapi"
[tool.flit.metadata]
module = "seg.net"
requires = ["numpy>=1.20", "tomli; python_version < '3.11'"]
requires-python = ">=3.9"
[tool.flit.metadata.requires-extra]
test = ["pytest"]
[tool.flit.scripts]
seg = "seg.net:main"
"""


def test_flit(tmp_path: Path) -> None:
    """The metadata that it had before [project]."""
    read = project(tmp_path, FLIT, extras=["test"])
    assert asks(read) == ["numpy>=1.20", 'tomli; python_version < "3.11"', "pytest"]
    assert read.requirements[0].origin == "pyproject.toml [tool.flit.metadata] requires"
    assert read.requires_python == ">=3.9"
    assert read.package is not None
    assert (read.package.name, read.package.scripts) == ("seg-net", {"seg": "seg.net:main"})


def test_hatch(tmp_path: Path) -> None:
    """The one thing in its dependencies that is not static has one answer."""
    text = PROJECT + 'dependencies = ["member @ {root:uri}/packages/a"]\n[tool.hatch.metadata]\n'
    assert asks(project(tmp_path, text + "allow-direct-references = true\n")) == ["./packages/a"]


SOURCES = PROJECT + "dependencies = ['a']\n[tool.uv.sources]\n"
BAD = {
    "uv is a word": ("[tool]\nuv = 'x'", "[tool.uv]: uv must be a table"),
    "sources are a list": ("[tool.uv]\nsources = []", "[tool.uv.sources]: sources must be a table"),
    "a source is a word": (SOURCES + "a = 'x'", "[tool.uv.sources]: a source must be a table"),
    "an empty list": (SOURCES + "a = []", "[tool.uv.sources]: a source must be a table"),
    "an unknown index": (SOURCES + "a = {index = 'x'}", "a comes from index 'x', which is not declared"),
    "no member": (SOURCES + "a = {workspace = true}", "a: the workspace has no such member"),
    "members that climb": (
        SOURCES + "a = {workspace = true}\n[tool.uv.workspace]\nmembers = ['../*']",
        "'../*' leaves the project's folder",
    ),
    "a path outside": (SOURCES + "a = {path = '../a'}", "'../a' leaves the project's folder"),
    "a git address": (SOURCES + "a = {git = 'file:///srv/a'}", "[project.dependencies]"),
    "a marker": (
        SOURCES + "a = {path = 'packages/a', marker = \"python_version ~= '3.11'\"}",
        "\"python_version ~= '3.11'\": '~=' has no opposite",
    ),
    "no marker": (SOURCES + "a = {path = 'packages/a', marker = 'x'}", "'x' is no environment marker"),
    "constraints": ("[tool.uv]\nconstraint-dependencies = 'a'", "constraint-dependencies must be a list"),
    "a constraint": (
        PROJECT + "dependencies = ['a']\n[tool.uv]\nconstraint-dependencies = ['a=1']",
        "[tool.uv.constraint-dependencies]: invalid requirement 'a=1'",
    ),
    "an override that is a path": (
        PROJECT + "dependencies = ['a']\n[tool.uv]\noverride-dependencies = ['../evil']",
        "'../evil' leaves the project's folder",
    ),
    "an index": ("[[tool.uv.index]]\nurl = 'ftp://me:hunter2@h'", "'ftp://h' is no address of an index"),
    "indexes": ("[tool.uv]\nindex = 1", "[tool.uv.index]: index must be a list"),
    "many indexes": ("[[tool.uv.index]]\nurl = 'https://h'\n" * 51, "more than 50 indexes"),
    "other systems": ("[tool.uv]\nenvironments = [\"sys_platform == 'win32'\"]", "admit no Linux"),
    "an environment": ("[tool.uv]\nenvironments = ['x']", "[tool.uv.environments]: 'x' is no environment marker"),
    "pdm is a word": ("[tool]\npdm = 'x'", "[tool.pdm]: pdm must be a table"),
    "pdm's groups": ("[tool.pdm.dev-dependencies]\nx = 'a'", "[tool.pdm]: x must be a list"),
    "pdm's overrides": ("[tool.pdm.resolution.overrides]\nx = 1", "[tool.pdm]: x must be a string"),
    "flit's extras": ("[tool.flit.metadata]\nmodule = 'x'\nrequires-extra = []", "requires-extra must be a table"),
    "flit's name": ("[tool.flit.metadata]\nmodule = '../x'\nrequires = ['a']", "is no valid name"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    """With the place, and no secret."""
    with pytest.raises(ProjectError) as refused:
        project(tmp_path, text)
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)


TORCH = (
    PROJECT
    + "dependencies = ['torch', 'torchvision', 'other']\n[tool.uv.sources]\n"
    + "torch = {{ index = 'torch', marker = \"{marker}\" }}\ntorchvision = {{ index = 'torch' }}\n"
    + "other = {{ index = 'ours' }}\n[[tool.uv.index]]\nname = 'torch'\nurl = '{url}'\nexplicit = true\n"
    + "[[tool.uv.index]]\nname = 'ours'\nurl = 'https://ours.example.org/simple'\nexplicit = true\n{more}"
)


@pytest.mark.parametrize(
    ("url", "marker", "more", "accelerator", "indexes"),
    [
        ("https://download.pytorch.org/whl/cu126", "sys_platform == 'linux'", "", "cu126", {}),
        ("https://m.example.org/whl/cpu/", "", "", "cpu", {"cpu": "https://m.example.org/whl/cpu/"}),
        ("https://download.pytorch.org/whl/cu126", "sys_platform == 'darwin'", "", "cpu", {}),
        ("https://download.pytorch.org/whl/cu126", "", "[tool.mlbox]\naccelerator = 'cu130'\n", "cu130", {}),
    ],
)
def test_pins_of_torch_are_an_accelerator(
    tmp_path: Path, url: str, marker: str, more: str, accelerator: str, indexes: dict[str, str]
) -> None:
    """Unless the settings name one, or the pin is for another system; other pins stay."""
    text = TORCH.format(url=url, marker=marker, more=more).replace(', marker = ""', "")
    read = project(tmp_path, text)
    assert (read.settings.accelerator, read.settings.accelerator_indexes) == (accelerator, indexes)
    assert [pin.package for pin in read.index.pins] == ["other"]
