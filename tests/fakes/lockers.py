"""Lockers and installers of other people, each in an environment of its own."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import missing
from fakes.index import FakeIndex
from fakes.server import serving
from fakes.universe import fill

from mlbox.files import locked

Tool = Callable[..., str]


@pytest.fixture(scope="module")
def index() -> Iterator[FakeIndex]:
    """An index of this machine that has the small world."""
    with serving() as server:
        found = FakeIndex(server)
        fill(found)
        yield found


@pytest.fixture(scope="session")
def tool_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Tool]:
    """Return a function that installs a tool, once for all processes that run these tests, and returns it as one."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent / "tools" if "PYTEST_XDIST_WORKER" in os.environ else base / "tools"
    home = tmp_path_factory.mktemp("home")

    def tool(program: str, *packages: str) -> Tool:
        if program == "uv":
            return _called(_uv(), home / program)
        wanted = packages or (program,)
        name = re.sub(r"[^\w.]+", "-", "-".join(wanted))
        return _called(str(_installed(shared / name, program, wanted)), home / name)

    return tool


def _installed(venv: Path, program: str, packages: tuple[str, ...]) -> Path:
    path = venv / "bin" / program
    venv.parent.mkdir(parents=True, exist_ok=True)
    with locked(venv.with_name(f"{venv.name}.lock")):
        if path.exists():
            return path
        for argv in (["venv", "-q", "--clear", str(venv)], ["pip", "install", "-q", "--python", str(venv), *packages]):
            done = subprocess.run([_uv(), *argv], capture_output=True, text=True, timeout=300)
            if done.returncode:
                missing(f"{program} cannot be installed: {done.stderr[-500:]}")
    return path


def _called(path: str, home: Path) -> Tool:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_", "VIRTUAL_ENV"))}
    env |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
    env |= {"PIPENV_VENV_IN_PROJECT": "1", "PIPENV_IGNORE_VIRTUALENVS": "1", "CI": "1", "NO_COLOR": "1"}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PDM_CHECK_UPDATE": "0", "POETRY_VIRTUALENVS_CREATE": "false"}

    def call(cwd: Path, *args: str) -> str:
        done = subprocess.run([path, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{path} {args}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    return call


def _uv() -> str:
    from uv import find_uv_bin

    return str(find_uv_bin())
