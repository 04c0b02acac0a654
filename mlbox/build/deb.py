"""Unpack a Debian package without running its scripts.

What differs from dpkg, on purpose: paths below /bin, /sbin and /lib* land below /usr, as on every
merged-/usr system; manual pages, translations and documentation other than copyright files are left
out, as in Debian's slim images; modes are 0644 or 0755, so setuid and setgid bits are gone (containers
run with no-new-privileges, under which they do nothing); hard links become relative symlinks.
The package's control files stay in var/lib/dpkg/info, and its future stanza of var/lib/dpkg/status
beside them as <package>.control (not in status.d: scanners would count every package twice).
"""

import errno
import gzip
import hashlib
import io
import lzma
import posixpath
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from mlbox.errors import ArchiveError
from mlbox.files import CHUNK
from mlbox.oci.tar import Member
from mlbox.oci.tarstream import TarStream
from mlbox.store.tree import Tree, TreeWriter

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ALIASES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Top-level directories that are symlinks to the same name below /usr."""
INFO = "var/lib/dpkg/info"

_MAGIC = b"!<arch>\n"
_CONTROL_LIMIT = 64 << 20
_DATA_LIMIT = 16 << 30
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_CONTROL_MEMBER = re.compile(r"[A-Za-z0-9._+-]+")
_LEFT_OUT = re.compile(r"usr/share/(?:doc|info|lintian|linda|groff|locale|man)(?:/|$)")
_KEPT = re.compile(r"usr/share/(?:doc/[^/]+(?:/copyright)?|doc|locale|locale/locale\.alias)")
_PACKINGS = ("", ".gz", ".xz", ".zst")
_DAMAGED = (lzma.LZMAError, zstd.ZstdError, EOFError, OSError, ValueError)

Stream = io.BufferedIOBase


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What the control part of a package says."""

    name: str
    arch: str
    text: str
    files: dict[str, tuple[bytes, int]]
    """Content and mode of every other control file."""

    @property
    def info(self) -> str:
        """The name dpkg keeps the package's files under: with the architecture when several may be installed."""
        same = re.search(r"^Multi-Arch:[ \t]*same[ \t]*$", self.text, re.MULTILINE)
        return f"{self.name}:{self.arch}" if same else self.name

    @property
    def conffiles(self) -> tuple[str, ...]:
        """The absolute paths of the configuration files."""
        lines = self.files.get("conffiles", (b"", 0))[0].decode("utf-8", "replace").splitlines()
        return tuple(line.strip() for line in lines if line.startswith("/"))


def unpack_deb(path: Path, root: Path, *, epoch: int, limit: int = _DATA_LIMIT) -> Tree:
    """Unpack the package file `path` to the new folder `root`; raises ArchiveError when it is damaged or hostile.

    More than `limit` bytes of content is refused. The data is streamed: memory stays at some megabytes.
    """
    with _reading(path.name), path.open("rb") as file:
        members = _ar_members(file, path.name)
        _expect(members, "debian-binary", path.name).read(16)
        control = _read_control(_expect(members, "control.tar", path.name), path.name)
        writer = TreeWriter(root, f"{path.name} ({control.name})", mtime=epoch)
        unpacker = _Unpacker(writer, control, limit)
        unpacker.data(_expect(members, "data.tar", path.name))
        unpacker.info()
    return writer.finish()


@contextmanager
def _reading(name: str) -> Iterator[None]:
    # Damaged input is an OSError without an errno; a path that no file system takes is the archive's fault too.
    # Any other OSError, a full disk for one, is not.
    try:
        yield
    except _DAMAGED as problem:
        if isinstance(problem, OSError) and problem.errno not in (None, errno.ENAMETOOLONG):
            raise
        raise ArchiveError(
            f"{name}: not a whole Debian package: {problem}",
            hint="remove it from the cache and fetch it again ('mlbox fsck' finds damaged files)",
        ) from problem


class _Part(io.RawIOBase):
    """One member of an ar archive; reading past its end is its end, an archive that stops before is an error."""

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        self.name = name
        self._file = file
        self._left = size

    def readable(self) -> bool:
        """Return that this can be read."""
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fill `buffer` with what follows."""
        view = memoryview(buffer)[: self._left]
        if not view:
            return 0
        got = self._file.readinto(view)  # type: ignore[attr-defined]
        if not got:
            raise EOFError(f"{self.name} ends {self._left} bytes early")
        self._left -= got
        return int(got)


def _ar_members(file: BinaryIO, archive: str) -> Iterator[_Part]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ArchiveError(f"{archive}: not an ar archive")
    while header := file.read(60):
        size = header[48:58].strip()
        if len(header) != 60 or header[58:] != b"`\n" or not size.isdigit():
            raise ArchiveError(f"{archive}: a damaged ar header")
        start = file.tell()
        yield _Part(file, header[:16].decode("ascii", "replace").strip().rstrip("/"), int(size))
        file.seek(start + int(size) + int(size) % 2)


def _expect(members: Iterator[_Part], name: str, archive: str) -> Stream:
    for member in members:
        if member.name.startswith("_"):
            continue  # deb(5): members whose name starts with an underscore are to be ignored
        stem, _, packing = member.name.partition(name)
        if stem == "" and packing in _PACKINGS:
            return _opened(packing, io.BufferedReader(member, CHUNK))
        raise ArchiveError(f"{archive}: expected the member {name}, found {member.name!r}")
    raise ArchiveError(f"{archive}: the member {name} is missing")


def _opened(packing: str, raw: io.BufferedReader) -> Stream:
    match packing:
        case ".gz":
            return gzip.GzipFile(fileobj=raw)
        case ".xz":
            return lzma.LZMAFile(raw)
        case ".zst":
            return zstd.ZstdFile(raw)
    return raw


def _read_control(file: Stream, archive: str) -> Control:
    files: dict[str, tuple[bytes, int]] = {}
    total = 0
    tar = TarStream(file, archive)
    for member in tar:
        name = member.path.removeprefix("./")
        total += member.stored
        if total > _CONTROL_LIMIT:
            raise ArchiveError(f"{archive}: more than {_CONTROL_LIMIT} bytes of control files")
        if member.kind == "file" and _CONTROL_MEMBER.fullmatch(name):
            files[name] = (b"".join(tar.content()), 0o755 if member.mode & 0o111 else 0o644)
    text = files.pop("control", (b"", 0))[0].decode("utf-8", "replace")
    fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(\S+)", text, re.MULTILINE))
    name, arch = fields.get("Package", ""), fields.get("Architecture", "")
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(arch):
        raise ArchiveError(f"{archive}: its control file names no package")
    return Control(name=name, arch=arch, text=text, files=files)


class _Unpacker:
    """Writes the members of one package."""

    def __init__(self, writer: TreeWriter, control: Control, limit: int) -> None:
        self._writer = writer
        self._control = control
        self._left = limit
        self._paths = ["/."]
        self._md5: dict[str, str] = {}

    def data(self, file: Stream) -> None:
        """Unpack the data part."""
        tar = TarStream(file, self._writer.archive)
        for member in tar:
            self._member(tar, member)

    def info(self) -> None:
        """Write dpkg's own files about the package."""
        prefix = f"{INFO}/{self._control.info}"
        listing = "".join(f"{path}\n" for path in self._paths)
        self._writer.file(f"{prefix}.list", [listing.encode("utf-8", "surrogateescape")])
        self._writer.file(f"{prefix}.control", [self._stanza().encode()])
        for name, (content, mode) in sorted(self._control.files.items()):
            if name not in ("list", "control"):
                self._writer.file(f"{prefix}.{name}", [content], mode)

    def _stanza(self) -> str:
        first, _, rest = self._control.text.strip().partition("\n")
        known = [path for path in self._control.conffiles if path in self._md5]
        conffiles = "".join(f"\n {path} {self._md5[path]}" for path in known)
        return f"{first}\nStatus: install ok installed\n{rest}\n" + (f"Conffiles:{conffiles}\n" if known else "")

    def _member(self, tar: TarStream, member: Member) -> None:
        original = member.path.removeprefix("./").rstrip("/")
        if original in ("", "."):
            return
        self._paths.append(f"/{original}")
        path = merged(original)
        if left_out(path):
            return
        if member.kind == "dir":
            self._writer.directory(path)
        elif member.kind == "symlink":
            self._symlink(path, original, member.target)
        elif member.kind == "link":
            self._hard_link(path, member.target)
        elif member.kind == "file" and member.extents is None:
            self._file(path, tar, member)
        else:
            raise ArchiveError(f"{self._writer.archive}: {original!r} is a device, a fifo or sparse")

    def _file(self, path: str, tar: TarStream, member: Member) -> None:
        if member.size > self._left:
            raise ArchiveError(f"{self._writer.archive}: unpacks to more than the limit allows")
        self._left -= member.size
        data = tar.content()
        if f"/{path}" in self._control.conffiles:
            data = self._hashed(path, data)
        self._writer.file(path, data, 0o755 if member.mode & 0o111 else 0o644)

    def _hashed(self, path: str, data: Iterator[bytes]) -> Iterator[bytes]:
        digest = hashlib.md5(usedforsecurity=False)  # what dpkg compares configuration files by
        for chunk in data:
            digest.update(chunk)
            yield chunk
        self._md5[f"/{path}"] = digest.hexdigest()

    def _symlink(self, path: str, original: str, target: str) -> None:
        if not target or len(target) > 4095:
            raise ArchiveError(f"{self._writer.archive}: the symlink {original!r} has no usable target")
        end = _destination(original, target)
        if merged(end) == path:
            return  # /usr/bin/touch -> /bin/touch, which are one place now; also /bin -> usr/bin itself
        if original in ALIASES:
            raise ArchiveError(f"{self._writer.archive}: {original!r} points to {target!r}, not to its place below usr")
        if path != original and target.startswith("../"):
            target = posixpath.relpath("/" + merged(end), "/" + posixpath.dirname(path))
        self._writer.symlink(path, target)

    def _hard_link(self, path: str, linkname: str) -> None:
        target = merged(linkname.removeprefix("./"))
        if self._writer.kind(target) != "file":
            raise ArchiveError(f"{self._writer.archive}: {path!r} is a hard link to {linkname!r}, no file before it")
        if target != path:
            self._writer.symlink(path, posixpath.relpath("/" + target, "/" + posixpath.dirname(path)))


def merged(path: str) -> str:
    """Return where `path` lies on a system whose /bin, /sbin and /lib* are symlinks below /usr."""
    return f"usr/{path}" if path.partition("/")[0] in ALIASES else path


def left_out(path: str) -> bool:
    """Return whether slim images do without `path`."""
    return bool(_LEFT_OUT.match(path)) and not _KEPT.fullmatch(path)


def _destination(path: str, target: str) -> str:
    """Return where the symlink `path` points to, without a leading slash, nothing followed."""
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(path), target)).lstrip("/")
