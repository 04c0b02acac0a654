"""How much the GPUs do, and for whom."""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fakes.gpu import FakeHost
from fakes.nvml import FakeNvml

from mlbox.cli import gpu_top
from mlbox.cli.gpu_top import text
from mlbox.cli.main import run
from mlbox.engine import gpus, watching
from mlbox.engine.gpus import GpuHost, GpuState, Holder
from mlbox.engine.watching import Sample, remember_energy, sample
from mlbox.errors import ContainerError
from mlbox.gpu.choose import Request, units
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.leases import Leases, Tenant
from mlbox.gpu.model import Gpu
from mlbox.gpu.nvml import Use
from mlbox.oci.image import ContainerConfig, ImageConfig, RootFS
from mlbox.paths import Home
from mlbox.runtime.containers import Containers
from mlbox.runtime.options import RunOptions
from mlbox.runtime.record import Container

PCI = ("0000:01:00.0", "0000:02:00.0")


class Counting(FakeNvml):
    """GPUs that tell their energy, which grows."""

    joules = 1000.0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return int(self.joules * 1000) + handle

    def nvmlDeviceGetTemperature(self, handle: int, kind: int) -> int:
        return 54


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """Two GPUs, the second of which this process computes on."""
    made = FakeHost(tmp_path / "host")
    made.nvidia(0, 1)
    monkeypatch.setitem(sys.modules, "pynvml", Counting(made, processes={1: {os.getpid(): 3 << 30}}))
    return made


@pytest.fixture
def containers(home: Home) -> Containers:
    return Containers(home)


def made(containers: Containers, name: str) -> Container:
    """Return a container of that name."""
    config = ImageConfig(architecture="amd64", os="linux", config=ContainerConfig(), rootfs=RootFS(diff_ids=()))
    return containers.create("sha256:" + "0" * 64, "x:1", config, [], RunOptions(name=name, command=("x",)))


def seen(*states: GpuState) -> Any:
    """Return a `look` that sees these."""
    return lambda *_: GpuHost(inventory=read_inventory(), gpus=states)


def state(index: int, *holders: Holder, energy: float | None = None) -> GpuState:
    gpu = Gpu(vendor="nvidia", index=index, name="NVIDIA H200", pci=PCI[index], memory=150 * 10**9)
    return GpuState(gpu=gpu, use=Use(energy=energy, busy=40, power=412.5, temperature=54), holders=holders)


def test_programs_outside_of_containers_are_their_users(containers: Containers, host: FakeHost, tmp_path: Path) -> None:
    """With the memory that the driver says they hold."""
    found = sample(containers, host.roots, tmp_path / "leases")
    mine = next(one for one in found.tenants if f"({os.getpid()})" in "".join(one.processes))
    assert (mine.container, mine.gpus, mine.memory, mine.energy) == ("", (1,), 3 << 30, None)
    assert found.gpus[0].use is not None and found.gpus[0].use.temperature == 54


def test_containers_belong_to_who_leased_the_gpus(
    containers: Containers, host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever their processes are; all of a container's GPUs are in one row."""
    tenant = Tenant(container="abc", name="job", user="ann")
    lease = Leases(tmp_path / "leases").take(units(read_inventory(host.roots)), Request(all=True), tenant, busy=tuple)
    one = Holder(container="job", pid=7, name="python", user="root", memory=5 << 30)
    monkeypatch.setattr(watching, "look", seen(state(0, one), state(1, one, Holder(container="job"))))
    (row,) = sample(containers, host.roots, tmp_path / "leases").tenants
    assert (row.container, row.user, row.gpus, row.memory) == ("job", "ann", (0, 1), 10 << 30)
    assert row.processes == ("python (7)",)
    lease.close()


def test_energy_since_the_start(
    containers: Containers, host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of GPUs that the container has alone, while the driver goes on counting."""
    job = Holder(container="job", pid=7, name="python")
    monkeypatch.setattr(watching, "look", seen(state(0, job, energy=1500.0), state(1, job, energy=1100.5)))
    container = made(containers, "job")
    assert sample(containers, host.roots).tenants[0].energy is None
    remember_energy(containers.files(container), host.roots)
    assert sample(containers, host.roots).tenants[0].energy == pytest.approx(600.499)
    other = Holder(pid=8, name="x", user="bob")
    for changed in (state(1, job, other, energy=1100.0), state(1, job), state(1, job, energy=3.0)):
        monkeypatch.setattr(watching, "look", seen(state(0, job, energy=1500.0), changed))
        assert next(one for one in sample(containers, host.roots).tenants if one.container).energy is None


def test_what_nobody_counts_is_not_written(containers: Containers, host: FakeHost, tmp_path: Path) -> None:
    """Without a driver, or when the container has gone already."""
    container = made(containers, "job")
    remember_energy(containers.files(container), FakeHost(tmp_path / "none").roots)
    assert containers.files(container).read("energy.json") == b""
    files = containers.files(container)
    containers.remove("job")
    remember_energy(files, host.roots)
    assert not files.path.exists()


def test_a_host_without_gpus_says_so(
    containers: Containers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And why."""
    with pytest.raises(ContainerError, match="no NVIDIA driver is loaded"):
        sample(containers, FakeHost(tmp_path / "empty").roots)
    broken = FakeHost(tmp_path / "broken")
    broken.pci(1, "0x10de", "0x030200")
    with pytest.raises(ContainerError, match="modprobe nvidia"):
        sample(containers, broken.roots)


def test_names_do_no_harm_to_the_terminal() -> None:
    """A program may call itself what it likes."""
    evil = watching.Tenant(container="", user="eve", gpus=(0,), memory=1, processes=("\x1b[2J\u202e (7)",))
    shown = text(Sample(driver=None, gpus=(state(0),), tenants=(evil,)))
    assert shown.replace("\n", "").isprintable()
    assert "40%" in shown and "412 W" in shown and "54 °C" in shown


@pytest.fixture
def on_host(host: FakeHost, monkeypatch: pytest.MonkeyPatch, home: Home) -> list[float]:
    """The command line sees that host, and is interrupted in its third pause."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(gpus, "read_inventory", lambda _: read_inventory(host.roots))
    monkeypatch.setattr(gpu_top, "time", SimpleNamespace(sleep=sleep, strftime=time.strftime, time=time.time))
    monkeypatch.setenv("MLBOX_HOME", str(home.root))
    return pauses


def test_lines_until_interrupted(on_host: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """And then it ends well."""
    assert run(["gpu", "top", "--interval", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("2 GPUs, driver 550.54.14") == 3 and on_host == [0.5] * 3
    assert "NVIDIA H200   37%    37.5 GB / 150.1 GB" in shown
    assert run(["gpu", "top", "--once"]) == 0
    assert capsys.readouterr().out.count("2 GPUs") == 1


def test_json_is_one_look_a_line(on_host: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """For programs that read along."""
    assert run(["gpu", "top", "--format", "json"]) == 0
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(looks) == 3
    assert [one["use"]["busy"] for one in looks[0]["gpus"]] == [37, 37]
    assert msgspec.json.encode(looks[0]["tenants"])


def test_on_a_terminal_it_stays_in_place(
    on_host: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The screen is given back at the end."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert run(["gpu", "top"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[?1049h" in shown and shown.index("\x1b[?1049l") > shown.rindex("NVIDIA H200")
