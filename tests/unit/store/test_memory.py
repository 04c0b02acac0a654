"""Folders in memory: what a killed process left there goes."""

from pathlib import Path

import pytest

from mlbox.paths import Home
from mlbox.store import memory
from mlbox.store.fsck import fsck
from mlbox.store.memory import discard_from_memory, folder_in_memory
from mlbox.store.store import Store


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for the memory of this host."""
    place = tmp_path / "memory"
    place.mkdir()
    monkeypatch.setattr(memory, "_MEMORY", place)
    return place


def left(place: Path) -> Path:
    """What a killed process leaves: nobody holds it."""
    folder = place / "mlbox-secrets-0123"
    folder.mkdir()
    (folder / "TOKEN").write_text("hunter2")
    return folder


def test_nothing_stays(place: Path, tmp_path: Path) -> None:
    with folder_in_memory(tmp_path) as folder:
        assert folder.parent == place
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "TOKEN").write_text("hunter2")
    assert list(place.iterdir()) == []


def test_what_was_left_goes_and_what_is_held_stays(place: Path, tmp_path: Path) -> None:
    (place / "of-others").mkdir()
    with folder_in_memory(tmp_path) as held:
        folder = left(place)
        with folder_in_memory(tmp_path):
            assert not folder.exists()
            assert held.exists()
        assert discard_from_memory() == []
    assert [path.name for path in place.iterdir()] == ["of-others"]


def test_without_such_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "nowhere")
    with folder_in_memory(tmp_path) as folder:
        assert folder.parent == tmp_path


def test_fsck_removes_it(place: Path, home: Home) -> None:
    left(place)
    store = Store(home)
    try:
        assert fsck(store).leftovers == ("mlbox-secrets-0123",)
    finally:
        store.close()
    assert list(place.iterdir()) == []
