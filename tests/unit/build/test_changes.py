"""What a command changed, as a layer: what counts, what is normalised, and what has no place in one."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.trees import Files, write

from mlbox.build.changes import Changes, read_changes
from mlbox.errors import BuildError
from mlbox.oci.layer import EPOCH
from mlbox.store.tree import Tree

BASE: Files = {
    "tmp": 0o1777,
    "etc/passwd": b"root:x:0:0\n",
    "etc/alias": "passwd",
    "usr/bin/tool": b"tool",
    "var/log/apt/log": b"",
}


@pytest.fixture
def base(tmp_path: Path) -> tuple[Path, Tree]:
    return tmp_path / "base", write(tmp_path / "base", BASE)


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    folder = tmp_path / "upper"
    folder.mkdir()
    return folder


def put(upper: Path, path: str, data: bytes = b"data", mode: int = 0o644) -> Path:
    target = upper / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(mode)
    return target


def read(upper: Path, base: tuple[Path, Tree], **more: object) -> Changes:
    return read_changes(upper, [base], epoch=EPOCH, arch="amd64", **more)  # type: ignore[arg-type]


def paths(changes: Changes) -> list[str]:
    return [entry.path for entry in changes.entries]


def test_new_and_changed_files_with_the_folders_above(upper: Path, base: tuple[Path, Tree]) -> None:
    """With one time, in the order of a tar, and with the modes that lower folders have."""
    put(upper, "etc/passwd", b"root:x:0:0\nme:x:1:1\n")
    put(upper, "opt/data/file", mode=0o600)
    put(upper, "opt/run.sh", mode=0o755)
    (upper / "opt/link").symlink_to("/etc/shadow")
    changes = read(upper, base)
    assert paths(changes) == ["etc", "etc/passwd", "opt", "opt/data", "opt/data/file", "opt/link", "opt/run.sh"]
    assert {entry.mtime for entry in changes.entries} == {EPOCH}
    said = {entry.path: (entry.kind, entry.mode, entry.target) for entry in changes.entries}
    assert said["opt/data/file"] == ("file", 0o600, "")
    assert said["opt/run.sh"] == ("file", 0o755, "")
    assert said["opt/link"] == ("symlink", 0o777, "/etc/shadow")


def test_what_was_only_copied_up_is_no_change(upper: Path, base: tuple[Path, Tree]) -> None:
    """Opening for writing, or a touch, has the overlay copy a file."""
    put(upper, "etc/passwd", b"root:x:0:0\n")
    (upper / "etc/alias").symlink_to("passwd")
    (upper / "usr/bin").mkdir(parents=True)
    assert paths(read(upper, base)) == []


@pytest.mark.parametrize("change", ["mode", "content", "size"])
def test_what_looks_alike_and_is_not(upper: Path, base: tuple[Path, Tree], change: str) -> None:
    data = {"content": b"root:x:0:1\n", "size": b"root"}.get(change, b"root:x:0:0\n")
    put(upper, "etc/passwd", data, 0o600 if change == "mode" else 0o644)
    assert paths(read(upper, base)) == ["etc", "etc/passwd"]


def test_a_folder_with_another_mode_counts(upper: Path, base: tuple[Path, Tree]) -> None:
    (upper / "etc").mkdir(mode=0o700)
    (upper / "empty").mkdir()
    (upper / "tmp").mkdir()
    (upper / "tmp").chmod(0o1777)
    changes = read(upper, base)
    assert [(entry.path, entry.mode) for entry in changes.entries] == [("empty", 0o755), ("etc", 0o700)]


TRACES = [
    *("tmp/x", "var/tmp/x", "run/x.pid", "var/log/apt/term.log", "var/lib/apt/lists/partial/x", "etc/machine-id"),
    *("var/cache/apt/pkgcache.bin", "var/cache/ldconfig/aux-cache", "var/lib/dpkg/status-old", "var/lib/dpkg/lock"),
    *(
        "etc/hosts",
        "etc/resolv.conf",
        "root/.python_history",
        "root/.cache/pip/http/x",
        "var/lib/dnf/history.sqlite-wal",
    ),
]


@pytest.mark.parametrize("path", TRACES)
def test_traces_of_the_run_stay_out(upper: Path, base: tuple[Path, Tree], path: str) -> None:
    put(upper, path)
    assert path not in paths(read(upper, base))


@pytest.mark.parametrize(
    "path", ["var/lib/dpkg/status", "root/.cache/huggingface/x", "var/cache/nltk/x", "etc/hosts.allow"]
)
def test_what_only_looks_like_a_trace_stays(upper: Path, base: tuple[Path, Tree], path: str) -> None:
    put(upper, path)
    assert path in paths(read(upper, base))


def test_folders_of_logs_stay(upper: Path, base: tuple[Path, Tree]) -> None:
    """Programs want theirs to be there."""
    put(upper, "var/log/nginx/access.log")
    assert paths(read(upper, base)) == ["var", "var/log", "var/log/nginx"]


def test_places_of_mounts_stay_out(upper: Path, base: tuple[Path, Tree]) -> None:
    """The container made them to see files from elsewhere; what a command puts beside them stays."""
    put(upper, "work/scripts/x.sh", b"")
    put(upper, "run/secrets/TOKEN", b"")
    mounts = ["work/scripts/x.sh", "run/secrets/TOKEN", "work/."]
    assert paths(read(upper, base, mounts=mounts)) == []
    put(upper, "work/made")
    assert paths(read(upper, base, mounts=mounts)) == ["work", "work/made"]


def test_deletions(upper: Path, base: tuple[Path, Tree]) -> None:
    """A device 0/0 is the overlay's sign for one; of what never was it says nothing."""
    (upper / "etc").mkdir()
    try:
        os.mknod(upper / "etc/passwd", 0o020000, os.makedev(0, 0))
        os.mknod(upper / "etc/never", 0o020000, os.makedev(0, 0))
    except PermissionError:
        pytest.skip("this kernel lets only root make whiteouts")
    changes = read(upper, base)
    assert [(entry.path, entry.kind, entry.size) for entry in changes.entries] == [
        ("etc", "dir", 0),
        ("etc/.wh.passwd", "file", 0),
    ]


def test_times_inside_byte_code(upper: Path, base: tuple[Path, Tree]) -> None:
    """Sources have the image's time there; byte code known by a hash is left alone."""
    timed = b"MAGC" + bytes(4) + b"\x11\x22\x33\x44" + b"size" + b"code"
    hashed = b"MAGC" + b"\x03\0\0\0" + b"hashhash" + b"code"
    put(upper, "opt/a.pyc", timed)
    put(upper, "opt/b.pyc", hashed)
    put(upper, "opt/c.pyc", b"short")
    changes = read(upper, base)
    found = {Path(entry.path).name: Path(changes.locate(entry)).read_bytes() for entry in changes.entries[1:]}
    assert found == {"a.pyc": timed[:8] + EPOCH.to_bytes(4, "little") + timed[12:], "b.pyc": hashed, "c.pyc": b"short"}


def test_the_loaders_cache_is_made_as_always(upper: Path, base: tuple[Path, Tree]) -> None:
    """Two programs that write it write it alike."""
    put(upper, "etc/ld.so.cache", b"whatever ldconfig wrote")
    first = read(upper, base)
    put(upper, "etc/ld.so.cache", b"another time")
    second = read(upper, base)
    one, two = (Path(changes.locate(changes.entries[-1])).read_bytes() for changes in (first, second))
    assert one == two
    assert one.startswith(b"glibc-ld.so.cache")
    assert second.entries[-1].size == len(two)


def test_setuid_bits_go_and_it_is_said(upper: Path, base: tuple[Path, Tree]) -> None:
    put(upper, "usr/bin/su", mode=0o4755)
    put(upper, "tmp/su", mode=0o4755)
    changes = read(upper, base)
    assert changes.entries[-1].mode == 0o755
    assert changes.notes == ("/usr/bin/su lost their setuid and setgid bits",)


def test_sockets_and_pipes_are_left_out_and_it_is_said(
    upper: Path, base: tuple[Path, Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    (upper / "opt").mkdir()
    os.mkfifo(upper / "opt/pipe")
    monkeypatch.chdir(upper / "opt")  # the addresses of sockets are short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        changes = read(upper, base)
    assert paths(changes) == ["opt"]
    assert changes.notes == ("/opt/socket are sockets and left out", "/opt/pipe are pipes and left out")


def _holes(upper: Path) -> None:
    with (upper / "huge").open("wb") as file:
        file.truncate(1 << 40)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "holes": (_holes, "/huge, which says it has 1099511627776 bytes and is mostly holes"),
    "a whiteout's name": (lambda upper: put(upper, "opt/.wh.passwd"), "/opt/.wh.passwd: a name that means a deletion"),
    "an opaque mark": (lambda upper: put(upper, "opt/.wh..wh..opq"), "a name that means a deletion"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_no_layer_can_hold(
    upper: Path, base: tuple[Path, Tree], make: Callable[[Path], object], message: str
) -> None:
    make(upper)
    with pytest.raises(BuildError, match=message):
        read(upper, base)


def test_no_link_is_followed(upper: Path, base: tuple[Path, Tree], tmp_path: Path) -> None:
    """Neither to read nor to write: what is behind it is the host's."""
    outside = put(tmp_path, "outside/a.pyc", b"MAGC" + bytes(20))
    (upper / "opt").symlink_to(outside.parent)
    (upper / "etc").mkdir()
    (upper / "etc/ld.so.cache").symlink_to(outside)
    (upper / "x.pyc").symlink_to(outside)
    changes = read(upper, base, secrets={"TOKEN": "hunter2"})
    assert {entry.kind for entry in changes.entries} == {"symlink", "dir"}
    assert outside.read_bytes() == b"MAGC" + bytes(20)


@pytest.mark.parametrize("place", ["file", "edge", "link", "name"])
def test_a_secret_that_was_written_down(upper: Path, base: tuple[Path, Tree], place: str) -> None:
    """Also across the border of two reads; its value is not said."""
    if place == "link":
        (upper / "opt").symlink_to("x-hunter2-y")
    elif place == "name":
        put(upper, "opt-hunter2", b"x")
    else:
        put(upper, "opt", (b"x" * ((1 << 20) - 3) if place == "edge" else b"token = ") + b"hunter2\n")
    with pytest.raises(BuildError, match="wrote the secret TOKEN into /opt") as problem:
        read(upper, base, secrets={"TOKEN": "hunter2"})
    assert "hunter2" not in problem.value.message + str(problem.value.hint)


@pytest.mark.parametrize(("secret", "leaks"), [("hunter2\n", True), ("ab", False), (" \n", False)])
def test_which_secrets_are_looked_for(upper: Path, base: tuple[Path, Tree], secret: str, leaks: bool) -> None:
    """Without the blanks around it; one of two letters would be everywhere."""
    put(upper, "opt", b"about token=hunter2;\n")
    if leaks:
        with pytest.raises(BuildError, match="wrote the secret"):
            read(upper, base, secrets={"TOKEN": secret})
    else:
        assert paths(read(upper, base, secrets={"TOKEN": secret})) == ["opt"]
