"""What of NVIDIA's driver a container gets: libraries under the names they are asked for, programs, files, sockets."""

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import msgspec

from mlbox import resources
from mlbox.codec import load_toml
from mlbox.elf import read_soname
from mlbox.errors import MlboxError, UsageError
from mlbox.gpu.inventory import LIBRARY_FOLDERS
from mlbox.gpu.model import NAMED_CAPABILITIES, Roots, Version
from mlbox.loader import MACHINES

DEFAULT_CAPABILITIES = ("compute", "utility")
_PROGRAM_FOLDERS = ("usr/bin", "usr/sbin", "usr/lib/nvidia/current", "bin", "sbin")
_COMPAT32 = "compat32"
_LINKED = {
    "libcuda": "libcuda.so",
    "libnvidia-opticalflow": "libnvidia-opticalflow.so",
    "libnvidia-vulkan-producer": "libnvidia-vulkan-producer.so",
    "libGLX_nvidia": "libGLX_indirect.so.0",
}
"""Libraries that programs also open by a name that is neither the file's nor the soname."""


class Capability(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """A row of gpu/libraries.toml."""

    implies: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    any_version: tuple[str, ...] = ()
    vdpau: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    direct_rendering: bool = False
    modeset: bool = False


class DriverLibrary(msgspec.Struct, frozen=True, kw_only=True):
    """A library of the driver: the file on the host, and the names it has in a container."""

    path: str
    names: tuple[str, ...]


class DriverFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What is mounted into a container; every path is one of the host, with all links resolved."""

    libraries: tuple[DriverLibrary, ...]
    programs: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    """The host's path, and the path in the container."""
    sockets: tuple[str, ...]


@cache
def capability_table() -> dict[str, Capability]:
    """Return the rows of gpu/libraries.toml by capability."""
    path = resources.folder("gpu") / "libraries.toml"
    document = load_toml(path.read_bytes(), what=str(path))
    try:
        return {name: msgspec.convert(row, Capability) for name, row in document.items() if name != "source"}
    except msgspec.ValidationError as problem:
        raise MlboxError(f"{path}: {problem}") from problem


def parse_capabilities(text: str) -> tuple[str, ...]:
    """Return the capabilities that 'compute,utility' or 'all' names, with those they imply; raises UsageError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if _COMPAT32 in names:
        raise UsageError(
            f"{_COMPAT32}: the driver's libraries for programs of 32 bits are not given", hint="leave it out"
        )
    if "all" in names:
        names = list(capability_table())
    if unknown := [name for name in names if name not in NAMED_CAPABILITIES]:
        raise UsageError(
            f"not a GPU capability: {unknown[0][:40]!r}", hint=f"known are {', '.join(NAMED_CAPABILITIES)} and all"
        )
    return tuple(dict.fromkeys(_closed(names or DEFAULT_CAPABILITIES)))


def without_compat32(text: str) -> str:
    """Return what an image asks for without that: it is for NVIDIA's runtime, and runs without it here."""
    return ",".join(name for name in text.split(",") if name.strip() != _COMPAT32)


def _closed(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield name
        yield from _closed(capability_table()[name].implies)


def driver_files(version: Version, capabilities: Iterable[str], arch: str, roots: Roots) -> DriverFiles:
    """Return what of the driver `version` a container with these capabilities gets, as far as it is there."""
    rows = [capability_table()[name] for name in capabilities]
    return DriverFiles(
        libraries=tuple({one.path: one for one in _libraries(rows, version, arch, roots)}.values()),
        programs=tuple(_programs(rows, roots)),
        files=tuple(dict.fromkeys(_files(rows, version, roots))),
        sockets=tuple(path for row in rows for path in row.sockets if Path(roots.driver, path[1:]).exists()),
    )


def _libraries(rows: Iterable[Capability], version: Version, arch: str, roots: Roots) -> Iterator[DriverLibrary]:
    for row in rows:
        patterns = [f"lib{stem}.so.{version}" for stem in row.libraries]
        # Debian moves these to the other libraries; elsewhere they have a folder of their own.
        patterns += [f"{folder}lib{stem}.so.{version}" for stem in row.vdpau for folder in ("vdpau/", "")]
        patterns += [f"lib{stem}.so.*" for stem in row.any_version]
        for pattern in patterns:
            if (found := _find(pattern, arch, roots)) is not None:
                yield found


def _find(pattern: str, arch: str, roots: Roots) -> DriverLibrary | None:
    """Return the first library for `arch` that fits; folders for 32 bits have libraries of the same name."""
    for folder in LIBRARY_FOLDERS:
        for path in sorted(Path(roots.driver, folder).glob(pattern), reverse=True):
            real = path.resolve()
            soname = read_soname(real, MACHINES[arch][0])
            if soname is not None:
                stem = real.name.partition(".so")[0]
                names = dict.fromkeys(filter(None, (real.name, soname, _LINKED.get(stem))))
                return DriverLibrary(path=str(real), names=tuple(names))
    return None


def _programs(rows: Iterable[Capability], roots: Roots) -> Iterator[str]:
    for row in rows:
        for name in row.programs:
            places = (Path(roots.driver, folder, name) for folder in _PROGRAM_FOLDERS)
            if (found := next((place for place in places if place.is_file()), None)) is not None:
                yield str(found.resolve())


def _files(rows: Iterable[Capability], version: Version, roots: Roots) -> Iterator[tuple[str, str]]:
    root = Path(roots.driver)
    for row in rows:
        for pattern in row.files:
            for place in sorted(root.glob(pattern[1:].format(version=version))):
                if place.is_file():
                    yield str(place.resolve()), f"/{place.relative_to(root)}"
