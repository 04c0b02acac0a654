"""Writing a bundle: to a file that appears when it is whole, to files of a limited size, or to a pipe."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from mlbox.errors import StoreError
from mlbox.files import output_errors, output_path
from mlbox.oci.digest import Digest, hex_of
from mlbox.oci.layer import END, padding
from mlbox.registry.bundle import Contents, Member, frame_of
from mlbox.store.publish import folder_beside, publish_file

MOST_PARTS = 999
"""More would have names that sort wrongly, for whoever puts them together with `cat`."""

Chunks = Iterable[bytes | memoryview]


class Writable(Protocol):
    """Where a bundle is written to."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take all of `data`."""


def write_bundle(contents: Contents, blob: Callable[[Digest], Chunks], out: Writable) -> int:
    """Write the bundle of `contents` to `out`, whose blobs `blob` gives, and return its size in bytes.

    A blob that is not what its digest and its size say raises StoreError.
    """
    frame = frame_of(contents)
    out.write(frame.head)
    for digest, member in frame.blobs.items():
        out.write(member.header)
        for chunk in _checked(blob(digest), digest, member):
            out.write(chunk)
        out.write(padding(member.size))
    out.write(END)
    return frame.size


@contextmanager
def bundle_file(target: Path, split: int | None = None) -> Iterator[Writable]:
    """Yield where to write the bundle that is to lie at `target`; nothing is there before all of it is written.

    With `split` it becomes TARGET.001, TARGET.002, … of that many bytes each, the last one maybe shorter.
    """
    with output_errors(target):
        place = output_path(target)
        if place is None:
            with target.open("wb") as pipe:
                yield pipe
            return
        with folder_beside(place) as folder, closing(_Parts(folder, place.name, split)) as parts:
            yield parts
            parts.publish(place)


class _Parts:
    """Files in a folder that are filled one after the other."""

    def __init__(self, folder: Path, name: str, split: int | None) -> None:
        self._folder = folder
        self._name = name
        self._split = split
        self._left = split or 0
        self._count = 0
        self._file: BinaryIO | None = None
        self._next()

    def write(self, data: bytes | memoryview) -> None:
        """Write `data`, as much as fits into this file and the rest into the next ones."""
        view = memoryview(data)
        while view:
            if self._split and not self._left:
                self._next()
            part = view[: self._left] if self._split else view
            assert self._file is not None  # noqa: S101 - for mypy: open from the beginning
            self._file.write(part)
            view = view[len(part) :]
            self._left -= len(part)

    def publish(self, target: Path) -> None:
        """Move the files to their place, and remove what is left of an earlier bundle of that name."""
        self._done()
        for number in range(1, self._count + 1):
            path = self._path(number)
            path.rename(target.with_name(path.name))
        if self._split:
            target.unlink(missing_ok=True)
        number = self._count + 1 if self._split else 1
        while (old := target.with_name(f"{target.name}.{number:03}")).exists():
            old.unlink()
            number += 1

    def close(self) -> None:
        """Close the file that is being written, when something went wrong."""
        if self._file is not None:
            self._file.close()

    def _path(self, number: int) -> Path:
        return self._folder / (f"{self._name}.{number:03}" if self._split else self._name)

    def _next(self) -> None:
        self._done()
        self._count += 1
        if self._count > MOST_PARTS:
            raise StoreError(f"the bundle has more than {MOST_PARTS} parts", hint="give --split a larger size")
        self._file = self._path(self._count).open("xb")
        self._left = self._split or 0

    def _done(self) -> None:
        if self._file is not None:
            with self._file as file:
                publish_file(self._path(self._count), file, self._path(self._count))


def _checked(chunks: Chunks, digest: Digest, member: Member) -> Iterator[bytes | memoryview]:
    hasher, size = hashlib.sha256(), 0
    for chunk in chunks:
        hasher.update(chunk)
        size += len(chunk)
        yield chunk
    if size != member.size or hasher.hexdigest() != hex_of(digest):
        raise StoreError(f"{digest} was changed on the disk", hint="run 'mlbox fsck --deep --repair'")
