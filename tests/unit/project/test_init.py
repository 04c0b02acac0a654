"""`mlbox init`: what is shown, guessed, written and copied."""

import tomllib
from pathlib import Path

import pytest

from mlbox.errors import ProjectError, UsageError
from mlbox.project.discover import load_project
from mlbox.project.init import describe, guess_tasks, new_from_template, templates, write_settings
from mlbox.project.model import Health, Task

APP = 'import fastapi\n\nservice = fastapi.FastAPI(title="x")\n\n@service.get("/healthz")\ndef h(): ...\n'


def make(root: Path, files: dict[str, str]) -> Path:
    """Write `files` below `root` and return it."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_guesses(tmp_path: Path) -> None:
    """From the names of files and, for services, from their text."""
    files = {"requirements.txt": "FastAPI>=0.1\n", "train.py": "", "src/app.py": APP, "outputs/x": ""}
    guesses = guess_tasks(load_project(make(tmp_path, files)))

    assert guesses["train"].task == Task(command=("python", "train.py"), outputs="outputs")
    assert guesses["serve"].task == Task(
        command=("uvicorn", "app:service", "--app-dir", "src", "--host", "127.0.0.1", "--port", "8000"),
        port=8000,
        health=Health(path="/healthz"),
    )


@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": "fastapi", "app.py": "print()"},
        {"requirements.txt": "numpy", "app.py": APP},
        {"requirements.txt": "fastapi", "app.py": APP, "mlbox.toml": '[serve]\ncommand = "x"\nport = 1\n'},
    ],
)
def test_nothing_is_guessed_without_a_reason(tmp_path: Path, files: dict[str, str]) -> None:
    """No application, no FastAPI among the requirements, or already declared."""
    assert guess_tasks(load_project(make(tmp_path, files))) == {}


def test_describe(tmp_path: Path) -> None:
    """Every file with its reason, and guesses marked as such."""
    files = {
        "pyproject.toml": '[project]\nname = "x"\ndependencies = ["numpy"]\n',
        "requirements.txt": "",
        "train.py": "",
    }
    facts = {(fact.label, fact.value): fact.why for fact in describe(load_project(make(tmp_path, files)))}

    assert facts["file", "pyproject.toml"] == "[project] dependencies"
    assert facts["not used", "requirements.txt"] == "pyproject.toml comes first"
    assert facts["requirements", "1"] == ""
    assert facts["train", "python train.py"] == "guessed: there is a train.py"


def test_settings_are_written_into_pyproject(tmp_path: Path) -> None:
    """Comments and layout stay; what was written is read back; doing it again changes nothing."""
    before = (
        '# top\n[project]\nname = "x"  # name\nversion = "1"\n\n'
        "[tool.ruff]\nline-length = 99\n\n[other]\na = 1\n\n[tool.b]\n"
    )
    make(tmp_path, {"pyproject.toml": before, "requirements.txt": "fastapi", "train.py": "", "app.py": APP})
    project = load_project(tmp_path)

    written = write_settings(project)

    text = written.read_text()
    assert written.name == "pyproject.toml"
    assert all(line in text.splitlines() for line in before.splitlines())
    assert "# guessed by mlbox init: there is a train.py" in text
    again = load_project(tmp_path)
    assert again.settings.train == guess_tasks(project)["train"].task
    assert again.settings.serve == guess_tasks(project)["serve"].task
    write_settings(again)
    assert written.read_text() == text


def test_settings_without_a_pyproject(tmp_path: Path) -> None:
    """mlbox.toml, with what it already says kept."""
    make(tmp_path, {"requirements.txt": "", "train.py": "", "mlbox.toml": '# mine\npython = "3.11"\n'})
    assert write_settings(load_project(tmp_path)) == tmp_path / "mlbox.toml"
    assert (tmp_path / "mlbox.toml").read_text().startswith('# mine\npython = "3.11"\n')
    assert load_project(tmp_path).settings.train == Task(command=("python", "train.py"))

    bare = make(tmp_path / "bare", {"requirements.txt": ""})
    assert tomllib.loads(write_settings(load_project(bare)).read_text()) == {}


def test_template_never_overwrites(tmp_path: Path) -> None:
    """Nothing is written when one file is in the way, a dangling link included; all of them are named."""
    make(tmp_path, {"train.py": "mine"})
    (tmp_path / "pyproject.toml").symlink_to("gone")
    with pytest.raises(ProjectError, match=r"pyproject\.toml, train\.py would be overwritten"):
        new_from_template("train", tmp_path)
    assert (tmp_path / "train.py").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pyproject.toml", "train.py"]


def test_template_variables(tmp_path: Path) -> None:
    """{{name}} is the folder's name made valid, or what is given."""
    new_from_template("minimal", tmp_path / "My Project!")
    new_from_template("minimal", tmp_path / "b", {"name": "given"})
    assert load_project(tmp_path / "My Project!").name == "my-project"
    assert load_project(tmp_path / "b").name == "given"
    with pytest.raises(UsageError, match="cannot name a project"):
        new_from_template("minimal", tmp_path / "c", {"name": 'x"\nevil = "y'})


def test_unknown_template(tmp_path: Path) -> None:
    """With the closest one there is; a path is no template."""
    with pytest.raises(UsageError) as refused:
        new_from_template("trian", tmp_path)
    assert refused.value.hint == "did you mean 'train'?"
    with pytest.raises(UsageError):
        new_from_template("../examples", tmp_path)
    assert set(templates()) >= {"minimal", "train", "serve"}
