"""Exports in the hands of those they are for: pip, uv, and BuildKit, whose image is compared file by file."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import Distribution
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest
from fakes import tools
from fakes.index import make_sdist, make_wheel
from fakes.program import Program

from mlbox.lock.accelerators import for_accelerator
from mlbox.lock.debian import mirrors
from mlbox.lock.file import read_lock
from mlbox.lock.model import Lock
from mlbox.project.requirement import normalize

pytestmark = pytest.mark.integration

Need = Callable[[str], str]
PREFIX = "opt/mlbox/env/"
SITE = f"{PREFIX}lib/python3.11/site-packages/"
OWN = ("INSTALLER", "REQUESTED", "direct_url.json")
"""What an installer writes about itself; in RECORD these differ too."""
SDIST = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "1.5"
[project.scripts]
{name} = "{name}:main"
[tool.setuptools]
py-modules = ["{name}"]
"""
PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "mine"
version = "1.2"
dependencies = [
  "idna==3.10", "markupsafe", "pygments", "built", "fromgit @ git+{git}/.git",
  "local @ ./libs/local-1.0-py3-none-any.whl",
]
[project.scripts]
mine = "mine:main"
[tool.mlbox]
python = "3.11"
system-packages = ["tree"]
find-links = ["links"]
env = {{ ODD = 'a "b" $HOME \\ d', EMPTY = "" }}
labels = {{ "org.example.title" = "it's \\"quoted\\" ${{HOME}}" }}
command = ["mine", "--text", 'a "b" $HOME']
user = "1000:1000"
ignore = ["libs", "links"]
"""


class File(NamedTuple):
    """What is compared of a file, folder or link."""

    kind: str
    mode: int
    owner: tuple[int, int]
    target: str
    data: bytes


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback and yield its address."""
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def mlbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program in a project with a package of every kind, built as an image called 'project'."""
    top = tmp_path_factory.mktemp("export")
    with serving(repository(top / "git")) as git:
        mlbox = Program(top / "home", project(top / "project", git))
        mlbox.build("-t", "project")
        yield mlbox
    mlbox.run("prune", "--built", "-f", code=None)


def repository(folder: Path) -> Path:
    """Make a repository of git with a module."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(SDIST.format(name="fromgit"))
    (folder / "fromgit.py").write_text("def main(): print('git')\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder)]
    for args in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"], ["update-server-info"]):
        subprocess.run([*git, *args], check=True)
    return folder


def project(folder: Path, git: str) -> Path:
    """Make a project that is a package, with files of odd names and modes."""
    files = {
        "pyproject.toml": PYPROJECT.format(git=git),
        "mine.py": "def main(): print('mine runs')\n",
        "run.sh": "#!/bin/sh\n",
        "data/a+b (1) [x]{2}^$.txt": "odd",
        "data/ edge ": "odd",
        ".env": "SECRET=1\n",
        ".mlboxignore": "*.log\n",
        "noise.log": "never\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "run.sh").chmod(0o775)
    (folder / "mine.py").chmod(0o600)
    (folder / "link").symlink_to("data/ edge ")
    for name, (filename, data) in {
        "libs": make_wheel("local", "1.0", files={"local.py": b"x = 1\n"}),
        "links": make_sdist(
            "built",
            "1.5",
            pyproject=SDIST.format(name="built"),
            files={"built.py": b"def main(): print('built')\n"},
        ),
    }.items():
        (folder / name).mkdir()
        (folder / name / filename).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def docker() -> Iterator[tools.Run]:
    """A Docker daemon that builds with BuildKit."""
    from conftest import missing

    def need(program: str) -> str:
        if (path := shutil.which(program)) is None:
            missing(f"{program} is not installed")
        return path or ""

    with tools.docker(need, DOCKER_BUILDKIT="1") as run:
        yield run


@pytest.fixture(scope="module")
def base(docker: tools.Run, mlbox: Program, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian with apt, as an image that Docker has."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "requirements.txt").touch()
    (folder / "mlbox.toml").write_text('python = "3.11"\npip = false\nworkdir = "/base"\n')
    Program(mlbox.home, folder).build("-t", "base:1")
    return loaded(mlbox, docker, "base:1", folder)


def loaded(mlbox: Program, docker: tools.Run, name: str, folder: Path) -> str:
    """Give Docker an image of mlbox's."""
    mlbox.run("save", name, "--format", "docker", "-o", f"{folder}/image.tar")
    docker("load", "-q", "-i", f"{folder}/image.tar")
    return name


def secrets(folder: Path, wheels: str, lock: Lock) -> list[str]:
    """Return the options that tell a builder where packages are."""
    (folder / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {wheels}\n")
    suites = {deb.suite: deb for deb in lock.debs}
    lines = [f"deb {root} {suite} main\n" for suite, deb in suites.items() for root in mirrors(deb)[:1]]
    (folder / "sources.list").write_text("".join(lines))
    return [f"--secret=id=pip,src={folder}/pip.conf", f"--secret=id=apt,src={folder}/sources.list"]


def files_of(docker: tools.Run, image: str, folder: Path) -> dict[str, File]:
    """Return what an image has in its environment and of the project."""
    container = docker("create", image, "true")
    docker("export", container, "-o", f"{folder}/files.tar")
    docker("rm", container)
    found = {}
    with tarfile.open(folder / "files.tar") as tar:
        for one in tar:
            if f"{one.name.rstrip('/')}/".startswith((PREFIX, "workspace/")):
                content = tar.extractfile(one) if one.isreg() else None
                data = content.read() if content else b""
                found[one.name.rstrip("/")] = File(one.type.decode(), one.mode, (one.uid, one.gid), one.linkname, data)
    return found


def without_own(files: dict[str, File]) -> dict[str, object]:
    """Return files without what their installer says about itself."""
    found: dict[str, object] = {}
    for path, file in files.items():
        name = path.rpartition("/")[2]
        if ".dist-info/" not in path or name not in (*OWN, "RECORD"):
            found[path] = (*file[:4], hashlib.sha256(file.data).hexdigest())
        elif name == "RECORD":
            rows = csv.reader(io.StringIO(file.data.decode(), newline=""))
            found[path] = (*file[:4], sorted(row for row in rows if row[0].rpartition("/")[2] not in OWN))
    return found


def differences(one: dict[str, object], other: dict[str, object]) -> dict[str, object]:
    """Return what differs, by path."""
    return {path: (one.get(path), other.get(path)) for path in one.keys() | other if one.get(path) != other.get(path)}


def config_of(docker: tools.Run, name: str) -> dict[str, object]:
    """Return what containers of an image start with."""
    found = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", name))
    keys = ("Labels", "Cmd", "Entrypoint", "User", "WorkingDir", "ExposedPorts")
    return {"Env": sorted(found["Env"]), **{key: found.get(key) or None for key in keys}}


def test_buildkit_makes_the_same_environment(mlbox: Program, docker: tools.Run, base: str, tmp_path: Path) -> None:
    """Every file of the environment and the project: path, kind, mode, owner, bytes; and what containers start with."""
    (tmp_path / "out").mkdir()
    mlbox.run("export", "--format", "dockerfile", "-o", f"{tmp_path}/out/Dockerfile", "--wheels", f"{tmp_path}/wheels")
    assert (tmp_path / "out/Dockerfile.dockerignore").is_file()
    lock = read_lock(mlbox.cwd / "mlbox.lock")
    with serving(tmp_path / "wheels") as wheels:
        options = ["-f", f"{tmp_path}/out/Dockerfile", "--network", "host", "--build-arg", f"BASE={base}"]
        docker("build", "-q", "-t", "theirs", *options, *secrets(tmp_path, wheels, lock), str(mlbox.cwd))
    ours = files_of(docker, loaded(mlbox, docker, "project", tmp_path), tmp_path)
    theirs = files_of(docker, "theirs", tmp_path)
    assert differences(without_own(ours), without_own(theirs)) == {}
    assert {"workspace/link", "workspace/run.sh", "workspace/data/ edge "} <= ours.keys()
    assert f"{SITE}fromgit-1.5.dist-info/RECORD" in ours

    config = [
        json.loads(docker("image", "inspect", "--format", "{{json .Config}}", name)) for name in ("project", "theirs")
    ]
    for key in ("Env", "Labels", "Cmd", "Entrypoint", "User", "WorkingDir", "ExposedPorts"):
        assert sorted(config[1].get(key) or ()) == sorted(config[0].get(key) or ()), key
    assert docker("run", "--rm", "--network", "none", "theirs", "mine") == "mine runs"
    assert docker("run", "--rm", "--network", "none", "theirs", "fromgit") == "git"
    assert "tree v" in docker("run", "--rm", "--network", "none", "theirs", "tree", "--version")


def test_installers_install_exactly_the_lock(mlbox: Program, tmp_path: Path) -> None:
    """pip from requirements with hashes, pip and uv from pylock.toml; all from a folder, without an index."""
    wheels, lock = tmp_path / "wheels", read_lock(mlbox.cwd / "mlbox.lock")
    mlbox.run("export", "--format", "pylock", "--wheels", str(wheels), "-o", str(tmp_path / "pylock.toml"))
    mlbox.run("export", "--format", "requirements", "-o", str(tmp_path / "requirements.txt"))
    assert {path.name for path in wheels.iterdir()} >= {one.filename for one in lock.packages if one.is_wheel}
    from_git = {one.name for one in lock.packages if one.commit}
    expected = {one.name: one.version for one in lock.packages}
    # pip takes no package of a repository beside hashes.
    pip_s = {name: one for name, one in expected.items() if name not in from_git}
    without(tmp_path / "pylock.toml", "\n\n", "[packages.vcs]")
    without(tmp_path / "requirements.txt", "\n", "@ git+")
    offline = ["--no-index", "--find-links", str(wheels)]
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--no-config", *offline]
    uv += ["--python", "3.11", "--preview-features", "pylock", "--target", str(tmp_path / "into")]
    pip = [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--no-deps", *offline]
    pip += ["--target", str(tmp_path / "into")]
    for argv, right in [
        ([*uv, "-r", "pylock.toml"], expected),
        ([*uv, "-r", f"{tmp_path}/requirements.txt"], expected),
        ([*pip, "-r", "pylock.pip.toml"], pip_s),
        ([*pip, "--require-hashes", "-r", f"{tmp_path}/requirements.pip.txt"], pip_s),
    ]:
        # Files of the project are named from its folder, those of pylock.toml from where it lies.
        cwd = tmp_path if argv[-1].endswith(".toml") else mlbox.cwd
        subprocess.run(argv, cwd=cwd, check=True)
        assert installed(tmp_path / "into") == right, argv
        shutil.rmtree(tmp_path / "into")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A project locked for two accelerators: files of the index, of a folder, of an address and of a repository."""
    top = tmp_path_factory.mktemp("several")
    project, files = top / "project", top / "files"
    (project / "wheels").mkdir(parents=True)
    files.mkdir()
    for accelerator, requires in {"cpu": ["six"], "cu126": ["six", "nvidia-blas==12.6"]}.items():
        name, data = make_wheel("torch", f"2.9.1+{accelerator}", requires=requires)
        (project / "wheels" / name).write_bytes(data)
    for folder, (name, data) in [
        (project / "wheels", make_wheel("nvidia-blas", "12.6")),
        (files, make_wheel("remote", "1.0")),
        (files, make_sdist("source", "1.5", pyproject=SDIST.format(name="source"), files={"source.py": b"x = 1\n"})),
    ]:
        (folder / name).write_bytes(data)
    repository(files / "git")
    with serving(files) as url:
        lines = [
            *("torch", "requests[socks]", "tomli; python_version < '3.11'", "antlr4-python3-runtime==4.9.3"),
            *(f"remote @ {url}/remote-1.0-py3-none-any.whl", f"source @ {url}/source-1.5.tar.gz"),
            f"fromgit @ git+{url}/git/.git",
        ]
        (project / "pyproject.toml").write_text(
            f'[project]\nname = "several"\nversion = "1"\ndependencies = {json.dumps(lines)}\n'
            '[project.optional-dependencies]\ncu126 = ["pygments"]\n'
            '[tool.mlbox]\npython = "3.11"\naccelerators = ["cpu", "cu126"]\nfind-links = ["wheels"]\n'
        )
        program = Program(top / "home", project)
        program.run("lock")
        yield program


@pytest.mark.parametrize("accelerator", ["cpu", "cu126"])
def test_installers_take_an_accelerator_s_part_from_the_indexes(
    several: Program, tmp_path: Path, accelerator: str
) -> None:
    """uv makes a folder what the lock says, pip would; hashes, extras, markers and places as in the lock."""
    lock = for_accelerator(read_lock(several.cwd / "mlbox.lock"), accelerator)
    expected = {one.name: one.version for one in lock.packages}
    assert expected["torch"] == f"2.9.1+{accelerator}"
    assert ("nvidia-blas" in expected, "pygments" in expected) == (accelerator == "cu126",) * 2
    chosen = ("--accelerator", accelerator, "-o")
    several.run("export", "--format", "pylock", "--urls", *chosen, f"{tmp_path}/pylock.toml")
    assert "file:" not in (tmp_path / "pylock.toml").read_text()
    several.run("export", "--format", "requirements", *chosen, f"{tmp_path}/requirements.txt")
    without(tmp_path / "pylock.toml", "\n\n", "[packages.vcs]")
    without(tmp_path / "requirements.txt", "\n", "@ git+")
    links = ["--find-links", str(several.cwd / "wheels")]
    uv = [sys.executable, "-m", "uv", "pip", "sync", "--quiet", "--no-config", "--python", "3.11"]
    for name, options in {
        "pylock.toml": ["--preview-features", "pylock"],
        "requirements.txt": links,
        "requirements.pip.txt": [*links, "--require-hashes"],
    }.items():
        subprocess.run([*uv, *options, "--target", "into", name], cwd=tmp_path, check=True)
        left = expected if ".pip." not in name else {**expected, "fromgit": None}
        found = installed(tmp_path / "into")
        assert {one: found.get(one) for one in left} == left, name
        assert found.keys() <= left.keys(), name
    pip = [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--dry-run", "--ignore-installed"]
    for options in (["-r", "pylock.pip.toml"], [*links, "--require-hashes", "-r", "requirements.pip.txt"]):
        subprocess.run([*pip, "--report", "report.json", *options], cwd=tmp_path, check=True)
        report = json.loads((tmp_path / "report.json").read_text())["install"]
        planned = {normalize(one["metadata"]["name"]): one for one in report}
        assert {name: one["metadata"]["version"] for name, one in planned.items()} | {"fromgit": "1.5"} == expected
        hashes = {name: one["download_info"]["archive_info"]["hashes"]["sha256"] for name, one in planned.items()}
        assert hashes | {"fromgit": ""} == {one.name: one.sha256 for one in lock.packages}


def without(file: Path, between: str, mark: str) -> None:
    """Write 'STEM.pip.SUFFIX': the blocks of a file that do not hold `mark`."""
    blocks = file.read_text().split(between)
    file.with_name(f"{file.stem}.pip{file.suffix}").write_text(between.join(one for one in blocks if mark not in one))


def installed(folder: Path) -> dict[str, str]:
    """Return the packages that a folder has, with their versions."""
    found = Distribution.discover(path=[str(folder)])
    return {normalize(one.metadata["Name"]): one.version for one in found}
