"""Which CUDA a lock's packages bring, lack or have twice, and so which base is right: what locking says and decides."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mlbox.gpu.fit import LibraryCode, cuda_of_packages
from mlbox.gpu.frameworks import Lack, image_flavor, image_for, lack_of, lacks, newest_row, rows_of, suites
from mlbox.lock.model import Base, Lock, Package
from mlbox.project.model import Project

_SHOWN = 4


def pairs(packages: Iterable[Package]) -> list[tuple[str, str]]:
    """Return the names and versions of locked packages."""
    return [(package.name, package.version) for package in packages]


def environment_of(base: Base) -> dict[str, str]:
    """Return the variables that the image below sets."""
    return dict(line.partition("=")[::2] for line in base.env)


def wants_cuda(packages: Sequence[tuple[str, str]], accelerator: str) -> bool:
    """Whether an environment is for GPUs of NVIDIA: by what was asked for, or by what it brings."""
    return accelerator == "default" or accelerator.startswith("cu") or bool(cuda_of_packages(packages)[0])


def lacking(packages: Iterable[Package], accelerator: str, image: Mapping[str, str] | None = None) -> tuple[Lack, ...]:
    """Return what `packages` would not find of CUDA on a base with the variables of `image`."""
    named = pairs(packages)
    return lacks(named, wants_cuda=wants_cuda(named, accelerator), image=image or {})


def lacking_for_any(
    packages: Sequence[Package], accelerators: Sequence[str], image: Mapping[str, str] | None = None
) -> tuple[Lack, ...]:
    """Return what is lacking for any of the accelerators, which share a base."""
    found = [
        lack
        for name in accelerators
        for lack in lacking([one for one in packages if name in (one.accelerators or (name,))], name, image)
    ]
    return tuple(lack for place, lack in enumerate(found) if lack not in found[:place])


def base_for(found: Sequence[Lack], requires_python: str, stated: str) -> str:
    """Return the image of CUDA that has what is lacking, with a Python that the project admits; '' for none."""
    from packaging.specifiers import SpecifierSet  # locks that lack nothing are planned without it

    allowed = SpecifierSet(requires_python)
    return image_for(
        found,
        [
            suite
            for suite, python in _pythons().items()
            if (python == stated if stated else allowed.contains(f"{python}.99"))
        ],
    )


def _pythons() -> dict[str, str]:
    """Return the Pythons that come with the releases that CUDA's images stand on, the newest first."""
    from mlbox.lock.debian import series_of

    return {suite: series.python for suite in suites() if (series := series_of(suite))}


def proposed_base(project: Project) -> tuple[str, str]:
    """Return the base to propose for a project that is not locked yet, and why; ('', '') when Debian will do.

    Its requirements are looked at as they are written: what they bring in turn, locking finds out.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    if project.settings.base != "debian":
        return "", ""
    accelerator = project.settings.accelerator
    for_gpus = accelerator == "default" or accelerator.startswith("cu")
    for requirement in project.requirements:
        try:
            asked = Requirement(requirement.text)
        except InvalidRequirement:  # an address, or a folder
            continue
        row = newest_row(canonicalize_name(asked.name))
        if row is None or not row.loads or (row.optional and not for_gpus):
            continue
        if row.name not in row.requirement or not asked.extras:
            return "auto", f"{asked.name} loads libraries of CUDA that its wheel does not bring"
    return "", ""


def code_of_lock(lock: Lock) -> tuple[LibraryCode, ...]:
    """Return the device code of the locked packages that gpu/frameworks.toml knows, before any is fetched.

    Only of builds for the CUDA of the row: those for another have other code.
    """
    found, cuda = pairs(lock.packages), _cuda(lock)
    return tuple(
        LibraryCode(f"{row.name} {version}/{row.library}", row.device_code)
        for version, row in rows_of(found)
        if row.code and (row.loads or row.cuda == cuda) and lock.target.arch == "amd64"
    )


def cuda_of_lock(lock: Lock) -> tuple[str, str]:
    """Return the CUDA that the packages bring, else the base, else that which they were built with; and who says so."""
    named = pairs(lock.packages)
    cuda, because = _brought(lock)
    if cuda:
        return cuda, because
    if (of_base := image_flavor(environment_of(lock.base))) is not None:
        return str(of_base[0].minor), "the base image's CUDA_VERSION"
    wanted = wants_cuda(named, lock.target.accelerator)
    loading = ((version, row) for version, row in rows_of(named) if row.loads and (wanted or not row.optional))
    built = ((row.cuda, f"{row.name} {version} was built with it") for version, row in loading)
    return next(built, ("", ""))


def remarks(lock: Lock) -> Iterator[str]:
    """Yield what there is to say of CUDA in a lock, with the setting that mends it."""
    image = environment_of(lock.base)
    found = () if lock.conda else lacking(lock.packages, lock.target.accelerator, image)  # conda's may bring it
    for lack in found:
        yield _lacks(lack, base_for(found, "", lock.target.python), lock)
    yield from _other_variants(lock)
    cuda = _cuda(lock)
    reference = lock.base.reference
    if image_flavor(image) and cuda and not lacking(lock.packages, lock.target.accelerator):
        yield (
            f"the packages bring CUDA {cuda} themselves, so what {reference} has of it is not used: "
            'base = "auto", or any without CUDA, makes a smaller image'
        )
    elif "-devel" in reference.rpartition(":")[2]:
        stage = "" if all(package.is_wheel for package in lock.packages) else f', with build-base = "{reference}"'
        yield (
            f"{reference} has compilers, which nothing that runs needs: "
            f'base = "{reference.replace("-devel", "-runtime")}"{stage} is smaller'
        )


def _lacks(lack: Lack, image: str, lock: Lock) -> str:
    names = lack.libraries[:_SHOWN]
    more = f" and {len(lack.libraries) - _SHOWN} more" if len(lack.libraries) > _SHOWN else ""
    ways = [f"require {lack.requirement}" if lack.requirement else f"require {', '.join(lack.wheels)}"]
    if image:
        ways.append(f'base = "{image}" (base = "auto" takes it)')
    elif lack.flavor and lock.base.kind == "debian":
        ways.append(f'base = "auto" with Python {" or ".join(_pythons().values())}')
    return (
        f"{lack.package} loads {', '.join(names)}{more} of CUDA {lack.cuda}, which nothing in the image has: "
        + ", or ".join(ways)
    )


def ways_to(libraries: Sequence[str], python: str) -> list[str]:
    """Return what would bring libraries of CUDA that an image lacks: requirements, or a base; none for other names."""
    lack = lack_of(libraries)
    if lack is None:
        return []
    image = base_for([lack], "", python)
    return [f"require {', '.join(lack.wheels)}", *([f'base = "{image}"'] if image else [])]


def _other_variants(lock: Lock) -> Iterator[str]:
    cuda = _cuda(lock)
    for version, row in rows_of(pairs(lock.packages)):
        if cuda and row.variants and cuda not in row.variants:
            yield (
                f"{row.name} {version} has no library for CUDA {cuda}, which the other packages bring: "
                f"it has those for {', '.join(row.variants)}"
            )


def _cuda(lock: Lock) -> str:
    return _brought(lock)[0]


def _brought(lock: Lock) -> tuple[str, str]:
    return cuda_of_packages([*pairs(lock.packages), *((one.name, one.version) for one in lock.conda)])
