"""Is the store what it says it is? And what to do where it is not."""

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from mlbox.errors import MlboxError, StoreError
from mlbox.oci.digest import DiffID, Digest, hex_of
from mlbox.oci.layer import Entry
from mlbox.store.db import NewerStoreError
from mlbox.store.frames import FRAMES, read_frames
from mlbox.store.images import forget
from mlbox.store.memory import discard_from_memory
from mlbox.store.nodes import owner_bits
from mlbox.store.publish import discard_leftovers, withdraw
from mlbox.store.referrers import ATTACHMENT_LIMIT
from mlbox.store.saved import Record, load_entries, load_record
from mlbox.store.store import Store
from mlbox.store.tree import below, digest_of_chunks, joined, tar_chunks

Kind = Literal["database", "content", "artifact", "piece", "layer", "image", "name"]
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}
_HEX = re.compile(r"[0-9a-f]{64}")
_CAPABILITY = "security.capability"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong."""

    kind: Kind
    what: str
    problem: str
    repaired: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What fsck found."""

    leftovers: tuple[str, ...]
    """Temporaries of killed processes, now removed: no damage."""
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def fsck(store: Store, *, deep: bool = False, repair: bool = False, used_layers: Collection[DiffID] = ()) -> Report:
    """Check the whole store; `deep` hashes every file again, `repair` removes what is damaged.

    What was removed is built or downloaded again when it is next wanted. `used_layers` are never removed.
    Raises StoreError when `repair` is asked for while something uses the store.
    """
    with store.alone() if repair else store.using() as held:
        if not held:
            raise StoreError(
                "another mlbox is using the store: a build, a pull, a download from it, the start of a container",
                hint="wait until it is done, then repair again",
            )
        leftovers = tuple(path.name for path in (*discard_leftovers(store.home.tmp), *discard_from_memory()))
        return Report(leftovers=leftovers, findings=tuple(_Check(store, deep, repair, used_layers).everything()))


class _Check:
    def __init__(self, store: Store, deep: bool, repair: bool, used_layers: Collection[DiffID]) -> None:
        self.store = store
        self.deep = deep
        self.repair = repair
        self.used_layers = used_layers

    def everything(self) -> Iterator[Finding]:
        # Images come after what they are made of: a layer that was removed takes its images with it.
        if damaged := list(self.database()):
            yield from damaged
            if not self.repair:
                return
        yield from self.content()
        yield from self.artifacts()
        yield from self.pieces()
        yield from self.layers()
        yield from self.images()

    def database(self) -> Iterator[Finding]:
        try:
            problems = self.store.db.problems()
        except NewerStoreError:
            raise
        except StoreError as problem:
            problems = [problem.message]
        if problems:
            text = f"{problems[0]}; names of images are lost, the rest is built again from what is there"
            yield self.finding("database", str(self.store.db.path), text, self.store.db.set_aside)

    def content(self) -> Iterator[Finding]:
        folder = self.store.home.content / "blobs" / "sha256"
        yield from self.strangers("content", folder, _names(folder))
        for digest in self.store.content.digests():
            if not _HEX.fullmatch(hex_of(digest)):
                continue
            try:
                self.store.content.read(digest, ATTACHMENT_LIMIT)
            except MlboxError as problem:
                yield self.finding("content", digest, problem.message, self.remover(self.store.content.path(digest)))

    def artifacts(self) -> Iterator[Finding]:
        yield from self.strangers("artifact", self.store.home.artifacts, self.store.artifacts.hashes())
        for sha256 in self.store.artifacts.hashes():
            if self.deep and _HEX.fullmatch(sha256) and not self.store.artifacts.verify(sha256):
                remove = self.remover(self.store.artifacts.path(sha256))
                yield self.finding("artifact", sha256, "its content has another hash", remove)

    def pieces(self) -> Iterator[Finding]:
        yield from self.strangers("piece", self.store.home.pieces, _names(self.store.home.pieces))
        for key in filter(_HEX.fullmatch, _names(self.store.home.pieces)):
            folder = self.store.pieces.folder(key)
            if problem := tree_problem(folder, deep=self.deep):
                yield self.finding("piece", key, problem, self.remover(folder))

    def layers(self) -> Iterator[Finding]:
        yield from self.strangers("layer", self.store.home.layers, _names(self.store.home.layers))
        for name in filter(_HEX.fullmatch, _names(self.store.home.layers)):
            diff_id = DiffID(f"sha256:{name}")
            if problem := tree_problem(self.store.layers.folder(diff_id), deep=self.deep, diff_id=diff_id):
                yield self.layer_finding(diff_id, problem)
        for (diff_id,) in self.store.db.rows("SELECT DISTINCT diff_id FROM layers"):
            if not self.store.layers.has(diff_id):
                yield self.layer_finding(diff_id, "it is listed and not there")

    def layer_finding(self, diff_id: DiffID, problem: str) -> Finding:
        if diff_id in self.used_layers:
            return self.finding("layer", diff_id, f"{problem}; a container stands on it", None)
        return self.finding("layer", diff_id, problem, lambda: self.store.layers.delete(diff_id))

    def images(self) -> Iterator[Finding]:
        for digest in self.store.images.digests():
            try:
                diff_ids = self.store.images.load(digest).config.rootfs.diff_ids
            except MlboxError as problem:
                text = problem.message
            else:
                missing = [diff_id for diff_id in diff_ids if not self.store.layers.has(diff_id)]
                text = f"its layer {missing[0]} is missing" if missing else ""
            if text:
                yield self.finding("image", digest, text, self.forgetter(digest))
        sql = "SELECT reference, digest FROM names WHERE digest NOT IN (SELECT digest FROM images)"
        for reference, digest in self.store.db.rows(sql):
            yield self.finding("name", reference, f"its image {digest} is missing", self.forgetter(digest))

    def strangers(self, kind: Kind, folder: Path, names: Iterable[str]) -> Iterator[Finding]:
        for name in names:
            if not _HEX.fullmatch(name):
                yield self.finding(kind, name, "it does not belong here", self.remover(folder / name))

    def remover(self, path: Path) -> Callable[[], None]:
        return lambda: withdraw(self.store.home.tmp, path)

    def forgetter(self, digest: str) -> Callable[[], None]:
        def mend() -> None:
            with self.store.db.write() as execute:
                execute("DELETE FROM names WHERE digest = ?", (digest,))
                forget(execute, Digest(digest))

        return mend

    def finding(self, kind: Kind, what: str, problem: str, mend: Callable[[], None] | None) -> Finding:
        repaired = self.repair and mend is not None
        if repaired and mend is not None:
            mend()
        return Finding(kind=kind, what=what, problem=problem, repaired=repaired)


def tree_problem(folder: Path, *, deep: bool = False, diff_id: DiffID | None = None) -> str | None:
    """Return the first thing in which the saved tree at `folder` is not what it should be, None when there is none."""
    try:
        record = load_record(folder)
        entries = load_entries(folder)
    except MlboxError as damage:
        return damage.message
    if record is None:
        return "its record is missing"
    if diff_id is not None and record.diff_id != diff_id:
        return f"its record says that it is {record.diff_id}"
    if problem := _difference(folder, entries, plain=not record.frames):
        return problem
    if record.frames and not (folder / FRAMES).is_file():
        return "its frames are missing"
    if deep and record.diff_id and (problem := _other_content(folder, record, entries)):
        return problem
    return None


def _other_content(folder: Path, record: Record, entries: tuple[Entry, ...]) -> str | None:
    try:
        chunks = joined(read_frames(folder)) if record.frames else tar_chunks(entries, below(folder / "fs"))
        found = digest_of_chunks(chunks)
    except MlboxError as damage:
        return damage.message
    return None if found == record.diff_id else "its content has another digest"


def _difference(folder: Path, entries: tuple[Entry, ...], *, plain: bool) -> str | None:
    """Return what differs at `folder`; a `plain` tree is one that mlbox made, which gives no file privileges."""
    root, home = folder / "fs", folder.stat()
    nobodys = {(0, 0), (home.st_uid, home.st_gid)}
    left = {entry.path: entry for entry in entries if entry.kind not in ("char", "block")}  # never on the disk
    privileged = os.geteuid() == 0
    for path, item in _walk(str(root)):
        entry = left.pop(path, None)
        if entry is None:
            return f"{path!r} was added"
        if problem := _changed(entry, item) or (privileged and _lost(entry, item, nobodys)):
            return f"{path!r}: {problem}"
        if plain and entry.kind == "file" and _CAPABILITY in os.listxattr(item.path, follow_symlinks=False):
            return f"{path!r}: has capabilities"
        if entry.kind == "link" and not _is_same(item, root / entry.target):
            return f"{path!r}: is another file than {entry.target!r}"
    return f"{next(iter(left))!r} is missing" if left else None


def _changed(entry: Entry, item: "os.DirEntry[str]") -> str | None:
    status = item.stat(follow_symlinks=False)
    is_whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    kind = "whiteout" if is_whiteout else _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind != ("file" if entry.kind == "link" else entry.kind):
        return f"is no {entry.kind}"
    if kind == "whiteout":
        return None
    if kind == "symlink":
        return None if os.readlink(item.path) == entry.target else "points elsewhere"  # noqa: PTH115 - hot path
    modes = (entry.mode, entry.mode if os.geteuid() == 0 else entry.mode | owner_bits(entry.kind))
    if stat.S_IMODE(status.st_mode) not in modes:
        return f"has mode {stat.S_IMODE(status.st_mode):o}, not {entry.mode:o}"
    if entry.kind == "file" and status.st_size != entry.size:
        return f"has {status.st_size} bytes, not {entry.size}"
    # Not every file system can hold a time before 1970 or after 2038.
    if kind == "file" and 0 <= entry.mtime < 1 << 31 and status.st_mtime_ns // 10**9 != entry.mtime:
        return "was written to"
    return None


def _lost(entry: Entry, item: "os.DirEntry[str]", nobodys: Collection[tuple[int, int]]) -> str | None:
    """Return what of an entry is not there although root could have set it; `nobodys` own what no entry gives away."""
    status = item.stat(follow_symlinks=False)
    owner = (entry.uid, entry.gid)
    if (status.st_uid, status.st_gid) not in ({owner} if any(owner) else nobodys):
        return f"belongs to {status.st_uid}:{status.st_gid}, not {entry.uid}:{entry.gid}"
    if entry.opaque and "trusted.overlay.opaque" not in os.listxattr(item.path, follow_symlinks=False):
        return "does not hide lower layers any more"
    return None


def _is_same(item: "os.DirEntry[str]", other: Path) -> bool:
    try:
        return other.lstat().st_ino == item.inode()
    except FileNotFoundError:
        return False


def _walk(root: str) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            with os.scandir(f"{root}/{prefix}") as found:
                for item in found:
                    yield prefix + item.name, item
                    if item.is_dir(follow_symlinks=False):
                        folders.append(f"{prefix}{item.name}/")
        except FileNotFoundError:
            continue  # its entries are then reported as missing


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - names only
