"""What a project's task means for its container."""

import socket
from pathlib import Path

import pytest

from mlbox.engine.running import read_env_file, serve, task_options
from mlbox.errors import ContainerError, UsageError
from mlbox.paths import Home
from mlbox.project.model import Project, Settings, Task
from mlbox.runtime.options import BindMount, RunOptions
from mlbox.store.store import Store


def project(root: Path) -> Project:
    """A project at `root`."""
    return Project(root=root, name="p", settings=Settings(), sources=())


def test_a_task_may_say_which_gpus_it_needs(tmp_path: Path) -> None:
    """The command line has the last word."""
    task = Task(command=("x",), gpus=2)
    assert task_options(project(tmp_path), task, (), RunOptions()).gpus == "2"
    assert task_options(project(tmp_path), task, (), RunOptions(gpus="none")).gpus == "none"
    assert task_options(project(tmp_path), Task(command=("x",)), (), RunOptions()).gpus == ""


def test_a_task_gets_its_folders_command_and_address(tmp_path: Path) -> None:
    """Outputs are made and writable, inputs are read-only, HOST and PORT say where to listen, -e wins."""
    (tmp_path / "models").mkdir()
    task = Task(command=("python", "x.py"), outputs="out", inputs=("models",), port=8000, env={"A": "1", "B": "1"})
    options = task_options(project(tmp_path), task, ("--fast",), RunOptions(env={"B": "2"}))

    assert options.command == ("python", "x.py", "--fast")
    assert options.env == {"HOST": "127.0.0.1", "PORT": "8000", "A": "1", "B": "2"}
    assert options.mounts == (
        BindMount(source=str(tmp_path / "out"), target="/workspace/out"),
        BindMount(source=str(tmp_path / "models"), target="/workspace/models", readonly=True),
    )
    assert (tmp_path / "out").is_dir()


def test_a_missing_input_is_an_error(tmp_path: Path) -> None:
    """A container must not start with an empty folder in place of its inputs."""
    with pytest.raises(UsageError, match="models"):
        task_options(project(tmp_path), Task(command=("x",), inputs=("models",)), (), RunOptions())


def test_env_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NAME=VALUE as it stands, comments skipped, a bare NAME passes ours; spaces in a name are refused."""
    monkeypatch.setenv("OURS", "o")
    monkeypatch.delenv("UNSET", raising=False)
    file = tmp_path / "env"
    file.write_text("# c\n\nA=1 # not a comment\nB='q'\nOURS\nUNSET\n")

    assert read_env_file(file) == {"A": "1 # not a comment", "B": "'q'", "OURS": "o"}
    file.write_text("not a name=1\n")
    with pytest.raises(UsageError, match=":1"):
        read_env_file(file)


def test_a_taken_port_is_said_before_anything_starts(home: Home) -> None:
    """Another program there would answer the health check in the service's place."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        task = Task(command=("x",), port=taken.getsockname()[1])
        with pytest.raises(ContainerError, match="taken"):
            serve(Store(home), "no/image", RunOptions(), task, detach=True, say=print)
