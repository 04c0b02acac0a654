"""Images that stand on images of a registry: found, locked, built on, and independent of the registry afterwards."""

import json
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.bases import delete, layer_of, push_image
from fakes.elf import shared_library
from fakes.hub import docker_registry
from fakes.index import make_wheel
from fakes.program import Program

from mlbox.engine.arch import host_arch
from mlbox.oci.digest import DiffID
from mlbox.paths import Home
from mlbox.store.store import Store

pytestmark = pytest.mark.integration

PYTHON = re.compile(r"(?:usr/bin/|usr/lib/|var/lib/dpkg/info/(?:lib)?)(?:python3|pydoc3|py3)")
STANZA = re.compile(rb"Package: (?:lib)?python3")
SLIM = {
    "Env": ["PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHON_VERSION=0.0.0", "GPG_KEY=A0"],
    "Cmd": ["python3"],
    "ExposedPorts": {"80/tcp": {}},
    "Labels": {"maintainer": "somebody", "org.opencontainers.image.title": "not ours"},
}
CUDA = {
    "Env": ["PATH=/usr/local/nvidia/bin:/usr/sbin:/usr/bin:/sbin:/bin", "NVIDIA_VISIBLE_DEVICES=all"],
    "Entrypoint": ["/opt/nvidia/entrypoint.sh"],
    "WorkingDir": "/opt",
    "StopSignal": "SIGQUIT",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that this module's tests share, so that everything is downloaded once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def debian(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of mlbox's own Debian trixie."""
    folder = tmp_path_factory.mktemp("debian")
    (folder / "mlbox.toml").write_text('python = "3.13"\npip = false\n')
    (folder / "requirements.txt").write_text("")
    mlbox = Program(home, folder)
    digest = mlbox.build("-t", "debian-trixie")
    store = Store(Home(home))
    diff_id = store.images.load(store.images.resolve(digest)).config.rootfs.diff_ids[0]
    store.close()
    return store.layers.root(DiffID(diff_id))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on loopback."""
    program = shutil.which("docker-registry")
    if program is None or shutil.which("skopeo") is None:
        from conftest import missing

        missing("docker-registry and skopeo are not installed")
    with docker_registry(tmp_path_factory.mktemp("registry"), program or "") as host:
        yield host


Push = Callable[..., str]


@pytest.fixture(scope="module")
def push(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Push:
    """Pushes an image of some tars and returns its digest."""
    skopeo = shutil.which("skopeo") or ""

    def run(name: str, layers: list[Path], config: dict[str, Any], arch: str = host_arch()) -> str:
        return push_image(registry, name, layers, config, skopeo, arch)

    return run


@pytest.fixture(scope="module")
def tars(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Layers to make bases of: a Debian without Python, Python below /usr/local, what an upper layer changes."""
    folder = tmp_path_factory.mktemp("tars")
    status = (debian / "var/lib/dpkg/status").read_bytes().split(b"\n\n")
    without = b"\n\n".join(stanza for stanza in status if not STANZA.match(stanza))

    def system(path: str) -> str:
        return "" if PYTHON.match(path) or path == "var/lib/dpkg/status" else path

    def local(path: str) -> str:
        moved = re.fullmatch(r"usr/(bin|lib)/(python3(?:\.13)?(?:/.*)?)", path)
        return f"usr/local/{moved[1]}/{moved[2]}" if moved and moved[2] != "python3/dist-packages" else ""

    return {
        "system": layer_of(folder / "system.tar", debian, system, {"var/lib/dpkg/status": without + b"\n"}),
        "python": layer_of(folder / "python.tar", debian, local),
        "upper": layer_of(folder / "upper.tar", folder / "none", extra={"etc/.wh.motd": b"", "etc/base": b"1\n"}),
        "banner": layer_of(folder / "banner.tar", folder / "none", extra={"opt/bin/banner": b"#!/bin/sh\n"}),
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository that needs one compiled wheel."""
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "requirements.txt").write_text("numpy\n")
    (folder / "main.py").write_text("import numpy, sys; print(numpy.arange(4).sum(), sys.base_prefix)\n")
    return folder


def settings(project: Path, **values: object) -> None:
    """Write the project's settings."""
    text = "".join(f"{key.replace('_', '-')} = {json.dumps(value)}\n" for key, value in values.items())
    (project / "mlbox.toml").write_text(text)


def image(home: Path, digest: str) -> Any:
    """Return the configuration of an image of the store."""
    store = Store(Home(home))
    try:
        return store.images.load(store.images.resolve(digest)).config
    finally:
        store.close()


def test_a_deleted_tag_does_not_matter(
    home: Path, project: Path, registry: str, push: Push, tars: dict[str, Path], tmp_path: Path
) -> None:
    """A lock names the base by digest: built after the tag is gone it is the same image, here and elsewhere."""
    pushed = push("lib/python:3.13-slim", [tars["system"], tars["python"], tars["upper"]], SLIM)
    settings(project, base=f"{registry}/lib/python:3.13-slim")
    mlbox, elsewhere = Program(home, project), Program(tmp_path / "other", project)
    mlbox.run("lock")
    lock = tomllib.loads((project / "mlbox.lock").read_text())
    first = elsewhere.build("-t", "elsewhere")
    delete(registry, "lib/python", pushed)

    plan = mlbox.out("plan")
    digest = mlbox.build("-t", "on-slim")

    assert digest == first
    assert (lock["base"]["digest"], lock["base"]["home"]) == (pushed, "/usr/local/bin")
    assert lock["target"]["python"] == "3.13"
    assert len(lock["base-layer"]) == 3
    assert f"{registry}/lib/python:3.13-slim@{pushed[:19]}" in plan
    assert mlbox.out("run", "--rm", "on-slim", "python", "main.py") == "6 /usr/local"
    assert mlbox.out("run", "--rm", "on-slim", "sh", "-c", "cat /etc/base; ls /etc/motd || true") == "1"
    config = image(home, digest)
    assert config.config.env[0].startswith("PATH=/opt/mlbox/env/bin:/usr/local/bin:")
    assert "GPG_KEY=A0" in config.config.env
    assert config.config.exposed_ports == {}
    assert config.config.labels["maintainer"] == "somebody"
    assert config.config.labels["org.opencontainers.image.base.digest"] == pushed
    assert "org.opencontainers.image.title" not in config.config.labels
    assert [one.created_by for one in config.history[:4]][-1] == 'CMD ["python3"]'


def test_an_image_on_a_base_is_verified_where_only_it_was_pulled(
    home: Path, project: Path, registry: str, push: Push, tars: dict[str, Path], tmp_path: Path
) -> None:
    """Its layers came along; the configuration of its base is fetched, without which its own cannot be made again."""
    push("proved/python:1", [tars["system"], tars["python"]], SLIM)
    settings(project, base=f"{registry}/proved/python:1")
    name = f"{registry}/me/proved:1"
    mlbox, elsewhere = Program(home, project), Program(tmp_path / "other", tmp_path)
    mlbox.build("-t", name)
    mlbox.run("push", name)
    elsewhere.run("pull", name)
    assert ": equal (made again" in elsewhere.out("verify", name)


def test_a_base_that_is_gone_for_good_says_so(
    home: Path, project: Path, registry: str, push: Push, tars: dict[str, Path], tmp_path: Path
) -> None:
    """Without the image in the store or the registry the error names what was locked, and what the tag means now."""
    old = push("moved/python:1", [tars["system"], tars["python"]], SLIM)
    settings(project, base=f"{registry}/moved/python:1")
    Program(home, project).run("lock")
    delete(registry, "moved/python", old)
    new = push("moved/python:1", [tars["system"], tars["python"], tars["upper"]], SLIM)

    done = Program(tmp_path / "empty", project).run("build", code=1)

    assert old in done.stderr
    assert new in done.stderr
    assert "--upgrade" in done.stderr


def test_a_moved_tag_moves_the_lock_only_when_asked(
    home: Path, project: Path, registry: str, push: Push, tars: dict[str, Path]
) -> None:
    """A relock keeps the base; --upgrade takes what the tag means now, and --diff says so before."""
    old = push("fresh/python:1", [tars["system"], tars["python"]], SLIM)
    settings(project, base=f"{registry}/fresh/python:1")
    mlbox = Program(home, project)
    mlbox.run("lock")
    new = push("fresh/python:1", [tars["system"], tars["python"], tars["upper"]], SLIM)
    (project / "requirements.txt").write_text("numpy\nidna\n")

    mlbox.run("lock")
    assert old in (project / "mlbox.lock").read_text()
    assert f"{old[:19]} -> {new[:19]} (2 of 3 layers stay)" in mlbox.out("lock", "--upgrade", "--diff")
    mlbox.run("lock", "--upgrade")
    assert new in (project / "mlbox.lock").read_text()


def test_packages_are_added_to_a_debian_base(
    home: Path, project: Path, registry: str, push: Push, tars: dict[str, Path]
) -> None:
    """A CUDA-like base without Python gets it, and what system-packages names, from the release it is made of."""
    push("cuda:runtime", [tars["system"], tars["banner"]], CUDA)
    settings(project, base=f"{registry}/cuda:runtime", system_packages=["file"])
    mlbox = Program(home, project)
    said = mlbox.run("lock").stderr
    digest = mlbox.build("-t", "on-cuda")
    lock = tomllib.loads((project / "mlbox.lock").read_text())

    script = "python main.py; file -b /bin/true; dpkg --audit; dpkg -s file python3 | grep -c 'install ok installed'"
    out = mlbox.out("run", "--rm", "on-cuda", "sh", "-c", script).splitlines()

    assert "entrypoint" in said
    assert out[0] == "6 /usr"
    assert out[1].startswith("ELF 64-bit")
    assert out[2] == "2"
    assert {"file", "libmagic1t64", "python3"} <= {deb["name"] for deb in lock["deb"]}
    assert not {"libc6", "zlib1g", "dpkg"} & {deb["name"] for deb in lock["deb"]}
    config = image(home, digest).config
    assert "NVIDIA_VISIBLE_DEVICES=all" in config.env
    assert (config.entrypoint, config.stop_signal, config.working_dir) == (None, "", "/workspace")


def test_the_loader_finds_added_libraries(
    home: Path, project: Path, registry: str, push: Push, tars: dict[str, Path]
) -> None:
    """The loader's cache and dpkg's notes are those of the base and the added packages together."""
    push("cuda:libs", [tars["system"], tars["python"]], CUDA)
    settings(project, base=f"{registry}/cuda:libs", system_packages=["libgl1"])
    mlbox = Program(home, project)
    mlbox.build("-t", "with-gl")
    count = "grep -v -e generated -e 'libs found' | wc -l"
    script = f"""ldconfig -p | grep -c -e libGL.so.1 -e libc.so.6; ldconfig -p | {count}
        ldconfig; ldconfig -p | {count}; dpkg --verify libgl1 | grep -v /usr/share/doc || true"""

    cached = mlbox.out("run", "--rm", "with-gl", "sh", "-c", script)

    lines = cached.splitlines()
    assert lines[0] == "2"
    assert lines[1:] == [lines[1], lines[1]]


def test_a_source_is_built_and_byte_code_compiled_with_the_bases_python(
    home: Path, project: Path, registry: str, push: Push, tars: dict[str, Path]
) -> None:
    """Steps that run code run in the base, with its interpreter."""
    push("steps/python:1", [tars["system"], tars["python"]], SLIM)
    settings(project, base=f"{registry}/steps/python:1", bytecode=True)
    (project / "requirements.txt").write_text("docopt==0.6.2\n")
    mlbox = Program(home, project)
    mlbox.build("-t", "steps")
    script = "import docopt, sys; print(docopt.__version__, docopt.__cached__, sys.base_prefix)"

    out = mlbox.out("run", "--rm", "steps", "python", "-c", script).split()

    assert out[0] == "0.6.2"
    assert out[1].endswith("/site-packages/__pycache__/docopt.cpython-313.pyc")
    assert out[2] == "/usr/local"
    assert mlbox.out("run", "--rm", "steps", "test", "-f", out[1]) == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"python": "3.12"}, ["3.13 (/usr/local/bin/python3.13)", "3.12"]),
        ({"python": "3.13.99"}, ["3.13.99", "3.13."]),
    ],
)
def test_contradictions_are_named(
    home: Path,
    project: Path,
    registry: str,
    push: Push,
    tars: dict[str, Path],
    values: dict[str, object],
    words: list[str],
) -> None:
    """A base whose Python is not the project's is refused, naming both."""
    push("other/python:1", [tars["system"], tars["python"]], SLIM)
    settings(project, base=f"{registry}/other/python:1", **values)

    done = Program(home, project).run("lock", code=1)

    assert all(word in done.stderr for word in words), done.stderr


def test_what_cannot_be_a_base(
    home: Path, project: Path, registry: str, push: Push, tars: dict[str, Path], tmp_path: Path
) -> None:
    """Another architecture, musl, a distribution without Python, no tag, an mlbox image: each says what it is."""
    musl = {"lib/ld-musl-x86_64.so.1": b"", "etc/os-release": b'ID=alpine\nPRETTY_NAME="Alpine Linux"\n'}
    ubuntu = {
        "usr/lib/x86_64-linux-gnu/libc.so.6": b"\0GNU C Library (Ubuntu GLIBC 2.39) stable release version 2.39.\n",
        "usr/lib/os-release": b'ID=ubuntu\nVERSION_CODENAME=noble\nPRETTY_NAME="Ubuntu 24.04"\n',
    }
    other = "arm64" if host_arch() == "amd64" else "amd64"
    push("no/arm:1", [tars["banner"]], {}, other)
    push("no/alpine:1", [layer_of(tmp_path / "a.tar", tmp_path / "none", extra=musl)], {})
    push("no/ubuntu:1", [layer_of(tmp_path / "u.tar", tmp_path / "none", extra=ubuntu)], {})
    mine = layer_of(tmp_path / "m.tar", tmp_path / "none", extra={"opt/mlbox/env/pyvenv.cfg": b""})
    push("no/mlbox:1", [tars["system"], mine], {})
    mlbox = Program(home, project)
    expected = {
        "no/arm:1": other,
        "no/alpine:1": "musl",
        "no/ubuntu:1": "Ubuntu 24.04) has no Python",
        "no/mlbox:1": "mlbox made it",
        "no/such:1": "404",
    }
    for name, words in expected.items():
        settings(project, base=f"{registry}/{name}")
        assert words in mlbox.run("lock", code=1).stderr


def test_packages_only_for_debian(home: Path, project: Path, registry: str, push: Push, tmp_path: Path) -> None:
    """Another distribution with a Python can be a base; packages for it are refused, naming what it is."""
    ubuntu = {
        "usr/lib64/libc.so.6": b"\0GNU C Library (Ubuntu GLIBC 2.39) stable release version 2.39.\n",
        "usr/lib/os-release": b'ID=ubuntu\nVERSION_CODENAME=noble\nPRETTY_NAME="Ubuntu 24.04"\n',
        "usr/bin/python3.12": b"\x7fELF\0003.12.3\0",
    }
    push("noble:1", [layer_of(tmp_path / "u.tar", tmp_path / "none", extra=ubuntu)], {})
    mlbox = Program(home, project)

    settings(project, base=f"{registry}/noble:1", system_packages=["git"])
    assert "noble:1 is Ubuntu 24.04" in mlbox.run("lock", code=1).stderr
    settings(project, base=f"{registry}/noble:1")
    mlbox.run("lock")
    target = tomllib.loads((project / "mlbox.lock").read_text())["target"]
    assert (target["python-full"], target["glibc"]) == ("3.12.3", "2.39")


def test_without_network(
    home: Path, project: Path, registry: str, push: Push, tars: dict[str, Path], tmp_path: Path
) -> None:
    """What was pulled is found without the registry, and is built on."""
    pushed = push("off/python:1", [tars["system"], tars["python"]], SLIM)
    settings(project, base=f"{registry}/off/python:1")
    (project / "requirements.txt").write_text("")
    online, offline = Program(home, project), Program(home, project, MLBOX_OFFLINE="1")
    online.run("pull", f"{registry}/off/python:1")
    settings(project, base=f"{registry}/off/python:1", pip=False)

    offline.run("lock")
    offline.build("-t", "off")

    assert pushed in (project / "mlbox.lock").read_text()
    assert offline.out("run", "--rm", "off", "python", "-c", "print(1)") == "1"


def test_the_dockerfile_begins_with_the_base(
    home: Path, project: Path, registry: str, push: Push, tars: dict[str, Path]
) -> None:
    """The same said to docker: FROM the digest, its own Python makes the environment."""
    pushed = push("file/python:1", [tars["system"], tars["python"]], SLIM)
    settings(project, base=f"{registry}/file/python:1")
    mlbox = Program(home, project)
    mlbox.run("lock")

    text = mlbox.out("export", "--format", "dockerfile")

    assert f" {registry}/file/python:1@{pushed} AS base\n" in text
    assert "RUN /usr/local/bin/python3.13 -m venv " in text
    assert "apt-get" not in text


NVIDIAS = [
    *CUDA["Env"],
    "CUDA_VERSION=12.9.1",
    "NV_CUDA_CUDART_VERSION=12.9.79-1",
    "NV_CUDA_LIB_VERSION=12.9.1-1",
    "NV_CUDNN_VERSION=9.10.2.21-1",
]


def test_an_automatic_base_is_the_image_of_cuda_that_packages_need(
    home: Path, project: Path, registry: str, push: Push, tars: dict[str, Path], tmp_path: Path
) -> None:
    """Taken from a mirror; named in the lock as NVIDIA calls it; gone with the package. Twice is said in bytes."""
    large = shared_library("libcublas.so.12") + bytes(11_000_000)
    cublas = layer_of(tmp_path / "cublas.tar", tmp_path / "none", extra={"usr/local/lib/libcublas.so.12": large})
    name = "hub/nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04"
    push(name, [tars["system"], tars["python"], cublas], CUDA | {"Env": NVIDIAS})
    config = tmp_path / "config/mlbox/registries.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[hosts."docker.io"]\nmirrors = ["{registry}/hub"]\n')
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    library = {"nvidia/cublas/lib/libcublas.so.12": large}
    for wheel in (make_wheel("onnxruntime-gpu", "1.22.0"), make_wheel("nvidia-cublas-cu12", "0.0.1", files=library)):
        (wheels / wheel[0]).write_bytes(wheel[1])
    (project / "requirements.txt").write_text("onnxruntime-gpu==1.22.0\n")
    settings(project, base="auto", pip=False, find_links=[str(wheels)])
    mlbox = Program(home, project, XDG_CONFIG_HOME=str(tmp_path / "config"))

    said = mlbox.run("lock").stderr
    lock = tomllib.loads((project / "mlbox.lock").read_text())
    assert f'base = "auto": docker.io/nvidia/{name.removeprefix("hub/nvidia/")}, for onnxruntime-gpu 1.22.0' in said
    assert lock["base"]["reference"] == "docker.io/nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04"
    assert "loads libcublas" not in said
    mlbox.build("-t", "ort")
    assert "12.9" in mlbox.out("check", "ort", "--driver", "575.57.08")

    (project / "requirements.txt").write_text("onnxruntime-gpu==1.22.0\nnvidia-cublas-cu12==0.0.1\n")
    twice = mlbox.run("build", "--relock", "-t", "ort").stderr
    assert "libcublas.so.12 of nvidia-cublas-cu12 0.0.1 are in the base too: 11.0 MB" in twice

    (project / "requirements.txt").write_text("idna\n")
    mlbox.run("lock")
    assert "base-layer" not in (project / "mlbox.lock").read_text()
