"""Conda environments, whole: a real channel on loopback, locked, built, run, and compared with rattler's."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.conda import PLACEHOLDER, File, Made, channel_files, make_package, make_python
from fakes.program import Program
from fakes.server import Server, serving

from mlbox.build.conda import unpack_conda
from mlbox.lock.conda import stand_in
from mlbox.plan.model import CondaPiece

pytestmark = pytest.mark.integration

PYTHON = ".".join(map(str, sys.version_info[:2]))
ENV = "/opt/mlbox/env"


def hello(version: str) -> Made:
    """Return a compiled package that names its prefix."""
    files = {
        "lib/libhello.txt": f"libhello {version} in {PLACEHOLDER}\n".encode(),
        "lib/libhello.so": File(b"\x7fELF\0" + PLACEHOLDER.encode() + b"/lib\0end\0", 0o755),
        "bin/hello-config": File(f"#!/bin/sh\necho {PLACEHOLDER}/lib {version}\n".encode(), 0o755),
        "bin/hello": File(link="hello-config", mode=0o777),
        "etc/conda/activate.d/hello.sh": b'#!/bin/sh\nexport HELLO_DATA="${CONDA_PREFIX}/share/hello"\n',
        "etc/conda/env_vars.d/hello.json": b'{"HELLO_MODE": "loud", "PATH": "/nowhere"}',
    }
    return make_package("libhello", version, files=files, depends=["__glibc >=2.17"], kind=".tar.bz2")


def module(name: str, version: str, depends: tuple[str, ...] = (), **more: Any) -> Made:
    """Return a package of Python modules for every machine."""
    files = {
        f"site-packages/{name}/__init__.py": f"def main():\n    import sys; print('{name}', sys.prefix)\n".encode(),
        f"site-packages/{name}-{version}.dist-info/METADATA": f"Name: {name}\nVersion: {version}\n\n".encode(),
        f"site-packages/{name}-{version}.dist-info/RECORD": b"",
    }
    known = {"files": files, "noarch": "python", "subdir": "noarch", "depends": ("python >=3.9", *depends)} | more
    return make_package(name, version, "pyh_0", **known)


def torch() -> list[Made]:
    """Return a build for every machine, and one that comes first where there is a driver, as conda-forge has them."""
    builds = [make_package("torch", "2.5", f"{one}_0", files={"share/build": one.encode()}) for one in ("cpu", "cuda")]
    builds[1].index.update(build_number=1, depends=["__cuda >=12"])
    return builds


class Channel:
    """The channel 'tests' of a server."""

    def __init__(self, server: Server, packages: list[Made]) -> None:
        self.server = server
        self.url = f"{server.url}/tests"
        self.packages = packages
        self.index()

    def index(self, *more: Made) -> None:
        """Serve the packages and those."""
        files = channel_files([*self.packages, *more])
        self.server.files = {f"/tests/{path}": data for path, data in files.items()}


@pytest.fixture(scope="module")
def packages() -> list[Made]:
    """Several versions, one compiled and one for all, a Python, one that needs CUDA and one with a script."""
    script = b'#!/bin/bash\necho "$PKG_NAME $PKG_VERSION $PKG_BUILDNUM" > "$PREFIX/share/linked.txt"\n'
    scripted = {"bin/.scripted-post-link.sh": File(script, 0o755), "share/scripted.txt": b"x\n"}
    return [
        make_python(),
        *map(hello, ("1.0", "1.1", "2.0")),
        module("hellopy", "0.3", ("libhello >=1,<2",), entry_points=["hellopy = hellopy:main"]),
        module("pip", "25.0"),
        make_package("cudathing", "12.4", files={"share/cuda.txt": b"x\n"}, depends=["__cuda >=12"]),
        make_package("scripted", "1.0", "h0_7", files=scripted),
    ]


@pytest.fixture
def channel(packages: list[Made]) -> Iterator[Channel]:
    """The channel, on loopback."""
    with serving() as server:
        yield Channel(server, packages)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Make projects with a store each; the stores are emptied at the end."""
    made: list[Program] = []

    def make(name: str, home: str = "", **files: str) -> Program:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for file, text in files.items():
            (folder / file.replace("__", "-").replace("_", ".")).write_text(text)
        made.append(Program(tmp_path / f"home-{home or name}", folder))
        return made[-1]

    yield make
    for one in made:
        if one.home.exists():
            one.run("prune", "--built", "-f", code=None)


def environment(channel: Channel, *dependencies: str, pip: tuple[str, ...] = ()) -> str:
    """Return an environment.yml."""
    lines = [f"  - {one}" for one in dependencies]
    lines += ["  - pip:", *(f"    - {one}" for one in pip)] if pip else []
    return "\n".join([f"channels:\n  - {channel.url}", "dependencies:", *lines, ""])


def versions(mlbox: Program) -> dict[str, str]:
    """Return the conda packages of the lock."""
    lock = tomllib.loads((mlbox.cwd / "mlbox.lock").read_text())
    return {one["name"]: one["version"] for one in lock["conda-package"]}


def test_an_environment_from_its_file_to_a_run(channel: Channel, program: Callable[..., Program]) -> None:
    """Conda's Python runs conda's and pip's packages; twice built it is the same; everything can say what is in it."""
    text = environment(channel, "python", "hellopy", "pip", pip=("iniconfig==2.1.0",)) + "variables:\n  GREETING: hi\n"
    mlbox = program("one", environment_yml=text, train_py="print(1)\n")
    digest = mlbox.build("-t", "test/conda")
    lock = (mlbox.cwd / "mlbox.lock").read_text()
    assert "127.0.0.1" not in lock
    assert versions(mlbox) == {
        "hellopy": "0.3",
        "libhello": "1.1",
        "pip": "25.0",
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    assert mlbox.out("run", "--rm", "test/conda", "hellopy") == f"hellopy {ENV}"
    assert mlbox.out("run", "--rm", "test/conda", "hello") == f"{ENV}/lib 1.1"
    code = "import sys, iniconfig, hellopy; print(sys.executable, iniconfig.__file__)"
    assert mlbox.out("run", "--rm", "test/conda", "python", "-c", code).split() == [
        f"{ENV}/bin/python",
        f"{ENV}/lib/python{PYTHON}/site-packages/iniconfig/__init__.py",
    ]
    variables = mlbox.out("run", "--rm", "test/conda", "env").splitlines()
    assert {f"HELLO_DATA={ENV}/share/hello", "HELLO_MODE=loud", "GREETING=hi", f"CONDA_PREFIX={ENV}"} <= set(variables)
    assert f"PATH={ENV}/bin:" in "\n".join(variables)
    assert "environment.yml:5 > hellopy > libhello" in mlbox.out("why", "test/conda", "libhello")
    assert "pkg:conda/libhello@1.1?build=h0_0&channel=tests&subdir=linux-64" in mlbox.out("sbom", "test/conda")
    assert "made again from the attached lock and plan" in mlbox.out("verify", "test/conda")

    other = program("two", environment_yml=text, train_py="print(1)\n", mlbox_lock=lock)
    assert other.build() == digest

    bundle = mlbox.cwd.parent / "conda.bundle"
    mlbox.run("bundle", "test/conda", "-o", str(bundle))
    channel.server.files.clear()
    third = program("one", home="three")
    assert f"{channel.url}/" in third.run("build", code=1).stderr
    third.run("bundle", "load", str(bundle))
    third.env["MLBOX_OFFLINE"] = "1"
    assert third.build() == digest


def test_versions_stay_until_they_are_asked_to_move(channel: Channel, program: Callable[..., Program]) -> None:
    """A newer version is taken for a package that --upgrade names, or for all; wheels beside them likewise."""
    mlbox = program("move", environment_yml=environment(channel, "python", "hellopy", "pip", pip=("iniconfig<2.1",)))
    mlbox.run("lock")
    assert versions(mlbox)["libhello"] == "1.1"
    channel.index(hello("1.2"), module("hellopy", "0.4", ("libhello >=1,<2",)))
    more = environment(channel, "python", "hellopy", "pip", "scripted", pip=("iniconfig",))
    (mlbox.cwd / "environment.yml").write_text(more)
    before = tomllib.loads((mlbox.cwd / "mlbox.lock").read_text())["package"]
    mlbox.run("lock")
    assert (versions(mlbox)["libhello"], versions(mlbox)["hellopy"], versions(mlbox)["scripted"]) == (
        "1.1",
        "0.3",
        "1.0",
    )
    assert [one["version"] for one in tomllib.loads((mlbox.cwd / "mlbox.lock").read_text())["package"]] == [
        one["version"] for one in before
    ]
    mlbox.run("lock", "--upgrade", "libhello")
    assert (versions(mlbox)["libhello"], versions(mlbox)["hellopy"]) == ("1.2", "0.3")
    assert "~ conda hellopy 0.3 -> 0.4" in mlbox.out("lock", "--upgrade", "--diff")


def test_what_scripts_make_is_said_and_made(channel: Channel, program: Callable[..., Program]) -> None:
    """Nothing runs by itself; a package that the project names is linked in a container. No Python is needed."""
    mlbox = program("scripts", environment_yml=environment(channel, "scripted", "libhello=1.0"))
    notes = mlbox.run("build", "-t", "test/scripts").stderr
    assert "conda would run a script when it links scripted 1.0" in notes
    assert mlbox.out("run", "--rm", "test/scripts", "hello") == f"{ENV}/lib 1.0"
    assert mlbox.run("run", "--rm", "test/scripts", "cat", f"{ENV}/share/linked.txt", code=1)
    (mlbox.cwd / "mlbox.toml").write_text('configure = ["scripted"]\n')
    again = mlbox.run("build", "-t", "test/scripts").stderr
    assert "conda would run" not in again
    assert mlbox.out("run", "--rm", "test/scripts", "cat", f"{ENV}/share/linked.txt") == "scripted 1.0 7"
    assert "equal (made again" in mlbox.out("verify", "test/scripts")


def test_specs_mean_what_they_mean_to_conda(channel: Channel, program: Callable[..., Program]) -> None:
    """Exact versions and builds in all of conda's spellings, as `conda env export` has them; pip's own pin counts."""
    channel.index(hello("1.0.1"), module("hellopy", "0.4", ("libhello >=1,<2",)), module("pip", "26.0"))
    python = ".".join(map(str, sys.version_info[:3]))
    exact = (f"python=={python}", "tests::hellopy=0.3=pyh_0", "libhello 1.0 h0_0", "pip=25.0")
    mlbox = program("exact", environment_yml=environment(channel, *exact, pip=("iniconfig==2.1.0",)))
    mlbox.env["MLBOX_CONDA_CHANNEL_ALIAS"] = channel.server.url
    mlbox.run("lock")
    assert versions(mlbox) == {"hellopy": "0.3", "libhello": "1.0", "pip": "25.0", "python": python}
    (mlbox.cwd / "environment.yml").write_text(environment(channel, "libhello=1.0", "pip[version='25.0',build=pyh_0]"))
    mlbox.run("lock", "--upgrade")
    assert (versions(mlbox)["libhello"], versions(mlbox)["pip"]) == ("1.0.1", "25.0")


def test_condas_tools_read_the_exports(channel: Channel, program: Callable[..., Program], tmp_path: Path) -> None:
    """conda-lock makes an explicit list of its lock, the solver the same lock of environment.yml; wheels by hash."""
    text = environment(
        channel, "python", "hellopy", "libhello=1.0", "pip", pip=("iniconfig==2.1.0", "antlr4-python3-runtime==4.9.3")
    )
    mlbox = program("told", environment_yml=text)
    mlbox.run("lock")
    lock = tomllib.loads((mlbox.cwd / "mlbox.lock").read_text())
    mlbox.run("export", "--format", "conda-lock", "-o", f"{tmp_path}/conda-lock.yml")
    argv = [sys.executable, "-m", "conda_lock", "render", "-k", "explicit", "-p", "linux-64", "conda-lock.yml"]
    subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)
    listed = (tmp_path / "conda-linux-64.lock").read_text().splitlines()
    assert {line for line in listed if line.startswith("http")} == {
        f"{channel.url}/{one['subdir']}/{one['filename']}#{one['md5']}" for one in lock["conda-package"]
    }
    wheels = {(line.split()[2], line.partition("#sha256=")[2]) for line in listed if line.startswith("# pip ")}
    assert wheels == {(one["name"], one["sha256"]) for one in lock["package"]}

    other = program("again", environment_yml=mlbox.out("export", "--format", "environment.yml"))
    other.env["MLBOX_CONDA_CHANNEL_ALIAS"] = channel.server.url
    other.run("lock")
    again = tomllib.loads((other.cwd / "mlbox.lock").read_text())
    for kind in ("conda-package", "package"):
        assert [(one["name"], one["sha256"]) for one in again[kind]] == [
            (one["name"], one["sha256"]) for one in lock[kind]
        ]


def test_one_path_of_two_packages(channel: Channel, program: Callable[..., Program], tmp_path: Path) -> None:
    """The one that is linked last has it, as with rattler; and it is told."""
    import rattler

    clash = {"share/clash.txt": b"", "share/same.txt": b"same\n"}
    both = [
        make_package("clash-a", files={**clash, "share/clash.txt": b"a\n"}, depends=["clash-b"]),
        make_package("clash-b", files={**clash, "share/clash.txt": b"b\n"}),
    ]
    channel.index(*both)
    mlbox = program("clash", environment_yml=environment(channel, "clash-a"))
    told = (
        "conda packages clash-b 1.0 and clash-a 1.0 have different files at share/clash.txt; the image has those of cl"
    )
    assert told in mlbox.run("build", "-t", "test/clash").stderr

    async def install() -> None:
        records = await rattler.solve([channel.url], ["clash-a"], platforms=["linux-64", "noarch"])
        prefix, cache = tmp_path / "prefix", tmp_path / "cache"
        await rattler.install(records, target_prefix=prefix, cache_dir=cache, show_progress=False)

    asyncio.run(install())
    theirs = (tmp_path / "prefix/share/clash.txt").read_text()
    assert mlbox.run("run", "--rm", "test/clash", "cat", f"{ENV}/share/clash.txt").stdout == theirs == "a\n"


def test_the_target_says_whether_there_is_cuda(channel: Channel, program: Callable[..., Program]) -> None:
    """Not the machine that locks; the solver's explanation comes with what mends it."""
    mlbox = program("cuda", environment_yml=environment(channel, "cudathing"))
    refused = mlbox.run("lock", code=1).stderr
    assert "__cuda" in refused
    assert "accelerator" in refused
    (mlbox.cwd / "mlbox.toml").write_text('accelerator = "cu126"\n')
    mlbox.run("lock")
    assert versions(mlbox) == {"cudathing": "12.4"}
    (mlbox.cwd / "environment.yml").write_text(environment(channel, "nonsense-package"))
    assert "nonsense-package" in mlbox.run("lock", code=1).stderr


def test_several_accelerators_in_one_lock(channel: Channel, program: Callable[..., Program]) -> None:
    """Each has its builds; what has none stands there once, in layers that all images share; wheels beside them too."""
    channel.index(*torch())
    text = environment(channel, "python", "torch", "hellopy", pip=("iniconfig==2.1.0",))
    mlbox = program("several", environment_yml=text, mlbox_toml='accelerators = ["cpu", "cu126"]\n')
    built = mlbox.out("build", "--accelerator", "all", "-t", "test/several:1").splitlines()
    assert [line.split()[1] for line in built] == ["test/several:1-cpu", "test/several:1-cu126"]
    lock = (mlbox.cwd / "mlbox.lock").read_text()
    found = tomllib.loads(lock)["conda-package"]
    builds = {(one["name"], one["build"]): one.get("accelerators") for one in found if one["name"] == "torch"}
    assert builds == {("torch", "cpu_0"): ["cpu"], ("torch", "cuda_0"): ["cu126"]}
    assert sorted(one["name"] for one in found if "accelerators" not in one) == ["hellopy", "libhello", "pip", "python"]
    build = ("cat", f"{ENV}/share/build")
    assert mlbox.out("run", "--rm", "test/several:1", *build) == "cpu"
    assert mlbox.out("run", "--rm", "--accelerator", "cu126", "test/several:1", *build) == "cuda"
    layers = [json.loads(mlbox.out("inspect", f"test/several:1-{one}"))[0] for one in ("cpu", "cu126")]
    first, second = (one["config"]["rootfs"]["diff_ids"] for one in layers)
    assert [one == other for one, other in zip(first, second, strict=True)].count(False) == 1
    for name in ("cpu", "cu126"):
        assert "equal" in mlbox.out("verify", f"test/several:1-{name}")
        exported = mlbox.out("export", "--format", "conda-lock", "--accelerator", name)
        assert f"torch-2.5-{'cpu' if name == 'cpu' else 'cuda'}_0.conda" in exported
    (mlbox.cwd / "mlbox.lock").unlink()
    mlbox.run("lock")
    assert (mlbox.cwd / "mlbox.lock").read_text() == lock


def test_another_accelerator_gets_its_builds(channel: Channel, program: Callable[..., Program]) -> None:
    """Though versions stay, builds for another accelerator do not."""
    channel.index(*torch())
    mlbox = program("other", environment_yml=environment(channel, "torch", "libhello=1.0"))
    mlbox.run("lock")
    assert "torch-2.5-cpu_0.conda" in (mlbox.cwd / "mlbox.lock").read_text()
    (mlbox.cwd / "mlbox.toml").write_text('accelerator = "cu126"\n')
    mlbox.run("lock")
    assert "torch-2.5-cuda_0.conda" in (mlbox.cwd / "mlbox.lock").read_text()


def test_locks_of_condas_tools_are_taken(channel: Channel, program: Callable[..., Program], tmp_path: Path) -> None:
    """What conda-lock wrote, and an explicit list that knows md5 only, become the same packages as mlbox's own lock."""
    text = environment(channel, "python", "hellopy", "libhello=1.0")
    own = program("own", environment_yml=text)
    own.run("lock")
    wanted = tomllib.loads((own.cwd / "mlbox.lock").read_text())["conda-package"]

    theirs = program("theirs", environment_yml=text)
    conda_lock(theirs.cwd, tmp_path)
    done = theirs.run("lock")
    assert "take the versions that conda-lock.yml pins" in done.stderr
    assert tomllib.loads((theirs.cwd / "mlbox.lock").read_text())["conda-package"] == wanted
    (theirs.cwd / "environment.yml").write_text(environment(channel, "python", "hellopy", "scripted"))
    assert "conda-lock.yml has no scripted" in theirs.run("lock", code=1).stderr

    named = {one["name"] for one in wanted}
    urls = [
        f"{channel.url}/{one.index['subdir']}/{one.filename}#{one.md5}"
        for one in channel.packages
        if one.index["name"] in named
        and (one.index["name"], one.index["version"]) not in (("libhello", "1.1"), ("libhello", "2.0"))
    ]
    explicit = program("explicit", spec__file_txt="\n".join(["@EXPLICIT", *urls, ""]))
    explicit.run("lock")
    found = tomllib.loads((explicit.cwd / "mlbox.lock").read_text())["conda-package"]
    keys = ("name", "version", "build", "sha256", "size", "channel")
    assert [[one[key] for key in keys] for one in found] == [[one[key] for key in keys] for one in wanted]


def conda_lock(folder: Path, scratch: Path) -> None:
    """Let conda-lock write conda-lock.yml beside environment.yml."""
    conda, question = scratch / "conda", scratch / "question.json"
    conda.write_text(f'#!/bin/sh\nexec {sys.executable} -I {stand_in.__file__} "$@"\n')
    conda.chmod(0o755)
    question.write_text(json.dumps({"cache": str(scratch / "cache"), "channels": {}, "locked": {}, "pip": ""}))
    argv = [
        sys.executable,
        "-m",
        "conda_lock",
        "lock",
        "--conda",
        str(conda),
        "-f",
        "environment.yml",
        "--without-cuda",
    ]
    argv += ["-p", "linux-64", "-p", "linux-aarch64"] if (folder / "both").exists() else ["-p", "linux-64"]
    mapping = scratch / "mapping.json"
    mapping.write_text("{}")
    argv += ["--pypi_to_conda_lookup_file", f"file://{mapping}"]
    env = os.environ | {"MLBOX_CONDA_QUESTION": str(question)}
    subprocess.run(argv, cwd=folder, env=env, check=True, capture_output=True)


def test_an_environment_is_what_rattler_installs(packages: list[Made], tmp_path: Path) -> None:
    """File by file: the same paths, links and bytes, but for the launchers of commands and what says times."""
    import rattler

    place = tmp_path / "tests"
    taken = [
        one
        for one in packages
        if (one.index["name"], one.index["version"]) not in (("libhello", "1.0"), ("libhello", "2.0"))
    ]
    for path, data in channel_files(taken).items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(data)
    cuda = rattler.GenericVirtualPackage(
        rattler.PackageName("__cuda"), rattler.Version("12.6"), rattler.BuildString("0")
    )
    glibc = rattler.GenericVirtualPackage(
        rattler.PackageName("__glibc"), rattler.Version("2.36"), rattler.BuildString("0")
    )

    async def install() -> None:
        specs = [one.index["name"] for one in taken]
        records = await rattler.solve(
            [f"file://{place}"], specs, platforms=["linux-64", "noarch"], virtual_packages=[glibc, cuda]
        )
        await rattler.install(
            records,
            target_prefix=tmp_path / "prefix",
            cache_dir=tmp_path / "cache",
            alternative_target_prefix=ENV,
            show_progress=False,
        )

    asyncio.run(install())
    ours = tmp_path / "ours"
    for one in taken:
        index = one.index
        piece = CondaPiece(
            name=index["name"],
            version=index["version"],
            build=index["build"],
            subdir=index["subdir"],
            channel="tests",
            filename=one.filename,
            sha256=one.sha256,
            python=PYTHON,
        )
        root = tmp_path / "pieces" / one.filename
        unpack_conda(place / index["subdir"] / one.filename, root, piece)
        shutil.copytree(root / ENV[1:], ours, symlinks=True, dirs_exist_ok=True)
    theirs, found = tree(tmp_path / "prefix"), tree(ours)
    # These are of the whole environment, not of a package.
    assert theirs.keys() - found.keys() == {"CACHEDIR.TAG", "conda-meta/history"}
    assert found.keys() <= theirs.keys()
    differing = {path for path in found if found[path] != theirs[path]}
    records = {path for path in found if path.startswith("conda-meta/")}
    assert differing <= {"bin/hellopy"} | records
    for path in sorted(records):
        own, other = (json.loads((folder / path).read_text()) for folder in (ours, tmp_path / "prefix"))
        assert sorted(other["files"]) == own["files"], path
        for key in ("name", "version", "build", "build_number", "subdir", "depends", "fn", "sha256"):
            assert own.get(key) == other.get(key), (path, key)


def tree(folder: Path) -> dict[str, object]:
    """Return what is in a folder: links, modes and contents by path."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = (bool(path.stat().st_mode & 0o111), path.read_bytes())
    return found
