"""Where a tree on the disk is not what it should be: which file, of which piece, from which byte on."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Literal

import msgspec

from mlbox.files import CHUNK
from mlbox.oci.layer import Entry, Kind
from mlbox.plan.model import ProjectPiece
from mlbox.store.store import Store
from mlbox.store.tree import below

_SHOWN = 8
_KINDS: Mapping[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing in which a file is not what it should be."""

    path: str
    what: Literal[
        "content", "size", "mode", "owner", "attributes", "time", "target", "kind", "missing", "extra", "unreadable"
    ]
    expected: str = ""
    """As it should be; of 'content' the bytes (hex) from `offset` on."""
    found: str = ""
    offset: int = -1
    """Of 'content' and 'size': the first byte that differs, counted from 0; else -1."""
    piece: str = ""
    """The package it belongs to: 'numpy 2.4.1'; empty for what nothing should have made."""


def compare_trees(
    expected: Sequence[Entry], root: Path, found_root: Path, piece_of: Callable[[str], str] = lambda path: ""
) -> Iterator[Difference]:
    """Yield how the tree at `found_root` differs from the tree of `expected` at `root`, in order of path."""
    found = scan_tree(found_root)
    wanted = {entry.path: entry for entry in expected}
    for path in sorted(wanted.keys() | found.keys()):
        entry, other = wanted.get(path), found.get(path)
        piece = piece_of(path)
        if entry is None:
            yield Difference(path=path, what="extra", found=_kind(other) if other else "")
        elif other is None:
            yield Difference(path=path, what="missing", expected=entry.kind, piece=piece)
        else:
            yield from (
                msgspec.structs.replace(one, piece=piece)
                for one in (*_differences(entry, other, root, found_root), *_attributes(path, found_root))
            )


def compare_hashes(piece: ProjectPiece, root: Path) -> Iterator[Difference]:
    """Yield which of the project's files below `root` are not those of the plan, which has only their hashes."""
    found = scan_tree(root)
    for file in piece.files:
        path = f"{piece.workdir.strip('/')}/{file.path}"
        entry = found.get(path)
        wanted = Entry(path, "symlink" if file.target else "file", file.mode, piece.epoch, file.size, file.target)
        if entry is None:
            yield Difference(path=path, what="missing", expected=wanted.kind, piece="project files")
        elif entry.kind != "file" or file.target:
            yield from (
                msgspec.structs.replace(d, piece="project files") for d in _differences(wanted, entry, root, root)
            )
        elif (sha256 := _sha256(root, entry)) != file.sha256:
            yield Difference(
                path=path,
                what="content",
                expected=f"sha256 {file.sha256[:16]}",
                found=f"sha256 {sha256[:16]}",
                piece="project files",
            )


def scan_tree(root: Path) -> dict[str, Entry]:
    """Return what lies below `root` now, by path; who owns the folder of `root` stands for the owner of it all."""
    found: dict[str, Entry] = {}
    status = root.parent.stat()
    owner = (status.st_uid, status.st_gid)
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            with os.scandir(f"{root}/{prefix}") as items:
                for item in items:
                    entry = _entry(prefix + item.name, item, owner)
                    found[entry.path] = entry
                    if entry.kind == "dir":
                        folders.append(f"{entry.path}/")
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def piece_labels(store: Store, keys: Iterable[str]) -> Callable[[str], str]:
    """Return what says which of these pieces a path of their union is from; the later one has it."""
    labels: dict[str, str] = {}
    for key in keys:
        if piece := store.pieces.get(key):
            labels.update((entry.path, piece.label) for entry in piece.tree.entries if entry.kind != "dir")
    return lambda path: labels.get(path, "")


def _entry(path: str, item: "os.DirEntry[str]", owner: tuple[int, int]) -> Entry:
    status = item.stat(follow_symlinks=False)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return Entry(path, "file", -1)  # a device or socket, whose kind no mode of a layer has
    target = os.readlink(item.path) if kind == "symlink" else ""  # noqa: PTH115 - hot path
    size = status.st_size if kind == "file" else 0
    mode = 0o777 if kind == "symlink" else stat.S_IMODE(status.st_mode)
    uid, gid = (0, 0) if (status.st_uid, status.st_gid) == owner else (status.st_uid, status.st_gid)
    return Entry(path, kind, mode, int(status.st_mtime), size, target, uid, gid)


def _kind(entry: Entry) -> str:
    return "device" if entry.mode == -1 else entry.kind


def _attributes(path: str, root: Path) -> Iterator[Difference]:
    """Yield what a file says in extended attributes: layers that mlbox makes have none, and some give privileges.

    Those of a security module are the host's.
    """
    try:
        names = os.listxattr(root / path, follow_symlinks=False)
    except OSError:  # a file system without them
        return
    if found := sorted(name for name in names if name == "security.capability" or name.startswith("user.")):
        yield Difference(path=path, what="attributes", expected="none", found=", ".join(found))


def _differences(entry: Entry, other: Entry, root: Path, found_root: Path) -> Iterator[Difference]:
    path = entry.path
    if other.mode == -1 or entry.kind != other.kind:
        yield Difference(path=path, what="kind", expected=entry.kind, found=_kind(other))
        return
    if entry.target != other.target:
        yield Difference(path=path, what="target", expected=entry.target, found=other.target)
    if entry.mode != other.mode:
        yield Difference(path=path, what="mode", expected=f"{entry.mode:o}", found=f"{other.mode:o}")
    if (entry.uid, entry.gid) != (other.uid, other.gid):
        owners = (f"{one.uid}:{one.gid}" for one in (entry, other))
        yield Difference(path=path, what="owner", expected=next(owners), found=next(owners))
    if entry.mtime != other.mtime:
        yield Difference(path=path, what="time", expected=str(entry.mtime), found=str(other.mtime))
    if entry.kind == "file" and (difference := _content(entry, other, root, found_root)):
        yield difference


def _content(entry: Entry, other: Entry, root: Path, found_root: Path) -> Difference | None:
    """Return the first bytes in which the file differs from the one it should be."""
    done = 0
    try:
        one, two = (_open(where, entry) for where in (root, found_root))
        with one, two:
            while True:
                expected, found = one.read(CHUNK), two.read(CHUNK)
                if expected != found:
                    break
                if not expected:
                    return None
                done += len(expected)
    except OSError as problem:
        return Difference(path=entry.path, what="unreadable", found=problem.strerror or "")
    at = next(
        (i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), min(len(expected), len(found))
    )
    return Difference(
        path=entry.path,
        what="content" if entry.size == other.size else "size",
        expected=_shown(expected, at, entry.size, other.size),
        found=_shown(found, at, other.size, entry.size),
        offset=done + at,
    )


def _shown(data: bytes, at: int, size: int, other: int) -> str:
    text = data[at : at + _SHOWN].hex(" ")
    return text if size == other else f"{text or 'end of file'} ({size} bytes)"


def _open(root: Path, entry: Entry) -> BufferedReader:
    fd = os.open(below(root)(entry), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.fdopen(fd, "rb")


def _sha256(root: Path, entry: Entry) -> str:
    try:
        with _open(root, entry) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        return problem.strerror or ""
