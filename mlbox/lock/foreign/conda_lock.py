"""conda-lock.yml (version 1): what `conda-lock install` would install."""

from collections.abc import Iterator

import msgspec

from mlbox.errors import LockError
from mlbox.lock.conda.model import PinnedConda, pinned
from mlbox.lock.foreign.documents import read_yaml
from mlbox.lock.foreign.model import Imported, Selection
from mlbox.lock.foreign.pip import pinned_from_url
from mlbox.lock.model import SUBDIRS
from mlbox.lock.python.model import Pinned
from mlbox.project.requirement import normalize

_WHAT = "conda-lock.yml"


class _Hash(msgspec.Struct, frozen=True):
    md5: str | None = None
    sha256: str | None = None


class _Package(msgspec.Struct, frozen=True):
    name: str
    version: str
    manager: str
    platform: str
    url: str
    hash: _Hash = _Hash()
    dependencies: dict[str, str | None] = {}
    category: str = "main"
    optional: bool = False
    source: dict[str, str | None] | None = None


class _Metadata(msgspec.Struct, frozen=True):
    platforms: tuple[str, ...]


class _Lock(msgspec.Struct, frozen=True):
    version: int
    metadata: _Metadata
    package: tuple[_Package, ...]


def read_conda_lock(data: bytes, selection: Selection, *, local: bool = False) -> Imported:
    """Return the packages for the target: the category 'main' and those that the extras and groups name.

    `local` lets wheels lie in a folder of this machine, as they do where the index is one.
    """
    lock = read_yaml(data, _Lock, what=_WHAT)
    if lock.version != 1:
        raise LockError(f"{_WHAT}: version {lock.version}, and only 1 is known", hint="lock again with conda-lock")
    platform = SUBDIRS[selection.target.arch]
    if platform not in lock.metadata.platforms:
        raise LockError(
            f"{_WHAT} is for {', '.join(lock.metadata.platforms) or 'no platform'}, not for {platform}",
            hint=f"conda-lock lock --platform {platform}",
        )
    here = [one for one in lock.package if one.platform == platform]
    wanted = {"main", *selection.extras, *selection.groups}
    taken = [one for one in here if normalize(one.category) in wanted]
    return Imported(
        conda=tuple(sorted(_conda(taken), key=lambda one: one.package.name)),
        pins=tuple(sorted(_pip(taken, local), key=lambda one: one.name)),
        notes=tuple(_left_out(here, wanted)),
    )


def _left_out(here: list[_Package], wanted: set[str]) -> Iterator[str]:
    others = [one.category for one in here if normalize(one.category) not in wanted]
    for category in sorted(set(others)):
        count = others.count(category)
        yield f"{_WHAT}: {count} packages of category {category!r} are left out; groups = [{category!r}] takes them"


def _conda(taken: list[_Package]) -> Iterator[PinnedConda]:
    names = {one.name for one in taken if one.manager == "conda"}
    for one in _once([one for one in taken if one.manager == "conda"]):
        found = pinned(
            one.url,
            sha256=one.hash.sha256 or "",
            md5=one.hash.md5 or "",
            requires=names & one.dependencies.keys(),
        )
        if (found.package.name, found.package.version) != (one.name, one.version):
            raise LockError(f"{_WHAT}: {one.name} {one.version} is {found.package.filename}, which is another package")
        yield found


def _pip(taken: list[_Package], local: bool) -> Iterator[Pinned]:
    pip = [one for one in taken if one.manager == "pip"]
    names = {normalize(one.name) for one in pip}
    for one in _once(pip):
        yield pinned_from_url(
            one.name,
            one.version,
            one.url,
            sha256=one.hash.sha256 or "",
            direct=one.source is not None,
            local=local,
            requires=sorted(names & {normalize(name) for name in one.dependencies}),
        )
    if unknown := sorted({one.manager for one in taken} - {"conda", "pip"}):
        raise LockError(f"{_WHAT}: packages of {unknown[0][:50]!r}, which is not known")


def _once(packages: list[_Package]) -> list[_Package]:
    """Return each package once: one that several categories want stands there for each of them."""
    found: dict[str, _Package] = {}
    for one in packages:
        if found.setdefault(one.name, one).url != one.url:
            raise LockError(f"{_WHAT}: {one.name[:100]!r} stands there twice, from two places")
    return list(found.values())
