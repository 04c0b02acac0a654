"""Containers that may run for a time only."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from fakes.containers import Box, boxed, busybox_rootfs, wait_for

from mlbox.paths import Home
from mlbox.runtime.options import Restart

pytestmark = pytest.mark.integration
POLITE = "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; while :; do sleep 0.05; done"


@pytest.fixture
def box(home: Home, tmp_path: Path, need: Callable[[str], str]) -> Iterator[Box]:
    """Containers of busybox."""
    need("runc")
    with boxed(home, busybox_rootfs(tmp_path / "root", need("busybox"))) as found:
        yield found


def ended(box: Box, script: str, **options: object) -> tuple[float, int | None, bool]:
    """Run a script to its end; return the seconds, the exit code, and whether its time was over."""
    container = box.create("sh", "-c", script, **options)
    began = time.monotonic()
    with_it = box.containers.start(container.id)
    with_it.wait()
    with_it.close()
    state = box.containers.get(container.id).state
    return time.monotonic() - began, state.exit_code, state.timed_out


def test_it_is_asked_to_end(box: Box) -> None:
    """And may clean up; what it says counts."""
    seconds, code, over = ended(box, POLITE, time_limit=1.0)
    assert (code, over) == (3, True)
    assert 0.9 < seconds < 60


def test_it_is_made_to_end(box: Box) -> None:
    """After the grace."""
    seconds, code, over = ended(box, DEAF, time_limit=1.0, stop_timeout=0.5)
    assert (code, over) == (137, True)
    assert 1.4 < seconds < 60


def test_who_ends_in_time_is_left_alone(box: Box) -> None:
    """Nothing is said of it."""
    assert ended(box, "exit 5", time_limit=60.0)[1:] == (5, False)


def test_a_restart_does_not_begin_it_anew(box: Box) -> None:
    """Nor is a program started again that was stopped; it may also be over between two starts."""
    seconds, code, over = ended(box, DEAF, time_limit=1.0, stop_timeout=0.0, restart=Restart(policy="always"))
    assert (code, over) == (137, True) and seconds < 60
    seconds, code, over = ended(box, "exit 4", time_limit=1.0, restart=Restart(policy="always"))
    assert (code, over) == (4, True) and seconds < 60


def test_when_it_will_be_over_is_known(box: Box) -> None:
    """From its first start on."""
    container = box.start("sleep", "60", time_limit=3600.0)
    until = datetime.fromisoformat(wait_for(lambda: box.containers.get(container.id).state.until, "the time"))
    assert 3480 < until.timestamp() - time.time() < 3601
