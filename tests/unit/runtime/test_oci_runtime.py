"""Finding a runtime, and understanding what it says."""

from pathlib import Path

import pytest

from mlbox.errors import ContainerError
from mlbox.paths import Home
from mlbox.runtime import oci_runtime
from mlbox.runtime.oci_runtime import exit_code_of, find_runtime, logged_failure, refusal


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('runc run failed: unable to start container process: exec: "x": executable file not found in $PATH', 127),
        ('unable to start container process: exec: "/x": stat /x: no such file or directory', 127),
        ("executable file `x` not found in $PATH: No such file or directory", 127),
        ('runc run failed: unable to start container process: exec: "/etc/passwd": permission denied', 126),
        ('exec: "/etc": is a directory', 126),
        ("open executable: Operation not permitted", 126),
        ("exec: /x: exec format error", 126),
        ("rootfs_linux.go: mounting /x: no such file or directory", 125),
        ("permission denied", 125),
        ("", 125),
    ],
)
def test_exit_codes(message: str, code: int) -> None:
    """Docker's: not found, cannot be run, everything else."""
    assert exit_code_of(message) == code


def test_log(tmp_path: Path) -> None:
    """The last error counts; lines that are none are passed over."""
    root = tmp_path / "runtime"
    assert logged_failure(root, "x") is None
    log = tmp_path / "runtime.log"
    log.write_text('{"level":"warning","msg":"w"}\n')
    assert logged_failure(root, "x") is None
    log.write_text('{"level":"error","msg":"exec: \\"x\\": not found"}\nnoise\n{"level":"info","msg":"later"}\n')
    problem = logged_failure(root, "x")
    assert problem
    assert (problem.message, problem.exit_code) == ('cannot run x: exec: "x": not found', 127)


def test_crun_on_a_hybrid_host() -> None:
    """It stops on any controller of a second hierarchy; runc does not mind, nor does crun when there is none."""
    assert "hybrid" in refusal("crun", "hugetlb\n")
    assert refusal("crun", "\n") == refusal("crun", None) == refusal("runc", "hugetlb\n") == ""


def program(folder: Path, name: str, status: int) -> Path:
    """Make a program that counts its calls."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho x >> {folder}/calls\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_probed_once(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime is tried once, and again when it is another program."""
    path = program(tmp_path, "runc", 0)
    monkeypatch.setenv("MLBOX_RUNTIME", str(path))
    for _ in range(3):
        assert find_runtime(home).path == str(path)
    assert (tmp_path / "calls").read_text() == "x\n"
    path.write_text(path.read_text() + "\n")
    assert find_runtime(home).name == "runc"
    assert (tmp_path / "calls").read_text() == "x\nx\n"


def test_none_works(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what was tried, and how to get one."""
    monkeypatch.delenv("MLBOX_RUNTIME", raising=False)
    found = {"runc": str(program(tmp_path, "runc", 1))}
    monkeypatch.setattr(oci_runtime, "find_program", found.get)
    with pytest.raises(ContainerError, match=r"runc does not run.*crun is not installed") as caught:
        find_runtime(home)
    assert "apt-get install" in (caught.value.hint or "")
    monkeypatch.setenv("MLBOX_RUNTIME", "/nowhere/runc")
    with pytest.raises(ContainerError, match="/nowhere/runc is not installed"):
        find_runtime(home)
