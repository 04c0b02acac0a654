"""The command table, and the one place where errors become exit codes.

typer brings its own copy of click, whose types it does not export: hence the private imports and the pinned version.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from typer._click import Command, Context
from typer._click.exceptions import ClickException
from typer.core import TyperGroup

from mlbox.errors import MlboxError

COMMANDS = {
    "init": "project",
    "lock": "project",
    "plan": "project",
    "build": "project",
    "train": "project",
    "serve": "project",
    "run": "run",
    "ps": "containers",
    "logs": "containers",
    "exec": "containers",
    "start": "containers",
    "stop": "containers",
    "kill": "containers",
    "wait": "containers",
    "rm": "containers",
    "gpu": "gpu",
    "check": "gpu",
    "explain": "explain",
    "images": "images",
    "rmi": "images",
    "tag": "images",
    "history": "images",
    "inspect": "images",
    "login": "registry",
    "logout": "registry",
    "tags": "registry",
    "pull": "share",
    "push": "share",
    "copy": "share",
    "save": "archive",
    "load": "archive",
    "serve-store": "archive",
    "bundle": "bundle",
    "sbom": "trust",
    "provenance": "trust",
    "sign": "trust",
    "signatures": "trust",
    "key": "trust",
    "verify": "prove",
    "diff": "prove",
    "why": "prove",
    "du": "prove",
    "df": "store",
    "prune": "store",
    "fsck": "store",
    "doctor": "store",
    "version": "store",
}
"""Command to the module of mlbox.cli that holds it: a module is imported only when one of its commands is typed."""


class LazyGroup(TyperGroup):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Import and return the command, None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mlbox.cli.{COMMANDS[cmd_name]}")
        return typer.main.get_group(module.app).commands[cmd_name]


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
    """Run one command line and return the exit code: 1 mlbox failed, 2 usage, else the command's own."""
    try:
        return int(typer.main.get_command(app).main(list(argv), prog_name="mlbox", standalone_mode=False) or 0)
    except ClickException as problem:
        problem.show()
        return problem.exit_code
    except MlboxError as problem:
        _report(problem)
        return problem.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; nothing is left to say, and nothing must fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as problem:
        if os.environ.get("MLBOX_DEBUG") or problem.strerror is None:
            raise
        where = f": {problem.filename}" if problem.filename else ""
        _report(MlboxError(f"{problem.strerror}{where}", hint="MLBOX_DEBUG=1 shows what mlbox was doing"))
        return MlboxError.exit_code
    except Exception as problem:
        if os.environ.get("MLBOX_DEBUG"):
            raise
        place = problem.__traceback__
        while place and place.tb_next:
            place = place.tb_next
        where = f" ({Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno})" if place else ""
        bug = MlboxError(
            f"a bug in mlbox: {type(problem).__name__}: {problem}{where}",
            hint="MLBOX_DEBUG=1 shows where; please report it with that output",
        )
        _report(bug)
        return bug.exit_code


def _report(problem: MlboxError) -> None:
    print(f"mlbox: {problem.message}", file=sys.stderr)
    if problem.hint:
        print(f"hint: {problem.hint}", file=sys.stderr)
