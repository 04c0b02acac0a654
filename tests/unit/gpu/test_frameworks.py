"""What is known of releases that compute on GPUs, compared with what was recorded of the wheels themselves."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlbox import resources
from mlbox.errors import MlboxError
from mlbox.gpu.fit import LibraryCode, Needs, fit
from mlbox.gpu.frameworks import (
    Framework,
    Lack,
    brought_by,
    flavor_of,
    framework_of,
    frameworks,
    image_flavor,
    image_for,
    lacks,
    read_frameworks,
    read_images,
    read_libraries,
    suites,
    wheels_of,
)
from mlbox.gpu.model import Version, parse_version
from mlbox.gpu.tables import capability_of_name, cuda_table
from mlbox.lock.debian import series_of

RECORDED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "golden/gpu/wheels.json").read_text()
)  # written by tests/benchmarks/wheel_facts.py from an index
BY_FILE = {one["filename"]: one for one in RECORDED}
GPU = resources.folder("gpu")
CUDA_128 = {"CUDA_VERSION": "12.8.1", "NV_CUDA_CUDART_VERSION": "12.8.90-1"}


def version(text: str) -> Version:
    found = parse_version(text)
    assert found is not None
    return found


def row(name: str, release: str) -> Framework:
    found = framework_of(name, release)
    assert found is not None
    return found


@pytest.mark.parametrize("one", frameworks(), ids=lambda one: f"{one.name}{one.versions}")
def test_every_row_is_what_the_wheel_says(one: Framework) -> None:
    """Its CUDA, the code of its largest library, and what it links with."""
    wheel = BY_FILE[one.wheel]
    assert framework_of(wheel["name"], wheel["version"]) is one, "the range holds the release that was read"
    if wheel["says"]:
        assert wheel["says"][-1] == one.cuda
    if one.code:
        largest = max(wheel["libraries"].items(), key=lambda item: sum(item[1]["code"].values()))
        assert (largest[0].rpartition("/")[2], largest[1]["code"]) == (one.library, one.code)
        assert {str(code): many for code, many in one.device_code.counts} == one.code
    wheels = wheels_of(version(one.cuda))
    assert set(one.loads) <= set(wheels), "somebody brings everything"
    assert not one.requirement or one.requirement.partition("[")[0] in (one.name, "jax")
    if one.loads:
        linked = {need for library in wheel["libraries"].values() for need in library["needed"]} & set(wheels)
        assert linked - {"libcutensor.so.2", "libcutensorMg.so.2", "libnccl.so.2", "libcudnn.so.8"} <= set(one.loads)


@pytest.mark.parametrize(
    ("torch", "gpu", "driver", "verdict", "word"),
    [
        ("2.4.1", "V100", "535.104.05", "fits", "machine code for sm_70"),
        ("2.6.0", "RTX 5090", "570.124.06", "refused", "no code for sm_120"),
        ("2.7.1", "RTX 5090", "575.57.08", "refused", "no code for sm_120"),
        ("2.7.1", "GTX 1080", "570.124.06", "fits", "machine code for sm_61"),
        ("2.8.0", "GTX 1080", "570.124.06", "refused", "no code for sm_61"),
        ("2.9.1", "RTX 5090", "570.124.06", "fits", "machine code for sm_120"),
        ("2.10.0", "V100", "570.124.06", "fits", "machine code for sm_70"),
        ("2.11.0", "V100", "580.95.05", "refused", "no code for sm_70"),
        ("2.11.0", "H100", "570.124.06", "refused", "needs driver 580.65.06"),
        ("2.13.0", "B300", "580.95.05", "fits", "machine code for sm_103"),
        ("2.15.0", "H100", "580.95.05", "limited", "came with driver 595.45.04"),
        ("2.15.0", "T4", "610.43.02", "fits", "machine code for sm_75"),
    ],
)
def test_what_is_known_of_torch(torch: str, gpu: str, driver: str, verdict: str, word: str) -> None:
    """As the field knows it: which release lost which GPU, and which asks for which driver."""
    one = row("torch", torch)
    needs = Needs(cuda=one.cuda, because="torch", libraries=(LibraryCode(one.library, one.device_code),))
    found = fit(needs, capability_of_name(gpu), parse_version(driver), cuda_table())
    assert found.verdict == verdict
    assert word in " ".join(found.reasons)


@pytest.mark.parametrize(
    ("torch", "gpu", "driver", "hint"),
    [
        ("2.9.1", "GTX 1080", "575.51.03", "lock torch>=2.7,<2.8 (CUDA 12.6)"),
        ("2.13.0", "GTX 1080", "575.51.03", "this driver runs 12.9 in full; torch>=2.7,<2.8 (CUDA 12.6) fits"),
        ("2.13.0", "V100", "580.95.05", "lock torch>=2.10,<2.11 (CUDA 12.8)"),
        ("2.6.0", "RTX 5090", "575.51.03", "lock torch>=2.15,<2.16 (CUDA 13.2)"),
        ("2.13.0", "H100", "470.57.02", "lock an older CUDA: this driver runs 11.4 in full"),
    ],
)
def test_the_hint_names_the_pin_that_fits(torch: str, gpu: str, driver: str, hint: str) -> None:
    """The newest release for that GPU, and for that driver where it is the driver that refuses."""
    one = row("torch", torch)
    needs = Needs(cuda=one.cuda, because="torch", libraries=(LibraryCode(f"x/{one.library}", one.device_code),))
    assert hint in fit(needs, capability_of_name(gpu), parse_version(driver), cuda_table()).hint


@pytest.mark.parametrize(
    ("name", "release", "gpu", "verdict"),
    [
        ("onnxruntime-gpu", "1.31.1", "T4", "fits"),
        ("onnxruntime-gpu", "1.31.1", "H100", "fits"),
        ("onnxruntime-gpu", "1.31.1", "B200", "refused"),
        ("onnxruntime-gpu", "1.22.0", "RTX 5090", "fits"),
        ("jax-cuda12-pjrt", "0.12.0.1", "GTX 1080", "fits"),
        ("jax-cuda13-pjrt", "0.12.0.1", "V100", "refused"),
        ("cupy-cuda12x", "14.2.0", "B200", "fits"),
        ("ctranslate2", "4.8.5", "H100", "fits"),
        ("faiss-gpu-cu12", "1.14.1", "T4", "fits"),
        ("tensorflow", "2.18.1", "K80", "refused"),
    ],
)
def test_what_is_known_of_others(name: str, release: str, gpu: str, verdict: str) -> None:
    one = row(name, release)
    needs = Needs(libraries=(LibraryCode(one.library, one.device_code),))
    assert fit(needs, capability_of_name(gpu), None, cuda_table()).verdict == verdict


def test_a_release_that_nobody_looked_at_is_not_known() -> None:
    """Nor one whose version is none; a local version is that of its release."""
    assert framework_of("torch", "1.2.3") is framework_of("torch", "what") is framework_of("leftpad", "1.0") is None
    assert framework_of("torch", "2.9.1+cu126") is framework_of("torch", "2.9.0")


def test_what_nothing_brings() -> None:
    """Wheels of CUDA bring it, under whatever version; cudnn and CUDA count one by one."""
    (alone,) = lacks([("onnxruntime-gpu", "1.22.0")], wants_cuda=False, image={})
    assert (alone.package, alone.requirement) == ("onnxruntime-gpu 1.22.0", "onnxruntime-gpu[cuda,cudnn]")
    assert (alone.flavor, alone.cudnn, str(alone.cuda)) == ("cudnn-runtime", 9, "12")
    assert set(alone.wheels) >= {"nvidia-cublas-cu12", "nvidia-cudnn-cu12"}
    wheels = [(name, "1") for name in alone.wheels]
    assert lacks([("onnxruntime-gpu", "1.22.0"), *wheels], wants_cuda=False, image={}) == ()
    no_cudnn = [one for one in wheels if one[0] != "nvidia-cudnn-cu12"]
    (lack,) = lacks([("onnxruntime-gpu", "1.22.0"), *no_cudnn], wants_cuda=False, image={})
    assert lack.libraries == ("libcudnn.so.9",)


def test_what_works_without_a_gpu_is_not_pressed_on_anybody() -> None:
    """TensorFlow of a project that asks for no GPU."""
    assert lacks([("tensorflow", "2.18.0")], wants_cuda=False, image={}) == ()
    (lack,) = lacks([("tensorflow", "2.18.0")], wants_cuda=True, image={})
    assert lack.requirement == "tensorflow[and-cuda]"
    assert lacks([("torch", "2.9.1")], wants_cuda=True, image={}) == (), "its metadata asks for all it needs"


@pytest.mark.parametrize(
    ("env", "libraries"),
    [
        (CUDA_128, 7),
        (CUDA_128 | {"NV_CUDA_LIB_VERSION": "12.8.1-1"}, 1),
        (CUDA_128 | {"NV_CUDA_LIB_VERSION": "12.8.1-1", "NV_CUDNN_VERSION": "9.8.0.87-1"}, 0),
        ({"CUDA_VERSION": "12.8.1"}, 0),
        ({"CUDA_VERSION": "13.0.2"}, 8),
        ({"CUDA_VERSION": "latest"}, 8),
    ],
    ids=("base", "runtime", "cudnn", "not-nvidias", "another-major", "no-version"),
)
def test_what_an_image_of_cuda_brings(env: dict[str, str], libraries: int) -> None:
    """By the variables that its makers set, each flavor adding to the one before."""
    found = lacks([("tensorflow", "2.18.0"), ("cupy-cuda12x", "14.2.0")], wants_cuda=True, image=env)
    missing = found[0].libraries if found else ()
    expected = {7: 8, 1: 1, 0: 0, 8: 9}[libraries]
    assert len(missing) == expected


def test_the_image_that_brings_it() -> None:
    """New enough, with the right cuDNN, on the release that was asked for first."""

    def image(*packages: tuple[str, str], on: tuple[str, ...] = ("noble", "jammy")) -> str:
        return image_for(lacks(packages, wants_cuda=True, image={}), on)

    cuda = "docker.io/nvidia/cuda"
    assert image(("tensorflow", "2.18.0")) == f"{cuda}:12.6.3-cudnn-runtime-ubuntu24.04"
    assert image(("tensorflow", "2.18.0"), on=("jammy",)) == f"{cuda}:12.5.1-cudnn-runtime-ubuntu22.04"
    assert image(("tensorflow", "2.17.0"), on=("jammy",)) == "", "cuDNN 8 came with no CUDA 12.3 that is listed"
    assert image(("onnxruntime-gpu", "1.18.1")) == f"{cuda}:11.8.0-cudnn8-runtime-ubuntu22.04"
    assert image(("onnxruntime-gpu", "1.22.0")) == f"{cuda}:12.9.1-cudnn-runtime-ubuntu24.04"
    assert image(("cupy-cuda13x", "14.2.0")) == f"{cuda}:13.3.1-runtime-ubuntu24.04"
    assert image(("ctranslate2", "4.8.5"), on=()) == ""
    assert image(("cupy-cuda12x", "14.2.0"), ("cupy-cuda13x", "14.2.0")) == "", "no image has two CUDAs"
    beyond = Lack(package="x", libraries=("libx.so",), cuda=version("12"), requirement="", wheels=(), flavor=None)
    assert image_for([beyond], suites()) == ""


def test_names_of_libraries() -> None:
    assert flavor_of("libcudart.so.12") == "base"
    assert flavor_of("libcublasLt.so.13") == "runtime"
    assert flavor_of("libcudnn.so.9") == "cudnn-runtime"
    assert flavor_of("libGL.so.1") is flavor_of("libcuda.so.1") is None
    assert brought_by("libcublas.so.12") == ("nvidia-cublas-cu12",)
    assert brought_by("libcurand.so.10") == ("nvidia-curand-cu11", "nvidia-curand-cu12", "nvidia-curand")
    assert brought_by("libGL.so.1") == ()
    assert image_flavor({}) is None


def test_images_stand_on_releases_that_packages_can_be_added_to() -> None:
    """With a Python each; the newest first."""
    pythons = [series.python for suite in suites() if (series := series_of(suite))]
    assert pythons == ["3.12", "3.10"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("frameworks", 'since = "2.9"', 'since = "2.9 or so"'),
        ("frameworks", 'since = "2.9"', 'since = "2.10"'),
        ("frameworks", 'cuda = "12.8"', 'cuda = "cu128"'),
        ("frameworks", "sm_75 = 337", "sm_x = 337"),
        ("frameworks", "sm_75 = 337", 'sm_75 = "many"'),
        ("frameworks", "checked = 2026-11-21", 'checked = "today"'),
        ("frameworks", "[source]", "[sauce]"),
        ("frameworks", 'library = "libtorch_cuda.so"\n', ""),
        ("base-images", 'cuda = "12.1.1"', 'cuda = "12.9.9"'),
        ("base-images", 'suites = ["jammy"]', 'suites = ["bionic"]'),
        ("base-images", 'suites = ["jammy"]', "suites = []"),
        ("base-images", "cudnn = 8", 'cudnn = "8"'),
        ("base-images", "source = ", "sourcé = "),
        ("cuda-libraries", 'base = ["libcudart"]\n', ""),
        ("cuda-libraries", "[wheels.11]", "[wheels.11.x]"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, name: str, old: str, new: str) -> None:
    """With what is wrong in it."""
    read = {"frameworks": read_frameworks, "base-images": read_images, "cuda-libraries": read_libraries}[name]
    text = (GPU / f"{name}.toml").read_text()
    path = tmp_path / f"{name}.toml"
    path.write_text(text)
    read(path)
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(MlboxError, match=rf"{name}\.toml: "):
        read(path)
