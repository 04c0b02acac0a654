"""Packages that are compiled: real sources, real compilers, and nothing of these in the image."""

import io
import json
import shutil
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.containers import busybox_rootfs
from fakes.hub import docker_registry
from fakes.program import Program

from mlbox.build.step import Bind, Step
from mlbox.errors import BuildError
from mlbox.gpu.fatbin import device_code
from mlbox.oci.digest import Digest
from mlbox.paths import Home
from mlbox.runtime import step as steps
from mlbox.runtime.step import ContainerSteps
from mlbox.store.store import Store

pytestmark = pytest.mark.integration

COMPILERS = {
    "gcc",
    "cc",
    "g++",
    "make",
    "ld",
    "as",
    "cc1",
    "cc1plus",
    "stdio.h",
    "Python.h",
    "setuptools",
    "Cython",
    "pybind11",
}
C = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
{head}
static PyObject *answer(PyObject *self, PyObject *unused) {{ return PyLong_FromLong({value}); }}
static PyMethodDef methods[] = {{{{"answer", answer, METH_NOARGS, ""}}, {{0}}}};
static struct PyModuleDef module = {{PyModuleDef_HEAD_INIT, "_x", 0, -1, methods}};
PyMODINIT_FUNC PyInit__x(void) {{ return PyModule_Create(&module); }}
"""
SETUP = """
{before}
from setuptools import Extension, setup
setup(ext_modules=[Extension("{name}._x", ["x.c"], libraries={libraries})])
"""
PYPROJECT = """
[build-system]
requires = [{requires}]
build-backend = "{backend}"
[project]
name = "{name}"
version = "1.0"
[tool.setuptools]
packages = ["{name}"]
"""


def sdist(folder: Path, name: str, files: dict[str, str], requires: str = '"setuptools"', backend: str = "") -> None:
    """Write an sdist of `files` and a pyproject.toml."""
    said = PYPROJECT.format(requires=requires, backend=backend or "setuptools.build_meta", name=name)
    files = {
        "PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: 1.0\n",
        "pyproject.toml": said,
        f"{name}/__init__.py": "",
        **files,
    }
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(f"{name}-1.0/{path}")
            data = textwrap.dedent(text).encode()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def c_files(name: str, *, value: str = "42", head: str = "", before: str = "", libraries: str = "[]") -> dict[str, str]:
    """Return the files of an extension module in C whose answer() gives `value`."""
    return {
        "x.c": C.format(value=value, head=head),
        "setup.py": SETUP.format(name=name, before=before, libraries=libraries),
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store that this module's tests share, so that everything is downloaded once."""
    home = tmp_path_factory.mktemp("home")
    yield home
    Program(home, home).run("prune", "--built", "-f", code=None)


@pytest.fixture
def mlbox(shared: Path, tmp_path: Path) -> Program:
    """The program, standing in a repository that takes sources from 'links'."""
    folder = tmp_path / "repo"
    (folder / "links").mkdir(parents=True)
    (folder / "mlbox.toml").write_text('python = "3.13"\npip = false\nfind-links = ["links"]\nignore = ["links/"]\n')
    return Program(shared, folder)


def asks(mlbox: Program, requirements: str, settings: str = "") -> None:
    """Write what the repository asks for."""
    (mlbox.cwd / "requirements.txt").write_text(requirements)
    with (mlbox.cwd / "mlbox.toml").open("a") as file:
        file.write(settings)


def files_of(mlbox: Program, digest: str) -> dict[str, Path]:
    """Return every path of the image and where it lies."""
    store = Store(Home(mlbox.home))
    try:
        found = {}
        for diff_id in store.images.load(Digest(digest)).config.rootfs.diff_ids:
            root = store.layers.root(diff_id)
            found.update({entry.path: root / entry.path for entry in store.layers.entries(diff_id)})
        return found
    finally:
        store.close()


def compilers_in(mlbox: Program, digest: str) -> set[str]:
    """Return what of compilers, headers and build requirements is in the image."""
    paths = files_of(mlbox, digest)
    assert "usr/bin/python3.13" in paths
    docs = ("usr/share/", "var/lib/dpkg/")
    return {path for path in paths if path.rpartition("/")[2] in COMPILERS and not path.startswith(docs)}


def test_an_extension_in_c(mlbox: Program) -> None:
    """Compiled in a stage of its own: no file of it is in the image, and the lock and the plan say what it was."""
    sdist(mlbox.cwd / "links", "mbxplainc", c_files("mbxplainc"))
    asks(mlbox, "mbxplainc\n")

    digest = mlbox.build("-t", "test/c")

    assert mlbox.out("run", "--rm", "test/c", "python", "-c", "import mbxplainc._x as x; print(x.answer())") == "42"
    assert not compilers_in(mlbox, digest)
    lock = (mlbox.cwd / "mlbox.lock").read_text()
    assert 'compiled = ["c"]' in lock
    assert 'role = "build"' in lock.partition("[[build-deb]]")[2]
    plan = mlbox.out("plan")
    assert "built in a container, pinned by its output: mbxplainc 1.0 (c)" in plan
    assert "Debian packages, which are not in the image" in plan


def test_cython_and_pybind11(mlbox: Program) -> None:
    """With build requirements from the index, which are in no image either."""
    sdist(
        mlbox.cwd / "links",
        "mbxwithcython",
        {
            "mbxwithcython/fast.pyx": "def twice(int n):\n    return 2 * n\n",
            "setup.py": "from Cython.Build import cythonize\nfrom setuptools import setup\n"
            "setup(ext_modules=cythonize('mbxwithcython/fast.pyx'))\n",
        },
        requires='"setuptools", "Cython>=3"',
    )
    sdist(
        mlbox.cwd / "links",
        "mbxwithpybind",
        {
            "x.cpp": "#include <pybind11/pybind11.h>\nPYBIND11_MODULE(_x, m) {"
            'm.def("add", [](int a, int b) { return a + b; }); }\n',
            "setup.py": "from pybind11.setup_helpers import Pybind11Extension\nfrom setuptools import setup\n"
            "setup(ext_modules=[Pybind11Extension('mbxwithpybind._x', ['x.cpp'])])\n",
        },
        requires='"setuptools", "pybind11>=2.12"',
    )
    asks(mlbox, "mbxwithcython\nmbxwithpybind\n")

    digest = mlbox.build("-t", "test/cxx")

    code = "import mbxwithcython.fast as f, mbxwithpybind._x as x; print(f.twice(21), x.add(40, 2))"
    assert mlbox.out("run", "--rm", "test/cxx", "python", "-c", code) == "42 42"
    assert not compilers_in(mlbox, digest)


def test_a_source_of_the_index(mlbox: Program) -> None:
    """Forced by --no-binary, as pip knows it; a second build makes the same files."""
    asks(mlbox, "--no-binary markupsafe\nmarkupsafe\n")
    digest = mlbox.build("-t", "test/index")
    assert any("markupsafe/_speedups.cpython-313" in path for path in files_of(mlbox, digest))
    done = mlbox.run("build", "--rebuild", "MarkupSafe")
    assert "built once more, the same files" in done.stdout
    assert done.stdout.strip().endswith(digest)


def test_pure_sources_need_no_compiler(mlbox: Program) -> None:
    sdist(mlbox.cwd / "links", "mbxpurely", {"tests/x.c": "int x;"})
    asks(mlbox, "mbxpurely\n")
    mlbox.build()
    assert "build-deb" not in (mlbox.cwd / "mlbox.lock").read_text()


def test_builds_that_differ_are_told(mlbox: Program) -> None:
    """Which file, and from which byte on; the exit code says so too."""
    before = "import time; open('x.h', 'w').write(f'#define NOW {time.time_ns()}L')"
    sdist(
        mlbox.cwd / "links", "mbxtimed", c_files("mbxtimed", value="NOW & 0xffff", head='#include "x.h"', before=before)
    )
    asks(mlbox, "mbxtimed\n")
    digest = mlbox.build("-t", "test/timed")

    done = mlbox.run("build", "--rebuild", "mbxtimed", code=1)

    assert "mbxtimed 1.0: NOT REPRODUCIBLE" in done.stdout
    assert "mbxtimed/_x.cpython-313" in done.stdout
    assert ": from byte " in done.stdout
    assert done.stdout.strip().endswith(digest)  # the first build stays
    assert "NOT EQUAL" in mlbox.run("verify", "test/timed", code=1).stdout


def test_a_library_of_the_stage_alone(mlbox: Program) -> None:
    """The error names the package that belongs in the image; the settings let the build add it."""
    head = "#include <yaml.h>\n#define VERSION (yaml_get_version_string() != 0)"
    sdist(mlbox.cwd / "links", "mbxlinked", c_files("mbxlinked", value="VERSION", head=head, libraries='["yaml"]'))
    asks(mlbox, "mbxlinked\n", 'build-packages = ["libyaml-dev"]\n')

    done = mlbox.run("build", code=1)
    assert "needs libyaml-0.so.2, which only the stage has" in done.stderr
    assert "(package libyaml-0-2)" in done.stderr
    assert "'libyaml-0-2'" in done.stderr.partition("hint:")[2]

    asks(mlbox, "mbxlinked\n", "auto-system-packages = true\n")
    mlbox.build("--relock", "-t", "test/linked")
    code = "import mbxlinked._x as x; print(x.answer())"
    assert mlbox.out("run", "--rm", "test/linked", "python", "-c", code) == "1"
    assert 'found-packages = ["libyaml-0-2"]' in (mlbox.cwd / "mlbox.lock").read_text()


def test_a_missing_header_names_the_setting(mlbox: Program) -> None:
    sdist(mlbox.cwd / "links", "mbxheadless", c_files("mbxheadless", head="#include <yaml.h>"))
    asks(mlbox, "mbxheadless\n")
    assert "package with yaml.h belongs in [tool.mlbox] build-packages" in mlbox.run("build", code=1).stderr


def test_how_a_package_is_built_is_the_projects_to_say(mlbox: Program) -> None:
    before = "import os; open('x.h', 'w').write('#define VALUE ' + os.environ['VALUE'])"
    sdist(mlbox.cwd / "links", "mbxsaid", c_files("mbxsaid", value="VALUE", head='#include "x.h"', before=before))
    asks(mlbox, "mbxsaid\n", '[build.mbxsaid]\nenv = { VALUE = "7" }\n')
    mlbox.build("-t", "test/said")
    code = "import mbxsaid._x as x; print(x.answer())"
    assert mlbox.out("run", "--rm", "test/said", "python", "-c", code) == "7"


def test_wheels_are_shared(mlbox: Program, need: Callable[[str], str], tmp_path: Path) -> None:
    """Through a real registry into another store: nothing is compiled there, and the image is the same."""
    sdist(mlbox.cwd / "links", "mbxplainc", c_files("mbxplainc"))
    asks(mlbox, "mbxplainc\n")
    digest = mlbox.build("-t", "test/shared")
    (tmp_path / "registry").mkdir()
    other = Program(tmp_path / "other", mlbox.cwd)
    shutil.copytree(mlbox.home / "artifacts", other.home / "artifacts")

    with docker_registry(tmp_path / "registry", need("docker-registry")) as host:
        name = f"{host}/team/wheels"
        assert mlbox.out("cache", "push", name) == "mbxplainc 1.0: sent"
        assert "mbxplainc" in other.out("cache", "ls", name)
        assert other.out("cache", "pull", name) == "mbxplainc 1.0: fetched; the next build takes it"

    done = other.run("build", "-t", "test/shared")
    assert done.stdout.splitlines()[-1] == digest
    assert "build a wheel" not in done.stderr
    (wheel,) = json.loads(other.out("provenance", "test/shared"))["predicate"]["runDetails"]["byproducts"]
    assert wheel["annotations"]["origin"].startswith(f"{name}@sha256:")
    (local,) = json.loads(other.out("cache", "ls", "--format", "json"))
    assert local["origin"] == wheel["annotations"]["origin"]
    # Whoever does not trust it builds it and compares.
    assert "the same files" in other.out("build", "--rebuild", "mbxplainc")


def test_a_hostile_source(mlbox: Program) -> None:
    """What it writes is lost, there is no network, and it is alone with few rights."""
    probe = """
    import os, socket
    found = []
    for path in ("/usr/bin/evil", "/etc/evil"):
        open(path, "w").write("x")
    for path in ("/opt/mlbox/env/lib/evil", "/build/hook/hook.py"):
        try:
            open(path, "w")
            found.append(path)
        except OSError:
            pass
    try:
        socket.create_connection(("1.1.1.1", 53), timeout=3)
        found.append("network")
    except OSError:
        pass
    try:
        os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0))
        found.append("device")
    except OSError:
        pass
    pids = []
    try:
        while len(pids) < 10_000:
            pid = os.fork()
            if not pid:
                import signal
                signal.pause()
            pids.append(pid)
        found.append("forks")
    except OSError:
        pass
    import signal
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    for _ in range(2000):
        print("x" * 100_000)
    open("x.h", "w").write(f"#define FOUND {len(found)} /* {found} */")
    """
    setup = SETUP.format(name="mbxhostile", before="exec(open('probe.py').read())", libraries="[]")
    sdist(
        mlbox.cwd / "links",
        "mbxhostile",
        c_files("mbxhostile", value="FOUND", head='#include "x.h"') | {"probe.py": probe, "setup.py": setup},
    )
    asks(mlbox, "mbxhostile\n")
    digest = mlbox.build("-t", "test/hostile")

    code = "import mbxhostile._x as x; print(x.answer())"
    assert mlbox.out("run", "--rm", "test/hostile", "python", "-c", code) == "0"
    assert not [path for path in files_of(mlbox, digest) if path.endswith("/evil")]
    assert not Path("/usr/bin/evil").exists()


def test_a_step_that_fills_the_disk_is_ended(
    home: Home, need: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the host has none left."""
    root = busybox_rootfs(tmp_path / "root", need("busybox"))
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(steps, "_free", lambda path: (1 << 40) - (1 << 40) * (out / "big").exists())
    step = Step(
        argv=("sh", "-c", "echo x > /out/big; sleep 60"),
        lower=(root,),
        binds=(Bind(source=out, target="/out", readonly=False),),
        env={"PATH": "/bin"},
    )
    with pytest.raises(BuildError, match="of the disk free"):
        ContainerSteps(home).run(step)


KERNEL = """
#include <cub/cub.cuh>
#include <cuda_runtime.h>
__global__ void add(float *a, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) a[i] += 1; }
extern "C" int run(float *a, int n) { add<<<(n + 255) / 256, 256>>>(a, n); return cudaGetLastError(); }
"""
NVCC = """
import os, subprocess
from setuptools import Extension, setup
flags = []
for one in os.environ["TORCH_CUDA_ARCH_LIST"].split(";"):
    number = one.removesuffix("+PTX").replace(".", "")
    flags += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
    if one.endswith("+PTX"):
        flags += ["-gencode", f"arch=compute_{number},code=compute_{number}"]
subprocess.run(["nvcc", "-Xcompiler", "-fPIC", *flags, "-c", "kernel.cu", "-o", "kernel.o"], check=True)
setup(
    ext_modules=[
        Extension(
            "mbxwithcuda._x",
            ["x.c"],
            extra_objects=["kernel.o"],
            library_dirs=[os.environ["CUDA_HOME"] + "/lib64"],
            libraries=["cudart"],
        )
    ]
)
"""


def test_device_code_is_compiled_without_a_gpu(mlbox: Program) -> None:
    """By the nvcc of CUDA's wheels, for the architectures that the settings name; twice the same."""
    files = c_files("mbxwithcuda", value="run(0, 0) != 0", head="int run(float *, int);")
    sdist(mlbox.cwd / "links", "mbxwithcuda", files | {"kernel.cu": KERNEL, "setup.py": NVCC})
    asks(mlbox, "mbxwithcuda\nnvidia-cuda-runtime\n", 'gpu-architectures = ["8.0", "sm_90", "12.0+PTX"]\n')

    digest = mlbox.build("-t", "test/cuda")

    found = files_of(mlbox, digest)
    assert not [path for path in found if path.endswith(("/nvcc", "/ptxas", "/cicc"))]
    (module,) = [place for path, place in found.items() if "mbxwithcuda/_x." in path]
    code = device_code(module)
    assert code
    assert {str(one) for one, _ in code.counts} == {"sm_80", "sm_90", "sm_120", "compute_120"}
    assert "c, cuda; for 8.0, 9.0, 12.0+PTX" in mlbox.out("plan")
    assert "the same files" in mlbox.out("build", "--rebuild", "mbxwithcuda")
