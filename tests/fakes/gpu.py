"""Hosts with GPUs, as files: what the drivers show in /proc, /sys and /dev."""

import os
from pathlib import Path

import pytest
from fakes.elf import shared_library

from mlbox.gpu.model import Roots

NODES = {"nvidiactl": 255, "nvidia-modeset": 254}
PCI = "0000:{:02x}:00.0"


class FakeHost:
    """A host below `root`; its nodes are real ones, with nothing behind them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.roots = Roots(
            proc=str(root / "proc"), sys=str(root / "sys"), dev=str(root / "dev"), driver=str(root / "driver")
        )
        for name in ("proc", "sys", "dev", "driver"):
            (root / name).mkdir(parents=True)

    def nvidia(self, *minors: int, version: str = "550.54.14", libraries: str | None = None, uvm: bool = True) -> None:
        """Load NVIDIA's driver with GPUs of these device minors, in the order of the PCI bus."""
        module = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Thu Feb 22 01:44:30 UTC 2024\n"
        self.write("proc/driver/nvidia/version", module + "GCC version:  gcc version 12.2.0\n")
        self.write("proc/driver/nvidia/params", "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\n")
        for place, minor in enumerate(minors):
            pci = PCI.format(place + 1)
            self.write(
                f"proc/driver/nvidia/gpus/{pci}/information",
                f"Model: \t\t NVIDIA H200\nIRQ:   \t\t 90\nGPU UUID: \t {uuid(minor)}\nBus Type: \t PCIe\n"
                f"Bus Location: \t {pci}\nDevice Minor: \t {minor}\n",
            )
            self.pci(place + 1, "0x10de", "0x030200")
            self.node(f"nvidia{minor}", 195, minor)
        for name, minor in NODES.items():
            self.node(name, 195, minor)
        if uvm:
            self.node("nvidia-uvm", 508, 0)
            self.node("nvidia-uvm-tools", 508, 1)
        if libraries != "":
            self.library("libcuda.so.1", libraries or version)
            self.library("libnvidia-ml.so.1", libraries or version)

    def mig(self, minor: int, *instances: tuple[int, int], first: int = 12) -> None:
        """Divide the GPU of that minor into (GPU instance, compute instance) parts."""
        folder = f"proc/driver/nvidia/capabilities/gpu{minor}/mig"
        for place, (gpu_instance, compute_instance) in enumerate(instances):
            for offset, path in enumerate((f"gi{gpu_instance}", f"gi{gpu_instance}/ci{compute_instance}")):
                number = first + 2 * place + offset
                self.write(f"{folder}/{path}/access", f"DeviceFileMinor: {number}\nDeviceFileMode: 292\n")
                self.node(f"nvidia-caps/nvidia-cap{number}", 237, number)

    def amd(self, *minors: int) -> None:
        """Load amdkfd: a processor, then a GPU for each render minor."""
        topology = "sys/class/kfd/kfd/topology/nodes"
        self.write(f"{topology}/0/properties", "cpu_cores_count 64\ndrm_render_minor 0\n")
        self.node("kfd", 234, 0)
        for place, minor in enumerate(minors, 1):
            text = f"simd_count 304\ngfx_target_version 90402\nunique_id {place + 4000}\ndrm_render_minor {minor}\n"
            self.write(f"{topology}/{place}/properties", text)
            self.write(f"{topology}/{place}/name", "aqua_vanjaram\n")
            self.node(f"dri/renderD{minor}", 226, minor)

    def intel(self, card: int, minor: int) -> None:
        """Load i915 or xe for one GPU."""
        self.pci(0x40 + card, "0x8086", "0x038000")
        for name, number in ((f"card{card}", card), (f"renderD{minor}", minor)):
            (self.root / "sys/bus/pci/devices" / PCI.format(0x40 + card) / "drm" / name).mkdir(parents=True)
            self.node(f"dri/{name}", 226, number)

    def pci(self, bus: int, vendor: str, kind: str) -> None:
        """Put a device on the bus."""
        folder = f"sys/bus/pci/devices/{PCI.format(bus)}"
        self.write(f"{folder}/vendor", vendor + "\n")
        self.write(f"{folder}/class", kind + "\n")

    def library(self, soname: str, version: str) -> Path:
        """Install a driver's library."""
        stem = soname.partition(".so")[0]
        path = self.root / "driver/usr/lib/x86_64-linux-gnu" / f"{stem}.so.{version}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shared_library(soname))
        return path

    def node(self, name: str, major: int, minor: int) -> None:
        """Make a device node; not root, a link to one that everybody has stands for it."""
        path = self.root / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.mknod(path, 0o20666, os.makedev(major, minor))
        except PermissionError:
            pytest.skip("only root can make device nodes")

    def write(self, name: str, text: str) -> None:
        """Write a file of the kernel."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def uuid(minor: int) -> str:
    """Return the UUID of the fake GPU with that minor."""
    return f"GPU-{minor:08x}-1111-2222-3333-444444444444"
