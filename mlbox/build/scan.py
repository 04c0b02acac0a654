"""Finds the files of a repository that belong in its image, and hashes them; what did not change is remembered."""

import hashlib
import os
import posixpath
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import msgspec

from mlbox.build.ignore import GitIgnore, Ignore, never, patterns, project_ignore, secret
from mlbox.codec import key_of
from mlbox.errors import ProjectError
from mlbox.oci.layer import encoded
from mlbox.plan.model import ProjectFile
from mlbox.project.model import Settings

# A file written twice within one tick of the clock can keep its times; younger than this is never remembered.
_RACY = 2_000_000_000
_RULES = 1
_SHOWN = 5

Stamp = tuple[int, int, int, int]
"""Size, mtime, ctime, inode: equal means unchanged."""


class _Listing(msgspec.Struct, frozen=True, array_like=True):
    """What of one folder counts, under the rules with key `rules`."""

    stamp: Stamp
    rules: str
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    """Sockets, pipes and devices."""


class _Memory(msgspec.Struct):
    """What the last scan of a repository found."""

    version: int = _RULES
    listings: dict[str, _Listing] = {}
    hashes: dict[str, tuple[Stamp, str]] = {}


def scan_project(
    root: Path,
    settings: Settings,
    *,
    cache: Path,
    store: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[ProjectFile, ...]:
    """Return the files of the repository `root` that belong in the image, in the order of the layer's tar.

    What ignore files, `settings.ignore` and the tasks' folders name stays out, and so do version control,
    virtual environments, caches and what looks like credentials (`note` is told). `cache` is a folder of ours
    where hashes are remembered; our `store` is left out when it lies in the
    repository. A link that leaves the repository raises ProjectError.
    """
    memory = cache / f"scan-{key_of(os.fsencode(root))[:32]}"
    scan = _Scan(root, settings, _remembered(memory), store)
    try:
        files = sorted(scan.files(), key=lambda file: encoded(file.path))
    except PermissionError as problem:
        raise ProjectError(
            f"{problem.filename}: cannot be read: {problem.strerror}",
            hint="change its permissions, or name it in .mlboxignore",
        ) from problem
    except FileNotFoundError as problem:
        raise changed_while_read(os.path.relpath(problem.filename, root)) from problem
    if scan.changed:
        _remember(memory, scan.memory)
    _tell(note, scan.secrets, "looks like credentials", "'!NAME' in .mlboxignore keeps it")
    _tell(note, scan.odd, "is a socket, pipe or device", "")
    return tuple(files)


def scan_inputs(root: Path, names: Sequence[str]) -> tuple[ProjectFile, ...]:
    """Return the files that a command names, and those in folders that it names, whatever the ignore files say.

    Raises ProjectError for what is not there or leaves the repository.
    """
    found: dict[str, ProjectFile] = {}
    for name in names:
        start = str(PurePosixPath(name))
        if not (root / start).resolve().is_relative_to(root.resolve()) or (root / start).is_symlink():
            raise ProjectError(f"run: the input {name!r} is a link, or lies behind one that leaves the project")
        waiting = [start]
        while waiting:
            path = waiting.pop()
            status = _status(root, path)
            if stat.S_ISDIR(status.st_mode):
                waiting += [f"{path}/{child}" for child in os.listdir(root / path)]  # noqa: PTH208 - names alone
            else:
                found[path] = _input(root, path, status)
    return tuple(sorted(found.values(), key=lambda file: encoded(file.path)))


def _status(root: Path, path: str) -> os.stat_result:
    try:
        return os.lstat(root / path)
    except OSError as problem:
        raise ProjectError(f"run: the input {path!r}: {problem.strerror}") from problem


def _input(root: Path, path: str, status: os.stat_result) -> ProjectFile:
    if stat.S_ISLNK(status.st_mode):
        return ProjectFile(path, 0o777, 0, target=_link(path, os.readlink(root / path)))  # noqa: PTH115 - as above
    if not stat.S_ISREG(status.st_mode):
        raise ProjectError(f"run: the input {path!r} is a socket, pipe or device")
    mode = 0o755 if status.st_mode & 0o111 else 0o644
    return ProjectFile(path, mode, status.st_size, _hash(str(root / path), path, _stamp(status)))


class _Scan:
    """One walk over a repository."""

    def __init__(self, root: Path, settings: Settings, before: _Memory, store: Path | None) -> None:
        self._root = root
        self._before = before
        self._extra = patterns(settings.ignore)
        self._ours = _task_folders(settings) | ({os.path.relpath(store, root)} if store else set())
        self._now = time.time_ns()
        self.memory = _Memory(listings={}, hashes={})
        self.secrets: list[str] = []
        self.odd: list[str] = []

    @property
    def changed(self) -> bool:
        """Whether there is something new to remember."""
        return self.memory.listings != self._before.listings or self.memory.hashes != self._before.hashes

    def files(self) -> Iterator[ProjectFile]:
        """Yield every file that counts."""
        rules = project_ignore(self._root)
        waiting = [("", rules)]
        while waiting:
            folder, rules = waiting.pop()
            listing = self._listing(folder, rules)
            prefix = f"{folder}/" if folder else ""
            self.secrets += [prefix + name for name in listing.secrets]
            self.odd += [prefix + name for name in listing.odd]
            for name in listing.folders:
                waiting.append((prefix + name, rules.within(prefix + name, self._root)))
            for name in listing.files:
                yield self._file(prefix + name)

    def _listing(self, folder: str, rules: Ignore) -> _Listing:
        path = f"{self._root}/{folder}" if folder else str(self._root)
        stamp = _stamp(os.lstat(path))
        key = f"{rules.key}{self._extra.key}{','.join(sorted(self._ours))}"
        listing = self._before.listings.get(folder)
        if listing is None or listing.stamp != stamp or listing.rules != key:
            listing = self._read_folder(path, folder, rules, stamp, key)
        if self._now - stamp[2] > _RACY:
            self.memory.listings[folder] = listing
        return listing

    def _read_folder(self, path: str, folder: str, rules: Ignore, stamp: Stamp, key: str) -> _Listing:
        prefix = f"{folder}/" if folder else ""
        found: dict[str, list[str]] = {"folders": [], "files": [], "secrets": [], "odd": []}
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):
                if entry.name == "pyvenv.cfg" and folder:
                    return _Listing(stamp, key)  # a virtual environment
                if kind := self._kind(entry, prefix + entry.name, rules):
                    found[kind].append(entry.name)
        return _Listing(stamp, key, **{kind: tuple(names) for kind, names in found.items()})

    def _kind(self, entry: "os.DirEntry[str]", path: str, rules: Ignore) -> str:
        """Return which part of a listing the entry belongs to, '' for none."""
        folder = entry.is_dir(follow_symlinks=False)
        if never(entry.name) or path in self._ours:
            return ""
        verdict = self._extra.verdict(path, folder)
        if verdict is None:
            verdict = rules.verdict(path, folder)
        if verdict:
            return "folders" if folder and rules.reaches_into(path) else ""
        try:
            path.encode()
        except UnicodeEncodeError as problem:
            raise ProjectError(
                f"{path!r}: a file name that is not UTF-8", hint="rename it, or name it in .mlboxignore"
            ) from problem
        # Only an explicit '!' keeps credentials, and only in mlbox's own rules: a .gitignore speaks of commits.
        kept = verdict is False and (isinstance(rules, GitIgnore) and not rules.nested)
        if secret(entry.name) and not kept and self._extra.verdict(path, folder) is not False:
            return "secrets"
        if folder:
            return "folders"
        return "files" if entry.is_symlink() or entry.is_file() else "odd"

    def _file(self, path: str) -> ProjectFile:
        on_disk = f"{self._root}/{path}"
        status = os.lstat(on_disk)
        if stat.S_ISLNK(status.st_mode):
            return ProjectFile(path, 0o777, 0, target=_link(path, os.readlink(on_disk)))  # noqa: PTH115 - hot path
        mode = 0o755 if status.st_mode & 0o111 else 0o644
        stamp = _stamp(status)
        known = self._before.hashes.get(path)
        digest = known[1] if known and known[0] == stamp else _hash(on_disk, path, stamp)
        if self._now - stamp[2] > _RACY:
            self.memory.hashes[path] = known if known and known[0] == stamp else (stamp, digest)
        return ProjectFile(path, mode, status.st_size, digest)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _hash(on_disk: str, path: str, stamp: Stamp) -> str:
    fd = os.open(on_disk, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _stamp(os.fstat(fd)) != stamp:
            raise changed_while_read(path)
    return digest


def changed_while_read(path: str) -> ProjectError:
    """Return the error for a file that somebody writes at this moment."""
    return ProjectError(
        f"{path}: changed while being read",
        hint="run the same command again; a file that is always written belongs in .mlboxignore",
    )


def _link(path: str, target: str) -> str:
    """Return `target` when the link at `path` stays inside the repository."""
    there = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if target.startswith("/") or there == ".." or there.startswith("../"):
        raise ProjectError(
            f"{path}: a link that leaves the project: {target!r}",
            hint=f"name it in .mlboxignore ('/{path}'), or put the file itself there",
        )
    try:
        target.encode()
    except UnicodeEncodeError as problem:
        raise ProjectError(f"{path}: a link to a name that is not UTF-8: {target!r}") from problem
    return target


def _task_folders(settings: Settings) -> frozenset[str]:
    tasks = [task for task in (settings.train, settings.serve, *settings.tasks.values()) if task]
    folders = [folder for task in tasks for folder in (task.outputs, *task.inputs) if folder]
    return frozenset(posixpath.normpath(folder) for folder in folders) - {"."}


def _remembered(path: Path) -> _Memory:
    try:
        memory = msgspec.msgpack.decode(path.read_bytes(), type=_Memory)
    except (OSError, msgspec.DecodeError):
        return _Memory()
    return memory if memory.version == _RULES else _Memory()


def _remember(path: Path, memory: _Memory) -> None:
    # Without fsync: a torn file does not decode, and then everything is hashed once more.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as file:
            file.write(msgspec.msgpack.encode(memory))
        Path(file.name).replace(path)


def _tell(note: Callable[[str], None], paths: list[str], what: str, hint: str) -> None:
    if paths:
        shown = ", ".join(paths[:_SHOWN]) + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
        note(f"left out, because it {what}: {shown}" + (f" ({hint})" if hint else ""))
