"""Which files count, and the Project they make."""

from pathlib import Path

import pytest

from mlbox.errors import ProjectError
from mlbox.project.discover import load_project
from mlbox.project.model import Package, Project

Files = dict[str, str]


def make(root: Path, files: Files) -> Path:
    """Write `files` below `root` and return it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def asks(project: Project) -> list[str]:
    """What the project requires."""
    return [requirement.text for requirement in project.requirements]


ATTR = "[tool.setuptools.dynamic]\nversion = {attr = 'pkg.__version__'}"
PROJECT = '[project]\nname = "My.Thing"\nversion = "1.0"\n'
PLAIN = f'{PROJECT}dependencies = ["from-project"]\n'
BUILD = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'


@pytest.mark.parametrize(
    ("files", "used"),
    [
        ({"pyproject.toml": PLAIN, "requirements.txt": "x"}, "from-project"),
        ({"pyproject.toml": PROJECT, "requirements.txt": "x"}, "x"),
        ({"pyproject.toml": f"{PROJECT}dependencies = []\n", "requirements.txt": "x"}, "x"),
        ({"pyproject.toml": "[tool.ruff]\n", "requirements.txt": "x"}, "x"),
        ({"requirements.txt": "x", "requirements.in": "y"}, "x"),
        ({"requirements.in": "y", "requirements/base.txt": "z"}, "y"),
        ({"requirements/base.txt": "z", "requirements/dev.txt": "w"}, "z"),
        ({"requirements/main.in": "z", "requirements/prod.txt": "p"}, "p"),
        (
            {
                "mlbox.toml": 'requirements = ["r/a.txt"]',
                "r/a.txt": "a",
                "requirements.txt": "x",
                "pyproject.toml": PLAIN,
            },
            "a",
        ),
        ({"pyproject.toml": PLAIN + '[tool.mlbox]\nrequirements = ["a.txt"]', "a.txt": "-e .\na"}, "a from-project"),
    ],
)
def test_precedence(tmp_path: Path, files: Files, used: str) -> None:
    """The settings, [project], requirements.txt, requirements.in, requirements/."""
    assert asks(load_project(make(tmp_path, files))) == used.split()


CONDA = """\
dependencies:
  - python=3.11
  - pip:
      - -r pip.txt
      - tqdm  # bars
      - --extra-index-url https://index.example.org/simple
"""


def test_a_conda_environment(tmp_path: Path) -> None:
    """Its pip section is read as conda gives it to pip; requirements.txt comes before it, unless it is named."""
    make(
        tmp_path,
        {"env/environment.yml": CONDA, "env/pip.txt": "-e ./lib\nnumpy", "env/lib/setup.py": "setup(name='lib')"},
    )
    make(tmp_path, {"mlbox.toml": "requirements = ['env/environment.yml']", "requirements.txt": "x"})
    project = load_project(tmp_path)

    found = {(one.text, one.origin) for one in project.requirements}
    assert found == {
        ("./env/lib", "env/pip.txt:1"),
        ("numpy", "env/pip.txt:2"),
        ("tqdm", "env/environment.yml:5"),
    }
    assert project.index.extra_index_urls == ("https://index.example.org/simple",)
    assert project.conda is not None
    assert project.conda.requirements == project.requirements
    assert [one.text for one in project.conda.dependencies] == ["python=3.11"]
    assert {source.path: source.used for source in project.sources} == {
        "mlbox.toml": True,
        "env/environment.yml": True,
        "env/pip.txt": True,
        "env/lib/setup.py": True,
        "requirements.txt": False,
    }

    make(tmp_path, {"environment.yml": CONDA.replace("-r pip.txt", "a"), "mlbox.toml": ""})
    assert load_project(tmp_path).conda is None
    (tmp_path / "requirements.txt").unlink()
    assert asks(load_project(tmp_path)) == ["a", "tqdm"]


def test_every_file_found_is_listed_with_its_reason(tmp_path: Path) -> None:
    """`init` and `plan` show it."""
    files = {
        "requirements.txt": "-r more/base.txt",
        "more/base.txt": "x",
        "requirements.in": "",
        "requirements-dev.txt": "y",
        "dev-requirements.txt": "y",
        "uv.lock": "",
        "setup.py": "",
        ".python-version": "3.11",
        "mlbox.toml": "",
        "pyproject.toml": "[tool.ruff]",
    }
    project = load_project(make(tmp_path, files))

    assert {source.path: (source.used, source.reason) for source in project.sources} == {
        ".python-version": (True, "Python 3.11"),
        "mlbox.toml": (True, "settings"),
        "pyproject.toml": (False, "names no requirements"),
        "requirements.txt": (True, "the project's requirements"),
        "more/base.txt": (True, "read by requirements.txt:1"),
        "requirements.in": (False, "requirements.txt comes first"),
        "requirements-dev.txt": (False, "only read when requirements names it"),
        "dev-requirements.txt": (False, "only read when requirements names it"),
        "uv.lock": (False, "pyproject.toml has no [project] or [tool.uv]"),
        "setup.py": (False, "requirements.txt comes first"),
    }


@pytest.mark.parametrize(
    "files",
    [{"requirements.txt": ""}, {"pyproject.toml": ""}, {"mlbox.toml": ""}, {"pyproject.toml": PROJECT, "setup.py": ""}],
)
def test_no_requirements_are_fine(tmp_path: Path, files: Files) -> None:
    """An environment with only Python."""
    assert asks(load_project(make(tmp_path, files))) == []


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        ({}, "has no pyproject.toml", "mlbox init --template"),
        ({"environment.yml": "dependencies: x"}, "environment.yml:1: must be a list", "begin each line"),
        (
            {"mlbox.toml": "requirements = ['a.yml', 'b.yml']", "a.yml": "", "b.yml": ""},
            "b.yml: a.yml is a conda environment too",
            "one of the two",
        ),
        ({"requirements-dev.txt": ""}, "found only requirements-dev.txt", "requirements = "),
        (
            {"setup.py": "from setuptools import setup\nsetup(install_requires=open('r.txt').readlines())"},
            "setup.py: install_requires of setup() is computed, and nothing of a project is run",
            "empty one",
        ),
        (
            {
                "setup.py": "setup(install_requires=open('deps/req-base.txt').readlines(), x=open('gone-req.txt'))",
                "deps/req-base.txt": "numpy",
            },
            "setup.py: install_requires of setup() is computed",
            'it names "deps/req-base.txt": requirements = ["deps/req-base.txt"] in [tool.mlbox]',
        ),
        (
            {".git/x": "", "requirements.txt": "-r third/deps.txt", ".gitmodules": '[submodule "x"]\n\tpath = third\n'},
            "third/deps.txt does not exist",
            "'git submodule update --init third' gets it",
        ),
        (
            {"requirements.txt": "-e third/x", ".gitmodules": "[submodule 'x']\npath=third/x\n"},
            "'third/x' does not exist",
            "'git submodule update --init third/x' gets it",
        ),
        (
            {"pyproject.toml": f"{PROJECT}[tool.uv.sources]\nx = {{\n  path = 'x',\n}}"},
            "pyproject.toml: is not TOML",
            "are TOML 1.1: write [a.table], or one line",
        ),
        ({"pyproject.toml": f"{PROJECT}[tool.uv]\nsources = {{ x = {{ path = 'x' }}, }}"}, "is not TOML", "TOML 1.1"),
        ({"pyproject.toml": "[tool.poetry.dependencies]\nnumpy='x'"}, "'x' is no version constraint", "^1.2"),
        ({"pyproject.toml": f'{PROJECT}dynamic = ["dependencies"]'}, "left to the build backend", "requirements.txt"),
        ({"pyproject.toml": "[tool.mlbox]", "mlbox.toml": ""}, "pyproject.toml has [tool.mlbox] too", "one of the two"),
        ({"pyproject.toml": "a = = 1"}, "pyproject.toml: is not TOML", ""),
        ({"pyproject.toml": "tool = 1"}, "pyproject.toml [tool]: must be a table", ""),
        ({"pyproject.toml": "[tool]\nmlbox = 1"}, "tool.mlbox must be a table", ""),
        ({"pyproject.toml": "[project]\nname = 'a b'"}, "'a b' is no valid name", ""),
        ({"pyproject.toml": "[project]\nversion = '1'"}, "'' is no valid name", ""),
        ({"pyproject.toml": f"{PROJECT}dependencies = 'x'"}, "[project.dependencies]: must be a list", ""),
        ({"pyproject.toml": f"{PROJECT}dependencies = [1]"}, "must be a list of strings", ""),
        (
            {"pyproject.toml": f"{PROJECT}dependencies = ['x y']"},
            "[project.dependencies]: invalid requirement 'x y'",
            "",
        ),
        ({"pyproject.toml": f"{PROJECT}requires-python = 'three'"}, "[project.requires-python]", ">=3.10"),
        ({"pyproject.toml": f"{PROJECT}[project.scripts]\n'../x' = 'a:b'"}, "no name for a command", ""),
        ({"pyproject.toml": f"{PROJECT}[project.scripts]\nx = 'a; evil()'"}, "is not 'module:function'", ""),
        ({"pyproject.toml": f'{PROJECT}[project.entry-points.g]\nx = "a\\n[b]"'}, "is no entry point", ""),
        ({"pyproject.toml": f"{PROJECT}[project.entry-points.console_scripts]\nx = 'a:b'"}, "[project.scripts]", ""),
        ({"requirements.txt": "-e ."}, "requirements.txt:1: the project has no [project]", "add [project]"),
        (
            {"requirements.txt": "-e .[dve]", "pyproject.toml": PROJECT + "optional-dependencies.dev=[]"},
            "'dve'",
            "'dev'",
        ),
        (
            {"pyproject.toml": f"{PLAIN}requires-python = '<3.11'\n[tool.mlbox]\npython = '3.11'"},
            "contradicts",
            "one of them",
        ),
        (
            {"pyproject.toml": f"{PLAIN}requires-python = '>=3.12'", ".python-version": "3.11"},
            ".python-version: Python",
            "",
        ),
    ],
)
def test_refused(tmp_path: Path, files: Files, message: str, hint: str) -> None:
    """What would give a wrong environment is an error with a way out."""
    with pytest.raises(ProjectError) as refused:
        load_project(make(tmp_path, files))
    assert message in str(refused.value)
    assert hint in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({}, "<3.12,>=3.9"),
        ({"mlbox.toml": "python = '3.13'"}, ""),
        ({".python-version": "3.13"}, ""),
        ({"pyproject.toml": f"{PROJECT}requires-python = '>=3.10'"}, ">=3.10"),
        ({"setup.py": "setup(python_requires='nonsense', install_requires=open('x').read())"}, ""),
        ({"setup.py": "setup("}, ""),
    ],
    ids=["alone", "settings", ".python-version", "[project]", "nonsense", "no Python"],
)
def test_the_pythons_of_a_setup_that_does_not_count(tmp_path: Path, more: Files, asked: str) -> None:
    """They bound which Python is taken, unless somebody chose one; nothing else in it is looked at."""
    files = {"requirements.txt": "numpy", "setup.py": "setup(python_requires='>=3.9, <3.12', install_requires=['x'])"}
    read = load_project(make(tmp_path, {**files, **more}))
    assert read.requires_python.replace(", ", ",") in (asked, ",".join(reversed(asked.split(","))))
    assert asks(read) == ["numpy"]


def test_a_member_in_a_submodule_that_was_not_fetched(tmp_path: Path) -> None:
    """Is no mistyped name."""
    uv = "[tool.uv]\nworkspace.members = ['third/x']\nsources.y = { workspace = true }\n"
    files = {"pyproject.toml": f"{PROJECT}dependencies = ['y']\n{uv}", ".gitmodules": "[submodule 'x']\npath=third/x\n"}
    (tmp_path / "third/x").mkdir(parents=True)
    with pytest.raises(ProjectError, match="y: the workspace has no such member") as refused:
        load_project(make(tmp_path, files))
    assert "'git submodule update --init third/x' gets it" in str(refused.value.hint)


def test_a_submodule_that_was_not_fetched(tmp_path: Path) -> None:
    """A clone without submodules has empty folders; whose are not empty lack something else."""
    files = {"requirements.txt": "-e third/x", ".gitmodules": "[submodule 'x']\npath=third/x\n"}
    (tmp_path / "third/x").mkdir(parents=True)
    with pytest.raises(ProjectError, match="has neither pyproject") as refused:
        load_project(make(tmp_path, files))
    assert refused.value.hint == "'git submodule update --init third/x' gets it: it is of another repository"
    (tmp_path / "third/x/README").touch()
    with pytest.raises(ProjectError, match="has neither pyproject") as refused:
        load_project(make(tmp_path, files))
    assert refused.value.hint is None


def test_problems_of_all_files_come_together(tmp_path: Path) -> None:
    """Settings, pyproject.toml and requirement files in one error."""
    files = {
        "mlbox.toml": "acelerator = 'cpu'\nextras = ['nope']\nrequirements = ['requirements.txt']",
        "pyproject.toml": f"{PROJECT}dependencies = [1]",
        "requirements.txt": "a=1",
    }
    with pytest.raises(ProjectError) as refused:
        load_project(make(tmp_path, files), groups=["none"])
    text = str(refused.value)
    assert "did you mean 'accelerator'?" in text
    assert "mlbox.toml [extras]: there is no extra 'nope'" in text or "--extra" in text
    assert "--group: there is no dependency group 'none'" in text
    assert "[project.dependencies]: must be a list of strings" in text
    assert "requirements.txt:1: invalid requirement" in text


EXTRAS = PLAIN + (
    "[project.optional-dependencies]\n"
    'a = ["in-a"]\n'
    'all = ["my_thing[a,b]", "my-thing[C-c]; os_name == \'x\'"]\n'
    'b = ["in-b", "MY-THING[all]"]\n'
    "c_C = [\"in-c; python_version > '3'\"]\n"
)


def test_extras_that_name_themselves(tmp_path: Path) -> None:
    """Self-references are followed, with their markers, and end when they go round."""
    project = load_project(make(tmp_path, {"pyproject.toml": EXTRAS}), extras=["ALL"])
    assert asks(project) == [
        "from-project",
        "in-a",
        "in-b",
        'in-c; os_name == "x" and python_version > "3"',
    ]
    assert project.requirements[1].origin == "pyproject.toml [project.optional-dependencies.a]"


def test_groups(tmp_path: Path) -> None:
    """Dependency groups include one another; the project's own extras too."""
    groups = '[dependency-groups]\nDev_x = ["ruff", {include-group = "test"}]\ntest = ["pytest", "my-thing[a]"]\n'
    project = load_project(make(tmp_path, {"pyproject.toml": EXTRAS + groups}), groups=["dev-X"])
    assert asks(project) == ["from-project", "ruff", "pytest", "in-a"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ('a = [{include-group = "b"}]\nb = [{include-group = "a"}]', "yclic"),
        ('a = [{include-group = "gone"}]', "'gone' not found"),
        ("a = [1]", "nvalid"),
        ("a = 'x'", "string"),
        ("a = ['x y']", "[dependency-groups.a]"),
        ("a = []\nA = []", "uplicate"),
    ],
)
def test_bad_groups(tmp_path: Path, groups: str, message: str) -> None:
    """With their own words."""
    make(tmp_path, {"pyproject.toml": f"[dependency-groups]\n{groups}"})
    with pytest.raises(ProjectError) as refused:
        load_project(tmp_path, groups=["a"])
    assert message in str(refused.value)


def test_dependencies_that_setuptools_reads_from_files(tmp_path: Path) -> None:
    """Dynamic, but static enough to be read."""
    files = {
        "pyproject.toml": '[project]\nname="x"\ndynamic=["dependencies", "optional-dependencies"]\n'
        '[tool.setuptools.dynamic]\ndependencies = {file = ["base.txt"]}\n'
        'optional-dependencies.gpu = {file = "gpu.txt"}\n',
        "base.txt": "base",
        "gpu.txt": "gpu",
    }
    make(tmp_path, files)
    assert asks(load_project(tmp_path)) == ["base"]
    assert asks(load_project(tmp_path, extras=["gpu"])) == ["base", "gpu"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("3.11\n", "3.11"),
        ("# ours\n3.11.4\n3.12\n", "3.11.4"),
        ("system\ncpython-3.12.1\n", "3.12.1"),
        ("cpython@3.13", "3.13"),
        ("python3.11", "3.11"),
        ("miniconda3-4.7.12\n", ""),
        ("pypy3.10\n", ""),
        ("", ""),
    ],
)
def test_python_version_file(tmp_path: Path, content: str, found: str) -> None:
    """The first line that is a version, in pyenv's and uv's spellings."""
    assert load_project(make(tmp_path, {".python-version": content, "requirements.txt": ""})).python_file == found


def test_overrides(tmp_path: Path) -> None:
    """The command line wins over the settings, and adds extras and groups."""
    settings = "[tool.mlbox]\npython = '3.11'\nextras = ['a']\n"
    make(tmp_path, {"pyproject.toml": EXTRAS + settings, "other.txt": "other"})
    project = load_project(
        tmp_path, extras=["b"], python="3.13", accelerator="cu126", resolver="pip-tools", requirements=["other.txt"]
    )
    read = project.settings
    assert (read.python, read.accelerator, read.resolver, read.extras) == ("3.13", "cu126", "pip-tools", ("a", "b"))
    assert asks(project)[0] == "other"

    with pytest.raises(ProjectError, match=r"^--accelerator: unknown"):
        load_project(tmp_path, accelerator="gpu")


def test_package(tmp_path: Path) -> None:
    """What pyproject.toml says statically about the distribution."""
    text = BUILD + PLAIN + (
        "requires-python = '>=3.10'\n"
        "[project.scripts]\nrun-it = 'my_thing.cli:main'\n"
        "[project.gui-scripts]\nwin = 'my_thing:gui [extra]'\n"
        "[project.entry-points.'a.group']\nname = 'my_thing.plugin'\n"
    )  # fmt: skip
    project = load_project(make(tmp_path, {"pyproject.toml": text, "src/my_thing/__init__.py": ""}))
    assert project.name == "my-thing"
    assert project.package == Package(
        name="My.Thing",
        version="1.0",
        requires_python=">=3.10",
        scripts={"run-it": "my_thing.cli:main"},
        gui_scripts={"win": "my_thing:gui [extra]"},
        entry_points={"a.group": {"name": "my_thing.plugin"}},
        requires=("from-project",),
        source="src",
    )


@pytest.mark.parametrize(
    ("tool", "folder", "source"),
    [
        ("", "my_thing", ""),
        ("", "src/other_name", "src"),
        ("", "src/data", ""),
        ("[tool.setuptools.packages.find]\nwhere = ['lib']", "lib/x", "lib"),
        ("[tool.setuptools.package-dir]\n'' = 'lib'", "lib/x", "lib"),
        ("[tool.hatch.build.targets.wheel]\npackages = ['code/x']", "code/x", "code"),
        ("[tool.uv.build-backend]\nmodule-root = 'py'", "py/my_thing", "py"),
        ("[tool.setuptools.packages.find]\nwhere = ['.']", "src/my_thing", ""),
        ("[tool.setuptools.packages.find]\nwhere = ['../up']", "my_thing", ""),
    ],
)
def test_where_the_packages_lie(tmp_path: Path, tool: str, folder: str, source: str) -> None:
    """What the backend is told, else src/ when packages lie there."""
    files = {
        "pyproject.toml": BUILD + PLAIN + tool,
        f"{folder}/{'x.csv' if folder == 'src/data' else '__init__.py'}": "",
    }
    package = load_project(make(tmp_path, files)).package
    assert package is not None
    assert package.source == source


@pytest.mark.parametrize(
    ("tool", "file", "content", "version"),
    [
        (ATTR, "pkg/__init__.py", "__version__: str = 'v1.2'", "1.2"),
        (
            "[tool.setuptools.dynamic]\nversion = {attr = 'pkg.about.VER'}",
            "pkg/about.py",
            'x=1\nVER = "2.0rc1"',
            "2.0rc1",
        ),
        ("[tool.setuptools.dynamic]\nversion = {file = ['VERSION']}", "VERSION", "1.4\n", "1.4"),
        ("[tool.setuptools.dynamic]\nversion = {file = '../VERSION'}", "x", "", "0"),
        ("[tool.hatch.version]\npath = 'pkg/about.py'", "pkg/about.py", "VERSION = '3.1'", "3.1"),
        ("[tool.hatch.version]\nsource = 'vcs'", "x", "", "0"),
        ("[tool.pdm.version]\nsource = 'file'\npath = 'a.py'", "a.py", "__version__ = '4'", "4"),
        ("[tool.setuptools_scm]", "x", "", "0"),
        (ATTR, "pkg/__init__.py", "__version__ = get()", "0"),
        ("[tool.setuptools.dynamic]\nversion = {file = 'VERSION'}", "VERSION", "not a version", "0"),
    ],
)
def test_dynamic_version(tmp_path: Path, tool: str, file: str, content: str, version: str) -> None:
    """Read where it stands as text; a made-up one is told."""
    text = f'{BUILD}[project]\nname = "pkg"\ndynamic = ["version"]\n{tool}\n'
    project = load_project(make(tmp_path, {"pyproject.toml": text, file: content}))
    assert project.package is not None
    assert project.package.version == version
    assert bool(project.notes) == (version == "0")


def test_no_package_without_a_build_system(tmp_path: Path) -> None:
    """Unless something asks for it with '-e .'."""
    make(tmp_path, {"pyproject.toml": PLAIN})
    assert load_project(tmp_path).package is None
    (tmp_path / "r.txt").write_text("-e .")
    package = load_project(tmp_path, requirements=["r.txt"]).package
    assert package is not None
    assert package.name == "My.Thing"


def test_notes(tmp_path: Path) -> None:
    """What has no effect is said."""
    text = '[build-system]\nbuild-backend = "maturin"\n' + PLAIN + "[tool.uv]\nexclude-newer = '2026-01-01'\n"
    notes = load_project(make(tmp_path, {"pyproject.toml": text})).notes
    assert any("[tool.uv.exclude-newer] has no effect" in note for note in notes)
    assert any("maturin compiles" in note for note in notes)


def test_names_for_images(tmp_path: Path) -> None:
    """A folder's name can be anything; an image's cannot."""
    for folder, name in (("My Repo (2)", "my-repo-2"), ("日本", "project"), ("_x.", "x"), ("y" * 255, "y" * 200)):
        assert load_project(make(tmp_path / folder, {"requirements.txt": ""})).name == name


def test_root_must_be_a_folder(tmp_path: Path) -> None:
    """Not a file, not missing."""
    with pytest.raises(ProjectError, match="is not a folder"):
        load_project(tmp_path / "gone")


LINKED = (
    *("pyproject.toml", "requirements.txt", "requirements/base.txt", "Pipfile", "environment.yml", "pixi.toml"),
    *("setup.cfg", "apt.txt", "mlbox.toml", "uv.lock"),
)


@pytest.mark.parametrize("name", LINKED)
def test_links_out_of_the_repository(tmp_path: Path, name: str) -> None:
    """What an error shows of a file is never of one that the repository only points at; links inside it are fine."""
    secret = tmp_path / "shadow"
    secret.write_text("root:$y$j9T$HASH:20582:0:99999:7:::\n")
    root = tmp_path / "project"
    root.mkdir()
    if name == "uv.lock":
        (root / "pyproject.toml").write_text("[project]\nname = 'p'\nversion = '1'\n")
    elif name == "apt.txt":
        (root / "requirements.txt").write_text("six\n")
    elif name == "setup.cfg":
        (root / "setup.py").write_text("from setuptools import setup\nsetup()\n")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).symlink_to(secret)

    with pytest.raises(ProjectError, match="leaves the repository") as refused:
        load_project(root)
    assert "HASH" not in str(refused.value)

    if name == "requirements.txt":
        (root / name).unlink()
        (root / "shared.txt").write_text("six\n")
        (root / name).symlink_to("shared.txt")
        assert [one.text for one in load_project(root).requirements] == ["six"]


@pytest.mark.parametrize("name", ["Dockerfile", "cog.yaml"])
def test_nothing_is_drawn_from_links_out_of_the_repository(tmp_path: Path, name: str) -> None:
    """Nor shown."""
    from mlbox.project.drawing import draw

    (tmp_path / "shadow").write_text("root:$y$j9T$HASH:20582:0:99999:7:::\n")
    root = tmp_path / "project"
    root.mkdir()
    (root / name).symlink_to(tmp_path / "shadow")

    drawn = draw(root)
    assert "HASH" not in str(drawn)
    assert "leaves the repository" in str(drawn)


def test_a_byte_order_mark(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    (tmp_path / "pyproject.toml").write_bytes(
        "\ufeff[project]\r\nname = 'p'\r\nversion = '1'\r\ndependencies = ['six']\r\n".encode()
    )

    assert [one.text for one in load_project(tmp_path).requirements] == ["six"]


@pytest.mark.parametrize(
    "text", ["a" + ".a" * 200_000 + " = 1", "x = {" + "a . " * 200_000 + "b = 1}"], ids=("key", "inline")
)
def test_a_key_without_end(tmp_path: Path, text: str) -> None:
    """One line cannot keep the parser busy."""
    (tmp_path / "pyproject.toml").write_text(text)

    with pytest.raises(ProjectError, match="a key of more than 100 parts"):
        load_project(tmp_path)


def test_what_the_command_line_named_is_called_as_there(tmp_path: Path) -> None:
    """The option is --from, whatever the setting is called."""
    with pytest.raises(ProjectError, match=r"^--from: 'missing\.txt' does not exist"):
        load_project(tmp_path, requirements=["missing.txt"])
