"""Plain command lines mean what typer says they mean."""

import importlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer._click.exceptions import ClickException

from mlbox import process
from mlbox.cli.main import COMMANDS
from mlbox.cli.parser import typer_app
from mlbox.cli.quick import NotPlainError, arguments_of
from mlbox.cli.words import App, Command, Option

APPS = {module: importlib.import_module(f"mlbox.cli.{module}").app for module in dict.fromkeys(COMMANDS.values())}
WORDS = {name: app.commands[name] for name, module in COMMANDS.items() if isinstance(app := APPS[module], App)}
SOME = [
    "x",
    "",
    "-",
    "--",
    "-1",
    "0",
    "7",
    "1.5",
    "nan",
    "a=b",
    "table",
    "json",
    "-h",
    "--help",
    "--no-such",
    "é",
    "-Z",
]


def by_typer(command: Command, argv: list[str]) -> dict[str, Any] | None:
    """Return what typer would call the function of `command` with, None for a mistake or a question for help."""
    called: list[dict[str, Any]] = []

    def note(_: Command, values: dict[str, Any]) -> None:
        called.append(values)

    alone = App()
    alone.commands[command.name] = command
    # With one command alone typer makes no group.
    parser = typer.main.get_command(typer_app(alone, note))
    try:
        with parser.make_context(command.name, list(argv)) as context:
            parser.invoke(context)
    except (ClickException, typer.Exit):
        return None
    return called[0]


def quickly(command: Command, argv: list[str]) -> dict[str, Any] | None:
    """Return the same by the quick reader, its defaults filled in; None when it does not want to."""
    try:
        values = arguments_of(command, argv)
    except NotPlainError:
        return None
    function: Callable[..., Any] = command.function
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    return dict(zip(names[len(names) - len(defaults) :], defaults, strict=True)) | values


def same(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Whether both are the same values of the same types."""
    return one is not None and other is not None and sorted(map(repr, one.items())) == sorted(map(repr, other.items()))


def words_of(command: Command) -> list[str]:
    """Return what can stand in the command line of `command`, each option in several forms."""
    found = list(SOME)
    for name, hint in command.function.__annotations__.items():
        word = getattr(hint, "__metadata__", (None,))[0]
        if isinstance(word, Option):
            for option in word.names or ("--" + name.replace("_", "-"),):
                found += [option, option, f"{option}=7", f"{option}x", f"{option}7", option + "it", option + "=="]
    return found


@pytest.mark.parametrize("name", list(WORDS))
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_what_is_read_quickly_is_what_typer_reads(name: str, data: st.DataObject) -> None:
    """Whatever the words: either the same arguments, or it is left to typer."""
    command = WORDS[name]
    argv = data.draw(st.lists(st.sampled_from(words_of(command)), max_size=5))
    found = quickly(command, argv)
    assert found is None or same(found, by_typer(command, argv))


@pytest.mark.parametrize(
    "line",
    [
        "ps",
        "ps -aq",
        "ps --all --format json",
        "images -q",
        "images --format=table",
        "inspect one two",
        "rmi -f one two",
        "logs -f -n 20 --since 10m name",
        "logs name --tail=3",
        "exec -it name sh -c 'ls -la'",
        "stop -t 0.5 one",
        "rm -f one two",
        "run --rm image true",
        "run -it --rm -v /data:/data:ro -e A=B -eC image python -c 'print(1)' --help",
        "run -d --name x --gpus 1 --cpus 1.5 -m8g --env-file f --pids-limit -1 -- image -- sh",
        "init",
        "plan --format json",
        "lock --upgrade numpy",
        "build -t team/name:1 -C folder",
        "train --gpus 2 -- --epochs 10",
        "serve -d",
        "verify image",
        "diff one two --files",
        "why image /usr/bin/git",
        "push image docker.io/me/image:1",
        "save -o file image",
    ],
)
def test_what_people_type_is_plain(line: str) -> None:
    """The commands of every day are read quickly, and as typer reads them."""
    name, *argv = shlex.split(line)
    found = quickly(WORDS[name], argv)
    assert found is not None
    assert same(found, by_typer(WORDS[name], argv))


@pytest.mark.parametrize(
    "line",
    [
        "ps -h",
        "ps --help",
        "ps extra",
        "ps --al",
        "ps --all=yes",
        "ps -ax",
        "images --format yaml",
        "logs",
        "logs -n x name",
        "logs -n -1 name",
        "logs name -n",
        "rm",
        "run",
        "run --cpus 0 image",
        "run -m=8g image",
    ],
)
def test_what_is_not_plain_is_left_to_typer(line: str) -> None:
    """Mistakes and questions are answered by the one who knows the words for it."""
    name, *argv = shlex.split(line)
    assert quickly(WORDS[name], argv) is None


def test_all_kinds_of_values() -> None:
    """Numbers, paths and lists arrive as what the function says they are."""

    def function(
        first: Annotated[Path, Option("-C")],
        number: Annotated[int | None, Option("-n", min=1)] = None,
        many: Annotated[list[float] | None, Option("--many")] = None,
    ) -> None: ...

    command = Command("x", function, interspersed=True)
    assert arguments_of(command, ["-C", "a", "-n2", "--many", "1", "--many=2"]) == {
        "first": Path("a"),
        "number": 2,
        "many": [1.0, 2.0],
    }
    for wrong in ([], ["-C", "a", "-n", "0"], ["-C", "a", "--many", "x"], ["-C"]):
        with pytest.raises(NotPlainError):
            arguments_of(command, wrong)


@pytest.mark.parametrize("line", ["ps", "images -q", "run --rm --pull never none true", "logs none"])
def test_typer_is_not_imported_for_plain_lines(line: str, tmp_path: Path) -> None:
    """Which is what all this is for."""
    program = (
        "import sys; from mlbox.cli.main import run; "
        f"run({shlex.split(line)!r}); sys.exit(' '.join(set(sys.modules) & {{'typer', 'click'}}) or 0)"
    )
    env = {"PYTHONPATH": ":".join(sys.path), "MLBOX_HOME": str(tmp_path)}
    process.run([sys.executable, "-c", program], env=env)
