"""The project's own files as a piece, and its installation when it is a package."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mlbox.build.scan import changed_while_read, scan_project
from mlbox.errors import ProjectError
from mlbox.files import CHUNK, disk_errors
from mlbox.oci.layer import Entry, Kind, parents, safe_path, sort_entries
from mlbox.plan.model import ProjectFile, ProjectPiece
from mlbox.store.tree import Tree, write_tree

__all__ = ["fill_project", "scan_project"]


def fill_project(root: Path, piece: ProjectPiece, project_root: Path) -> Tree:
    """Copy the files of `piece` from `project_root` below the new folder `root`.

    A file that is no longer what the piece says raises ProjectError: 'changed while being read'.
    """
    from mlbox.build.editable import editable_files  # needs what reads wheels; scanning alone does not

    workdir = piece.workdir.strip("/")
    entries: dict[str, Entry] = {}
    content: dict[str, Callable[[], Iterable[bytes]]] = {}
    for file in piece.files:
        path = safe_path(f"{workdir}/{file.path}", "project")
        kind: Kind = "symlink" if file.target else "file"
        entries[path] = Entry(path, kind, file.mode, piece.epoch, file.size, file.target)
        content[path] = lambda file=file: checked(project_root, file)  # type: ignore[misc]
    for path, data, mode in editable_files(piece):
        entries[path] = Entry(path, "file", mode, piece.epoch, len(data))
        content[path] = lambda data=data: (data,)  # type: ignore[misc]
    folders = parents(entries) | parents([f"{workdir}/x"])
    entries.update((path, Entry(path, "dir", 0o755, piece.epoch)) for path in folders)
    with disk_errors("copying the project's files"):
        return write_tree(root, sort_entries(entries.values()), lambda entry: content[entry.path](), "project")


def checked(project_root: Path, file: ProjectFile) -> Iterator[bytes]:
    """Yield the content of `file`; raises ProjectError when it is no longer what it was."""
    digest, left = hashlib.sha256(), file.size
    try:
        fd = os.open(project_root / file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as problem:
        raise changed_while_read(file.path) from problem
    except OSError as problem:
        raise ProjectError(f"{file.path}: cannot be read: {problem.strerror}") from problem
    try:
        while chunk := os.read(fd, CHUNK):
            left -= len(chunk)
            digest.update(chunk)
            if left < 0:
                break
            yield chunk
    finally:
        os.close(fd)
    if left or digest.hexdigest() != file.sha256:
        raise changed_while_read(file.path)
