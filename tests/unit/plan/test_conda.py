"""The layers of a conda environment."""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from mlbox.errors import LockError
from mlbox.lock.model import Base, CondaPackage, LayerGroup, Lock, Package, Target
from mlbox.plan.conda import linked_order
from mlbox.plan.model import BytecodePiece, CondaConfiguredPiece, CondaPiece, EnvPiece
from mlbox.plan.planner import make_plan
from mlbox.project.model import Settings


def conda(name: str, subdir: str = "linux-64") -> CondaPackage:
    """Return a package of conda."""
    return CondaPackage(
        name=name,
        version="3.11.7",
        build="h0",
        subdir=subdir,
        filename=f"{name}-3.11.7-h0.conda",
        sha256="a" * 64,
        channel="tests",
    )


def lock(*names: str, python: str = "3.11", **more: Any) -> Lock:
    """Return a lock of compiled packages; names that begin with a dot are for every machine."""
    packages = tuple(conda(name.lstrip("."), "noarch" if name.startswith(".") else "linux-64") for name in names)
    return Lock(
        inputs="0" * 64,
        target=Target(arch="amd64", python=python, python_full=python and f"{python}.7", glibc="2.41"),
        base=Base(suite="trixie"),
        conda=packages,
        conda_layers=(LayerGroup(name="small-1-of-1", packages=tuple(one.name for one in packages)),),
        **more,
    )


def pieces(lock: Lock, **settings: Any) -> list[Any]:
    """Return all pieces of the plan."""
    return [piece for layer in make_plan(lock, Settings(**settings), (), None).layers for piece in layer.pieces]


def test_condas_python_is_the_interpreter() -> None:
    """There is no virtual environment; only packages for every machine depend on the Python."""
    found = {one.name: one for one in pieces(lock("python", ".six")) if isinstance(one, CondaPiece)}
    assert found["python"].python is UNSET
    assert found["six"].python == "3.11"
    assert not [one for one in pieces(lock("python")) if isinstance(one, EnvPiece)]


def test_compiled_packages_are_the_same_for_every_python() -> None:
    """So environments with different Pythons share their layers."""
    one, other = (pieces(lock("zlib", python=python))[2] for python in ("3.11", "3.12"))
    assert one.key == other.key


def test_byte_code_is_made_of_packages_that_bring_none() -> None:
    """By conda's Python, above the packages."""
    plan = make_plan(lock("python", ".six"), Settings(bytecode=True), (), None)
    kinds = [layer.kind for layer in plan.layers]
    assert kinds == ["base", "conda", "conda", "environment", "project"]
    compiled = [piece for layer in plan.layers for piece in layer.pieces if isinstance(piece, BytecodePiece)]
    assert [(one.label, one.home, one.interpreter.split()[0]) for one in compiled] == [
        ("six 3.11.7", "/opt/mlbox/env/bin", "python-3.11.7-h0.conda")
    ]


def test_configure_names_packages_of_conda_too() -> None:
    """What is neither Debian's nor conda's is refused."""
    (found,) = [one for one in pieces(lock("x", "y"), configure=("y",)) if isinstance(one, CondaConfiguredPiece)]
    assert found.packages == ("y",)
    with pytest.raises(LockError, match="configure names z"):
        pieces(lock("x"), configure=("z",))


@pytest.mark.parametrize(
    ("requires", "order"),
    [
        ({"a": ("c",), "b": (), "c": ("glibc",)}, ["b", "c", "a"]),
        ({"a": ("b",), "b": ("a",), "c": ("a", "b")}, ["b", "a", "c"]),
        ({f"p{n:03}": (f"p{n + 1:03}",) for n in range(900)}, [f"p{n:03}" for n in range(899, -1, -1)]),
    ],
    ids=["levels", "a circle", "a chain"],
)
def test_packages_are_linked_after_what_they_ask_for(requires: dict[str, tuple[str, ...]], order: list[str]) -> None:
    """By name where that says nothing; the later one of two has what both have."""
    packages = [msgspec.structs.replace(conda(name), requires=needs) for name, needs in requires.items()]
    assert linked_order(packages) == order
    whole = msgspec.structs.replace(lock(*sorted(requires)), conda=tuple(packages))
    assert [one.name for one in pieces(whole) if isinstance(one, CondaPiece)] == order


def test_an_environment_without_python() -> None:
    """Starts a shell, and says nothing of a Python."""
    config = make_plan(lock("zlib", python=""), Settings(), (), None).config
    assert config.cmd == ("bash",)
    assert "dev.mlbox.python" not in config.labels
    assert "CONDA_PREFIX=/opt/mlbox/env" in config.env
    assert not [item for item in config.env if item.startswith("VIRTUAL_ENV")]


def test_wheels_lie_above_conda() -> None:
    """Their site-packages is that of conda's Python."""
    wheel = Package(name="six", version="1.0", filename="six-1.0-py3-none-any.whl", sha256="b" * 64)
    mixed = lock("python", packages=(wheel,), layers=(LayerGroup(name="small-1-of-1", packages=("six",)),))
    names = [layer.name for layer in make_plan(mixed, Settings(), (), None).layers]
    assert names == ["debian trixie", "conda environment", "conda small-1-of-1", "small-1-of-1", "project"]
