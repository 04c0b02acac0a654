"""Podman in folders of its own, and CDI files where it looks for them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlbox.linux.mount import umount

CDI = Path("/etc/cdi")


@contextmanager
def podman(program: str) -> Iterator[list[str]]:
    """Yield the words of `podman run`; nothing of it is left afterwards."""
    short = tempfile.mkdtemp()  # podman takes no runroot of more than 50 characters
    folders = [f"--root={short}/root", f"--runroot={short}/run", f"--tmpdir={short}/tmp"]
    limits = ["--ulimit=nofile=1024", "--ulimit=nproc=1024"]
    try:
        yield [program, *folders, "--runtime=runc", "run", "--rm", "--network=none", *limits]
    finally:
        with suppress(OSError):
            umount(f"{short}/root/overlay")
        shutil.rmtree(short)


@contextmanager
def cdi_file(name: str, data: bytes) -> Iterator[Path]:
    """Have a CDI file in /etc/cdi for a while."""
    made = not CDI.exists()
    CDI.mkdir(exist_ok=True)
    path = CDI / name
    path.write_bytes(data)
    try:
        yield path
    finally:
        path.unlink()
        if made:
            with suppress(OSError):  # another test has a file there too
                CDI.rmdir()
