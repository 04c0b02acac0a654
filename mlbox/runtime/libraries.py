"""Libraries of the host for the loader in a container: its cache says where they are, whatever the image is."""

import os
from collections.abc import Callable, Sequence

from mlbox.cdi import CdiMount, ContainerEdits
from mlbox.errors import ArchiveError
from mlbox.loader import Library, with_libraries
from mlbox.runtime import rootfs
from mlbox.runtime.record import Folder

_CACHE = "/etc/ld.so.cache"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MUSL = "/etc/ld-musl-{}.path"
_MUSL_DEFAULT = "/lib:/usr/local/lib:/usr/lib"
"""Where musl's loader looks when the file is not there (musl, ldso/dynlink.c)."""


def loader_mount(folder: Folder, libraries: Sequence[Library], warn: Callable[[str], None]) -> ContainerEdits:
    """Return the mount of a loader's cache that has the image's lines and `libraries`; with musl, also its path file.

    The container's root must be mounted. An image without a cache, as distroless ones are, gets one.
    """
    machine = os.uname().machine
    musl = bool(rootfs.read_in(folder.rootfs, f"/lib/ld-musl-{machine}.so.1"))
    edits = _musl(folder, libraries, machine) if musl else ContainerEdits()
    arch = _ARCHITECTURES[machine]
    cache = rootfs.read_in(folder.rootfs, _CACHE)
    try:
        data = with_libraries(cache, libraries, arch)
    except ArchiveError as problem:
        warn(f"the image's {_CACHE} is damaged and was replaced: {problem.message}")
        data = with_libraries(b"", libraries, arch)
    return edits + _mount(folder, "ld.so.cache", data, _CACHE)  # an image may have both loaders


def _musl(folder: Folder, libraries: Sequence[Library], machine: str) -> ContainerEdits:
    path = _MUSL.format(machine)
    known = rootfs.read_in(folder.rootfs, path).decode("utf-8", "replace").replace("\n", ":").strip(":")
    folders = dict.fromkeys(library.path.rpartition("/")[0] for library in libraries)
    return _mount(folder, "ld-musl.path", ":".join((known or _MUSL_DEFAULT, *folders)).encode() + b"\n", path)


def _mount(folder: Folder, name: str, data: bytes, target: str) -> ContainerEdits:
    folder.write(name, data)
    os.chmod(folder.path / name, 0o644)  # noqa: PTH101 - the container's users read it
    mount = CdiMount(
        host_path=str(folder.path / name), container_path=target, options=("bind", "ro", "nosuid", "nodev", "noexec")
    )
    return ContainerEdits(mounts=(mount,))
