import errno
import fcntl
import os
import sys
import threading
from pathlib import Path

import pytest

from mlbox.errors import UsageError
from mlbox.store import publish
from mlbox.store.publish import (
    discard_leftovers,
    file_beside,
    folder_beside,
    publish_folder,
    remove_tree,
    temporary_file,
    temporary_folder,
    withdraw,
    working_on,
)


def test_what_a_living_process_holds_is_no_leftover(tmp_path: Path) -> None:
    (tmp_path / "dead-folder" / "x").mkdir(parents=True)
    (tmp_path / "dead-file").write_text("")
    (tmp_path / "dead-link").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "dead-fifo")
    with temporary_folder(tmp_path, "alive") as folder, working_on(tmp_path, "key"):
        removed = discard_leftovers(tmp_path)
        assert [path.name for path in removed] == ["dead-fifo", "dead-file", "dead-folder", "dead-link"]
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, "lock-key"])
    assert not list(tmp_path.iterdir())


def test_a_leftover_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("")
    (tmp_path / "tmp/old").mkdir(parents=True)
    (tmp_path / "tmp/link").symlink_to(tmp_path / "precious")
    (tmp_path / "tmp/old/link").symlink_to(tmp_path / "precious")
    discard_leftovers(tmp_path / "tmp")
    assert (tmp_path / "precious/file").exists()


def test_what_was_killed_beside_a_target_goes_with_the_next(tmp_path: Path) -> None:
    """Gigabytes under a hidden name, that nobody would find; what another one works on stays, and what is not ours."""
    target = tmp_path / "x.tar"
    kept = {tmp_path / name for name in (".tmp-x.tar", ".tmp-x.tar-mine", f".tmp-y.tar-{'0' * 16}")}
    for folder in (*kept, tmp_path / f".tmp-x.tar-{'0' * 16}"):
        folder.mkdir()
    with folder_beside(target) as other:
        with file_beside(target) as file:
            file.write(b"1")
            assert not target.exists()
        assert other.exists()
    assert target.read_bytes() == b"1"
    assert set(tmp_path.iterdir()) == {target, *kept}


def test_a_target_below_a_file(tmp_path: Path) -> None:
    """A slip of the user's."""
    (tmp_path / "x").write_text("")
    for target in (tmp_path / "x/y", tmp_path / "x/y/z"):
        with pytest.raises(UsageError, match="is no folder"), folder_beside(target):
            pass


def test_a_file_system_without_locks_for_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS: it is written to, and what cannot be told from the living is left."""

    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.EBADF, "no")

    (tmp_path / f".tmp-x-{'0' * 16}").mkdir()
    monkeypatch.setattr(fcntl, "flock", flock)
    with file_beside(tmp_path / "x") as file:
        file.write(b"1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".tmp-x-{'0' * 16}", "x"]


def test_the_first_to_publish_wins(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with temporary_folder(tmp_path / "tmp", "x") as folder:
            (folder / name).write_text("")
            publish_folder(folder, tmp_path / "published/x")
    assert [path.name for path in (tmp_path / "published/x").iterdir()] == ["first"]
    assert not list((tmp_path / "tmp").iterdir())


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), temporary_folder(tmp_path, "x") as folder:
        (folder / "a").mkdir()
        raise RuntimeError
    with pytest.raises(RuntimeError), temporary_file(tmp_path, "x") as (_, file):
        file.write(b"x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_folders_without_any_mode_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/b/c/file").write_text("")
    for path in ("a/b/c", "a/b", "a"):
        (tmp_path / path).chmod(0)
    remove_tree(tmp_path / "a")
    remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_withdrawing_what_is_not_there(tmp_path: Path) -> None:
    withdraw(tmp_path / "tmp", tmp_path / "nothing")
    assert not list((tmp_path / "tmp").iterdir())


def test_one_at_a_time(tmp_path: Path) -> None:
    done: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with working_on(tmp_path, "key"):
            done.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with working_on(tmp_path, "key"):
        inside.set()
        thread.join(0.05)
        done.append("first")
    thread.join()
    assert done == ["first", "second"]


def test_folders_are_spread_over_the_disk_where_it_can_be_asked(tmp_path: Path) -> None:
    """ext4 then searches no group of inodes that was just emptied; elsewhere nothing changes."""
    with temporary_folder(tmp_path, "layer") as folder:
        assert folder.is_dir()
    device = tmp_path.stat().st_dev
    here = f" {os.major(device)}:{os.minor(device)} "
    if not any(here in line and " - ext4 " in line for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        return
    fd, flags = os.open(tmp_path, os.O_RDONLY), bytearray(4)
    fcntl.ioctl(fd, publish._GET_FLAGS, flags)
    os.close(fd)
    assert int.from_bytes(flags, sys.byteorder) & publish._TOP_OF_HIERARCHY
