"""How long a container may run."""

import signal
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import UsageError
from mlbox.runtime.limit import Limit, soonest
from mlbox.units import duration, parse_duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until it is moved."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_first_it_is_asked_then_it_is_made_to(clock: list[float]) -> None:
    """The stop signal at the end of the time, SIGKILL after the grace, and nothing more."""
    limit = Limit(60, signal.SIGINT, 10)
    assert (limit.patience(), limit.look(), limit.over) == (60, None, False)
    clock[0] += 60
    assert (limit.look(), limit.over) == (signal.SIGINT, True)
    assert (limit.patience(), limit.look()) == (10, None)
    clock[0] += 10
    assert limit.look() == signal.SIGKILL
    assert (limit.patience(), limit.look()) == (None, None)


def test_the_soonest_of_some_waits() -> None:
    """None is for ever."""
    assert soonest(None, 3.0, 0.0) == 0.0
    assert soonest(None, None) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("8h", 28800), ("2d", 172800), ("1.5h", 5400), (" 1s ", 1)]
)
def test_times_that_are_understood(text: str, seconds: float) -> None:
    """A number and a unit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "8", "h", "8 hours", "-1h", "0s", "1e3s", "٣h", "inf", "nand", "99999999999d", ".5h", "1..2h"]
)
def test_times_that_are_not(text: str) -> None:
    """A number alone names no unit."""
    with pytest.raises(UsageError):
        parse_duration(text)


@given(st.text(max_size=30))
def test_no_text_gives_anything_else(text: str) -> None:
    """A time between a second and ten years, or a UsageError."""
    with suppress(UsageError):
        assert 1 <= parse_duration(text) <= 3650 * 86400


@pytest.mark.parametrize("text", ["90s", "30m", "8h", "2d", "1s", "61m"])
def test_times_as_they_are_written(text: str) -> None:
    """The shortest way to say it."""
    assert duration(parse_duration(text)) == text
