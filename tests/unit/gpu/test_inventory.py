"""What a host has, read from trees that look like hosts."""

from pathlib import Path

import pytest
from fakes.gpu import FakeHost, uuid

from mlbox.gpu.inventory import is_loaded, read_driver, read_inventory
from mlbox.gpu.model import Roots


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "host")


def names(nodes: object) -> list[str]:
    """Return the names of nodes below /dev."""
    return [node.path.partition("/dev/")[2] for node in nodes]  # type: ignore[attr-defined]


def test_a_host_without_gpus(host: FakeHost) -> None:
    """Nothing is there, and nothing is wrong."""
    assert read_inventory(host.roots) == read_inventory(Roots(proc="/none", sys="/none", dev="/none", driver="/none"))
    assert read_inventory(host.roots).problems == ()
    assert not is_loaded(host.roots)


def test_nvidia_gpus_by_bus_with_the_minor_of_their_node(host: FakeHost) -> None:
    """The second on the bus may be /dev/nvidia0."""
    host.nvidia(3, 0)
    inventory = read_inventory(host.roots)
    assert inventory.driver is not None and inventory.problems == ()
    assert [str(inventory.driver.version), str(inventory.driver.cuda)] == ["550.54.14", "12.4"]
    assert [(gpu.index, gpu.minor, gpu.uuid, names(gpu.nodes)) for gpu in inventory.gpus] == [
        (0, 3, uuid(3), ["nvidia3"]),
        (1, 0, uuid(0), ["nvidia0"]),
    ]
    assert inventory.gpus[0].name == "NVIDIA H200" and inventory.gpus[0].pci == "0000:01:00.0"
    assert names(inventory.shared_nodes) == ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"]
    assert is_loaded(host.roots)


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (root@b)", "570.86.10"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06  Release Build", "580.65.06"),
    ],
)
def test_both_kinds_of_module(host: FakeHost, line: str, version: str) -> None:
    """The version is written as NVIDIA writes it."""
    host.write("proc/driver/nvidia/version", line + "\n")
    driver = read_inventory(host.roots).driver
    assert driver is not None and str(driver.version) == version


def test_mig_instances_and_their_nodes(host: FakeHost) -> None:
    """Each needs the nodes of its GPU instance and of its compute instance."""
    host.nvidia(0, 1)
    host.mig(1, (1, 0), (5, 0), first=30)
    plain, divided = read_inventory(host.roots).gpus
    assert not plain.mig_enabled and divided.mig_enabled
    assert [(one.index, one.gpu_instance, names(one.nodes)) for one in divided.mig] == [
        (0, 1, ["nvidia-caps/nvidia-cap30", "nvidia-caps/nvidia-cap31"]),
        (1, 5, ["nvidia-caps/nvidia-cap32", "nvidia-caps/nvidia-cap33"]),
    ]


def test_amd_and_intel(host: FakeHost) -> None:
    """Processors are no GPUs, though AMD's driver lists them beside."""
    host.amd(128, 136)
    host.intel(2, 130)
    found = [(gpu.vendor, gpu.index, gpu.minor, names(gpu.nodes)) for gpu in read_inventory(host.roots).gpus]
    assert found == [
        ("amd", 0, 128, ["dri/renderD128", "kfd"]),
        ("amd", 1, 136, ["dri/renderD136", "kfd"]),
        ("intel", 0, 130, ["dri/card2", "dri/renderD130"]),
    ]


def test_what_is_wrong_is_said_with_what_mends_it(host: FakeHost) -> None:
    """Missing nodes, missing libraries, libraries of another version."""
    host.nvidia(0, 1, libraries="560.35.03", uvm=False)
    (host.root / "dev/nvidia1").unlink()
    (host.root / "dev/nvidiactl").unlink()
    problems = read_inventory(host.roots).problems
    assert [text.rpartition("'")[0].rpartition("'")[2] for text in problems[1:]] == [
        "nvidia-modprobe",
        "nvidia-modprobe -c 0 -u",
        "nvidia-modprobe -c 1",
    ]
    assert "libraries are 560.35.03, its kernel module is 550.54.14: reboot" in problems[0]


def test_a_gpu_whose_driver_is_not_loaded(host: FakeHost) -> None:
    """Its sound device is no second GPU."""
    host.pci(1, "0x10de", "0x030000")
    host.pci(2, "0x10de", "0x040300")
    inventory = read_inventory(host.roots)
    assert inventory.gpus == () and len(inventory.problems) == 1 and "modprobe nvidia" in inventory.problems[0]


def test_libraries_that_an_update_left_behind(host: FakeHost) -> None:
    """Newer or older: those of the loaded module count."""
    host.nvidia(0, version="550.54.14")
    host.library("libcuda.so.1", "535.104.05")
    host.library("libcuda.so.1", "570.26")
    driver = read_driver(host.roots)
    assert driver is not None and str(driver.library_version) == "550.54.14"


def test_a_driver_without_libraries(host: FakeHost) -> None:
    """Then no container can use the GPU."""
    host.nvidia(0, libraries="")
    assert any("libcuda" in text for text in read_inventory(host.roots).problems)


def test_nonsense_of_the_kernel_is_no_crash(host: FakeHost) -> None:
    """Empty and odd files."""
    host.nvidia(0)
    host.write("proc/driver/nvidia/gpus/odd/information", "Device Minor: x\nno colon\n")
    host.write("proc/driver/nvidia/capabilities/gpu0/mig/giX/ciY/access", "\0\xff")
    host.write("sys/class/kfd/kfd/topology/nodes/7/properties", "drm_render_minor many\nunique_id\n")
    assert len(read_inventory(host.roots).gpus) == 2
