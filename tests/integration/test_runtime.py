"""Containers for real: runc, overlay, control groups, terminals; on a root file system of busybox."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fakes.containers import EXEC, RUN, Box, Terminal, boxed, busybox_rootfs, groups_of, monitors_of, wait_for

from mlbox.build.step import Bind, Step
from mlbox.errors import BuildError, ContainerError, NotFoundError
from mlbox.linux import cgroup
from mlbox.linux.mount import mount, umount
from mlbox.linux.process import name_of, start_time
from mlbox.oci.image import ContainerConfig
from mlbox.paths import Home
from mlbox.runtime import containers, frames, monitor
from mlbox.runtime.log import LogWriter
from mlbox.runtime.options import BindMount, Restart, RunOptions, TmpfsMount, Ulimit
from mlbox.runtime.record import Folder, State, timestamp
from mlbox.runtime.rootfs import remove_tree
from mlbox.runtime.session import Session, connect
from mlbox.runtime.step import ContainerSteps

pytestmark = pytest.mark.integration
FOREVER = ("sh", "-c", "echo ready; while :; do sleep 1; done")


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One root file system for all tests: nothing may write to it."""
    import shutil

    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    return busybox_rootfs(tmp_path_factory.mktemp("image") / "root", busybox)


@pytest.fixture
def box(home: Home, rootfs: Path, need: Callable[[str], str]) -> Iterator[Box]:
    """Containers of busybox, and a check that nothing of them is left."""
    need("runc")
    need("busybox")
    before = sorted(str(path) for path in rootfs.rglob("*"))
    with boxed(home, rootfs) as found:
        yield found
    assert sorted(str(path) for path in rootfs.rglob("*")) == before


def driver(box: Box, name: str, script: str = RUN, tty: str = "-", verb: str = "start") -> list[str]:
    """Return the command of a small client."""
    return ["-c", script, str(box.home.root), name, tty, verb]


def spawn(box: Box, name: str, **options: int) -> "subprocess.Popen[bytes]":
    """Start a client whose three files are pipes."""
    return subprocess.Popen(
        [sys.executable, *driver(box, name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


# Running and ending.


def test_output_streams_and_exit_code(box: Box) -> None:
    """Both streams come apart, the code is the program's, and with --rm nothing is left when the client knows it."""
    assert box.sh("echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")
    assert box.containers.list() == []
    assert list((box.home.containers / "names").iterdir()) == []


@pytest.mark.parametrize(
    ("command", "code"), [(("nosuch",), 127), (("/bin/missing",), 127), (("/etc/passwd",), 126), (("/etc",), 126)]
)
def test_a_program_that_cannot_run(box: Box, command: tuple[str, ...], code: int) -> None:
    """Docker's codes for what is not there and what is no program; the message names it."""
    with pytest.raises(ContainerError, match=command[0]) as caught:
        box.run(*command)
    assert caught.value.exit_code == code


def test_unknown_user_and_missing_layers_are_125(box: Box) -> None:
    """What mlbox cannot do is 125, and leaves a container that can be removed."""
    with pytest.raises(ContainerError, match="no user 'nobody-here'") as caught:
        box.run("true", user="nobody-here")
    assert caught.value.exit_code == 125
    with pytest.raises(ContainerError, match="root file system"):
        box.run("true", lower=[box.rootfs, box.rootfs / "nowhere"])


def test_state_and_log_stay(box: Box) -> None:
    """An ended container tells its code, times and output, and can be started again."""
    container = box.start("sh", "-c", "echo one; echo two >&2; echo $(cat /n 2>/dev/null)x > /n; cat /n; exit 3")
    assert box.containers.wait(container.name) == 3
    ended = box.containers.get(container.short_id)
    assert (ended.status, ended.state.exit_code, ended.state.oom_killed) == ("exited", 3, False)
    assert container.record.created < ended.state.started < ended.state.finished < timestamp()
    assert {(line.stream, line.log) for line in box.containers.logs(container.id)} == {
        ("stdout", "one\n"),
        ("stderr", "two\n"),
        ("stdout", "x\n"),
    }
    box.containers.start(container.name).close()
    assert box.containers.wait(container.name) == 3
    assert sorted(line.log for line in box.containers.logs(container.id, tail=3)) == ["one\n", "two\n", "xx\n"]


def test_input_reaches_its_end(box: Box) -> None:
    """More than any pipe holds goes in and comes out unchanged, and the end of input is the program's too."""
    container = box.create("cat", interactive=True, remove=True)
    client = spawn(box, container.name)
    data = os.urandom(3_000_000)
    out, err = client.communicate(data)
    assert (client.returncode, out == data, err) == (0, True, b"")


def test_no_input_unless_asked(box: Box) -> None:
    """Without -i the program's input is empty, whatever the client has."""
    container = box.create("cat", remove=True)
    client = spawn(box, container.name)
    assert client.communicate(b"data") == (b"", b"")


def test_a_reader_that_leaves_ends_the_program(box: Box) -> None:
    """`mlbox run ... | head`: the program does not go on for ever behind a closed pipe."""
    container = box.create("yes", remove=True)
    client = spawn(box, container.name)
    with client:
        assert client.stdout and client.stdin
        client.stdout.read(10)
        client.stdout.close()
        client.stdin.close()
        assert client.wait() == 137


def test_overlay_of_sixty_layers(box: Box, tmp_path: Path) -> None:
    """The upper layers win, and long paths with the option syntax's own characters do not matter."""
    layers = []
    for number in range(60):
        layer = tmp_path / f"a,b:c\\{'x' * 100}{number}"
        layer.mkdir()
        (layer / "number").write_text(str(number))
        (layer / f"file{number}").touch()
        layers.append(layer)
    code, out, _ = box.sh("cat number; ls | grep -c file", lower=[box.rootfs, *layers])
    assert (code, out) == (0, "5960\n")


# Signals.


def test_signals_are_forwarded(box: Box) -> None:
    """What the client is sent, the program is sent."""
    container = box.create("sh", "-c", "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    client = spawn(box, container.name)
    assert client.stdout
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(signal.SIGTERM)
    assert client.communicate()[0] == b"got\n"
    assert client.returncode == 5


def test_the_third_interrupt_kills(box: Box) -> None:
    """A first process without a handler ignores interrupts; the third time means it."""
    container = box.create(*FOREVER)
    client = spawn(box, container.name)
    assert client.stdout
    assert client.stdout.readline() == b"ready\n"
    session = box.containers.attach(container.name)
    for _ in range(2):
        client.send_signal(signal.SIGINT)
        assert session.wait(0.1) is None
    client.send_signal(signal.SIGINT)
    assert session.wait() == 137
    session.close()
    client.communicate()
    assert client.returncode == 137


def test_stop_asks_then_kills(box: Box) -> None:
    """The image's stop signal first, SIGKILL when the time is over."""
    config = ContainerConfig(stop_signal="SIGUSR1")
    script = "trap 'exit 4' USR1; echo ready; while :; do sleep 0.02; done"
    polite = box.start("sh", "-c", script, config=config)
    wait_for(lambda: list(box.containers.logs(polite.id)), "the program to be ready")
    box.containers.stop(polite.id)
    assert box.containers.get(polite.id).state.exit_code == 4
    stubborn = box.start(*FOREVER)
    box.containers.stop(stubborn.id, timeout=0.2)
    assert box.containers.get(stubborn.id).state.exit_code == 137
    box.containers.stop(stubborn.id)  # again: nothing to do
    with pytest.raises(ContainerError, match="does not run"):
        box.containers.kill(stubborn.id)


# Terminals.


def test_terminal_with_size_and_resize(box: Box) -> None:
    """The program has a terminal of the user's size from its first moment, and hears of every change."""
    script = "tty=$(readlink /proc/self/fd/0); echo at $tty; stty size; read line; stty size; echo $line; exit 9"
    container = box.create("sh", "-c", script, tty=True, interactive=True)
    terminal = Terminal(*driver(box, container.name, tty="tty"), rows=33, columns=101)
    terminal.expect(b"at /dev/pts/0\r\n")
    terminal.expect(b"33 101\r\n")
    terminal.resize(40, 90)
    wait_for(lambda: _size_inside(box, container.id) == (40, 90), "the new size")
    terminal.type(b"hello\n")
    terminal.expect(b"40 90\r\nhello\r\n")
    assert terminal.wait() == 9
    assert "33 101\r\n" in [line.log for line in box.containers.logs(container.id)]


def _size_inside(box: Box, id: str) -> tuple[int, int]:
    inside = Path(f"/proc/{box.containers.get(id).state.pid}/root/dev/pts/0")
    fd = os.open(inside, os.O_RDWR | os.O_NOCTTY)
    try:
        size = os.get_terminal_size(fd)
    finally:
        os.close(fd)
    return size.lines, size.columns


def test_interrupt_key_and_detach_keys(box: Box) -> None:
    """Ctrl-C is the program's affair on a terminal; ctrl-p ctrl-q leaves it running, attach comes back."""
    loop = 'while [ "$line" != end ]; do read line && echo got $line; done; echo over'
    script = f"trap 'echo interrupted' INT; echo ready; {loop}"
    container = box.create("sh", "-c", script, tty=True, interactive=True)
    terminal = Terminal(*driver(box, container.name, tty="tty"))
    terminal.expect(b"ready")
    terminal.type(b"\x03")
    terminal.expect(b"interrupted")
    terminal.type(b"\x10\x11")
    assert terminal.wait() == 99
    assert box.containers.get(container.id).status == "running"
    again = Terminal(*driver(box, container.name, tty="tty", verb="attach"))
    again.type(b"word\n")
    again.expect(b"got word")
    again.type(b"end\n")
    again.expect(b"over")
    assert again.wait() == 0


def test_exec_on_a_terminal(box: Box) -> None:
    """exec -it has a terminal of the user's size, and the exit code comes back."""
    container = box.start(*FOREVER)
    script = "stty size; read line; echo said $line; exit 6"
    terminal = Terminal(*driver(box, container.name, EXEC, "tty")[:-1], "sh", "-c", script, rows=21, columns=77)
    terminal.expect(b"21 77")
    terminal.type(b"yes\n")
    terminal.expect(b"said yes")
    assert terminal.wait() == 6


# More programs, logs.


def test_exec(box: Box, capfd: pytest.CaptureFixture[str]) -> None:
    """More programs in a container: with environment, user and folder of their own, and as little power."""
    container = box.start(*FOREVER, env={"A": "1"})
    script = "echo $A $B $(pwd) $(id -u):$(id -g) $HOME; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; exit 8"
    code = box.containers.exec(container.name, ("sh", "-c", script), env={"B": "2"}, user="worker", workdir="/tmp")
    out = capfd.readouterr().out
    assert code == 8
    assert out.splitlines()[0] == "1 2 /tmp 1000:1001 /home/worker"
    assert "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n" in out
    with pytest.raises(ContainerError, match="nosuch") as caught:
        box.containers.exec(container.name, ("nosuch",))
    assert caught.value.exit_code == 127
    assert box.containers.exec(container.name, ("sh", "-c", "sleep 100 & echo > /made"), detach=True) == 0
    wait_for((box.folder(container).upper / "made").exists, "the detached program")
    assert [path.name for path in box.folder(container).path.glob("exec-*")] == []
    box.containers.kill(container.id)
    with pytest.raises(ContainerError, match="does not run"):
        box.containers.exec(container.name, ("true",))


def test_logs_follow_to_the_end(box: Box) -> None:
    """Lines come while the program runs, and following ends with it."""
    container = box.start("sh", "-c", "echo one; while [ ! -e /go ]; do sleep 0.02; done; echo two; printf three")
    lines = box.containers.logs(container.id, follow=True)
    assert next(lines).log == "one\n"
    (box.folder(container).upper / "unrelated").touch()
    box.containers.exec(container.id, ("touch", "/go"))
    assert [line.log for line in lines] == ["two\n", "three"]
    late = timestamp()
    assert list(box.containers.logs(container.id, since=late)) == []


# Kills.


def test_the_client_may_be_killed(box: Box) -> None:
    """kill -9 of the command line: the container goes on, its log and exit code are kept."""
    script = "echo before; while [ ! -e /go ]; do sleep 0.02; done; echo after; exit 11"
    container = box.create("sh", "-c", script, interactive=True)
    client = spawn(box, container.name)
    assert client.stdout
    assert client.stdout.readline() == b"before\n"
    client.kill()
    client.communicate()
    assert box.containers.get(container.id).status == "running"
    box.containers.exec(container.id, ("touch", "/go"))
    assert box.containers.wait(container.id) == 11
    assert [line.log for line in box.containers.logs(container.id)] == ["before\n", "after\n"]


def test_input_ends_with_the_client(box: Box) -> None:
    """A program that reads its input sees the end of it when the client is gone."""
    container = box.create("cat", interactive=True)
    client = spawn(box, container.name)
    assert client.stdin and client.stdout
    client.stdin.write(b"x\n")
    client.stdin.flush()
    assert client.stdout.readline() == b"x\n"
    client.kill()
    client.communicate()
    assert box.containers.wait(container.id) == 0


def test_the_monitor_may_be_killed(box: Box) -> None:
    """kill -9 of the monitor: the container is reported dead, cleaned up, and can be started again."""
    container = box.start(*FOREVER)
    session = box.containers.attach(container.id)
    (monitor,) = monitors_of(box.home)
    assert monitor == container.state.monitor
    pid = container.state.pid
    os.kill(monitor, signal.SIGKILL)
    with pytest.raises(ContainerError, match="monitor was killed"):
        session.wait()
    session.close()
    wait_for(lambda: box.containers.get(container.id).status == "dead", "the container to be seen dead")
    assert str(box.home.root) not in Path("/proc/self/mountinfo").read_text()
    assert [one.id for one in box.containers.reconcile()] == [container.id]
    wait_for(lambda: start_time(pid) is None, "the program's end")
    assert cgroup.processes(box.folder(container).cgroup, cgroup.hierarchies()) == set()
    assert box.containers.get(container.id).state.exit_code == 137
    assert box.containers.wait(container.id) == 137
    box.containers.start(container.id).close()
    assert box.containers.get(container.id).status == "running"


def test_starting_and_removing_a_dead_container_cleans_up_first(box: Box) -> None:
    """Nobody has to know of reconcile."""
    for act in (lambda id: box.containers.start(id).close(), box.containers.remove):
        container = box.start(*FOREVER)
        os.kill(container.state.monitor, signal.SIGKILL)
        wait_for(lambda: box.containers.get(container.id).status == "dead", "the container to be seen dead")  # noqa: B023
        act(container.id)
        wait_for(lambda: start_time(container.state.pid) is None, "the program's end")  # noqa: B023


# Restarts.


@pytest.mark.parametrize("how", ["remove", "start"])
def test_a_monitor_that_is_killed_while_it_starts_leaves_nothing(box: Box, how: str) -> None:
    """The program runs already and nobody has written so: who removes the container, or starts it, ends it."""
    container = box.start("sleep", "60")
    os.kill(container.state.monitor, signal.SIGKILL)
    wait_for(lambda: box.containers.get(container.id).status == "dead", "the monitor's end")
    box.folder(container).save_state(State())
    assert box.containers.get(container.id).status == "created"
    if how == "start":
        box.containers.start(container.id).close()
        assert box.containers.get(container.id).status == "running"
    box.containers.remove(container.id, force=True)
    wait_for(lambda: start_time(container.state.pid) is None, "the program's end")
    assert groups_of({container.id}) == []


def test_a_monitor_that_is_killed_before_its_program_runs_leaves_nothing(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime goes on and starts it: until it has, the container cannot be removed, and then with its program."""
    begun, go, slow = tmp_path / "begun", tmp_path / "go", tmp_path / "slow-runc"
    wait = f"touch {begun}; while [ ! -e {go} ]; do sleep 0.01; done"
    slow.write_text(f'#!/bin/sh\ncase "$*" in *" run "*) {wait};; esac\nexec runc "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("MLBOX_RUNTIME", str(slow))
    container = box.create("sleep", "60")
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(box.containers.start, container.id)
        wait_for(begun.exists, "the runtime")
        (pid,) = [one for one in monitors_of(box.home) if name_of(one) == "mlbox-monitor"]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ContainerError, match="monitor was killed"):
            start.result(60)
    with pytest.raises(ContainerError, match="runs already"):
        box.containers.remove(container.id)
    go.touch()
    wait_for(lambda: not monitors_of(box.home), "the runtime's end")
    assert cgroup.processes(box.folder(container).cgroup, cgroup.hierarchies()) != set()

    def removed() -> bool:
        try:
            box.containers.remove(container.id)
        except ContainerError:  # children of the runtime hold the lock for a moment longer
            return False
        return True

    wait_for(removed, "the lock")
    assert groups_of({container.id}) == []


# What happens at the same time.


def test_who_connects_while_it_ends_learns_its_code(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a container with --rm, of which nothing else will tell."""
    ending, go = tmp_path / "ending", tmp_path / "go"
    close = LogWriter.close

    def close_late(log: LogWriter) -> None:
        ending.touch()
        wait_for(go.exists, "a client")
        close(log)

    monkeypatch.setattr(LogWriter, "close", close_late)
    container = box.start("sh", "-c", "exit 21", remove=True)
    wait_for(ending.exists, "the end")
    session = box.containers.attach(container.id)
    go.touch()
    assert session.wait() == 21
    session.close()


def test_removing_what_ends_by_itself(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look that finds it running and the signal: it is removed all the same."""
    container = box.start("sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done")

    def too_late(folder: Folder, hello: frames.Hello) -> Session | None:
        box.containers.exec(container.id, ("touch", "/go"))
        wait_for(lambda: not folder.is_monitored(), "the end")
        return connect(folder, hello)

    monkeypatch.setattr(containers, "connect", too_late)
    box.containers.remove(container.id, force=True)
    assert box.containers.list() == []


def test_who_starts_what_is_being_started_again(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told so at once, and does not wait for the end to start it a third time."""
    container = box.start("sh", "-c", "test ! -e /again || exec sleep 1000; touch /again")
    assert box.containers.wait(container.id) == 0
    begun, go = tmp_path / "begun", tmp_path / "go"
    prepare = monitor.prepare

    def prepare_late(*args: Any) -> None:
        begun.touch()
        wait_for(go.exists, "the other")
        prepare(*args)

    monkeypatch.setattr(monitor, "prepare", prepare_late)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(box.containers.start, container.id)
        wait_for(begun.exists, "the first")
        second = pool.submit(box.containers.start, container.id)
        try:
            with pytest.raises(ContainerError, match="runs already"):
                second.result(60)
        finally:
            go.touch()
            first.result(60).close()
            box.containers.kill(container.id)


def test_restart_on_failure(box: Box) -> None:
    """It is started again as often as asked, and the last code counts."""
    container = box.start("sh", "-c", "echo run; exit 3", restart=Restart(policy="on-failure", retries=2))
    assert box.containers.wait(container.id) == 3
    assert box.containers.get(container.id).state.restarts == 2
    assert [line.log for line in box.containers.logs(container.id)] == ["run\n"] * 3


def test_restart_always_until_stopped(box: Box) -> None:
    """It comes back whatever its code was, keeps its files, and stop means stop, even between two runs."""
    container = box.start(
        "sh", "-c", "echo x >> /runs; [ $(cat /runs | wc -l) -lt 3 ] || sleep 100", restart=Restart(policy="always")
    )
    runs = box.folder(container).upper / "runs"
    wait_for(lambda: runs.exists() and len(runs.read_text()) == 6, "the third run")
    box.containers.stop(container.id, timeout=0)
    assert box.containers.get(container.id).status == "exited"
    quick = box.start("true", restart=Restart(policy="always"))
    wait_for(lambda: box.containers.get(quick.id).status == "restarting", "a pause between runs")
    box.containers.stop(quick.id, timeout=5)
    assert box.containers.get(quick.id).status == "exited"


# Limits.


def needs_controllers(*names: str) -> None:
    """Skip where the host's control groups cannot limit these."""
    if lacking := set(names) - cgroup.controllers(cgroup.hierarchies()):
        pytest.skip(f"no cgroup controller {lacking}")


def test_out_of_memory_is_told(box: Box) -> None:
    """A program that needs more memory than it may have is killed, and the state says why."""
    needs_controllers("memory")
    container = box.start("tail", "/dev/zero", memory=16 << 20)
    assert box.containers.wait(container.id) == 137
    assert box.containers.get(container.id).state.oom_killed


def test_limits_inside(box: Box) -> None:
    """Processes, CPU time, open files and shared memory are what was asked for; what the host forbids is clamped."""
    needs_controllers("cpu", "pids")
    code, out, err = box.sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done", pids_limit=4)
    assert code != 0
    assert "fork" in err
    limits = (Ulimit(name="nofile", soft=100, hard=200), Ulimit(name="memlock", soft=1 << 40, hard=1 << 41))
    script = "ulimit -Sn; ulimit -Hn; ulimit -s; grep shm /proc/mounts; cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    code, out, err = box.sh(script, ulimits=limits, cpus=0.5, shm_size=64 << 20)
    lines = out.splitlines()
    assert lines[:3] == ["100", "200", "65536"]
    assert "size=65536k" in lines[3]
    if Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").exists():
        assert (code, lines[4]) == (0, "50000")


def test_read_only_and_tmpfs(box: Box) -> None:
    """A read-only root cannot be written, a tmpfs can, to its size and without programs."""
    tmpfs = TmpfsMount(target="/scratch", size=1 << 20, mode=0o700)
    code, _, err = box.sh("touch /x; touch /etc/hosts", read_only=True)
    assert (code, err.count("Read-only file system")) == (1, 2)
    fill = "busybox cp /bin/busybox /scratch/p 2>&1; ls -ld /scratch; "
    execute = "printf '#!/bin/sh\\n' > /scratch/p; busybox chmod 755 /scratch/p; /scratch/p"
    code, out, err = box.sh(fill + execute, read_only=True, mounts=(tmpfs,))
    assert "No space left" in out
    assert "drwx------" in out
    assert code == 126
    assert "Permission denied" in err


# Safety.

PROBE = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    value = libc.syscall(number, *args)
    print(name, "ok" if value >= 0 else errno.errorcode[ctypes.get_errno()])
call("keyctl", 250, 0, -3, 0)
call("mount", 165, b"none", b"/tmp", b"tmpfs", 0, None)
call("unshare", 272, 0x10000000)
call("bpf", 321, 0, None, 0)
call("perf", 298, None, 0, -1, -1, 0)
call("userfaultfd", 323, 0)
call("personality", 135, 0x0400000)
call("clone3", 435, None, 0)
call("io_uring_setup", 425, 1, None)
call("unknown", 600)
for family in (socket.AF_VSOCK, socket.AF_ALG, socket.AF_INET6):
    try:
        socket.socket(family, socket.SOCK_SEQPACKET if family == socket.AF_ALG else socket.SOCK_STREAM).close()
        print("socket", int(family), "ok")
    except OSError as problem:
        print("socket", int(family), errno.errorcode[problem.errno])
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probe's numbers are those of x86_64")
def test_system_calls_are_refused(box: Box, need: Callable[[str], str]) -> None:
    """What the profile leaves out is refused, so that fallbacks work; unconfined shows the difference."""
    need("/usr/bin/python3")
    code, out, err = box.python(PROBE)
    assert (code, err) == (0, "")
    assert dict(line.rsplit(" ", 1) for line in out.splitlines()) == {
        "keyctl": "EPERM",
        "mount": "EPERM",
        "unshare": "EPERM",
        "bpf": "EPERM",
        "perf": "EPERM",
        "userfaultfd": "EPERM",
        "personality": "EPERM",
        "clone3": "ENOSYS",
        "io_uring_setup": "ENOSYS",
        "unknown": "EPERM" if "crun" in os.environ.get("MLBOX_RUNTIME", "") else "ENOSYS",
        "socket 40": "EPERM",
        "socket 38": "EPERM",
        "socket 10": "ok",
    }
    code, out, _ = box.python(PROBE, security_opt=("seccomp=unconfined",))
    free = dict(line.rsplit(" ", 1) for line in out.splitlines())
    assert (code, free["keyctl"], free["clone3"], free["personality"]) == (0, "ok", "EINVAL", "ok")


def test_a_profile_of_the_users_own(box: Box, tmp_path: Path) -> None:
    """seccomp=FILE replaces the profile, for good: the file is read when the container is made."""
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW",'
        ' "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}'
    )
    container = box.create("sh", "-c", "mkdir /x", security_opt=(f"seccomp={profile}",))
    profile.unlink()
    session = box.containers.start(container.id, attach=True)
    assert b"not supported" in b"".join(data for _, data in session.output())
    session.close()
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"includes": {}}]}')
    with pytest.raises(ContainerError, match="profile"):
        box.create("true", security_opt=(f"seccomp={profile}",))


def test_devices_are_closed_by_the_control_group(box: Box) -> None:
    """Even with the power to make nodes, only the standard ones can be opened."""
    script = "for n in '1 3' '1 5' '1 1' '1 11' '10 229' '195 0'; do mknod /d c $n && (: < /d) 2>&1; rm -f /d; done"
    script = script.replace("rm", "busybox rm")
    code, out, _ = box.sh(script, cap_add=("MKNOD",))
    assert out.count("Operation not permitted") == 4
    code, _, err = box.sh("mknod /d c 1 3")
    assert code != 0
    assert "Operation not permitted" in err


def test_few_powers(box: Box) -> None:
    """Eight capabilities, no way to more, and what is asked for by name."""
    script = "grep -E 'Cap(Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status"
    few, none = "00000000000004fb", "0" * 16
    assert box.sh(script)[1].split() == ["CapEff:", few, "CapBnd:", few, "CapAmb:", none, "NoNewPrivs:", "1"]
    out = box.sh(script, cap_drop=("ALL",), cap_add=("NET_BIND_SERVICE",), user="1000")[1].split()
    assert out[1] == out[3] == out[5] == "0000000000000400"
    assert box.sh("echo x > /proc/sys/kernel/hostname")[0] != 0
    assert box.sh("cat /proc/keys /proc/timer_list")[1] == ""


def test_no_file_of_ours_is_open_inside(box: Box) -> None:
    """The program inherits its three files and nothing else."""
    assert box.sh("sleep 60 & ls /proc/$!/fd")[1].split() == ["0", "1", "2"]


def test_signals_have_their_defaults(box: Box) -> None:
    """Python's and the monitor's ignored signals are not the program's."""
    out = box.sh("grep SigIgn /proc/self/status; grep SigIgn /proc/$$/status")[1]
    ours = {signal.SIGPIPE, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1}
    assert all(int(line.split()[1], 16) & sum(1 << (number - 1) for number in ours) == 0 for line in out.splitlines())
    assert out.count("SigIgn") == 2


def test_networks(box: Box) -> None:
    """'none' is a loopback and nothing more; 'host' is the host's own, with its names."""
    _, out, _ = box.sh("ls /sys/class/net; cat /etc/hosts; hostname", network="none", hostname="alone")
    assert out.split()[0] == "lo"
    assert out.splitlines()[-2:] == ["127.0.1.1 alone", "alone"]
    assert "eth" not in out
    _, out, _ = box.sh("readlink /proc/self/ns/net; hostname; cat /etc/resolv.conf")
    resolv = Path("/etc/resolv.conf").read_text() if Path("/etc/resolv.conf").exists() else ""
    assert out == f"{Path('/proc/self/ns/net').readlink()}\n{os.uname().nodename}\n{resolv}"


# Files of the host.


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder of user 4321, on the disk and on a tmpfs."""
    path = tmp_path / "outputs" if request.param == "disk" else Path("/dev/shm") / f"mlbox-test-{os.getpid()}"
    path.mkdir()
    os.chown(path, 4321, 4322)
    yield path
    for child in path.iterdir():
        child.unlink()
    path.rmdir()


@pytest.mark.parametrize("user", ["", "worker", "77:88"])
def test_files_belong_to_the_folders_owner(box: Box, folder: Path, user: str) -> None:
    """Whoever the container's user is, what it writes to a mount belongs to who owns the folder."""
    (folder / "theirs").write_text("1")
    os.chown(folder / "theirs", 4321, 4322)
    out_mount = BindMount(source=str(folder), target="/out")
    code, out, err = box.sh("cat /out/theirs; echo 2 > /out/ours; ls -n /out/theirs", mounts=(out_mount,), user=user)
    assert (code, err) == (0, "")
    found = (folder / "ours").stat()
    assert (found.st_uid, found.st_gid) == (4321, 4322)
    inside = {"": ("0", "0"), "worker": ("1000", "1001"), "77:88": ("77", "88")}[user]
    assert tuple(out.split()[2:4]) == inside


def test_files_belong_to_the_caller_through_sudo(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sudo mlbox run: files are the user's, even in a folder of root's; 'keep' leaves numbers alone."""
    monkeypatch.setenv("SUDO_UID", "5555")
    monkeypatch.setenv("SUDO_GID", "5556")
    for owner, expected in (("caller", (5555, 5556)), ("keep", (0, 0))):
        out = BindMount(source=str(tmp_path), target="/out", owner=owner)
        assert box.sh(f"echo 1 > /out/{owner}", mounts=(out,))[0] == 0
        found = (tmp_path / owner).stat()
        assert (found.st_uid, found.st_gid) == expected


def test_mounts_read_only_files_and_missing_ones(box: Box, tmp_path: Path) -> None:
    """A file can be mounted, ro means it, mounts below mounts work in any order, a missing source is an error."""
    file = tmp_path / "one"
    file.write_text("hello")
    os.chown(file, 4321, 4321)
    (tmp_path / "deep").mkdir()
    mounts = (
        BindMount(source=str(file), target="/a/b/one", readonly=True),
        BindMount(source=str(tmp_path / "deep"), target="/a"),
    )
    code, out, err = box.sh("cat /a/b/one; echo x > /a/b/one; echo y > /a/y", mounts=mounts)
    assert (code, out) == (0, "hello")
    assert "Read-only file system" in err
    assert (tmp_path / "deep/y").read_text() == "y\n"
    with pytest.raises(ContainerError, match="nothing to mount at"):
        box.create("true", mounts=(BindMount(source=str(tmp_path / "missing"), target="/x"),))


def test_mounts_stay_in_the_container(box: Box, tmp_path: Path) -> None:
    """While it runs, the host sees none of its mounts; the owner's mapping is not undone by any of it."""
    os.chown(tmp_path, 4321, 4321)
    container = box.start(*FOREVER, mounts=(BindMount(source=str(tmp_path), target="/out"),))
    assert str(box.home.root) not in Path("/proc/self/mountinfo").read_text()
    assert "idmapped" in Path(f"/proc/{container.state.pid}/mountinfo").read_text()


def test_a_mount_below_that_cannot_be_mapped(box: Box, tmp_path: Path) -> None:
    """The folder itself is mapped all the same, the container says what is not, and --rm removes nothing in it."""
    source = tmp_path / "source"
    (source / "proc").mkdir(parents=True)
    os.chown(source, 4321, 4321)
    mount("proc", str(source / "proc"), "proc")
    out = BindMount(source=str(source), target="/out")
    try:
        container = box.start("touch", "/out/x", mounts=(out,))
        assert box.containers.wait(container.id) == 0
        assert box.sh("cat /out/proc/1/comm; touch /out/y", mounts=(out,))[0] == 0
        with pytest.raises(OSError, match="busy"):
            remove_tree(source)
        assert (source / "proc/self/stat").exists()
    finally:
        umount(str(source / "proc"))
    assert "mounted below" in box.containers.get(container.id).state.warnings[0]


def test_read_only_reaches_what_is_mounted_below(box: Box, tmp_path: Path) -> None:
    """A read-only bind is so all the way down; on the host the mount below stays as it was."""
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    mount("tmpfs", str(source / "below"), "tmpfs")
    try:
        bind = BindMount(source=str(source), target="/in", readonly=True)
        code, out, _ = box.sh("touch /in/a || touch /in/below/a || echo refused", mounts=(bind,))
        assert (code, out.strip()) == (0, "refused")
        (source / "below/host").touch()
    finally:
        umount(str(source / "below"))


def test_the_cgroup_tree_is_read_only(box: Box) -> None:
    """Nothing can be written there, on no version."""
    assert box.sh("touch /sys/fs/cgroup/x || echo refused")[1].strip() == "refused"


def test_removing_a_container_leaves_its_mounts_alone(box: Box, tmp_path: Path) -> None:
    """What is mounted with mapped owners, and what is mounted below that, is the host's."""
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    os.chown(source, 4321, 4321)
    mount("tmpfs", str(source / "below"), "tmpfs")
    try:
        for name in ("one", "below/two"):
            (source / name).write_text("precious")
        script = "cat /out/one /out/below/two; touch /out/x /out/below/y"
        mounts = (BindMount(source=str(source), target="/out"),)
        assert box.sh(script, mounts=mounts) == (0, "precious" * 2, "")
        assert {path.name for path in (source / "below").iterdir()} == {"two", "y"}
        assert {(source / name).stat().st_uid for name in ("x", "below/y")} == {4321}
    finally:
        umount(str(source / "below"))
    assert (source / "one").read_text() == "precious"


# Hostile images and containers.


def test_an_image_cannot_read_the_hosts_users(box: Box, tmp_path: Path) -> None:
    """/etc/passwd as a link out of the image is looked up inside it."""
    layer = tmp_path / "layer"
    (layer / "etc").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("spy:x:99:99::/:/bin/sh\n")
    (layer / "etc/passwd").symlink_to(f"../../../../../../../../../../{secret}")
    with pytest.raises(ContainerError, match="no user 'spy'"):
        box.run("true", user="spy", lower=[box.rootfs, layer])


def test_removing_follows_no_link(box: Box, tmp_path: Path) -> None:
    """What a container wrote is removed, what its links point to is not, however deep it went."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    script = f"ln -s {precious} /link; ln -s / /d; i=0; while [ $i -lt 300 ]; do mkdir d$i; cd d$i; i=$((i+1)); done"
    assert box.sh(script)[0] == 0
    assert (precious / "file").exists()


def test_a_working_directory_in_proc_is_refused(box: Box) -> None:
    """A path through an open file of the runtime would lead to the host."""
    with pytest.raises(ContainerError, match="not a working directory"):
        box.create("true", workdir="/proc/self/fd/8")


# Many.


def test_names(box: Box) -> None:
    """Names are unique, ids can be shortened, an ambiguous beginning is an error."""
    first = box.create("true", name="same")
    with pytest.raises(ContainerError, match="is taken"):
        box.create("true", name="same")
    assert box.containers.get("same").id == first.id
    others = [box.create("true") for _ in range(17)]
    assert len({one.name for one in others}) == 17
    initials = [one.id[0] for one in (first, *others)]
    twice = next(letter for letter in initials if initials.count(letter) > 1)
    with pytest.raises(ContainerError, match="begin with"):
        box.containers.get(twice)
    with pytest.raises(NotFoundError):
        box.containers.get("nosuch")
    box.containers.remove("same")
    assert box.create("true", name="same").id != first.id


def test_a_name_whose_maker_was_killed_is_free_again(box: Box) -> None:
    """The link stays when its maker dies between taking the name and finishing the container."""
    names = box.home.containers / "names"
    names.mkdir(parents=True)
    (names / "lost").symlink_to("f" * 64)
    os.utime(names / "lost", (1, 1), follow_symlinks=False)
    assert box.create("true", name="lost").name == "lost"


def test_two_at_once(box: Box) -> None:
    """Of two who start one container one wins; different containers do not meet."""
    container = box.create(*FOREVER)
    clients = [
        subprocess.Popen(
            [sys.executable, *driver(box, container.name)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    loser = wait_for(lambda: next((one for one in clients if one.poll() is not None), None), "the loser")
    assert b"runs already" in loser.communicate()[1]
    box.containers.kill(container.id)
    for client in clients:
        client.communicate(timeout=120)  # with one, what was read before may be read again
    assert sorted(client.returncode for client in clients) == [1, 137]
    several = [box.start("sh", "-c", f"exit {number}") for number in range(4)]
    assert [box.containers.wait(one.id) for one in several] == [0, 1, 2, 3]


def test_remove_needs_force(box: Box) -> None:
    """A running container is only removed by force."""
    container = box.start(*FOREVER, labels={"a": "b"})
    with pytest.raises(ContainerError, match="runs"):
        box.containers.remove(container.id)
    assert [one.id for one in box.containers.list(all=False)] == [container.id]
    assert box.containers.used_layers() == {box.rootfs}
    box.containers.remove(container.id, force=True)
    assert box.containers.list() == []


def test_wait_from_several(box: Box) -> None:
    """Everyone who waits for a container with --rm learns its code."""
    container = box.create("sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done; exit 21", remove=True)
    session = box.containers.start(container.id)
    others = [box.containers.attach(container.id) for _ in range(3)]
    box.containers.exec(container.id, ("touch", "/go"))
    assert [one.wait() for one in (session, *others)] == [21] * 4
    for one in (session, *others):
        one.close()


def test_an_init_reaps(box: Box) -> None:
    """--init runs the host's small init as the first process, or says how to get one."""
    from mlbox.runtime.host import host_facts

    if not host_facts().init:
        with pytest.raises(ContainerError, match="init"):
            box.run("true", init=True)
        return
    code, out, _ = box.sh("echo $$; exit 3", init=True)
    assert (code, out != "1\n") == (3, True)


# Build steps.


def test_build_steps(box: Box, tmp_path: Path) -> None:
    """A step writes to its binds with the numbers it uses, has no network, and its failure shows its last lines."""
    out = tmp_path / "out"
    out.mkdir()
    os.chown(out, 4321, 4321)
    steps = ContainerSteps(box.home)
    script = "ls /sys/class/net > /out/net; echo $KEY $(pwd) > /out/env; chown 12:13 /out/env"
    bind = Bind(source=out, target="/out", readonly=False)
    steps.run(Step(argv=("sh", "-c", script), lower=(box.rootfs,), binds=(bind,), env={"KEY": "v"}, cwd="/tmp"))
    assert (out / "net").read_text() == "lo\n"
    assert (out / "env").read_text() == "v /tmp\n"
    assert ((out / "env").stat().st_uid, (out / "env").stat().st_gid, (out / "net").stat().st_uid) == (12, 13, 0)
    with pytest.raises(BuildError, match="status 5") as caught:
        steps.run(Step(argv=("sh", "-c", "seq 1 1000; exit 5"), lower=(box.rootfs,)))
    assert caught.value.message.splitlines()[1:] == [str(number) for number in range(971, 1001)]
    with pytest.raises(BuildError, match="nosuch"):
        steps.run(Step(argv=("nosuch",), lower=(box.rootfs,)))


def test_options_that_cannot_be(box: Box) -> None:
    """What would fail at the start is said when the container is made, and nothing is made."""
    for options in (
        RunOptions(),
        RunOptions(command=("x",), security_opt=("apparmor=x",)),
        RunOptions(command=("x",), cap_add=("ALL",)),
        RunOptions(command=("x",), memory_swap=1 << 30),
    ):
        fields = {name: getattr(options, name) for name in options.__struct_fields__ if name != "command"}
        with pytest.raises(ContainerError):
            box.create(*options.command, **fields)
    assert box.containers.list() == []
