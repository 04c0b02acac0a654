"""What only a GPU can show: `sudo sh tests/integration/gpu/run.sh` runs and explains it. Without one it is skipped."""

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.program import ROOT, Program

from mlbox.gpu.inventory import is_loaded, read_inventory
from mlbox.gpu.model import Gpu

pytestmark = [pytest.mark.gpu, pytest.mark.integration]

PTX = ROOT / "gpu/probe/probe.ptx"
PROBE = Path(__file__).parent / "probe.py"
LAUNCHES = 50
PAIRS = 5
RATIO = 1.01
"""Of the time of a step: what a container may cost."""
TORCH = """
import json, time, torch
a = torch.randn(4096, 4096, device="cuda")
same = torch.allclose((a @ a)[:8, :8].cpu(), a[:8].cpu() @ a[:, :8].cpu(), rtol=1e-2, atol=1e-1)
print(json.dumps({"gpus": torch.cuda.device_count(), "right": bool(same), "cuda": torch.version.cuda}))
"""
SECOND = """
import os, sys
os.mknod("/tmp/second", 0o20666, os.makedev(195, int(sys.argv[1])))
try:
    os.open("/tmp/second", os.O_RDWR)
except OSError as problem:
    print(problem.strerror)
else:
    print("opened")
"""


@pytest.fixture(scope="module")
def gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this host."""
    if not is_loaded():
        pytest.skip("no NVIDIA driver is loaded on this host")
    found = [gpu for gpu in read_inventory().gpus if gpu.vendor == "nvidia"]
    whole = [gpu for gpu in found if not gpu.mig_enabled]
    if not whole:
        pytest.skip("every GPU of this host is divided by MIG")
    return whole


@pytest.fixture(scope="module")
def mlbox(gpus: list[Gpu], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program in a project with nothing but Python, built as test/gpu."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "requirements.txt").write_text("")
    (folder / "mlbox.toml").write_text("pip = false\n")
    for source in (PTX, PROBE):
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "second.py").write_text(SECOND)
    program = Program(tmp_path_factory.mktemp("home"), folder)
    program.build("-t", "test/gpu")
    yield program
    program.run("prune", "--built", "-f", code=None)


def on_host(gpu: Gpu, launches: int = 0) -> dict[str, Any]:
    """Probe without a container."""
    env = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpu.uuid or str(gpu.index)}
    command = [sys.executable, str(PROBE), str(PTX), str(launches)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"on the bare host: {done.stdout}{done.stderr}"
    return dict(json.loads(done.stdout))


def in_container(mlbox: Program, gpu: Gpu, launches: int = 0) -> dict[str, Any]:
    """Probe in a container that has that GPU."""
    request = f"device={gpu.index}"
    said = mlbox.out("run", "--rm", "--gpus", request, "test/gpu", "python", PROBE.name, PTX.name, str(launches))
    return dict(json.loads(said.splitlines()[-1]))


def test_a_kernel_computes_in_a_container(mlbox: Program, gpus: list[Gpu]) -> None:
    """What the bare host computes, on exactly one GPU, of the same name."""
    for gpu in gpus[:2]:
        bare, inside = on_host(gpu), in_container(mlbox, gpu)
        print(f"\nGPU {gpu.index}: host {bare}, container {inside}")
        assert bare["right"] and inside["right"]
        assert (inside["gpus"], inside["name"], inside["cuda"]) == (1, bare["name"], bare["cuda"])


def test_a_step_takes_as_long_as_on_the_bare_host(mlbox: Program, gpus: list[Gpu]) -> None:
    """In turn, so that a GPU whose clock drifts is fair to both; the median of the ratios counts."""
    ratios = []
    for _ in range(PAIRS):
        bare, inside = on_host(gpus[0], LAUNCHES)["seconds"], in_container(mlbox, gpus[0], LAUNCHES)["seconds"]
        ratios.append(inside / bare)
    print(f"\nstep in a container / on the bare host: {statistics.median(ratios):.4f} ({sorted(ratios)})")
    assert statistics.median(ratios) <= RATIO


def test_the_node_of_another_gpu_is_denied(mlbox: Program, gpus: list[Gpu]) -> None:
    """Made by hand with CAP_MKNOD it still does not open; on a host with one GPU, a node that a second would have."""
    other = gpus[1].minor if len(gpus) > 1 else gpus[0].minor + 1
    command = ("test/gpu", "python", "second.py")
    request = ("--gpus", f"device={gpus[0].index}", "--cap-add", "MKNOD")
    assert mlbox.out("run", "--rm", *request, *command, str(other)) == "Operation not permitted"
    assert mlbox.out("run", "--rm", *request, *command, str(gpus[0].minor)) == "opened"


def test_the_drivers_tools_see_one_gpu(mlbox: Program, gpus: list[Gpu]) -> None:
    """In an image that has nothing of NVIDIA's; the kernel's rules are what was given."""
    said = mlbox.out("run", "--rm", "--gpus", "1", "test/gpu", "nvidia-smi", "-L")
    assert len(re.findall(r"^GPU \d+:", said, re.MULTILINE)) == 1, said
    mlbox.run("run", "-d", "--name", "verified", "--gpus", "1", "test/gpu", "sleep", "60")
    try:
        assert "as given" in mlbox.out("gpu", "verify", "verified")
        assert "verified" in mlbox.out("gpu", "ls")
    finally:
        mlbox.run("rm", "-f", "verified")


def test_no_gpu_without_asking(mlbox: Program) -> None:
    """No node, and no library of the driver."""
    script = "import ctypes, os; print([n for n in os.listdir('/dev') if 'nvidia' in n]); ctypes.CDLL('libcuda.so.1')"
    done = mlbox.run("run", "--rm", "test/gpu", "python", "-c", script, code=1)
    assert done.stdout.strip() == "[]" and "libcuda.so.1" in done.stderr


def test_a_mig_instance_is_a_gpu(mlbox: Program) -> None:
    """Where a GPU of this host is divided."""
    divided = [gpu for gpu in read_inventory().gpus if gpu.mig]
    if not divided:
        pytest.skip("no GPU of this host is divided by MIG")
    request = f"device={divided[0].index}:0"
    said = mlbox.out("run", "--rm", "--gpus", request, "test/gpu", "python", PROBE.name, PTX.name)
    found = json.loads(said.splitlines()[-1])
    print(f"\nMIG {request}: {found}")
    assert found["right"] and found["gpus"] == 1


def test_torch_computes_on_one_gpu(gpus: list[Gpu], tmp_path: Path) -> None:
    """The index's own build, in an image without a base of CUDA; checked beforehand that it fits."""
    if os.environ.get("MLBOX_TORCH") == "0":
        pytest.skip("MLBOX_TORCH=0: torch is not downloaded")
    (tmp_path / "requirements.txt").write_text("torch\nnumpy\n")
    (tmp_path / "mlbox.toml").write_text('accelerator = "default"\n')
    (tmp_path / "step.py").write_text(TORCH)
    program = Program(tmp_path / "home", tmp_path)
    program.build("-t", "test/torch")
    checked = program.run("check", "test/torch", code=None)
    if checked.returncode:
        pytest.skip(f"the newest torch does not fit this host, as mlbox says:\n{checked.stdout}")
    found = json.loads(program.out("run", "--rm", "--gpus", "1", "test/torch", "python", "step.py").splitlines()[-1])
    print(f"\ntorch: {found}")
    assert found["right"] and found["gpus"] == 1
