"""A workspace of uv: the folders that are its members, and the tables of its root that hold for all of them.

https://docs.astral.sh/uv/concepts/projects/workspaces/
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlbox.codec import load_toml
from mlbox.errors import ProjectError
from mlbox.project.pyproject import FILE, at
from mlbox.project.reading import read_bytes, repository, submodule_hint
from mlbox.project.requirement import normalize
from mlbox.project.tables import strings

MAX_MEMBERS = 200
"""Folders of a workspace that are looked at."""


class Workspace(NamedTuple):
    """What the file of the workspace's root says."""

    folder: Path
    """Of that file."""
    uv: Mapping[str, Any]
    """Its [tool.uv]."""
    members: Mapping[str, Path]
    """Their folders by normalised name, the root's own among them when it has [project]."""


def workspace_of(folder: Path, table: Mapping[str, Any], root: Path) -> Workspace | None:
    """Return the workspace whose root's pyproject.toml is `table`, in `folder`; None when it is the root of none.

    No file outside the repository that `root` is in is read.
    """
    uv = at(table, "tool", "uv")
    if not isinstance(at(uv, "workspace"), dict):
        return None
    members = {normalize(name): folder} if isinstance(name := at(table, "project", "name"), str) else {}
    for file in _files(folder, uv["workspace"]):
        shown = file.relative_to(folder).as_posix()
        table = load_toml(read_bytes(file, root=root), what=f"{shown} is not TOML", error=ProjectError)
        name = at(table, "project", "name")
        if not isinstance(name, str):
            continue
        other = members.setdefault(normalize(name), file.parent)
        if other != file.parent:
            raise ProjectError(
                f"{_shown(folder, other)} and {_shown(folder, file.parent)} are both called {name[:100]!r}",
                hint="give each member of the workspace a name of its own",
            )
    return Workspace(folder, uv, members)


def workspace_above(root: Path) -> Path | None:
    """Return the folder above `root` whose workspace it is a member of, in the same repository; None when none is."""
    top = repository(root)
    real = root.resolve()
    for folder in (one for one in real.parents if one.is_relative_to(top)):
        try:
            table = load_toml(read_bytes(folder / FILE, root=root), what=FILE, error=ProjectError)
            found = workspace_of(folder, table, root)
        except ProjectError:  # none, or one that its owner's tool cannot read either
            continue
        if found and real in found.members.values():
            return folder
    return None


def unfetched(workspace: Workspace) -> str | None:
    """Return how to get a member that is in a submodule of git which this clone does not have; else None."""
    folders = (workspace.folder / pattern for pattern in _patterns(workspace.uv["workspace"], "members"))
    hints = (submodule_hint(workspace.folder, folder) for folder in folders if not (folder / FILE).is_file())
    return next(filter(None, hints), None)


def _files(folder: Path, workspace: Mapping[str, Any]) -> Iterator[Path]:
    excluded = {path for pattern in _patterns(workspace, "exclude") for path in folder.glob(pattern)}
    looked = 0
    for pattern in _patterns(workspace, "members"):
        for file in sorted(folder.glob(f"{pattern}/{FILE}")):
            if file.parent in excluded or file.parent == folder:
                continue
            looked += 1
            if looked > MAX_MEMBERS:
                raise ProjectError(f"more than {MAX_MEMBERS} members of the workspace")
            yield file


def _patterns(workspace: Mapping[str, Any], key: str) -> Iterator[str]:
    for pattern in strings(workspace, key):
        plain = pattern.removeprefix("./").rstrip("/")
        if plain.startswith("/") or ".." in plain.split("/"):
            raise ProjectError(f"{pattern[:100]!r} leaves the project's folder")
        if plain and plain != ".":
            yield plain


def _shown(folder: Path, member: Path) -> str:
    return member.relative_to(folder).as_posix()


def hint_of_member(root: Path, name: str) -> str:
    """Say where mlbox must be run to find the member `name` of a workspace that `root` is only a part of."""
    above = workspace_above(root)
    if above is None:
        return "members are named in [tool.uv.workspace]"
    own = root.resolve().relative_to(above).as_posix()
    return f"{name} lies beside it: run mlbox in {above}, with package = {own!r} in [tool.mlbox] there"
