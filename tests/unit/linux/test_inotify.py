"""Waiting for a folder to change."""

import os
import select
from pathlib import Path

from mlbox.linux.inotify import watch


def test_changes_wake(tmp_path: Path) -> None:
    """A written file and a renamed one are events; nothing is none."""
    fd = watch(str(tmp_path))
    try:
        assert select.select([fd], [], [], 0)[0] == []
        (tmp_path / "a").write_text("x")
        assert select.select([fd], [], [], 5)[0] == [fd]
        os.read(fd, 65536)
        (tmp_path / "a").rename(tmp_path / "b")
        assert select.select([fd], [], [], 5)[0] == [fd]
    finally:
        os.close(fd)
