"""Devices in containers for real: runc makes the nodes, the kernel's device cgroup allows them and no others."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import podman as files
from fakes.containers import Box, boxed, busybox_rootfs, wait_for
from fakes.podman import podman

from mlbox.engine.devices import attach, detach, verify
from mlbox.errors import ContainerError, NotFoundError
from mlbox.linux import cgroup
from mlbox.paths import Home
from mlbox.runtime.record import Container

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
    path.write_bytes(toy(**edits))
    return path


def toy(**edits: object) -> bytes:
    """Return the CDI file of a device 'example.com/toy=0'."""
    device = {"name": "0", "containerEdits": edits}
    return json.dumps({"cdiVersion": "0.5.0", "kind": "example.com/toy", "devices": [device]}).encode()


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
    """Version 0.5.0 is what podman 4.3 knows: the same file means the same to it."""
    script = ("sh", "-c", "echo $TOY; ls /dev/toy0")
    data = toy(env=["TOY=1"], deviceNodes=[{"path": "/dev/toy0", "hostPath": NODE}])
    with podman(need("podman")) as command, files.cdi_file("toy.json", data):
        command += ["--device=example.com/toy=0", "--rootfs", str(box.rootfs), *script]
        theirs = subprocess.run(command, capture_output=True, text=True, timeout=60)
        ours = box.run(*script, devices=("example.com/toy=0",))
    assert (theirs.returncode, theirs.stdout.split()) == (0, ["1", "/dev/toy0"]), theirs.stderr
    assert (ours[0], ours[1].split()) == (0, ["1", "/dev/toy0"])


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Monitors look at the rules every moment."""
    monkeypatch.setattr("mlbox.runtime.guard.EVERY", 0.1)


def group_folder(container: Container) -> Path:
    """Return the container's group in the hierarchy that knows devices."""
    path = next((one.path for one in cgroup.hierarchies() if "devices" in one.controllers), None)
    if path is None:
        pytest.skip("this host has no version 1 device cgroup")
    return Path(f"{path}/mlbox/{container.id}")


def opens(box: Box, name: str, path: str = NODE) -> bool:
    """Whether a program in the container can open the node."""
    return box.containers.exec(name, ("sh", "-c", f"head -c 0 {path} 2>/dev/null")) == 0


def test_rules_that_somebody_changed_are_right_again(box: Box, soon: None) -> None:
    """As after systemctl daemon-reload: the device is lost, the monitor gives it back and says so."""
    container = box.start("sleep", "60", devices=(NODE,))
    assert verify(box.containers, container.name).problems == ()
    folder, status = group_folder(container), Path(NODE).stat()
    rule = f"c {os.major(status.st_rdev)}:{os.minor(status.st_rdev)} rwm"
    (folder / "devices.deny").write_text(rule)
    wait_for(lambda: box.containers.get(container.id).state.warnings != (), "a look")
    assert opens(box, container.name)
    found = verify(box.containers, container.name)
    assert found.problems == () and found.devices == (NODE,)
    assert "is denied, and should be allowed" in found.warnings[0]
    box.containers.remove(container.id, force=True)


def test_a_wildcard_of_somebody_is_put_right_at_one_look(box: Box, soon: None) -> None:
    """The kernel then has no rule of ours any more that the wildcard covers."""
    container = box.start("sleep", "60", devices=(NODE,))
    folder, status = group_folder(container), Path(NODE).stat()
    (folder / "devices.deny").write_text(f"c {os.major(status.st_rdev)}:{os.minor(status.st_rdev)} rwm")
    (folder / "devices.allow").write_text(f"c {os.major(status.st_rdev)}:* rwm")
    wait_for(lambda: box.containers.get(container.id).state.warnings != (), "a look")
    assert verify(box.containers, container.name).problems == ()
    assert opens(box, container.name)
    box.containers.remove(container.id, force=True)


def test_verify_sees_what_the_kernel_has(box: Box) -> None:
    """Too little and too much."""
    container = box.start("sleep", "60", devices=(NODE,))
    (group_folder(container) / "devices.allow").write_text("c 1:11 rwm")
    assert verify(box.containers, container.name).problems == ("c 1:11 rw is allowed, and should not be",)
    box.containers.remove(container.id, force=True)
    with pytest.raises(NotFoundError):
        verify(box.containers, container.name)


def test_a_device_comes_and_goes_while_the_container_runs(box: Box) -> None:
    """It cannot be opened before nor after, and not taken away from a program that has it open."""
    container = box.start("sh", "-c", f"while :; do sleep 0.05; [ -e {NODE} ] && exec 3<{NODE} && exec sleep 60; done")
    assert not opens(box, container.name)
    assert attach(box.containers, container.name, [NODE]) == (NODE,)
    wait_for(lambda: Path(f"/proc/{container.state.pid}/fd/3").exists(), "the program opens it")
    assert opens(box, container.name)
    assert verify(box.containers, container.name).problems == ()
    with pytest.raises(ContainerError, match="is open in sleep"):
        detach(box.containers, container.name, [NODE])
    assert opens(box, container.name)
    assert detach(box.containers, container.name, [NODE], force=True) == (NODE,)
    assert not opens(box, container.name)
    assert verify(box.containers, container.name).devices == ()
    with pytest.raises(ContainerError, match="no such device"):
        detach(box.containers, container.name, [NODE])
    box.containers.remove(container.id, force=True)


def test_devices_that_come_at_once_all_stay(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sees what the others added; the guard sees none of them half."""
    monkeypatch.setattr("mlbox.runtime.guard.EVERY", 0.001)
    container = box.start("sleep", "60", devices=(f"{NODE}:/dev/first",))
    places = [f"/dev/more{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda place: attach(box.containers, container.name, [f"{NODE}:{place}"]), places))
        assert set(verify(box.containers, container.name).devices) == {"/dev/first", *places}
        list(pool.map(lambda place: detach(box.containers, container.name, [f"{NODE}:{place}"]), places))
    found = verify(box.containers, container.name)
    assert (found.devices, found.problems, found.warnings) == (("/dev/first",), (), ())
    assert opens(box, container.name, "/dev/first")
    box.containers.remove(container.id, force=True)


def test_what_every_container_has_stays(box: Box) -> None:
    """Also after it was attached and detached once more."""
    container = box.start("sleep", "60")
    attach(box.containers, container.name, ["/dev/null:/dev/nothing"])
    detach(box.containers, container.name, ["/dev/null:/dev/nothing"], force=True)
    assert opens(box, container.name, "/dev/null")
    assert verify(box.containers, container.name).problems == ()
    box.containers.remove(container.id, force=True)


def test_an_unbuffered_device_goes_again(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CDI's type 'u' is 'c' to the kernel, in its rules too."""
    monkeypatch.setenv("MLBOX_CDI_PATH", str(tmp_path / "cdi"))
    number = Path(NODE).stat().st_rdev
    node = {"path": "/dev/toy0", "type": "u", "major": os.major(number), "minor": os.minor(number)}
    cdi_file(tmp_path / "cdi", deviceNodes=[node])
    container = box.start("sleep", "60")
    attach(box.containers, container.name, ["example.com/toy=0"])
    assert opens(box, container.name, "/dev/toy0")
    detach(box.containers, container.name, ["example.com/toy=0"])
    assert f"c {os.major(number)}:{os.minor(number)} rwm" not in verify(box.containers, container.name).rules
    assert verify(box.containers, container.name).problems == ()
    box.containers.remove(container.id, force=True)


def test_a_node_is_made_inside_whatever_links_the_container_made(box: Box, tmp_path: Path) -> None:
    """A link to a place of the host leads to the place of that name inside."""
    victim = tmp_path / "victim"
    victim.mkdir()
    script = f"mkdir -p {victim}; ln -s {victim} /dev/trap; echo ready; sleep 60"
    container = box.start("sh", "-c", script)
    wait_for(lambda: box.containers.exec(container.name, ("ls", "/dev/trap")) == 0, "the link")
    attach(box.containers, container.name, [f"{NODE}:/dev/trap/node"])
    assert list(victim.iterdir()) == []
    assert opens(box, container.name, f"{victim}/node")
    box.containers.remove(container.id, force=True)


UNIFIED = """
import os, sys
from pathlib import Path
from mlbox.engine.devices import attach, detach, verify
from mlbox.engine.running import containers_of
from mlbox.linux import bpf, cgroup, libc
from mlbox.oci.image import ContainerConfig, ImageConfig, RootFS
from mlbox.paths import Home
from mlbox.runtime.options import RunOptions
from mlbox.runtime import guard
home, rootfs, node = sys.argv[1:]
libc.call("unshare", 0x00020000)
libc.call("mount", b"none", b"/", None, 1 << 18 | 1 << 14, None)
libc.call("umount2", b"/sys/fs/cgroup", 2)
libc.call("mount", b"cgroup2", b"/sys/fs/cgroup", b"cgroup2", 0, None)
assert cgroup.is_unified(cgroup.hierarchies())
guard.EVERY = 0.1
containers = containers_of(Home(Path(home)))
image = ImageConfig(architecture="amd64", os="linux", config=ContainerConfig(), rootfs=RootFS(diff_ids=()))
options = RunOptions(command=("sleep", "60"), devices=(node,), pids_limit=-1)
container = containers.create("sha256:" + "0" * 64, "test:1", image, [Path(rootfs)], options)
containers.start(container.id).close()
def opens():
    return containers.exec(container.name, ("sh", "-c", f"head -c 0 {node} 2>/dev/null")) == 0
try:
    print(opens(), verify(containers, container.name).problems)
    folder = os.open(f"/sys/fs/cgroup/mlbox/{container.id}", os.O_RDONLY)
    print(len(bpf.attached(folder)))
    bpf.enforce(folder, (bpf.Rule(True, "c", 1, 3, "rwm"),))
    for _ in range(100):
        if containers.get(container.id).state.warnings:
            break
        import time; time.sleep(0.05)
    print(opens(), verify(containers, container.name).problems)
    detach(containers, container.name, [node])
    print(opens(), verify(containers, container.name).problems)
    attach(containers, container.name, [node])
    print(opens(), verify(containers, container.name).problems)
finally:
    containers.remove(container.id, force=True)
"""


def test_where_version_2_is_all_there_is(box: Box) -> None:
    """A program of ours decides: it is put in the place of runc's, compared, repaired, and follows the devices.

    Version 2 alone is what this host's unified hierarchy looks like in a mount namespace of its own.
    """
    if not Path("/sys/fs/cgroup/unified/cgroup.procs").exists():
        pytest.skip("this host has no unified hierarchy beside version 1")
    command = [sys.executable, "-c", UNIFIED, str(box.home.root), str(box.rootfs), NODE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True ()", "1", "True ()", "False ()", "True ()"]
