"""The package databases inside an image: dpkg's, conda's and the dist-info folders. Pure: a parameter reads files."""

import csv
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from mlbox.lock.conda.meta import RECORD, read_record
from mlbox.project.requirement import normalize

OwnerKind = Literal["python", "conda", "debian", "project", "image"]
PACKAGES: frozenset[OwnerKind] = frozenset(("python", "conda", "debian"))
"""Those of them that are packages."""
Read = Callable[[str], bytes]
"""The content of a file of the image; the empty bytes when it is too large to be what it should be."""

_INFO = "var/lib/dpkg/info"
_STATUS = "var/lib/dpkg/status"
_LISTING = re.compile(rf"{_INFO}/([a-z0-9][a-z0-9+.-]*)(:[a-z0-9-]+)?\.list")
_METADATA = re.compile(r"(.+)/([^/]+)\.dist-info/METADATA")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PYC = re.compile(r"(.*/)?__pycache__/([^/]+?)\.[a-z]+-[0-9]+(?:\.opt-[0-9])?\.pyc")


class Owner(msgspec.Struct, frozen=True, order=True):
    """What a file of an image belongs to."""

    kind: OwnerKind
    """'image' is what no package brought: files made while the image was put together."""
    name: str
    version: str = ""

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return f"{self.name} {self.version}".strip()


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """One package as the image itself describes it."""

    owner: Owner
    requires: tuple[str, ...] = ()
    """Names of the installed packages that it asks for."""
    essential: bool = False
    """Of Debian packages: whether every Debian system has it."""


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that package databases say about the files of an image."""

    packages: tuple[Installed, ...] = ()
    """Sorted by owner."""
    files: dict[str, Owner] = {}
    """By path; directories, which have many owners, may be among them and mean nothing."""

    def owner(self, path: str) -> Owner | None:
        """Return whose file lies at `path`; byte code belongs to whoever has the source."""
        found = self.files.get(path)
        if found is None and path.endswith(".pyc") and (source := _PYC.fullmatch(path)):
            found = self.files.get(f"{source[1] or ''}{source[2]}.py")
        return found


def read_database(paths: Iterable[str], read: Read, aliases: Mapping[str, str]) -> Database:
    """Read the databases among `paths`; `aliases` are the folders of '/' that are links: {'bin': 'usr/bin'}."""
    listings, metadata, records, status = [], [], [], False
    for path in paths:
        if path.endswith(".list") and (found := _LISTING.fullmatch(path)):
            listings.append((path, found[1]))
        elif path.endswith(".dist-info/METADATA") and (found := _METADATA.fullmatch(path)):
            metadata.append((path, found[1]))
        elif path.endswith(".json") and (found := RECORD.fullmatch(path)):
            records.append((path, found["prefix"] or ""))
        status = status or path == _STATUS
    debian = tuple(_dpkg(read(_STATUS).decode("utf-8", "replace"))) if status else ()
    versions = {package.owner.name: package.owner for package in debian}
    files: dict[str, Owner] = {}
    for path, name in listings:
        owner = versions.get(name) or Owner("debian", name)
        files.update(dict.fromkeys(_listed(read(path), path, aliases), owner))
    conda = tuple(_linked(list(_conda(records, read, files))))
    own = [(path, site) for path, site in metadata if path not in files]
    python = _linked([_distribution(path, site, read, files) for path, site in own])
    return Database(packages=tuple(sorted((*debian, *conda, *python), key=lambda one: one.owner)), files=files)


def _listed(data: bytes, path: str, aliases: Mapping[str, str]) -> Iterator[str]:
    """Yield the paths that dpkg's list of a package names, and the list itself with what lies beside it."""
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        name = line.lstrip("/")
        top, slash, rest = name.partition("/")
        yield f"{aliases[top]}/{rest}" if slash and top in aliases else name
    stem = path.removesuffix(".list")
    for kind in ("list", "md5sums", "control", "conffiles", "triggers", "symbols", "shlibs", "templates", "config"):
        yield f"{stem}.{kind}"
    for script in ("preinst", "postinst", "prerm", "postrm"):
        yield f"{stem}.{script}"


def _dpkg(status: str) -> Iterator[Installed]:
    """Yield the packages of a dpkg status file, their dependencies settled among themselves."""
    stanzas = [fields for text in status.split("\n\n") if "Package" in (fields := _fields(text))]
    offered = {name: fields["Package"] for fields in stanzas for name in _names(fields.get("Provides", ""))}
    offered |= {fields["Package"]: fields["Package"] for fields in stanzas}
    for fields in stanzas:
        wanted = ", ".join(filter(None, (fields.get("Pre-Depends", ""), fields.get("Depends", ""))))
        chosen = (
            next((offered[name] for name in _names(group.replace("|", ",")) if name in offered), "")
            for group in wanted.split(",")
        )
        owner = Owner("debian", fields["Package"], fields.get("Version", ""))
        requires = tuple(sorted({name for name in chosen if name} - {owner.name}))
        yield Installed(owner=owner, requires=requires, essential=fields.get("Essential") == "yes")


def _fields(stanza: str) -> dict[str, str]:
    lines = (line.partition(":") for line in stanza.splitlines() if line[:1] not in (" ", "\t", ""))
    return {name: value.strip() for name, _, value in lines}


def _names(relation: str) -> list[str]:
    """Return the package names of a Debian relationship field, without versions and architectures."""
    return [word for part in relation.split(",") if (word := re.split(r"[\s(:\[<]", part.strip(), maxsplit=1)[0])]


def _distribution(path: str, site: str, read: Read, files: dict[str, Owner]) -> Installed:
    """Return the Python package whose METADATA is `path`, and enter its RECORD into `files`."""
    folder = path.removesuffix("/METADATA")
    head = read(path).decode("utf-8", "replace").replace("\r\n", "\n").partition("\n\n")[0]
    fields = _fields(head)
    stem = posixpath.basename(folder).removesuffix(".dist-info")
    owner = Owner("python", normalize(fields.get("Name", stem.partition("-")[0])), fields.get("Version", ""))
    files.update(dict.fromkeys(_recorded(read(f"{folder}/RECORD"), site), owner))
    for name in ("METADATA", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "WHEEL"):
        files.setdefault(f"{folder}/{name}", owner)
    return Installed(owner=owner, requires=tuple(_requires(head)))


def _recorded(data: bytes, site: str) -> Iterator[str]:
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        name = _quoted(line) if line.startswith('"') else line.rsplit(",", 2)[0]
        if name.startswith("/"):
            yield name.lstrip("/")
        elif ".." in name:
            yield posixpath.normpath(f"{site}/{name}")
        elif name:
            yield f"{site}/{name}"


def _quoted(line: str) -> str:
    try:
        return next(iter(next(csv.reader([line]))), "")
    except csv.Error:
        return ""  # longer than any path


def _requires(head: str) -> Iterator[str]:
    for line in head.splitlines():
        key, _, value = line.partition(":")
        requirement, _, marker = value.partition(";")
        # An extra's requirements are asked for by whoever asks for the extra.
        if key.lower() == "requires-dist" and "extra" not in marker and (name := _NAME.match(requirement.strip())):
            yield normalize(name[0])


def _conda(records: Iterable[tuple[str, str]], read: Read, files: dict[str, Owner]) -> Iterator[Installed]:
    """Yield conda's packages, and enter what their records list into `files`."""
    for path, prefix in records:
        record = read_record(read(path))
        if record is not None:
            owner = Owner("conda", record.name, record.version)
            files.update(dict.fromkeys((posixpath.normpath(f"{prefix}/{file}") for file in record.files), owner))
            files[path] = owner
            yield Installed(owner=owner, requires=record.requires)


def _linked(packages: list[Installed]) -> Iterator[Installed]:
    known = {package.owner.name for package in packages}
    for package in packages:
        requires = sorted(known.intersection(package.requires) - {package.owner.name})
        yield Installed(owner=package.owner, requires=tuple(requires))
