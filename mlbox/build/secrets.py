"""Passwords in the addresses of spec files, which would become part of the image with the project's files."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mlbox.plan.model import ProjectFile

_SPEC = re.compile(
    r"(?:.*/)?(?:(?:requirements|constraints)[^/]*\.(?:txt|in)|requirements/.*\.(?:txt|in)"
    r"|(?:pyproject|mlbox|uv)\.toml|(?:uv|poetry|pdm)\.lock|pylock[^/]*\.toml|pip\.(?:conf|ini)|Pipfile(?:\.lock)?)"
)
_CONDA = re.compile(
    r"(?:.*/)?(?:[^/]*environment[^/]*\.ya?ml|conda-lock[^/]*\.ya?ml|pixi\.(?:toml|lock)|\.?condarc"
    r"|conda-[^/]*\.lock|spec-file\.txt|explicit[^/]*\.txt)"
)
"""What names channels of conda, whose tokens stand in the path of the address."""
# https://user:password@host and https://token@host, but not https://${TOKEN}@host, which pip and mlbox fill in.
_CREDENTIALS = re.compile(rb"https?://(?!\$\{)[^/\s@\"':]+(?::(?!\$\{)[^/\s@\"']*)?@")
# https://host/t/token/channel, but not https://host/t/${TOKEN}/channel.
_TOKEN = re.compile(rb"https?://(?:[^/\s\"'@]*@)?[^/\s\"'@]+/t/(?!\$)[^/\s\"']+/")
_LARGEST = 8 << 20


def files_with_credentials(root: Path, files: Iterable[ProjectFile], named: Sequence[str] = ()) -> Iterator[str]:
    """Yield the spec files among `files` of the project at `root` that hold a password or token in an address.

    `named` are spec files whatever they are called.
    """
    for file in files:
        conda = file.path in named or _CONDA.fullmatch(file.path)
        if file.target or file.size > _LARGEST or not (conda or _SPEC.fullmatch(file.path)):
            continue
        data = (root / file.path).read_bytes()
        if _CREDENTIALS.search(data) or (conda and _TOKEN.search(data)):
            yield file.path
