"""Whether the loader would find what an environment needs: small environments written by hand."""

import pytest

from mlbox.build.binaries import Binary
from mlbox.build.linking import Finding, Ground, Linker

SITE = "opt/mlbox/env/lib/python3.11/site-packages"
GROUND = Ground(names=frozenset({"libc.so.6", "libz.so.1"}), files={"usr/lib/libz.so.1": 100}, glibc=36)
MODULE = "{}.cpython-311-x86_64-linux-gnu.so"


def binary(
    path: str, *needed: str, search: tuple[str, ...] = (), glibc: int = 17, package: str = "demo 1.0", size: int = 1000
) -> Binary:
    soname = path.rpartition("/")[2]
    is_module = path.endswith("_plain.so")
    return Binary(f"{SITE}/{path}", size, soname, needed, search, glibc, is_module, package)


def look(*binaries: Binary, ground: Ground = GROUND, python: str = "3.11") -> tuple[Finding, ...]:
    return Linker(binaries, ground, python, ["cuda", "nvidia-ml"]).findings()


def test_a_module_lacks_a_library() -> None:
    """Directly: it is named with the module and the package."""
    (found,) = look(binary("demo/_x.cpython-311-x86_64-linux-gnu.so", "libGL.so.1", "libc.so.6"))
    assert (found.kind, found.name, found.package, found.of) == ("missing", "libGL.so.1", "demo 1.0", 1)
    assert found.modules == found.needed_by == (f"{SITE}/demo/_x.cpython-311-x86_64-linux-gnu.so",)
    assert found.is_fatal


def test_what_a_module_loads_lacks_a_library() -> None:
    """The module's package is concerned, though another package's file asks."""
    (found,) = look(
        binary("demo/_x.abi3.so", "libqt.so.5", search=("$ORIGIN/../qt/lib",)),
        binary("qt/lib/libqt.so.5", "libmore.so", package="qt 5", search=("${ORIGIN}",)),
        binary("qt/lib/libmore.so", "libGL.so.1", package="qt 5"),
    )
    assert (found.package, found.modules) == ("demo 1.0", (f"{SITE}/demo/_x.abi3.so",))
    assert found.needed_by == (f"{SITE}/qt/lib/libmore.so",)
    assert found.is_fatal


def test_plugins_may_lack_what_they_need() -> None:
    """What no module loads is said, and does not stop a build."""
    (found,) = look(binary("demo/_x.abi3.so", "libc.so.6"), binary("demo/plugins/libodd.so", "libodbc.so.2"))
    assert (found.name, found.modules, found.is_fatal) == ("libodbc.so.2", (), False)


@pytest.mark.parametrize(("failing", "fatal"), [(1, False), (2, False), (3, True), (4, True)])
def test_most_modules_decide(failing: int, fatal: bool) -> None:
    """A package of four modules, some of which are made for a library that one may or may not have."""
    needs = [("libtbb.so.12",) if number < failing else () for number in range(4)]
    (found,) = look(*(binary(f"demo/{MODULE.format(number)}", *need) for number, need in enumerate(needs)))
    assert (len(found.modules), found.of, found.is_fatal) == (failing, 4, fatal)


def test_modules_without_a_tag() -> None:
    """They can be imported by any Python."""
    (found,) = look(binary("demo/_plain.so", "libGL.so.1"))
    assert (found.of, found.is_fatal) == (1, True)


def test_modules_of_another_python_are_none() -> None:
    """A wheel may bring modules for several versions."""
    (found,) = look(binary("demo/_x.cpython-310-x86_64-linux-gnu.so", "libGL.so.1"))
    assert (found.of, found.is_fatal) == (0, False)


@pytest.mark.parametrize(
    "search",
    [("$ORIGIN/../demo.libs",), ("/nowhere", "${ORIGIN}/../demo.libs/"), (f"/{SITE}/demo.libs",), ("relative",), ()],
)
def test_libraries_of_the_environment_are_found(search: tuple[str, ...]) -> None:
    """Where the file says, or anywhere: packages load libraries themselves."""
    binaries = (binary("demo/_x.abi3.so", "libown-1234.so.1", search=search), binary("demo.libs/libown-1234.so.1"))
    assert look(*binaries) == ()


def test_libraries_of_the_system_are_found() -> None:
    """By name, by a folder that the file names, by a path."""
    assert look(binary("demo/_x.abi3.so", "libz.so.1", "/usr/lib/libz.so.1")) == ()
    only_there = Ground(files={"opt/x/liby.so": 1})
    assert look(binary("demo/_x.abi3.so", "liby.so", search=("/opt/x",)), ground=only_there) == ()
    assert [one.name for one in look(binary("demo/_x.abi3.so", "/no/such.so"))] == ["/no/such.so"]


def test_the_interpreter_has_loaded_its_own() -> None:
    """An image's Python may bring its library where only it looks; another Python's is missing."""
    own = Ground(files={"opt/python/lib/libpython3.12.so.1.0": 1})
    module = binary("demo/_x.abi3.so", "libpython3.12.so.1.0", "libpython3.11.so.1.0")
    assert [one.name for one in look(module, ground=own)] == ["libpython3.11.so.1.0"]


def test_the_driver_brings_its_own() -> None:
    """When a container starts: its libraries are not missing, whatever their version."""
    assert look(binary("demo/_x.abi3.so", "libcuda.so.1", "libnvidia-ml.so.1")) == ()
    assert [one.name for one in look(binary("demo/_x.abi3.so", "libcudart.so.12"))] == ["libcudart.so.12"]


def test_a_driver_in_the_environment_is_refused() -> None:
    """It would be loaded in place of the host's; stubs that nobody looks into do no harm."""
    (found,) = look(binary("demo/lib/libcuda.so.1", package="evil 1"))
    assert (found.kind, found.name, found.package, found.is_fatal) == ("driver", "libcuda.so.1", "evil 1", True)
    stub = binary("nvidia/lib/stubs/libcuda.so")
    assert look(stub) == ()
    assert look(stub, binary("demo/_x.abi3.so", search=("$ORIGIN/../nvidia/lib/stubs",)))[0].kind == "driver"


def test_stubs_in_the_search_path_are_refused() -> None:
    """As LD_LIBRARY_PATH of an image for compiling names them."""
    stubs = Ground(files={"usr/local/cuda/lib64/stubs/libcuda.so": 1}, first=("usr/local/cuda/lib64/stubs",))
    (found,) = look(ground=stubs)
    assert (found.kind, found.needed_by) == ("driver", ("usr/local/cuda/lib64/stubs/libcuda.so",))
    assert look(ground=Ground(files=stubs.files)) == ()


def test_glibc_must_be_new_enough() -> None:
    """The newest symbol version decides; an unknown glibc says nothing."""
    module = binary("demo/_x.abi3.so", "libc.so.6", glibc=38)
    (found,) = look(module)
    assert (found.kind, found.name, found.instead, found.is_fatal) == ("glibc", "GLIBC_2.38", "2.36", True)
    assert look(module, ground=Ground(names=GROUND.names)) == ()
    assert look(binary("demo/_x.abi3.so", "libc.so.6", glibc=36)) == ()


def test_large_libraries_in_the_base_too() -> None:
    """They are named with what they take."""
    below = Ground(files={"usr/local/cuda/lib64/libcublas.so.12": 500, "usr/lib/libsmall.so": 1})
    (found,) = look(binary("nvidia/libcublas.so.12", size=400_000_000), binary("demo/libsmall.so"), ground=below)
    assert (found.kind, found.name, found.size, found.is_fatal) == ("twice", "libcublas.so.12", 400_000_000, False)


def test_libraries_that_need_each_other() -> None:
    """End: a circle is walked once."""
    assert (
        look(binary("demo/_x.abi3.so", "liba.so"), binary("demo/liba.so", "libb.so"), binary("demo/libb.so", "liba.so"))
        == ()
    )
