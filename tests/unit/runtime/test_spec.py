"""A spec follows from an image, options and a host; everything not asked for is closed."""

import os
from pathlib import Path

import msgspec
import pytest

from mlbox.codec import decode_json
from mlbox.errors import ContainerError
from mlbox.oci.image import ContainerConfig
from mlbox.oci.runtime import Rlimit, Spec
from mlbox.runtime import spec as s
from mlbox.runtime.account import Account
from mlbox.runtime.options import BindMount, RunOptions, TmpfsMount, Ulimit

GOLDEN = Path(__file__).parents[2] / "golden/runtime"
HOST = s.HostFacts(
    memory=32 << 30,
    hostname="gpu7",
    limits={"memlock": (8 << 20, 8 << 20), "nofile": (1024, 20000), "stack": (8 << 20, -1), "core": (0, -1)},
    cpus=8,
    init="/usr/bin/tini-static",
)
PLACE = s.Place(rootfs="/home/c/rootfs", folder="/home/c", cgroup="/mlbox/c")
IMAGE = ContainerConfig(
    user="worker",
    env=("PATH=/opt/mlbox/env/bin:/bin", "LANG=C.UTF-8"),
    entrypoint=("python",),
    cmd=("-m", "train"),
    working_dir="/workspace/",
)
WORKER = Account(uid=1000, gid=1001, groups=(44,), home="/home/worker")


DEFAULTS = RunOptions()


def made(options: RunOptions = DEFAULTS, config: ContainerConfig = IMAGE, account: Account = WORKER) -> Spec:
    """Return the spec of a container on the test's host."""
    return s.make_spec(config, options, HOST, PLACE, id="c" * 64, account=account)


EVERYTHING = RunOptions(
    command=("-c", "pass"),
    env={"LANG": "de_DE", "EXTRA": "1"},
    workdir="/tmp",
    hostname="box",
    tty=True,
    read_only=True,
    mounts=(
        BindMount(source="/data/deep", target="/data/deep"),
        BindMount(source="/data", target="/data", readonly=True),
        TmpfsMount(target="/scratch", size=1 << 20, mode=0o700),
    ),
    network="none",
    cpus=1.5,
    memory=1 << 30,
    memory_swap=-1,
    pids_limit=100,
    ulimits=(Ulimit(name="nofile", soft=10, hard=1 << 20),),
    cap_add=("net_raw",),
    cap_drop=("CAP_KILL",),
    security_opt=("no-new-privileges=false", "seccomp=unconfined"),
    init=True,
)


@pytest.mark.parametrize(("name", "options"), [("default", RunOptions()), ("everything", EVERYTHING)])
def test_golden(name: str, options: RunOptions) -> None:
    """The whole document, less the system call table; MLBOX_UPDATE_GOLDEN=1 writes it anew."""
    spec = made(options)
    assert spec.linux
    spec = msgspec.structs.replace(spec, linux=msgspec.structs.replace(spec.linux, seccomp=None))
    text = msgspec.json.format(msgspec.json.encode(spec), indent=2) + b"\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("MLBOX_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    assert text.decode() == path.read_text()
    assert decode_json(text, Spec, what=name) == spec


def test_closed_by_default() -> None:
    """Devices, capabilities, privileges, system calls, kernel files: shut unless a user opens them."""
    spec = made(account=Account())
    assert spec.process and spec.linux and spec.linux.resources and spec.linux.seccomp
    assert spec.process.no_new_privileges
    first, *rules = spec.linux.resources.devices
    assert (first.allow, first.type, first.major, first.access) == (False, None, None, "rwm")
    assert all(rule.allow and rule.type == "c" and rule.major in (1, 5, 136) for rule in rules)
    assert all(rule.minor is not None or rule.major == 136 for rule in rules)
    held = spec.process.capabilities
    assert held and held.bounding == held.effective == held.permitted == s.CAPABILITIES
    assert held.ambient == held.inheritable == ()
    assert {"pid", "ipc", "uts", "mount", "cgroup"} == {one.type for one in spec.linux.namespaces}
    assert spec.linux.seccomp.default_action == "SCMP_ACT_ERRNO"
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(spec.linux.masked_paths)
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(spec.linux.readonly_paths)
    for mount in spec.mounts:
        assert "nosuid" in mount.options
        assert "nodev" in mount.options or mount.destination in ("/dev", "/dev/pts")
    assert "ro" in next(mount.options for mount in spec.mounts if mount.destination == "/sys")


def test_another_user_has_no_powers() -> None:
    """Only what was added by name is there for a user that is not root."""
    process = made().process
    assert process and process.capabilities
    assert process.capabilities.effective == ()
    process = made(RunOptions(cap_add=("SYS_NICE",))).process
    assert process and process.capabilities
    assert process.capabilities.ambient == process.capabilities.effective == ("CAP_SYS_NICE",)


def test_image_environment_widens_nothing() -> None:
    """Variables of an image are for its program; the spec around it is the same."""
    loud = ContainerConfig(cmd=("x",), env=("NVIDIA_VISIBLE_DEVICES=all", "LD_PRELOAD=/x.so"))
    quiet, wide = made(config=ContainerConfig(cmd=("x",))), made(config=loud)
    assert wide.linux == quiet.linux
    assert wide.mounts == quiet.mounts
    assert wide.hooks is None


@pytest.mark.parametrize(
    ("options", "argv"),
    [
        (RunOptions(), ("python", "-m", "train")),
        (RunOptions(command=("x", "y")), ("python", "x", "y")),
        (RunOptions(entrypoint=("sh",)), ("sh",)),
        (RunOptions(entrypoint=("sh",), command=("-c", "x")), ("sh", "-c", "x")),
        (RunOptions(entrypoint=("",), command=("x",)), ("x",)),
        (RunOptions(entrypoint=(), command=("x",)), ("x",)),
    ],
)
def test_command(options: RunOptions, argv: tuple[str, ...]) -> None:
    """Docker's rules for entrypoint and command."""
    assert s.command(IMAGE, options) == argv


def test_shared_memory_is_half() -> None:
    """Of the limit, else of the machine; or what was asked."""
    sizes = (
        (RunOptions(), 16 << 30),
        (RunOptions(memory=1 << 30), 1 << 29),
        (RunOptions(shm_size=7 << 20, memory=1 << 30), 7 << 20),
    )
    for options, size in sizes:
        (shm,) = (mount for mount in made(options).mounts if mount.destination == "/dev/shm")
        assert f"size={size}" in shm.options


def test_a_mount_replaces_a_standard_one() -> None:
    """A user's own /dev/shm is the only one; two of a user's at one place are an error."""
    mine = BindMount(source="/x", target="/dev/shm")
    found = [mount for mount in made(RunOptions(mounts=(mine,))).mounts if mount.destination == "/dev/shm"]
    assert [mount.source for mount in found] == ["/x"]
    with pytest.raises(ContainerError, match="same target"):
        made(RunOptions(mounts=(mine, mine)))


@pytest.mark.parametrize(
    ("soft", "hard", "most", "expected"),
    [(5, 9, -1, (5, 9)), (5, 9, 7, (5, 7)), (8, 9, 7, (7, 7)), (-1, -1, 7, (7, 7)), (3, -1, -1, (3, 2**64 - 1))],
)
def test_limits_are_clamped(soft: int, hard: int, most: int, expected: tuple[int, int]) -> None:
    """Never above what the host allows: raising a limit may be forbidden even to root."""
    host = msgspec.structs.replace(HOST, limits={"nofile": (0, most)})
    limit = s.clamp(Ulimit(name="nofile", soft=soft, hard=hard), host)
    assert limit == Rlimit(type="RLIMIT_NOFILE", soft=expected[0], hard=expected[1])


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/proc/self/fd/8", "//proc/1", "/./proc", "/proc"])
def test_working_directories_that_are_none(path: str) -> None:
    """Absolute, without '..', and never through /proc."""
    with pytest.raises(ContainerError, match="working directory"):
        s.working_dir(path)


@pytest.mark.parametrize(
    "options",
    [
        RunOptions(memory=1 << 20),
        RunOptions(memory_swap=1 << 30),
        RunOptions(memory=1 << 30, memory_swap=1 << 20),
        RunOptions(cpus=9),
        RunOptions(cpus=0),
        RunOptions(cap_add=("ALL",)),
        RunOptions(cap_add=("no such",)),
        RunOptions(security_opt=("label=x",)),
        RunOptions(security_opt=("seccomp=a", "seccomp=b")),
        RunOptions(security_opt=("no-new-privileges=perhaps",)),
        RunOptions(command=("a\0b",)),
        RunOptions(workdir="x"),
    ],
)
def test_what_cannot_be(options: RunOptions) -> None:
    """A clear error, with Docker's code for it."""
    with pytest.raises(ContainerError) as caught:
        made(options)
    assert caught.value.exit_code == 125


def test_no_command_and_no_init() -> None:
    """Both say what to do."""
    with pytest.raises(ContainerError, match="no command") as caught:
        made(config=ContainerConfig())
    assert caught.value.hint
    with pytest.raises(ContainerError, match="init") as caught:
        bare = msgspec.structs.replace(HOST, init="")
        s.make_spec(IMAGE, RunOptions(init=True), bare, PLACE, id="c" * 64, account=WORKER)
    assert caught.value.hint


def test_swap_is_left_out_where_it_cannot_be_limited() -> None:
    """Version 1 without swap accounting has no such file."""
    host = msgspec.structs.replace(HOST, swap_limit=False)
    spec = s.make_spec(IMAGE, RunOptions(memory=1 << 30), host, PLACE, id="c" * 64, account=WORKER)
    assert spec.linux and spec.linux.resources and spec.linux.resources.memory
    assert (spec.linux.resources.memory.limit, spec.linux.resources.memory.swap) == (1 << 30, None)


def test_a_host_without_controllers() -> None:
    """Defaults adapt, what was asked for is an error that names the controller."""
    host = msgspec.structs.replace(HOST, controllers=frozenset())
    spec = s.make_spec(IMAGE, RunOptions(), host, PLACE, id="c" * 64, account=WORKER)
    assert spec.linux and spec.linux.resources
    assert spec.linux.resources.pids is None
    for options in (RunOptions(pids_limit=5), RunOptions(memory=1 << 30), RunOptions(cpus=1)):
        with pytest.raises(ContainerError, match="no cgroup controller"):
            s.make_spec(IMAGE, options, host, PLACE, id="c" * 64, account=WORKER)


def test_environment() -> None:
    """The options win over the image, the image over the defaults; a variable is there once."""
    env = made(RunOptions(env={"LANG": "x", "PATH": "/p"})).process
    assert env
    lines = dict(line.split("=", 1) for line in env.env)
    assert lines == {"PATH": "/p", "HOSTNAME": "gpu7", "HOME": "/home/worker", "LANG": "x"}
    assert s.environment_of(("A=1", "B=2"), {"A": "3", "C": "x=y"}) == ("A=3", "B=2", "C=x=y")
