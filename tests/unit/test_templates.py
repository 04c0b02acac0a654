"""templates/ and examples/: each folder is a project that mlbox reads without a word of complaint."""

import ast
from pathlib import Path

import pytest

from mlbox import resources
from mlbox.project.discover import load_project
from mlbox.project.init import new_from_template, templates

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_index_names_every_folder() -> None:
    """A template that is not in index.toml would never be offered."""
    folders = {path.name for path in resources.folder("templates").iterdir() if path.is_dir()}
    assert folders == set(templates())


@pytest.mark.parametrize("name", ["minimal", "serve", "train"])
def test_template_is_a_project(tmp_path: Path, name: str) -> None:
    """It loads, says what to run, its Python parses, and no variable is left."""
    files = new_from_template(name, tmp_path / "new")
    project = load_project(tmp_path / "new")

    assert project.name == "new"
    assert project.notes == ()
    assert {"minimal": project.settings.command, "serve": project.settings.serve, "train": project.settings.train}[name]
    for file in files:
        assert "{{" not in file.read_text()
        if file.suffix == ".py":
            ast.parse(file.read_text())


@pytest.mark.parametrize("name", ["sklearn-train", "serve-fastapi", "torch-train"])
def test_example_is_a_project(name: str) -> None:
    """It loads and declares its task."""
    project = load_project(EXAMPLES / name)
    assert project.requirements
    assert project.notes == ()
    assert project.settings.train or project.settings.serve
    assert (project.package is not None) == (name == "torch-train")


def test_the_served_model_is_the_trained_one() -> None:
    """A pickle belongs to the version that wrote it: both examples ask for the same scikit-learn."""
    pins = [
        [one.text for one in load_project(EXAMPLES / name).requirements if one.text.startswith("scikit-learn")]
        for name in ("sklearn-train", "serve-fastapi")
    ]
    assert pins[0] == pins[1]
    assert "==" in pins[0][0]
