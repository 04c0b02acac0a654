"""A base of Ubuntu without Python, like the images of CUDA: locked, built and run.

No real archive of Ubuntu is needed: one is made of Debian's packages, packed and signed as Ubuntu's are. Python's
version is the Debian release's, which the locking process is told for noble; everything else is mlbox as it is.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import missing
from fakes.bases import layer_of, push_image
from fakes.debian import UbuntuArchive
from fakes.hub import docker_registry
from fakes.program import Program
from fakes.ubuntu import OS_RELEASE, SUFFIX, publish

from mlbox.engine.arch import host_arch
from mlbox.oci.digest import DiffID
from mlbox.paths import Home
from mlbox.store.store import Store

pytestmark = pytest.mark.integration

PYTHON_FILE = re.compile(r"(?:usr/bin/|usr/lib/|var/lib/dpkg/info/(?:lib)?)(?:python3|pydoc3|py3)")
PYTHON = re.compile(r"(?:lib)?python3")
PYTHON_STANZA = re.compile(rb"Package: (?:lib)?python3")
CUDA = {
    "Env": [
        "PATH=/usr/local/nvidia/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64",
        "NVARCH=x86_64",
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        "NVIDIA_REQUIRE_CUDA=cuda>=12.6",
    ],
    "Entrypoint": ["/opt/nvidia/nvidia_entrypoint.sh"],
    "Labels": {"maintainer": "somebody", "org.opencontainers.image.version": "24.04"},
}
LOCK = """
import sys
from functools import partial
from pathlib import Path
from mlbox.engine import locking
from mlbox.lock import debian
from mlbox.lock.debian.distributions import DEBIAN, UBUNTU
UBUNTU.releases["noble"] = DEBIAN.releases["trixie"]
keys = debian.Keys(keyrings=Path(sys.argv.pop(1)), trusted=Path("/none"))
locking.Asked = partial(debian.Asked, keys=keys)
from mlbox.__main__ import main
main()
"""


class Ubuntu:
    """An archive and an image of noble."""

    def __init__(self, registry: str, folder: Path, home: Path) -> None:
        self.archive = UbuntuArchive(folder / "archive")
        self.env = {"MLBOX_UBUNTU_MIRROR": self.archive.url, "MLBOX_UBUNTU_PORTS_MIRROR": self.archive.url}
        self.base = f"{registry}/nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04"
        tree, debs = _debian(home, folder)
        python = [path for name, path in debs.items() if PYTHON.match(name)]
        more = [path for name, path in debs.items() if name in ("file", "libmagic1t64", "libmagic-mgc")]
        phased = [f"{one}Phased-Update-Percentage: 10\n" for one in publish(self.archive.root, python, "main")]
        universe = publish(self.archive.root, more, "universe")
        self.archive.publish_release([], universe, updates=phased, arch=host_arch())
        self.digest = push_image(
            registry,
            self.base.partition("/")[2],
            [_image(folder, tree)],
            CUDA,
            shutil.which("skopeo") or "",
            host_arch(),
        )


def _debian(home: Path, folder: Path) -> tuple[Path, dict[str, Path]]:
    """Return the files of mlbox's own Debian trixie, and its packages and those of 'file'."""
    project = folder / "debian"
    project.mkdir()
    (project / "mlbox.toml").write_text('python = "3.13"\npip = false\nsystem-packages = ["file"]\n')
    (project / "requirements.txt").write_text("")
    digest = Program(home, project).build("-t", "debian-trixie")
    lock = tomllib.loads((project / "mlbox.lock").read_text())
    store = Store(Home(home))
    diff_id = store.images.load(store.images.resolve(digest)).config.rootfs.diff_ids[0]
    debs = {deb["name"]: store.artifacts.path(deb["sha256"]) for deb in lock["deb"]}
    store.close()
    return store.layers.root(DiffID(diff_id)), debs


def _image(folder: Path, debian: Path) -> Path:
    """Return a layer with that Debian, without its Python, saying that it is Ubuntu."""
    status = (debian / "var/lib/dpkg/status").read_bytes().split(b"\n\n")
    changed = {
        "usr/lib/os-release": OS_RELEASE,
        "var/lib/dpkg/status": b"\n\n".join(one for one in status if not PYTHON_STANZA.match(one)) + b"\n",
        "etc/ld.so.conf.d/nvidia.conf": b"/usr/local/nvidia/lib\n/usr/local/nvidia/lib64\n",
    }

    def kept(path: str) -> str:
        return "" if PYTHON_FILE.match(path) or path in changed else path

    return layer_of(folder / "ubuntu.tar", debian, kept, changed)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that this module's tests share."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def ubuntu(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ubuntu]:
    """A registry with an image of noble, and an archive."""
    program = shutil.which("docker-registry")
    if program is None or shutil.which("skopeo") is None:
        missing("docker-registry and skopeo are not installed")
    folder = tmp_path_factory.mktemp("ubuntu")
    with docker_registry(folder, program or "") as host:
        yield Ubuntu(host, folder, home)


@pytest.fixture
def project(tmp_path: Path, ubuntu: Ubuntu) -> Path:
    """A repository that needs one compiled wheel, and a program of universe."""
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "requirements.txt").write_text("numpy\n")
    (folder / "main.py").write_text("import numpy, sys; print(numpy.arange(4).sum(), sys.prefix, sys.base_prefix)\n")
    (folder / "mlbox.toml").write_text(f'base = {json.dumps(ubuntu.base)}\nsystem-packages = ["file"]\n')
    return folder


def lock(mlbox: Program, keyrings: Path, *args: str, code: int = 0) -> str:
    """Run `mlbox lock` with those keys, and return what it says."""
    argv = [sys.executable, "-c", LOCK, str(keyrings), "lock", *args]
    done = subprocess.run(argv, cwd=mlbox.cwd, env=mlbox.env, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_base_without_python_gets_ubuntus(home: Path, project: Path, ubuntu: Ubuntu, tmp_path: Path) -> None:
    """Locked with signed indexes, built without them, and Python runs in the environment over the base's own."""
    mlbox = Program(home, project, **ubuntu.env)

    said = lock(mlbox, ubuntu.archive.keys.keyrings)
    digest = mlbox.build("-t", "on-ubuntu")
    elsewhere = Program(tmp_path / "other", project, **ubuntu.env).build("-t", "elsewhere")

    locked = tomllib.loads((project / "mlbox.lock").read_text())
    assert "resolve packages of Ubuntu noble on the base" in said
    assert "nvidia_entrypoint.sh" in said
    assert (locked["base"]["suite"], locked["base"]["digest"]) == ("noble", ubuntu.digest)
    assert {(deb["suite"], deb["version"].endswith(SUFFIX)) for deb in locked["deb"]} == {
        ("noble", True),
        ("noble-updates", True),
    }
    assert {"python3", "python3.13-minimal", "file", "libmagic1t64"} <= {deb["name"] for deb in locked["deb"]}
    assert "libc6" not in {deb["name"] for deb in locked["deb"]}
    assert elsewhere == digest
    script = """python main.py; python -c 'import ssl, sqlite3, lzma; print(ssl.OPENSSL_VERSION[:7])'
        . /etc/os-release; echo "$ID"; file -b /bin/true; dpkg --audit; printenv PATH LD_LIBRARY_PATH
        dpkg-query -W -f '${Version}\\n' python3.13; ldconfig -p | grep -c libmagic.so.1"""
    out = mlbox.out("run", "--rm", "on-ubuntu", "sh", "-c", script).splitlines()
    assert out[:3] == ["6 /opt/mlbox/env /usr", "OpenSSL", "ubuntu"]
    assert out[3].startswith("ELF 64-bit")
    assert out[4].startswith("/opt/mlbox/env/bin:/usr/local/nvidia/bin:/usr/local/cuda/bin:/usr/local/sbin:")
    assert out[5] == "/usr/local/nvidia/lib:/usr/local/nvidia/lib64"
    assert out[6].endswith(SUFFIX)
    assert out[7] == "1"


def test_without_ubuntus_keys_nothing_is_locked(home: Path, project: Path, ubuntu: Ubuntu, tmp_path: Path) -> None:
    """The error names what to install; nothing is written."""
    said = lock(Program(home, project, **ubuntu.env), tmp_path / "none", code=1)

    assert "no keyring of Ubuntu on this host" in said
    assert "install the package ubuntu-keyring" in said
    assert not (project / "mlbox.lock").exists()


def test_without_a_mirror_the_setting_is_named(home: Path, project: Path, ubuntu: Ubuntu) -> None:
    """A host of Debian's has none in its configuration of apt."""
    if "ubuntu" in Path("/etc/os-release").read_text():
        pytest.skip("this host has mirrors of Ubuntu")

    said = lock(Program(home, project), ubuntu.archive.keys.keyrings, code=1)

    assert "no Ubuntu archive for" in said
    assert "MLBOX_UBUNTU_" in said
