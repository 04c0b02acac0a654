"""What doctor says of a host's GPUs, with and without a driver."""

import sys
from pathlib import Path

import pytest
from fakes.gpu import FakeHost
from fakes.nvml import FakeNvml

from mlbox.engine import doctor
from mlbox.paths import Home


def test_nvml_is_not_touched_without_a_driver(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root it would make device nodes."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (finding,) = doctor._gpus(home, FakeHost(tmp_path / "host").roots)
    assert finding.verdict == "ok"


def test_gpus_are_named(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Driver, name and memory; a library that does not answer is bad, with a hint."""
    host = FakeHost(tmp_path / "host")
    host.nvidia(0)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(host))
    (found,) = doctor._gpus(home, host.roots)
    assert "550.54.14" in found.text and "NVIDIA H200, 150.1 GB" in found.text
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(host, broken="nvmlInit"))
    (broken,) = doctor._gpus(home, host.roots)
    assert (broken.verdict, bool(broken.hint)) == ("bad", True)


def test_every_finding_that_is_not_ok_says_what_helps(home: Home) -> None:
    """On this host, whatever it is."""
    findings = doctor.examine(home)

    assert {"user", "store", "OCI runtime", "overlayfs", "GPUs"} <= {finding.subject for finding in findings}
    assert all(finding.hint for finding in findings if finding.verdict != "ok")
