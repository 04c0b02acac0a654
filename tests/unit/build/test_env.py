"""The empty environment."""

from pathlib import Path

from mlbox.build.env import fill_env
from mlbox.plan.model import EnvPiece
from mlbox.store.tree import below, diff_id_of


def test_the_environment_is_a_virtual_environment(tmp_path: Path) -> None:
    tree = fill_env(tmp_path / "env", EnvPiece(python="3.12", python_full="3.12.3"))
    env = tmp_path / "env/opt/mlbox/env"
    assert (env / "bin/python3.12").readlink() == Path("/usr/bin/python3.12")
    assert (env / "bin/python").readlink() == (env / "bin/python3").readlink() == Path("python3.12")
    assert (env / "lib64").readlink() == Path("lib")
    assert (env / "lib/python3.12/site-packages").is_dir()
    settings = dict(line.split(" = ") for line in (env / "pyvenv.cfg").read_text().splitlines())
    assert settings["home"] == "/usr/bin"
    assert settings["version"] == "3.12.3"
    assert settings["include-system-site-packages"] == "false"
    assert diff_id_of(tree.entries, below(tmp_path / "env"))


def test_the_epoch_is_every_time(tmp_path: Path) -> None:
    tree = fill_env(tmp_path / "env", EnvPiece(python="3.11", python_full="3.11.2", epoch=1234567890))
    assert {entry.mtime for entry in tree.entries} == {1234567890}
    assert (tmp_path / "env/opt/mlbox/env/lib").stat().st_mtime == 1234567890


def test_an_interpreter_elsewhere(tmp_path: Path) -> None:
    """Over an image's own Python the links and the configuration name its folder."""
    fill_env(tmp_path / "env", EnvPiece(python="3.12", python_full="3.12.3", home="/usr/local/bin"))
    env = tmp_path / "env/opt/mlbox/env"
    assert (env / "bin/python3.12").readlink() == Path("/usr/local/bin/python3.12")
    assert (env / "pyvenv.cfg").read_text().startswith("home = /usr/local/bin\n")
