"""What a pid really is."""

import os

import pytest

from mlbox.linux.libc import call
from mlbox.linux.process import start_time


def test_start_time_names_a_process() -> None:
    """The same for as long as it lives; none for a zombie and for nobody."""
    own = start_time(os.getpid())
    assert own is not None
    assert own == start_time(os.getpid())
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert start_time(child) is None
    os.waitpid(child, 0)
    assert start_time(child) is None


def test_a_failed_call_says_which_and_why() -> None:
    """OSError of the right kind, with the call's name."""
    with pytest.raises(FileNotFoundError, match="umount2"):
        call("umount2", b"/nowhere/at/all", 0)
