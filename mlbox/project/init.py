"""`mlbox init`: what was detected, guessed commands, settings written, projects started from templates."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlbox import resources
from mlbox.codec import load_toml
from mlbox.errors import ProjectError, UsageError
from mlbox.files import write_atomic
from mlbox.project import pyproject as pyproject_file
from mlbox.project import settings as settings_file
from mlbox.project.model import Health, Project, Settings, Task
from mlbox.project.problems import did_you_mean
from mlbox.project.proposal import Suggestion
from mlbox.project.reading import read_bytes
from mlbox.project.requirement import normalize

if TYPE_CHECKING:
    from tomlkit.items import Table

_TRAIN = ("train.py", "training.py", "src/train.py", "scripts/train.py")
_SERVE = ("app.py", "main.py", "server.py", "serve.py", "api.py", "src/app.py", "src/main.py", "app/main.py")
_APPLICATION = re.compile(rb"^(\w+)\s*(?::\s*\w+\s*)?=\s*(?:fastapi\.)?FastAPI\(", re.MULTILINE)
_HEALTH = re.compile(rb"\.get\(\s*['\"](/(?:healthz?|ready|live|ping|status)[\w/-]*)['\"]")
_OUTPUTS = ("outputs", "output", "checkpoints", "runs")
_PORT = 8000


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One line of what `mlbox init` shows."""

    label: str
    value: str
    why: str = ""


class Guess(msgspec.Struct, frozen=True, kw_only=True):
    """A task nobody declared, and what it was guessed from."""

    task: Task
    why: str


def describe(project: Project) -> list[Fact]:
    """Return what was found: files, requirements, Python, package, tasks, notes."""
    counted = [Fact(label=kind, value=str(many)) for kind, many in _counts(project) if many]
    facts = [Fact(label="project", value=project.name)]
    facts += [
        Fact(label="file" if source.used else "not used", value=source.path, why=source.reason)
        for source in project.sources
    ]
    facts += counted or [Fact(label="requirements", value="0", why="an environment with only Python")]
    facts.append(_python(project))
    if project.package:
        why = f"from {project.package.source or 'the project folder'}"
        facts.append(
            Fact(label="package", value=f"{project.package.name} {project.package.version}", why=f"installed {why}")
        )
    for folder in project.folders:
        version = folder.package.version if folder.package else "(not installed, only what it asks for)"
        facts.append(Fact(label="folder", value=f"{folder.name} {version}", why=f"from {folder.path}"))
    facts += [Fact(label="accelerator", value=project.settings.accelerator)]
    facts += [Fact(label=name, value=" ".join(task.command), why="declared") for name, task in _tasks(project.settings)]
    facts += [
        Fact(label=name, value=" ".join(guess.task.command), why=f"guessed: {guess.why}")
        for name, guess in guess_tasks(project).items()
    ]
    return facts + [Fact(label="note", value=note) for note in project.notes]


def _counts(project: Project) -> list[tuple[str, int]]:
    return [("requirements", len(project.requirements)), ("constraints", len(project.constraints))]


def _python(project: Project) -> Fact:
    if project.settings.python:
        return Fact(label="python", value=project.settings.python, why="settings")
    if project.python_file:
        return Fact(label="python", value=project.python_file, why=".python-version")
    return Fact(label="python", value=project.requires_python or "any", why="the newest that the base has")


def _tasks(settings: Settings) -> list[tuple[str, Task]]:
    declared = [("train", settings.train), ("serve", settings.serve), *settings.tasks.items()]
    return [(name, task) for name, task in declared if task]


def guess_tasks(project: Project) -> dict[str, Guess]:
    """Return train and serve commands that the files suggest, where none are declared."""
    guesses = {"train": _guess_train(project), "serve": _guess_serve(project)}
    declared = dict(_tasks(project.settings))
    return {name: guess for name, guess in guesses.items() if guess and name not in declared}


def _guess_train(project: Project) -> Guess | None:
    file = next((file for file in _TRAIN if (project.root / file).is_file()), None)
    if file is None:
        return None
    outputs = next((name for name in _OUTPUTS if (project.root / name).is_dir()), "")
    return Guess(task=Task(command=("python", file), outputs=outputs), why=f"there is a {file}")


def _guess_serve(project: Project) -> Guess | None:
    names = {normalize(found[0]) for one in project.requirements if (found := re.match(r"[A-Za-z0-9._-]+", one.text))}
    if not names & {"fastapi", "uvicorn"}:
        return None
    for file in _SERVE:
        text = _content(project.root / file)
        if application := _APPLICATION.search(text):
            module = file.removesuffix(".py").removeprefix("src/").replace("/", ".")
            folder = ("--app-dir", "src") if file.startswith("src/") else ()
            health = _HEALTH.search(text)
            command = (
                "uvicorn",
                f"{module}:{application[1].decode()}",
                *folder,
                "--host",
                "127.0.0.1",
                "--port",
                str(_PORT),
            )
            task = Task(command=command, port=_PORT, health=Health(path=health[1].decode()) if health else None)
            return Guess(task=task, why=f"{file} makes a FastAPI application")
    return None


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except ProjectError:
        return b""


def declared_keys(root: Path) -> frozenset[str]:
    """Return the keys of the settings that are written down."""
    keys: dict[str, tuple[str, ...]] = {settings_file.FILE: (), pyproject_file.FILE: ("tool", "mlbox")}
    for file, above in keys.items():
        if (root / file).is_file():
            table = pyproject_file.at(
                load_toml(read_bytes(root / file, root=root), what=file, error=ProjectError), *above
            )
            if isinstance(table, dict):
                return frozenset(table)
    return frozenset()


def write_settings(project: Project, drawn: Sequence[Suggestion] = ()) -> Path:
    """Write what was `drawn` and guessed (or an empty [tool.mlbox]) where settings belong; return that file.

    pyproject.toml keeps its comments and layout; without one mlbox.toml is written. Declared settings stay.
    """
    import tomlkit

    root = project.root
    file = pyproject_file.FILE
    if (root / settings_file.FILE).exists() or not (root / file).exists():
        file = settings_file.FILE
    path = root / file
    document = tomlkit.parse(
        path.read_bytes().decode("utf-8-sig") if path.exists() else "# Settings of mlbox for this project.\n"
    )
    table: Any = document
    if file == pyproject_file.FILE:
        tool = document.setdefault("tool", tomlkit.table(is_super_table=True))
        table = tool.setdefault("mlbox", tomlkit.table())
    _write_drawn(table, drawn)
    for name, guess in guess_tasks(project).items():
        if name not in table:
            table[name] = _task_table(guess)
    write_atomic(path, tomlkit.dumps(document).encode(), mode=path.stat().st_mode & 0o777 if path.exists() else 0o644)
    return path


def _write_drawn(table: Any, drawn: Sequence[Suggestion]) -> None:  # noqa: ANN401 (tomlkit)
    import tomlkit

    from mlbox.project.drawing import as_setting

    # A table ends what stands before it, so what is none comes first.
    for one in sorted(drawn, key=lambda one: isinstance(one.value, dict)):
        if one.key not in table:
            value = as_setting(one)
            item: Any = tomlkit.item(value)
            if isinstance(value, dict):
                item = tomlkit.inline_table()
                item.update(value)
            table[one.key] = item.comment(f"from {one.origin}")


def _task_table(guess: Guess) -> "Table":
    import shlex

    import tomlkit

    table = tomlkit.table()
    table.add(tomlkit.comment(f"guessed by mlbox init: {guess.why}"))
    table["command"] = shlex.join(guess.task.command)
    if guess.task.outputs:
        table["outputs"] = guess.task.outputs
    if guess.task.port:
        table["port"] = guess.task.port
    if guess.task.health:
        health = tomlkit.inline_table()
        health["path"] = guess.task.health.path
        table["health"] = health
    return table


def templates() -> dict[str, str]:
    """Return the templates there are: name -> one line about it."""
    data = (resources.folder("templates") / "index.toml").read_bytes()
    return dict(load_toml(data, what="templates/index.toml"))


def new_from_template(name: str, target: Path, variables: Mapping[str, str] | None = None) -> list[Path]:
    """Copy the template `name` to `target` and return the files; nothing that exists is overwritten.

    {{name}} becomes the folder's name unless `variables` say otherwise.
    """
    known = templates()
    if name not in known:
        raise UsageError(f"there is no template {name!r}", hint=did_you_mean(name, known))
    source = resources.folder("templates") / name
    found = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    files = [file for file in found if "__pycache__" not in file.parts]
    if taken := [str(file) for file in files if (target / file).exists() or (target / file).is_symlink()]:
        raise ProjectError(
            f"{target}: {', '.join(taken)} would be overwritten", hint="start in an empty folder, or move them away"
        )
    values = {"name": _project_name(target), **(variables or {})}
    if not pyproject_file.NAME.fullmatch(values["name"]):
        raise UsageError(f"{values['name']!r} cannot name a project", hint="letters, digits, '.', '-' and '_'")
    for file in files:
        write_atomic(target / file, _filled((source / file).read_text(), values).encode())
    return [target / file for file in files]


def _project_name(target: Path) -> str:
    return normalize(re.sub(r"[^A-Za-z0-9._-]+", "-", target.absolute().name)).strip("-") or "project"


def _filled(text: str, values: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        return values.get(found[1], found[0])

    return re.sub(r"\{\{(\w+)\}\}", value, text)
