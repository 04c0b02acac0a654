"""Packages indexes: found by name without parsing 60,000 stanzas."""

import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from mlbox.codec import canonical_json
from mlbox.errors import LockError
from mlbox.files import write_atomic
from mlbox.lock.debian.distributions import distribution_of

_PACKAGE = re.compile(rb"(?:\A|\n\n)Package: ([^\n]+)")
_PROVIDES = re.compile(rb"\nProvides: ([^\n]+)")
_ESSENTIAL = re.compile(rb"\nEssential: yes")
_FIELD = re.compile(r"^([A-Za-z0-9-]+):[ \t]*(.*)$", re.MULTILINE)
_RELATION = re.compile(r"\s*([^\s(:|]+)(?::[a-z0-9-]+)?\s*(?:\(\s*([<>=]+)\s*([^\s)]+)\s*\))?\s*")
_FORM = {
    "Package": re.compile(r"[a-z0-9][a-z0-9+.-]+"),
    "Version": re.compile(r"[0-9A-Za-z.+:~-]+"),
    "Architecture": re.compile(r"[a-z0-9][a-z0-9-]*"),
    # What is neither a blank, nor a backslash, nor begins the query or the fragment of a URL.
    "Filename": re.compile(r"(?!/)(?!(?:.*/)?\.\.(?:/|$))[!\"$->@-\[\]-~]+"),
    "SHA256": re.compile(r"[0-9a-f]{64}"),
    "Size": re.compile(r"[0-9]{1,12}"),
}
"""What a stanza must have, and what of it becomes a name, a path or a number."""
_PRIORITIES = {"required": 0, "important": 1, "standard": 2, "optional": 3}
_STANZA_LIMIT = 1 << 20


class Relation(msgspec.Struct, frozen=True, array_like=True):
    """A package, real or virtual, and the versions of it that will do."""

    name: str
    operator: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.operator} {self.version})" if self.operator else self.name


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a package that a suite offers.

    How far an update of Ubuntu's is phased (Phased-Update-Percentage) is not read: apt takes the newest version of
    what is not installed yet, and of everything where there is no machine-id, as in an image. It would also make two
    locks of the same archive differ by the machine they were made on.
    """

    name: str
    version: str
    arch: str
    path: str
    sha256: str
    size: int
    suite: str
    source: str = ""
    """Name of the project's source of packages; empty for the release's own archive."""
    essential: bool = False
    priority: int = 3
    depends: tuple[tuple[Relation, ...], ...] = ()
    """Every group needs one of its alternatives; Pre-Depends first."""
    provides: tuple[Relation, ...] = ()
    conflicts: tuple[Relation, ...] = ()
    """Conflicts and Breaks."""


class _Offsets(msgspec.Struct, frozen=True, array_like=True):
    names: dict[str, list[int]]
    provides: dict[str, list[int]]
    essential: list[int]


class Packages:
    """The Packages file of one suite, at `path`; its table of contents is kept beside it.

    One of a folder may list packages for many machines: with an `arch` only those for it are there.
    """

    def __init__(self, path: Path, suite: str, source: str = "", arch: str = "") -> None:
        self.suite = suite
        self.source = source
        self._archs = ("all", arch) if arch else ()
        with path.open("rb") as file:
            empty = path.stat().st_size == 0
            self._data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._offsets = _load_offsets(path, self._data)
        self._parsed: dict[int, Candidate] = {}

    def named(self, name: str) -> list[Candidate]:
        """Return every version of the package `name`."""
        return self._at(self._offsets.names.get(name, ()))

    def providing(self, name: str) -> list[Candidate]:
        """Return every package that provides the virtual package `name`."""
        return self._at(self._offsets.provides.get(name, ()))

    def essential(self) -> list[Candidate]:
        """Return every package that is called essential."""
        return self._at(self._offsets.essential)

    def names(self) -> Iterable[str]:
        """Return the names of all packages."""
        return self._offsets.names

    def _at(self, offsets: Iterable[int]) -> list[Candidate]:
        found = (self._candidate(offset) for offset in offsets)
        return [one for one in found if not self._archs or one.arch in self._archs]

    def _candidate(self, offset: int) -> Candidate:
        if offset not in self._parsed:
            end = self._data.find(b"\n\n", offset, offset + _STANZA_LIMIT)
            stanza = self._data[offset : end if end != -1 else offset + _STANZA_LIMIT]
            self._parsed[offset] = parse_candidate(bytes(stanza).decode("utf-8", "replace"), self.suite, self.source)
        return self._parsed[offset]


def parse_candidate(stanza: str, suite: str, source: str = "") -> Candidate:
    """Return what one stanza of a Packages file says; raises LockError when a field is missing or impossible."""
    fields: dict[str, str] = dict(_FIELD.findall(stanza))
    try:
        for field, form in _FORM.items():
            if not form.fullmatch(fields[field]):
                raise ValueError(f"{field} cannot be {ascii(fields[field])[:100]}")
        return Candidate(
            name=fields["Package"],
            version=fields["Version"],
            arch=fields["Architecture"],
            path=fields["Filename"].removeprefix("./"),
            sha256=fields["SHA256"],
            size=int(fields["Size"]),
            suite=suite,
            source=source,
            essential=fields.get("Essential") == "yes",
            priority=_PRIORITIES.get(fields.get("Priority", ""), 4),
            depends=(*groups(fields.get("Pre-Depends", "")), *groups(fields.get("Depends", ""))),
            provides=flat(fields.get("Provides", "")),
            conflicts=(*flat(fields.get("Conflicts", "")), *flat(fields.get("Breaks", ""))),
        )
    except (KeyError, ValueError) as problem:
        index = f"the index of {source or distribution_of(suite).name} {suite}"
        name = ascii(fields.get("Package", "?")).strip("'")[:80]
        raise LockError(f"{index} describes the package {name} badly: {problem}") from problem


def groups(text: str) -> Iterator[tuple[Relation, ...]]:
    """Yield the groups of alternatives of a dependency field."""
    for group in text.split(","):
        relations = tuple(_relation(part) for part in group.split("|") if part.strip())
        if relations:
            yield relations


def flat(text: str) -> tuple[Relation, ...]:
    """Return the relations of a field that has no alternatives."""
    return tuple(relation for group in groups(text) for relation in group)


def _relation(text: str) -> Relation:
    match = _RELATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a relation: {text[:100]!r}")
    return Relation(match[1], match[2] or "", match[3] or "")


def _load_offsets(path: Path, data: "bytes | mmap.mmap") -> _Offsets:
    table = path.with_name(path.name + ".index")
    try:
        return msgspec.json.decode(table.read_bytes(), type=_Offsets)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        offsets = _scan(data)
    write_atomic(table, canonical_json(offsets))
    return offsets


def _scan(data: "bytes | mmap.mmap") -> _Offsets:
    names: dict[str, list[int]] = {}
    starts: list[int] = []
    for match in _PACKAGE.finditer(data):
        start = match.start(1) - len("Package: ")
        starts.append(start)
        names.setdefault(match[1].decode("utf-8", "replace").strip(), []).append(start)
    provides: dict[str, list[int]] = {}
    for start, match in _inside(starts, _PROVIDES.finditer(data)):
        for virtual in re.findall(r"(?:^|,)\s*([^\s(:,]+)", match[1].decode("utf-8", "replace")):
            provides.setdefault(virtual, []).append(start)
    return _Offsets(names, provides, [start for start, _ in _inside(starts, _ESSENTIAL.finditer(data))])


def _inside(starts: list[int], matches: "Iterable[re.Match[bytes]]") -> Iterator[tuple[int, "re.Match[bytes]"]]:
    # Both ascend, so one walk tells in which stanza each match lies.
    position = 0
    for match in matches:
        while position + 1 < len(starts) and starts[position + 1] <= match.start():
            position += 1
        if starts:
            yield starts[position], match
