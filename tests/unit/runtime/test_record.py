"""What is written down of a container."""

import os
from pathlib import Path

import pytest

from mlbox.errors import ContainerError
from mlbox.linux import lock
from mlbox.oci.image import ContainerConfig
from mlbox.oci.runtime import Seccomp
from mlbox.runtime.options import BindMount, RunOptions, TmpfsMount
from mlbox.runtime.record import Folder, Record, State, timestamp

RECORD = Record(
    id="a" * 64,
    name="n",
    image_digest="sha256:" + "b" * 64,
    image="me/x:1",
    created=timestamp(0),
    config=ContainerConfig(env=("A=1",)),
    lower=("/l/1", "/l/2"),
    options=RunOptions(mounts=(BindMount(source="/s", target="/t"), TmpfsMount(target="/u")), env={"X": "y"}),
    caller=(5, 6),
    seccomp=Seccomp(default_action="SCMP_ACT_LOG"),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Record and state come back equal, and are for their owner's eyes (environments hold secrets)."""
    import msgspec

    folder = Folder(tmp_path)
    folder.write("container.json", msgspec.json.encode(RECORD))
    assert folder.load_record() == RECORD
    state = State(status="exited", exit_code=3, warnings=("w",))
    folder.save_state(State())
    folder.save_state(state)
    assert folder.load_state() == state
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["container.json", "state.json"]


def test_damage(tmp_path: Path) -> None:
    """A lost state is a dead container; a damaged record is an error that names the file."""
    folder = Folder(tmp_path)
    assert folder.load_state().status == "dead"
    (tmp_path / "state.json").write_bytes(b"")
    assert folder.load_state().status == "dead"
    (tmp_path / "container.json").write_text("{}")
    with pytest.raises(ContainerError, match=r"container\.json"):
        folder.load_record()


def test_monitored_is_whoever_holds_the_lock(tmp_path: Path) -> None:
    """Not the file, not a number in it."""
    folder = Folder(tmp_path)
    assert not folder.is_monitored()
    fd = os.open(folder.lock, os.O_RDWR | os.O_CREAT)
    assert not folder.is_monitored()
    assert lock.take(fd)
    assert folder.is_monitored()
    os.close(fd)
    assert not folder.is_monitored()


def test_timestamps_sort_as_times() -> None:
    """Nine digits, always, in UTC."""
    assert timestamp(0) == "1970-01-01T00:00:00.000000000Z"
    assert timestamp(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"
    assert timestamp(5) < timestamp(10) < timestamp()
