"""What a foreign lock does not say and ours must: names of files known by their hash, sizes, names of indexes."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from mlbox.errors import FetchError, LockError
from mlbox.http import Http, is_offline, without_credentials
from mlbox.lock.model import Package, Target
from mlbox.lock.python.model import File, Index, Indexes, Pinned
from mlbox.lock.python.pages import files_of_link, files_of_project
from mlbox.lock.python.target import best_file

_ASKED_AT_ONCE = 16
_TORCH = "/whl/"


def complete(
    pins: Sequence[Pinned],
    target: Target,
    indexes: Indexes,
    http: Http,
    *,
    folder: Path,
    root: Path | None = None,
    known: Sequence[Package] = (),
    what: str = "",
) -> tuple[Pinned, ...]:
    """Return `pins` with the one file of each for `target`; indexes are asked only for what nobody else says.

    Paths are from `folder`, the lock's, and lead to files of the project, below `root` (None: below that folder too).
    """
    before = {package.sha256: package for package in known if package.sha256}
    local = [_local(pin, target, folder, root or folder) for pin in pins]
    tasks = [_Task(pin, _chosen(pin, target, before)) for pin in local]
    asked = [task for task in tasks if task.file is None and _can_ask(task.pin)]
    if asked:
        with ThreadPoolExecutor(max_workers=min(_ASKED_AT_ONCE, len(asked))) as pool:
            found = dict(
                zip(
                    [task.pin.name for task in asked],
                    pool.map(lambda task: _looked_up(task.pin, target, indexes, http, what), asked),
                    strict=True,
                )
            )
        tasks = [_Task(task.pin, found.get(task.pin.name, task.file)) for task in tasks]
    if nameless := sorted(task.pin.name for task in tasks if not _is_hashed(task, target)):
        raise LockError(
            f"{what}: names no sha256 of {', '.join(nameless)}",
            hint="mlbox locks files by sha256: lock again with the tool that owns the lock",
        )
    return tuple(_checked(_finished(task, indexes), what) for task in tasks)


def unfit(pins: Sequence[Pinned], target: Target) -> list[Pinned]:
    """Return the pins whose lock names files, and none for `target`."""
    return [pin for pin in pins if pin.files and best_file(pin.files, target) is None]


class _Task(NamedTuple):
    pin: Pinned
    file: File | None
    """The file to lock; None when it must be looked up, or there is none."""


def _is_hashed(task: _Task, target: Target) -> bool:
    if task.file or task.pin.kind in ("vcs", "directory"):
        return True
    file = best_file(task.pin.files, target)
    return bool(task.pin.hashes) if file is None and not task.pin.files else file is None or bool(file.sha256)


def _finished(task: _Task, indexes: Indexes) -> Pinned:
    pin = replace(task.pin, files=(task.file,)) if task.file else task.pin
    return replace(pin, index=_index_name(pin.index, indexes)) if pin.kind == "index" else pin


def _checked(pin: Pinned, what: str) -> Pinned:
    """Refuse a file of another package; a version that the lock leaves out is the file's."""
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
    from packaging.version import InvalidVersion, Version

    if len(pin.files) != 1:
        return pin
    filename = pin.files[0].filename
    try:
        name, version = (
            parse_wheel_filename(filename)[:2] if filename.endswith(".whl") else parse_sdist_filename(filename)
        )
        fits = name == pin.name and (not pin.version or version == Version(pin.version))
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return pin  # archives of old have any name; what is built of them must be what the lock says
    if not fits:
        raise LockError(f"{what}: {pin.name} {pin.version} would be {filename}", hint="lock again with its owner")
    return pin if pin.version else replace(pin, version=str(version))


def _index_name(address: str, indexes: Indexes) -> str:
    """Return the name under which the lock keeps an index: ours when we know the address."""
    for index in indexes.all:
        if _plain(index.url) == _plain(address):
            return index.name
    return "torch" if _TORCH in address else "default"


def _plain(url: str) -> str:
    return without_credentials(url).rstrip("/")


def _local(pin: Pinned, target: Target, folder: Path, root: Path) -> Pinned:
    """Make a file of the repository a direct one, by its address on this machine and with its hash."""
    file = best_file(pin.files, target)
    if file is None or not _is_local(file):
        return pin
    return replace(
        pin, kind="archive", index="direct", url=file.url, files=(_local_file(file, folder, root, pin.name),)
    )


def _is_local(file: File) -> bool:
    return bool(file.url) and "://" not in file.url


def _local_file(file: File, folder: Path, root: Path, name: str) -> File:
    path = (folder / file.url).resolve()
    if not path.is_relative_to(root.resolve()):
        raise LockError(f"{name}: {file.url!r} leaves the repository", hint="copy the file below the project")
    if not path.is_file():
        raise LockError(f"{name}: {file.url} is not there", hint="restore the file, or lock again without it")
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if file.sha256 not in ("", found):
        raise LockError(f"{name}: {file.url} is not the file that was locked: it has another sha256")
    return replace(file, url=path.as_uri(), sha256=found, size=path.stat().st_size)


def _chosen(pin: Pinned, target: Target, before: Mapping[str, Package]) -> File | None:
    """Return the file for `target` when everything about it is known, None when an index must be asked."""
    files = pin.files or tuple(
        File(filename=before[sha256].filename, url="", sha256=sha256, size=before[sha256].size)
        for sha256 in pin.hashes
        if sha256 in before and before[sha256].name == pin.name
    )
    file = best_file(files, target)
    if file is None or not file.sha256:
        return None
    if not file.size and file.sha256 in before:
        file = replace(file, size=before[file.sha256].size)
    # An address suffices: the server itself says the size.
    return file if file.url or file.size or (is_offline() and pin.files) else None


def _can_ask(pin: Pinned) -> bool:
    hashed = bool(pin.hashes) or any(file.sha256 for file in pin.files)
    return pin.kind == "index" and hashed and not any(file.url for file in pin.files)


def _looked_up(pin: Pinned, target: Target, indexes: Indexes, http: Http, what: str) -> File:
    """Return the best of the locked files that an index has."""
    locked = {file.sha256 for file in pin.files} | set(pin.hashes)
    problems: list[FetchError] = []
    offered: list[File] = []
    for files in _pages(pin, indexes, http, problems):
        offered += files
        there = tuple(file for file in files if file.sha256 in locked)
        if file := best_file(there, target):
            return file
    if problems:
        raise problems[0]
    if not offered:
        raise FetchError(
            f"{pin.name}: no index knows it",
            hint="name the index that has it: index-url, extra-index-urls or find-links in [tool.mlbox]",
        )
    raise LockError(
        f"{pin.name} {pin.version}: no index has a file for Python {target.python} on {target.arch}"
        f" with one of the hashes in {what}",
        hint="it may have been removed or replaced: lock again with the tool that owns the lock",
    )


def _pages(pin: Pinned, indexes: Indexes, http: Http, problems: list[FetchError]) -> "Iterable[tuple[File, ...]]":
    places = sorted(indexes.all, key=lambda index: _plain(index.url) != _plain(pin.index))
    if pin.index and not any(_plain(index.url) == _plain(pin.index) for index in places):
        places.insert(0, Index(name="", url=pin.index))
    for link in indexes.find_links:
        yield files_of_link(http, link)
    for index in places:
        try:
            yield files_of_project(http, index.url, pin.name)
        except FetchError as problem:
            problems.append(problem)
