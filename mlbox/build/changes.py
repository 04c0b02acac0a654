"""What a command changed in a root file system, as a layer: normalised, so that two runs differ only where it matters.

What says when and where it ran stays out or is made the same: times, logs, the package managers' lists and locks,
machine ids, temporary files, times inside byte code, the loader's cache. Owners stay; setuid and setgid bits go, as
those of packages do (containers get no new privileges anyway).
"""

import errno
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from mlbox.build import ldcache
from mlbox.build.union import Union
from mlbox.errors import BuildError
from mlbox.loader import cache_bytes
from mlbox.lock.model import Arch
from mlbox.oci.layer import Entry, encoded, parents, sort_entries
from mlbox.store.tree import Tree, below

Trees = Sequence[tuple[Path, Tree]]

# What a run leaves that says nothing of what it was for. Folders stay: programs want their /var/log/NAME.
_TRACES = re.compile(
    r"(?:tmp|var/tmp|run|dev|proc|sys|var/log|var/cache/(?:apt|ldconfig|man|debconf)|var/lib/apt/lists)/.*"
    r"|etc/(?:machine-id|hostname|hosts|resolv\.conf|mtab)|var/lib/dbus/machine-id|\.dockerenv"
    r"|var/lib/dpkg/(?:[^/]*-old|lock[^/]*|triggers/Lock)|var/lib/dnf/history\.sqlite[^/]*"
    r"|root/\.(?:bash_history|python_history|wget-hsts|lesshst)|root/\.cache/pip/.*"
)
_MOUNTED = re.compile(r"(?:dev|proc|sys|run|tmp)(?:/.*)?")
"""Where the container has file systems of its own: folders made there are for mounting."""
_CACHE = "etc/ld.so.cache"
_OPAQUE, _OPAQUE_MARK = "trusted.overlay.opaque", ".wh..wh..opq"
_REDIRECT = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
_WHITEOUT = ".wh."
_HOLES = 1 << 30
"""Bytes that a file may pretend to have: a layer holds each of them."""
_MOST = 1_000_000
TELLING = 6
"""Bytes of a secret: a shorter one may be anywhere by chance."""
_PYC = 16
"""Bytes of the header of byte code."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """The entries of the layer, whose files lie below `root`, and what of the run is not in it."""

    root: Path
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    def locate(self, entry: Entry) -> str:
        """Return where the content of a file lies."""
        return below(self.root)(entry)


class Found(msgspec.Struct, kw_only=True):
    """One entry of an upper folder."""

    entry: Entry
    opaque: bool = False
    special: str = ""
    """What it is, when that has no place in a layer."""


def read_changes(
    upper: Path, lower: Trees, *, epoch: int, arch: Arch, mounts: Collection[str] = (), secrets: Mapping[str, str] = {}
) -> Changes:
    """Return what `upper` changes in the layers `lower` (lowest first); files in `upper` are normalised on the way.

    `mounts` are the paths (no leading slash) that the container saw from elsewhere. Raises BuildError for what has no
    place in a layer, and for a file with the value of one of `secrets` (by name).
    """
    under = Union.of_layers(lower)
    found = {one.entry.path: one for one in _walk(upper, epoch)}
    _refuse_devices(found)
    kept = {path for path, one in found.items() if _counts(one, under, upper, mounts)}
    kept |= parents(kept) & found.keys()
    _check_secrets(upper, (found[path].entry for path in kept), secrets)
    for path in kept:
        if path.endswith(".pyc"):
            _settle_time(upper / path, found[path].entry, epoch)
    if _CACHE in kept and found[_CACHE].entry.kind == "file":
        _settle_cache(upper, lower, {path: found[path] for path in kept}, arch)
    entries = [entry for path in kept for entry in _members(found[path], under)]
    return Changes(root=upper, entries=sort_entries(entries), notes=tuple(_notes(found, kept)))


def _refuse_devices(found: Mapping[str, Found]) -> None:
    for path, one in sorted(found.items()):
        if one.special == "device" and not _TRACES.fullmatch(path):
            raise BuildError(f"the command made the device /{path}, which has no place in a layer")


def _walk(upper: Path, epoch: int) -> Iterator[Found]:
    """Yield everything below `upper`; no link is followed."""
    waiting, count = [""], 0
    try:
        while waiting:
            folder = waiting.pop()
            with os.scandir(upper / folder) as listed:
                for item in listed:
                    one = _found(item, f"{folder}/{item.name}" if folder else item.name, epoch)
                    if one.entry.kind == "dir":
                        waiting.append(one.entry.path)
                    count += 1
                    yield one
            if count > _MOST:
                raise BuildError(f"the command made more than {_MOST} files")
    except OSError as problem:
        if problem.errno == errno.ENAMETOOLONG:
            raise BuildError(f"the command made folders deeper than a path can say: /{folder[:200]}…") from problem
        raise


def _found(item: "os.DirEntry[str]", path: str, epoch: int) -> Found:
    status = item.stat(follow_symlinks=False)
    mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    if item.name.startswith(_WHITEOUT):
        raise BuildError(f"the command made /{path}: a name that means a deletion in layers")
    if stat.S_ISDIR(status.st_mode):
        names = os.listxattr(item.path, follow_symlinks=False)
        if any(name in names for name in _REDIRECT):
            raise BuildError(f"the kernel keeps /{path} as a renamed folder, which no layer can say")
        opaque = _OPAQUE in names and os.getxattr(item.path, _OPAQUE, follow_symlinks=False) == b"y"
        return Found(entry=Entry(path, "dir", mode & 0o1777, epoch, 0, "", *owner), opaque=opaque)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(item.path)  # noqa: PTH115 - as the others here
        return Found(entry=Entry(path, "symlink", 0o777, epoch, 0, target, *owner))
    if stat.S_ISREG(status.st_mode):
        if status.st_size > status.st_blocks * 512 + _HOLES:
            raise BuildError(
                f"the command made /{path}, which says it has {status.st_size} bytes and is mostly holes",
                hint="a layer holds every byte of a file: make it when a container runs",
            )
        setuid = "setuid or setgid" if mode & 0o6000 else ""
        return Found(entry=Entry(path, "file", mode & 0o777, epoch, status.st_size, "", *owner), special=setuid)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return Found(entry=Entry(path, "whiteout", 0, epoch))
    kind = "socket" if stat.S_ISSOCK(status.st_mode) else "pipe" if stat.S_ISFIFO(status.st_mode) else "device"
    return Found(entry=Entry(path, "fifo", 0, epoch), special=kind)


def _counts(one: Found, under: Union, upper: Path, mounts: Collection[str]) -> bool:
    """Whether the layer says this of its own accord, not only as a folder above something."""
    entry, before = one.entry, under.entry(one.entry.path)
    if entry.kind == "whiteout":
        return before is not None
    if entry.kind == "fifo" or entry.path in mounts:
        return False
    if entry.kind == "dir":
        if before is None:
            return not _MOUNTED.fullmatch(entry.path) and not any(path.startswith(f"{entry.path}/") for path in mounts)
        return before.kind != "dir" or one.opaque or _said(entry) != _said(before)
    return not _TRACES.fullmatch(entry.path) and not _is_same(entry, before, under, upper)


def _said(entry: Entry) -> tuple[int, int, int]:
    return entry.mode & 0o1777, entry.uid, entry.gid


def _is_same(entry: Entry, before: Entry | None, under: Union, upper: Path) -> bool:
    """Whether what is there was there before: opening a file for writing is enough to have it copied."""
    if before is None or before.kind != entry.kind:
        return False
    if entry.kind == "symlink":
        return (entry.target, entry.uid, entry.gid) == (before.target, before.uid, before.gid)
    there = under.on_disk(entry.path)
    if _said(entry) != _said(before) or entry.size != before.size or there is None:
        return False
    with (upper / entry.path).open("rb") as one, there.open("rb") as other:
        while chunk := one.read(1 << 20):
            if other.read(len(chunk)) != chunk:
                return False
    return True


def _settle_time(path: Path, entry: Entry, epoch: int) -> None:
    """Write the time that every source has in the image into byte code that knows its source by time (PEP 552)."""
    if entry.kind != "file" or entry.size < _PYC:
        return
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.pread(fd, 4, 4) == bytes(4):
            os.pwrite(fd, (epoch & 0xFFFFFFFF).to_bytes(4, "little"), 8)
    finally:
        os.close(fd)


def _settle_cache(upper: Path, lower: Trees, kept: Mapping[str, Found], arch: Arch) -> None:
    """Write the loader's cache as it is written for packages, of what the image then has."""
    tree = Tree(entries=sort_entries(one.entry for one in kept.values()))
    data = cache_bytes(ldcache.libraries(Union.of_layers([*lower, (upper, tree)]), arch), arch)
    (upper / _CACHE).write_bytes(data)
    kept[_CACHE].entry = msgspec.structs.replace(kept[_CACHE].entry, size=len(data))


def _members(one: Found, under: Union) -> Iterator[Entry]:
    """Yield what the layer has of it; deletions are files with special names (image-spec, layer.md)."""
    entry = one.entry
    folder, _, name = entry.path.rpartition("/")
    if entry.kind == "whiteout":
        yield Entry(f"{folder}/{_WHITEOUT}{name}".lstrip("/"), "file", 0o644, entry.mtime)
        return
    yield entry
    before = under.entry(entry.path)
    if one.opaque and before is not None and before.kind == "dir":
        yield Entry(f"{entry.path}/{_OPAQUE_MARK}", "file", 0o644, entry.mtime)


def _check_secrets(upper: Path, entries: Iterator[Entry], secrets: Mapping[str, str]) -> None:
    stripped = {name: encoded(value.strip()) for name, value in secrets.items()}
    values = {name: value for name, value in stripped.items() if len(value) >= TELLING}
    if not values:
        return
    longest = max(map(len, values.values()))
    for entry in entries:
        content = _windows(upper / entry.path, longest) if entry.kind == "file" else (encoded(entry.target),)
        for data in (encoded(entry.path), *content):
            if name := next((name for name, value in values.items() if value in data), ""):
                path = entry.path.replace(secrets[name].strip(), f"[{name}]")
                raise BuildError(
                    f"the command wrote the secret {name} into /{path}, and so into the image",
                    hint="read it from its file where it is needed, and remove what keeps it, like a credential store",
                )


def _windows(path: Path, longest: int) -> Iterator[bytes]:
    """Yield the content of a file in pieces that overlap by `longest`."""
    before = b""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield before + chunk
            before = (before + chunk)[-longest:]


def _notes(found: Mapping[str, Found], kept: Collection[str]) -> Iterator[str]:
    for special, what in (
        ("setuid or setgid", "lost their setuid and setgid bits"),
        ("socket", "are sockets and left out"),
        ("pipe", "are pipes and left out"),
    ):
        paths = sorted(
            f"/{path}"
            for path, one in found.items()
            if one.special == special and (path in kept or one.entry.kind == "fifo") and not _TRACES.fullmatch(path)
        )
        if paths:
            yield f"{', '.join(paths[:5])}{' and more' if len(paths) > 5 else ''} {what}"
