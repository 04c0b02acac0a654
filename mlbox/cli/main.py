"""The command table, and the one place where errors become exit codes."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mlbox.cli.quick import NotPlainError, arguments_of
from mlbox.cli.words import App
from mlbox.errors import MlboxError

COMMANDS = {
    "init": "project",
    "lock": "project",
    "plan": "project",
    "build": "project",
    "export": "export",
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
    "cache": "wheels",
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


def run(argv: Sequence[str]) -> int:
    """Run one command line and return the exit code: 1 mlbox failed, 2 usage, else the command's own."""
    try:
        return _run(argv)
    except MlboxError as problem:
        _report(problem)
        return problem.exit_code
    except KeyboardInterrupt:
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


def _run(argv: Sequence[str]) -> int:
    if argv and argv[0] in COMMANDS:
        found = importlib.import_module(f"mlbox.cli.{COMMANDS[argv[0]]}").app
        if isinstance(found, App):
            command = found.commands[argv[0]]
            try:
                values = arguments_of(command, argv[1:])
            except NotPlainError:
                pass
            else:
                return command.function(**values) or 0
    elif argv and not argv[0].startswith("-"):
        from mlbox.cli.unknown import unknown

        raise unknown(argv[0])
    from mlbox.cli import parser  # typer, whose import takes longer than most commands

    return parser.run(argv)


def _report(problem: MlboxError) -> None:
    from mlbox.cli.render import shown_lines

    print(shown_lines(f"mlbox: {problem.message}"), file=sys.stderr)
    if problem.hint:
        print(shown_lines(f"hint: {problem.hint}"), file=sys.stderr)
