"""The specs a repository may have: which files they are, which come first, and what reads each.

Whatever a file's own words are, its reader says them in those of pyproject.toml: one table with [project] and
[dependency-groups], so that extras, groups, markers and paths are followed by the same code for all of them.
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mlbox.project.model import CondaSpec, IndexOptions, Value
from mlbox.project.problems import Problems

REQUIREMENT_FILES = (
    "requirements.txt",
    "requirements.in",
    *(f"requirements/{name}.txt" for name in ("requirements", "base", "main", "prod", "production")),
    *(f"requirements/{name}.in" for name in ("requirements", "base", "main", "prod", "production")),
)

SETUP = ("setup.cfg", "setup.py")
"""Read together."""

CANDIDATES = (*REQUIREMENT_FILES, "Pipfile", "environment.yml", "environment.yaml", "pixi.toml", *SETUP)
"""Files that count without being named, after [project] of pyproject.toml; the first that asks for something wins."""


class Line(NamedTuple):
    """A line as a requirements file may have it, and where it stands."""

    text: str
    origin: str


class Spec(Value, frozen=True, kw_only=True):
    """What one file asks for."""

    table: dict[str, Any] = {}
    """As pyproject.toml would say it: [project], [dependency-groups], [tool.setuptools.dynamic]."""
    labels: dict[str, str] = {}
    """Where a key of the table really stands: 'project.dependencies' -> 'Pipfile [packages]'."""
    lines: tuple[Line, ...] = ()
    """Lines for pip that are still to be read, options and nested files included."""
    constraints: tuple[Line, ...] = ()
    overrides: tuple[Line, ...] = ()
    index: IndexOptions = IndexOptions()
    python: str = ""
    """'3.11' or '3.11.4' when it asks for just one."""
    conda: CondaSpec | None = None
    system_packages: tuple[Line, ...] = ()
    """Debian packages."""
    computed: str = ""
    """What only running the project's code would tell; empty when nothing is."""
    computed_from: tuple[str, ...] = ()
    """Files of requirements that the code names, as far as they are there."""
    notes: tuple[str, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether it names anything to install: files that only configure tools do not count as specs."""
        project = self.table.get("project", {})
        stated = any(project.get(key) for key in ("dependencies", "optional-dependencies"))
        stated = stated or "dependencies" in project.get("dynamic", ())
        return bool(
            stated or self.computed or self.lines or self.conda or any(self.table.get("dependency-groups", {}).values())
        )


Reader = Callable[[Path, str, Problems], Spec]
"""Reads the file (relative to the root given first); what is wrong goes to the problems. No network, nothing is run."""


def reader_of(file: str) -> Reader | None:
    """Return what reads `file`, by its name; None for requirement files of pip, which any other name may be."""
    name = PurePosixPath(file).name
    if name == "Pipfile":
        from mlbox.project.pipfile import read_pipfile

        return read_pipfile
    if name == "pyproject.toml":
        from mlbox.project.tools import read_pyproject

        return read_pyproject
    if name == "pixi.toml":
        from mlbox.project.pixi import read_pixi

        return read_pixi
    if name in ("setup.cfg", "setup.py"):
        from mlbox.project.setuptools import read_setup

        return read_setup
    if name.endswith((".py", ".ipynb")):
        from mlbox.project.script import read_script

        return read_script
    if name == "apt.txt":
        from mlbox.project.plain import read_apt

        return read_apt
    if name.endswith((".yml", ".yaml")):
        from mlbox.project.environment import read_environment_file

        return read_environment_file
    return None
