"""Scripts and notebooks that say themselves what they need (PEP 723)."""

import json
from pathlib import Path

import pytest

from mlbox.errors import ProjectError
from mlbox.project.discover import load_project
from mlbox.project.model import Project

SCRIPT = """\
#!/usr/bin/env python
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "requests<3",
#   "torch",
# ]
#
# [tool.uv.sources]
# torch = { index = "cpu" }
# [[tool.uv.index]]
# name = "cpu"
# url = "https://wheels.example.org/cpu"
# explicit = true
# ///
import requests
"""


def project(root: Path, name: str, content: str | bytes) -> Project:
    """Load a project whose spec is this one file."""
    (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return load_project(root, requirements=[name])


def notebook(*cells: str) -> str:
    """Return a notebook with a text and these code cells."""
    code = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    return json.dumps({"nbformat": 4, "cells": [{"cell_type": "markdown", "source": "# x"}, *code]})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.py", SCRIPT),
        ("train.py", SCRIPT.replace("\n", "\r\n")),
        ("work.ipynb", notebook("%matplotlib inline\n", SCRIPT)),
    ],
    ids=["script", "script of Windows", "notebook"],
)
def test_block(tmp_path: Path, name: str, content: str) -> None:
    """Dependencies, Python and what [tool.uv] says of them."""
    read = project(tmp_path, name, content)
    assert [(one.text, one.origin) for one in read.requirements] == [
        ("requests<3", f"{name} [script]"),
        ("torch", f"{name} [script]"),
    ]
    assert read.requires_python == ">=3.11"
    assert [(pin.package, pin.url) for pin in read.index.pins] == [("torch", "https://wheels.example.org/cpu")]


BAD = {
    "no block": ("a.py", "import numpy", "has no block that says what it needs"),
    "two blocks": ("a.py", SCRIPT + SCRIPT, "has several script blocks"),
    "an open block": ("a.py", "# /// script\n# dependencies = []\n", "has no block"),
    "no TOML": ("a.py", "# /// script\n# dependencies = [\n# ///\n", "its script block is not TOML"),
    "wrong types": ("a.py", "# /// script\n# dependencies = 'a'\n# ///\n", "dependencies must be a list"),
    "a path": ("a.py", "# /// script\n# dependencies = ['../x']\n# ///\n", "leaves the project's folder"),
    "a requirement": ("a.py", "# /// script\n# dependencies = ['a=1']\n# ///\n", "a.py [script]: invalid requirement"),
    "not UTF-8": ("a.py", b"\xff", "a.py: is not UTF-8"),
    "large": ("a.py", b"#" * (50 * 2**20), "is larger than 10 MiB"),
    "no notebook": ("a.ipynb", "{", "a.ipynb: is no notebook"),
    "a list": ("a.ipynb", "[]", "a.ipynb: is no notebook"),
    "cells": ("a.ipynb", '{"cells": [{"cell_type": "code", "source": 1}]}', "a.ipynb: is no notebook"),
    "deep": ("a.ipynb", "[" * 100_000, "a.ipynb: is no notebook"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_refused(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    """With the file."""
    with pytest.raises(ProjectError) as refused:
        project(tmp_path, name, content)
    assert message in str(refused.value)
