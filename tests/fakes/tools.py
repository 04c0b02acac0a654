"""Other people's container tools, each with a store of its own and nothing left behind."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fakes.containers import wait_for

from mlbox.linux.mount import umount

Run = Callable[..., str]
Need = Callable[[str], str]


def out(*command: str, **env: str) -> str:
    """Return what a program prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **env})
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


@contextmanager
def podman(need: Need, folder: Path) -> Iterator[Run]:
    """Yield podman as a function."""
    # podman refuses long names for its run folder.
    with tempfile.TemporaryDirectory(prefix="mlbox") as run:
        argv = [need("podman"), "--root", f"{folder}/podman", "--runroot", run, "--tmpdir", f"{run}/tmp"]
        argv += ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]
        try:
            yield lambda *args: out(*argv, *args)
        finally:
            out(*argv, "rmi", "--all", "--force")


@contextmanager
def docker(need: Need, **env: str) -> Iterator[Run]:
    """Yield the client of a Docker daemon of its own, as a function."""
    # A newer client may stand before Debian's in PATH and refuse Debian's daemon.
    daemon, client = need("dockerd"), "/usr/bin/docker" if Path("/usr/bin/docker").exists() else need("docker")
    with tempfile.TemporaryDirectory(prefix="mlbox") as folder:
        argv = [daemon, "--bridge=none", "--iptables=false", "--data-root", f"{folder}/data"]
        argv += ["--exec-root", f"{folder}/exec", "-p", f"{folder}/pid", "-H", f"unix://{folder}/sock"]
        ours = {"DOCKER_HOST": f"unix://{folder}/sock", "DOCKER_CONFIG": f"{folder}/config", **env}
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                _wait_for(client, ours)
                yield lambda *args: out(client, *args, **ours)
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(60)
                with suppress(OSError):
                    umount(f"{folder}/exec/netns/default")
                for path in sorted(_docker_groups() - _BEFORE, reverse=True):  # what lies in another goes first
                    with suppress(OSError):  # another test's daemon uses it still
                        path.rmdir()


def _docker_groups() -> set[Path]:
    top = Path("/sys/fs/cgroup")
    return {*top.glob("*/docker"), *top.glob("*/docker/buildkit")}


_BEFORE = _docker_groups()
"""Those of the host's own Docker."""


def _wait_for(client: str, env: dict[str, str]) -> None:
    argv = [client, "info"]
    wait_for(lambda: subprocess.run(argv, env={**os.environ, **env}, capture_output=True).returncode == 0, "dockerd")
