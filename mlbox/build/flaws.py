"""Does a wheel that was just built need nothing of the place it was built in? auditwheel's questions. Pure.

auditwheel asks what any Linux of some age has. Here it is known what the image has, so that counts: a library may come
from it, from the wheel itself, or from another package of the environment; never from the compilers' stage or from a
build requirement, which are gone when the wheel is used.
"""

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from mlbox.build.binaries import Binary
from mlbox.build.linking import Ground, Linker

_BUILD = ("/build", "/tmp")  # noqa: S108 - the container's


class Flaw(msgspec.Struct, frozen=True, kw_only=True):
    """Something in a built wheel that is of the place it was built in."""

    kind: Literal["stage", "requirement", "missing", "search", "path", "pure"]
    name: str
    """The library, the folder that is searched, or the path that is written out."""
    files: tuple[str, ...]
    """Which files of the wheel have it."""
    package: str = ""
    """Who has the library: a Debian package of the stage, or a build requirement."""

    @property
    def is_fatal(self) -> bool:
        """Whether the wheel cannot work so: a library is only there while it is built."""
        return self.kind in ("stage", "requirement")


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the libraries of a built wheel may come from."""

    ground: Ground
    """The image's own system."""
    stage: Mapping[str, str] = {}
    """By name of a library that only the compilers' stage has: its Debian package, '' when nobody knows."""
    requirements: Mapping[str, str] = {}
    """By name of a library: the build requirement (its normalised name) that has it."""
    environment: Collection[str] = ()
    """Names of the packages that will be beside the wheel."""
    accepted: Collection[str] = ()
    """Libraries that need not be there."""
    driver: Collection[str] = ()


def flaws_of(binaries: Iterable[Binary], python: str, around: Surroundings, *, is_pure: bool = False) -> list[Flaw]:
    """Return what is wrong with a wheel that has `binaries`; `is_pure` is what it says of itself."""
    binaries = tuple(binaries)
    linker = Linker(binaries, around.ground, python, around.driver)
    needed: dict[str, list[str]] = {}
    searched: dict[str, list[str]] = {}
    for binary in binaries:
        for name in binary.needed:
            if linker.resolve(binary, name) is None and name not in around.accepted:
                needed.setdefault(name, []).append(binary.path)
        for folder in binary.search:
            if _is_foreign(folder, around.ground):
                searched.setdefault(folder, []).append(binary.path)
    found = [flaw for name, files in needed.items() if (flaw := _library(name, files, around))]
    found += [Flaw(kind="search", name=folder, files=tuple(files)) for folder, files in searched.items()]
    if is_pure and binaries:
        found.append(Flaw(kind="pure", name="", files=tuple(binary.path for binary in binaries)))
    return sorted(found, key=lambda flaw: (not flaw.is_fatal, flaw.kind, flaw.name))


def _library(name: str, files: list[str], around: Surroundings) -> Flaw | None:
    owner = around.requirements.get(name)
    if owner in around.environment:
        return None
    if owner:
        return Flaw(kind="requirement", name=name, files=tuple(files), package=owner)
    if name in around.stage:
        return Flaw(kind="stage", name=name, files=tuple(files), package=around.stage[name])
    return Flaw(kind="missing", name=name, files=tuple(files))


def _is_foreign(folder: str, ground: Ground) -> bool:
    """Whether a folder of DT_RUNPATH is neither the wheel's own nor one of the image's."""
    if folder.startswith(("$ORIGIN", "${ORIGIN}")):
        return False
    path = posixpath.normpath(folder)
    if not path.startswith("/") or any(path == one or path.startswith(f"{one}/") for one in _BUILD):
        return True
    inside = {posixpath.dirname(f"/{file}") for file in ground.files}
    return path not in inside and not path.startswith("/opt/mlbox/env/")


def describe(flaw: Flaw) -> str:
    """Return the flaw as a part of a sentence."""
    files = flaw.files[0] + (f" and {len(flaw.files) - 1} more" if len(flaw.files) > 1 else "")
    match flaw.kind:
        case "stage":
            where = f" (package {flaw.package})" if flaw.package else ""
            return f"{files} needs {flaw.name}, which only the stage has that it was compiled in{where}"
        case "requirement":
            return f"{files} needs {flaw.name} of {flaw.package}, which only its build requires"
        case "missing":
            return f"{files} needs {flaw.name}, which is nowhere in the image"
        case "search":
            return f"{files} looks for libraries in {flaw.name}, which the image does not have"
        case "path":
            return f"{files} has the path {flaw.name} written in it"
        case _:
            return f"it calls itself pure Python, and has {files}"


def system_packages(flaws: Iterable[Flaw]) -> Iterator[str]:
    """Yield the Debian packages that would mend `flaws`."""
    yield from sorted({flaw.package for flaw in flaws if flaw.kind == "stage" and flaw.package})
