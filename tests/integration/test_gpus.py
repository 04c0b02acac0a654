"""GPUs in containers, on a host that only looks as if it had some: real nodes of NVIDIA's major, no driver behind them.

A node that the device cgroup allows then says ENXIO when it is opened ('No such device or address'), one that it denies
EPERM ('Operation not permitted').
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
from fakes.containers import Box, boxed, busybox_rootfs, wait_for
from fakes.elf import shared_library
from fakes.gpu import FakeHost
from fakes.podman import cdi_file, podman

from mlbox.engine.devices import attach, verify
from mlbox.engine.gpus import cdi, leases
from mlbox.engine.granting import HostDevices
from mlbox.engine.releasing import release
from mlbox.errors import ContainerError, MlboxError, NotFoundError
from mlbox.gpu import edits
from mlbox.gpu.edits import TARGET
from mlbox.loader import Library, cache_bytes, parse_cache
from mlbox.oci.image import ContainerConfig
from mlbox.paths import Home
from mlbox.runtime import hotplug
from mlbox.runtime.containers import Containers
from mlbox.runtime.options import BindMount

pytestmark = pytest.mark.integration
IMAGE = ContainerConfig(env=("NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility"))


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """Three GPUs whose bus order is not that of their nodes, and what the driver has of files."""
    made = FakeHost(tmp_path / "host")
    made.nvidia(2, 0, 1)
    (made.root / "proc/driver/nvidia/params").unlink()  # the container's own /proc has no such file to mask
    program = made.root / "driver/usr/bin/nvidia-smi"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho smi\n")
    program.chmod(0o755)
    return made


@pytest.fixture
def box(home: Home, host: FakeHost, tmp_path: Path, need: Callable[[str], str]) -> Iterator[Box]:
    """Containers of busybox on that host."""
    need("runc")
    with boxed(home, busybox_rootfs(tmp_path / "root", need("busybox"))) as found:
        found.containers = Containers(home, granter=HostDevices(host.roots, tmp_path / "leases"))
        yield found


PROBE = "for n in 0 1 2 ctl; do head -c 0 /dev/nvidia$n 2>&1; done"
MAKE = "mkdir -p /tmp; for n in 0 1 2; do mknod /tmp/n$n c 195 $n; head -c 0 /tmp/n$n 2>&1; done"


def test_exactly_the_gpus_asked_for(box: Box) -> None:
    """Number 0 is the first on the bus, /dev/nvidia2; what the image says widens nothing."""
    code, out, err = box.sh(f"{PROBE}; echo $NVIDIA_VISIBLE_DEVICES", gpus="device=0", config=IMAGE)
    assert code == 0, err
    assert [line.rpartition(": ")[2] for line in out.splitlines()] == [
        "No such file or directory",
        "No such file or directory",
        "No such device or address",
        "No such device or address",
        "void",
    ]


def test_other_gpus_stay_denied_even_when_their_node_is_made(box: Box) -> None:
    """By the device cgroup, minor by minor."""
    _, out, _ = box.sh(MAKE, gpus="device=1,2", cap_add=("MKNOD",))
    assert [line.rpartition(": ")[2] for line in out.splitlines()] == [
        "No such device or address",
        "No such device or address",
        "Operation not permitted",
    ]
    _, out, _ = box.sh(MAKE, cap_add=("MKNOD",))
    assert out.count("Operation not permitted") == 3


def test_the_driver_comes_along_under_every_name(box: Box, host: FakeHost) -> None:
    """Read-only, in the loader's cache beside what the image has there, as far as the capabilities ask."""
    cache = box.rootfs / "etc/ld.so.cache"
    cache.write_bytes(cache_bytes([Library("libz.so.1", "/lib/libz.so.1")], "amd64"))
    script = f"ls {TARGET}; nvidia-smi; touch {TARGET}/libcuda.so.1 || echo kept; sleep 60"
    container = box.create("sh", "-c", script, gpus="1", config=ContainerConfig())
    with_output = box.containers.start(container.id, attach=True)
    found = b""
    for _, data in with_output.output():
        found += data
        if b"kept" in found:
            break
    with_output.close()
    lines = found.decode().split()
    assert {"libcuda.so", "libcuda.so.1", "libcuda.so.550.54.14", "libnvidia-ml.so.1", "smi", "kept"} <= set(lines)
    merged = parse_cache((box.home.containers / container.id / "ld.so.cache").read_bytes(), "amd64")
    assert {Library("libz.so.1", "/lib/libz.so.1"), Library("libcuda.so.1", f"{TARGET}/libcuda.so.1")} <= set(merged)
    assert verify(box.containers, container.id).problems == ()
    assert "c 195:2 rw" in verify(box.containers, container.id).rules
    box.containers.remove(container.id, force=True)
    _, out, _ = box.sh(f"ls {TARGET}", gpus="1", config=IMAGE)
    assert "libnvidia-ml.so.1" in out and "libcuda" not in out
    _, out, _ = box.sh(f"ls {TARGET}", gpus="1", config=IMAGE, gpu_capabilities="compute")
    assert "libcuda.so.1" in out and "libnvidia-ml" not in out


def test_libraries_of_a_newer_driver_in_the_image_go_first(box: Box) -> None:
    """Where they say that they go with the host's driver."""
    folder = box.rootfs / "usr/local/cuda/compat"
    folder.mkdir(parents=True)
    try:
        (folder / "libcuda.so.575.57.08").write_bytes(shared_library("libcuda.so.1"))
        (folder / "libcuda.so.1").symlink_to("libcuda.so.575.57.08")
        container = box.start("sleep", "60", gpus="1")
        cache = parse_cache((box.home.containers / container.id / "ld.so.cache").read_bytes(), "amd64")
        assert dict(cache)["libcuda.so.1"] == "/usr/local/cuda/compat/libcuda.so.1"
        assert dict(cache)["libnvidia-ml.so.1"] == f"{TARGET}/libnvidia-ml.so.1"
        box.containers.remove(container.id, force=True)
    finally:
        shutil.rmtree(folder.parent)


def test_no_gpu_is_given_twice(box: Box) -> None:
    """It is free again when the container ends, however it ends."""
    first = box.start("sleep", "60", gpus="2")
    second = box.start("sleep", "60", gpus="1")
    with pytest.raises(ContainerError, match=f"0 is held by {first.name}"):
        box.sh("true", gpus="1")
    with pytest.raises(ContainerError, match="2 is held by"):
        box.sh("true", gpus="device=2")
    box.containers.kill(second.id)
    wait_for(lambda: box.containers.get(second.id).status == "exited", "the end")
    assert box.sh("true", gpus="device=2")[0] == 0
    one, two = (box.start("sleep", "60", gpus="device=2", gpu_share=True) for _ in range(2))
    for container in (first, second, one, two):
        box.containers.remove(container.id, force=True)


def test_who_waits_starts_when_the_gpu_is_free(box: Box) -> None:
    """And its container has the GPU then."""
    first = box.start("sleep", "60", gpus="all")
    threading.Timer(0.5, lambda: box.containers.remove(first.id, force=True)).start()
    began = time.monotonic()
    code, out, _ = box.sh("ls /dev", gpus="all", gpu_wait=True)
    assert code == 0 and {"nvidia0", "nvidia1", "nvidia2"} <= set(out.split())
    assert time.monotonic() - began > 0.4


def test_a_killed_monitor_does_not_free_the_gpu(box: Box) -> None:
    """Its program runs on, with the GPU; starting that container again ends it."""
    first = box.start("sleep", "60", gpus="device=0")
    os.kill(first.state.monitor, signal.SIGKILL)
    wait_for(lambda: box.containers.get(first.id).status == "dead", "the end of the monitor")
    with pytest.raises(ContainerError, match=f"0 is used by what {first.name} left running"):
        box.sh("true", gpus="device=0")
    assert box.sh("ls /dev", gpus="1")[1].count("nvidia0")
    box.containers.start(first.id).close()
    box.containers.remove(first.id, force=True)
    assert box.sh("true", gpus="device=0")[0] == 0


WAITER = """
import sys
from pathlib import Path
from mlbox.engine.granting import HostDevices
from mlbox.engine.running import _run
from mlbox.gpu.model import Roots
from mlbox.paths import Home
from mlbox.runtime.containers import Containers
home, host, folder, name = sys.argv[1:]
roots = Roots(**{part: f"{host}/{part}" for part in ("proc", "sys", "dev", "driver")})
containers = Containers(Home(Path(home)), granter=HostDevices(roots, Path(folder)))
sys.exit(_run(containers, containers.get(name), detach=False, say=print, tell=print))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_is_ended_while_it_waits_leaves_no_container(
    box: Box, host: FakeHost, tmp_path: Path, number: signal.Signals
) -> None:
    """One made with --rm, whose monitor would have removed it."""
    first = box.start("sleep", "60", gpus="all")
    waiting = box.create("true", gpus="1", gpu_wait=True, remove=True)
    command = [sys.executable, "-c", WAITER, str(box.home.root), str(host.root), str(tmp_path / "leases"), waiting.id]
    waiter = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(lambda: leases(folder=tmp_path / "leases").waiting, "a place in the queue")
    waiter.send_signal(number)
    assert waiter.wait(10) in (128 + signal.SIGTERM, -signal.SIGINT, 1)
    assert [one.id for one in box.containers.list()] == [first.id]
    box.containers.remove(first.id, force=True)


def test_starting_what_runs_waits_for_nothing(box: Box) -> None:
    """It has the GPU itself."""
    first = box.start("sleep", "60", gpus="all", gpu_wait=True)
    with pytest.raises(ContainerError, match="runs already"):
        box.containers.start(first.id)
    waiting = box.create("true", gpus="all", gpu_wait=True)
    removed: list[MlboxError] = []

    def start() -> None:
        try:
            box.containers.start(waiting.id)
        except MlboxError as problem:
            removed.append(problem)

    thread = threading.Thread(target=start)
    thread.start()
    wait_for(lambda: leases(folder=box.home.root.parent / "leases").waiting, "a place in the queue")
    box.containers.remove(waiting.id)
    box.containers.remove(first.id, force=True)
    thread.join(10)
    assert [type(problem) for problem in removed] == [NotFoundError]


def test_what_there_is_not_is_said_before_a_container_is_made(box: Box, home: Home) -> None:
    """No container is left of it."""
    with pytest.raises(ContainerError, match="this host has 3"):
        box.sh("true", gpus="4")
    box.containers = Containers(home, granter=HostDevices(FakeHost(home.root / "empty").roots))
    with pytest.raises(ContainerError, match="no GPU"):
        box.sh("true", gpus="1")
    assert box.sh("true", gpus="none")[0] == 0
    assert box.containers.list() == []


def test_the_drivers_parameters_forbid_to_make_nodes(box: Box, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a hook, since nothing else may mount in /proc; here over another file there, for want of a driver."""
    host.write("proc/driver/nvidia/params", "ResmanDebugLevel: 1\nModifyDeviceFiles: 1\n")
    monkeypatch.setattr(edits, "PARAMS", "proc/version")
    code, out, err = box.sh("cat /proc/version; echo x > /proc/version || echo kept", gpus="1")
    assert code == 0, err
    assert out.split("\n") == ["ResmanDebugLevel: 1", "ModifyDeviceFiles: 0", "kept", ""]


def test_musl_finds_the_libraries_too(box: Box) -> None:
    """By its path file; Debian's package of musl comes beside glibc."""
    loader = box.rootfs / "usr/lib/ld-musl-x86_64.so.1"
    loader.parent.mkdir(exist_ok=True)
    loader.write_bytes(b"musl")
    try:
        _, out, _ = box.sh("cat /etc/ld-musl-x86_64.path; head -c 20 /etc/ld.so.cache", gpus="1")
        assert out == f"/lib:/usr/local/lib:/usr/lib:{TARGET}\nglibc-ld.so.cache1.1"
    finally:
        loader.unlink()


def test_leases_are_listed(box: Box, host: FakeHost, tmp_path: Path) -> None:
    """By the names that --gpus takes."""
    container = box.start("sleep", "60", gpus="device=1,2")
    found = leases(host.roots, tmp_path / "leases")
    assert [(one.gpu, one.container, one.user) for one in found.leases] == [
        ("1", container.id, "root"),
        ("2", container.id, "root"),
    ]
    box.containers.remove(container.id, force=True)
    assert leases(host.roots, tmp_path / "leases").leases == ()


def test_podman_takes_what_cdi_says(box: Box, host: FakeHost, need: Callable[[str], str]) -> None:
    """Nodes and libraries of one GPU."""
    with (
        podman(need("podman")) as command,
        cdi_file("mlbox-test.json", msgspec.json.encode(cdi("compute", host.roots))),
    ):
        script = f"ls /dev; ls {TARGET}"
        done = subprocess.run(
            [*command, "--device=mlbox.dev/gpu=0", "--rootfs", str(box.rootfs), "sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    listed = done.stdout.split()
    assert {"nvidia2", "nvidiactl", "nvidia-uvm", "libcuda.so.1"} <= set(listed)
    assert not {"nvidia0", "nvidia1"} & set(listed)


def test_a_running_container_gives_gpus_back(box: Box, host: FakeHost, tmp_path: Path) -> None:
    """Its node is gone and denied, and who waited has it; the others stay, also when the program starts again."""
    free = partial(release, box.containers, roots=host.roots, folder=tmp_path / "leases")
    container = box.start("sleep", "60", gpus="2")
    with pytest.raises(ContainerError, match="does not have these GPUs, it has 0, 1"):
        free(container.id, ["2"])
    waiting: list[str] = []
    thread = threading.Thread(target=lambda: waiting.append(box.sh("ls /dev", gpus="device=1", gpu_wait=True)[1]))
    thread.start()
    time.sleep(0.3)
    assert waiting == []
    assert free(container.id, ["1"]) == ("1",)
    thread.join(120)
    assert "nvidia0" in waiting[0].split()
    listed = Path(f"/proc/{container.state.pid}/root/dev").iterdir()
    assert {path.name for path in listed} & {"nvidia0", "nvidia1", "nvidia2"} == {"nvidia2"}
    assert verify(box.containers, container.id).problems == ()
    assert [one.gpu for one in leases(host.roots, tmp_path / "leases").leases] == ["0"]
    assert free(container.id) == ("0",)
    with pytest.raises(ContainerError, match="it has none"):
        free(container.id)
    box.containers.remove(container.id, force=True)


def test_what_is_open_is_not_given_back(
    box: Box, host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But with --force; a GPU that was given by its node alone is no lease."""
    free = partial(release, box.containers, roots=host.roots, folder=tmp_path / "leases")
    container = box.start("sleep", "60", gpus="1")
    held = (hotplug.Holder(pid=7, name="python", path="/dev/nvidia2"),)
    with monkeypatch.context() as patch:
        patch.setattr(hotplug, "holders", lambda *_: held)
        with pytest.raises(ContainerError, match=r"open in python \(7\)"):
            free(container.id)
        assert len(leases(host.roots, tmp_path / "leases").leases) == 1
        assert free(container.id, force=True) == ("0",)
    attach(box.containers, container.id, [str(host.root / "dev/nvidia1")])
    with pytest.raises(ContainerError, match="holds no lease of it"):
        free(container.id)
    box.containers.remove(container.id, force=True)


def test_users_have_limits(
    box: Box, home: Home, host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of who called through sudo, in all containers together; leases say until when, and that nothing uses them."""
    table = tmp_path / "gpus.toml"
    table.write_text('[default]\ngpus = 2\ntime = "1h"\nshare = false\n')
    devices = HostDevices(host.roots, tmp_path / "leases", limits=table)
    box.containers = Containers(home, granter=devices)
    assert box.sh("true", gpus="3")[0] == 0
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.setenv("SUDO_GID", "65534")
    for options, why in (
        ({"gpus": "3", "time_limit": 60.0}, "2 GPUs at once, not 3"),
        ({"gpus": "all", "time_limit": 60.0}, "2 GPUs at once, not 3"),
        ({"gpus": "1"}, "nobody may have GPUs for 1h at most"),
        ({"gpus": "1", "time_limit": 60.0, "gpu_share": True}, "may not share"),
    ):
        with pytest.raises(ContainerError, match=why):
            box.create("true", **options)
    first = box.start("sleep", "60", gpus="2", time_limit=1800.0)
    with pytest.raises(ContainerError, match="nobody has 2 GPUs and may have 2"):
        box.start("sleep", "60", gpus="1", time_limit=60.0)
    node = str(host.root / "dev/nvidia1")
    with pytest.raises(ContainerError, match="nobody may not have GPUs by their nodes"):
        box.create("true", devices=(node,))
    with pytest.raises(ContainerError, match="nobody may not have GPUs by their nodes"):
        attach(box.containers, first.id, [node], limits=table, roots=host.roots)
    assert box.sh("true", devices=(str(host.root / "dev/nvidiactl"),))[0] == 0
    one, two = leases(host.roots, tmp_path / "leases").leases
    assert (one.user, one.idle, one.busy) == ("nobody", True, None)
    assert two.until is not None and 1700 < two.until - time.time() <= 1800
    for container in box.containers.list():
        box.containers.remove(container.id, force=True)


def test_a_driver_that_was_updated_under_the_module_is_refused(box: Box, host: FakeHost) -> None:
    """Every program would fail with a mismatch; the refusal says what mends it."""
    for path in (host.root / "driver/usr/lib/x86_64-linux-gnu").glob("*.550.54.14"):
        path.rename(path.with_name(path.name.replace("550.54.14", "560.35.03")))
    with pytest.raises(ContainerError, match=r"libraries are 560\.35\.03, its kernel module is 550\.54\.14"):
        box.sh("true", gpus="1")


def test_who_waits_and_is_killed_leaves_nothing(box: Box, host: FakeHost, tmp_path: Path) -> None:
    """Neither a container that was never started nor its name; of one without --rm, the container."""
    held = box.start("sleep", "60", gpus="all")
    made = [box.create("true", gpus="1", gpu_wait=True, remove=remove) for remove in (True, False)]
    command = [sys.executable, "-c", WAITER, str(box.home.root), str(host.root), str(tmp_path / "leases")]
    waiters = [subprocess.Popen([*command, one.id], stderr=subprocess.DEVNULL) for one in made]
    wait_for(lambda: leases(folder=tmp_path / "leases").waiting == 2, "places in the queue")
    box.containers.reconcile()
    assert len(box.containers.list()) == 3, "they live"
    for waiter in waiters:
        waiter.kill()
        waiter.wait(10)
    box.containers.reconcile()
    assert {one.name for one in box.containers.list()} == {held.name, made[1].name}
    box.containers.remove(made[1].id)
    box.containers.remove(held.id, force=True)


def test_a_user_namespace_is_said_plainly(box: Box, host: FakeHost, tmp_path: Path) -> None:
    """Where nothing enforces the rules."""
    said: list[str] = []
    host.write("proc/self/uid_map", "0 1000 1")
    box.containers = Containers(box.home, granter=HostDevices(host.roots, tmp_path / "leases", said.append))
    box.sh("true", gpus="1")
    assert any("only which GPUs are seen is isolated" in line for line in said)


def test_nothing_of_the_driver_is_made_in_a_folder_of_the_user(box: Box, tmp_path: Path) -> None:
    """Mounted over /usr, the libraries lie elsewhere; a program has no place then, and that is said."""
    usr, said = tmp_path / "usr", []
    usr.mkdir()
    box.containers = Containers(
        box.home,
        granter=HostDevices(box.containers._granter._roots, tmp_path / "leases", said.append),  # type: ignore[union-attr]
    )
    mount = BindMount(source=str(usr), target="/usr", owner="keep")
    code, out, err = box.sh("ls /opt/mlbox/nvidia", gpus="1", mounts=(mount,))
    assert code == 0, err
    assert "libcuda.so.1" in out
    assert list(usr.iterdir()) == []
    assert any("/usr/bin/nvidia-smi of the driver is left out" in line for line in said)
    mount = BindMount(source=str(usr), target="/etc", owner="keep")
    code, out, err = box.sh("echo $LD_LIBRARY_PATH", gpus="1", mounts=(mount,), env={"LD_LIBRARY_PATH": "/opt/x"})
    assert (code, out) == (0, f"{TARGET}:/opt/x\n"), err
    assert not (usr / "ld.so.cache").exists()
