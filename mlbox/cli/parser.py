"""The whole command line as typer reads it: help, mistakes, and everything that `quick` leaves to it.

typer brings its own copy of click, whose types it does not export: hence the private imports and the pinned version.
"""

import importlib
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from typing import Annotated, Any, get_args

import typer
from typer._click import Command as TyperCommand
from typer._click import Context
from typer._click.exceptions import ClickException
from typer.core import TyperGroup

from mlbox.cli.main import COMMANDS
from mlbox.cli.words import App, Argument, Command, Option

Call = Callable[[Command, dict[str, Any]], int | None]


class LazyGroup(TyperGroup):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> TyperCommand | None:
        """Import and return the command, None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        found = importlib.import_module(f"mlbox.cli.{COMMANDS[cmd_name]}").app
        made = typer_app(found) if isinstance(found, App) else found
        return typer.main.get_group(made).commands[cmd_name]


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _mlbox() -> None:
    """Freeze, share and run reproducible ML environments."""


def run(argv: Sequence[str]) -> int:
    """Run one command line and return the exit code: 2 for a mistake in it, else the command's own."""
    group = typer.main.get_command(app)
    try:
        with group.make_context("mlbox", list(argv)) as context:
            return int(group.invoke(context) or 0)
    except ClickException as problem:
        problem.show()
        return problem.exit_code
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort:
        return 130


def _call(command: Command, values: dict[str, Any]) -> int | None:
    return command.function(**values)


def typer_app(words: App, call: Call = _call) -> typer.Typer:
    """Return the commands of one module for typer, which then does `call` with what it read."""
    made = typer.Typer(rich_markup_mode=None)
    for command in words.commands.values():
        settings = {} if command.interspersed else {"allow_interspersed_args": False}
        made.command(command.name, context_settings=settings)(_callback(command, call))
    return made


def _callback(command: Command, call: Call) -> Callable[..., int | None]:
    def callback(**values: Any) -> int | None:  # noqa: ANN401 - whatever the command takes
        return call(command, values)

    function = command.function
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    callback.__doc__ = function.__doc__
    callback.__annotations__ = {name: _annotation(function.__annotations__[name]) for name in names}
    first = len(names) - len(defaults)
    callback.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(
                name,
                Parameter.KEYWORD_ONLY,
                default=defaults[place - first] if place >= first else Parameter.empty,
                annotation=callback.__annotations__[name],
            )
            for place, name in enumerate(names)
        ]
    )
    return callback


def _annotation(hint: Any) -> Any:  # noqa: ANN401 - types as values
    kind, word = get_args(hint)
    return Annotated[kind, _typer_word(word)]


def _typer_word(word: Option | Argument) -> Any:  # noqa: ANN401
    if isinstance(word, Argument):
        return typer.Argument(help=word.help or None, metavar=word.metavar)
    return typer.Option(*word.names, help=word.help or None, metavar=word.metavar, min=word.min)
