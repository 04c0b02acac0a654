"""A container's file systems: the overlay over its image, and the host's files it may see, owned as they should be."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from mlbox.errors import ContainerError
from mlbox.linux import mount
from mlbox.linux.process import CLONE_NEWNS, IDMap, unshare, user_namespace
from mlbox.runtime.options import BindMount
from mlbox.runtime.record import Account, Folder

_MAX_LAYERS = 500  # overlayfs' own limit
_MAX_OPTIONS = 4096
_PLAIN = ",redirect_dir=off,metacopy=off"
_OPAQUE = "trusted.overlay.opaque"
_MAX_FILE = 1 << 20
_LAST_ID = 0xFFFFFFFE


def enter_private_mounts() -> None:
    """Leave the host's mount namespace: what is mounted from now on ends with this process, however it ends.

    The host's later mounts still come in (slave), ours never go out.
    """
    unshare(CLONE_NEWNS)
    mount.mount("none", "/", flags=mount.MS_REC | mount.MS_SLAVE)


def mount_overlay(
    lower: Sequence[Path], upper: Path, work: Path, target: Path, *, volatile: bool, plain: bool = False
) -> None:
    """Mount the union of `lower` (lowest first) at `target`, writing to `upper`.

    With `plain`, `upper` is what layers can say: kernels may be set to keep renamed folders as references, and
    files without their content. `volatile` skips every sync: right when `upper` is thrown away. All folders are
    named by descriptor, so that sixty long paths, or one with a colon, fit the one page of options that the kernel
    takes.
    """
    if not 1 <= len(lower) <= _MAX_LAYERS:
        raise ContainerError(f"an image of {len(lower)} layers cannot be mounted (1 to {_MAX_LAYERS})")
    fds: list[int] = []
    try:
        for path in (upper, work, *_shown(lower)):
            fds.append(_folder(path))
        _mount_overlay(fds, target, (",volatile" if volatile else "") + (_PLAIN if plain else ""))
    except OSError as problem:
        raise ContainerError(
            f"cannot mount the root file system: {problem.strerror}",
            hint="the store must lie on a file system that overlayfs can write to (ext4, xfs, btrfs, tmpfs)",
        ) from problem
    finally:
        for fd in fds:
            os.close(fd)


def _mount_overlay(fds: list[int], target: Path, more: str) -> None:
    options = _overlay_options("/proc/self/fd/", fds) + more
    if len(options) < _MAX_OPTIONS:
        mount.mount("overlay", str(target), "overlay", data=options)
        return
    there = str(target.absolute())
    here = _folder(Path())  # shorter names, for the hundreds of layers that nobody should have
    try:
        os.chdir("/proc/self/fd")
        mount.mount("overlay", there, "overlay", data=_overlay_options("", fds) + more)
    finally:
        os.fchdir(here)
        os.close(here)


def _overlay_options(prefix: str, fds: list[int]) -> str:
    upper, work, *lower = (f"{prefix}{fd}" for fd in fds)
    return f"upperdir={upper},workdir={work},lowerdir={':'.join(lower)}"


def _shown(lower: Sequence[Path]) -> Iterator[Path]:
    """Yield the layers from the highest down to the first whose root hides all below it, which overlayfs overlooks.

    A layer that comes twice (docker's images often have empty ones) counts where it is highest: overlayfs refuses to
    stack it twice, and whatever the lower one adds or hides, the higher one adds or hides again.
    """
    for path in dict.fromkeys(reversed(lower)):
        yield path
        with suppress(OSError):
            if os.getxattr(path, _OPAQUE) == b"y":
                return


def unmount(target: Path) -> None:
    """Unmount `target` and what is mounted below it, at once where that is possible; nothing there is fine."""
    try:
        mount.umount(str(target))
    except OSError:
        with suppress(OSError):
            mount.umount(str(target), mount.MNT_DETACH)


def read_in(root: Path, path: str) -> bytes:
    """Return a small file of a container's root, b"" when there is none; its links are followed inside only."""
    try:
        fd = mount.open_in_root(str(root), path)
    except OSError:
        return b""
    try:
        return os.read(fd, _MAX_FILE) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)


def owner_of(source: str, caller: Account | None) -> Account:
    """Return who files written to `source` should belong to: who called through sudo, else the source's owner."""
    if caller is not None:
        return caller
    found = os.stat(source)  # noqa: PTH116
    return (found.st_uid, found.st_gid)


def swap(inside: int, outside: int) -> IDMap:
    """Return the map in which two ids change places and every other stays: no file becomes unreachable."""
    low, high = sorted((inside, outside))
    if low == high:
        return [(0, 0, _LAST_ID + 1)]
    lines = [
        (0, 0, low),
        (low, high, 1),
        (low + 1, low + 1, high - low - 1),
        (high, low, 1),
        (high + 1, high + 1, _LAST_ID - high),
    ]
    return [line for line in lines if line[2] > 0]


class Bind:
    """A folder or file of the host, taken as it is before the container mounts anything itself."""

    def __init__(self, mount_: BindMount, spot: Path) -> None:
        """Take hold of the source; raises FileNotFoundError when it is gone."""
        self.mount = mount_
        self.warning = ""
        self._spot = spot
        self._tree = mount.open_tree(mount_.source)

    def settle(self, account: Account, caller: Account | None) -> BindMount:
        """Return the mount for a program that runs as `account`: its files are its owner's on the host.

        The source is mounted at `spot` with mapped owners when that is needed. It is not when the numbers are equal
        already, nor when that owner is root: what another user of a container writes must not become root's. A
        read-only mount is mounted there too, with all that is mounted below it read-only. Where the kernel or the
        file system cannot do either, `warning` says so.
        """
        try:
            mapped = self._map(account, owner_of(self.mount.source, caller))
            sealed = self.mount.readonly and self._seal()
            return self._placed() if mapped or sealed else self.mount
        finally:
            os.close(self._tree)

    def _map(self, account: Account, owner: Account) -> bool:
        """Map the owners when that is needed; whether it was done."""
        if self.mount.owner == "keep" or owner[0] in (0, account[0]):
            return False
        try:
            userns = user_namespace(swap(account[0], owner[0]), swap(account[1], owner[1]))
            try:
                self._idmap(userns)
            finally:
                os.close(userns)
        except OSError as problem:
            self.warning = f"{self.mount.source}: new files belong to the container's user ({problem.strerror})"
            return False
        return True

    def _seal(self) -> bool:
        """Make everything below read-only, where the runtime itself would reach the top only."""
        try:
            mount.make_readonly(self._tree)
        except OSError as problem:
            self.warning = f"{self.mount.source}: what is mounted below it stays writable ({problem.strerror})"
            return False
        return True

    def _placed(self) -> BindMount:
        _placeholder(self.mount.source, self._spot)
        mount.move_mount(self._tree, str(self._spot))
        return msgspec.structs.replace(self.mount, source=str(self._spot))

    def _idmap(self, userns: int) -> None:
        try:
            mount.idmap(self._tree, userns, recursive=True)
        except OSError:
            mount.idmap(self._tree, userns, recursive=False)
            self.warning = f"{self.mount.source}: new files in what is mounted below it belong to the container's user"


def remove_container(folder: Folder, name: str) -> None:
    """Remove a container that does not run: first its name, then its files."""
    link = folder.path.parent / "names" / name
    with suppress(OSError):
        if os.readlink(link) == folder.path.name:  # noqa: PTH115
            link.unlink()
    remove_tree(folder.path)


def remove_tree(path: Path) -> None:
    """Remove a folder that a container wrote in: follows no link, needs no stack however deep it is.

    A folder that is not empty is moved up beside the others first, so two descriptors are enough. The kernel moves
    nothing that is mounted on (EBUSY), so what is mounted somewhere in there is never entered.
    """
    try:
        top = _folder(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    moved, token = 0, os.urandom(8).hex()  # a name that nothing in the tree can have guessed
    try:
        pending = [""]
        while pending:
            name = pending.pop()
            for child in _empty(top, name):
                moved += 1
                fresh = f".{token}-{moved}"
                _rename(top, f"{name}/{child}" if name else child, fresh)
                pending.append(fresh)
            if name:
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    path.rmdir()


def _empty(top: int, name: str) -> list[str]:
    """Remove from the folder `name` what is no folder, or an empty one; return the folders that are left."""
    left = []
    here = os.open(name or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        with os.scandir(here) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_folder in found:
            if not is_folder:
                os.unlink(child, dir_fd=here)
            else:
                try:
                    os.rmdir(child, dir_fd=here)
                except OSError:
                    left.append(child)
    finally:
        os.close(here)
    return left


def _rename(top: int, source: str, target: str) -> None:
    os.rename(source, target, src_dir_fd=top, dst_dir_fd=top)


def _placeholder(source: str, spot: Path) -> None:
    spot.parent.mkdir(exist_ok=True)
    if Path(source).is_dir():
        spot.mkdir(exist_ok=True)
    else:
        spot.touch()


def _folder(path: Path, flags: int = os.O_PATH) -> int:
    return os.open(path, flags | os.O_DIRECTORY | os.O_CLOEXEC)
