"""Links a conda package into the environment's prefix, in one pass over its bytes, without running its scripts.

As conda and rattler do it: paths.json says which members count, the placeholder of the prefix is replaced in text and,
padded, in binaries, modules of 'noarch: python' packages go to the environment's site-packages and get their commands,
and conda-meta has a record. What differs, on purpose: all files have the same time, so byte code that was made from
them gets it too; the record says nothing of a machine or a day; modes are 0644 or 0755.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from mlbox.build.scripts import scripts_of
from mlbox.build.zip import LIMITS, Limits, Zip
from mlbox.codec import decode_json
from mlbox.errors import ArchiveError
from mlbox.files import chunks, disk_errors
from mlbox.oci.layer import BLOCK, safe_path
from mlbox.oci.tar import Member, Reader
from mlbox.plan.model import PREFIX, CondaEnvPiece, CondaPiece
from mlbox.store.compression import decompressed
from mlbox.store.stream import Stream
from mlbox.store.tree import Tree, TreeWriter

META = "conda-meta"
SCRIPTS = ("pre-link", "post-link")
"""What may run when a package is linked: bin/.NAME-post-link.sh."""
_HINT = "the package is broken as published: pin another version or build"
_MOST_INFO = 64 << 20
_MOST_CHANGED = 2 << 30
_MOST_GROWN = 1 << 20
_MOST_MEMBERS = 1_000_000
_PREFIX = f"/{PREFIX}".encode()
_OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
"""What packages without paths.json mean where they name none."""
_HEX = re.compile(r"[0-9a-f]{64}")
_PYC_HEADER = 16
_RECORDED = (
    *("arch", "build", "build_number", "constrains", "depends", "features", "license", "license_family", "name"),
    *("noarch", "platform", "python_site_packages_path", "subdir", "timestamp", "track_features", "version"),
)
"""What the record in conda-meta has of a package's own index.json."""


class _Path(msgspec.Struct, frozen=True, kw_only=True):
    """A line of paths.json."""

    path: str = msgspec.field(name="_path")
    path_type: Literal["hardlink", "softlink", "directory"] = "hardlink"
    sha256: str = ""
    size_in_bytes: int | None = None
    prefix_placeholder: str | None = None
    file_mode: Literal["text", "binary"] | None = None
    no_link: bool = False


class _Paths(msgspec.Struct, frozen=True):
    paths: tuple[_Path, ...]
    paths_version: int = 1


class _Noarch(msgspec.Struct, frozen=True):
    type: str = ""
    entry_points: tuple[str, ...] = ()


class _Link(msgspec.Struct, frozen=True):
    noarch: _Noarch = _Noarch()


class _Index(msgspec.Struct, frozen=True):
    name: str
    version: str
    build: str
    noarch: str | bool | None = None


def unpack_conda(path: Path, root: Path, piece: CondaPiece, limits: Limits = LIMITS) -> Tree:
    """Link the package file `path` into the new folder `root` and return what it holds.

    Raises ArchiveError naming the package when it is damaged, hostile, or contradicts itself or `piece`.
    """
    with disk_errors(f"unpacking {piece.filename}"), _opened(path, piece.filename, limits) as archive:
        linker = _Linker(archive.info(), TreeWriter(root, piece.filename, mtime=piece.epoch), piece)
        with archive.data() as stream:
            linker.link(stream)
        return linker.finish()


def fill_conda_env(root: Path, piece: CondaEnvPiece) -> Tree:
    """Make the empty environment of `piece` below the new folder `root`."""
    writer = TreeWriter(root, "conda environment", mtime=piece.epoch)
    # conda takes a folder for an environment that has this file.
    writer.file(f"{PREFIX}/{META}/history", [b""])
    return writer.finish()


def link_scripts(tree: Tree, name: str) -> bool:
    """Return whether a linked package has scripts that conda would have run."""
    scripts = {f"{PREFIX}/bin/.{name}-{script}.sh" for script in SCRIPTS}
    return any(entry.path in scripts for entry in tree.entries)


def with_prefix(data: bytes, placeholder: bytes, mode: str) -> bytes:
    """Return `data` with the environment's prefix where its build had `placeholder`.

    A binary keeps its size: each string that a prefix stands in is padded behind its end with the bytes that it lost.
    ValueError when the prefix is longer than the placeholder, or a text would grow out of all proportion.
    """
    if mode == "text":
        grown = len(data) + data.count(placeholder) * (len(_PREFIX) - len(placeholder))
        if grown > 2 * len(data) + _MOST_GROWN:
            raise ValueError(f"a placeholder of {len(placeholder)} bytes would make {grown} bytes of {len(data)}")
        return data.replace(placeholder, _PREFIX)
    if len(placeholder) < len(_PREFIX):
        raise ValueError(f"a placeholder of {len(placeholder)} bytes is shorter than the prefix")
    parts, at = [], 0
    while (found := data.find(placeholder, at)) >= 0:
        end = data.find(b"\0", found)
        end = len(data) if end < 0 else end
        text = data[found:end]
        parts += [data[at:found], text.replace(placeholder, _PREFIX).ljust(len(text), b"\0")]
        at = end
    return b"".join((*parts, data[at:]))


class _Archive(NamedTuple):
    """A package file: where its description and its content are."""

    path: Path
    name: str
    zip: Zip | None
    limit: int

    def info(self) -> dict[str, bytes]:
        """Return the files below info/ that say how the package is linked."""
        with self._stream("info-") as stream:
            return _info(stream, self.name, stop=self.zip is None)

    def data(self) -> Stream:
        """Open the tar of the content."""
        return self._stream("pkg-")

    def _stream(self, start: str) -> Stream:
        packed = _file(self.path) if self.zip is None else self._member(self.zip, start)
        return Stream(decompressed(packed, self.limit, name=self.name, bzip2=True))

    def _member(self, archive: Zip, start: str) -> Iterator[bytes]:
        found = [one for name, one in archive.members.items() if name.startswith(start) and name.endswith(".tar.zst")]
        if len(found) != 1:
            raise ArchiveError(f"{self.name}: has {len(found)} {start}*.tar.zst instead of one", hint=_HINT)
        return archive.chunks(found[0])


@contextmanager
def _opened(path: Path, name: str, limits: Limits) -> Iterator[_Archive]:
    limit = min(limits.total, max(limits.small, path.stat().st_size * limits.ratio))
    if name.endswith(".conda"):
        with Zip(path, name, limits) as archive:
            yield _Archive(path, name, archive, limit)
    else:
        yield _Archive(path, name, None, limit)


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from chunks(file)


_NEEDED = frozenset({"index.json", "paths.json", "link.json", "files", "has_prefix", "no_link"})


def _info(stream: Stream, name: str, *, stop: bool) -> dict[str, bytes]:
    """Read what is needed below info/; with `stop`, only until other members follow it, where builders put them."""
    found: dict[str, bytes] = {}
    left = _MOST_INFO
    for member in _members(stream, name):
        top, _, rest = member.path.removeprefix("./").partition("/")
        if top != "info":
            if stop and {"index.json", "paths.json"} <= found.keys():
                break
            continue
        if rest in _NEEDED and member.kind == "file" and member.extents is None:
            left -= member.size
            if left < 0:
                raise ArchiveError(f"{name}: more than {_MOST_INFO} bytes of description", hint=_HINT)
            if rest in found:
                raise ArchiveError(f"{name}: two members have the name 'info/{rest}'", hint=_HINT)
            found[rest] = b"".join(map(bytes, stream.payload(member.stored)))
    return found


def _members(stream: Stream, name: str) -> Iterator[Member]:
    """Yield the members of a tar; what is not taken of a member's content is skipped."""
    reader, count = Reader(stream.take, name), 0
    while (member := reader.next()) is not None:
        count += 1
        if count > _MOST_MEMBERS:
            raise ArchiveError(f"{name}: more than {_MOST_MEMBERS} members", hint=_HINT)
        stream.taken()
        start = stream.position
        yield member
        left = member.stored - (stream.position - start)
        if left != sum(len(part) for part in stream.payload(left)):
            raise ArchiveError(f"{name}: {member.path[:200]!r} is cut off", hint="remove it from the cache")
        stream.take(-member.stored % BLOCK)
        stream.taken()


class _Linker:
    """Writes the members of one package to where they belong."""

    def __init__(self, info: dict[str, bytes], writer: TreeWriter, piece: CondaPiece) -> None:
        self._name = piece.filename
        self._writer = writer
        self._piece = piece
        self._left = set[str]()
        self._index: dict[str, Any] = self._read(info, "index.json", dict[str, Any])
        index = self._read(info, "index.json", _Index)
        if (index.name, index.version, index.build) != (piece.name, piece.version, piece.build):
            raise self._error(f"is not {piece.name} {piece.version} {piece.build}: its index.json says {index}"[:500])
        link = self._read(info, "link.json", _Link) if "link.json" in info else _Link()
        self._noarch = index.noarch == "python" or link.noarch.type == "python"
        self._entry_points = link.noarch.entry_points if self._noarch else ()
        if self._noarch and not piece.python:
            raise self._error("has modules of Python, and the environment has no Python", "ask for python too")
        self._paths = {one.path: one for one in self._listed(info)}
        self._times: dict[str, int] = {}
        """Of sources, as the package has them, in seconds."""
        self._compiled: dict[str, int] = {}
        """Of byte code: the time of the source it was made from."""

    def link(self, stream: Stream) -> None:
        """Write everything that is to be linked."""
        self._left = {path for path, one in self._paths.items() if one.path_type != "directory"}
        for member in _members(stream, self._name):
            path = member.path.removeprefix("./").rstrip("/")
            one = self._paths.get(path)
            if one is None or path.startswith("info/") or member.kind == "dir":
                continue
            if path not in self._left:
                raise self._error(f"two members have the name {path!r}")
            self._left.discard(path)
            self._member(member, one, stream)
        if self._left:
            raise self._error(f"paths.json names {min(self._left)!r}, which it does not have")

    def finish(self) -> Tree:
        """Write what is made and not unpacked."""
        for one in self._paths.values():
            if one.path_type == "directory":
                self._writer.directory(self._place(one.path))
        entry_points = dict(self._entry_point(line) for line in self._entry_points)
        # pip's wrappers would be renamed for the Python they are made for; conda's stay as they are called.
        for script in scripts_of({"gui_scripts": entry_points}, self._piece.python or "", self._name):
            self._writer.file(f"{PREFIX}/bin/{script.name}", [script.text()], 0o755)
        stem = self._name.removesuffix(".conda").removesuffix(".tar.bz2")
        self._writer.file(f"{PREFIX}/{META}/{stem}.json", [self._record(entry_points)])
        self._date_bytecode()
        return self._writer.finish()

    def _listed(self, info: dict[str, bytes]) -> Iterator[_Path]:
        seen = set[str]()
        for one in self._read(info, "paths.json", _Paths).paths if "paths.json" in info else self._old_list(info):
            safe_path(one.path, self._name)
            if one.path in seen:
                raise self._error(f"paths.json names {one.path!r} twice")
            seen.add(one.path)
            yield one

    def _old_list(self, info: dict[str, bytes]) -> Iterator[_Path]:
        """Read the files that stood in the place of paths.json before 2017."""
        if "files" not in info:
            raise self._error("has no info/paths.json")
        prefixes = dict(map(_old_prefix, _lines(info.get("has_prefix", b""))))
        for path in _lines(info["files"]):
            placeholder, mode = prefixes.get(path, (None, None))
            yield _Path(path=path, prefix_placeholder=placeholder, file_mode=mode)

    def _member(self, member: Member, one: _Path, stream: Stream) -> None:
        place = self._place(one.path)
        if member.kind == "symlink":
            self._symlink(place, member)
        elif member.kind == "link":
            self._hard_link(place, member, one)
        elif member.kind == "file" and member.extents is None:
            self._file(place, member, one, stream)
        else:
            raise self._error(f"{one.path!r} is a device, a fifo or a sparse file")

    def _place(self, path: str) -> str:
        if self._noarch:
            for start, folder in (
                ("site-packages/", f"lib/python{self._piece.python}/site-packages/"),
                ("python-scripts/", "bin/"),
            ):
                if path.startswith(start):
                    path = folder + path.removeprefix(start)
        return f"{PREFIX}/{path}"

    def _symlink(self, place: str, member: Member) -> None:
        target = member.target
        end = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        if not target or len(target) > 4095 or "\0" in target:
            raise self._error(f"the link {member.path!r} has no usable target")
        # One to an absolute path means the image's, as in any package; one that climbs means the builder's machine.
        if not target.startswith("/") and end != PREFIX and not end.startswith(f"{PREFIX}/"):
            raise self._error(f"the link {member.path!r} leaves the environment: {target[:200]!r}")
        self._writer.symlink(place, target)

    def _hard_link(self, place: str, member: Member, one: _Path) -> None:
        target = member.target.removeprefix("./")
        source = self._paths.get(target)
        rule = (one.prefix_placeholder, one.file_mode)
        if source is None or target in self._left or (source.prefix_placeholder, source.file_mode) != rule:
            raise self._error(f"{one.path!r} is a hard link to {target[:200]!r}, no such file before it")
        if self._writer.kind(self._place(target)) != "file" or (one.sha256 and one.sha256 != source.sha256):
            raise self._error(f"{one.path!r} is a hard link to {target[:200]!r}, which is something else")
        written = Path(self._writer.root, self._place(target))
        self._writer.file(place, _file(written), written.stat().st_mode & 0o777)

    def _file(self, place: str, member: Member, one: _Path, stream: Stream) -> None:
        if one.size_in_bytes not in (None, member.size):
            raise self._error(f"{one.path!r} has {member.size} bytes, and paths.json says {one.size_in_bytes}")
        content = self._hashed(stream.payload(member.stored), one, member.size)
        if one.prefix_placeholder:
            content = iter([self._replaced(content, member, one)])
        elif one.path.endswith(".pyc"):
            content = self._bytecode(content, one.path)
        elif one.path.endswith(".py"):
            self._times[one.path] = member.mtime // 10**9
        self._writer.file(place, content, 0o755 if member.mode & 0o111 else 0o644)

    def _hashed(self, content: Iterable[memoryview], one: _Path, size: int) -> Iterator[bytes | memoryview]:
        digest = hashlib.sha256()
        for part in content:
            digest.update(part)
            size -= len(part)
            yield part
        if size:
            raise self._error(f"{one.path!r} is cut off")
        if one.sha256 and digest.hexdigest() != one.sha256.lower():
            raise self._error(f"{one.path!r} does not have the sha256 that paths.json says")

    def _replaced(self, content: Iterable[bytes | memoryview], member: Member, one: _Path) -> bytes:
        if member.size > _MOST_CHANGED:
            raise self._error(f"{one.path!r} has {member.size} bytes and a prefix in them")
        assert one.prefix_placeholder  # noqa: S101 - the caller saw it
        try:
            placeholder = one.prefix_placeholder.encode()
            return with_prefix(b"".join(map(bytes, content)), placeholder, one.file_mode or "text")
        except ValueError as problem:
            raise self._error(f"{one.path!r}: {problem}") from problem

    def _bytecode(self, content: Iterable[bytes | memoryview], path: str) -> Iterator[bytes | memoryview]:
        head = b""
        for part in content:
            if len(head) < _PYC_HEADER:
                head += bytes(part[:_PYC_HEADER])
            yield part
        # PEP 552: no flags mean that the next four bytes are the time of the source.
        if len(head) >= _PYC_HEADER and head[4:8] == bytes(4):
            self._compiled[path] = int.from_bytes(head[8:12], "little")

    def _date_bytecode(self) -> None:
        """Let byte code stay valid: what was made from a source of the package is made from one of the new time."""
        when = (self._piece.epoch & 0xFFFFFFFF).to_bytes(4, "little")
        for path, time in self._compiled.items():
            if self._times.get(_source_of(path), -1) & 0xFFFFFFFF == time:
                self._writer.patch(self._place(path), 8, when)

    def _entry_point(self, line: str) -> tuple[str, str]:
        name, equals, value = line.partition("=")
        if not equals:
            raise self._error(f"link.json: {line[:200]!r} is no entry point")
        return name.strip(), value.strip()

    def _record(self, entry_points: Iterable[str]) -> bytes:
        """Return the package's file in conda-meta: what conda writes, without what is of a machine or a day."""
        paths = [self._recorded(one) for one in self._paths.values()]
        paths += [{"_path": f"bin/{name}", "path_type": "unix_python_entry_point"} for name in entry_points]
        record = {key: self._index[key] for key in _RECORDED if key in self._index} | {
            "channel": self._piece.channel,
            "files": sorted(str(one["_path"]) for one in paths if one["path_type"] != "directory"),
            "fn": self._name,
            "paths_data": {"paths": sorted(paths, key=lambda one: str(one["_path"])), "paths_version": 1},
            "sha256": self._piece.sha256,
            "subdir": self._piece.subdir,
        }
        return json.dumps(record, indent=2, sort_keys=True).encode() + b"\n"

    def _recorded(self, one: _Path) -> dict[str, object]:
        place = self._place(one.path).removeprefix(f"{PREFIX}/")
        known: dict[str, object] = {"_path": place, "path_type": one.path_type}
        known |= {"sha256": one.sha256} if _HEX.fullmatch(one.sha256) else {}
        known |= {"size_in_bytes": one.size_in_bytes} if one.size_in_bytes is not None else {}
        if one.prefix_placeholder:
            known |= {"prefix_placeholder": one.prefix_placeholder, "file_mode": one.file_mode or "text"}
        return known

    def _read(self, info: dict[str, bytes], file: str, kind: Any) -> Any:  # noqa: ANN401 - what `kind` says
        if file not in info:
            raise self._error(f"has no info/{file}")
        return decode_json(info[file], kind, what=f"{self._name}: info/{file}", error=ArchiveError)

    def _error(self, message: str, hint: str = _HINT) -> ArchiveError:
        return ArchiveError(f"{self._name}: {message}", hint=hint)


def _source_of(path: str) -> str:
    """Return where the source of byte code lies: lib/__pycache__/x.cpython-311.pyc is of lib/x.py."""
    folder, _, name = path.rpartition("/")
    if folder == "__pycache__" or folder.endswith("/__pycache__"):
        return f"{folder.removesuffix('__pycache__')}{name.partition('.')[0]}.py"
    return f"{path.removesuffix('c')}"


def _lines(data: bytes) -> list[str]:
    return [line for line in data.decode("utf-8", "surrogateescape").splitlines() if line]


def _old_prefix(line: str) -> tuple[str, tuple[str, Literal["text", "binary"]]]:
    parts = line.split(maxsplit=2)
    if len(parts) == 3 and parts[1] in ("text", "binary"):
        return parts[2].strip("\"'"), (parts[0].strip("\"'"), "text" if parts[1] == "text" else "binary")
    return line.strip("\"'"), (_OLD_PLACEHOLDER, "text")
