"""A lock in other tools' words: goldens, those tools' own readers as judges, and values that try to become more."""

import hashlib
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.pylock import Pylock
from packaging.requirements import Requirement
from pip._internal.req.req_file import parse_requirements

from mlbox.build.env import skeleton
from mlbox.build.ignore import DockerIgnore
from mlbox.errors import LockError, ProjectError
from mlbox.lock.foreign.conda_lock import read_conda_lock
from mlbox.lock.foreign.model import Selection
from mlbox.lock.foreign.pylock import read_pylock
from mlbox.lock.model import Base, BaseLayer, CondaPackage, Deb, Folder, LayerGroup, Lock, Package, Target
from mlbox.oci.digest import DiffID, Digest
from mlbox.plan.export.conda import conda_lock, environment_yml
from mlbox.plan.export.dockerfile import dockerfile, dockerignore
from mlbox.plan.export.instructions import Placed, place, runs
from mlbox.plan.export.pylock import pylock
from mlbox.plan.export.requirements import requirements
from mlbox.plan.model import EnvPiece, ProjectFile
from mlbox.plan.planner import make_plan
from mlbox.project.model import Health, Settings, Task

GOLDEN = Path(__file__).parents[2] / "golden" / "export"
TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
COMMIT = "c" * 40
ODD = "src/a+b (1) [x]{2}^$.py"


def wheel(name: str, version: str = "1.0", **more: Any) -> Package:
    """A wheel with made-up contents."""
    filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return Package(**{"name": name, "version": version, "filename": filename, "sha256": "a" * 64, "size": 7, **more})


PACKAGES = (
    wheel("click", "8.1", sha256="1" * 64),
    Package(
        name="fromgit",
        version="0.3",
        filename=f"fromgit-{COMMIT}.git",
        sha256="",
        index="git",
        url="https://git.example.org/team/fromgit.git",
        commit=COMMIT,
        subdirectory="python",
        wanted_by=("requirements.txt:3",),
    ),
    wheel("local", index="direct", url="libs/local-1.0-py3-none-any.whl", sha256="2" * 64),
    Package(
        name="odd-source", version="2.0", filename="odd_source-2.0.tar.gz", sha256="3" * 64, size=9, requires=("click",)
    ),
    wheel("remote", index="direct", url="https://files.example.org/remote-1.0-py3-none-any.whl", sha256="4" * 64),
    wheel("torch", "2.9.1", index="torch", sha256="5" * 64, wanted_by=("requirements.txt:1", "pyproject.toml")),
)
DEBS = tuple(
    Deb(
        name=name,
        version=version,
        arch="amd64",
        path=f"pool/{name}.deb",
        sha256="d" * 64,
        size=1,
        suite=suite,
        role=role,
    )  # type: ignore[arg-type]
    for name, version, suite, role in (
        ("git", "1:2.39.5-0+deb12u2", "bookworm", "system"),
        ("libc6", "2.36-9+deb12u14", "bookworm-security", "base"),
    )
)
IMAGE = Base(
    kind="image",
    suite="bookworm",
    reference="registry.example.org/python:3.11-slim",
    digest=Digest("sha256:" + "1" * 64),
    manifest=Digest("sha256:" + "2" * 64),
    config=Digest("sha256:" + "3" * 64),
    home="/usr/local/bin",
    user="app",
    env=("PATH=/usr/local/bin:/usr/bin:/bin", "GPG_KEY=A\nB", "PYTHONHOME=/elsewhere"),
    labels=("maintainer=them", "text=two\nlines"),
    layers=(BaseLayer(digest=Digest("sha256:" + "4" * 64), diff_id=DiffID("sha256:" + "5" * 64), size=5),),
)
SETTINGS = Settings(
    env={"ODD": 'a "b" $c \\ d', "PLAIN": "1"},
    labels={"org.example.title": 'it\'s "quoted" $HOME', "two words": "x"},
    command=("python", "train.py", "--text", 'a "b" $c\n'),
    user="1000:1000",
    serve=Task(command=("serve",), port=8000, health=Health()),
)
FILES = (ProjectFile("train.py", 0o644, 3, "a" * 64), ProjectFile(ODD, 0o644, 3, "b" * 64))


def lock(*packages: Package, base: Base | None = None, debs: tuple[Deb, ...] = DEBS) -> Lock:
    """A lock of these packages."""
    return Lock(
        inputs="sha256:" + "0" * 64,
        target=TARGET,
        base=base or Base(suite="bookworm"),
        packages=packages,
        build_packages=(wheel("setuptools", "80.9", sha256="8" * 64),),
        layers=(LayerGroup(name="all", packages=tuple(one.name for one in packages)),) if packages else (),
        debs=debs,
    )


CONDA = (
    CondaPackage(
        name="numpy",
        version="1.26.4",
        build="py311h64a7726_0",
        subdir="linux-64",
        filename="numpy-1.26.4-py311h64a7726_0.conda",
        sha256="6" * 64,
        md5="6" * 32,
        channel="conda-forge",
        requires=("python",),
    ),
    CondaPackage(
        name="python",
        version="3.11.9",
        build="hb806964_0_cpython",
        subdir="linux-64",
        filename="python-3.11.9-hb806964_0_cpython.conda",
        sha256="7" * 64,
        md5="7" * 32,
        channel="team/label/main",
    ),
)


def conda_address(one: Package | CondaPackage) -> str:
    """Where files are, on a machine that knows."""
    if isinstance(one, CondaPackage):
        return f"https://conda.example.org/{one.channel}/{one.subdir}/{one.filename}"
    return f"https://pip.example.org/{one.filename}"


FOLDERS = (
    Folder(name="local-thing", path="libs/thing", requires=("click",), wanted_by=("requirements.txt:9",)),
    Folder(name="other", path="other"),
)


def with_folders() -> Lock:
    """A lock of a package and of folders of the project."""
    return msgspec.structs.replace(lock(PACKAGES[0], debs=()), folders=FOLDERS)


def with_conda() -> Lock:
    """A lock of conda packages and one of Python."""
    return msgspec.structs.replace(lock(PACKAGES[0], debs=()), conda=CONDA)


def written(one: Lock, options: Settings = SETTINGS, installed: tuple[Placed, ...] = ()) -> str:
    """The Dockerfile of a project of two files."""
    empty = skeleton(EnvPiece(python="3.11", python_full="3.11.2"))
    placed = [Placed(path) for path in empty.folders]
    placed += [Placed(path, target=target) for path, target in empty.links.items()]
    placed += [Placed(path, data) for path, data in empty.files.items()]
    return dockerfile(make_plan(one, options, FILES, None), one, () if one.conda else placed, installed)


def golden(name: str, text: str) -> None:
    """Compare with the golden file."""
    path = GOLDEN / name
    if os.environ.get("MLBOX_UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert path.read_text() == text


INSTALLED = (
    Placed("opt/mlbox/env/bin/mine", b"#!/opt/mlbox/env/bin/python\nprint('it\\'s')\n", 0o755),
    Placed(
        "opt/mlbox/env/lib/python3.11/site-packages/mine-1.dist-info/direct_url.json", b'{"url":"file:///workspace"}'
    ),
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pylock.toml", lambda: pylock(lock(*PACKAGES), "../wheels", "..")),
        ("requirements.txt", lambda: requirements(lock(*PACKAGES))),
        ("environment.yml", lambda: environment_yml(lock(*PACKAGES), "my project")),
        ("folders.pylock.toml", lambda: pylock(with_folders(), "../wheels", "..")),
        ("folders.requirements.txt", lambda: requirements(with_folders())),
        ("folders.environment.yml", lambda: environment_yml(with_folders(), "y")),
        ("conda.environment.yml", lambda: environment_yml(with_conda(), "y")),
        ("conda-lock.yml", lambda: conda_lock(with_conda(), conda_address)),
        ("conda.Dockerfile", lambda: written(with_conda())),
        ("debian.Dockerfile", lambda: written(lock(*PACKAGES), installed=INSTALLED)),
        ("image.Dockerfile", lambda: written(lock(PACKAGES[0], base=IMAGE, debs=()), Settings(env={"A": "b"}))),
        (
            "Dockerfile.dockerignore",
            lambda: dockerignore(make_plan(lock(*PACKAGES), SETTINGS, FILES, None), ["train.py"]),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_goldens(name: str, text: Any) -> None:
    """Every format, with a package of every kind."""
    golden(name, text())


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,5}){0,2}", fullmatch=True)
VERSIONS = st.from_regex(
    r"(0|[1-9][0-9]{0,3})(\.(0|[1-9][0-9]{0,2})){0,3}((a|b|rc)[0-9])?(\.post[0-9])?(\.dev[0-9])?(\+[a-z]{1,5})?",
    fullmatch=True,
)
HASHES = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    """Locks with packages of every kind, and any text where the project asks for them."""
    packages = []
    for name in sorted(draw(st.sets(NAMES, max_size=6))):
        version, sha256 = draw(VERSIONS), draw(HASHES)
        told: dict[str, Any] = {"sha256": sha256, "wanted_by": tuple(draw(st.lists(st.text(max_size=20), max_size=2)))}
        match draw(st.sampled_from(["wheel", "sdist", "git", "local", "remote"])):
            case "wheel":
                packages.append(wheel(name, version, **told))
            case "sdist":
                packages.append(
                    Package(name=name, version=version, filename=f"{name.replace('-', '_')}-{version}.tar.gz", **told)
                )
            case "git":
                told |= {
                    "sha256": "",
                    "index": "git",
                    "commit": sha256[:40],
                    "url": "ssh://git@git.example.org/x y".replace(" ", ""),
                }
                packages.append(Package(name=name, version=version, filename=f"{name}-{sha256[:40]}.git", **told))
            case "local":
                packages.append(wheel(name, version, index="direct", url=f"libs/{name}.whl", **told))
            case _:
                packages.append(wheel(name, version, index="direct", url=f"https://example.org/{name}.whl", **told))
    return lock(*packages)


def test_folders_come_back() -> None:
    """The specification's own reader takes them, and so do pip's and mlbox's."""
    text = pylock(with_folders())
    Pylock.from_dict(tomllib.loads(text)).validate()
    found = read_pylock(text.encode(), Selection(target=TARGET)).pins
    assert [(pin.name, pin.url, pin.requires) for pin in found if pin.kind == "directory"] == [
        ("local-thing", "libs/thing", ("click",)),
        ("other", "other", ()),
    ]
    odd = msgspec.structs.replace(with_folders(), folders=(Folder(name="x", path="a b"),))
    for write in (pylock, requirements, lambda one: environment_yml(one, "y")):
        with pytest.raises(LockError, match="'a b' cannot be written as one word"):
            write(odd)


@settings(deadline=None)
@given(locks())
def test_pylock_comes_back(one: Lock) -> None:
    """The specification's own reader takes it, and what mlbox reads from it is the lock."""
    text = pylock(one)
    Pylock.from_dict(tomllib.loads(text)).validate()
    found = read_pylock(text.encode(), Selection(target=TARGET))
    assert [(pin.name, pin.version, pin.commit) for pin in found.pins] == [
        (package.name, package.version, package.commit) for package in sorted(one.packages, key=lambda one: one.name)
    ]
    for pin, package in zip(found.pins, sorted(one.packages, key=lambda one: one.name), strict=True):
        assert {file.sha256 for file in pin.files} == ({package.sha256} if package.sha256 else set())
        if package.index != "direct":
            assert {file.filename for file in pin.files} == ({package.filename} if package.sha256 else set())


def test_conda_lock_comes_back() -> None:
    """What mlbox reads from the conda-lock.yml it writes are the lock's packages, conda's and Python's."""
    found = read_conda_lock(conda_lock(with_conda(), conda_address).encode(), Selection(target=TARGET))
    assert tuple(msgspec.structs.replace(one.package, channel="") for one in found.conda) == tuple(
        msgspec.structs.replace(one, channel="") for one in CONDA
    )
    assert [one.url for one in found.conda] == [conda_address(one) for one in CONDA]
    assert [(one.name, one.version, one.files[0].sha256) for one in found.pins] == [("click", "8.1", "1" * 64)]


def test_conda_lock_takes_no_package_without_md5() -> None:
    """Which explicit lists may know nothing of."""
    bare = msgspec.structs.replace(CONDA[0], md5="")
    with pytest.raises(LockError, match=r"numpy-1\.26\.4-py311h64a7726_0\.conda is locked without its md5"):
        conda_lock(msgspec.structs.replace(with_conda(), conda=(bare,)), conda_address)


def test_pylock_can_name_addresses() -> None:
    """Where the machine knows where files are, pylock.toml may say it."""
    found = tomllib.loads(pylock(lock(PACKAGES[0]), where=conda_address))["packages"][0]["wheels"][0]
    assert found["url"] == "https://pip.example.org/click-8.1-py3-none-any.whl"
    assert "path" not in found


@settings(deadline=None)
@given(one=locks())
def test_requirements_are_read_by_pip(one: Lock, tmp_path_factory: pytest.TempPathFactory) -> None:
    """pip's own reader finds each package once, with its hash and nothing else, whatever the comments hold."""
    file = tmp_path_factory.mktemp("pip") / "requirements.txt"
    file.write_text(requirements(one), encoding="utf-8")
    lines = list(parse_requirements(str(file), session=None))  # type: ignore[arg-type]
    assert len(lines) == len(one.packages)
    for line, package in zip(lines, one.packages, strict=True):
        if package.sha256:
            assert line.options == {"hashes": {"sha256": [package.sha256]}}
        else:
            assert not line.options
        if package.index == "default":
            asked = Requirement(line.requirement)
            assert (asked.name, str(asked.specifier)) == (package.name, f"=={package.version}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "1.0 --index-url http://evil.example"}, "is no version"),
        ({"version": "1.0\n-r /etc/passwd"}, "is no version"),
        ({"version": "$(id)"}, "is no version"),
        ({"index": "direct", "url": "https://example.org/a.whl\n--extra-index-url x"}, "one word"),
        ({"index": "direct", "url": "https://example.org/a b.whl"}, "one word"),
        ({"index": "direct", "url": "libs/it's.whl"}, "one word"),
        ({"index": "git", "commit": COMMIT, "url": "https://example.org/x", "subdirectory": "a b"}, "one word"),
        ({"index": "git", "commit": COMMIT, "url": "https://example.org/`id`\t"}, "one word"),
    ],
    ids=["option", "line", "shell", "url-line", "url-space", "url-quote", "folder", "git"],
)
def test_values_stay_one_word(change: dict[str, str], said: str) -> None:
    """What a lock could smuggle into a line of pip's or of a shell is refused."""
    bad = msgspec.structs.replace(PACKAGES[3], **change)
    for write in (requirements, lambda one: environment_yml(one, "x"), written):
        with pytest.raises(LockError, match=said):
            write(lock(bad))  # type: ignore[operator]


def test_credentials_are_left_out() -> None:
    """A password in an address reaches no export."""
    one = lock(
        wheel("remote", index="direct", url="https://me:hunter2@example.org/remote.whl"),
        msgspec.structs.replace(PACKAGES[1], url="https://token:hunter2@git.example.org/x"),
    )
    for text in (requirements(one), pylock(one), environment_yml(one, "x"), written(one)):
        assert "hunter2" not in text
        assert "example.org/x" in text


@pytest.mark.parametrize(
    "options",
    [
        Settings(env={"A": "x\nRUN id"}),
        Settings(labels={"a\nRUN id": "x"}),
        Settings(labels={"a": "x\r\ny"}),
        Settings(user="x\nRUN id"),
        Settings(workdir="/a\nRUN id"),
        Settings(env={"A B": "x"}),
    ],
    ids=["variable", "label", "label-value", "user", "workdir", "name"],
)
def test_line_breaks_are_refused(options: Settings) -> None:
    """A Dockerfile has no word for them, and they would be instructions."""
    with pytest.raises(ProjectError, match=r"line break|no variable"):
        written(lock(PACKAGES[0]), options)


def test_comments_stay_comments() -> None:
    """What a comment tells is any text."""
    one = lock(wheel("a", index="x\nRUN id", wanted_by=("y\nRUN id", "z \\")))
    other = msgspec.structs.replace(one, target=msgspec.structs.replace(TARGET, accelerator="y\nRUN id"))
    for text in (written(one), requirements(other), pylock(other), environment_yml(other, "x\nchannels: [evil]")):
        assert not re.search(r"(?m)^\s*(RUN id|channels)", text)


def executed(text: str, folder: Path) -> None:
    """Run the RUNs of `text` as a builder would, below `folder`."""
    for line in text.replace("\\\n", "").split("\n"):
        subprocess.run(["sh", "-c", line.removeprefix("RUN ").replace("/opt", f"{folder}/opt")], check=True)


@settings(deadline=None, max_examples=40)
@given(data=st.binary(max_size=300), name=st.from_regex(r"[^/\x00\n\\]{1,20}", fullmatch=True))
def test_files_are_written_as_they_are(data: bytes, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any bytes survive the Dockerfile's and the shell's reading."""
    if name in (".", ".."):
        return
    folder = tmp_path_factory.mktemp("root")
    executed("\n".join(runs(place([Placed(f"opt/{name}", data, 0o755), Placed("opt/to", target="a b")]))), folder)
    file = folder / "opt" / name
    assert file.read_bytes() == data
    assert file.stat().st_mode & 0o777 == 0o755
    assert (folder / "opt/to").readlink() == Path("a b")


def test_conda_packages_are_named_and_checked(tmp_path: Path) -> None:
    """micromamba is given the builder's addresses, and a file with another hash ends the build."""
    content = b"a package"
    one = msgspec.structs.replace(with_conda(), packages=(), layers=(), conda=CONDA[:1])
    right = msgspec.structs.replace(CONDA[0], sha256=hashlib.sha256(content).hexdigest())
    program = tmp_path / "bin/micromamba"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nfor last; do :; done; cp $last {tmp_path}/given\n"
        f"mkdir -p $MAMBA_ROOT_PREFIX/pkgs; printf 'a package' > $MAMBA_ROOT_PREFIX/pkgs/{CONDA[0].filename}\n"
    )
    program.chmod(0o755)
    env = {"PATH": f"{program.parent}:{os.environ['PATH']}", "CONDA_CHANNEL_ALIAS": "https://conda.example.org/all/"}
    for package, code in ((right, 0), (CONDA[0], 1)):
        stage = written(msgspec.structs.replace(one, conda=(package,))).partition("AS tools")[2].partition("FROM")[0]
        commands = [line for line in stage.replace("\\\n", "").split("\n") if line.startswith("RUN ")]
        script = "\n".join(line.removeprefix("RUN ").replace("/tmp/", f"{tmp_path}/") for line in commands)
        script = script.replace("/opt/", f"{tmp_path}/opt/")
        assert subprocess.run(["sh", "-ec", script], env=env, capture_output=True).returncode == code
    url = f"https://conda.example.org/all/conda-forge/linux-64/{CONDA[0].filename}"
    assert (tmp_path / "given").read_text() == f"@EXPLICIT\n{url}\n"
    del env["CONDA_CHANNEL_ALIAS"]
    assert subprocess.run(["sh", "-ec", script], env=env, capture_output=True).returncode != 0


def test_large_files_are_written_in_parts(tmp_path: Path) -> None:
    """No command is longer than the kernel takes, whatever the number of packages."""
    data = b"".join(b"package-%d --hash=sha256:%064d\n" % (number, number) for number in range(3000))
    text = list(runs(place([Placed("opt/list.txt", data)])))
    assert len(text) > 3
    assert max(map(len, text)) < 120_000
    executed("\n".join(text), tmp_path)
    assert (tmp_path / "opt/list.txt").read_bytes() == data


@pytest.mark.parametrize(
    "path", ["a", "x y", " edge ", ODD, "a*b", "a?b", "[ab]", "!bang", "#hash", "a\nb", "back\\slash"]
)
def test_the_context_is_the_projects_files(path: str) -> None:
    """Each file that belongs to the image is let in under its own name, and its neighbours are not."""
    plan = make_plan(lock(), Settings(), (ProjectFile(f"src/{path}", 0o644, 1, "a" * 64),), None)
    rules = DockerIgnore(dockerignore(plan).encode())
    assert rules.verdict(f"src/{path}", folder=False) is False
    for other in ("src/other", "other", ".env", f"src/{path}x", f"src/x{path}"):
        assert rules.verdict(other, folder=False) is True


@pytest.mark.parametrize(
    ("base", "debs", "said", "unsaid"),
    [
        (IMAGE, (), "RUN /usr/local/bin/python3.11 -m venv", "apt-get"),
        (IMAGE, DEBS[:1], "      git=1:2.39.5-0+deb12u2 \\", "python3-venv"),
        (msgspec.structs.replace(IMAGE, home=""), DEBS[:1], "      python3-venv \\", "/usr/local/bin/python"),
    ],
    ids=["its own Python", "with packages", "Debian's Python"],
)
def test_an_image_below_is_named_by_digest(base: Base, debs: tuple[Deb, ...], said: str, unsaid: str) -> None:
    """FROM is the name with its digest; apt is asked only for what is added."""
    lines = written(lock(PACKAGES[0], base=base, debs=debs)).splitlines()
    assert f"FROM --platform=linux/amd64 {IMAGE.reference}@{IMAGE.digest} AS base" in lines
    assert said in "\n".join(lines)
    assert not any(unsaid in line for line in lines if not line.startswith("ENV"))


def test_a_dockerfile_needs_only_what_it_uses() -> None:
    """With nothing locked there is nothing for apt and pip to do."""
    text = written(lock(base=IMAGE, debs=()), Settings()).partition("FROM")[2]
    assert "apt-get" not in text
    assert "pip" not in text


@pytest.mark.parametrize("text", [requirements, pylock])
def test_a_format_for_wheels_says_what_it_leaves_out(text: Any) -> None:
    """Whoever installs it has no conda packages, and should know."""
    said = "# Not here: 2 conda packages; the formats environment.yml and conda-lock have them."
    assert said in text(with_conda()).splitlines()
    assert "Not here" not in text(lock(PACKAGES[0]))
