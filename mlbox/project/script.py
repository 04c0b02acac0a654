"""PEP 723: what a single script, or the first such block of a notebook, says about its environment.

https://packaging.python.org/en/latest/specifications/inline-script-metadata/
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mlbox.codec import load_toml
from mlbox.errors import ProjectError
from mlbox.project.problems import Problems
from mlbox.project.reading import read_bytes
from mlbox.project.spec import Spec
from mlbox.project.tables import get, strings

_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
"""The specification's own expression."""


class _Cell(msgspec.Struct):
    cell_type: str = ""
    source: str | list[str] = ""


class _Notebook(msgspec.Struct):
    cells: list[_Cell] = []


def read_script(root: Path, file: str, problems: Problems) -> Spec:
    """Read the block of a script or notebook that is named as a spec; without one it is none."""
    from mlbox.project.tools import Context, with_tools

    with problems.at(file):
        metadata = script_metadata(source_of(read_bytes(root / file, root=root), file))
        if metadata is None:
            hint = "begin it with: # /// script, # dependencies = [...], # ///"
            raise ProjectError("has no block that says what it needs (PEP 723)", hint=hint)
        project: dict[str, Any] = {"dependencies": strings(metadata, "dependencies")}
        if python := get(metadata, "requires-python", str):
            project["requires-python"] = python
        table = {"project": project, "tool": get(metadata, "tool", dict)}
        spec = with_tools(table, Context(root, file, problems))
        here = f"{file} [script]"
        labels = {"project": here, "project.dependencies": here, **spec.labels}
        return msgspec.structs.replace(spec, labels=labels)
    return Spec()


def script_metadata(text: str) -> dict[str, Any] | None:
    """Return the script block of a source text; None when it has none, ProjectError when it has several."""
    blocks = [found for found in _BLOCK.finditer(text) if found["type"] == "script"]
    if not blocks:
        return None
    if len(blocks) > 1:
        raise ProjectError("has several script blocks", hint="keep one")
    lines = blocks[0]["content"].splitlines(keepends=True)
    content = "".join(line[2:] if line.startswith("# ") else line[1:] for line in lines)
    return load_toml(content.encode(), what="its script block is not TOML", error=ProjectError)


def source_of(data: bytes, file: str) -> str:
    """Return the Python text of a script or of a notebook's code cells."""
    if file.endswith(".ipynb"):
        return "\n\n".join(code_cells(data))
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as problem:
        raise ProjectError(f"is not UTF-8: {problem}", hint="save it as UTF-8") from problem


def code_cells(data: bytes) -> Iterator[str]:
    """Yield the source of each code cell of a notebook (nbformat 4)."""
    try:
        notebook = msgspec.json.decode(data, type=_Notebook)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ProjectError(f"is no notebook: {problem}") from problem
    for cell in notebook.cells:
        if cell.cell_type == "code":
            yield cell.source if isinstance(cell.source, str) else "".join(cell.source)
