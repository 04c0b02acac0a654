"""Why a container failed: what is known of it, of its image and of this host."""

import os
import re
import resource
import socket
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.fatbin import cuda_library
from fakes.gpu import FakeHost
from fakes.images import lock_of, package
from fakes.nvml import FakeNvml
from fakes.trees import make_image, make_layer

from mlbox.engine import explaining
from mlbox.engine.explaining import LONGEST, end_of, explain_container, explain_output, explain_session, output_of
from mlbox.engine.facts import KNOWN
from mlbox.errors import NotFoundError
from mlbox.gpu.failures import Explanation, failure_table
from mlbox.lock.file import encode_lock
from mlbox.oci.artifact import LOCK_TYPE, artifact_of, subject_of
from mlbox.oci.image import Image
from mlbox.oci.runtime import Device, Linux, Mount, Process, Rlimit, Root, Spec, User
from mlbox.paths import Home
from mlbox.runtime import frames
from mlbox.runtime.containers import Containers
from mlbox.runtime.log import LogWriter
from mlbox.runtime.options import BindMount, RunOptions
from mlbox.runtime.record import Container, State
from mlbox.runtime.session import Session
from mlbox.store.store import Store

SITE = "opt/mlbox/env/lib/python3.11/site-packages"
FILES = {
    f"{SITE}/torch/lib/libtorch_cuda.so": cuda_library(("sass", 80, ""), times=20),
    f"{SITE}/helpers/__init__.py": b"",
    "workspace/src/mine/__init__.py": b"",
}
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB\n"
WORKER = "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Bus error.\n"


@pytest.fixture
def store(home: Home) -> Store:
    return Store(home)


@pytest.fixture
def image(store: Store) -> Image:
    """An image of numpy for A100, with its lock and a module of the project."""
    made = make_image(store, make_layer(store, "env", FILES))
    lock = encode_lock(lock_of(package("numpy"), package("opencv-python-headless")))
    store.referrers.add(artifact_of(LOCK_TYPE, lock), subject_of(made.digest, made.manifest_bytes))
    return made


@pytest.fixture
def containers(home: Home) -> Containers:
    return Containers(home)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """An H200 whose driver came with CUDA 12.4."""
    made = FakeHost(tmp_path / "host")
    made.nvidia(0)
    return made


def failed(
    containers: Containers,
    image: Image,
    said: str,
    *,
    spec: Spec | None = None,
    state: State | None = None,
    **options: Any,
) -> Container:
    """Return a container that said this and ended."""
    made = containers.create(image.digest, "job:1", image.config, [], RunOptions(name="job", **options))
    folder = containers.files(made)
    log = LogWriter(folder.log, 1 << 20)
    log.write("stderr", said.encode())
    log.close()
    if spec:
        folder.write("bundle/config.json", msgspec.json.encode(spec))
    folder.save_state(state or State(status="exited", exit_code=1))
    return containers.get(made.id)


def why(containers: Containers, image: Image, said: str, host: FakeHost | None = None, **options: Any) -> Explanation:
    """Explain such a container."""
    failed(containers, image, said, **options)
    found = explain_container(containers, "job", host.roots if host else None)
    assert found is not None
    return found


def spec(*, shm: int = 1 << 26, memlock: int = 8 << 20, devices: tuple[Device, ...] = ()) -> Spec:
    """Return what such a container ran by."""
    process = Process(
        args=("python",),
        cwd="/",
        user=User(uid=0, gid=0),
        rlimits=(
            Rlimit(type="RLIMIT_MEMLOCK", soft=memlock, hard=memlock),
            Rlimit(type="RLIMIT_NOFILE", soft=9, hard=9),
        ),
    )
    mount = Mount(destination="/dev/shm", type="tmpfs", source="shm", options=("nosuid", f"size={shm}"))
    return Spec(
        oci_version="1.0.2", root=Root(path="/"), process=process, mounts=(mount,), linux=Linux(devices=devices)
    )


def test_every_fact_that_the_table_names_is_one() -> None:
    """Of the line, the container, the image or the host."""
    for failure in failure_table().failure:
        groups = set(re.compile(failure.pattern).groupindex)
        for case in failure.case:
            assert {*case.facts, *case.when} <= KNOWN | groups, failure.id


def test_shared_memory(containers: Containers, image: Image) -> None:
    """As large as its spec says, else as its options do."""
    found = why(containers, image, WORKER, spec=spec())
    assert "it holds 67.1 MB" in found.cause and "--shm-size 128m" in found.fix
    assert "--name" not in found.fix


def test_shared_memory_of_a_container_that_is_gone(containers: Containers, image: Image) -> None:
    """Its session has what it said, and its spec was kept."""
    container = failed(containers, image, "", shm_size=5 << 30, memory=16 << 30)
    ours, theirs = socket.socketpair()
    session = Session(ours)
    session.tail += WORKER.encode()
    session.ended = frames.Ended(exit_code=1)
    assert (found := explain_session(containers, container, b"", session)) is not None
    assert "it holds 5.4 GB" in found.cause and "--shm-size 10g" in found.fix
    half = msgspec.json.encode(spec(shm=8 << 30))
    assert (found := explain_session(containers, container, half, session)) is not None
    assert "it holds 8.6 GB" in found.cause and "no memory for twice as much" in found.fix
    session._interrupts = 1
    assert explain_session(containers, container, b"", session) is None
    session.close()
    theirs.close()


def test_locked_memory(containers: Containers, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the container or the host is too strict."""
    said = "n:8:9 [0] transport/net_ib.cc:812 NCCL WARN Call to ibv_reg_mr failed with error Cannot allocate memory\n"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 << 20, 8 << 20))
    failed(containers, image, said, spec=spec())
    assert (found := explain_container(containers, "job")) is not None and "the host lets nobody" in found.cause
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 << 20, -1))
    assert (found := explain_container(containers, "job")) is not None and found.fix.startswith("--ulimit memlock=-1")
    unlimited = spec(memlock=2**64 - 1)
    containers.files(containers.get("job")).write("bundle/config.json", msgspec.json.encode(unlimited))
    assert explain_container(containers, "job") is None


def test_killed_for_memory(containers: Containers, image: Image) -> None:
    """Its limit, and a larger one."""
    state = State(status="exited", exit_code=137, oom_killed=True)
    found = why(containers, image, "step 5\n", state=state, memory=1 << 30)
    assert "1.1 GB" in found.cause and "--memory 2048m" in found.fix
    containers.remove("job")
    found = why(containers, image, "step 5\n", state=state, memory=1 << 50)
    assert "does not have twice as much" in found.fix


def test_killed_after_its_time(containers: Containers, image: Image) -> None:
    """By the monitor, not by somebody."""
    state = State(status="exited", exit_code=137, timed_out=True)
    found = why(containers, image, "step 5\n", state=state, time_limit=60.0, stop_timeout=3.0)
    assert "in the 3 s" in found.cause and "SIGTERM" in found.fix


def test_a_driver_that_was_updated(containers: Containers, image: Image, tmp_path: Path) -> None:
    """Both versions are said."""
    host = FakeHost(tmp_path / "host")
    host.nvidia(0, libraries="550.90.07")
    found = why(containers, image, "Failed to initialize NVML: Driver/library version mismatch\n", host)
    assert "are 550.90.07, its kernel module is 550.54.14" in found.cause


def test_an_image_for_other_gpus(containers: Containers, image: Image, host: FakeHost) -> None:
    """As `mlbox check` says it."""
    said = "RuntimeError: CUDA error: no kernel image is available for execution on the device\n"
    information = Path(host.roots.proc, "driver/nvidia/gpus/0000:01:00.0/information")
    information.write_text(information.read_text().replace("H200", "GeForce GTX 1080"))
    failed(containers, image, said)
    found = explain_container(containers, "job", host.roots)
    assert found is not None and "libtorch_cuda.so has no code for sm_61" in found.cause
    assert "lock torch>=2.7,<2.8" in found.fix


def test_a_libcuda_of_the_image(containers: Containers, image: Image, host: FakeHost) -> None:
    """Is for data-centre GPUs: on others that is the cause, on them it is something else."""
    failed(containers, image, "RuntimeError: forward compatibility was attempted on non supported HW\n")
    assert explain_container(containers, "job", host.roots) is None
    information = Path(host.roots.proc, "driver/nvidia/gpus/0000:01:00.0/information")
    information.write_text(information.read_text().replace("H200", "GeForce RTX 3090"))
    found = explain_container(containers, "job", host.roots)
    assert found is not None and "not for NVIDIA GeForce RTX 3090" in found.cause and "runs: 12.4" in found.fix


def test_a_container_without_gpus(containers: Containers, image: Image) -> None:
    """The commonest of all."""
    found = why(containers, image, "RuntimeError: Found no NVIDIA driver on your system. Please check\n")
    assert found.fix == "--gpus 1"


def test_torch_for_processors(containers: Containers, image: Image, host: FakeHost) -> None:
    """What this host's driver runs is proposed."""
    found = why(containers, image, "AssertionError: Torch not compiled with CUDA enabled\n", host)
    assert 'accelerator = "cu124"' in found.fix and "550.54.14" in found.fix


def test_who_else_has_memory(
    containers: Containers, image: Image, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the GPUs that the container had, not of others."""
    device = Device(path="/dev/nvidia0", type="c", major=195, minor=0)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(host, processes={0: {os.getpid(): 80 << 30}}))
    failed(containers, image, OOM, spec=spec(devices=(device,)))
    found = explain_container(containers, "job", host.roots)
    assert found is not None and f"({os.getpid()}, 85.9 GB)" in found.cause
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(host))
    found = explain_container(containers, "job", host.roots)
    assert found is not None and "(150.1 GB) was full, and nobody else" in found.cause
    containers.files(containers.get("job")).write("bundle/config.json", msgspec.json.encode(spec()))
    assert explain_container(containers, "job", host.roots) is None


def test_modules(containers: Containers, image: Image) -> None:
    """In the lock, in the image, or in neither."""
    no = "ModuleNotFoundError: No module named '{}'\n"
    failed(containers, image, no.format("sklearn"))
    log = containers.files(containers.get("job")).log

    def say(module: str) -> Explanation | None:
        log.unlink()
        writer = LogWriter(log, 1 << 20)
        writer.write("stderr", no.format(module).encode())
        writer.close()
        return explain_container(containers, "job")

    assert (found := explain_container(containers, "job")) is not None and "add scikit-learn" in found.fix
    assert (found := say("mine")) is not None and found.fix.startswith("-e PYTHONPATH=/workspace/src,")
    assert (found := say("nobody_knows")) is not None and "has no package nobody_knows" in found.cause
    assert say("cv2") is None and say("helpers") is None and say("numpy.core") is None


def test_a_mount_that_may_not_be_written(containers: Containers, image: Image, tmp_path: Path) -> None:
    """The host's folder, whose it is, and who the program is."""
    (tmp_path / "data/in").mkdir(parents=True)
    os.chown(tmp_path / "data/in", 4321, 4322)
    (tmp_path / "data/in").chmod(0o750)
    mount = BindMount(source=str(tmp_path / "data"), target="/data")
    said = "PermissionError: [Errno 13] Permission denied: '/data/in/new/x.pt'\n"
    found = why(containers, image, said, mounts=(mount,), user="nobody")
    assert f"{tmp_path}/data/in of the host, which belongs to 4321:4322 (mode 750)" in found.cause
    assert found.cause.endswith("as nobody") and "--user 4321:4322" in found.fix


def test_what_lies_in_no_mount_is_not_explained(containers: Containers, image: Image, tmp_path: Path) -> None:
    """Nor what climbs out of it."""
    mount = BindMount(source=str(tmp_path), target="/data")
    failed(containers, image, "PermissionError: [Errno 13] Permission denied: '/database/x'\n", mounts=(mount,))
    assert explain_container(containers, "job") is None
    containers.remove("job")
    failed(containers, image, "PermissionError: [Errno 13] Permission denied: '/data/../etc/shadow'\n", mounts=(mount,))
    assert explain_container(containers, "job") is None


def test_read_only_mounts_and_roots(containers: Containers, image: Image, tmp_path: Path) -> None:
    """Which of them it was."""
    mount = BindMount(source=str(tmp_path), target="/data", readonly=True)
    said = "OSError: [Errno 30] Read-only file system: '{}'\n"
    found = why(containers, image, said.format("/data/x"), mounts=(mount,), read_only=True)
    assert "mounted read-only" in found.cause
    containers.remove("job")
    assert "--tmpfs" in why(containers, image, said.format("/cache/x"), mounts=(mount,), read_only=True).fix


def test_who_has_the_port(containers: Containers, image: Image) -> None:
    """A program of the host, while it listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = f"error while attempting to bind on address ('0.0.0.0', {port}): address already in use\n"
        found = why(containers, image, f"OSError: [Errno 98] {said}")
        assert f"port {port} is used by " in found.cause and f"({os.getpid()})" in found.cause
    after = explain_container(containers, "job")
    assert after is not None and "was used by another program" in after.cause


def test_output_of_other_programs(containers: Containers, tmp_path: Path, host: FakeHost) -> None:
    """Of a file or a pipe: only what needs no container is said."""
    assert (found := explain_output(containers, WORKER)) is not None and "Docker" in found.cause
    line = "[12.3] NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
    assert (found := explain_output(containers, line)) is not None and "fallen off the bus" in found.cause
    assert explain_output(containers, line.replace("79", "999")) is None
    assert explain_output(containers, OOM, host.roots) is None
    assert explain_output(containers, "all is well\n") is None
    assert not containers.home.root.exists()


def test_only_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file, of a pipe, and of a log."""
    path = tmp_path / "big"
    path.write_bytes(b"x" * (4 * LONGEST) + b"the end")
    assert len(text := output_of(path)) == LONGEST and text.endswith("the end")

    class Pipe(BytesIO):
        def seekable(self) -> bool:
            return False

    assert end_of(Pipe(path.read_bytes())) == text
    with pytest.raises(NotFoundError, match="neither a container nor a file"):
        output_of(tmp_path / "none")


def test_a_damaged_spec_is_no_harm(containers: Containers, image: Image) -> None:
    """Nothing is said that it would have told."""
    container = failed(containers, image, OOM)
    containers.files(container).write("bundle/config.json", b"{")
    assert explain_container(containers, "job") is None
    assert explaining._spec(b"\xff") is None
