"""pixi.lock (versions 4 to 7): what `pixi install` would install for one environment of it."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from mlbox.errors import LockError
from mlbox.http import redact
from mlbox.lock.conda.model import PinnedConda, pinned
from mlbox.lock.foreign.documents import read_yaml
from mlbox.lock.foreign.model import Imported, Selection
from mlbox.lock.foreign.pip import pinned_from_url
from mlbox.lock.foreign.reading import inside, name_of
from mlbox.lock.model import SUBDIRS
from mlbox.lock.python.model import Pinned
from mlbox.project.requirement import normalize

_WHAT = "pixi.lock"
_KNOWN = (4, 5, 6, 7)
"""The last says more of platforms, and the same of packages."""


class _Environment(msgspec.Struct, frozen=True):
    packages: dict[str, tuple[dict[str, Any], ...]] = {}


class _Package(msgspec.Struct, frozen=True):
    kind: str = ""
    """Before version 6: 'conda' or 'pypi', with the address in `url` or `path`."""
    conda: str = ""
    pypi: str = ""
    """Since version 6: the address."""
    url: str = ""
    path: str = ""
    name: str = ""
    version: str = ""
    sha256: str = ""
    md5: str = ""
    size: int = 0
    depends: tuple[str, ...] = ()
    requires_dist: tuple[str, ...] = ()
    editable: bool = False

    @property
    def is_conda(self) -> bool:
        """Whether it is a conda package."""
        return self.kind == "conda" or bool(self.conda)

    @property
    def place(self) -> str:
        """Where it is: an address, or a path of the repository."""
        return self.conda or self.pypi or self.url or self.path


class _Lock(msgspec.Struct, frozen=True):
    version: int
    environments: dict[str, _Environment]
    packages: tuple[_Package, ...] = ()


class _Version(msgspec.Struct, frozen=True):
    version: int


def read_pixi(data: bytes, selection: Selection) -> Imported:
    """Return the packages for the target of the environment that the groups name, else of 'default'."""
    version = read_yaml(data, _Version, what=_WHAT).version
    if version not in _KNOWN:
        raise LockError(
            f"{_WHAT}: version {version}, and only {_KNOWN[0]} to {_KNOWN[-1]} are known",
            hint="'pixi workspace export conda-explicit-spec' writes a list that is read",
        )
    lock = read_yaml(data, _Lock, what=_WHAT)
    name = _environment(lock, selection)
    platform = SUBDIRS[selection.target.arch]
    entries = lock.environments[name].packages.get(platform)
    if entries is None:
        known = ", ".join(lock.environments[name].packages) or "no platform"
        raise LockError(
            f"{_WHAT}: environment {name!r} is for {known}, not for {platform}",
            hint=f"'pixi workspace platform add {platform}' locks it too",
        )
    packages = _packages(lock, entries)
    notes: list[str] = []
    conda = sorted(_conda(packages), key=lambda one: one.package.name)
    pins = sorted(_pypi(packages, notes), key=lambda one: one.name)
    _once([one.package.name for one in conda])
    _once([one.name for one in pins])
    return Imported(conda=tuple(conda), pins=tuple(pins), notes=tuple(notes))


def _environment(lock: _Lock, selection: Selection) -> str:
    by_name = {normalize(name): name for name in lock.environments}
    chosen = [by_name[group] for group in selection.groups if group in by_name]
    if len(chosen) > 1:
        raise LockError(f"{_WHAT}: groups name {len(chosen)} environments: {', '.join(chosen)}", hint="name one")
    if not chosen and "default" not in lock.environments:
        known = ", ".join(lock.environments) or "none"
        raise LockError(f"{_WHAT} has no environment 'default' (it has: {known})", hint="groups = [...] names one")
    return chosen[0] if chosen else "default"


def _packages(lock: _Lock, entries: tuple[dict[str, Any], ...]) -> list[_Package]:
    by_place = {(one.is_conda, one.place): one for one in lock.packages}
    found = []
    for entry in entries:
        is_conda = "conda" in entry
        place = entry.get("conda" if is_conda else "pypi")
        if not isinstance(place, str) or (is_conda, place) not in by_place:
            raise LockError(f"{_WHAT}: {redact(str(place))[:200]!r} of an environment is not among the packages")
        found.append(by_place[is_conda, place])
    return found


def _conda(packages: list[_Package]) -> Iterator[PinnedConda]:
    conda = [one for one in packages if one.is_conda]
    for one in conda:
        if "://" not in one.place:
            raise LockError(
                f"{_WHAT}: {one.place[:200]!r} is built from source by pixi", hint="publish it on a channel"
            )
    names = {_name_in(one.place) for one in conda}
    for one in conda:
        requires = names & {line.split(maxsplit=1)[0].rpartition("::")[2] for line in one.depends if line.strip()}
        yield pinned(one.place, sha256=one.sha256, md5=one.md5, size=one.size, requires=requires)


def _name_in(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2].rsplit("-", 2)[0]


def _pypi(packages: list[_Package], notes: list[str]) -> Iterator[Pinned]:
    pypi = [one for one in packages if not one.is_conda]
    names = {normalize(one.name) for one in pypi}
    for one in pypi:
        requires = {normalize(_requirement_name(line)) for line in one.requires_dist if "extra ==" not in line}
        if "://" not in one.place:
            yield _folder(one, sorted(names & requires))
            continue
        url, direct = one.place, one.place.startswith(("direct+", "git+"))
        yield pinned_from_url(
            one.name,
            one.version or "0",
            url.removeprefix("direct+"),
            sha256=one.sha256,
            direct=direct,
            requires=sorted(names & requires),
        )


def _folder(one: _Package, requires: list[str]) -> Pinned:
    name = name_of(one.name)
    return Pinned(
        name=name, kind="directory", version="", index="direct", url=inside(one.place, name), requires=(*requires,)
    )


def _requirement_name(line: str) -> str:
    end = next((at for at, letter in enumerate(line) if not (letter.isalnum() or letter in "._-")), len(line))
    return line[:end]


def _once(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise LockError(f"{_WHAT}: {name!r} stands twice in one environment")
