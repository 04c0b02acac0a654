"""The folders of a lock as the distributions that they are now."""

from collections.abc import Iterable
from pathlib import Path

from mlbox.errors import LockError, ProjectError
from mlbox.lock.file import FILENAME
from mlbox.lock.model import Folder, Lock
from mlbox.plan.model import ProjectFile
from mlbox.project.model import Package, Project


def installed_folders(project: Project, lock: Lock, files: Iterable[ProjectFile]) -> tuple[Package, ...]:
    """Return what the folders of `lock` are installed as; `files` are those of the project that get into the image.

    Raises LockError for a folder that is no longer what was locked, ProjectError for one that is kept out of the image.
    """
    if not lock.folders:
        return ()
    known = {one.path: one.package for one in project.folders}
    packages = {folder: known.get(folder.path) or _read(project.root, folder) for folder in lock.folders}
    paths = {file.path for file in files}
    for folder, package in packages.items():
        source = f"{package.source}/" if package.source else ""
        if not any(path.startswith(source) for path in paths):
            raise ProjectError(
                f"{folder.path}: nothing of {package.source or 'it'} is in the image, where {folder.name} would be",
                hint="an ignore file, ignore in [tool.mlbox] or a folder of a task names it: take it out there",
            )
    return tuple(packages.values())


def _read(root: Path, folder: Folder) -> Package:
    """Return what a folder is that only a lock of another tool leads to."""
    from mlbox.project.folders import package_in
    from mlbox.project.requirement import normalize

    package = package_in(root, folder.path, folder.name)
    if package is None or normalize(package.name) != folder.name:
        raise LockError(
            f"{FILENAME} has the folder {folder.path} as {folder.name!r}, which it is not called",
            hint="'mlbox lock' makes the lock again",
        )
    return package
