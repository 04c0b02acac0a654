"""Shared by all tests: a home per test, and skips that are failures where CI must have the thing."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from mlbox.paths import Home

# A shell that starts the tests in the background has them ignore it, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty store in a folder of its own."""
    return Home(tmp_path / "home")


@pytest.fixture
def need() -> Callable[[str], str]:
    """Return the path of a program; without it the test is skipped, or fails when MLBOX_REQUIRE=1 (as in CI)."""

    def find(program: str) -> str:
        path = shutil.which(program)
        if path is None:
            missing(f"{program} is not installed")
        return path or ""

    return find


def missing(reason: str) -> None:
    """Skip for `reason`, or fail where everything must be there."""
    if os.environ.get("MLBOX_REQUIRE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _root_for_integration(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("integration") and os.geteuid() != 0:
        missing("integration tests need root")
