"""Where files may be written."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest
from fakes.trees import make_image, make_layer

from mlbox.errors import StoreError, UsageError
from mlbox.files import output_errors, output_path, write_output
from mlbox.paths import Home
from mlbox.registry.bundle_write import bundle_file
from mlbox.store.layout import Chosen, export
from mlbox.store.store import Store


def pipe_at(path: Path) -> list[bytes]:
    """Make a named pipe and read from it in another thread; a device would need root."""
    os.mkfifo(path)
    found: list[bytes] = []
    threading.Thread(target=lambda: found.append(path.read_bytes())).start()
    return found


def waited(found: list[bytes]) -> bytes:
    """Return what came through the pipe."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(10)
    return found[0]


def test_what_is_no_file_is_written_in_place(tmp_path: Path) -> None:
    """`-o /dev/null` as root must not put a file where the device was."""
    assert output_path(Path("/dev/null")) is None
    write_output(Path("/dev/null"), b"x")
    with bundle_file(Path("/dev/null")) as out:
        out.write(b"x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    for number, write in enumerate((lambda path: write_output(path, b"hello"), bundled)):
        path = tmp_path / f"pipe{number}"
        found = pipe_at(path)
        write(path)
        assert waited(found) == b"hello"
        assert path.is_fifo()


def bundled(path: Path) -> None:
    """Write as 'mlbox bundle' does."""
    with bundle_file(path) as out:
        out.write(b"hello")


def test_an_archive_through_a_named_pipe(tmp_path: Path) -> None:
    """The pipe stays, and nothing lies beside it."""
    store = Store(Home(tmp_path / "home"))
    image = make_image(store, make_layer(store, "one", {"a": b"a"}))
    found = pipe_at(tmp_path / "x.tar")
    export(store, [Chosen(image)], tmp_path / "x.tar")
    assert b"index.json" in waited(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "x.tar"]
    assert (tmp_path / "x.tar").is_fifo()
    store.close()


def test_links_are_followed_and_folders_refused(tmp_path: Path) -> None:
    """As a shell's redirection does."""
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_output(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    write_output(tmp_path / "not" / "yet", b"new")
    assert (tmp_path / "not/yet").read_bytes() == b"new"
    for path in (tmp_path, Path("/"), Path()):
        with pytest.raises(UsageError, match="is a folder"):
            write_output(path, b"x")


def test_a_place_that_may_not_be_written(tmp_path: Path) -> None:
    """It is not the store that is in the way."""
    with pytest.raises(StoreError, match="cannot write while writing") as caught, output_errors(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))
    assert "MLBOX_HOME" not in (caught.value.hint or "")
    with pytest.raises(StoreError, match="no space left") as caught:
        write_output(Path("/dev/full"), b"x")
    assert "-o" in (caught.value.hint or "")  # 'mlbox prune' makes room on another disk
