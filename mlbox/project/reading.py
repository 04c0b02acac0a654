"""Reading files of a repository that may be hostile: bounded, and decoded as pip decodes them."""

import codecs
import os
import re
from pathlib import Path, PurePosixPath

from mlbox.errors import ProjectError

MAX_SIZE = 10 * 2**20
"""Bytes of one spec file; the largest requirement files with hashes are below 3 MiB."""

_BOMS = (  # UTF-32 first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SUBMODULES = ".gitmodules"
_SUBMODULE = re.compile(r"^[ \t]*path[ \t]*=[ \t]*([\w./+-]+)[ \t]*$", re.MULTILINE)
_CODING = re.compile(rb"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")


def read_bytes(path: Path, *, root: Path | None = None, limit: int = MAX_SIZE) -> bytes:
    """Return the content of a spec file; ProjectError when it is no regular file, unreadable or too large.

    Also when it lies outside the repository that `root` is in: what is wrong in a file is shown, and a link may
    lead to one that is nobody's business.
    """
    try:
        if root is not None and not path.resolve().is_relative_to(repository(root)):
            raise ProjectError("is a link that leaves the repository", hint="put a copy of the file in its place")
        if not path.is_file():  # a FIFO would block, a device never end
            if path.exists():
                raise ProjectError("is not a regular file")
            raise ProjectError("does not exist", hint=submodule_hint(root or path.parent, path))
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError, RuntimeError) as problem:  # a NUL byte in the name; links in a circle
        raise ProjectError(f"cannot be read: {problem}") from problem
    if len(data) > limit:
        raise ProjectError(f"is larger than {limit // 2**20} MiB", hint="this cannot be a dependency file")
    return data


def read_text(path: Path, *, root: Path | None = None) -> str:
    """Return the text of a requirements file: by its byte order mark, else its PEP 263 comment, else UTF-8."""
    data = read_bytes(path, root=root)
    encoding, start = _encoding(data)
    try:
        text = data[start:].decode(encoding)
    except (LookupError, ValueError) as problem:
        raise ProjectError(
            f"is not text in {encoding}: {problem}",
            hint="save it as UTF-8, or name its encoding in the first line: # -*- coding: latin-1 -*-",
        ) from problem
    if "\0" in text:
        raise ProjectError("has NUL bytes, so it is no text file", hint="save it as UTF-8")
    return text


def _encoding(data: bytes) -> tuple[str, int]:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return encoding, len(mark)
    for line in data[:1000].splitlines()[:2]:
        if found := _CODING.match(line):
            return found[1].decode("ascii", "replace"), 0
    return "utf-8", 0


def repository(root: Path) -> Path:
    """Return the checkout that `root` belongs to: the closest folder upwards that has .git, else `root`."""
    real = root.resolve()
    return next((folder for folder in (real, *real.parents) if (folder / ".git").exists()), real)


def submodule_hint(root: Path, place: Path) -> str | None:
    """Return how to get `place`, a path below `root` that is missing or empty, when it is of a submodule; else None."""
    top = repository(root)
    try:
        text = read_bytes(top / _SUBMODULES, root=top).decode(errors="replace")
        wanted = PurePosixPath(place.resolve().relative_to(top))
    except (ProjectError, ValueError, OSError, RuntimeError):
        return None
    folders = (PurePosixPath(folder) for folder in _SUBMODULE.findall(text))
    found = next((folder for folder in folders if wanted.is_relative_to(folder)), None)
    return f"'git submodule update --init {found}' gets it: it is of another repository" if found else None


def shown(root: Path, path: Path) -> str:
    """Return `path` as people and locks see it: relative to the project's root."""
    return os.path.relpath(path, root)
