"""What commands are called and what they take, said without the library that reads command lines.

Importing typer takes longer than `mlbox ps`. A command declares its parameters in these words, once: `quick` reads
plain command lines by them, and `parser` makes typer's commands of them for everything else.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Option:
    """An option of a command; without `names` it is called like the parameter."""

    def __init__(self, *names: str, help: str = "", metavar: str | None = None, min: float | None = None) -> None:
        self.names = names
        self.help = help
        self.metavar = metavar
        self.min = min


class Argument:
    """A word of the command line that is no option; a list takes all that are left."""

    def __init__(self, *, help: str = "", metavar: str | None = None) -> None:
        self.help = help
        self.metavar = metavar


class Command(NamedTuple):
    """A function whose parameters are all `Annotated` with an Option or Argument."""

    name: str
    function: Callable[..., int | None]
    interspersed: bool
    """Whether options may stand behind arguments; else what follows the first argument is one too."""


class App:
    """The commands of one module."""

    def __init__(self) -> None:
        self.commands: dict[str, Command] = {}

    def command(self, name: str = "", *, interspersed: bool = True) -> Callable[[F], F]:
        """Make the decorated function a command, called `name` or else like the function."""

        def add(function: F) -> F:
            command = Command(name or function.__name__, function, interspersed)
            self.commands[command.name] = command
            return function

        return add
