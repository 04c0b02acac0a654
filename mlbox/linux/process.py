"""Processes and namespaces: who adopts orphans, what a pid really is, user namespaces that only hold a map."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from mlbox.linux.libc import call

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

IDMap = Sequence[tuple[int, int, int]]


def unshare(flags: int) -> None:
    """unshare(2)."""
    call("unshare", flags)


def become_subreaper() -> None:
    """Adopt the orphans of this process's children, in place of init."""
    call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def set_name(name: str) -> None:
    """Set the name that ps shows; the kernel keeps 15 bytes."""
    call("prctl", _PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def start_time(pid: int) -> int | None:
    """Return when `pid` was started, in clock ticks since boot; None when it is gone or a zombie.

    Together with the pid this names one process for as long as the machine is up.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - no pathlib below this line of the program
            fields = file.read().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def user_namespace(uids: IDMap, gids: IDMap) -> int:
    """Return a descriptor of a new user namespace with these maps (inside, outside, count); nothing runs in it."""
    ready_r, ready_w = os.pipe()
    done_r, done_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        _hold(ready_r, ready_w, done_r, done_w)
    os.close(ready_w)
    os.close(done_r)
    try:
        if os.read(ready_r, 1) != b"1":
            raise OSError(os.EX_OSERR, "no user namespace can be made here")
        _write_map(f"/proc/{pid}/uid_map", uids)
        _write_map(f"/proc/{pid}/gid_map", gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_r)
        os.close(done_w)
        os.waitpid(pid, 0)


def _hold(ready_r: int, ready_w: int, done_r: int, done_w: int) -> None:
    try:
        os.close(ready_r)
        os.close(done_w)
        unshare(CLONE_NEWUSER)
        os.write(ready_w, b"1")
        os.read(done_r, 1)
    finally:
        os._exit(0)


def _write_map(path: str, lines: IDMap) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, "".join(f"{inside} {outside} {count}\n" for inside, outside, count in lines).encode())
    finally:
        os.close(fd)


class OpenDevice(NamedTuple):
    """A device that a process has open."""

    is_block: bool
    major: int
    minor: int


def open_devices(pid: int) -> Iterator[OpenDevice]:
    """Yield the devices that `pid` has open; nothing when it is gone."""
    try:
        folder = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # By names in the open folder: a host has tens of thousands of these, and whole paths take half as long again.
        for name in _names(folder):
            try:
                status = os.stat(name, dir_fd=folder)
            except OSError:
                continue
            if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                yield OpenDevice(stat.S_ISBLK(status.st_mode), os.major(status.st_rdev), os.minor(status.st_rdev))
    finally:
        os.close(folder)


def _names(folder: int) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # the process has ended
        return []


def name_of(pid: int) -> str:
    """Return the name that ps shows, '' when the process is gone."""
    with suppress(OSError), open(f"/proc/{pid}/comm", "rb") as file:  # noqa: PTH123
        return file.read().rstrip(b"\n").decode("utf-8", "replace")
    return ""


def pids() -> list[int]:
    """Return the processes of this pid namespace."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208


def user_of(pid: int) -> str:
    """Return the name of whom the process belongs to, the number where it has none, '' when the process is gone."""
    import pwd

    with suppress(OSError):
        uid = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return str(uid)
    return ""


def groups_of(pid: int) -> tuple[str, ...]:
    """Return the paths of the control groups that the process is in, without repetition; none when it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/cgroup", "rb") as file:  # noqa: PTH123
        lines = file.read().decode("utf-8", "replace").splitlines()
        return tuple(dict.fromkeys(line.split(":", 2)[2] for line in lines))
    return ()


def in_root(pid: int, action: Callable[[], object]) -> None:
    """Do `action` in the mounts and below the root of `pid`, where no link leads outside; raises its OSError.

    A process of its own does it: a program with threads cannot change its mount namespace.
    """
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    call("getpid")  # opens the C library here: importing is not safe after the fork
    try:
        child = os.fork()
        if child == 0:
            _act(root, namespace, action)
        number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(root)
        os.close(namespace)
    if number:
        raise OSError(number, os.strerror(number))


def _act(root: int, namespace: int, action: Callable[[], object]) -> None:
    number = 0
    try:
        call("setns", namespace, CLONE_NEWNS)
        os.fchdir(root)
        os.chroot(".")
        os.chdir("/")
        action()
    except OSError as problem:
        number = problem.errno or 5
    except BaseException:  # noqa: BLE001 - nothing may run on in a copy of the caller
        number = 5
    finally:
        os._exit(number)


def in_user_namespace(proc: str = "/proc") -> bool:
    """Whether we are in a user namespace of our own, where root is not the host's (user_namespaces(7))."""
    try:
        with open(f"{proc}/self/uid_map", "rb") as file:  # noqa: PTH123
            return file.read(256).split() != [b"0", b"0", b"4294967295"]
    except OSError:
        return False
