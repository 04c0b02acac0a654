"""Locks of open files."""

import os
from pathlib import Path

from mlbox.linux.lock import is_taken, take


def test_one_holder_until_its_last_copy_is_closed(tmp_path: Path) -> None:
    """Looking does not take; a copy made by dup (as by fork) keeps the lock."""
    path = tmp_path / "lock"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert not is_taken(second)
    assert not is_taken(second)
    assert take(first)
    copy = os.dup(first)
    os.close(first)
    assert is_taken(second)
    assert not take(second)
    os.close(copy)
    assert not is_taken(second)
    assert take(second)
    os.close(second)
