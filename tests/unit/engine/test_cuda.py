"""What locking says of CUDA, and which base it takes for it."""

from pathlib import Path

import msgspec
import pytest

from mlbox.engine import environments, locking
from mlbox.engine.cuda import base_for, code_of_lock, cuda_of_lock, lacking, proposed_base, remarks
from mlbox.engine.freshness import LockOptions
from mlbox.engine.locking import Locker
from mlbox.events import Listener
from mlbox.http import Http
from mlbox.lock.debian import Asked, DebianLock
from mlbox.lock.model import Base, Lock, Package, Target
from mlbox.lock.python.resolve import LockedPython
from mlbox.paths import Home
from mlbox.project.model import Project, Settings
from mlbox.project.model import Requirement as AskedFor

NVIDIA = "docker.io/nvidia/cuda"
RUNTIME = ("CUDA_VERSION=12.8.1", "NV_CUDA_CUDART_VERSION=12.8.90-1", "NV_CUDA_LIB_VERSION=12.8.1-1")


def packages(*names: str) -> tuple[Package, ...]:
    """Return locked packages 'NAME VERSION'."""
    return tuple(
        Package(name=name, version=version, filename=f"{name}-{version}.whl", sha256="0" * 64)
        for name, _, version in (text.partition(" ") for text in names)
    )


def lock(*names: str, accelerator: str = "cpu", python: str = "3.12", base: Base | None = None) -> Lock:
    return Lock(
        inputs="sha256:0",
        target=Target(arch="amd64", python=python, python_full=f"{python}.1", glibc="2.39", accelerator=accelerator),
        base=base or Base(suite="trixie"),
        packages=packages(*names),
    )


def cuda_base(*env: str, reference: str = f"{NVIDIA}:12.8.1-runtime-ubuntu24.04") -> Base:
    return Base(kind="image", suite="noble", reference=reference, env=env)


def test_what_is_missing_is_said_with_the_setting() -> None:
    """The requirement that brings it, and the base of the right CUDA and Python."""
    (note,) = remarks(lock("onnxruntime-gpu 1.22.0"))
    assert note == (
        "onnxruntime-gpu 1.22.0 loads libcublas.so.12, libcublasLt.so.12, libcudart.so.12, libcudnn.so.9 and 3 more of "
        "CUDA 12, which nothing in the image has: require onnxruntime-gpu[cuda,cudnn], or "
        f'base = "{NVIDIA}:12.9.1-cudnn-runtime-ubuntu24.04" (base = "auto" takes it)'
    )
    (note,) = remarks(lock("ctranslate2 4.8.5", "nvidia-cuda-runtime 13.0.96", python="3.11"))
    assert 'require nvidia-cublas-cu12, or base = "auto" with Python 3.12 or 3.10' in note


def test_nothing_is_said_where_nothing_lacks() -> None:
    """Neither of torch, which asks for its wheels, nor of what works without a GPU where none is wanted."""
    torch = ("torch 2.9.1", "nvidia-cuda-runtime-cu12 12.8.90", "nvidia-cublas-cu12 12.8.4.1")
    assert list(remarks(lock(*torch, accelerator="default"))) == []
    assert list(remarks(lock("tensorflow 2.18.0", "ctranslate2 4.8.5"))) == []
    assert len(list(remarks(lock("tensorflow 2.18.0", accelerator="default")))) == 1
    assert list(remarks(lock("cupy-cuda12x 14.2.0", base=cuda_base(*RUNTIME)))) == []


def test_cuda_twice_and_compilers() -> None:
    """A base with CUDA below wheels that bring it, and one with compilers."""
    torch = ("torch 2.9.1", "nvidia-cuda-runtime-cu12 12.8.90")
    (note,) = remarks(lock(*torch, base=cuda_base(*RUNTIME)))
    assert "bring CUDA 12.8 themselves" in note
    devel = cuda_base(*RUNTIME, reference=f"{NVIDIA}:12.8.1-devel-ubuntu24.04")
    (note,) = remarks(lock("cupy-cuda12x 14.2.0", base=devel))
    assert f'base = "{NVIDIA}:12.8.1-runtime-ubuntu24.04" is smaller' in note
    made = lock("cupy-cuda12x 14.2.0", "flash-attn 2.8.3", base=devel)
    source = msgspec.structs.replace(made.packages[1], filename="flash_attn-2.8.3.tar.gz")
    (note,) = remarks(msgspec.structs.replace(made, packages=(made.packages[0], source)))
    assert f', with build-base = "{NVIDIA}:12.8.1-devel-ubuntu24.04" is smaller' in note


def test_a_variant_that_a_package_does_not_have() -> None:
    """bitsandbytes takes the library for torch's CUDA."""
    (note,) = remarks(lock("bitsandbytes 0.45.5", "nvidia-cuda-runtime 13.0.96"))
    assert "bitsandbytes 0.45.5 has no library for CUDA 13.0" in note
    assert list(remarks(lock("bitsandbytes 0.50.2", "nvidia-cuda-runtime 13.0.96"))) == []


def test_cuda_and_code_before_anything_is_fetched() -> None:
    """Of the wheels first, then of the base, then as built; code only of the CUDA that was read."""
    assert cuda_of_lock(lock("torch 2.9.1+cu126"))[0] == "12.6"
    assert cuda_of_lock(lock("cupy-cuda12x 14.2.0", base=cuda_base(*RUNTIME))) == (
        "12.8",
        "the base image's CUDA_VERSION",
    )
    assert cuda_of_lock(lock("tensorflow 2.18.1", accelerator="default")) == (
        "12.5",
        "tensorflow 2.18.1 was built with it",
    )
    assert cuda_of_lock(lock("numpy 2.0")) == ("", "")
    (code,) = code_of_lock(lock("torch 2.9.1", "nvidia-cuda-runtime-cu12 12.8.90"))
    assert code.path == "torch 2.9.1/libtorch_cuda.so"
    assert code_of_lock(lock("torch 2.9.1+cu126")) == ()
    arm = lock("torch 2.9.1", "nvidia-cuda-runtime-cu12 12.8.90")
    arm = msgspec.structs.replace(arm, target=msgspec.structs.replace(arm.target, arch="arm64"))
    assert code_of_lock(arm) == ()


def test_the_base_has_a_python_that_the_project_admits() -> None:
    found = lacking(packages("onnxruntime-gpu 1.22.0"), "cpu")
    assert base_for(found, ">=3.10", "").endswith("ubuntu24.04")
    assert base_for(found, "<3.12", "").endswith("ubuntu22.04")
    assert base_for(found, "", "3.10").endswith("ubuntu22.04")
    assert base_for(found, "", "3.11") == base_for(found, ">=3.13", "") == ""


@pytest.mark.parametrize(
    ("requirement", "accelerator", "base"),
    [
        ("onnxruntime-gpu>=1.20", "cpu", "auto"),
        ("ONNXRuntime_GPU[cuda,cudnn]", "cpu", ""),
        ("cupy-cuda12x", "cpu", "auto"),
        ("tensorflow", "cpu", ""),
        ("tensorflow", "cu126", "auto"),
        ("tensorflow[and-cuda]", "cu126", ""),
        ("torch", "cu126", ""),
        ("./wheels/x.whl", "cu126", ""),
    ],
)
def test_a_base_is_proposed_by_what_is_asked_for(requirement: str, accelerator: str, base: str) -> None:
    """Before anything is locked; never over what the project says itself."""
    asked = (AskedFor(text=requirement, origin="requirements.txt:1"),)
    one = Project(root=Path("/p"), name="p", settings=Settings(accelerator=accelerator), sources=(), requirements=asked)
    assert proposed_base(one)[0] == base
    said = msgspec.structs.replace(one, settings=Settings(accelerator=accelerator, base="python:3.12"))
    assert proposed_base(said) == ("", "")


class Notes(Listener):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Resolved:
    """A Locker whose resolvers answer at once; what it stands on is remembered."""

    def __init__(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        self._home, self.notes, self.names = home, Notes(), ()
        self.stood: list[str] = []
        monkeypatch.setattr(locking, "lock_debian", self._debian)
        monkeypatch.setattr(environments, "lock_python", lambda *_, **__: LockedPython(packages(*self.names), ()))
        monkeypatch.setattr(Locker, "_on_image", self._on_image)

    def _debian(self, asked: Asked, **_: object) -> DebianLock:
        self.stood.append(asked.suite)
        return DebianLock(suite=asked.suite, python_full="3.13.5", glibc="2.41", debs=())

    def _on_image(self, name: str, *_: object) -> object:
        self.stood.append(name)
        made = lock(*self.names, base=cuda_base(*RUNTIME, "NV_CUDNN_VERSION=9", reference=name))
        found = LockedPython(made.packages, ())
        environment = environments.Environment(target=made.target, wheels=found)
        return locking._Found(base=made.base, system=(), environment=environment, debs=())

    def lock(self, *names: str, previous: Lock | None = None, upgrade: bool = False, python: str = "") -> Lock:
        self.names, self.stood = names, []
        settings = Settings(base="auto", python=python)
        one = Project(root=Path("/p"), name="p", settings=settings, sources=())
        locker = Locker(one, self._home, Http(), self.notes)
        return locker.lock(previous, LockOptions(arch="amd64", upgrade=upgrade))


def test_an_automatic_base(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian, until something lacks CUDA; what was chosen stays while it is right, and goes when it is not needed."""
    resolved = Resolved(home, monkeypatch)
    assert resolved.lock("numpy 2.0").base == Base(suite="trixie")
    image = f"{NVIDIA}:12.9.1-cudnn-runtime-ubuntu24.04"
    first = resolved.lock("onnxruntime-gpu 1.22.0")
    assert (first.base.reference, resolved.stood) == (image, ["trixie", image])
    assert resolved.notes.notes[-1] == f'base = "auto": {image}, for onnxruntime-gpu 1.22.0'
    older = msgspec.structs.replace(first, base=cuda_base(reference=f"{NVIDIA}:12.8.1-cudnn-runtime-ubuntu24.04"))
    again = resolved.lock("onnxruntime-gpu 1.22.0", previous=older)
    assert (again.base.reference, resolved.stood) == (older.base.reference, [older.base.reference])
    assert resolved.lock("onnxruntime-gpu 1.22.0", previous=older, upgrade=True).base.reference == image
    assert resolved.lock("numpy 2.0", previous=first).base == Base(suite="trixie")


def test_an_automatic_base_without_an_image_that_fits(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """No image of CUDA has that Python: it stays, and what lacks is said."""
    made = Resolved(home, monkeypatch).lock("onnxruntime-gpu 1.22.0", python="3.13")
    assert made.base == Base(suite="trixie")
    assert "with Python 3.12 or 3.10" in next(iter(remarks(made)))
