"""Source distributions become wheels: unpacked safely, built by their own back end, checked."""

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from fakes.wheels import zip_file

from mlbox.build.sdist import build_wheel, unpack_sdist
from mlbox.build.step import Step
from mlbox.build.zip import Limits
from mlbox.errors import ArchiveError, BuildError
from mlbox.lock.model import Package
from mlbox.plan.model import BuiltWheelPiece

BACKEND = b"""
import os, sys, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    if os.path.exists("fail"):
        raise SystemExit("no gcc here")
    name = open("wheel-name").read()
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("environ", repr(dict(os.environ)))
        wheel.writestr("where", os.getcwd() + " " + os.environ["PATH"] + " " + " ".join(sys.argv[1:]))
    return name
class nested:
    hooks = sys.modules[__name__]
"""
PYPROJECT = b'[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["back"]\n'
SOUND = {"pyproject.toml": PYPROJECT, "back/own.py": BACKEND, "wheel-name": b"demo-1.0-py3-none-any.whl"}


class HostRunner:
    """Runs a step on this machine, with what is bound at its targets found at their sources."""

    def __init__(self) -> None:
        self.step: Step | None = None

    def run(self, step: Step) -> None:
        self.step = step
        argv = [self._here(step, word) for word in step.argv[1:]]
        done = subprocess.run(
            [sys.executable, *argv], cwd=self._here(step, step.cwd), env=step.env, capture_output=True, text=True
        )
        if done.returncode:
            raise BuildError(f"exit status {done.returncode}\n{done.stderr}")

    @staticmethod
    def _here(step: Step, word: str) -> str:
        for bind in sorted(step.binds, key=lambda bind: len(bind.target), reverse=True):
            if word == bind.target or word.startswith(bind.target + "/"):
                return str(bind.source) + word[len(bind.target) :]
        return word


def piece(filename: str = "demo-1.0.tar.gz", subdirectory: str = "", epoch: int = 315532800) -> BuiltWheelPiece:
    return BuiltWheelPiece(
        source=Package(name="demo", version="1.0", filename=filename, sha256="", subdirectory=subdirectory),
        build_packages=(),
        debs=(),
        python="3.11",
        suite="bookworm",
        arch="amd64",
        python_full="3.11.2",
        epoch=epoch,
    )


def sdist(tmp_path: Path, files: dict[str, bytes] | None = None, top: str = "demo-1.0/") -> Path:
    path = tmp_path / "demo-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in (SOUND if files is None else files).items():
            add(tar, top + name, data)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def build(tmp_path: Path, source: Path, wanted: BuiltWheelPiece | None = None) -> tuple[Path, Step]:
    runner = HostRunner()
    scratch, site = tmp_path / "scratch", tmp_path / "site"
    scratch.mkdir()
    site.mkdir()
    wheel = build_wheel(wanted or piece(), source, site, runner, [tmp_path / "lower"], scratch)
    assert runner.step
    return wheel, runner.step


def test_a_wheel_is_built_by_the_back_end(tmp_path: Path) -> None:
    wheel, step = build(tmp_path, sdist(tmp_path))
    assert wheel.name == "demo-1.0-py3-none-any.whl"
    assert wheel.is_relative_to(tmp_path / "scratch")
    assert step.lower == (tmp_path / "lower",)
    assert not step.network
    assert step.cwd == "/build/source"
    assert [bind.target for bind in step.binds if not bind.readonly] == ["/build/source", "/build/out", "/tmp"]


def test_the_environment_decides_nothing_by_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "secret")
    _, step = build(tmp_path, sdist(tmp_path), piece(epoch=0))
    assert step.env["SOURCE_DATE_EPOCH"] == "315532800"
    assert step.env["PYTHONHASHSEED"] == "0"
    assert step.env["PATH"].startswith("/opt/mlbox/env/bin:")
    assert int(step.env["MAX_JOBS"]) >= 1
    assert "MY_TOKEN" not in step.env


def test_the_environments_own_interpreter_is_used_when_it_has_one(tmp_path: Path) -> None:
    _, step = build(tmp_path, sdist(tmp_path))
    assert step.argv[0] == "/usr/bin/python3.11"
    (tmp_path / "site/bin").mkdir()
    (tmp_path / "site/bin/python").symlink_to("python3.11")
    (tmp_path / "scratch").rename(tmp_path / "old")
    runner = HostRunner()
    (tmp_path / "scratch").mkdir()
    build_wheel(piece(), sdist(tmp_path), tmp_path / "site", runner, [], tmp_path / "scratch")
    assert runner.step
    assert runner.step.argv[0] == "/opt/mlbox/env/bin/python"


def test_a_zip_and_a_folder_are_sources_too(tmp_path: Path) -> None:
    archive = zip_file(tmp_path / "demo-1.0.zip", [(f"demo-1.0/{name}", data) for name, data in SOUND.items()])
    (tmp_path / "a").mkdir()
    assert build(tmp_path / "a", archive, piece("demo-1.0.zip"))[0].exists()
    checkout = tmp_path / "checkout"
    for name, data in SOUND.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(data)
    (tmp_path / "b").mkdir()
    wheel, _ = build(tmp_path / "b", checkout, piece("demo-abc.git"))
    assert wheel.exists()
    assert sorted(path.name for path in checkout.iterdir()) == ["back", "pyproject.toml", "wheel-name"]


def test_a_subdirectory_of_the_source(tmp_path: Path) -> None:
    source = sdist(tmp_path, {f"python/{name}": data for name, data in SOUND.items()})
    _, step = build(tmp_path, source, piece(subdirectory="python"))
    assert step.cwd == "/build/source/python"


def test_a_back_end_may_be_an_attribute(tmp_path: Path) -> None:
    nested = PYPROJECT.replace(b'"own"', b'"own:nested.hooks"')
    assert build(tmp_path, sdist(tmp_path, {**SOUND, "pyproject.toml": nested}))[0].exists()


def test_without_pyproject_setuptools_is_assumed(tmp_path: Path) -> None:
    runner = HostRunner()
    (tmp_path / "scratch").mkdir()
    with pytest.raises(BuildError):
        build_wheel(piece(), sdist(tmp_path, {"setup.py": b"0/0"}), tmp_path, runner, [], tmp_path / "scratch")
    assert runner.step
    assert runner.step.argv[2] == '{"backend":"setuptools.build_meta:__legacy__","path":[]}'


def test_a_failure_shows_the_output_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"(?s)building a wheel of demo 1\.0 failed: .*no gcc here") as caught:
        build(tmp_path, sdist(tmp_path, {**SOUND, "fail": b""}))
    assert "build-essential" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wheel-name": b"other-1.0-py3-none-any.whl"}, "made 'other-1.0-py3-none-any.whl', something else"),
        ({"wheel-name": b"demo-2.0-py3-none-any.whl"}, "something else"),
        ({"wheel-name": b"demo.whl"}, "something else"),
        ({"wheel-name": b"demo-1.0.zip"}, "made 0 wheels"),
        ({"pyproject.toml": b"[build-system"}, "demo: pyproject.toml"),
        ({"pyproject.toml": b"build-system = 1"}, r"broken \[build-system\]"),
        ({"pyproject.toml": b"[build-system]\nbuild-backend = 1"}, r"broken \[build-system\]"),
        ({"pyproject.toml": b'[build-system]\nbackend-path = ["../.."]'}, "outside its source"),
        ({"pyproject.toml": b"#" * (1 << 20) + b"\n"}, "larger than"),
    ],
)
def test_what_a_source_may_get_wrong(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        build(tmp_path, sdist(tmp_path, SOUND | files))


def test_a_source_without_a_project(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"neither pyproject\.toml nor setup.py"):
        build(tmp_path, sdist(tmp_path, {"README": b""}))
    (tmp_path / "x").mkdir()
    with pytest.raises(BuildError, match="outside its source"):
        build(tmp_path / "x", sdist(tmp_path), piece(subdirectory="../.."))


def test_a_back_end_that_leaves_a_link_makes_no_wheel(tmp_path: Path) -> None:
    backend = b"import os\ndef build_wheel(out): os.symlink('/etc/passwd', out + '/demo-1.0-py3-none-any.whl')\n"
    with pytest.raises(BuildError, match="made 0 wheels"):
        build(tmp_path, sdist(tmp_path, {**SOUND, "back/own.py": backend}))


@pytest.mark.parametrize("data", [b"", b"not an archive", b"\x1f\x8b\x08\x00 cut", b"PK\5\6" + bytes(18)])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "demo-1.0.tar.gz").write_bytes(data)
    with pytest.raises(ArchiveError, match=r"demo-1\.0\.tar\.gz"):
        build(tmp_path, tmp_path / "demo-1.0.tar.gz")


def test_a_truncated_archive(tmp_path: Path) -> None:
    path = sdist(tmp_path, {**SOUND, "big": os.urandom(100_000)})
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(ArchiveError, match="not a readable source archive"):
        build(tmp_path, path)


def test_more_than_one_folder_at_the_top(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="holds one folder, this one has 3"):
        build(tmp_path, sdist(tmp_path, top=""))


def test_links_and_modes_inside_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "./d", type=tarfile.DIRTYPE)
        add(tar, "./d/run", b"run", mode=0o4711)
        add(tar, "d/hard", type=tarfile.LNKTYPE, linkname="./d/run")
        add(tar, "d/sub/soft", type=tarfile.SYMTYPE, linkname="../run")
    unpack_sdist(path, tmp_path / "out", "x.tar")
    assert (tmp_path / "out/d/hard").read_bytes() == b"run"
    assert (tmp_path / "out/d/sub/soft").read_bytes() == b"run"
    assert (tmp_path / "out/d/run").stat().st_mode & 0o7777 == 0o755


HOSTILE: dict[str, Callable[[tarfile.TarFile], None]] = {
    "climbs": lambda tar: add(tar, "d/../../evil", b"x"),
    "absolute": lambda tar: add(tar, "/evil", b"x"),
    "link out": lambda tar: add(tar, "d/l", type=tarfile.SYMTYPE, linkname="../../x"),
    "link absolute": lambda tar: add(tar, "l", type=tarfile.SYMTYPE, linkname="/etc"),
    "hard link out": lambda tar: add(tar, "l", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "device": lambda tar: add(tar, "null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "pipe": lambda tar: add(tar, "pipe", type=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(tmp_path: Path, case: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        HOSTILE[case](tar)
    with pytest.raises(ArchiveError, match=r"x\.tar: "):
        unpack_sdist(tmp_path / "x.tar", tmp_path / "out", "x.tar")
    assert not (tmp_path / "evil").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "d", type=tarfile.DIRTYPE)
        add(tar, "l", type=tarfile.SYMTYPE, linkname="d")
        add(tar, "l/file", b"x")
    with pytest.raises(ArchiveError, match="no directory"):
        unpack_sdist(tmp_path / "x.tar", tmp_path / "out", "x.tar")


def test_a_bomb(tmp_path: Path) -> None:
    path = sdist(tmp_path, {"zeros": bytes(1 << 20)})
    with pytest.raises(ArchiveError, match="as a tar bomb does"):
        unpack_sdist(path, tmp_path / "a", "x", Limits(ratio=50, small=1 << 19))
    with pytest.raises(ArchiveError, match="as a tar bomb does"):
        unpack_sdist(path, tmp_path / "b", "x", Limits(total=1000))
    with tarfile.open(tmp_path / "links.tar", "w") as tar:
        add(tar, "d/0", bytes(1000))
        for number in range(99):
            add(tar, f"d/x{number}", type=tarfile.LNKTYPE, linkname="d/0")
    with pytest.raises(ArchiveError, match="as a tar bomb does"):  # each name of the file would be a copy
        unpack_sdist(tmp_path / "links.tar", tmp_path / "d", "x", Limits(total=50_000))
    unpack_sdist(path, tmp_path / "c", "x", Limits(ratio=50))


def compiled(**said: object) -> BuiltWheelPiece:
    one = piece()
    return msgspec.structs.replace(one, source=msgspec.structs.replace(one.source, **said))


def step_of(tmp_path: Path, wanted: BuiltWheelPiece, toolkit: Path | None = None) -> Step:
    runner = HostRunner()
    (tmp_path / "scratch").mkdir()
    build_wheel(wanted, sdist(tmp_path), tmp_path, runner, [], tmp_path / "scratch", toolkit=toolkit)
    assert runner.step
    return runner.step


def test_a_build_has_no_network_and_no_gpu_unless_its_package_asks(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = step_of(tmp_path / "a", compiled(compiled=("c",)))
    assert (plain.network, plain.gpus, plain.env["PIP_NO_INDEX"]) == (False, False, "1")
    asked = step_of(tmp_path / "b", compiled(build_network=True, build_gpu=True))
    assert (asked.network, asked.gpus) == (True, True)
    assert "PIP_NO_INDEX" not in asked.env


def test_the_projects_variables_win(tmp_path: Path) -> None:
    step = step_of(tmp_path, compiled(build_env=("MAX_JOBS=1", "CFLAGS=-O3 -DX=1")))
    assert (step.env["MAX_JOBS"], step.env["CFLAGS"]) == ("1", "-O3 -DX=1")
    assert "-ffile-prefix-map=/build/source=." in step.env["CXXFLAGS"]


def test_config_settings_reach_the_back_end(tmp_path: Path) -> None:
    backend = BACKEND.replace(b"repr(dict(os.environ))", b"repr(config_settings)")
    said = compiled(config_settings=("a=1", "b=x=y", "a=2"))
    wheel, _ = build(tmp_path, sdist(tmp_path, {**SOUND, "back/own.py": backend}), said)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("environ") == b"{'a': ['1', '2'], 'b': 'x=y'}"


def test_cuda_is_where_build_systems_look(tmp_path: Path) -> None:
    (tmp_path / "cuda").mkdir()
    said = compiled(compiled=("c", "cuda"), gpu_architectures=("8.0", "9.0a", "12.0+PTX"))
    step = step_of(tmp_path, said, tmp_path / "cuda")
    assert step.env["CUDA_HOME"] == "/build/cuda"
    assert step.env["PATH"].startswith("/build/cuda/bin:/opt/mlbox/env/bin:")
    assert step.env["TORCH_CUDA_ARCH_LIST"] == "8.0;9.0a;12.0+PTX"
    assert step.env["CUDAARCHS"] == step.env["CMAKE_CUDA_ARCHITECTURES"] == "80-real;90a-real;120"
    (bind,) = [bind for bind in step.binds if bind.target == "/build/cuda"]
    assert bind.readonly


def test_cuda_of_a_build_base(tmp_path: Path) -> None:
    base = msgspec.structs.replace(compiled(compiled=("cuda",)), env=("PATH=/usr/local/cuda/bin:/usr/bin",))
    step = step_of(tmp_path, base)
    assert step.env["CUDA_HOME"] == "/usr/local/cuda"
    assert step.env["PATH"] == "/opt/mlbox/env/bin:/usr/local/cuda/bin:/usr/bin"


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("pq.c:1:10: fatal error: libpq-fe.h: No such file or directory", "Debian package with libpq-fe.h"),
        ("ModuleNotFoundError: No module named 'torch'", '[tool.mlbox.build.demo] requires = ["torch"]'),
        ("error: command 'gcc' failed: No such file", "build-packages"),
        ("fatal: Could not resolve host: example.org", "[tool.mlbox.build.demo] network = true"),
    ],
)
def test_what_a_failure_advises(tmp_path: Path, output: str, advice: str) -> None:
    backend = f"def build_wheel(out): raise SystemExit({output!r})\n".encode()
    with pytest.raises(BuildError) as caught:
        build(tmp_path, sdist(tmp_path, {**SOUND, "back/own.py": backend}))
    assert advice in (caught.value.hint or "")
