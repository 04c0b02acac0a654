"""The starter projects: each one loads, declares what its name promises, and holds Python that compiles."""

from pathlib import Path

import pytest

from mlbox.project.discover import load_project
from mlbox.project.init import new_from_template, templates
from mlbox.resources import folder


def test_every_folder_is_listed_with_a_line_about_it() -> None:
    """index.toml and the folders beside it say the same."""
    listed = templates()

    assert set(listed) == {path.name for path in folder("templates").iterdir() if path.is_dir()}
    assert all(line and "\n" not in line for line in listed.values())


@pytest.mark.parametrize("name", sorted(templates()))
def test_a_new_project_loads(name: str, tmp_path: Path) -> None:
    """Rendered for a folder with an awkward name, it is a project without problems or unfilled places."""
    target = tmp_path / "My Project"
    target.mkdir()
    files = new_from_template(name, target)
    project = load_project(target)

    assert project.name == "my-project"
    assert not project.notes
    for file in files:
        text = file.read_text()
        assert "{{" not in text, file
        if file.suffix == ".py":
            compile(text, str(file), "exec")


@pytest.mark.parametrize("name", ["train", "serve"])
def test_a_task_is_declared_and_its_program_is_there(name: str, tmp_path: Path) -> None:
    """`mlbox train` and `mlbox serve` work in a new project: the file that the command starts exists."""
    new_from_template(name, tmp_path)
    settings = load_project(tmp_path).settings
    task = {"train": settings.train, "serve": settings.serve}[name]

    assert task is not None
    words = [word.partition(":")[0] for word in task.command]
    assert any((tmp_path / word).is_file() or (tmp_path / f"{word}.py").is_file() for word in words)
    assert task.outputs if name == "train" else task.port and task.health
