"""Where the containers of a store lie: a folder for each, and a link for each name."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from mlbox.errors import ContainerError
from mlbox.runtime import rootfs
from mlbox.runtime.names import random_name
from mlbox.runtime.record import Container, Folder, Record, State

ACTIVE = ("running", "restarting")
_HEX = frozenset("0123456789abcdef")
_YOUNG = 60.0  # seconds in which a container's maker may still be at work; it needs milliseconds


class Shelf:
    """The folder `root`; any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = root / "names"

    def __iter__(self) -> Iterator[Container]:
        return (one for name in self._ids() if (one := self.load(name)))

    def claim_name(self, record: Record) -> Record:
        """Take the name (or a free one) by making a link to the id: the file system lets only one succeed."""
        self._names.mkdir(parents=True, exist_ok=True)
        while True:
            name = record.name or random_name()
            try:
                (self._names / name).symlink_to(record.id)
            except FileExistsError:
                if self._drop_stale_name(name) or not record.name:
                    continue
                raise ContainerError(
                    f"the name {name} is taken", hint=f"choose another, or 'mlbox rm {name}' first"
                ) from None
            return msgspec.structs.replace(record, name=name)

    def _drop_stale_name(self, name: str) -> bool:
        """Free a name whose container was never finished (its maker was killed); True when it was freed."""
        link = self._names / name
        try:
            folder = Folder(self._root / link.readlink())
        except OSError:
            return True
        if (folder.path / "container.json").exists() or folder.is_monitored() or _is_young(link):
            return False
        rootfs.remove_container(folder, name)
        link.unlink(missing_ok=True)
        return True

    def sweep(self) -> None:
        """Remove folders whose maker was killed before they were containers."""
        for name in self._ids():
            folder = Folder(self._root / name)
            if _is_empty(folder.path / "container.json") and not _is_young(folder.path):
                rootfs.remove_tree(folder.path)

    def publish(self, folder: Folder, record: Record) -> None:
        """Make the files of a new container."""
        for path in (folder.path, folder.upper, folder.work, folder.rootfs, folder.bundle):
            path.mkdir(mode=0o700)
        folder.upper.chmod(0o755)  # becomes the container's /
        folder.lock.touch(mode=0o600)
        folder.save_state(State())
        # Last: a folder without it is not a container yet.
        folder.write("container.json", msgspec.json.encode(record))

    def folder(self, id: str) -> Folder:
        """Return the files of the container with that id."""
        return Folder(self._root / id)

    def _ids(self) -> Sequence[str]:
        try:
            return [name for name in os.listdir(self._root) if len(name) == 64 and set(name) <= _HEX]  # noqa: PTH208
        except FileNotFoundError:
            return []

    def find(self, reference: str) -> str:
        """Return the id that a name or the beginning of an id means, '' when none does."""
        if reference and "/" not in reference:
            with suppress(OSError):
                return os.readlink(self._names / reference)  # noqa: PTH115
        found = [name for name in self._ids() if name.startswith(reference)] if reference else []
        if len(found) > 1:
            raise ContainerError(f"{len(found)} containers begin with {reference}", hint="give more of the id")
        return found[0] if found else ""

    def load(self, id: str) -> Container | None:
        """Return a container as it is now; None when there is none, or not yet."""
        if not id:
            return None
        folder = Folder(self._root / id)
        try:
            record = folder.load_record()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ContainerError:
            if _is_empty(folder.path / "container.json"):
                return None  # the power failed while it was made
            raise
        state = folder.load_state()
        if state.status in ACTIVE and not folder.is_monitored():
            state = folder.load_state()  # it may have ended between the two looks
            if state.status in ACTIVE:
                state = msgspec.structs.replace(state, status="dead", error="its monitor was killed")
        return Container(record=record, state=state)


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True


def _is_young(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime < _YOUNG
    except FileNotFoundError:
        return False
