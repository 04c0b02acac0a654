"""Everything that is wrong with a project's files, told in one go."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mlbox.errors import ProjectError

MAX_SHOWN = 50
"""Problems in one message; a binary file read as requirements has thousands."""


class Problems:
    """Collects problems while files are read; `check` raises one ProjectError that names them all."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], str] = {}

    def add(self, where: str, message: str, hint: str = "") -> None:
        """Note that `message` holds at `where` (a file with line or dotted key); the same twice is one problem."""
        self._found.setdefault((where, message), hint)

    @contextmanager
    def at(self, where: str) -> Iterator[None]:
        """Collect a ProjectError that the block raises as a problem at `where`, and go on after the block."""
        try:
            yield
        except ProjectError as problem:
            self.add(where, problem.message, problem.hint or "")

    def check(self) -> None:
        """Raise ProjectError if anything was collected."""
        if not self._found:
            return
        if len(self._found) == 1:
            [((where, message), hint)] = self._found.items()
            raise ProjectError(f"{where}: {message}", hint=hint or None)
        shown = list(self._found.items())[:MAX_SHOWN]
        lines = [f"  {where}: {message}" + (f" ({hint})" if hint else "") for (where, message), hint in shown]
        if more := len(self._found) - len(shown):
            lines.append(f"  and {more} more")
        raise ProjectError("\n".join([f"{len(self._found)} problems in the project's files:", *lines]))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint for a mistyped `name`: the closest of `known`, else all of them."""
    import difflib  # only where something is wrong

    names = sorted(known)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.6):
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else ""
