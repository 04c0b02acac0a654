"""How locked sources are built: what the project says of each, and the CUDA compiler where one is needed. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from mlbox.errors import ResolveError
from mlbox.lock.model import Package
from mlbox.lock.python.asked import Asked
from mlbox.lock.python.sdist import Source
from mlbox.project.building import config_lines
from mlbox.project.model import BuildOptions, Project

Sources = Mapping[str, Source]
"""What building each source takes, by normalised name."""

_FIRST_WITH_NVCC = 13
"""The wheels of CUDA 12 and older have ptxas and headers, but neither nvcc nor cudafe++."""
_COMPILER = ("nvidia-cuda-nvcc", "nvidia-cuda-runtime")
_HEADERS = "nvidia-cuda-cccl"
"""Thrust and CUB, which most device code includes; their wheels are made for some CUDAs and fit newer ones."""
_CUDA = re.compile(r"cu([0-9]{2})([0-9])")
_RUNTIME = re.compile(r"nvidia-cuda-runtime(-cu[0-9]{2})?")


def options_of(project: Project, name: str) -> BuildOptions:
    """Return what the settings say about building the package of that normalised name."""
    from packaging.utils import canonicalize_name

    found = (options for key, options in project.settings.build.items() if canonicalize_name(key) == name)
    return next(found, BuildOptions())


def with_options(packages: Sequence[Package], sources: Sources, project: Project, asked: Asked) -> tuple[Package, ...]:
    """Return `packages`, of which each source says how it is built."""
    return tuple(
        _with_options(package, sources[package.name], project, asked) if package.name in sources else package
        for package in packages
    )


def _with_options(package: Package, source: Source, project: Project, asked: Asked) -> Package:
    options = options_of(project, package.name)
    places = asked.origins.get(package.name, ())
    lines = [line for one in project.requirements if one.origin in places for line in one.config_settings]
    return msgspec.structs.replace(
        package,
        compiled=source.compiled,
        build_env=tuple(f"{name}={value}" for name, value in sorted(options.env.items())),
        config_settings=(*lines, *config_lines(options.config_settings)),
        build_gpu=options.gpu,
        build_network=options.network,
    )


def cuda_of(packages: Sequence[Package], accelerator: str) -> str:
    """Return the CUDA ('12.8') that the environment has, else that its accelerator names; '' when nothing says."""
    for package in packages:
        if _RUNTIME.fullmatch(package.name):
            return ".".join(package.version.split(".")[:2])
    named = _CUDA.fullmatch(accelerator)
    return f"{named[1]}.{named[2]}" if named else ""


def cuda_requires(packages: Sequence[Package], accelerator: str, wanting: str) -> Iterator[str]:
    """Yield the requirements that bring nvcc; ResolveError for a CUDA whose compiler no wheel has.

    `wanting` is what is compiled with it, for people.
    """
    cuda = cuda_of(packages, accelerator)
    if cuda and int(cuda.partition(".")[0]) < _FIRST_WITH_NVCC:
        raise ResolveError(
            f"device code of {wanting} is to be compiled with CUDA {cuda}, whose compiler no wheels have",
            hint=f"[tool.mlbox] build-base names an image that has it: one of CUDA {cuda} with compilers (its tag has "
            "'devel'), of the same distribution as the base",
        )
    major, _, minor = cuda.partition(".")
    yield from (f"{name}=={cuda}.*" if cuda else name for name in _COMPILER)
    yield f"{_HEADERS}>={major}.0,<{major}.{int(minor) + 1}" if cuda else _HEADERS
