"""The records that conda keeps of installed packages: conda-meta/NAME-VERSION-BUILD.json of an environment."""

import re

import msgspec

RECORD = re.compile(r"(?:(?P<prefix>.+)/)?conda-meta/[^/]+-[^/-]+-[^/-]+\.json")
"""Where one lies in an image, and the environment it is of."""


class Record(msgspec.Struct, frozen=True):
    """What a record says of its package."""

    name: str
    version: str
    build: str = ""
    subdir: str = ""
    channel: str = ""
    fn: str = ""
    license: str | None = None
    depends: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Relative to the environment."""

    @property
    def requires(self) -> tuple[str, ...]:
        """Names of what it asks for, what is no package of a file (__glibc) left out."""
        names = (line.split(maxsplit=1)[0].rpartition("::")[2] for line in self.depends if line.strip())
        return tuple(dict.fromkeys(name for name in names if name and not name.startswith("__")))


def read_record(data: bytes) -> Record | None:
    """Return what a record says, None when it is none."""
    try:
        return msgspec.json.decode(data, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
