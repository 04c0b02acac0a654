"""What a foreign layer holds, in memory while it is unpacked."""

from collections.abc import Iterator

import msgspec

from mlbox.oci.layer import EPOCH, Entry, Kind, encoded
from mlbox.oci.tar import Member

_FIRST, _LAST = -(1 << 31) * 10**9, (1 << 34) * 10**9


class Node:
    """A file, folder, link or device; the names of one file share it."""

    __slots__ = ("gid", "kind", "mode", "mtime", "names", "number", "size", "target", "uid")

    def __init__(self, kind: Kind, member: Member) -> None:
        self.kind: Kind = kind
        self.mode = member.mode
        self.uid = member.uid
        self.gid = member.gid
        self.mtime = member.mtime
        self.size = member.size
        self.target = member.target
        self.names = 1
        self.number = -1
        """Of the file in the frames; -1: none of it is there, or it lies under kept/ already."""

    def entry(self, path: str) -> Entry:
        """Return what stands at `path`."""
        return Entry(path, self.kind, self.mode, self.mtime // 10**9, self.size, self.target, self.uid, self.gid)


class Folder(Node):
    """A folder; `hidden` are the names of lower layers that it does not show."""

    __slots__ = ("children", "hidden", "opaque", "parent", "path")

    def __init__(self, path: str, parent: "Folder | None", member: Member) -> None:
        super().__init__("dir", member)
        self.path = path
        self.parent = parent or self
        self.children: dict[str, Node] = {}
        self.hidden: set[str] = set()
        self.opaque = False


def owner_bits(kind: Kind) -> int:
    """Return the bits that an entry has on the disk of somebody who is not root, whatever its mode is."""
    return {"dir": 0o700, "file": 0o400, "link": 0o400}.get(kind, 0)


def implied() -> Member:
    """Return what a folder is that no member has made."""
    return Member(path="", kind="dir", mode=0o755, uid=0, gid=0, mtime=EPOCH * 10**9)


def time_on_disk(time: int) -> int:
    """Return a time that every file system can hold in its own way."""
    return min(max(time, _FIRST), _LAST)


def entry_of(folder: Folder) -> Entry:
    """Return the entry of a folder."""
    time = folder.mtime // 10**9
    return Entry(folder.path, "dir", folder.mode, time, 0, "", folder.uid, folder.gid, folder.opaque)


def entries_of(names: list[tuple[str, Node]]) -> Iterator[Entry]:
    """Yield the entries of what has several names: of a file the first in order, the others link to it."""
    (first, node), *others = sorted(names, key=lambda name: encoded(name[0]))
    yield node.entry(first)
    for path, _ in others:
        entry = node.entry(path)
        yield msgspec.structs.replace(entry, kind="link", size=0, target=first) if node.kind == "file" else entry
