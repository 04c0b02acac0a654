"""Which accelerator suits a host."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import UsageError
from mlbox.gpu.accelerator import choose, choose_for, cuda_of
from mlbox.gpu.model import Roots, parse_version
from mlbox.gpu.tables import cuda_table

ALL = ("cpu", "cu118", "cu126", "cu128", "cu130", "rocm6.4", "rocm7.1", "rocm7.10", "xpu", "default")

HOSTS = {
    "none": (ALL, None, (), "cpu", "this host has no NVIDIA driver and no GPU of AMD and no GPU of Intel"),
    "newest": (ALL, "610.43.02", ("nvidia",), "cu130", "driver 610.43.02 runs CUDA 13.3"),
    "exactly": (ALL, "560.28.03", ("nvidia",), "cu126", "driver 560.28.03 runs CUDA 12.6"),
    "between": (ALL, "565.57.01", ("nvidia",), "cu126", "driver 565.57.01 runs CUDA 12.6"),
    "order": (("cu126", "cpu", "cu118"), "560.35.03", ("nvidia",), "cu126", "driver 560.35.03 runs CUDA 12.6"),
    "limits": (
        ("cpu", "cu128", "cu126"),
        "535.104.05",
        ("nvidia",),
        "cu126",
        "driver 535.104.05 runs CUDA 12.2, and 12.6 with the limits of minor-version compatibility",
    ),
    "full-before-limits": (ALL, "535.104.05", ("nvidia",), "cu118", "driver 535.104.05 runs CUDA 12.2"),
    "too-old": (
        ("cpu", "cu130"),
        "535.104.05",
        ("nvidia",),
        "cpu",
        "driver 535.104.05 runs CUDA 12.2 and nothing newer",
    ),
    "ancient": (("cpu", "cu118"), "390.157", ("nvidia",), "cpu", "driver 390.157 is older than every CUDA known"),
    "amd": (ALL, None, ("amd",), "rocm7.10", "this host has GPUs of AMD"),
    "amd-without-rocm": (("cpu", "cu126"), None, ("amd",), "cpu", "this host has no NVIDIA driver"),
    "intel": (ALL, None, ("intel",), "xpu", "this host has GPUs of Intel"),
    "both": (ALL, "560.35.03", ("nvidia", "amd"), "cu126", "driver 560.35.03 runs CUDA 12.6"),
    "rocm-beside-old-nvidia": (("cu130", "rocm7.1"), "535.104.05", ("nvidia", "amd"), "rocm7.1", "GPUs of AMD"),
    "default": (("cu126", "default"), None, (), "default", "this host has no NVIDIA driver"),
}


@pytest.mark.parametrize(("names", "driver", "vendors", "name", "reason"), HOSTS.values(), ids=HOSTS)
def test_what_suits_a_host(
    names: tuple[str, ...], driver: str | None, vendors: tuple[str, ...], name: str, reason: str
) -> None:
    choice = choose_for(names, parse_version(driver) if driver else None, set(vendors), cuda_table())
    assert choice.name == name
    assert reason in choice.reason


@given(st.permutations(ALL), st.sampled_from(["450.80.02", "525.60.13", "560.35.03", "580.65.06", "999.1"]))
def test_the_order_in_the_lock_does_not_decide(names: list[str], driver: str) -> None:
    version = parse_version(driver)
    assert choose_for(names, version, set(), cuda_table()) == choose_for(ALL, version, set(), cuda_table())


@pytest.mark.parametrize("names", [("cu126", "cu130"), ("rocm7.1", "xpu")])
def test_a_host_that_none_suits_says_what_to_do(names: tuple[str, ...]) -> None:
    with pytest.raises(
        UsageError, match=f"this host has no .* and what there is, is for {names[0]}, {names[1]}"
    ) as raised:
        choose_for(names, None, set(), cuda_table())
    assert f"--accelerator {names[0]}" in str(raised.value.hint)


def test_the_names_of_cuda() -> None:
    found = {
        name: str(cuda_of(name) or "") for name in ("cu118", "cu126", "cu130", "cpu", "rocm7.1", "cu1261", "default")
    }
    assert found == {
        "cu118": "11.8",
        "cu126": "12.6",
        "cu130": "13.0",
        "cpu": "",
        "rocm7.1": "",
        "cu1261": "",
        "default": "",
    }


def host(tmp_path: Path, driver: str = "", amd: bool = False) -> Roots:
    """Return a host with that driver, whose files are all that may be read."""
    if driver:
        version = tmp_path / "proc/driver/nvidia/version"
        version.parent.mkdir(parents=True)
        version.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Sat Sep 23 2023\n")
    if amd:
        node = tmp_path / "sys/class/kfd/kfd/topology/nodes/1"
        node.mkdir(parents=True)
        (node / "properties").write_text("drm_render_minor 128\ngfx_target_version 90402\n")
    return Roots(proc=f"{tmp_path}/proc", sys=f"{tmp_path}/sys", dev=f"{tmp_path}/dev", driver=f"{tmp_path}/lib")


def test_a_host_is_read_without_its_libraries(tmp_path: Path) -> None:
    assert choose(ALL, roots=host(tmp_path / "a")).name == "cpu"
    assert choose(ALL, roots=host(tmp_path / "b", "560.35.03")).name == "cu126"
    assert choose(ALL, roots=host(tmp_path / "c", amd=True)).name == "rocm7.10"
    assert choose(ALL, driver=parse_version("580.65.06"), roots=host(tmp_path / "d", amd=True)).name == "cu130"
