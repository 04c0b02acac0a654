"""What packages need of CUDA that their metadata does not say, and which wheels or images bring it. Pure.

The tables are in gpu/: frameworks.toml says what a release was built with and loads, cuda-libraries.toml who has those
libraries, base-images.toml which images there are.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import msgspec

from mlbox import resources
from mlbox.codec import load_toml
from mlbox.errors import MlboxError
from mlbox.gpu.fatbin import Code, DeviceCode, parse_code
from mlbox.gpu.model import Version, parse_version

Flavor = Literal["base", "runtime", "cudnn-runtime"]
FLAVORS: tuple[Flavor, ...] = get_args(Flavor)
"""Of CUDA's images; each has what those before it have."""
T = TypeVar("T")
_RELEASE = re.compile(r"[0-9]+(?:\.[0-9]+)*")
"""Of a version, without what makes it a preview or a local build."""


class _Row(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """Base of the tables' rows."""


class Framework(_Row, frozen=True, kw_only=True):
    """Releases of a package (gpu/frameworks.toml)."""

    name: str
    since: str
    """The first release it is true of: '2.9'."""
    before: str
    """The first that it is not true of: '2.10'."""
    wheel: str
    """The file that was read."""
    checked: date
    cuda: str
    """It was built with: '12.8', or '12' where only that is known."""
    loads: tuple[str, ...] = ()
    """SONAMEs of CUDA's libraries that it loads and does not hold itself."""
    requirement: str = ""
    """What to ask for instead, so that wheels bring them: 'tensorflow[and-cuda]'."""
    optional: bool = False
    """Whether it is of use without a GPU too."""
    variants: tuple[str, ...] = ()
    """It has a library for each of these CUDAs, and takes that of the framework it works with."""
    library: str = ""
    """The one with the most device code."""
    code: dict[str, int] = {}
    """Entries of each kind in it."""

    @property
    def versions(self) -> str:
        """The releases, as a requirement has them."""
        return f">={self.since},<{self.before}"

    @property
    def device_code(self) -> DeviceCode:
        """The device code of its main library."""
        return DeviceCode(tuple(sorted((_code(text), many) for text, many in self.code.items())))


class BaseImage(_Row, frozen=True, kw_only=True):
    """An image of CUDA, in all its flavors (gpu/base-images.toml)."""

    cuda: str
    cudnn: int
    with_cudnn: str
    """How tags name the flavor with cuDNN."""
    suites: tuple[str, ...]
    source: str
    checked: date


class _Images(_Row, frozen=True, kw_only=True):
    repository: str
    source: dict[str, str]
    distributions: dict[str, str]
    image: tuple[BaseImage, ...]


class _Frameworks(_Row, frozen=True, kw_only=True):
    source: dict[str, str]
    framework: tuple[Framework, ...]


class _Libraries(_Row, frozen=True, kw_only=True):
    source: dict[str, Any]
    images: dict[Flavor, tuple[str, ...]]
    wheels: dict[str, dict[str, str]]


class Lack(msgspec.Struct, frozen=True, kw_only=True):
    """A package whose libraries of CUDA nothing in the environment brings."""

    package: str
    """'onnxruntime-gpu 1.22.0'."""
    libraries: tuple[str, ...]
    cuda: Version
    requirement: str
    """What would bring them, '' when there is no such extra."""
    wheels: tuple[str, ...]
    """The distributions that have them."""
    flavor: Flavor | None
    """Of the images that have all of them, None when none does."""

    @property
    def cudnn(self) -> int:
        """The major version of cuDNN that is among them, 0 for none."""
        return next((int(name.rpartition(".")[2]) for name in self.libraries if name.startswith("libcudnn.so.")), 0)


def framework_of(name: str, version: str, rows: Iterable[Framework] | None = None) -> Framework | None:
    """Return the row of a release, None for one that nobody has looked at."""
    release = _RELEASE.match(version)
    found = parse_version(release[0]) if release else None
    if found is None:
        return None
    candidates = (row for row in (frameworks() if rows is None else rows) if row.name == name)
    return next((row for row in candidates if _version(row.since) <= found < _version(row.before)), None)


def releases(library: str, fits: Callable[[Framework], bool]) -> str:
    """Return the newest releases whose main library is called so and that are fit: 'torch>=2.7,<2.8 (CUDA 12.6)'."""
    found = next((row for row in reversed(frameworks()) if row.library == library and fits(row)), None)
    return f"{found.name}{found.versions} (CUDA {found.cuda})" if found else ""


def newest_row(name: str) -> Framework | None:
    """Return the last row of a package, None when nobody has looked at it."""
    return next((row for row in reversed(frameworks()) if row.name == name), None)


def lacks(packages: Sequence[tuple[str, str]], *, wants_cuda: bool, image: Mapping[str, str]) -> tuple[Lack, ...]:
    """Return which of `packages` (name, version) would not find libraries of CUDA on a base with these variables.

    What also works without a GPU counts when the environment `wants_cuda`.
    """
    names = {name for name, _ in packages}
    return tuple(
        lack
        for name, version in packages
        if (row := framework_of(name, version)) is not None and (wants_cuda or not row.optional)
        if (lack := _lack(row, f"{name} {version}", names, image)) is not None
    )


def _lack(row: Framework, package: str, names: Collection[str], image: Mapping[str, str]) -> Lack | None:
    cuda = parse_version(row.cuda)
    if cuda is None:
        return None
    wheels = wheels_of(cuda)
    missing = [one for one in row.loads if wheels.get(one) not in names and not image_has(image, cuda, one)]
    if not missing:
        return None
    return _lack_of(package, missing, cuda, row.requirement)


def lack_of(libraries: Sequence[str]) -> Lack | None:
    """Return the same of SONAMEs alone, when all of them are of one CUDA, the newest that has them; else None."""
    for major in sorted(_libraries().wheels, key=int, reverse=True):
        if libraries and set(libraries) <= set(_libraries().wheels[major]):
            return _lack_of("", libraries, _version(major), "")
    return None


def _lack_of(package: str, missing: Sequence[str], cuda: Version, requirement: str) -> Lack:
    wheels = wheels_of(cuda)
    flavors = [flavor_of(one) for one in missing]
    known = [one for one in flavors if one is not None]
    return Lack(
        package=package,
        libraries=tuple(missing),
        cuda=cuda,
        requirement=requirement,
        wheels=tuple(dict.fromkeys(wheels[one] for one in missing if one in wheels)),
        flavor=max(known, key=FLAVORS.index) if len(known) == len(flavors) else None,
    )


def wheels_of(cuda: Version) -> Mapping[str, str]:
    """Return which wheel has a library of that CUDA, by SONAME."""
    return _libraries().wheels.get(str(cuda.parts[0]), {})


def brought_by(soname: str) -> tuple[str, ...]:
    """Return the wheels that have a library, of whichever CUDA; none when it is not one of CUDA's."""
    return tuple(dict.fromkeys(rows[soname] for rows in _libraries().wheels.values() if soname in rows))


def flavor_of(soname: str) -> Flavor | None:
    """Return which of CUDA's images has a library, the smallest."""
    stem = soname.partition(".so")[0]
    return next((flavor for flavor, stems in _libraries().images.items() if stem in stems), None)


def image_flavor(env: Mapping[str, str]) -> tuple[Version, Flavor] | None:
    """Return what of CUDA an image says that it has, by its environment; None for one without CUDA.

    NVIDIA's own images name what each flavor adds; of others that have CUDA all of it is believed.
    """
    cuda = parse_version(env.get("CUDA_VERSION", ""))
    if cuda is None:
        return None
    if "NV_CUDNN_VERSION" in env or "NV_CUDA_CUDART_VERSION" not in env:
        return cuda, "cudnn-runtime"
    return cuda, "runtime" if "NV_CUDA_LIB_VERSION" in env else "base"


def image_has(env: Mapping[str, str], cuda: Version, soname: str) -> bool:
    """Whether an image with these variables has a library of that CUDA."""
    found, flavor = image_flavor(env), flavor_of(soname)
    if found is None or flavor is None or found[0].parts[0] != cuda.parts[0]:
        return False
    return FLAVORS.index(flavor) <= FLAVORS.index(found[1])


def image_for(found: Sequence[Lack], suites: Sequence[str]) -> str:
    """Return the image of CUDA that has what all of `found` lack, of the first of `suites` that fits; '' for none.

    The oldest that is new enough, for it runs on the most drivers; the newest where only the major version is known.
    """
    majors, cudnns = {one.cuda.parts[0] for one in found}, {one.cudnn for one in found} - {0}
    flavors = [one.flavor for one in found]
    if len(majors) != 1 or len(cudnns) > 1 or None in flavors:
        return ""
    flavor = max((one for one in flavors if one), key=FLAVORS.index)
    wanted = max(one.cuda for one in found)
    for suite in suites:
        fitting = [
            row
            for row in _images().image
            if suite in row.suites and _fits(row, wanted, majors) and (not cudnns or row.cudnn in cudnns)
        ]
        if fitting:
            return _name(fitting[0] if len(wanted.parts) > 1 else fitting[-1], flavor, suite)
    return ""


def _fits(row: BaseImage, wanted: Version, majors: Collection[int]) -> bool:
    has = _version(row.cuda)
    return has.parts[0] in majors and has.parts >= wanted.parts


def _name(row: BaseImage, flavor: Flavor, suite: str) -> str:
    shown = row.with_cudnn if flavor == "cudnn-runtime" else flavor
    images = _images()
    return f"{images.repository}:{row.cuda}-{shown}-{images.distributions[suite]}"


def suites() -> tuple[str, ...]:
    """Return the releases that CUDA's images stand on, the newest first."""
    return tuple(reversed(_images().distributions))


@cache
def frameworks() -> tuple[Framework, ...]:
    """Return the rows of gpu/frameworks.toml."""
    return read_frameworks(resources.folder("gpu") / "frameworks.toml")


def read_frameworks(path: Path) -> tuple[Framework, ...]:
    """Read a table; raises MlboxError naming the file for what is none."""

    def check(table: _Frameworks) -> None:
        for row in table.framework:
            if not _version(row.since) < _version(row.before):
                raise ValueError(f"{row.name}: since {row.since} and before {row.before}")
            for text in (row.cuda, *row.variants):
                _version(text)
            for text in row.code:
                _code(text)
            if row.code and not row.library:
                raise ValueError(f"{row.name} {row.versions}: device code of no library")

    return _read(path, _Frameworks, check).framework


def read_images(path: Path) -> _Images:
    """Read a table; raises MlboxError naming the file for what is none, or not in the order of versions."""

    def check(table: _Images) -> None:
        versions = [_version(row.cuda) for row in table.image]
        if versions != sorted(versions):
            raise ValueError("the images are not in the order of their CUDA")
        for row in table.image:
            if not row.suites or set(row.suites) - set(table.distributions):
                raise ValueError(f"{row.cuda}: suites that are no distributions of the table")

    return _read(path, _Images, check)


def read_libraries(path: Path) -> _Libraries:
    """Read a table; raises MlboxError naming the file for what is none."""

    def check(table: _Libraries) -> None:
        if tuple(table.images) != FLAVORS:
            raise ValueError(f"images must be {', '.join(FLAVORS)}, in this order")

    return _read(path, _Libraries, check)


@cache
def _images() -> _Images:
    return read_images(resources.folder("gpu") / "base-images.toml")


@cache
def _libraries() -> _Libraries:
    return read_libraries(resources.folder("gpu") / "cuda-libraries.toml")


def _read(path: Path, kind: type[T], check: Callable[[T], Any]) -> T:
    document = load_toml(path.read_bytes(), what=str(path))
    try:
        table = msgspec.convert(document, kind)
        check(table)
    except (msgspec.ValidationError, ValueError) as problem:
        raise MlboxError(f"{path}: {problem}") from problem
    return table


def _version(text: str) -> Version:
    version = parse_version(text)
    if version is None:
        raise ValueError(f"not a version: {text!r}")
    return version


def _code(text: str) -> Code:
    code = parse_code(text)
    if code is None:
        raise ValueError(f"not a kind of device code: {text!r}")
    return code


def rows_of(packages: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Framework]]:
    """Yield the version and the row of each package that somebody has looked at."""
    for name, version in packages:
        if (row := framework_of(name, version)) is not None:
            yield version, row
