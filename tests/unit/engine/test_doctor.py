"""What doctor says of a host's GPUs, with and without a driver."""

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes.gpu import FakeHost
from fakes.nvml import FakeNvml

from mlbox.engine import doctor, doctor_gpu
from mlbox.engine.doctor import Finding
from mlbox.paths import Home

OPEN_ERROR = doctor_gpu.open_error


def test_nvml_is_not_touched_without_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root it would make device nodes."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (finding,) = doctor_gpu.examine_gpus(FakeHost(tmp_path / "host").roots)
    assert finding.verdict == "ok"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A GPU that can be opened, on a host that has enough of everything."""
    made = FakeHost(tmp_path / "host")
    made.nvidia(0)
    made.write("proc/self/uid_map", "         0          0 4294967295\n")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(made))
    monkeypatch.setattr(doctor_gpu, "open_error", lambda _: 0)
    monkeypatch.setattr(doctor_gpu.resource, "getrlimit", lambda _: (-1, doctor_gpu.resource.RLIM_INFINITY))
    return made


def found(host: FakeHost, subject: str) -> list[Finding]:
    findings = list(doctor_gpu.examine_gpus(host.roots))
    assert all(one.hint for one in findings if one.verdict != "ok")
    return [one for one in findings if one.subject == subject]


def test_gpus_are_named(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Driver, name and memory; a library that does not answer is bad, with a hint."""
    named, nodes = doctor_gpu.examine_gpus(host.roots)
    assert "550.54.14" in named.text and "NVIDIA H200, 150.1 GB" in named.text
    assert (nodes.verdict, nodes.text) == ("ok", "4 nodes open")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(host, broken="nvmlInit"))
    (broken,) = found(host, "GPUs")
    assert (broken.verdict, bool(broken.hint)) == ("bad", True)


@pytest.mark.parametrize(
    ("code", "text", "hint"),
    [
        (errno.ENOENT, "is missing", "nvidia-modprobe -c 0"),
        (errno.ENXIO, "belongs to no driver", "nvidia-modprobe -c 0"),
        (errno.ENODEV, "a driver that is gone", "modprobe nvidia"),
        (errno.EACCES, "by this user", "chmod 0666"),
        (errno.EPERM, "device rules", "on the host itself"),
        (errno.EIO, "has failed", "dmesg | grep Xid"),
        (errno.EBUSY, "Device or resource busy", "dmesg"),
    ],
    ids=lambda one: errno.errorcode[one] if isinstance(one, int) else None,
)
def test_why_a_node_does_not_open(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, code: int, text: str, hint: str
) -> None:
    """By the error that opening gives."""
    monkeypatch.setattr(doctor_gpu, "open_error", lambda path: code if path.endswith("nvidia0") else 0)
    (finding,) = found(host, "GPU nodes")
    assert finding.verdict == "bad" and text in finding.text and errno.errorcode[code] in finding.text
    assert hint in finding.hint


def test_nodes_are_really_opened(host: FakeHost, tmp_path: Path) -> None:
    """These have nothing behind them."""
    assert OPEN_ERROR(f"{host.roots.dev}/nvidia0") == errno.ENXIO
    assert OPEN_ERROR(str(tmp_path / "none")) == errno.ENOENT
    assert OPEN_ERROR(os.devnull) == 0


def test_what_programs_on_gpus_want_besides(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Persistence, memory that may be locked or shared, SELinux; each with the command."""
    monkeypatch.setattr(doctor_gpu.resource, "getrlimit", lambda _: (8 << 20, 8 << 20))
    monkeypatch.setattr(doctor_gpu.os, "statvfs", lambda _: SimpleNamespace(f_frsize=4096, f_blocks=16384))
    host.write("sys/fs/selinux/enforce", "1")
    module = FakeNvml(host)
    module.nvmlDeviceGetPersistenceMode = lambda _: 0
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert "at most 8.4 MB" in found(host, "locked memory")[0].text
    assert "67.1 MB" in found(host, "shared memory")[0].text
    assert "container_use_devices" in found(host, "SELinux")[0].hint
    assert "off for GPU 0" in found(host, "persistence")[0].text
    host.write("sys/fs/selinux/enforce", "0")
    assert found(host, "SELinux") == []


def test_a_user_namespace_is_said_plainly(host: FakeHost) -> None:
    """Only what is seen is isolated there."""
    assert found(host, "isolation") == []
    host.write("proc/self/uid_map", "         0       1000          1\n")
    (finding,) = found(host, "isolation")
    assert finding.verdict == "warn" and "nothing denies others" in finding.text


def test_every_finding_that_is_not_ok_says_what_helps(home: Home) -> None:
    """On this host, whatever it is."""
    findings = doctor.examine(home)

    assert {"user", "store", "OCI runtime", "overlayfs", "GPUs"} <= {finding.subject for finding in findings}
    assert all(finding.hint for finding in findings if finding.verdict != "ok")
