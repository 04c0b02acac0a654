"""Reading a bundle, which may come from strangers: nothing of it is believed that was not compared."""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlbox.errors import ArchiveError
from mlbox.files import CHUNK
from mlbox.oci.digest import Digest, digest_of, hex_of
from mlbox.oci.layer import BLOCK, END, Entry, header
from mlbox.registry.bundle import CONTENTS, CONTENTS_LIMIT, Frame, frame_of
from mlbox.registry.bundle_contents import Damage, parse_contents

_SIZE = slice(124, 135)
_ANOTHER = "'mlbox load -i FILE' reads other archives; if it is one, copy it again"
_OCTAL = re.compile(rb"[0-7]{11}")


class Bundle:
    """An open bundle whose contents have been read. Usable from several threads."""

    def __init__(self, name: str, parts: Sequence[tuple[int, int]]) -> None:
        """`parts` are the open files that make it up, in order, with their sizes."""
        self.name = name
        self._parts = parts
        self.size = sum(size for _, size in parts)
        data = self._contents_bytes()
        self.digest = digest_of(data)
        self.contents = parse_contents(data, name)
        self.frame: Frame = frame_of(self.contents)
        self._check_frame()

    def blob(self, digest: Digest) -> Iterator[bytes]:
        """Yield the blob, which must be read to its end: only there is it known to be what its name says."""
        member = self.frame.blobs[digest]
        if self._read(member.offset, len(member.header)) != member.header:
            raise Damage(f"{self.name}: {member.path} is not where it must be")
        hasher = hashlib.sha256()
        position, end = member.start, member.start + member.size
        while position < end:
            chunk = self._read(position, min(CHUNK, end - position))
            hasher.update(chunk)
            position += len(chunk)
            yield chunk
        if hasher.hexdigest() != hex_of(digest) or any(self._read(end, member.end - end)):
            raise Damage(f"{self.name}: {member.path} was changed: its content has another digest")

    def document(self, digest: Digest) -> bytes:
        """Return a small blob."""
        return b"".join(self.blob(digest))

    def _contents_bytes(self) -> bytes:
        block = self._read(0, min(BLOCK, self.size))
        size = int(block[_SIZE], 8) if _OCTAL.fullmatch(block[_SIZE]) else -1
        if size < 0 or block != header(Entry(CONTENTS, "file", 0o644, size=size)):
            raise Damage(f"{self.name} is no bundle of mlbox", hint=_ANOTHER)
        if size > CONTENTS_LIMIT:
            raise Damage(f"{self.name}: its contents are larger than {CONTENTS_LIMIT} bytes")
        return self._read(BLOCK, size)

    def _check_frame(self) -> None:
        if self.size < self.frame.size:
            raise Damage(
                f"{self.name}: {self.size} of {self.frame.size} bytes are there: it was cut off, or a part is missing"
            )
        if self.size > self.frame.size:
            raise Damage(f"{self.name}: {self.size - self.frame.size} bytes follow its end")
        if self._read(0, len(self.frame.head)) != self.frame.head or any(self._read(self.size - len(END), len(END))):
            raise Damage(f"{self.name}: what stands around its blobs does not follow from its contents")

    def _read(self, offset: int, size: int) -> bytes:
        found = []
        for fd, length in self._parts:
            while size and offset < length:
                data = os.pread(fd, min(size, length - offset), offset)
                if not data:
                    raise Damage(f"{self.name} became shorter while it was read")
                found.append(data)
                offset += len(data)
                size -= len(data)
            offset -= length
        if size:
            raise Damage(f"{self.name} was cut off")
        return b"".join(found)


@contextmanager
def open_bundle(path: Path, name: str = "") -> Iterator[Bundle]:
    """Open the bundle at `path`, or the parts PATH.001, PATH.002, … of one; Damage when it is none.

    Messages call it `name`, else by its path.
    """
    parts: list[tuple[int, int]] = []
    try:
        for part in parts_of(path):
            parts.append(_open(part))
        yield Bundle(name or str(path), parts)
    finally:
        for fd, _ in parts:
            os.close(fd)


def parts_of(path: Path) -> list[Path]:
    """Return the files that make up the bundle at `path`, which may be its first part."""
    if not path.name:  # '/' or '.'
        return [path]
    whole = path.with_suffix("") if path.suffix == ".001" else path
    first = whole.with_name(f"{whole.name}.001")
    if path.suffix != ".001" and (path.exists() or not first.exists()):
        return [path]
    found: list[Path] = []
    while (part := whole.with_name(f"{whole.name}.{len(found) + 1:03}")).exists():
        found.append(part)
    return found or [path]


def _open(path: Path) -> tuple[int, int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as problem:
        raise ArchiveError(f"cannot read {path}: {problem.strerror}", hint="name a file that you may read") from problem
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise ArchiveError(
            f"cannot read {path}: a bundle is a file", hint="'mlbox bundle load -' takes one from a pipe"
        )
    return fd, status.st_size
