"""What a built wheel may not need: anything of the place it was built in."""

import pytest

from mlbox.build.binaries import Binary
from mlbox.build.flaws import Flaw, Surroundings, describe, flaws_of, system_packages
from mlbox.build.linking import Ground

SITE = "opt/mlbox/env/lib/python3.11/site-packages/demo"
GROUND = Ground(names=frozenset({"libc.so.6"}), files={"usr/lib/libc.so.6": 1, "opt/own/lib/libx.so": 1})
AROUND = Surroundings(
    ground=GROUND,
    stage={"libpq.so.5": "libpq5", "libodd.so": ""},
    requirements={"libtorch.so": "torch", "libgone.so": "buildonly"},
    environment=frozenset({"torch", "demo"}),
    accepted=frozenset({"libGL.so.1"}),
    driver=("cuda",),
)


def binary(*needed: str, search: tuple[str, ...] = (), name: str = "_x.abi3.so") -> Binary:
    return Binary(f"{SITE}/{name}", 1000, name, needed, search)


def look(*binaries: Binary, is_pure: bool = False) -> list[Flaw]:
    return flaws_of(binaries, "3.11", AROUND, is_pure=is_pure)


@pytest.mark.parametrize("name", ["libc.so.6", "libtorch.so", "libGL.so.1", "libcuda.so.1"])
def test_what_will_be_there(name: str) -> None:
    """The image's, an environment's package's, what is accepted, the driver's."""
    assert look(binary(name)) == []


def test_what_the_wheel_brings() -> None:
    assert look(binary("libown.so", search=("$ORIGIN",)), binary(name="libown.so")) == []


@pytest.mark.parametrize(
    ("name", "kind", "package", "fatal"),
    [
        ("libpq.so.5", "stage", "libpq5", True),
        ("libodd.so", "stage", "", True),
        ("libgone.so", "requirement", "buildonly", True),
        ("libnowhere.so.1", "missing", "", False),
    ],
)
def test_what_will_be_gone(name: str, kind: str, package: str, fatal: bool) -> None:
    (flaw,) = look(binary(name, "libc.so.6"))
    assert (flaw.kind, flaw.name, flaw.package, flaw.is_fatal) == (kind, name, package, fatal)
    assert flaw.files == (f"{SITE}/_x.abi3.so",)
    assert name in describe(flaw)


def test_which_packages_mend_it() -> None:
    flaws = look(binary("libpq.so.5", "libodd.so", "libgone.so"), binary("libpq.so.5", name="_y.abi3.so"))
    assert list(system_packages(flaws)) == ["libpq5"]
    assert "libpq5" in describe(flaws[-1])
    assert "and 1 more" in describe(flaws[-1])


@pytest.mark.parametrize(
    ("folder", "foreign"),
    [
        ("$ORIGIN/../lib", False),
        ("${ORIGIN}", False),
        ("/opt/own/lib", False),
        ("/opt/mlbox/env/lib/python3.11/site-packages/torch/lib", False),
        ("/build/source/lib", True),
        ("/build/cuda/lib64", True),
        ("/tmp/x", True),
        ("/usr/lib/nowhere", True),
        ("lib", True),
        ("/opt/own/../../build/x", True),
    ],
)
def test_where_libraries_are_looked_for(folder: str, foreign: bool) -> None:
    found = look(binary("libc.so.6", search=(folder,)))
    assert [(flaw.kind, flaw.name, flaw.is_fatal) for flaw in found] == ([("search", folder, False)] if foreign else [])


def test_a_pure_wheel_has_no_libraries() -> None:
    (flaw,) = look(binary(), is_pure=True)
    assert (flaw.kind, flaw.is_fatal) == ("pure", False)
    assert "calls itself pure" in describe(flaw)
    assert look(is_pure=True) == []
