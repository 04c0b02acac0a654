"""The CUDA compiler from wheels, put together as build systems expect a toolkit: one folder, CUDA_HOME."""

import os
import re
from pathlib import Path

_PARTS = ("bin", "include", "lib", "nvvm")
_SHARED = re.compile(r"(lib.+\.so)\.[0-9.]+")


def make_toolkit(packages: Path, folder: Path) -> bool:
    """Make `folder` a CUDA toolkit of the wheels in the site-packages `packages`; False when they have no nvcc.

    Files are hard links, so both must be on one file system, and nobody may write to them. CUDA 13's wheels share one
    folder (nvidia/cu13), older ones have one each; what two of them have is the first's. The linker wants libraries
    without a version, and PyTorch's extensions look into lib64: wheels have neither.
    """
    roots = sorted((packages / "nvidia").glob("*/")) if (packages / "nvidia").is_dir() else []
    if not any((root / "bin/nvcc").is_file() for root in roots):
        return False
    for root in roots:
        for part in _PARTS:
            _link_tree(root / part, folder / part)
    library = folder / "lib"
    library.mkdir(exist_ok=True)
    (folder / "lib64").symlink_to("lib")
    for name in sorted(os.listdir(library)):  # noqa: PTH208 - names only
        versioned = _SHARED.fullmatch(name)
        if versioned and not (library / versioned[1]).exists():
            (library / versioned[1]).symlink_to(name)
    return True


def _link_tree(source: Path, target: Path) -> None:
    for root, folders, files in os.walk(source):
        here = target / os.path.relpath(root, source)
        here.mkdir(parents=True, exist_ok=True)
        folders[:] = [name for name in folders if not (Path(root) / name).is_symlink()]
        for name in files:
            path = Path(root) / name
            if not path.is_symlink() and not (here / name).exists():
                os.link(path, here / name)
