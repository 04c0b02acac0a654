"""Which machines run which images."""

import os
from pathlib import Path
from typing import Literal

_BINFMT = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}


def host_arch() -> Literal["amd64", "arm64"]:
    """Return this machine's architecture in Debian's and OCI's words."""
    return "arm64" if os.uname().machine in ("aarch64", "arm64") else "amd64"


def runs_here(arch: str, binfmt: Path = Path("/proc/sys/fs/binfmt_misc")) -> bool:
    """Whether programs for `arch` run on this machine, itself or through an emulator the kernel was told of.

    An image that does not say what it is for is tried, as Docker does.
    """
    return arch in ("", host_arch()) or (binfmt / _BINFMT.get(arch, "none")).exists()
