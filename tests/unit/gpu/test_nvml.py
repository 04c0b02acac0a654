"""What NVIDIA's library adds to what the kernel shows, and what is left when it does not answer."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.gpu import FakeHost
from fakes.nvml import MEMORY, FakeNvml

from mlbox.errors import ContainerError
from mlbox.gpu import nvml
from mlbox.gpu.choose import Request, candidates
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.model import ComputeCapability, Inventory
from mlbox.linux.mig import in_mig_mode


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """Two GPUs, the second of which is divided."""
    made = FakeHost(tmp_path / "host")
    made.nvidia(0, 1)
    made.mig(1, (1, 0), (5, 0))
    return made


def test_without_a_driver_the_library_is_not_even_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading it as root makes device nodes."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.ask(Inventory()).inventory == Inventory()


def test_memory_use_and_architecture(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the GPU at the same PCI address; what it does not tell is None."""
    module = FakeNvml(host, processes={0: {1234: 5 << 30}})
    monkeypatch.setitem(sys.modules, "pynvml", module)
    answer = nvml.ask(read_inventory(host.roots))
    gpu = answer.inventory.gpus[0]
    assert (gpu.memory, gpu.capability, gpu.mig_enabled) == (MEMORY, ComputeCapability(9, 0), False)
    use = answer.use[gpu.pci]
    assert (use.memory_used, use.busy, use.power, use.energy) == (MEMORY // 4, 37, 412.5, None)
    assert use.processes == ((1234, 5 << 30),)
    assert not module.running


def test_mig_instances_get_their_uuids(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """By GPU instance and compute instance, with the nodes that the kernel shows."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(host))
    divided = nvml.ask(read_inventory(host.roots)).inventory.gpus[1]
    assert divided.mig_enabled
    assert [(one.uuid[:12], one.profile, one.memory, len(one.nodes)) for one in divided.mig] == [
        ("MIG-GPU-0000", "1g.18gb", MEMORY // 8, 2),
        ("MIG-GPU-0000", "1g.18gb", MEMORY // 8, 2),
    ]
    assert divided.mig[0].uuid != divided.mig[1].uuid


def test_mig_mode_without_instances(host: FakeHost, tmp_path: Path) -> None:
    """Nothing can be given of such a GPU, and everybody says what mends it."""
    host = FakeHost(tmp_path / "other")
    host.nvidia(0, 1)
    inventory = read_inventory(host.roots)
    marked = nvml.with_mig_modes(inventory, {inventory.gpus[1].pci})
    assert [gpu.mig_enabled for gpu in marked.gpus] == [False, True]
    assert marked.problems[-1].startswith("GPU 1 is in MIG mode and has no instances")
    assert [unit.label for unit in candidates(marked, Request(all=True))] == ["0"]
    with pytest.raises(ContainerError, match=r"this host has 1 \(0\), besides 1 in MIG mode without instances"):
        candidates(marked, Request(count=2))
    with pytest.raises(ContainerError, match="GPU 1 is in MIG mode") as caught:
        candidates(marked, Request(devices=("1",)))
    assert "nvidia-smi -i 1 -mig 0" in (caught.value.hint or "")
    both = nvml.with_mig_modes(inventory, {gpu.pci for gpu in inventory.gpus})
    with pytest.raises(ContainerError, match="GPU 0 is in MIG mode"):
        candidates(both, Request(all=True))


LIBRARY = """
int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return 0; }
static char which;
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **handle) {
    *handle = &which; which = id[6]; return which == '9';
}
int nvmlDeviceGetMigMode(char *id, unsigned *now, unsigned *then) { *now = *then = *id == '2'; return *id == '3'; }
"""


def test_the_library_is_asked_for_the_mode(tmp_path: Path) -> None:
    """A library of our own answers; what fails, or is not there, is no MIG mode."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("cc is not installed")
    source = tmp_path / "nvml.c"
    source.write_text(LIBRARY)
    for name, code in (("good", "0"), ("bad", "9")):
        argv = [compiler, "-shared", "-fPIC", f"-DINIT={code}", "-o", tmp_path / f"{name}.so", source]
        subprocess.run(argv, check=True)
    addresses = [f"0000:0{n}:00.0" for n in (1, 2, 3, 9)]
    assert in_mig_mode(addresses, str(tmp_path / "good.so")) == {"0000:02:00.0"}
    assert in_mig_mode(addresses, str(tmp_path / "bad.so")) == frozenset()
    assert in_mig_mode(addresses, str(tmp_path / "none.so")) == frozenset()


def test_a_library_that_does_not_answer_is_a_problem(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPUs are still listed."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(host, broken="nvmlInit"))
    answer = nvml.ask(read_inventory(host.roots))
    assert len(answer.inventory.gpus) == 2 and answer.use == {}
    assert "does not answer (Not Supported)" in answer.inventory.problems[-1]


@pytest.mark.parametrize(
    "broken", ["nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetPciInfo", "nvmlDeviceGetMemoryInfo"]
)
def test_what_fails_is_left_out(host: FakeHost, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """And nothing else."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(host, broken=broken))
    assert len(nvml.ask(read_inventory(host.roots)).inventory.gpus) == 2
