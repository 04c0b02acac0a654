"""When a container is started again, and what its exit code is."""

import os
import signal

import pytest

from mlbox.runtime.monitor import restart_delay
from mlbox.runtime.options import Restart
from mlbox.runtime.program import exit_code_of

ALWAYS = Restart(policy="always")
TWICE = Restart(policy="on-failure", retries=2)


@pytest.mark.parametrize(
    ("policy", "code", "restarts", "again"),
    [
        (Restart(), 1, 0, False),
        (ALWAYS, 0, 0, True),
        (ALWAYS, 1, 99, True),
        (Restart(policy="on-failure"), 1, 99, True),
        (Restart(policy="on-failure"), 0, 0, False),
        (TWICE, 1, 0, True),
        (TWICE, 1, 1, True),
        (TWICE, 1, 2, False),
    ],
)
def test_who_is_started_again(policy: Restart, code: int, restarts: int, again: bool) -> None:
    """By policy, code and how often it was."""
    assert (restart_delay(policy, code, restarts, 0) is not None) is again


def test_the_wait_doubles_to_a_minute() -> None:
    """So that a program that cannot start does not keep the machine busy."""
    delays = [restart_delay(ALWAYS, 1, number, number) for number in range(12)]
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert delays[-1] == 60
    assert restart_delay(ALWAYS, 1, 10**6, 10**6) == 60


def test_exit_codes() -> None:
    """The program's own, or 128 and its signal."""
    child = os.fork()
    if child == 0:
        os._exit(77)
    assert exit_code_of(os.waitpid(child, 0)[1]) == 77
    assert exit_code_of(int(signal.SIGKILL)) == 137
