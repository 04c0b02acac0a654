"""Folders in memory, for what must not reach a disk.

What a process left that was killed is removed by the next one that needs such a folder, and by fsck and gc.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlbox.store.publish import discard_if_dead, temporary_folder

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of one's own in it
_LABEL = "mlbox-secrets"


@contextmanager
def folder_in_memory(otherwise: Path) -> Iterator[Path]:
    """Yield a new empty folder in memory, or below `otherwise` where there is no such place; nothing of it stays."""
    discard_from_memory()
    with temporary_folder(_MEMORY if os.access(_MEMORY, os.W_OK) else otherwise, _LABEL) as folder:
        yield folder


def discard_from_memory() -> list[Path]:
    """Remove the folders of this user that no living process holds; return what was removed."""
    return [path for path in sorted(_MEMORY.glob(f"{_LABEL}-*")) if _is_mine(path) and discard_if_dead(path)]


def _is_mine(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return path.lstat().st_uid == os.geteuid()
    return False
