"""The tree of a foreign layer on the disk: an overlay lower directory.

Every path is resolved here, in memory, over the folders that this very layer made: no system call ever goes through
a symlink, so nothing outside the layer's folder can be reached. Whiteouts become what the kernel's overlay wants.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mlbox.oci.layer import Entry, encoded, sort_entries
from mlbox.oci.tar import Member, parts_of
from mlbox.store.nodes import Folder, Node, entries_of, entry_of, implied, owner_bits, time_on_disk
from mlbox.store.tree import current_umask

MAX_MEMBERS = 2_000_000
MAX_NAMES = 256 << 20
"""Characters of all paths and targets, which are in memory."""
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
_LINKS = 40
_NOTED = 100
_PATH_MAX = 4095
_IMPOSSIBLE = {
    getattr(errno, name)
    for name in ("ENAMETOOLONG", "EINVAL", "EMLINK", "EFBIG", "EOVERFLOW", "ENOENT", "EILSEQ", "ELOOP")
}
"""What the file system says to names, sizes and times that it cannot hold."""
_NO_XATTR = {getattr(errno, name) for name in ("EOPNOTSUPP", "EPERM", "ENOSPC", "E2BIG", "ERANGE", "EINVAL", "EACCES")}


class LowerTree:
    """Makes what the members of one tar say, below the new folder `root`.

    What a later member replaces is moved to `kept` when the frames need it. `final` is where the tree will lie: a
    path must not become longer than the system takes. Problems are ValueError.
    """

    def __init__(self, root: Path, kept: Path, final: Path) -> None:
        root.mkdir()
        self.omitted: list[str] = []
        self.implied = 0
        """Folders that no member has made."""
        self._prefix = f"{root}/"
        self._kept = kept
        self._longest = _PATH_MAX - len(os.fsencode(final)) - 1
        self._umask = current_umask()
        self._privileged = os.geteuid() == 0
        found = root.stat()
        self._owner = (found.st_uid, found.st_gid)
        self._root = Folder("", None, implied())
        self._count = self._names = 0
        self._near: tuple[list[str], Folder] = ([], self._root)

    def place(self, member: Member) -> tuple[str, Node | None]:
        """Make `member`; return where it lies below the root, "" for what is no file there, and its node.

        A regular file is left to `content`.
        """
        self._count_in(len(member.path) + len(member.target))
        parts = parts_of(member.path)
        if not parts:
            self._set_root(member)
            return "", None
        if WHITEOUT in member.path and self._hide(parts):
            return "", None
        self._measure("/".join(parts))
        folder = self._folder(parts[:-1])
        name = parts[-1]
        path = f"{folder.path}/{name}" if folder.path else name
        self._measure(path)
        if member.kind == "link":
            return path, self._link(folder, name, path, member)
        known = folder.children.get(name)
        if isinstance(known, Folder) and member.kind == "dir":
            known.mode, known.uid, known.gid, known.mtime = member.mode, member.uid, member.gid, member.mtime
            self._xattrs(self._prefix + path, member)
            return path, known
        if known is not None:
            self._remove(folder, name, path)
        node = self._make(path, folder, member)
        folder.children[name] = node
        return path, node

    def create(self, path: str, node: Node) -> int:
        """Return a descriptor to write the new file `path` with."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._prefix + path, flags, self._mode(node, path))

    def settle(self, fd: int, node: Node, member: Member) -> None:
        """Give the file its owner, mode, attributes and time, in the order that keeps them."""
        owner = (node.uid, node.gid)
        if self._privileged and owner != self._owner:
            os.fchown(fd, node.uid, node.gid)
        if node.mode & (self._umask | 0o7000):
            os.fchmod(fd, self._mode(node, ""))
        self._xattrs(fd, member)
        time = time_on_disk(node.mtime)
        os.utime(fd, ns=(time, time))

    def finish(self) -> tuple[Entry, ...]:
        """Make the whiteouts, finish the folders, and return all entries in the order of their paths."""
        folders: list[Folder] = [self._root]
        entries: list[Entry] = []
        shared: dict[int, list[tuple[str, Node]]] = {}
        for folder in folders:  # grows as it is walked
            prefix = f"{folder.path}/" if folder.path else ""
            for name, node in folder.children.items():
                if isinstance(node, Folder):
                    folders.append(node)
                    node.opaque = node.opaque or name in folder.hidden
                    entries.append(entry_of(node))
                elif node.names == 1:
                    entries.append(node.entry(prefix + name))
                else:
                    shared.setdefault(id(node), []).append((prefix + name, node))
            entries += self._whiteouts(folder, prefix)
        for folder in reversed(folders):
            self._finish_folder(folder)
        for names in shared.values():
            entries += entries_of(names)
        return sort_entries(entries)

    def _measure(self, path: str) -> None:
        if len(path) * 4 > self._longest and len(encoded(path)) > self._longest:
            raise ValueError("a path that is longer than the system takes")

    def _count_in(self, names: int) -> None:
        self._count += 1
        self._names += names
        if self._count > MAX_MEMBERS:
            raise ValueError(f"more than {MAX_MEMBERS} members")
        if self._names > MAX_NAMES:
            raise ValueError("with it the names are more than a layer may have")

    def _set_root(self, member: Member) -> None:
        if member.kind != "dir":
            raise ValueError("the root of a layer must be a folder")
        root = self._root
        root.mode, root.uid, root.gid, root.mtime = member.mode, member.uid, member.gid, member.mtime
        self._xattrs(self._prefix, member)

    def _hide(self, parts: list[str]) -> bool:
        """Note a whiteout; whether it was one, or what aufs kept for itself."""
        *above, name = parts
        if name == OPAQUE:
            self._folder(above).opaque = True
            return True
        if any(part.startswith(_AUFS) for part in parts):
            return True
        if any(part.startswith(WHITEOUT) for part in above):
            raise ValueError("a member below a whiteout")
        if not name.startswith(WHITEOUT):
            return False
        hidden = name.removeprefix(WHITEOUT)
        if hidden in ("", ".", ".."):
            raise ValueError("a whiteout of nothing")
        self._folder(above).hidden.add(hidden)
        return True

    def _folder(self, parts: list[str]) -> Folder:
        """Return the folder that `parts` lead to inside this layer; what is missing is made."""
        if parts == self._near[0]:
            return self._near[1]
        folder = self._resolve(parts, make=True)
        assert folder is not None  # noqa: S101 - it was made
        self._near = (parts, folder)
        return folder

    def _resolve(self, parts: list[str], *, make: bool) -> Folder | None:
        here, links = self._root, 0
        missing: list[str] = []
        left = parts[::-1]
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if missing:
                    missing.pop()
                else:
                    here = here.parent
                continue
            node = None if missing else here.children.get(part)
            if node is None:
                missing.append(part)
            elif isinstance(node, Folder):
                here = node
            elif node.kind == "symlink" and links < _LINKS:
                links += 1
                here = self._root if node.target.startswith("/") else here
                left += node.target.split("/")[::-1]
            else:
                raise ValueError(f"it lies below {part!r}, which is no folder")
        if missing and not make:
            return None
        for part in missing:
            here = self._imply(here, part)
        return here

    def _imply(self, folder: Folder, name: str) -> Folder:
        self.implied += 1
        path = f"{folder.path}/{name}" if folder.path else name
        self._count_in(len(path))
        self._measure(path)
        os.mkdir(self._prefix + path, 0o700)  # noqa: PTH102 - hot path
        made = folder.children[name] = Folder(path, folder, implied())
        return made

    def _make(self, path: str, folder: Folder, member: Member) -> Node:
        where = self._prefix + path
        if member.kind == "dir":
            os.mkdir(where, 0o700)  # noqa: PTH102 - hot path
            self._xattrs(where, member)
            return Folder(path, folder, member)
        node = Node(member.kind, member)
        if member.kind == "symlink":
            os.symlink(member.target, where)  # noqa: PTH211 - hot path
            self._settle_path(where, node)
        elif member.kind == "fifo":
            os.mkfifo(where, 0o600)
            self._settle_path(where, node)
        elif member.kind != "file":
            self._note(f"{member.path}: a {member.kind} device")
        return node

    def _settle_path(self, where: str, node: Node, owner: tuple[int, int] | None = None) -> None:
        if self._privileged and (node.uid, node.gid) != (owner or self._owner):
            os.chown(where, node.uid, node.gid, follow_symlinks=False)
        if node.kind != "symlink":
            os.chmod(where, self._mode(node, ""))  # noqa: PTH101 - hot path
        time = time_on_disk(node.mtime)
        os.utime(where, ns=(time, time), follow_symlinks=False)

    def _link(self, folder: Folder, name: str, path: str, member: Member) -> Node:
        known = folder.children.get(name)
        if known is not None:
            if self._target(member.target)[1] is known:
                return known
            self._remove(folder, name, path)
        source, node = self._target(member.target)
        if node.kind not in ("char", "block"):
            os.link(self._prefix + source, self._prefix + path, follow_symlinks=False)
        node.names += 1
        folder.children[name] = node
        if node.kind == "file" and (node.mode, node.uid, node.gid) != (member.mode, member.uid, member.gid):
            # As in Docker and podman, the last of the names says what the file is.
            before = node.uid, node.gid
            node.mode, node.uid, node.gid, node.mtime = member.mode, member.uid, member.gid, member.mtime
            self._settle_path(self._prefix + path, node, before)
        return node

    def _target(self, target: str) -> tuple[str, Node]:
        parts = parts_of(target)
        folder = self._resolve(parts[:-1], make=False) if parts else None
        node = folder.children.get(parts[-1]) if folder else None
        if folder is None or node is None or node.kind == "dir":
            raise ValueError(f"a hard link to {target[:200]!r}, which is no file of this layer before it")
        return f"{folder.path}/{parts[-1]}" if folder.path else parts[-1], node

    def _remove(self, folder: Folder, name: str, path: str) -> None:
        self._near = ([], self._root)
        node = folder.children.pop(name)
        if not isinstance(node, Folder):
            self._unlink(path, node)
            return
        emptied = [node]
        for inner in emptied:  # grows as it is walked
            for child_name, child in inner.children.items():
                if isinstance(child, Folder):
                    emptied.append(child)
                else:
                    self._unlink(f"{inner.path}/{child_name}", child)
        for inner in reversed(emptied):
            os.rmdir(self._prefix + inner.path)  # noqa: PTH106 - hot path

    def _unlink(self, path: str, node: Node) -> None:
        node.names -= 1
        if node.number >= 0:
            self._kept.mkdir(exist_ok=True)
            os.rename(self._prefix + path, self._kept / str(node.number))  # noqa: PTH104 - hot path
            node.number = -1
        elif node.kind not in ("char", "block"):
            os.unlink(self._prefix + path)  # noqa: PTH108 - hot path

    def _whiteouts(self, folder: Folder, prefix: str) -> Iterator[Entry]:
        folder.hidden = set() if folder.opaque else folder.hidden - folder.children.keys()
        for name in sorted(folder.hidden):
            try:
                os.mknod(f"{self._prefix}{prefix}{name}", stat.S_IFCHR, os.makedev(0, 0))
            except PermissionError:
                self._note(f"{prefix}{name}: a whiteout, which needs root here")
                continue
            yield Entry(prefix + name, "whiteout", 0)

    def _finish_folder(self, folder: Folder) -> None:
        where = (self._prefix + folder.path).rstrip("/")
        if self._privileged and (folder.uid, folder.gid) != self._owner:
            os.chown(where, folder.uid, folder.gid, follow_symlinks=False)
        os.chmod(where, self._mode(folder, folder.path))  # noqa: PTH101 - hot path
        if folder.opaque:
            self._opaque(where, folder.path)
        elif folder.hidden and self._privileged:
            # Without it the kernel lists the whiteouts of a folder that no lower layer has ("copied up from
            # something unknown" makes it look).
            os.setxattr(where, "trusted.overlay.origin", b"", follow_symlinks=False)
        time = time_on_disk(folder.mtime)
        os.utime(where, ns=(time, time))

    def _opaque(self, where: str, path: str) -> None:
        if self._privileged:
            os.setxattr(where, "trusted.overlay.opaque", b"y", follow_symlinks=False)
            return
        self._note(f"{path}: hides what lower layers have, which needs root here")
        os.setxattr(where, "user.overlay.opaque", b"y", follow_symlinks=False)

    def _mode(self, node: Node, path: str) -> int:
        """Return the mode on the disk: who is not root must still be able to read and remove what is his."""
        if self._privileged:
            return node.mode
        mode = node.mode | owner_bits(node.kind)
        if path and mode != node.mode:
            self._note(f"{path}: mode {node.mode:o}, which needs root here")
        return mode

    def _xattrs(self, where: int | str, member: Member) -> None:
        """Set what a container can rely on; other attributes belong to the machine and stay in the tar."""
        for name, value in member.xattrs.items():
            if name != "security.capability" and (not name.startswith("user.") or name.startswith("user.overlay.")):
                continue
            try:
                os.setxattr(where, name, value)
            except OSError as problem:
                if problem.errno not in _NO_XATTR:
                    raise
                self._note(f"{member.path}: its attribute {name[:100]}")

    def _note(self, text: str) -> None:
        if len(self.omitted) < _NOTED:
            self.omitted.append(text)


def impossible(problem: OSError) -> bool:
    """Whether the file system says that there can be no such file, rather than that it is full or broken."""
    return problem.errno in _IMPOSSIBLE
