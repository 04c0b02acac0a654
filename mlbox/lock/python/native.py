"""What of a source distribution needs a compiler, told from the names of its files and from its back end. Pure."""

from collections.abc import Iterable
from pathlib import PurePosixPath

_SUFFIXES = {
    ".c": "c",
    ".cc": "c++",
    ".cpp": "c++",
    ".cxx": "c++",
    ".cu": "cuda",
    ".f": "fortran",
    ".f90": "fortran",
    ".f95": "fortran",
    ".for": "fortran",
    ".pyx": "cython",
}
"""By suffix in lower case; Rust is told by Cargo.toml, which every crate has and few tests do."""
# What a build does not compile, even where a source has it: what tests, examples and documents are made of.
_ASIDE = {"test", "tests", "testing", "doc", "docs", "example", "examples", "benchmark", "benchmarks", "bench", "demo"}
_ASIDE |= {"fixtures", "testdata", "samples", ".github"}
_PURE = ("flit_core.buildapi", "flit.buildapi", "poetry.masonry.api")
"""Back ends that have no way to compile anything."""
_NATIVE = {
    "maturin": "rust",
    "mesonpy": "c",
    "scikit_build_core.build": "c++",
    "py_build_cmake.build": "c++",
    "sipbuild.api": "c++",
}
_REQUIRED = {
    "cffi": "c",
    "cython": "cython",
    "mypy": "c",
    "numpy": "c",
    "pybind11": "c++",
    "nanobind": "c++",
    "setuptools-rust": "rust",
    "scikit-build": "c++",
}
"""Build requirements that nobody has who does not compile; for what mypyc and cffi write, no source is there."""


def languages_of(paths: Iterable[str], backend: str, requires: Iterable[str]) -> tuple[str, ...]:
    """Return the languages, sorted, that building a source with the files `paths` (below its top folder) compiles.

    Empty for pure Python. One file too many costs a stage that nobody needs, one too few a build that fails: what is
    not known to be aside counts.
    """
    if backend in _PURE:
        return ()
    found = {language for path in paths if (language := _language(path))}
    if backend in _NATIVE:
        found.add(_NATIVE[backend])
    found |= {_REQUIRED[name] for line in requires if (name := _name(line)) in _REQUIRED}
    return tuple(sorted(found))


def _language(path: str) -> str:
    pure = PurePosixPath(path)
    if any(part.lower() in _ASIDE for part in pure.parts[:-1]):
        return ""
    return "rust" if pure.name == "Cargo.toml" else _SUFFIXES.get(pure.suffix.lower(), "")


def _name(line: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        return canonicalize_name(Requirement(line).name)
    except InvalidRequirement:
        return ""
