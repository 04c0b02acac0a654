"""Lockers and installers of other people, each in an environment of its own."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import missing

Tool = Callable[..., str]


@pytest.fixture(scope="session")
def tool_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Tool]:
    """Return a function that installs a tool for this session and returns it as a function."""
    made: dict[str, Tool] = {}

    def install(program: str, *packages: str) -> Tool:
        name = "-".join((program, *packages)).replace("/", "-")
        if name not in made:
            made[name] = _installed(tmp_path_factory.mktemp("tool"), program, packages or (program,))
        return made[name]

    return install


def _installed(folder: Path, program: str, packages: tuple[str, ...]) -> Tool:
    uv = _uv()
    home = folder / "home"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_", "VIRTUAL_ENV"))}
    env |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
    env |= {"PIPENV_VENV_IN_PROJECT": "1", "PIPENV_IGNORE_VIRTUALENVS": "1", "CI": "1", "NO_COLOR": "1"}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PDM_CHECK_UPDATE": "0", "POETRY_VIRTUALENVS_CREATE": "false"}
    if program != "uv":
        venv = folder / "venv"
        for argv in (["venv", "-q", str(venv)], ["pip", "install", "-q", "--python", str(venv), *packages]):
            done = subprocess.run([uv, *argv], capture_output=True, text=True, timeout=300)
            if done.returncode:
                missing(f"{program} cannot be installed: {done.stderr[-500:]}")
    path = uv if program == "uv" else str(folder / "venv/bin" / program)

    def call(cwd: Path, *args: str) -> str:
        done = subprocess.run([path, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{program} {args}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    return call


def _uv() -> str:
    from uv import find_uv_bin

    return str(find_uv_bin())
