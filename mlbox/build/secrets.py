"""Passwords in the addresses of spec files, which would become part of the image with the project's files."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlbox.plan.model import ProjectFile

_SPEC = re.compile(
    r"(?:.*/)?(?:(?:requirements|constraints)[^/]*\.(?:txt|in)|requirements/.*\.(?:txt|in)"
    r"|(?:pyproject|mlbox|uv)\.toml|pip\.(?:conf|ini)|Pipfile|environment\.ya?ml)"
)
# https://user:password@host and https://token@host, but not https://${TOKEN}@host, which pip and mlbox fill in.
_CREDENTIALS = re.compile(rb"https?://(?!\$\{)[^/\s@\"':]+(?::(?!\$\{)[^/\s@\"']*)?@")
_LARGEST = 1 << 20


def files_with_credentials(root: Path, files: Iterable[ProjectFile]) -> Iterator[str]:
    """Yield the spec files among `files` of the project at `root` that hold a password or token in an address."""
    for file in files:
        looks = not file.target and file.size <= _LARGEST and _SPEC.fullmatch(file.path)
        if looks and _CREDENTIALS.search((root / file.path).read_bytes()):
            yield file.path
