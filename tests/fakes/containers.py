"""A root file system of busybox, containers made of it, and a command line of a few lines to attach to them."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlbox.engine.running import containers_of
from mlbox.linux import cgroup
from mlbox.oci.image import ContainerConfig, ImageConfig, RootFS
from mlbox.paths import Home
from mlbox.runtime.options import BindMount, RunOptions
from mlbox.runtime.record import Container, Folder

DIGEST = "sha256:" + "0" * 64

PROGRAMS = """
    sh cat echo true false sleep id ls mknod mount unshare stty touch dd tail head wc hostname ip ps printf grep yes
    chown mkdir ln env pwd od seq kill readlink
"""

# What `mlbox run` does with a session, as a program of its own that tests can kill and give a terminal.
RUN = """
import sys, os, msgspec
from pathlib import Path
from mlbox.paths import Home
from mlbox.runtime.containers import Containers
from mlbox.errors import MlboxError
home, name, tty, attach = sys.argv[1:5]
containers = Containers(Home(Path(home)))
size = tuple(os.get_terminal_size(0))[::-1] if tty == "tty" else None
if attach == "attach":
    session = containers.attach(name, stdin=True)
else:
    session = containers.start(name, attach=True, stdin=True, size=size)
code = session.stream(stdin=0, tty=tty == "tty", ours=attach != "attach")
sys.exit(99 if code is None else code)
"""
EXEC = """
import sys
from pathlib import Path
from mlbox.paths import Home
from mlbox.runtime.containers import Containers
home, name, tty, *argv = sys.argv[1:]
sys.exit(Containers(Home(Path(home))).exec(name, argv, tty=tty == "tty", stdin=True))
"""


def busybox_rootfs(root: Path, busybox: str) -> Path:
    """Fill `root` with busybox under the names the tests use, and two users."""
    for folder in ("bin", "etc", "tmp", "root", "usr"):
        (root / folder).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path(busybox).read_bytes())
    (root / "bin/busybox").chmod(0o755)
    (root / "tmp").chmod(0o1777)
    for name in PROGRAMS.split():
        (root / "bin" / name).symlink_to("busybox")
    for name in ("lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1001::/home/worker:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nworker:x:1001:\nvideo:x:44:worker,other\n")
    return root


class Box:
    """Containers of one small image in one store."""

    def __init__(self, home: Home, rootfs: Path) -> None:
        self.home = home
        self.rootfs = rootfs
        self.containers = containers_of(home)

    def create(self, *command: str, config: ContainerConfig | None = None, **options: Any) -> Container:
        """Make a container that runs `command`."""
        image = ImageConfig(
            architecture="amd64", os="linux", config=config or ContainerConfig(), rootfs=RootFS(diff_ids=())
        )
        lower = options.pop("lower", [self.rootfs])
        return self.containers.create(DIGEST, "test:1", image, lower, RunOptions(command=command, **options))

    def run(self, *command: str, stdin: bytes | None = None, **options: Any) -> tuple[int, str, str]:
        """Run `command` in a container that is removed; return its exit code, stdout and stderr."""
        container = self.create(*command, remove=True, interactive=stdin is not None, **options)
        session = self.containers.start(container.id, attach=True, stdin=stdin is not None)
        try:
            if stdin is not None:
                session.send(stdin)
                session.send(b"")
            found = {"stdout": b"", "stderr": b""}
            for stream, data in session.output():
                found[stream] += data
            code = session.wait()
        finally:
            session.close()
        assert code is not None
        return code, found["stdout"].decode(), found["stderr"].decode()

    def sh(self, script: str, **options: Any) -> tuple[int, str, str]:
        """Run a shell script."""
        return self.run("sh", "-c", script, **options)

    def start(self, *command: str, **options: Any) -> Container:
        """Start a container and leave it alone."""
        container = self.create(*command, **options)
        self.containers.start(container.id).close()
        return self.containers.get(container.id)

    def folder(self, container: Container) -> Folder:
        """Return the container's folder."""
        return Folder(self.home.containers / container.id)

    def python(self, script: str, **options: Any) -> tuple[int, str, str]:
        """Run a script by the host's Python, which the container sees read-only."""
        usr = BindMount(source="/usr", target="/usr", readonly=True)
        mounts = (usr, *options.pop("mounts", ()))
        return self.run("/usr/bin/python3", "-SE", "-c", script, mounts=mounts, **options)


@contextmanager
def boxed(home: Home, rootfs: Path) -> Iterator[Box]:
    """Give a Box, and check afterwards that nothing of it is left: process, mount, control group, container."""
    box = Box(home, rootfs)
    try:
        yield box
    finally:
        ids = {path.name for path in home.containers.glob("*") if path.name != "names"}
        for container in box.containers.list():
            box.containers.remove(container.id, force=True)
    wait_for(lambda: not monitors_of(home), "monitors to end")
    assert groups_of(ids) == []
    assert str(home.root) not in Path("/proc/self/mountinfo").read_text()
    left = [path.name for path in home.containers.rglob("*")] if home.containers.exists() else []
    assert left in ([], ["names"])


def groups_of(ids: set[str]) -> list[str]:
    """Return the control groups that containers left."""
    return [
        path for one in cgroup.hierarchies() for name in ids if (path := f"{one.path}/mlbox/{name}") and exists(path)
    ]


def exists(path: str) -> bool:
    """Whether `path` exists."""
    return os.path.lexists(path)


def monitors_of(home: Home) -> list[int]:
    """Return the pids of monitors of `home`: they hold a container's lock open."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                names = [str(fd.readlink()) for fd in (entry / "fd").iterdir()]
            except OSError:
                continue
            if any(name.startswith(f"{home.containers}/") and "/lock" in name for name in names):
                found.append(int(entry.name))
    return found


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """Return the first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.01)
    return value


class Terminal:
    """A program started on a terminal of its own."""

    def __init__(self, *argv: str, rows: int = 24, columns: int = 80) -> None:
        self.pid, self.master = os.forkpty()
        if self.pid == 0:
            try:
                os.set_inheritable(0, True)
                _set_size(0, rows, columns)
                os.execv(sys.executable, [sys.executable, *argv])
            finally:
                os._exit(127)
        self.seen = b""

    def expect(self, text: bytes, seconds: float = 120) -> None:
        """Wait until the program has printed `text`, and forget everything up to it."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{text!r} did not come, only {self.seen!r}"
            self.seen += os.read(self.master, 4096)
        self.seen = self.seen.partition(text)[2]

    def type(self, text: bytes) -> None:
        """Press keys."""
        os.write(self.master, text)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size; the kernel tells the program in front."""
        _set_size(self.master, rows, columns)

    def wait(self) -> int:
        """Return the program's exit code."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.master)
        return code


def _set_size(fd: int, rows: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
