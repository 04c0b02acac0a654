"""Becoming a process that nobody waits for, by a fork: there is no new interpreter to start."""

import gc
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from mlbox.linux import libc, process


def fork_daemon(main: Callable[[], None], *, name: str, log: Path, keep: Iterable[int]) -> None:
    """Run `main` in a process of its own session, with the descriptors `keep` and its complaints in `log`.

    Returns at once, in the caller only.
    """
    libc.call("getpid")  # opens the C library here: importing is not safe in the fork of a program with threads
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _leave_the_caller(log, set(keep))
        process.set_name(name)
        main()
    except BaseException:  # noqa: BLE001 - nothing may run on in a copy of the caller
        import traceback

        traceback.print_exc()
    finally:
        os._exit(0)


def _leave_the_caller(log: Path, keep: set[int]) -> None:
    gc.freeze()  # what the caller left for the collector may hold descriptors whose numbers are soon ours
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard, fd in ((0, null), (1, null), (2, errors)):
        os.dup2(fd, standard)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) not in {0, 1, 2, *keep}:
            with suppress(OSError):
                os.close(int(name))
