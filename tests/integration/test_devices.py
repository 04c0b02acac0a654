"""Devices in containers for real: runc makes the nodes, the kernel's device cgroup allows them and no others."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fakes.containers import Box, boxed, busybox_rootfs

from mlbox.errors import ContainerError
from mlbox.linux.mount import umount
from mlbox.paths import Home

pytestmark = pytest.mark.integration
NODE = next(filter(os.path.exists, ("/dev/fuse", "/dev/loop-control", "/dev/hwrng")), "/dev/fuse")
"""A device that root may open on any Linux, and a container may not."""


@pytest.fixture
def box(home: Home, tmp_path: Path, need: Callable[[str], str]) -> Iterator[Box]:
    """Containers of busybox."""
    need("runc")
    with boxed(home, busybox_rootfs(tmp_path / "root", need("busybox"))) as found:
        yield found


def cdi_file(folder: Path, **edits: object) -> Path:
    """Write the CDI file of a device 'example.com/toy=0'."""
    folder.mkdir(exist_ok=True)
    path = folder / "toy.json"
    device = {"name": "0", "containerEdits": edits}
    path.write_text(json.dumps({"cdiVersion": "0.5.0", "kind": "example.com/toy", "devices": [device]}))
    return path


def test_only_the_device_asked_for_can_be_opened(box: Box) -> None:
    """Without it there is no node, and one made by hand is refused by the device cgroup."""
    status = Path(NODE).stat()
    number = f"{os.major(status.st_rdev)} {os.minor(status.st_rdev)}"
    probe = f"mknod /tmp/n c {number} && head -c 0 /tmp/n && echo opened"
    code, out, err = box.sh(f"mkdir -p /tmp; {probe}", cap_add=("MKNOD",))
    assert code and "opened" not in out and "not permitted" in err
    code, out, err = box.sh(f"mkdir -p /tmp; ls -l {NODE}; {probe}", cap_add=("MKNOD",), devices=(NODE,))
    assert code == 0 and "opened" in out, err
    assert box.sh(f"head -c 0 {NODE}")[0] != 0


def test_access_is_what_was_asked_for(box: Box) -> None:
    """A node that may only be written cannot be read."""
    code, _, err = box.sh(f"head -c 0 {NODE}; echo", devices=(f"{NODE}:w",))
    assert "not permitted" in err
    assert box.sh(f"head -c 0 {NODE}", devices=(f"{NODE}:{NODE}:r",))[0] == 0
    assert code == 0


def test_another_path_and_another_user(box: Box) -> None:
    """The node belongs to the container's user."""
    code, out, err = box.sh("ls -ln /dev/there; head -c 0 /dev/there", devices=(f"{NODE}:/dev/there",), user="worker")
    assert code == 0, err
    assert out.startswith("c") and out.split()[2:4] == ["1000", "1001"]


def test_a_cdi_device_brings_all_of_its_edits(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Node, variable, mount and hook; at every start, and with what the file says then."""
    monkeypatch.setenv("MLBOX_CDI_PATH", str(tmp_path / "cdi"))
    library = tmp_path / "libtoy.so.1"
    library.write_text("one")
    mark = tmp_path / "hook-ran"
    edits = {
        "env": ["TOY=1"],
        "deviceNodes": [{"path": "/dev/toy0", "hostPath": NODE}],
        "mounts": [{"hostPath": str(library), "containerPath": "/usr/lib/libtoy.so.1", "options": ["ro", "nosuid"]}],
        "hooks": [{"hookName": "createRuntime", "path": shutil.which("touch"), "args": ["touch", str(mark)]}],
    }
    cdi_file(tmp_path / "cdi", **edits)
    script = "echo $TOY; cat /usr/lib/libtoy.so.1; echo; head -c 0 /dev/toy0 ; touch /usr/lib/libtoy.so.1 || echo kept"
    container = box.create("sh", "-c", script, devices=("example.com/toy=0",))
    for content in ("one", "two"):
        library.write_text(content)
        with_output = box.containers.start(container.id, attach=True)
        out = b"".join(data for stream, data in with_output.output() if stream == "stdout").decode()
        assert with_output.wait() == 0
        with_output.close()
        assert out.split() == ["1", content, "kept"]
        assert mark.exists()
        mark.unlink()
    (tmp_path / "cdi" / "toy.json").unlink()
    with pytest.raises(ContainerError, match=r"no CDI device example\.com/toy=0"):
        box.containers.start(container.id)
    box.containers.remove(container.id)


def test_podman_reads_the_same_file(box: Box, need: Callable[[str], str]) -> None:
    """Version 0.5.0 is what podman 4.3 knows: the file of the tests above means the same to it."""
    podman = need("podman")
    folder = Path("/etc/cdi")
    made = not folder.exists()
    path = cdi_file(folder, env=["TOY=1"], deviceNodes=[{"path": "/dev/toy0", "hostPath": NODE}])
    short = tempfile.mkdtemp()  # podman takes no runroot of more than 50 characters
    try:
        roots = [f"--root={short}/root", f"--runroot={short}/run", f"--tmpdir={short}/tmp"]
        command = [
            podman,
            *roots,
            "--runtime=runc",
            "run",
            "--rm",
            "--network=none",
            "--ulimit=nofile=1024",
            "--ulimit=nproc=1024",
        ]
        command += ["--device=example.com/toy=0", "--rootfs", str(box.rootfs), "sh", "-c", "echo $TOY; ls /dev/toy0"]
        theirs = subprocess.run(command, capture_output=True, text=True, timeout=60)
        ours = box.sh("echo $TOY; ls /dev/toy0", devices=("example.com/toy=0",))
        assert (theirs.returncode, theirs.stdout.split()) == (0, ["1", "/dev/toy0"]), theirs.stderr
        assert (ours[0], ours[1].split()) == (0, ["1", "/dev/toy0"])
    finally:
        path.unlink()
        with suppress(OSError):
            umount(Path(short) / "root/overlay")
        shutil.rmtree(short)
        if made:
            folder.rmdir()
