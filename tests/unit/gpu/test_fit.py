"""Does it fit? Verdicts over what is known of real wheels, drivers and GPUs."""

import msgspec
import pytest

from mlbox.gpu.compat import Compat
from mlbox.gpu.fatbin import Code, DeviceCode
from mlbox.gpu.fit import LibraryCode, Needs, cuda_of_packages, fit
from mlbox.gpu.model import ComputeCapability, parse_capability, parse_version
from mlbox.gpu.tables import capability_of_name, cuda_table


def torch(*archs: str, entries: int = 400, sparse: tuple[str, ...] = ()) -> LibraryCode:
    """Return a libtorch_cuda.so with code for these architectures."""

    def code(name: str) -> Code:
        found = parse_capability(name)
        assert found is not None
        suffix = "a" if name.endswith("a") else "f" if name.endswith("f") else ""
        return Code("ptx" if name.startswith("compute") else "sass", found.major, found.minor, suffix)  # type: ignore[arg-type]

    counts = [(code(name), entries) for name in archs] + [(code(name), 3) for name in sparse]
    return LibraryCode("opt/mlbox/env/lib/libtorch_cuda.so", DeviceCode(tuple(sorted(counts))))


# Measured on the wheels: gpu-facts of torch 2.9.1 and 2.15.0.
TORCH_29 = Needs(
    cuda="12.8",
    because="nvidia-cuda-runtime-cu12 12.8.90",
    libraries=(
        torch("sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", sparse=("sm_89", "sm_90a", "sm_120a")),
    ),
)
TORCH_215 = Needs(
    cuda="13.2",
    because="nvidia-cuda-runtime 13.2.75",
    libraries=(torch("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", sparse=("sm_121a",)),),
)


def test_of_a_library_for_each_cuda_its_own_counts() -> None:
    """bitsandbytes' for CUDA 11.8 has no code for a newer GPU, and is not loaded."""
    base = "opt/mlbox/env/lib/python3.12/site-packages/bitsandbytes/libbitsandbytes_cuda"
    variants = tuple(
        LibraryCode(f"{base}{cuda}.so", torch(*archs, entries=3).code)
        for cuda, archs in (("118", ("sm_80",)), ("128", ("sm_80", "sm_120")))
    )
    needs = msgspec.structs.replace(TORCH_29, libraries=(*TORCH_29.libraries, *variants))
    assert fit(needs, capability_of_name("RTX 5090"), None, cuda_table()).verdict == "fits"
    other = msgspec.structs.replace(needs, cuda="13.0")
    found = fit(other, capability_of_name("RTX 5090"), None, cuda_table())
    assert found.verdict == "limited" and "libbitsandbytes_cuda118.so" in found.reasons[0]


@pytest.mark.parametrize(
    ("needs", "gpu", "driver", "verdict", "word"),
    [
        (TORCH_29, "H100", "570.124.06", "fits", "machine code for sm_90"),
        (TORCH_29, "L4", "570.124.06", "fits", "machine code for sm_89"),
        (TORCH_29, "RTX 5090", "570.124.06", "fits", "sm_120"),
        (TORCH_29, "GTX 1080", "570.124.06", "refused", "no code for sm_61"),
        (TORCH_29, "H100", "535.104.05", "limited", "came with driver 570.26"),
        (TORCH_29, "H100", "470.57.02", "refused", "needs driver 525.60.13"),
        (TORCH_215, "V100", "595.58.03", "refused", "no code for sm_70"),
        (TORCH_215, "H100", "570.124.06", "refused", "needs driver 580.65.06"),
        (TORCH_215, "H100", "580.95.05", "limited", "came with driver 595.45.04"),
        (TORCH_215, "DGX Spark", "595.58.03", "fits", "machine code for sm_121"),
    ],
)
def test_real_wheels_on_real_gpus(needs: Needs, gpu: str, driver: str, verdict: str, word: str) -> None:
    """The worst of driver and code decides; a refusal says what would help."""
    found = fit(needs, capability_of_name(gpu), parse_version(driver), cuda_table())
    assert found.verdict == verdict
    assert word in " ".join(found.reasons)
    assert bool(found.hint) == (verdict == "refused")


def test_ptx_is_compiled_at_the_first_start() -> None:
    """And said so."""
    needs = Needs(cuda="12.4", because="x", libraries=(torch("sm_80", "compute_80"),))
    found = fit(needs, ComputeCapability(9, 0), parse_version("550.54.14"), cuda_table())
    assert found.verdict == "fits" and "PTX" in " ".join(found.reasons)


def test_ptx_that_is_newer_than_the_driver_is_refused() -> None:
    """The driver's compiler does not know it; machine code beside it is all that is needed."""
    ptx, driver = Needs(cuda="12.8", because="x", libraries=(torch("sm_80", "compute_80"),)), parse_version("550.54.14")
    found = fit(ptx, ComputeCapability(9, 0), driver, cuda_table())
    assert found.verdict == "refused" and "only PTX for sm_90" in found.reasons[0] and "570.26" in found.hint
    assert fit(ptx, ComputeCapability(8, 6), driver, cuda_table()).verdict == "limited"


def test_an_image_may_bring_the_libraries_of_a_newer_driver() -> None:
    """They count on GPUs of data centers, and for the branches they name."""
    needs = msgspec.structs.replace(TORCH_215, compat=Compat(version="595.58.03", branches=(535, 580)))
    gpu = ComputeCapability(9, 0)
    found = fit(needs, gpu, parse_version("535.104.05"), cuda_table(), data_center=True)
    assert found.verdict == "fits" and "libraries of driver 595.58.03 go with driver 535.104.05" in found.reasons[0]
    assert fit(needs, gpu, parse_version("535.104.05"), cuda_table()).verdict == "refused"
    assert fit(needs, gpu, parse_version("550.54.14"), cuda_table(), data_center=True).verdict == "refused"


def test_a_small_library_does_not_decide() -> None:
    """It is named."""
    small = LibraryCode("lib/libextra.so", DeviceCode(((Code("sass", 7, 0), 5),)))
    needs = Needs(cuda="12.4", because="x", libraries=(torch("sm_80", "sm_90"), small))
    found = fit(needs, ComputeCapability(9, 0), None, cuda_table())
    assert found.verdict == "limited" and "libextra.so" in found.reasons[0]


def test_what_is_not_known_is_said() -> None:
    """And an environment without CUDA fits anything."""
    assert fit(Needs(), None, None, cuda_table()).verdict == "fits"
    assert fit(TORCH_29, None, None, cuda_table()).verdict == "unknown"
    future = Needs(cuda="14.0", because="x")
    assert fit(future, None, parse_version("610.43.02"), cuda_table()).verdict == "unknown"


@pytest.mark.parametrize(
    ("packages", "cuda"),
    [
        ([("torch", "2.9.1"), ("nvidia-cuda-runtime-cu12", "12.8.90"), ("nvidia-cublas-cu12", "12.8.4.1")], "12.8"),
        ([("torch", "2.15.0"), ("nvidia-cuda-runtime", "13.2.75"), ("cuda-toolkit", "13.2.2")], "13.2"),
        ([("torch", "2.6.0+cu118")], "11.8"),
        ([("torch", "2.10.0+cu130"), ("nvidia-cuda-nvrtc-cu12", "12.4.127")], "13.0"),
        ([("nvidia-cudnn-cu12", "9.1.0.70"), ("numpy", "2.0")], ""),
        ([("torch", "2.10.0+cpu")], ""),
        ([], ""),
    ],
)
def test_the_cuda_that_packages_bring(packages: list[tuple[str, str]], cuda: str) -> None:
    """Libraries of CUDA have versions of their own, which say nothing."""
    assert cuda_of_packages(packages)[0] == cuda


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("NVIDIA H200", "sm_90"),
        ("NVIDIA GeForce RTX 4090", "sm_89"),
        ("L40S", "sm_89"),
        ("NVIDIA A100-SXM4-80GB", "sm_80"),
        ("Tesla T4", "sm_75"),
        ("NVIDIA GB200", "sm_100"),
        ("sm_120", "sm_120"),
        ("8.6", "sm_86"),
        ("4090", "sm_89"),
        ("6000", "None"),
        ("Voodoo 2", "None"),
        ("A1000", "None"),
    ],
)
def test_gpus_by_name(name: str, capability: str) -> None:
    """A name inside of a longer one is another GPU."""
    assert str(capability_of_name(name)) == capability
