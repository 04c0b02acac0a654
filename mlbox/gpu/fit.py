"""Does an environment fit a GPU and its driver? Decided from what the lock and the libraries say. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from mlbox.gpu.compat import Compat
from mlbox.gpu.fatbin import DeviceCode
from mlbox.gpu.frameworks import Framework, releases
from mlbox.gpu.model import ComputeCapability, Version, parse_version
from mlbox.gpu.tables import CudaTable

Verdict = Literal["fits", "limited", "refused", "unknown"]

_RUNTIME = re.compile(
    r"nvidia-cuda-(?:runtime|nvrtc|cupti)(?:-cu\d+)?|cuda-toolkit|cudatoolkit|cuda-(?:version|cudart|nvrtc|cupti)"
)
"""Packages whose version is that of the CUDA toolkit; those of other libraries are versions of their own."""
_LOCAL = re.compile(r"\+cu(\d{2})(\d+)\b")
_VARIANT = re.compile(r"(.*_cu(?:da)?)(1[0-9])([0-9])((?:_\w+)?\.so[0-9.]*)", re.ASCII | re.DOTALL)
"""'libbitsandbytes_cuda128.so': what it is called, CUDA's version, and the rest."""
_MAIN = 0.2
"""A library with less than this share of the largest one's entries does not decide; one that does not fit is named."""


class LibraryCode(NamedTuple):
    """A library with device code and where it lies in the image."""

    path: str
    code: DeviceCode

    @property
    def name(self) -> str:
        """Its file name."""
        return self.path.rpartition("/")[2]


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment needs of a GPU host."""

    cuda: str = ""
    """Version of the toolkit ('12.8'), '' when it brings no CUDA."""
    because: str = ""
    """The package that says so: 'nvidia-cuda-runtime-cu12 12.8.90'."""
    libraries: tuple[LibraryCode, ...] = ()
    compat: Compat | None = None
    """The libraries of a newer driver that it brings."""

    @property
    def any(self) -> bool:
        """Whether there is anything for a GPU in it."""
        return bool(self.cuda or self.libraries)


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    verdict: Verdict
    reasons: tuple[str, ...]
    """What was compared, worst first."""
    hint: str = ""
    """What would make it fit."""


def cuda_of_packages(packages: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Return the CUDA that locked packages (name, version) bring, and which one says so; ('', '') for none.

    Of several the newest counts: the driver must run all of them.
    """
    found = sorted((version, because) for version, because in _cuda_versions(packages))
    return (str(found[-1][0]), found[-1][1]) if found else ("", "")


def _cuda_versions(packages: Iterable[tuple[str, str]]) -> Iterator[tuple[Version, str]]:
    for name, text in packages:
        version = None
        if _RUNTIME.fullmatch(name):
            version = parse_version(text.partition("+")[0])
        elif local := _LOCAL.search(text):
            version = parse_version(f"{local[1]}.{local[2]}")
        if version is not None:
            yield version.minor, f"{name} {text}"


def fit(
    needs: Needs,
    gpu: ComputeCapability | None,
    driver: Version | None,
    table: CudaTable,
    *,
    data_center: bool = False,
) -> Fit:
    """Return whether an environment with those `needs` runs on a GPU with that driver; None is not known.

    On a GPU of a data center it may bring a driver's libraries of its own, when they go with the host's.

    'limited' is minor-version compatibility: it runs, without PTX newer than the driver and newer driver functions.
    """
    parts: list[Fit] = []
    if driver and data_center and needs.compat and needs.compat.goes_with(driver):
        reason = f"its libraries of driver {needs.compat.version} go with driver {driver}"
        parts.append(Fit(verdict="fits", reasons=(reason,)))
        driver = parse_version(needs.compat.version)
    needs = msgspec.structs.replace(needs, libraries=_taken(needs))
    parts += [*_by_driver(needs, gpu, driver, table), *_by_code(needs, gpu), *_by_both(needs, gpu, driver, table)]
    if not needs.any:
        return Fit(verdict="fits", reasons=("it brings no CUDA",))
    if not parts:
        return Fit(
            verdict="unknown", reasons=("neither GPU nor driver are known",), hint="--gpu NAME, --driver VERSION"
        )
    worst: dict[Verdict, int] = {"refused": 0, "unknown": 1, "limited": 2, "fits": 3}
    parts.sort(key=lambda part: worst[part.verdict])
    reasons = tuple(reason for part in parts for reason in part.reasons)
    return Fit(verdict=parts[0].verdict, reasons=reasons, hint=next((part.hint for part in parts if part.hint), ""))


def is_variant(path: str) -> bool:
    """Whether a library is one of several that a package has, for one CUDA each: it loads the right one itself."""
    return _VARIANT.fullmatch(path) is not None


def _taken(needs: Needs) -> tuple[LibraryCode, ...]:
    """Return the libraries without those for another CUDA, of which a package has one for each: it loads its own."""
    variants: dict[str, set[str]] = {}
    for library in needs.libraries:
        if found := _VARIANT.fullmatch(library.path):
            variants.setdefault(found[1] + found[4], set()).add(f"{found[2]}.{found[3]}")

    def is_taken(library: LibraryCode) -> bool:
        found = _VARIANT.fullmatch(library.path)
        if found is None or needs.cuda not in variants[found[1] + found[4]]:
            return True
        return f"{found[2]}.{found[3]}" == needs.cuda

    return tuple(library for library in needs.libraries if is_taken(library))


def _by_driver(needs: Needs, gpu: ComputeCapability | None, driver: Version | None, table: CudaTable) -> Iterator[Fit]:
    cuda = parse_version(needs.cuda)
    if cuda is None or driver is None:
        return
    full, floor = table.driver_for(cuda), table.floor_for(cuda)
    if floor is not None and driver < floor:
        yield Fit(
            verdict="refused",
            reasons=(f"CUDA {cuda} ({needs.because}) needs driver {floor} or newer, this is {driver}",),
            hint=f"install driver {full or floor}, or lock an older CUDA: {_pin_for(needs, gpu, driver, table)}",
        )
    elif full is None:
        yield Fit(verdict="unknown", reasons=(f"which driver CUDA {cuda} came with is not in the table",))
    elif driver < full:
        limits = "no PTX newer than the driver, no newer driver functions"
        yield Fit(verdict="limited", reasons=(f"CUDA {cuda} came with driver {full}, this is {driver}: {limits}",))
    else:
        yield Fit(verdict="fits", reasons=(f"driver {driver} runs CUDA {cuda} in full",))


def _pin_for(needs: Needs, gpu: ComputeCapability | None, driver: Version, table: CudaTable) -> str:
    """Say which CUDA a driver runs, and the newest known release of what the environment has that fits it."""

    def runs(row: Framework) -> bool:
        cuda = parse_version(row.cuda)
        floor = table.floor_for(cuda) if cuda else None
        return floor is not None and floor <= driver and (gpu is None or row.device_code.runs_on(gpu))

    pins = (releases(library.name, runs) for library in _main(needs.libraries))
    pin = next(filter(None, pins), "")
    return _older(table.cuda_of(driver)) + (f"; {pin} fits" if pin else "")


def _by_both(needs: Needs, gpu: ComputeCapability | None, driver: Version | None, table: CudaTable) -> Iterator[Fit]:
    """Refuse PTX that is all there is for a GPU and newer than the driver, which compiles what it knows."""
    cuda = parse_version(needs.cuda)
    full = table.driver_for(cuda) if cuda else None
    if gpu is None or driver is None or full is None or driver >= full:
        return
    for library in _main(needs.libraries):
        if library.code.runs_on(gpu) and not _has_machine_code((library,), gpu):
            yield Fit(
                verdict="refused",
                reasons=(f"{library.name} has only PTX for {gpu}, of CUDA {cuda}: driver {driver} cannot compile it",),
                hint=f"install driver {full}, or lock an older CUDA: {_older(table.cuda_of(driver))}",
            )


def _older(cuda: Version | None) -> str:
    return f"this driver runs {cuda} in full" if cuda else "this driver runs none in the table"


def _by_code(needs: Needs, gpu: ComputeCapability | None) -> Iterator[Fit]:
    if gpu is None or not needs.libraries:
        return
    main = _main(needs.libraries)
    failing = [library for library in needs.libraries if not library.code.runs_on(gpu)]
    if decisive := [library for library in main if library in failing]:
        has = ", ".join(map(str, decisive[0].code.complete))
        pin = releases(decisive[0].name, lambda row: row.device_code.runs_on(gpu)) or f"a version built for {gpu}"
        yield Fit(
            verdict="refused",
            reasons=(f"{decisive[0].name} has no code for {gpu}: {has}",),
            hint=f"lock {pin}; 'no kernel image is available' is what this one would say",
        )
    elif failing:
        names = ", ".join(library.name for library in failing[:5])
        yield Fit(verdict="limited", reasons=(f"no code for {gpu} in {names}; the large libraries have it",))
    else:
        jit = all(any(code.kind == "ptx" for code in library.code.complete if code.runs_on(gpu)) for library in main)
        how = "machine code" if _has_machine_code(main, gpu) else "PTX, compiled at the first start" if jit else "code"
        yield Fit(verdict="fits", reasons=(f"{max(main, key=_entries).name} has {how} for {gpu}",))


def _main(libraries: Sequence[LibraryCode]) -> list[LibraryCode]:
    most = max(map(_entries, libraries), default=0)
    return [library for library in libraries if library.code.entries >= _MAIN * most]


def _entries(library: LibraryCode) -> int:
    return library.code.entries


def _has_machine_code(libraries: Sequence[LibraryCode], gpu: ComputeCapability) -> bool:
    return all(any(code.kind == "sass" and code.runs_on(gpu) for code in one.code.complete) for one in libraries)
