"""A bill of materials as values, before it is written in somebody's format.

What is in an image is read from its files; which file it came from, with which hash, and who asked for it, the lock
says. So a lock that is not the image's can add nothing to the bill that is not there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote

import msgspec

from mlbox.codec import key_of
from mlbox.lock.debian.distributions import distribution_of
from mlbox.lock.model import Base, CondaPackage, Deb, Folder, Lock, Package
from mlbox.oci.digest import Digest, hex_of
from mlbox.trust.inventory import Found, Inventory


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """One thing inside an image."""

    kind: Literal["alpine", "conda", "debian", "python", "image"]
    name: str
    version: str
    purl: str
    """Its package URL, which also is its identity in the bill."""
    sha256: str = ""
    """Of the wheel, sdist or .deb it came from (hex)."""
    filename: str = ""
    vcs: str = ""
    """Where its source is, when it was built from a checkout: 'git+https://host/repository@commit#folder'."""
    licenses: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    """The purls of what it needs."""


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What an image is made of, or what one made from a lock will be."""

    name: str
    """The image's name without tag; the project's, of a lock."""
    digest: Digest
    """Of the manifest that the bill is about; of the lock's text."""
    arch: str
    created: str
    """The image's own time, RFC 3339; never that of writing the bill."""
    of_lock: bool = False
    """Whether it says what was locked: nothing of it has been looked at."""
    components: tuple[Component, ...]
    top: tuple[str, ...]
    """The purls of what the image itself asks for: the rest is there because something needs it."""

    unread: tuple[str, ...] = ()
    """Folders and files that tell of packages which are missing here."""

    @property
    def purl(self) -> str:
        """The package URL of what the bill is about."""
        if self.of_lock:
            return package_url("generic", "", self.name, "", {"checksum": self.digest})
        registry, _, short = self.name.rpartition("/")
        # A name without a registry says nothing about where the image is.
        repository = self.name if {".", ":"} & set(registry.partition("/")[0]) else ""
        return package_url("oci", "", short, self.digest, {"arch": self.arch, "repository_url": repository})


def make_bill(inventory: Inventory, lock: Lock | None, *, name: str, digest: Digest, arch: str, created: str) -> Bill:
    """Return the bill of the image whose files make `inventory`; `lock` is the one it was built from, if any."""
    debs = {(deb.name, deb.version): deb for deb in lock.debs} if lock else {}
    packages = {(package.name, package.version): package for package in lock.packages} if lock else {}
    folders = {folder.name: folder for folder in lock.folders} if lock else {}
    conda = {(package.name, package.version): package for package in lock.conda} if lock else {}
    urls: dict[tuple[str, str], str] = {}
    for found in inventory.packages:
        known = conda.get((found.name, found.version)) if found.kind == "conda" else None
        url = conda_url(known) if known else _purl(found, inventory)
        if found.kind == "python" and found.name in folders:
            url = folder_url(folders[found.name], found.version)
        urls.setdefault((found.kind, found.name), url)
    parts = [
        _component(found, inventory, debs.get(key), packages.get(key) or folders.get(key[0]), conda.get(key), urls)
        for found in inventory.packages
        for key in [(found.name, found.version)]
    ]
    if lock and lock.base.kind == "image":
        parts.append(_base(lock.base, arch))
    components = tuple({part.purl: part for part in parts}.values())
    return Bill(
        name=name,
        digest=digest,
        arch=arch,
        created=created,
        components=components,
        top=_top(components, lock),
        unread=inventory.unread,
    )


def bill_of_lock(lock: Lock, *, name: str) -> Bill:
    """Return the bill of what `lock` pins; licences, and what a base image holds, only an image's bill knows."""
    urls = {package.name: python_url(package) for package in lock.packages}
    urls |= {folder.name: folder_url(folder) for folder in lock.folders}
    parts = [
        *(_base(lock.base, lock.target.arch) for _ in range(lock.base.kind == "image")),
        *(_locked_deb(deb) for deb in lock.debs),
        *_locked_conda(lock.conda),
        *(_locked_package(package, urls) for package in lock.packages),
        *(_locked_folder(folder, urls) for folder in lock.folders),
    ]
    components = tuple({part.purl: part for part in parts}.values())
    return Bill(
        name=name,
        digest=Digest(f"sha256:{key_of(lock)}"),
        arch=lock.target.arch,
        created=datetime.fromtimestamp(lock.epoch, UTC).isoformat(),
        components=components,
        top=_top(components, lock),
        of_lock=True,
    )


def package_url(kind: str, namespace: str, name: str, version: str, qualifiers: Mapping[str, str]) -> str:
    """Return a package URL (package-url/purl-spec): 'pkg:deb/debian/bash@5.2-1?arch=amd64'."""
    space = f"{quote(namespace, safe='')}/" if namespace else ""
    told = "&".join(f"{key}={quote(value, safe=':/')}" for key, value in sorted(qualifiers.items()) if value)
    at = f"@{quote(version, safe=':')}" if version else ""
    return f"pkg:{kind}/{space}{quote(name, safe='')}{at}{'?' + told if told else ''}"


def python_url(package: Package) -> str:
    """Return the package URL of a locked Python package."""
    told = {"vcs_url": _vcs(package)} if package.commit else {}
    return package_url("pypi", "", package.name, package.version, told)


def folder_url(folder: Folder, version: str = "") -> str:
    """Return the package URL of a folder of the project, which is no package of an index that is called so."""
    return package_url("generic", "", folder.name, version, {})


def deb_url(deb: Deb, distribution: str = "debian") -> str:
    """Return the package URL of a locked Debian package; one of another archive is not the distribution's."""
    return package_url("deb", deb.source or distribution, deb.name, deb.version, {"arch": deb.arch})


def base_url(base: Base, arch: str) -> str:
    """Return the package URL of an image that another stands on."""
    repository = base.reference.partition("@")[0].rpartition(":")[0] or base.reference
    told = {"arch": arch, "repository_url": repository}
    return package_url("oci", "", repository.rpartition("/")[2], base.manifest or base.digest, told)


def conda_url(package: CondaPackage) -> str:
    """Return the package URL of a locked conda package."""
    kind = "conda" if package.filename.endswith(".conda") else "tar.bz2"
    told = {"build": package.build, "channel": package.channel, "subdir": package.subdir, "type": kind}
    return package_url("conda", "", package.name, package.version, told)


def _component(
    found: Found,
    inventory: Inventory,
    deb: Deb | None,
    package: Package | Folder | None,
    conda: CondaPackage | None,
    urls: Mapping[tuple[str, str], str],
) -> Component:
    wanted = package.requires if package and found.kind == "python" else found.requires
    requires = {urls[found.kind, name] for name in wanted if (found.kind, name) in urls}
    plain = Component(
        kind=found.kind,
        name=found.name,
        version=found.version,
        purl=_purl(found, inventory),
        licenses=found.licenses,
        requires=tuple(sorted(requires)),
    )
    if found.kind == "conda" and conda:
        return msgspec.structs.replace(plain, purl=conda_url(conda), sha256=conda.sha256, filename=conda.filename)
    if found.kind == "debian" and deb:
        return msgspec.structs.replace(plain, sha256=deb.sha256, filename=deb.path.rpartition("/")[2])
    if isinstance(package, Folder) and found.kind == "python":
        url = folder_url(package, found.version)
        return msgspec.structs.replace(plain, purl=url, filename=f"./{package.path}")
    if isinstance(package, Package) and found.kind == "python":
        return msgspec.structs.replace(
            plain, sha256=package.sha256, filename=package.filename, vcs=_vcs(package) if package.commit else ""
        )
    return plain


def _purl(found: Found, inventory: Inventory) -> str:
    if found.kind == "python":
        return package_url("pypi", "", found.name, found.version, {})
    if found.kind == "conda":
        told = {"build": found.build, "channel": found.channel, "subdir": found.arch}
        return package_url("conda", "", found.name, found.version, told)
    distribution = inventory.distribution or found.kind
    release = f"{distribution}-{inventory.release}" if inventory.release else ""
    told = {"arch": found.arch, "distro": release, "upstream": found.source}
    kind = "apk" if found.kind == "alpine" else "deb"
    return package_url(kind, distribution, found.name, found.version, told)


def _locked_deb(deb: Deb) -> Component:
    return Component(
        kind="debian",
        name=deb.name,
        version=deb.version,
        purl=deb_url(deb, distribution_of(deb.suite).id),
        sha256=deb.sha256,
        filename=deb.path.rpartition("/")[2],
    )


def _locked_conda(packages: Sequence[CondaPackage]) -> Iterator[Component]:
    urls = {package.name: conda_url(package) for package in packages}
    for one in packages:
        yield Component(
            kind="conda",
            name=one.name,
            version=one.version,
            purl=urls[one.name],
            sha256=one.sha256,
            filename=one.filename,
            requires=tuple(sorted(urls[name] for name in one.requires if name in urls)),
        )


def _locked_package(package: Package, urls: Mapping[str, str]) -> Component:
    return Component(
        kind="python",
        name=package.name,
        version=package.version,
        purl=urls[package.name],
        sha256=package.sha256,
        filename=package.filename,
        vcs=_vcs(package) if package.commit else "",
        requires=tuple(sorted(urls[name] for name in package.requires if name in urls)),
    )


def _locked_folder(folder: Folder, urls: Mapping[str, str]) -> Component:
    return Component(
        kind="python",
        name=folder.name,
        version="",
        purl=urls[folder.name],
        filename=f"./{folder.path}",
        requires=tuple(sorted(urls[name] for name in folder.requires if name in urls)),
    )


def _base(base: Base, arch: str) -> Component:
    digest = base.manifest or base.digest
    return Component(
        kind="image",
        name=base.reference,
        version=digest,
        purl=base_url(base, arch),
        sha256=hex_of(digest),
    )


def _vcs(package: Package) -> str:
    folder = f"#{package.subdirectory}" if package.subdirectory else ""
    return f"git+{package.url.removeprefix('git+')}@{package.commit}{folder}"


def _top(components: Iterable[Component], lock: Lock | None) -> tuple[str, ...]:
    """Return what the project asks for, and what nothing else needs."""
    parts = tuple(components)
    needed = {purl for part in parts for purl in part.requires}
    asked = {package.name for package in lock.packages if package.wanted_by} if lock else set()
    asked |= {folder.name for folder in lock.folders if folder.wanted_by} if lock else set()
    asked |= {package.name for package in lock.conda if package.wanted_by} if lock else set()
    asked |= set(lock.system_packages) if lock else set()
    return tuple(sorted(part.purl for part in parts if part.purl not in needed or part.name in asked))
