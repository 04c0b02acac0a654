"""Would the dynamic loader find what the environment's libraries need? Decided as ld.so(8) does. Pure."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from mlbox.build.binaries import Binary

Kind = Literal["missing", "glibc", "driver", "twice"]
_ELSEWHERE = ""
"""Found, but not in the environment: what that needs in turn, those have seen to who made the system."""
_LARGE = 10_000_000


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """The system below an environment, as far as the loader sees it."""

    names: frozenset[str] = frozenset()
    """What it finds by name: through LD_LIBRARY_PATH, ld.so.cache and its own folders."""
    files: dict[str, int] = {}
    """Every library's path (without a leading slash) and bytes."""
    first: tuple[str, ...] = ()
    """The folders of LD_LIBRARY_PATH."""
    glibc: int = 0
    """36 for 2.36; 0 when it is not known."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that will not be as the makers of a package thought."""

    kind: Kind
    name: str
    """Of a library, 'libGL.so.1'; of a version, 'GLIBC_2.38'."""
    package: str = ""
    """The Python distribution that is concerned: 'opencv-python 4.12.0'."""
    needed_by: tuple[str, ...] = ()
    """The files that ask for it themselves; of what is there twice or the driver's, the files that are it."""
    modules: tuple[str, ...] = ()
    """Extension modules of the package that cannot be imported for it, directly or by what they need."""
    of: int = 0
    """How many extension modules the package has."""
    instead: str = ""
    """Of a version of glibc: the image's, '2.36'."""
    size: int = 0
    """Of what is there twice: bytes in the environment."""

    @property
    def is_fatal(self) -> bool:
        """Whether the package is of no use so: most of its modules cannot be imported, or no GPU would be found.

        Some packages have single modules that are made for libraries one may or may not have, and do without them.
        """
        return self.kind == "driver" or 2 * len(self.modules) > self.of


class Linker:
    """Looks libraries up on behalf of the files of one environment."""

    def __init__(self, binaries: Iterable["Binary"], ground: Ground, python: str, driver: Iterable[str]) -> None:
        """`python` is its version, '3.11'; `driver` are stems of NVIDIA's driver libraries: 'cuda', 'nvidia-ml'."""
        self.binaries: Mapping[str, Binary] = {binary.path: binary for binary in binaries}
        self.ground = ground
        self._extension = re.compile(rf"\.(?:cpython-{re.escape(python.replace('.', ''))}-[A-Za-z0-9_-]+|abi3)\.so$")
        self._driver = frozenset(driver)

    def findings(self) -> tuple[Finding, ...]:
        """Return everything that was found, what is fatal first."""
        found = [*self._missing(), *self._too_new(), *self._shadows(), *self._twice()]
        return tuple(sorted(found, key=lambda one: (not one.is_fatal, one.kind, one.package, one.name)))

    def resolve(self, binary: "Binary", name: str) -> str | None:
        """Return the path in the environment that `name` is for `binary`, '' for one elsewhere, None for none.

        What lies in the environment where the loader would not look counts as found: packages load such libraries
        themselves, before those that need them.
        """
        if "/" in name:
            return _ELSEWHERE if name.lstrip("/") in self.ground.files else None
        for folder in binary.search:
            path = _expanded(folder, binary.folder, name)
            if path in self.binaries:
                return path
            if path in self.ground.files:
                return _ELSEWHERE
        if name in self.ground.names or self._is_drivers(name) or self._is_interpreters(name):
            return _ELSEWHERE
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for binary in self.binaries.values():
            for name in filter(None, (binary.name, binary.soname)):
                found.setdefault(name, binary.path)
        return found

    @cached_property
    def _edges(self) -> dict[str, dict[str, str | None]]:
        """By path of a file: what it needs, and what that is (see `resolve`)."""
        return {
            path: {name: self.resolve(binary, name) for name in binary.needed} for path, binary in self.binaries.items()
        }

    @cached_property
    def _modules(self) -> tuple["Binary", ...]:
        """The files that Python can import."""
        return tuple(one for one in self.binaries.values() if one.is_module or self._extension.search(one.name))

    @cached_property
    def _modules_of(self) -> Counter[str]:
        return Counter(module.package for module in self._modules)

    @cached_property
    def _importers(self) -> dict[str, list["Binary"]]:
        """By path of a file: the extension modules that load it, itself among them."""
        found: dict[str, list[Binary]] = {}
        for module in self._modules:
            for loaded in self._loaded(module.path):
                found.setdefault(loaded, []).append(module)
        return found

    def _loaded(self, path: str) -> set[str]:
        seen, waiting = {path}, [path]
        while waiting:
            for target in self._edges[waiting.pop()].values():
                if target and target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    def _is_drivers(self, name: str) -> bool:
        """Whether a library comes with NVIDIA's driver, when a container starts."""
        return name.startswith("lib") and name[3:].partition(".so")[0] in self._driver

    def _is_interpreters(self, name: str) -> bool:
        """Whether a library is that of an interpreter in the image, which has loaded it from where it lies."""
        return name.startswith("libpython") and any(path.endswith(f"/{name}") for path in self.ground.files)

    def _missing(self) -> Iterator[Finding]:
        asking: dict[str, list[Binary]] = {}
        for path, needs in self._edges.items():
            for name, target in needs.items():
                if target is None:
                    asking.setdefault(name, []).append(self.binaries[path])
        for name, askers in asking.items():
            yield from self._by_package("missing", name, askers)

    def _too_new(self) -> Iterator[Finding]:
        asking: dict[int, list[Binary]] = {}
        for binary in self.binaries.values():
            if binary.glibc > self.ground.glibc > 0:
                asking.setdefault(binary.glibc, []).append(binary)
        for version, askers in asking.items():
            for found in self._by_package("glibc", f"GLIBC_2.{version}", askers):
                yield msgspec.structs.replace(found, instead=f"2.{self.ground.glibc}")

    def _by_package(self, kind: Kind, name: str, askers: Sequence["Binary"]) -> Iterator[Finding]:
        """Yield a finding for each package whose modules load one of `askers`, and for those of askers nobody loads."""
        modules: dict[str, set[str]] = {}
        needed_by: dict[str, set[str]] = {}
        for asker in askers:
            importers = self._importers.get(asker.path, ())
            for module in importers:
                modules.setdefault(module.package, set()).add(module.path)
            for package in {module.package for module in importers} or {asker.package}:
                needed_by.setdefault(package, set()).add(asker.path)
        for package, paths in needed_by.items():
            yield Finding(
                kind=kind,
                name=name,
                package=package,
                needed_by=tuple(sorted(paths)),
                modules=tuple(sorted(modules.get(package, ()))),
                of=self._modules_of[package],
            )

    def _shadows(self) -> Iterator[Finding]:
        """Yield the driver's libraries in the image that a program would load instead of the driver's.

        Stubs, which compilers link with, do no harm where nobody looks.
        """
        searched = {
            *self.ground.first,
            *(_folder(one, binary) for binary in self.binaries.values() for one in binary.search),
        }
        for binary in self.binaries.values():
            if self._is_drivers(binary.name) and (binary.folder in searched or not _is_stub(binary.path)):
                yield Finding(kind="driver", name=binary.name, package=binary.package, needed_by=(binary.path,))
        for path in self.ground.files:
            folder, _, name = path.rpartition("/")
            if folder in self.ground.first and self._is_drivers(name) and _is_stub(path):
                yield Finding(kind="driver", name=name, needed_by=(path,))

    def _twice(self) -> Iterator[Finding]:
        below = {path.rpartition("/")[2]: path for path in self.ground.files}
        for binary in self.binaries.values():
            name = binary.soname or binary.name
            if binary.size >= _LARGE and (other := below.get(name)):
                paths, size = (binary.path, other), binary.size
                yield Finding(kind="twice", name=name, package=binary.package, needed_by=paths, size=size)


def _is_stub(path: str) -> bool:
    return "stubs" in path.split("/")


def _folder(searched: str, binary: "Binary") -> str:
    return posixpath.dirname(_expanded(searched, binary.folder, "x"))


def _expanded(folder: str, origin: str, name: str) -> str:
    """Return the path of `name` in a folder of DT_RUNPATH, without its leading slash."""
    for word in ("${ORIGIN}", "$ORIGIN"):
        folder = folder.replace(word, f"/{origin}")
    # What is not absolute counts from where the process stands, which nobody knows.
    return posixpath.normpath(f"{folder}/{name}").lstrip("/") if folder.startswith("/") else ""
