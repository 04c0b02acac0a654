"""Several trees seen as the one root file system they will be, without copying anything."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from mlbox.errors import BuildError
from mlbox.oci.layer import Entry
from mlbox.store.tree import Tree, below

_LINKS = 40
"""How many symlinks a path may lead through (as in Linux)."""


class Union:
    """Paths of the root file system (no leading slash); where two trees hold the same path, the later one wins."""

    def __init__(self, trees: Sequence[tuple[Path, Tree]]) -> None:
        self._found: dict[str, tuple[Entry, Path | None]] = {}
        for root, tree in trees:
            for entry in tree.entries:
                known = self._found.get(entry.path)
                if known is None or entry.kind != "dir" or known[0].kind != "dir":
                    self._found[entry.path] = (entry, root)
        self._children: dict[str, list[str]] | None = None

    @classmethod
    def of_layers(cls, layers: Sequence[tuple[Path, Tree]]) -> "Union":
        """Return what a container sees of `layers`, the lowest first: what an upper one removes or replaces is gone."""
        union = cls(())
        for root, tree in layers:
            union._lay(root, tree)
        return union

    def _lay(self, root: Path, tree: Tree) -> None:
        # What is below a folder goes with it; most layers replace no folder, and then nobody else need be asked.
        gone = {entry.path for entry in tree.entries if entry.kind != "dir" and self._is_folder(entry.path)}
        emptied = {entry.path for entry in tree.entries if entry.opaque and self._is_folder(entry.path)}
        if gone or emptied:
            self._found = {path: found for path, found in self._found.items() if not _is_hidden(path, gone, emptied)}
        for entry in tree.entries:
            if entry.kind == "whiteout":
                self._found.pop(entry.path, None)
            elif entry.kind != "dir" or not self._is_folder(entry.path):
                self._found[entry.path] = (entry, root)

    def _is_folder(self, path: str) -> bool:
        found = self._found.get(path)
        return found is not None and found[0].kind == "dir"

    def add_links(self, links: Mapping[str, str]) -> dict[str, str]:
        """Add symlinks (path: target) and return them."""
        for path, target in links.items():
            self._found[path] = (Entry(path, "symlink", 0o777, target=target), None)
        self._children = None
        return dict(links)

    def entry(self, path: str) -> Entry | None:
        """Return what lies at `path` itself."""
        found = self._found.get(path)
        return found[0] if found else None

    def resolve(self, path: str) -> str | None:
        """Return where `path` leads when every symlink is followed inside this root; None when to nothing."""
        parts = [part for part in reversed(path.split("/")) if part]
        here = ""
        links = 0
        while parts:
            part = parts.pop()
            if part == "..":
                here = posixpath.dirname(here)
                continue
            here = f"{here}/{part}" if here else part
            entry = self.entry(here)
            if entry is None:
                return None
            if entry.kind == "symlink":
                links += 1
                if links > _LINKS:
                    return None
                here = "" if entry.target.startswith("/") else posixpath.dirname(here)
                parts += [p for p in reversed(entry.target.split("/")) if p not in ("", ".")]
        return here

    def on_disk(self, path: str) -> Path | None:
        """Return where the content of the file that `path` leads to lies; None when that is no file."""
        end = self.resolve(path)
        if not end:
            return None
        entry, root = self._found[end]
        return Path(below(root)(entry)) if entry.kind in ("file", "link") and root else None

    def read(self, path: str, limit: int = 16 << 20) -> bytes | None:
        """Return the content of the file that `path` leads to, None when there is none."""
        where = self.on_disk(path)
        if where is None:
            return None
        with where.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise BuildError(f"/{path} of the packages is larger than {limit} bytes, which it should not be")
        return data

    def children(self, path: str) -> list[str]:
        """Return the sorted names in the directory `path`."""
        if self._children is None:
            table: dict[str, list[str]] = {}
            for name in sorted(self._found):
                table.setdefault(posixpath.dirname(name), []).append(posixpath.basename(name))
            self._children = table
        return self._children.get(path, [])

    def below(self, path: str) -> Iterator[str]:
        """Yield every path below the directory `path`, sorted within each directory."""
        for name in self.children(path):
            yield f"{path}/{name}"
            yield from self.below(f"{path}/{name}")

    def paths(self) -> Iterable[str]:
        """Return every path."""
        return self._found


def _is_hidden(path: str, gone: Set[str], emptied: Set[str]) -> bool:
    """Whether `path` or a folder above it is in `gone`, or a folder above it in `emptied`."""
    if path in gone:
        return True
    while path := path.rpartition("/")[0]:
        if path in gone or path in emptied:
            return True
    return False
