"""Reads from the host what a spec depends on."""

import os
import resource
import socket
from collections.abc import Iterable
from pathlib import Path

from mlbox.linux import cgroup
from mlbox.runtime.options import ULIMITS
from mlbox.runtime.spec import HostFacts

# Statically linked, so that they run in any image; the first that is installed is used for --init.
_INITS = ("/usr/bin/tini-static", "/usr/bin/catatonit", "/usr/libexec/podman/catatonit", "/usr/bin/docker-init")


def host_facts() -> HostFacts:
    """Return the facts of this host, for this process."""
    mounted = cgroup.hierarchies()
    return HostFacts(
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        hostname=socket.gethostname(),
        limits=_limits(),
        cpus=os.cpu_count() or 1,
        controllers=cgroup.controllers(mounted),
        swap_limit=_has_swap_limit(mounted),
        init=next((path for path in _INITS if Path(path).exists()), ""),
    )


def _limits() -> dict[str, tuple[int, int]]:
    found = {}
    for name in ULIMITS:
        kind = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if kind is not None:
            found[name] = resource.getrlimit(kind)
    return found


def _has_swap_limit(mounted: Iterable[cgroup.Hierarchy]) -> bool:
    """Whether memory and swap can be limited together; version 1 can be built or booted without that."""
    for one in mounted:
        if "memory" in one.controllers:
            return Path(one.path, "memory.memsw.limit_in_bytes").exists()
    return True


def find_program(name: str) -> str | None:
    """Return the path of a program: `name` itself when it is one, else from PATH and the system's own folders.

    sudo and cron may leave those out of PATH.
    """
    if "/" in name:
        return name if os.access(name, os.X_OK) else None
    folders = [*os.environ.get("PATH", os.defpath).split(":"), "/usr/local/sbin", "/usr/sbin", "/sbin"]
    candidates = (f"{folder}/{name}" for folder in folders if folder.startswith("/"))
    return next((path for path in candidates if os.access(path, os.X_OK)), None)
