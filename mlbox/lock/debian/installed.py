"""Debian packages on top of an image that has some: what dpkg knows of it counts, and is kept where possible."""

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from mlbox.errors import LockError
from mlbox.lock.debian.closure import Archive
from mlbox.lock.debian.packages import Candidate, Packages, flat, groups
from mlbox.lock.debian.version import version_key

_FIELD = re.compile(r"^([A-Za-z0-9-]+):[ \t]*(.*)$", re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION = re.compile(r"[0-9A-Za-z.+:~-]+")
_PLACE = "the base"


def read_status(data: bytes, arch: str) -> dict[str, Candidate]:
    """Return the installed packages of dpkg's status file by name; those of another machine do not count.

    Raises LockError when a stanza makes no sense.
    """
    found = {}
    for stanza in data.decode("utf-8", "replace").split("\n\n"):
        fields: dict[str, str] = dict(_FIELD.findall(stanza))
        if fields.get("Status", "").endswith(" installed") and fields.get("Architecture") in (arch, "all"):
            found[fields["Package"]] = _candidate(fields)
    return found


def _candidate(fields: Mapping[str, str]) -> Candidate:
    try:
        if not (_NAME.fullmatch(fields["Package"]) and _VERSION.fullmatch(fields["Version"])):
            raise ValueError("not a name and a version")
        return Candidate(
            name=fields["Package"],
            version=fields["Version"],
            arch=fields["Architecture"],
            path="",
            sha256="",
            size=0,
            suite=_PLACE,
            depends=(*groups(fields.get("Pre-Depends", "")), *groups(fields.get("Depends", ""))),
            provides=flat(fields.get("Provides", "")),
            conflicts=(*flat(fields.get("Conflicts", "")), *flat(fields.get("Breaks", ""))),
        )
    except (KeyError, ValueError) as problem:
        name = ascii(fields.get("Package", "?"))[:80]
        raise LockError(f"dpkg's status in the base describes the package {name} badly: {problem}") from problem


class Move(msgspec.Struct, frozen=True):
    """An installed package that gives way to a newer version."""

    name: str
    old: str
    new: str


class Ground(Archive):
    """An archive under packages that are installed: their versions are preferred, and are let go of only for newer.

    They are never let go of when they are not `movable`.
    """

    def __init__(
        self,
        suites: Sequence[Packages],
        locked: Mapping[str, str],
        installed: Mapping[str, Candidate],
        *,
        movable: bool = True,
    ) -> None:
        super().__init__(suites, locked)
        self._movable = movable
        self._installed = dict(installed)
        self._all = installed

    def best(self, name: str) -> Candidate | None:
        """Return the installed version of the package `name`, else what the archive prefers."""
        return self._installed.get(name) or super().best(name)

    def unlock(self, names: Sequence[str]) -> bool:
        """Let go of locked versions of the packages `names`, else of installed ones that the archive has newer."""
        if super().unlock(names):
            return True
        moving = [name for name in names if self._newer(name)]
        for name in moving:
            del self._installed[name]
        return bool(moving)

    def _newer(self, name: str) -> bool:
        here, there = self._installed.get(name), super().best(name)
        return self._movable and bool(here and there and version_key(there.version) > version_key(here.version))

    def moves(self, selected: Mapping[str, Candidate]) -> Iterator[Move]:
        """Yield the installed packages that `selected` has in another version, sorted."""
        for name, old in sorted(self._all.items()):
            new = selected.get(name)
            if new is not None and new.version != old.version:
                yield Move(name, old.version, new.version)
