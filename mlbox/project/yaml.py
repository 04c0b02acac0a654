"""YAML 1.2 of a repository, reduced to what specs are made of: maps, lists and words, each with its line.

Anchors, aliases, tags and directives are refused: none of these files needs them, and they are how a few lines
become gigabytes or objects. Words stay text ('3.10' is no number, 'on' no truth): what they mean, the reader knows.
"""

from collections.abc import Iterator
from typing import Any

from mlbox.errors import ProjectError
from mlbox.project.model import Value

MAX_SIZE = 2**20
"""Bytes; what `conda env export` writes for 500 packages has 20,000, and parsing 1 MiB takes seconds."""

MAX_DEPTH = 20

_NULL = ("", "~", "null", "Null", "NULL")


class Node(Value, frozen=True, kw_only=True):
    """A value and where it begins."""

    line: int
    value: str | tuple["Node", ...] | dict[str, "Node"] | None


def parse_yaml(data: bytes, *, most: int = MAX_SIZE) -> Node:
    """Return the only document in `data`; ProjectError names the line of what is damaged or refused.

    More than `most` bytes are refused.
    """
    import yaml  # a project without YAML does not pay for it

    if len(data) > most:
        raise ProjectError(f"is larger than {most // 1024} KiB", hint="this cannot be a file that people write")
    try:
        text = data.decode("utf-8-sig")
        return _document(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except UnicodeDecodeError as problem:
        raise ProjectError(f"is not UTF-8: {problem}", hint="save it as UTF-8") from problem
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        reason = getattr(problem, "problem", None) or str(problem).splitlines()[0]
        raise ProjectError(f"is not YAML: {where}{reason}") from problem
    except (ValueError, OverflowError, RecursionError) as problem:  # numbers of escapes
        raise ProjectError(f"is not YAML: {problem}") from problem


def _document(events: Iterator[Any]) -> Node:
    """Build the tree from the parser's events, so that nothing is expanded or constructed on the way."""
    open_nodes: list[tuple[int, list[Node], bool]] = []  # (line, children, whether it is a map)
    documents: list[Node] = []
    for event in events:
        kind, line = type(event).__name__, event.start_mark.line + 1
        _refuse(event, kind, line)
        done: Node | None = None
        if kind == "ScalarEvent":
            empty = not event.style and event.value in _NULL
            done = Node(line=line, value=None if empty else event.value)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            if len(open_nodes) >= MAX_DEPTH:
                raise ProjectError(f"line {line}: nested more than {MAX_DEPTH} deep")
            open_nodes.append((line, [], kind == "MappingStartEvent"))
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            start, children, is_map = open_nodes.pop()
            done = Node(line=start, value=_pairs(children) if is_map else tuple(children))
        elif kind == "DocumentStartEvent" and documents:
            raise ProjectError(f"line {line}: a second document", hint="keep one per file")
        if done is not None:
            (open_nodes[-1][1] if open_nodes else documents).append(done)
    return documents[0] if documents else Node(line=1, value=None)


def _refuse(event: Any, kind: str, line: int) -> None:  # noqa: ANN401 (the parser's events have no common type)
    if kind == "AliasEvent" or getattr(event, "anchor", None):
        raise ProjectError(f"line {line}: anchors and aliases are not read", hint="write the value out")
    if kind == "DocumentStartEvent":
        if event.tags or event.version:
            raise ProjectError(f"line {line}: directives are not read", hint="take out the line that begins with %")
    elif tag := getattr(event, "tag", None):
        raise ProjectError(f"line {line}: the tag {str(tag)[:50]} is not read", hint="write a plain value")


def _pairs(children: list[Node]) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, value in zip(children[::2], children[1::2], strict=True):
        if not isinstance(key.value, str):
            raise ProjectError(f"line {key.line}: a key must be a word")
        if key.value in found:
            raise ProjectError(f"line {key.line}: {key.value!r} stands here a second time", hint="keep one")
        found[key.value] = value
    return found
