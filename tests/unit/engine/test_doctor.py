"""What doctor says of a host's GPUs, with and without a driver."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlbox.engine import doctor
from mlbox.paths import Home


class NVMLError(Exception):
    """As pynvml's."""


def nvml(**functions: object) -> SimpleNamespace:
    """A driver with one GPU, but for `functions`."""
    defaults = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: "NVIDIA H100",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=80 * 10**9),
        "nvmlSystemGetDriverVersion": lambda: "580.1",
    }
    return SimpleNamespace(**{**defaults, **functions})


def test_nvml_is_not_touched_without_a_driver(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root it would make device nodes."""
    monkeypatch.setitem(sys.modules, "pynvml", None)

    (finding,) = doctor._gpus(home, tmp_path / "none")
    assert finding.verdict == "ok"


def test_gpus_are_named(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Driver, name and memory; a driver that does not answer is a warning with a hint."""
    driver = tmp_path / "version"
    driver.write_text("NVRM")
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    (found,) = doctor._gpus(home, driver)

    assert "580.1" in found.text
    assert "NVIDIA H100, 80.0 GB" in found.text

    def mismatch() -> None:
        raise NVMLError("Driver/library version mismatch")

    monkeypatch.setitem(sys.modules, "pynvml", nvml(nvmlInit=mismatch))
    (broken,) = doctor._gpus(home, driver)
    assert (broken.verdict, bool(broken.hint)) == ("warn", True)


def test_every_finding_that_is_not_ok_says_what_helps(home: Home) -> None:
    """On this host, whatever it is."""
    findings = doctor.examine(home)

    assert {"user", "store", "OCI runtime", "overlayfs", "GPUs"} <= {finding.subject for finding in findings}
    assert all(finding.hint for finding in findings if finding.verdict != "ok")
