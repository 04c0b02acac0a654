"""Unpacks a wheel as pip would install it into the environment's prefix, in one pass over its bytes.

Everything that can be judged from the archive's directory, its metadata and its RECORD is judged before
anything is written; hashes are checked while the files are written and the piece's tar is hashed.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mlbox.build.record import Row, check_rows, expected_hash, read_record, row_for, row_of, write_record
from mlbox.build.scripts import Script, read_entry_points, scripts_of, with_interpreter
from mlbox.build.zip import LIMITS, Limits, Member, Zip
from mlbox.errors import ArchiveError
from mlbox.files import disk_errors
from mlbox.oci.layer import Entry, parents, sort_entries
from mlbox.plan.model import PREFIX, WheelPiece
from mlbox.store.tree import Tree, write_tree

INSTALLER = b"mlbox\n"
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")
_HINT = "the wheel is broken as published: pin another version"
_MOST_METADATA = 32 << 20
_MOST_SCRIPT = 32 << 20
_SHEBANG = b"#!python"
UP = "../../../"
"""From site-packages to the prefix, in RECORD."""


def site_packages(python: str) -> str:
    """Return the environment's site-packages for Python `python` ('3.11'), relative to the image's root."""
    return f"{PREFIX}/lib/python{python}/site-packages"


def unpack_wheel(path: Path, root: Path, piece: WheelPiece, limits: Limits = LIMITS) -> Tree:
    """Install the wheel file `path` into the new folder `root` and return what it holds, with its diff_id.

    Raises ArchiveError naming the wheel when it is damaged, hostile, or contradicts itself or `piece`.
    """
    with disk_errors(f"unpacking {piece.filename}"), Zip(path, piece.filename, limits) as archive:
        files = _Plan(archive, piece).files()
        entries = [Entry(at, "file", file.mode, piece.epoch, file.size) for at, file in files.items()]
        folders = parents(files)
        if clash := folders & files.keys():
            raise ArchiveError(f"{piece.filename}: {min(clash)!r} is both a file and a folder", hint=_HINT)
        entries += [Entry(at, "dir", 0o755, piece.epoch) for at in folders]
        return write_tree(root, sort_entries(entries), lambda entry: files[entry.path].content, piece.filename)


class _File(NamedTuple):
    """What will be written: where its bytes come from, lazily."""

    size: int
    mode: int
    content: Iterable[bytes]


class _Plan:
    """Decides what of a wheel goes where."""

    def __init__(self, archive: Zip, piece: WheelPiece) -> None:
        self._zip = archive
        self._piece = piece
        self._name = piece.filename
        self._site = site_packages(piece.python)
        self._info = self._dist_info()
        self._check_wheel()
        self._check_metadata()
        self._record = read_record(self._read("RECORD"), self._name)
        unhashed = [f"{self._info}/{name}" for name in ("RECORD", *_SIGNATURES)]
        check_rows(self._record, archive.members, unhashed, self._name)
        self._unhashed = frozenset(unhashed)

    def files(self) -> dict[str, _File]:
        """Return every file of the installed wheel by its path in the image."""
        groups = self._entry_points()
        wrapped = {*groups.get("console_scripts", {}), *groups.get("gui_scripts", {})}
        files: dict[str, _File] = {}
        rows: dict[str, Row] = {}
        for member in self._zip.members.values():
            at = self._place(member.name)
            if at.startswith(f"{PREFIX}/bin/") and _wrapper_of(at.rpartition("/")[2]) in wrapped:
                continue
            if at in files:
                raise self._error(f"two members want the path {at!r}")
            if member.name != f"{self._info}/RECORD":
                files[at], rows[at] = self._member(member, at)
        for at, data, mode in self._generated(scripts_of(groups, self._piece.python, self._name)):
            files[at] = _File(len(data), mode, (data,))
            rows[at] = row_for(self._row_path(at), data)
        record = f"{self._site}/{self._info}/RECORD"
        text = write_record([*rows.values(), Row(self._row_path(record), "", "")])
        files[record] = _File(len(text), 0o644, (text,))
        return files

    def _dist_info(self) -> str:
        tops = {name.partition("/")[0] for name in self._zip.members if "/" in name}
        found = sorted(top for top in tops if top.endswith(".dist-info"))
        if len(found) != 1:
            raise self._error(f"has {len(found)} .dist-info folders instead of one")
        name, _, version = found[0].removesuffix(".dist-info").partition("-")
        self._check_identity(name, version, found[0])
        return found[0]

    def _check_wheel(self) -> None:
        version = _headers(self._read("WHEEL")).get("wheel-version", "")
        if not re.fullmatch(r"\d+(\.\d+)*", version):
            raise self._error(f"WHEEL has no valid Wheel-Version: {version!r}")
        if version.partition(".")[0] != "1":
            raise self._error(f"Wheel-Version is {version}, and only 1.x is known", hint="use a newer mlbox")

    def _check_metadata(self) -> None:
        headers = _headers(self._read("METADATA"))
        self._check_identity(headers.get("name", ""), headers.get("version", ""), "METADATA")

    def _check_identity(self, name: str, version: str, where: str) -> None:
        if _normal(name) != _normal(self._piece.name) or not _same_version(version, self._piece.version):
            raise self._error(
                f"is not {self._piece.name} {self._piece.version}: {where} says {name!r} {version!r}",
                hint="the file was published under a wrong name: pin another version",
            )

    def _read(self, name: str) -> bytes:
        member = self._zip.members.get(f"{self._info}/{name}")
        if member is None:
            raise self._error(f"has no {self._info}/{name}")
        return self._zip.read(member, _MOST_METADATA)

    def _entry_points(self) -> dict[str, dict[str, str]]:
        if f"{self._info}/entry_points.txt" not in self._zip.members:
            return {}
        return read_entry_points(self._read("entry_points.txt"), self._name)

    def _place(self, name: str) -> str:
        """Return where the member `name` goes."""
        top, _, rest = name.partition("/")
        if not top.endswith(".data") or not rest:
            return f"{self._site}/{name}"
        scheme, _, inner = rest.partition("/")
        folders = {
            "purelib": self._site,
            "platlib": self._site,
            "headers": f"{PREFIX}/include/site/python{self._piece.python}/{_normal(self._piece.name)}",
            "scripts": f"{PREFIX}/bin",
            "data": PREFIX,
        }
        if scheme not in folders or not inner:
            raise self._error(f"{name!r} belongs to no known place ({', '.join(folders)})")
        if scheme == "data" and inner.startswith("lib64/"):
            inner = "lib/" + inner.removeprefix("lib64/")  # lib64 is a link to lib in a virtual environment
        return f"{folders[scheme]}/{inner}"

    def _row_path(self, at: str) -> str:
        below = at.removeprefix(self._site + "/")
        return below if below != at else UP + at.removeprefix(PREFIX + "/")

    def _member(self, member: Member, at: str) -> tuple[_File, Row]:
        row = self._record.get(member.name, Row(member.name, "", ""))
        if row.size and row.size != str(member.size):
            raise self._error(f"RECORD says that {member.name!r} has {row.size} bytes; it has {member.size}")
        mode = 0o755 if member.executable else 0o644
        content = _Verified(self._zip, member, *expected_hash(row, self._name), self._name)
        if at.startswith(f"{PREFIX}/bin/") and next(self._zip.chunks(member), b"").startswith(_SHEBANG):
            data = with_interpreter(self._script(member, content))
            return _File(len(data), mode, (data,)), row_for(self._row_path(at), data)
        path = self._row_path(at)
        if row.hash and row.size:
            row = Row(path, row.hash, row.size)
        else:
            row = Row(path, "", "") if member.name in self._unhashed else row_of(path, content.sha256(), member.size)
        return _File(member.size, mode, content), row

    def _script(self, member: Member, content: Iterable[bytes]) -> bytes:
        if member.size > _MOST_SCRIPT:
            raise self._error(f"{member.name!r} is a script of {member.size} bytes")
        return b"".join(content)

    def _generated(self, scripts: Iterable[Script]) -> Iterator[tuple[str, bytes, int]]:
        for script in scripts:
            yield f"{PREFIX}/bin/{script.name}", script.text(), 0o755
        info = f"{self._site}/{self._info}"
        yield f"{info}/INSTALLER", INSTALLER, 0o644
        if self._piece.direct_url:
            yield f"{info}/direct_url.json", self._piece.direct_url.encode(), 0o644
        if self._piece.requested:
            yield f"{info}/REQUESTED", b"", 0o644

    def _error(self, message: str, hint: str = _HINT) -> ArchiveError:
        return ArchiveError(f"{self._name}: {message}", hint=hint)


class _Verified:
    """The content of a member, checked against RECORD's hash each time it is read."""

    _hashes: dict[str, Callable[[bytes], "hashlib._Hash"]] = {
        "sha256": hashlib.sha256,
        "sha384": hashlib.sha384,
        "sha512": hashlib.sha512,
    }

    def __init__(self, archive: Zip, member: Member, algorithm: str, digest: bytes, name: str) -> None:
        self._zip = archive
        self._member = member
        self._algorithm = algorithm
        self._digest = digest
        self._name = name

    def __iter__(self) -> Iterator[bytes]:
        if not self._algorithm:
            yield from self._zip.chunks(self._member)
            return
        digest = self._hashes[self._algorithm](b"")
        for chunk in self._zip.chunks(self._member):
            digest.update(chunk)
            yield chunk
        if digest.digest() != self._digest:
            raise ArchiveError(
                f"{self._name}: {self._member.name!r} does not have the hash its RECORD says",
                hint="the wheel contradicts itself: pin another version, or ask its authors for a corrected one",
            )

    def sha256(self) -> bytes:
        """Return the content's sha256, reading it."""
        digest = hashlib.sha256()
        for chunk in self:
            digest.update(chunk)
        return digest.digest()


def _wrapper_of(name: str) -> str:
    # setuptools once put the launchers themselves into wheels, under these names; pip ignores them too.
    for suffix in (".exe", "-script.py", ".pya"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _headers(data: bytes) -> dict[str, str]:
    """Return the first of each header of METADATA or WHEEL, by lower-case name."""
    headers: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        if not line:
            break
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    return headers


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _same_version(one: str, other: str) -> bool:
    if one == other:
        return True
    from packaging.version import InvalidVersion, Version

    try:
        return Version(one.replace("_", "-")) == Version(other)
    except InvalidVersion:
        return False
