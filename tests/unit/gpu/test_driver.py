"""What of the driver a container gets, and the edits that give it."""

from pathlib import Path

import pytest
from fakes.elf import ARM64, shared_library
from fakes.gpu import FakeHost

from mlbox.errors import UsageError
from mlbox.gpu.choose import units
from mlbox.gpu.driver import DriverFiles, capability_table, driver_files, parse_capabilities, without_compat32
from mlbox.gpu.edits import TARGET, edits_of, libraries_of
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.model import NAMED_CAPABILITIES, Version

VERSION = Version((550, 54, 14), "550.54.14")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    made = FakeHost(tmp_path / "host")
    made.nvidia(0, 1)
    for soname in ("libnvidia-nvvm.so.4", "libnvcuvid.so.1", "libGLX_nvidia.so.0"):
        made.library(soname, "550.54.14")
    return made


def files(host: FakeHost, *capabilities: str) -> DriverFiles:
    return driver_files(VERSION, capabilities, "amd64", host.roots)


def names(found: DriverFiles) -> set[str]:
    return {name for one in found.libraries for name in one.names}


def test_the_table_has_every_capability() -> None:
    """And implies none that there is not."""
    assert set(capability_table()) == set(NAMED_CAPABILITIES)
    assert all(set(row.implies) <= set(NAMED_CAPABILITIES) for row in capability_table().values())


@pytest.mark.parametrize(
    ("text", "capabilities"),
    [
        ("", ("compute", "utility")),
        ("utility", ("utility",)),
        ("video", ("video", "compute")),
        ("display,utility", ("display", "graphics", "utility")),
    ],
)
def test_capabilities_bring_what_they_imply(text: str, capabilities: tuple[str, ...]) -> None:
    assert parse_capabilities(text) == capabilities
    assert set(parse_capabilities("all")) == set(NAMED_CAPABILITIES)


def test_libraries_of_32_bits_are_refused() -> None:
    """Not of an image, which asks NVIDIA's runtime for them."""
    with pytest.raises(UsageError, match="programs of 32 bits"):
        parse_capabilities("compute,compat32")
    assert without_compat32("compute,compat32,utility") == "compute,utility"
    with pytest.raises(UsageError, match="'fast'"):
        parse_capabilities("compute,fast")


def test_libraries_by_capability_under_every_name(host: FakeHost) -> None:
    """The file's own, the soname, and for a few the bare one."""
    assert names(files(host, "compute")) == {
        "libcuda.so.550.54.14",
        "libcuda.so.1",
        "libcuda.so",
        "libnvidia-nvvm.so.550.54.14",
        "libnvidia-nvvm.so.4",
    }
    assert names(files(host, "utility")) == {"libnvidia-ml.so.550.54.14", "libnvidia-ml.so.1"}
    assert "libnvcuvid.so.1" in names(files(host, "video"))
    assert libraries_of(files(host, "utility"))[1] == ("libnvidia-ml.so.1", f"{TARGET}/libnvidia-ml.so.1")


def test_libraries_of_another_version_or_machine_are_not_taken(host: FakeHost) -> None:
    """Nor what is no library at all."""
    folder = host.root / "driver/usr/lib/x86_64-linux-gnu"
    host.library("libnvidia-ptxjitcompiler.so.1", "535.1")
    (folder / "libnvidia-opencl.so.550.54.14").write_bytes(shared_library("libnvidia-opencl.so.1", ARM64))
    (folder / "libcudadebugger.so.550.54.14").write_text("no library")
    assert not {"libnvidia-opencl.so.1", "libcudadebugger.so.1", "libnvidia-ptxjitcompiler.so.1"} & names(
        files(host, "compute")
    )


def test_links_are_followed_on_the_host(host: FakeHost) -> None:
    """As Debian's alternatives have them; the real file is mounted."""
    folder = host.root / "driver/usr/lib/x86_64-linux-gnu"
    (folder / "nvidia/current").mkdir(parents=True)
    real = folder / "nvidia/current/libnvidia-ml.so.550.54.14"
    (folder / "libnvidia-ml.so.550.54.14").rename(real)
    (folder / "libnvidia-ml.so.550.54.14").symlink_to("nvidia/current/libnvidia-ml.so.550.54.14")
    assert [one.path for one in files(host, "utility").libraries] == [str(real)]


def test_programs_files_and_sockets(host: FakeHost) -> None:
    """Those that are there."""
    for path in ("usr/bin/nvidia-smi", "usr/sbin/nvidia-cuda-mps-server", "etc/OpenCL/vendors/nvidia.icd"):
        place = host.root / "driver" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    found = files(host, "compute", "utility")
    assert [Path(path).name for path in found.programs] == ["nvidia-cuda-mps-server", "nvidia-smi"]
    assert [inside for _, inside in found.files] == ["/etc/OpenCL/vendors/nvidia.icd"]
    assert found.sockets == ()


def test_graphics_alone_has_all_that_its_libraries_load(host: FakeHost) -> None:
    """Since 550 what draws needs the compiler that 'compute' has; what tells Vulkan of it may lie in /usr."""
    for soname in ("libnvidia-gpucomp.so.550.54.14", "libnvidia-eglcore.so.550.54.14"):
        host.library(soname, "550.54.14")
    host.write("driver/usr/share/vulkan/icd.d/nvidia_icd.x86_64.json", "{}")
    found = files(host, "graphics")
    assert {"libnvidia-gpucomp.so.550.54.14", "libGLX_nvidia.so.0", "libGLX_indirect.so.0"} <= names(found)
    assert [inside for _, inside in found.files] == ["/usr/share/vulkan/icd.d/nvidia_icd.x86_64.json"]


@pytest.mark.parametrize("folder", ["vdpau", "nvidia/current"])
def test_vdpau_wherever_it_lies(host: FakeHost, folder: str) -> None:
    """In a folder of its own, or with the others as Debian has it."""
    path = host.root / "driver/usr/lib/x86_64-linux-gnu" / folder / "libvdpau_nvidia.so.550.54.14"
    path.parent.mkdir(parents=True)
    path.write_bytes(shared_library("libvdpau_nvidia.so.1"))
    assert "libvdpau_nvidia.so.1" in names(files(host, "video"))


def test_the_firmware_of_the_running_driver(host: FakeHost) -> None:
    """Once, whichever capabilities name it; that of another version stays away."""
    for version in ("550.54.14", "535.1"):
        host.write(f"driver/lib/firmware/nvidia/{version}/gsp_ga10x.bin", "")
    found = files(host, "compute", "utility")
    assert [inside for _, inside in found.files] == ["/lib/firmware/nvidia/550.54.14/gsp_ga10x.bin"]


def test_a_library_with_a_version_of_its_own(host: FakeHost) -> None:
    """The older compiler that newer drivers bring along."""
    host.library("libnvidia-nvvm70.so.4", "4")
    assert "libnvidia-nvvm70.so.4" in names(files(host, "compute"))


def test_edits_give_exactly_the_chosen(host: FakeHost) -> None:
    """One minor and what all GPUs share; nodes as they are called in /dev."""
    inventory = read_inventory(host.roots)
    edits = edits_of(units(inventory)[1:], inventory, ("compute",), files(host, "compute"), host.roots)
    assert [(node.path, node.major, node.minor, node.permissions) for node in edits.device_nodes] == [
        ("/dev/nvidia1", 195, 1, "rw"),
        ("/dev/nvidiactl", 195, 255, "rw"),
        ("/dev/nvidia-uvm", 508, 0, "rw"),
        ("/dev/nvidia-uvm-tools", 508, 1, "rw"),
    ]
    assert edits.env == ("NVIDIA_VISIBLE_DEVICES=void",) and edits.hooks == ()
    assert all({"ro", "nosuid", "nodev"} <= set(mount.options) for mount in edits.mounts)


def test_drawing_needs_more_nodes(host: FakeHost) -> None:
    """Those of the same GPU, and the one that sets modes for 'display'."""
    drm = host.root / "sys/bus/pci/devices/0000:01:00.0/drm"
    for name, minor in (("card1", 1), ("renderD128", 128)):
        (drm / name).mkdir(parents=True)
        host.node(f"dri/{name}", 226, minor)
    host.node("dri/renderD129", 226, 129)
    inventory = read_inventory(host.roots)
    chosen = units(inventory)[:1]
    paths = {node.path for node in edits_of(chosen, inventory, ("graphics",), None, host.roots).device_nodes}
    assert {"/dev/dri/card1", "/dev/dri/renderD128"} <= paths
    assert not {"/dev/dri/renderD129", "/dev/nvidia-modeset"} & paths
    more = edits_of(chosen, inventory, ("display", "graphics"), None, host.roots)
    assert "/dev/nvidia-modeset" in {node.path for node in more.device_nodes}


def test_amd_gets_its_nodes_and_nothing_of_nvidia(tmp_path: Path) -> None:
    """ROCm is in the image; /dev/kfd is shared, the render node is not."""
    host = FakeHost(tmp_path / "amd")
    host.amd(128, 129)
    inventory = read_inventory(host.roots)
    edits = edits_of(units(inventory)[1:], inventory, ("compute", "utility"), None, host.roots)
    assert [node.path for node in edits.device_nodes] == ["/dev/dri/renderD129", "/dev/kfd"]
    assert edits.env == () and edits.mounts == ()
