"""Does an image fit the GPUs of this host, or of another? What it needs is read from its libraries once, and kept."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlbox.errors import ContainerError, MlboxError, UsageError
from mlbox.gpu.choose import Request, Unit, candidates
from mlbox.gpu.compat import FOLDER, Compat, read_compat, version_in
from mlbox.gpu.fatbin import device_code
from mlbox.gpu.fit import Fit, LibraryCode, Needs, cuda_of_packages, fit
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.model import ComputeCapability, Gpu, Inventory, Roots, Version, parse_version
from mlbox.gpu.nvml import ask
from mlbox.gpu.tables import capability_of_name, cuda_table, is_of_data_center
from mlbox.oci.artifact import GPU_TYPE, artifact_of, subject_of
from mlbox.oci.digest import DiffID, Digest
from mlbox.oci.image import Image
from mlbox.store.store import Store
from mlbox.store.tree import Tree, below

if TYPE_CHECKING:
    from mlbox.lock.model import Lock
    from mlbox.store.view import Place

_LIBRARY = re.compile(r"\.so(?:\.[0-9.]+)?$")
_DISTRIBUTION = re.compile(r"(?:^|/)([A-Za-z0-9_.]+)-([^/-]+)\.dist-info$")
_FORMAT = 3


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What an image needs, as it is kept beside it."""

    format: int
    needs: Needs


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for one GPU."""

    gpu: str
    """As it is called: '0: NVIDIA H200 (sm_90)'; '' when only a driver was asked about."""
    driver: str
    fit: Fit


def needs_of(store: Store, digest: Digest) -> Needs:
    """Return what the image needs of a GPU host: what is kept beside it, else read from its libraries and kept."""
    for found in reversed(store.referrers.of(digest, GPU_TYPE)):
        layers = store.referrers.manifest(found.digest).layers
        try:
            kept = msgspec.json.decode(store.referrers.blob(layers[0]), type=Kept)
        except (msgspec.DecodeError, IndexError):
            continue
        if kept.format == _FORMAT:
            return kept.needs
    image = store.images.load(digest)
    needs = read_needs(store, image)
    data = msgspec.json.encode(Kept(format=_FORMAT, needs=needs), order="sorted")
    store.referrers.add(artifact_of(GPU_TYPE, data), subject_of(digest, image.manifest_bytes))
    return needs


class CodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A library with device code, for people."""

    path: str
    architectures: tuple[str, ...]
    """What it has code for as a whole: 'sm_90', 'compute_90'."""
    entries: int


class GpuFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an image needs of a GPU host, for people."""

    cuda: str
    because: str
    driver: str
    """The oldest that runs all of that CUDA; '' when the table does not say."""
    oldest_driver: str
    """The oldest that runs it at all."""
    libraries: tuple[CodeFacts, ...]
    compat: Compat | None = None


def facts_of(store: Store, digest: Digest) -> GpuFacts | None:
    """Return what an image needs of a GPU host, None for one that has nothing for GPUs."""
    needs = needs_of(store, digest)
    if not needs.any:
        return None
    cuda, table = parse_version(needs.cuda), cuda_table()
    libraries = (
        CodeFacts(path=one.path, architectures=tuple(map(str, one.code.complete)), entries=one.code.entries)
        for one in needs.libraries
    )
    return GpuFacts(
        cuda=needs.cuda,
        because=needs.because,
        driver=str((cuda and table.driver_for(cuda)) or ""),
        oldest_driver=str((cuda and table.floor_for(cuda)) or ""),
        libraries=tuple(libraries),
        compat=needs.compat,
    )


def read_needs(store: Store, image: Image) -> Needs:
    """Read what the image needs: CUDA from its lock, else from the packages in it; device code from its libraries."""
    from mlbox.engine.cuda import cuda_of_lock
    from mlbox.store.view import effective  # a start with GPUs finds what was read before

    diff_ids = image.config.rootfs.diff_ids
    files = effective([store.layers.entries(diff_id) for diff_id in diff_ids])
    lock = _lock_of(store, image)
    cuda, because = cuda_of_lock(lock) if lock else cuda_of_packages(_installed(files))
    if not cuda:
        variables = dict(line.partition("=")[::2] for line in image.config.config.env)
        version = parse_version(variables.get("CUDA_VERSION", ""))
        cuda, because = (str(version.minor), "the base image's CUDA_VERSION") if version else ("", "")
    return Needs(
        cuda=cuda, because=because, libraries=tuple(_libraries(store, diff_ids, files)), compat=_compat(store, diff_ids)
    )


def needs_of_lock(lock: "Lock") -> Needs:
    """Return what can be said before anything is built: the locked packages' CUDA, and the code known of them."""
    from mlbox.engine.cuda import code_of_lock, cuda_of_lock

    cuda, because = cuda_of_lock(lock)
    return Needs(cuda=cuda, because=because, libraries=code_of_lock(lock))


def check(needs: Needs, *, gpu: str = "", driver: str = "", roots: Roots | None = None) -> tuple[Checked, ...]:
    """Return whether what `needs` says fits: the GPU and driver that are named, else those of this host.

    Raises UsageError for a GPU that nobody knows.
    """
    table = cuda_table()
    inventory = read_inventory(roots)
    version = driver_version(driver) if driver else inventory.driver.version if inventory.driver else None
    if gpu:
        capability = capability_of_name(gpu)
        if capability is None:
            raise UsageError(f"--gpu {gpu!r}: not a GPU that is known", hint="--gpu sm_90 names an architecture itself")
        return (_checked(f"{gpu} ({capability})", needs, capability, version),)
    gpus = [one for one in inventory.gpus if one.vendor == "nvidia"]
    if driver or not gpus:
        return (Checked(gpu="", driver=str(version or ""), fit=fit(needs, None, version, table)),)
    known = _with_capabilities(inventory)
    return tuple(
        _checked(f"{one.index}: {one.name} ({one.capability or 'unknown'})", needs, one.capability, version)
        for one in known
    )


class Fitting(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs that an image may be given."""

    units: tuple[Unit, ...]
    left_out: tuple[str, ...] = ()
    """Why each of the others is not among them."""


def refuse_unfit(store: Store, digest: Digest, request: Request, roots: Roots | None = None) -> None:
    """Raise ContainerError when the image cannot run on the GPUs that `request` means.

    Of a number of GPUs any may be given, so it is refused only when fewer fit.
    """
    inventory = read_inventory(roots)
    fitting(store, digest, request, inventory, candidates(inventory, request))


def fitting(store: Store, digest: Digest, request: Request, inventory: Inventory, found: Sequence[Unit]) -> Fitting:
    """Return those of the units `found` that the image runs on; raises ContainerError when they are too few."""
    nvidia = [unit for unit in found if unit.gpu.vendor == "nvidia"]
    if inventory.driver is None or not nvidia:
        return Fitting(units=tuple(found))
    needs = needs_of(store, digest)
    if not needs.any:
        return Fitting(units=tuple(found))
    refused = {unit.id: fit for unit, fit in _verdicts(nvidia, inventory, needs) if fit.verdict == "refused"}
    bad = [unit for unit in found if unit.id in refused]
    if bad and (not request.count or len(found) - len(bad) < request.count):
        raise _unfit(bad, refused[bad[0].id], len(found), request)
    return Fitting(
        units=tuple(unit for unit in found if unit.id not in refused),
        left_out=tuple(f"GPU {unit.label} ({unit.gpu.name}): {refused[unit.id].reasons[0]}" for unit in bad),
    )


def _unfit(bad: Sequence[Unit], why: Fit, many: int, request: Request) -> ContainerError:
    first = bad[0]
    text = f"the image does not fit GPU {first.label} ({first.gpu.name}): {'; '.join(why.reasons)}"
    if request.count and len(bad) < many:
        labels = ", ".join(unit.label for unit in bad)
        text = f"--gpus {request.count}: of {many} GPUs the image fits {many - len(bad)}, and not {labels}; {text}"
    return ContainerError(text, hint=f"{why.hint}; --no-check starts it all the same")


def _verdicts(found: Sequence[Unit], inventory: Inventory, needs: Needs) -> Iterator[tuple[Unit, Fit]]:
    known = {gpu.pci: gpu.capability for gpu in _with_capabilities(inventory)}
    version = inventory.driver.version if inventory.driver else None
    for unit in found:
        compatible = is_of_data_center(unit.gpu.name)
        yield unit, fit(needs, known.get(unit.gpu.pci), version, cuda_table(), data_center=compatible)


def _with_capabilities(inventory: Inventory) -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs with their architectures: by name, which is quick; else as NVIDIA's library says."""
    gpus = [gpu for gpu in inventory.gpus if gpu.vendor == "nvidia"]
    named = tuple(msgspec.structs.replace(gpu, capability=capability_of_name(gpu.name)) for gpu in gpus)
    if all(gpu.capability for gpu in named):
        return named
    return tuple(gpu for gpu in ask(inventory).inventory.gpus if gpu.vendor == "nvidia")


def _checked(name: str, needs: Needs, capability: ComputeCapability | None, driver: Version | None) -> Checked:
    found = fit(needs, capability, driver, cuda_table(), data_center=is_of_data_center(name))
    return Checked(gpu=name, driver=str(driver or ""), fit=found)


def driver_version(text: str) -> Version:
    """Return the version that --driver names; raises UsageError for what is none."""
    version = parse_version(text)
    if version is None:
        raise UsageError(f"--driver {text!r}: not a version", hint="--driver 535.104.05")
    return version


def _compat(store: Store, diff_ids: Sequence[DiffID]) -> Compat | None:
    from mlbox.build.union import Union

    trees = [(store.layers.root(diff_id), Tree(entries=store.layers.entries(diff_id))) for diff_id in diff_ids]
    root = Union.of_layers(trees)
    folder = root.resolve(FOLDER) or ""
    found = [
        (version, root.on_disk(f"{folder}/{name}")) for name in root.children(folder) if (version := version_in(name))
    ]
    for version, path in found[:1]:
        if path is not None:
            with path.open("rb") as file:
                return read_compat(file.fileno(), version)
    return None


def _lock_of(store: Store, image: Image) -> "Lock | None":
    from mlbox.lock.file import decode_lock

    if data := store.referrers.lock_of(image.digest):
        with suppress(MlboxError):  # it may have come with the image from a newer mlbox, or from anybody
            return decode_lock(data)
    return None


def _installed(files: "Mapping[str, Place]") -> Iterator[tuple[str, str]]:
    for path, place in files.items():
        if place.entry.kind == "dir" and (found := _DISTRIBUTION.search(path)):
            yield found[1].lower().replace("_", "-"), found[2]


def _libraries(store: Store, diff_ids: Sequence[DiffID], files: "Mapping[str, Place]") -> Iterator[LibraryCode]:
    """Yield the libraries with device code that a container sees."""
    for path in sorted(path for path in files if _LIBRARY.search(path)):
        entry, layer = files[path]
        if entry.kind == "file" and entry.size > 1024:
            code = device_code(Path(below(store.layers.root(diff_ids[layer]))(entry)))
            if code is not None:
                yield LibraryCode(path.encode("utf-8", "replace").decode(), code)  # it is kept as JSON
