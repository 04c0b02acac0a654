"""Plain command lines, read without typer. What is not plain is not judged here: it is typer's to say what it means."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

from mlbox.cli.words import Argument, Command, Option


class NotPlainError(Exception):
    """A help option, a mistake, or anything else that typer has to look at."""


class _Parameter(NamedTuple):
    name: str
    word: Option | Argument
    kind: type
    """Of one value."""
    many: bool
    required: bool

    @property
    def names(self) -> tuple[str, ...]:
        given = self.word.names if isinstance(self.word, Option) else ()
        return given or ("--" + self.name.replace("_", "-"),)


def arguments_of(command: Command, argv: Sequence[str]) -> dict[str, Any]:
    """Return what `argv` gives the function of `command`; what has its default is left out. Raises NotPlainError."""
    parameters = list(_parameters(command.function))
    options = {name: one for one in parameters if isinstance(one.word, Option) for name in one.names}
    values: dict[str, Any] = {}
    free = []
    left = list(reversed(argv))
    while left:
        word = left.pop()
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            free.append(word)
            if not command.interspersed:
                break
        elif word.startswith("--"):
            _take_long(options, word, left, values)
        else:
            _take_short(options, word, left, values)
    free += reversed(left)
    _take_free([one for one in parameters if isinstance(one.word, Argument)], free, values)
    if any(one.required and one.name not in values for one in parameters):
        raise NotPlainError
    return values


def _parameters(function: Callable[..., Any]) -> Iterator[_Parameter]:
    # Not by inspect, which takes 5 ms to import.
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    for place, name in enumerate(names):
        kind, word = get_args(function.__annotations__[name])
        if isinstance(kind, UnionType):
            kind, *_ = (one for one in get_args(kind) if one is not type(None))
        many = get_origin(kind) is list
        yield _Parameter(
            name=name,
            word=word,
            kind=get_args(kind)[0] if many else kind,
            many=many,
            required=place < len(names) - len(defaults),
        )


def _take_long(options: dict[str, _Parameter], word: str, left: list[str], values: dict[str, Any]) -> None:
    name, equals, text = word.partition("=")
    one = _known(options, name)
    if one.kind is bool:
        if equals:
            raise NotPlainError
        values[one.name] = True
    else:
        _add(one, text if equals else _next(left), values)


def _take_short(options: dict[str, _Parameter], word: str, left: list[str], values: dict[str, Any]) -> None:
    if "=" in word[:3]:
        raise NotPlainError
    for place, letter in enumerate(word[1:], 2):
        one = _known(options, f"-{letter}")
        if one.kind is not bool:
            _add(one, word[place:] or _next(left), values)
            return
        values[one.name] = True


def _take_free(places: Sequence[_Parameter], words: list[str], values: dict[str, Any]) -> None:
    left = list(words)
    for one in places:
        if one.many:
            for word in left:
                _add(one, word, values)
            left = []
        elif left:
            _add(one, left.pop(0), values)
    if left:
        raise NotPlainError


def _known(options: dict[str, _Parameter], name: str) -> _Parameter:
    if name not in options:
        raise NotPlainError
    return options[name]


def _next(left: list[str]) -> str:
    if not left:
        raise NotPlainError
    return left.pop()


def _add(one: _Parameter, text: str, values: dict[str, Any]) -> None:
    value = _value(one, text)
    if one.many:
        values.setdefault(one.name, []).append(value)
    else:
        values[one.name] = value


def _value(one: _Parameter, text: str) -> object:
    least = one.word.min if isinstance(one.word, Option) else None
    if one.kind not in (str, int, float, Path) and not issubclass(one.kind, StrEnum):
        raise NotPlainError
    try:
        value: Any = one.kind(text)
    except ValueError:
        raise NotPlainError from None
    if least is not None and not value >= least:
        raise NotPlainError
    return value
