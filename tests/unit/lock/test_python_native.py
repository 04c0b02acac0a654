"""Which sources need a compiler, and which compiler."""

import pytest

from mlbox.lock.python.native import languages_of


@pytest.mark.parametrize(
    ("paths", "backend", "requires", "expected"),
    [
        (["pkg/__init__.py", "setup.py", "README.md"], "", ["setuptools"], ()),
        (["src/_speedups.c"], "setuptools.build_meta", ["setuptools"], ("c",)),
        (["a.CPP", "b.cc", "c.cxx"], "", [], ("c++",)),
        (["pkg/fast.pyx"], "setuptools.build_meta", ["Cython>=3"], ("cython",)),
        (["csrc/k.cu", "csrc/k.cpp"], "", [], ("c++", "cuda")),
        (["lib/solve.f90"], "mesonpy", ["meson-python"], ("c", "fortran")),
        (["Cargo.toml", "src/lib.rs"], "maturin", ["maturin>=1"], ("rust",)),
        (["pkg/ffi.py"], "setuptools.build_meta", ["cffi>=1.0"], ("c",)),
        (["a.py"], "setuptools.build_meta", ["setuptools-rust"], ("rust",)),
        (["a.py"], "scikit_build_core.build", ["scikit-build-core"], ("c++",)),
        (["include/x.h"], "", [], ()),
        (["tests/data/x.c", "pkg/tests/y.cpp", "docs/z.cu", "examples/Cargo.toml"], "", [], ()),
        (["pkg/blob.c"], "flit_core.buildapi", ["flit_core"], ()),
        (["a.py"], "", ["not a requirement !!"], ()),
    ],
)
def test_languages(paths: list[str], backend: str, requires: list[str], expected: tuple[str, ...]) -> None:
    assert languages_of(paths, backend, requires) == expected
