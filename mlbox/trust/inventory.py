"""What an image holds, read from its files: Debian, Alpine and conda packages, and Python distributions.

Files are asked for by path through two values, so this is the same for a store, a folder or a test.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from email import message_from_bytes
from email.message import Message
from typing import Literal, NamedTuple

import msgspec

from mlbox.lock.conda.meta import RECORD, read_record

Read = Callable[[str], bytes]
"""Returns the content of a file by its path without leading slash."""

_APK = "lib/apk/db/installed"
_UNREAD = ("var/lib/rpm/", "usr/lib/sysimage/rpm/")
"""Where other package managers keep what they know, which is not read here."""
_STATUS = "var/lib/dpkg/status"
_STATUS_FOLDER = "var/lib/dpkg/status.d/"
_RELEASES = ("etc/os-release", "usr/lib/os-release")
_OF_DEBIAN = "usr/lib/python3/dist-packages/"
_METADATA = re.compile(r"(?:^|/)[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)$")
_FIELD = re.compile(r"^([A-Za-z0-9-]+):[ \t]*(.*)$", re.MULTILINE)
_VERSION = re.compile(r"\s*\(.*?\)")
_APK_NAME = re.compile(r"[<>=~]")
_MIT_LIKE = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""Trove classifiers that mean one licence."""


class Found(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One package of an image."""

    kind: Literal["alpine", "conda", "debian", "python"]
    name: str
    """Normalised (PEP 503) for Python."""
    version: str
    arch: str = ""
    source: str = ""
    """Debian, Alpine: the source package where its name differs, with its version where that does: 'gcc@4:12.2'."""
    build: str = ""
    """conda: the build string."""
    channel: str = ""
    """conda: name of the channel."""
    licenses: tuple[str, ...] = ()
    """As the package says it; a single SPDX expression where it says one."""
    requires: tuple[str, ...] = ()
    """Names of what it asks for, of its own kind; what is not installed included."""


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """All packages of an image."""

    distribution: str = ""
    """ID of os-release: 'debian'."""
    release: str = ""
    """VERSION_ID of os-release: '13'."""
    packages: tuple[Found, ...] = ()
    """Sorted."""
    unread: tuple[str, ...] = ()
    """Folders of package managers, and files that describe a package without its name, that are not among them."""


def read_inventory(paths: Iterable[str], read: Read) -> Inventory:
    """Return what the image that has `paths` holds; `read` is asked for a few of them only."""
    known = set(paths)
    release = dict(_release(next((read(path) for path in _RELEASES if path in known), b"")))
    conda = list(_conda(known, read))
    # Distributions that a conda package has are that package.
    brought = {path for one in conda if isinstance(one, _Conda) for path in one.files}
    found = {*_debian(known, read), *_alpine(known, read), *_python(known - brought, read)}
    found |= {one.found if isinstance(one, _Conda) else one for one in conda}
    folders = (folder for folder in _UNREAD if any(path.startswith(folder) for path in known))
    return Inventory(
        distribution=release.get("ID", ""),
        release=release.get("VERSION_ID", ""),
        packages=tuple(sorted(one for one in found if isinstance(one, Found))),
        unread=(*folders, *sorted(one for one in found if isinstance(one, str))),
    )


def _release(data: bytes) -> Iterator[tuple[str, str]]:
    for line in data.decode("utf-8", "replace").splitlines():
        key, equals, value = line.partition("=")
        if equals:
            yield key, value.strip("\"' ")


def _is_name(text: str) -> bool:
    """Whether a package can be called so: a package URL drops slashes at the ends, and has to have a name."""
    return bool(text.strip("/"))


def _debian(paths: set[str], read: Read) -> Iterator[Found | str]:
    files = [_STATUS] if _STATUS in paths else []
    files += sorted(path for path in paths if path.startswith(_STATUS_FOLDER) and not path.endswith(".md5sums"))
    for path in files:
        for stanza in read(path).decode("utf-8", "replace").split("\n\n"):
            fields: dict[str, str] = dict(_FIELD.findall(stanza))
            # Files of status.d, which images without dpkg have, say no state: what is there is installed.
            if fields.get("Package") and fields.get("Status", "installed").endswith("installed"):
                copyright_file = f"usr/share/doc/{fields['Package']}/copyright"
                notes = read(copyright_file) if copyright_file in paths else b""
                yield _deb(fields, tuple(_debian_licenses(notes))) if _is_name(fields["Package"]) else path


def _deb(fields: dict[str, str], licenses: tuple[str, ...]) -> Found:
    name, version = fields["Package"], fields.get("Version", "")
    source, _, source_version = fields.get("Source", name).partition(" ")
    origin = f"{source}@{source_version.strip('()')}" if source_version else source
    wanted = [*fields.get("Pre-Depends", "").split(","), *fields.get("Depends", "").split(",")]
    return Found(
        kind="debian",
        name=name,
        version=version,
        arch=fields.get("Architecture", ""),
        source="" if origin == name else origin,
        licenses=licenses,
        # The first of several alternatives is the one that Debian means to be installed.
        requires=tuple(dict.fromkeys(_alone(group) for group in wanted if group.strip())),
    )


def _alone(group: str) -> str:
    return _VERSION.sub("", group.partition("|")[0]).strip().partition(":")[0]


def _debian_licenses(notes: bytes) -> list[str]:
    """Return the short names of a machine-readable copyright file (DEP 5), sorted; empty for any other."""
    text = notes.decode("utf-8", "replace")
    if not text.startswith("Format:"):
        return []
    names = {value.strip() for key, value in _FIELD.findall(text) if key == "License" and value.strip()}
    return sorted(names)


def _alpine(paths: set[str], read: Read) -> Iterator[Found | str]:
    data = read(_APK).decode("utf-8", "replace") if _APK in paths else ""
    for stanza in data.split("\n\n"):
        lines = [line.partition(":") for line in stanza.splitlines()]
        fields = {key: value.strip() for key, colon, value in lines if colon}
        if fields.get("P") and not _is_name(fields["P"]):
            yield _APK
        elif fields.get("P"):
            origin = fields.get("o", "")
            license_ = spdx_expression(fields.get("L", "")) or fields.get("L", "")
            yield Found(
                kind="alpine",
                name=fields["P"],
                version=fields.get("V", ""),
                arch=fields.get("A", ""),
                source="" if origin == fields["P"] else origin,
                licenses=(license_,) if license_ else (),
                # Libraries and commands are asked for by what provides them ('so:libc.musl'); names alone are packages.
                requires=tuple(dict.fromkeys(_APK_NAME.split(one)[0] for one in fields.get("D", "").split())),
            )


class _Conda(NamedTuple):
    found: Found
    files: tuple[str, ...]


def _conda(paths: set[str], read: Read) -> Iterator[_Conda | str]:
    for path in sorted(paths):
        match = RECORD.fullmatch(path) if path.endswith(".json") else None
        if not match:
            continue
        record = read_record(read(path))
        if not record or not _is_name(record.name):
            yield path
        else:
            found = Found(
                kind="conda",
                name=record.name,
                version=record.version,
                arch=record.subdir,
                build=record.build,
                channel=record.channel,
                licenses=(spdx_expression(record.license) or record.license,) if record.license else (),
                requires=record.requires,
            )
            prefix = f"{match['prefix']}/" if match["prefix"] else ""
            yield _Conda(found, tuple(prefix + file for file in record.files))


def _python(paths: set[str], read: Read) -> Iterator[Found | str]:
    for path in sorted(paths):
        if path.startswith(_OF_DEBIAN) or not _METADATA.search(path):
            continue  # the first are part of a Debian package, which is listed
        message = message_from_bytes(read(path).partition(b"\n\n")[0])
        name, version = str(message["Name"] or ""), str(message["Version"] or "")
        if not _is_name(name) or not version:
            yield path
        else:
            yield Found(
                kind="python",
                name=_normalised(name),
                version=version.strip(),
                licenses=_python_licenses(message),
                requires=tuple(_required(message)),
            )


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _python_licenses(message: Message) -> tuple[str, ...]:
    said = [str(message[key] or "").strip() for key in ("License-Expression", "License")]
    for text in said:
        if expression := spdx_expression(text):
            return (expression,)
    ending = [str(value).rpartition("::")[2].strip() for value in _all(message, "Classifier") if "License ::" in value]
    names = [_MIT_LIKE.get(name, name) for name in ending]
    free = said[1] if said[1] and len(said[1]) < 100 and "\n" not in said[1] else ""
    return tuple(dict.fromkeys(names)) or ((free,) if free else ())


def spdx_expression(text: str) -> str:
    """Return `text` as an SPDX expression in its one spelling; empty when it is none."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    if not text or len(text) > 200:
        return ""
    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return ""


def _required(message: Message) -> Iterator[str]:
    from packaging.requirements import InvalidRequirement, Requirement

    for text in _all(message, "Requires-Dist"):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or "extra" not in str(requirement.marker):
            yield _normalised(requirement.name)


def _all(message: Message, key: str) -> Sequence[str]:
    return [str(value) for value in message.get_all(key) or ()]
