"""What a target accepts: its wheel tags and its marker environment, for any target on any host. Pure."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from mlbox.lock.model import Target
from mlbox.lock.python.model import SDISTS, File

if TYPE_CHECKING:
    from packaging.tags import Tag

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

# PEP 600: the older names of these glibc versions, and the oldest glibc that has wheels for the machine.
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_OLDEST = {"x86_64": 5, "aarch64": 17}


def platforms(target: Target) -> Iterator[str]:
    """Yield the platform tags of `target`, best first."""
    machine = MACHINES[target.arch]
    newest = int(target.glibc.split(".")[1])
    for minor in range(newest, _OLDEST[machine] - 1, -1):
        yield f"manylinux_2_{minor}_{machine}"
        if minor in _LEGACY:
            yield f"{_LEGACY[minor]}_{machine}"
    yield f"linux_{machine}"


@lru_cache(maxsize=8)
def target_tags(target: Target) -> "tuple[Tag, ...]":
    """Return every wheel tag that `target` accepts, best first."""
    from packaging.tags import compatible_tags, cpython_tags

    version = python_version(target)
    interpreter = f"cp{version[0]}{version[1]}"
    found = tuple(platforms(target))
    return (
        *cpython_tags(python_version=version, abis=[interpreter], platforms=found),
        *compatible_tags(python_version=version, interpreter=interpreter, platforms=found),
    )


def python_version(target: Target) -> tuple[int, int]:
    """Return (3, 11)."""
    major, minor = target.python.split(".")[:2]
    return int(major), int(minor)


def marker_environment(target: Target) -> dict[str, str]:
    """Return what PEP 508 markers are evaluated with."""
    return {
        "implementation_name": "cpython",
        "implementation_version": target.python_full,
        "os_name": "posix",
        "platform_machine": MACHINES[target.arch],
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": target.python_full,
        "python_version": target.python,
        "sys_platform": "linux",
    }


def best_file(files: Sequence[File], target: Target) -> File | None:
    """Return the one file to lock: the best wheel for `target`, else the sdist, else None."""
    wheels = [(rank, file.filename, file) for file in files if (rank := _rank(file.filename, target)) is not None]
    if wheels:
        return min(wheels)[2]
    sdists = sorted(
        (not file.filename.endswith(".tar.gz"), file.filename, file) for file in files if file.filename.endswith(SDISTS)
    )
    return sdists[0][2] if sdists else None


@lru_cache(maxsize=8)
def _ranks(target: Target) -> "dict[Tag, int]":
    return {tag: rank for rank, tag in reversed(list(enumerate(target_tags(target))))}


@lru_cache(maxsize=8)
def _accepted(target: Target) -> frozenset[str]:
    return frozenset(("any", *platforms(target)))


def _rank(filename: str, target: Target) -> tuple[int, int, str] | None:
    """Return a sort key (best first), None when `filename` is no wheel for `target`."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    if not filename.endswith(".whl"):
        return None
    # Most wheels are for other machines; the last part of the name says so for less than parsing it costs.
    if _accepted(target).isdisjoint(filename[:-4].rpartition("-")[2].split(".")):
        return None
    try:
        _, _, build, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    ranks = _ranks(target)
    found = [ranks[tag] for tag in tags if tag in ranks]
    if not found:
        return None
    number, text = build or (0, "")
    return min(found), -number, text
