"""What all writers share: no value of a lock may become more than the one word it stands for."""

import re
from collections.abc import Callable, Iterator

from mlbox.errors import LockError
from mlbox.lock.model import CondaPackage, Folder, Lock, Package
from mlbox.project.requirement import without_credentials

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""What Python and conda call the machines."""

Address = Callable[[Package | CondaPackage], str]
"""Where a file is: what a lock does not know, and the machine that exports may."""

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_ADDRESS = re.compile(r"[^\s\x00-\x1f\x7f\\'\"]+")


def header(lock: Lock) -> tuple[str, ...]:
    """Return what a file says of itself, for the format's comments."""
    target = lock.target
    accelerator = f", {one_line(target.accelerator)}" if target.accelerator != "cpu" else ""
    return (
        "Made by 'mlbox export' from mlbox.lock; do not edit.",
        f"For Python {target.python} on linux/{target.arch}{accelerator}.",
    )


def without_conda(lock: Lock) -> tuple[str, ...]:
    """Return what a format for wheels alone says of a lock with conda packages."""
    left = f"Not here: {len(lock.conda)} conda packages; the formats environment.yml and conda-lock have them."
    return (left,) if lock.conda else ()


def not_everywhere(lock: Lock) -> Iterator[str]:
    """Yield what the default index does not have, for formats that name no index; and what pip takes no hash for."""
    by_index: dict[str, list[str]] = {}
    for package in lock.packages:
        by_index.setdefault(package.index, []).append(one_line(package.name))
    of_repositories = by_index.pop("git", [])
    for index in sorted(by_index.keys() - {"default", "direct"}):
        yield f"From {one_line(index)}, not from the default index: {', '.join(by_index[index])}."
    if of_repositories and len(of_repositories) < len(lock.packages):
        yield f"uv takes packages of a repository beside hashes, pip does not: {', '.join(of_repositories)}."


def version(package: Package) -> str:
    """Return the version of `package` when it is one; LockError for anything that a reader could take for more."""
    if not _VERSION.fullmatch(package.version):
        raise LockError(f"package {package.name!r}: {package.version!r} is no version")
    return package.version


def without_folders(lock: Lock) -> tuple[str, ...]:
    """Return what a format says of the project's folders when pip, which reads it, takes none beside hashes."""
    paths = " ".join(f"-e {place(folder)}" for folder in lock.folders)
    return (f"Not here: 'pip install --no-deps {paths}' installs the project's folders.",) if paths else ()


def place(folder: Folder, root: str = "./") -> str:
    """Return the path of a folder of the project, which lies in `root`; LockError when it is more than one word."""
    if not _ADDRESS.fullmatch(folder.path):
        raise LockError(
            f"folder {folder.name!r}: {folder.path!r} cannot be written as one word",
            hint="rename it: no spaces, quotes or control characters",
        )
    return root + folder.path


def address(text: str, package: Package) -> str:
    """Return an address or path of `package` without credentials; LockError when it is more than one word."""
    if not _ADDRESS.fullmatch(text):
        raise LockError(
            f"package {package.name!r}: {text!r} cannot be written as one word",
            hint="addresses hold no spaces, quotes or control characters: write them percent-encoded and lock again",
        )
    return without_credentials(text)


def one_line(text: str) -> str:
    """Return `text` for a comment: whatever could end the line is shown, not obeyed."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
