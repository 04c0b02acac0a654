"""Control groups: which hierarchies are mounted, and what is left in a group of ours. Versions 1, 2 and both."""

import errno
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple


class Hierarchy(NamedTuple):
    """A mounted cgroup file system; a version 2 one has no `controllers`."""

    path: str
    controllers: tuple[str, ...]
    version: int


def parse_mountinfo(text: str) -> tuple[Hierarchy, ...]:
    """Return the hierarchies that /proc/self/mountinfo lists (proc(5)); the first mount of each counts."""
    found: dict[tuple[str, ...], Hierarchy] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = [*right.split(" ", 2), "", ""][:3]
        fields = left.split(" ")
        # A bind mount of a part of a hierarchy (as in a container) has another root than /.
        if kind not in ("cgroup", "cgroup2") or len(fields) < 5 or fields[3] != "/":
            continue
        version = 2 if kind == "cgroup2" else 1
        names = () if version == 2 else tuple(o for o in options.split(",") if o not in ("rw", "ro", "xattr"))
        found.setdefault(names, Hierarchy(_unescape(fields[4]), names, version))
    return tuple(found.values())


def hierarchies() -> tuple[Hierarchy, ...]:
    """Return the hierarchies mounted here."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        return parse_mountinfo(file.read())


def is_unified(mounted: Iterable[Hierarchy]) -> bool:
    """Whether version 2 is all there is."""
    return all(one.version == 2 for one in mounted)


def controllers(mounted: Iterable[Hierarchy]) -> frozenset[str]:
    """Return the controllers that groups can have here ('cpu', 'memory', 'pids', ...)."""
    found: set[str] = set()
    for one in mounted:
        found.update(one.controllers or _read(f"{one.path}/cgroup.controllers").split())
    return frozenset(found)


def oom_kills(group: str, mounted: Iterable[Hierarchy]) -> int:
    """Return how many processes of `group` ('/mlbox/ID') the kernel killed for want of memory; 0 when it is gone."""
    for one in mounted:
        name = {1: "memory.oom_control", 2: "memory.events"}[one.version]
        if one.version == 2 or "memory" in one.controllers:
            for line in _read(f"{one.path}{group}/{name}").splitlines():
                word, _, value = line.partition(" ")
                if word == "oom_kill" and int(value):
                    return int(value)
    return 0


def processes(group: str, mounted: Iterable[Hierarchy]) -> set[int]:
    """Return the pids in `group` and below, in whichever hierarchy has it."""
    found: set[int] = set()
    for one in mounted:
        for folder, _, _ in os.walk(one.path + group):
            found.update(int(pid) for pid in _read(f"{folder}/cgroup.procs").split())
    return found


def remove(group: str, mounted: Iterable[Hierarchy], *, patience: float = 30.0) -> None:
    """Kill what still runs in `group` and remove it everywhere; raises OSError (EBUSY) when it cannot be emptied."""
    end = time.monotonic() + patience
    for one in mounted:
        while not _removed(one.path + group):
            for pid in processes(group, (one,)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), one.path + group)
            time.sleep(0.002)  # a killed process leaves its group a moment later, and nothing tells us when


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)  # noqa: PTH106
    except FileNotFoundError:
        return True
    except OSError as problem:
        if problem.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        _remove_children(path)
        return False
    return True


def _remove_children(path: str) -> None:
    """Remove groups that the container made below its own."""
    for folder, names, _ in os.walk(path, topdown=False):
        for name in names:
            with suppress(OSError):
                os.rmdir(f"{folder}/{name}")  # noqa: PTH106


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123
            return file.read()
    except OSError as problem:
        if problem.errno not in (errno.ENOENT, errno.ENODEV):  # ENODEV: the group went away while it was open
            raise
        return ""


def _unescape(path: str) -> str:
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
