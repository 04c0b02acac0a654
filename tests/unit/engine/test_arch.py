"""Which machines run which images."""

from pathlib import Path

from mlbox.engine.arch import host_arch, runs_here


def test_foreign_programs_run_only_through_an_emulator(tmp_path: Path) -> None:
    """Our own architecture always, another one when the kernel knows an emulator for it."""
    foreign = "arm64" if host_arch() == "amd64" else "amd64"

    assert runs_here(host_arch(), tmp_path)
    assert not runs_here(foreign, tmp_path)
    (tmp_path / ("qemu-aarch64" if foreign == "arm64" else "qemu-x86_64")).touch()
    assert runs_here(foreign, tmp_path)
    assert not runs_here("riscv64", tmp_path)
    assert runs_here("", tmp_path)
