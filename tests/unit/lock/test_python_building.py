"""What the project says about building a source reaches the lock, and CUDA's compiler comes when there is one."""

from pathlib import Path

import pytest

from mlbox.errors import ResolveError
from mlbox.lock.model import Package
from mlbox.lock.python.asked import Asked
from mlbox.lock.python.building import cuda_of, cuda_requires, options_of, with_options
from mlbox.lock.python.sdist import Source
from mlbox.project.model import BuildOptions, Project, Requirement, Settings


def package(name: str, version: str = "1.0", filename: str = "") -> Package:
    return Package(name=name, version=version, filename=filename or f"{name}-{version}.tar.gz", sha256="0" * 64)


def project(requirements: tuple[Requirement, ...] = (), **build: BuildOptions) -> Project:
    settings = Settings(build=build)  # type: ignore[arg-type]
    return Project(root=Path("/p"), name="p", settings=settings, sources=(), requirements=requirements)


def asked(**origins: tuple[str, ...]) -> Asked:
    return Asked(lines=(), origins=origins, hashes={}, urls={})


def test_options_are_found_by_any_spelling_of_the_name() -> None:
    options = BuildOptions(gpu=True)
    assert options_of(project(Flash_Attn=options), "flash-attn") == options
    assert options_of(project(), "flash-attn") == BuildOptions()


def test_each_source_says_how_it_is_built() -> None:
    options = BuildOptions(
        env={"B": "2", "A": "1"}, config_settings={"x": ("1", "2"), "a": "y"}, gpu=True, network=True
    )
    line = Requirement(text="demo", origin="requirements.txt:1", config_settings=("k=v",))
    other = Requirement(text="plain", origin="requirements.txt:2", config_settings=("k=w",))
    wheel = package("wheel", filename="wheel-1.0-py3-none-any.whl")

    found = with_options(
        (package("demo"), package("plain"), wheel),
        {"demo": Source((), ("c",)), "plain": Source((), ())},
        project((line, other), demo=options),
        asked(demo=("requirements.txt:1",), plain=("requirements.txt:2",)),
    )

    assert found[0].compiled == ("c",)
    assert found[0].build_env == ("A=1", "B=2")
    assert found[0].config_settings == ("k=v", "a=y", "x=1", "x=2")
    assert (found[0].build_gpu, found[0].build_network) == (True, True)
    assert found[1].config_settings == ("k=w",)
    assert (found[1].build_gpu, found[1].build_network, found[1].build_env) == (False, False, ())
    assert found[2] == wheel


def test_cuda_is_the_environments_own() -> None:
    assert cuda_of([package("nvidia-cuda-runtime-cu12", "12.8.90")], "cu130") == "12.8"
    assert cuda_of([package("nvidia-cuda-runtime", "13.0.96")], "cpu") == "13.0"
    assert cuda_of([], "cu126") == "12.6"
    assert cuda_of([], "cpu") == ""


def test_the_compiler_is_of_that_cuda() -> None:
    assert list(cuda_requires([], "cu130", "x")) == [
        "nvidia-cuda-nvcc==13.0.*",
        "nvidia-cuda-runtime==13.0.*",
        "nvidia-cuda-cccl>=13.0,<13.1",
    ]
    assert list(cuda_requires([], "cpu", "x")) == ["nvidia-cuda-nvcc", "nvidia-cuda-runtime", "nvidia-cuda-cccl"]


def test_a_cuda_without_a_compiler_wants_an_image() -> None:
    with pytest.raises(ResolveError, match=r"code of flash-attn is to be compiled with CUDA 12\.8") as refused:
        list(cuda_requires([package("nvidia-cuda-runtime-cu12", "12.8.90")], "cpu", "flash-attn"))
    assert "build-base" in (refused.value.hint or "")
