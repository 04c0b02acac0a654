"""Who holds which GPU."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.gpu import FakeHost
from fakes.nvml import FakeNvml

from mlbox.engine.gpus import leases, look
from mlbox.engine.running import containers_of
from mlbox.errors import ContainerError
from mlbox.gpu.choose import Request, Unit, units
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.leases import Leases, Tenant
from mlbox.gpu.model import Gpu, Roots
from mlbox.linux import process
from mlbox.paths import Home


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """Two GPUs; the node of the first is that of /dev/zero, which anybody can open."""
    made = FakeHost(tmp_path / "host")
    made.nvidia(0, 1)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(made, processes={1: {os.getpid(): 1 << 30}}))
    node = made.root / "dev/nvidia0"
    node.unlink()
    node.symlink_to("/dev/zero")
    return made


@pytest.fixture
def opened(host: FakeHost) -> Iterator[None]:
    """This process has the first GPU open."""
    with (host.root / "dev/nvidia0").open("rb"):
        yield


def test_a_process_that_has_a_node_open_holds_it(home: Home, host: FakeHost, opened: None) -> None:
    """The second GPU is held by whom NVIDIA's library names."""
    first, second = look(containers_of(home), host.roots).gpus
    assert os.getpid() in {one.pid for one in first.holders}
    mine = next(one for one in second.holders if one.pid == os.getpid())
    assert (mine.memory, mine.container) == (1 << 30, "")
    assert mine.name and mine.user


def test_a_gpu_that_nobody_has_open_is_free(home: Home, host: FakeHost) -> None:
    """Nor do we look for holders where there are no GPUs."""
    first, _ = look(containers_of(home), host.roots).gpus
    assert os.getpid() not in {one.pid for one in first.holders}
    assert look(containers_of(home), FakeHost(home.root / "empty").roots).gpus == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_leases_are_closed_to_others(host: FakeHost) -> None:
    """Who may not look is told so, and not that there are none."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name, "leases")
        assert leases(host.roots, folder).waiting == 0
        units = (Unit(gpu=Gpu(vendor="nvidia", index=0, minor=0)),)
        Leases(folder).take(units, Request(count=1), Tenant(), busy=tuple).close()
        os.seteuid(65534)
        try:
            with pytest.raises(ContainerError, match="only root"):
                leases(Roots(proc=name), folder)
        finally:
            os.seteuid(0)


def test_a_lease_is_idle_while_its_container_does_not_have_the_gpu_open(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others have open does not count; NVIDIA's library says how busy it is."""
    folder = tmp_path / "leases"
    found = units(read_inventory(host.roots))[:1]
    tenant = Tenant(container="abc", name="job", user="ann", seconds=60.0)
    lease = Leases(folder).take(found, Request(count=1), tenant, busy=tuple)
    (row,) = leases(host.roots, folder).leases
    assert (row.gpu, row.name, row.idle, row.busy) == ("0", "job", True, 37)
    assert row.until == row.since + 60
    with (host.root / "dev/nvidia0").open("rb"):
        assert leases(host.roots, folder).leases[0].idle
        monkeypatch.setattr(process, "groups_of", lambda _: ("/mlbox/abc/sub",))
        assert not leases(host.roots, folder).leases[0].idle
    lease.close()
