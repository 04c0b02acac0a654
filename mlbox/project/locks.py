"""Locks of other tools: which of them a repository has, and which one counts."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from mlbox.errors import ProjectError
from mlbox.project.model import ForeignLock, Source
from mlbox.project.reading import read_bytes

MAX_SIZE = 32 << 20
"""Bytes of a lock; one of 1,000 packages with all their wheels has 5 MB."""

Kind = Literal["uv", "pylock", "poetry", "pdm", "pipenv", "conda-lock", "pixi", "conda-explicit"]


class Known(NamedTuple):
    """A lock that can be read: its file's name, and when it counts without being named."""

    file: str
    kind: Kind
    spec: str = ""
    """The file it is made from, which says who asks for what."""
    tables: tuple[str, ...] = ()
    """Tables of that file, one of which must be there; none: the lock counts without it too."""
    mend: str = ""
    """The owner's command that makes it again."""
    upgrade: str = ""
    """The owner's command that moves versions."""
    upgrade_one: str = ""
    """The same for one package, PACKAGE."""


EXPLICIT = ("conda-linux-64.lock", "conda-linux-aarch64.lock", "spec-file.txt")
"""What conda-lock and conda's documentation call explicit lists."""
KNOWN = (
    Known(
        "uv.lock",
        "uv",
        "pyproject.toml",
        ("project", "tool.uv"),
        "uv lock",
        "uv lock --upgrade",
        "uv lock --upgrade-package PACKAGE",
    ),
    Known(
        "poetry.lock",
        "poetry",
        "pyproject.toml",
        ("tool.poetry", "project"),
        "poetry lock",
        "poetry update",
        "poetry update PACKAGE",
    ),
    Known("pdm.lock", "pdm", "pyproject.toml", ("tool.pdm", "project"), "pdm lock", "pdm update", "pdm update PACKAGE"),
    Known("pylock.toml", "pylock", "pyproject.toml"),
    Known("Pipfile.lock", "pipenv", "Pipfile", (), "pipenv lock", "pipenv update", "pipenv update PACKAGE"),
    Known("conda-lock.yml", "conda-lock", "environment.yml", (), "conda-lock lock", "conda-lock lock --update PACKAGE"),
    Known("pixi.lock", "pixi", "pixi.toml", (), "pixi lock", "pixi update", "pixi update PACKAGE"),
    *(Known(file, "conda-explicit", "environment.yml") for file in EXPLICIT),
)
"""The locks that are read, the first that counts wins."""


def lock_named(file: str) -> Known | None:
    """Return what kind of lock the file of this name is; None for none of another tool."""
    name = PurePosixPath(file).name
    if name.startswith("pylock.") and name.endswith(".toml"):  # PEP 751: pylock.NAME.toml
        name = "pylock.toml"
    return next((known for known in KNOWN if known.file == name), None)


def choose_lock(root: Path, pyproject: Mapping[str, Any] | None) -> tuple[Known | None, list[Source]]:
    """Return the lock that counts by itself, and why the others do not."""
    chosen: Known | None = None
    others: list[Source] = []
    for known in KNOWN:
        if not (root / known.file).is_file():
            continue
        if known.tables and not _has_spec(pyproject, known):
            tables = " or ".join(f"[{table}]" for table in known.tables)
            others.append(Source(path=known.file, used=False, reason=f"{known.spec} has no {tables}"))
        elif chosen:
            others.append(Source(path=known.file, used=False, reason=f"{chosen.file} comes first"))
        else:
            chosen = known
    return chosen, others


def _has_spec(pyproject: Mapping[str, Any] | None, known: Known) -> bool:
    for dotted in known.tables:
        table: Any = pyproject
        for key in dotted.split("."):
            table = table.get(key) if isinstance(table, dict) else None
        if table is not None:
            return True
    return False


def read_lock_of(root: Path, file: str, kind: Kind) -> ForeignLock:
    """Return the lock as the project knows it; ProjectError when it cannot be read."""
    data = read_bytes(root / file, root=root, limit=MAX_SIZE)
    return ForeignLock(path=file, kind=kind, sha256=hashlib.sha256(data).hexdigest())


def only_lock(files: Sequence[str]) -> Known | None:
    """Return the lock among files that the settings name; ProjectError when it is not the only one."""
    locks = [(file, known) for file in files if (known := lock_named(file))]
    if not locks:
        return None
    if len(files) > 1:
        others = ", ".join(file for file in files if file != locks[0][0])
        raise ProjectError(
            f"{locks[0][0]} is a lock, and {others} is named beside it", hint="a lock holds everything: name it alone"
        )
    return locks[0][1]
