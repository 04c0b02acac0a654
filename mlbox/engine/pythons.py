"""Which Python an environment gets: what the project says, and what its base has."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from mlbox.errors import LockError
from mlbox.lock.base import choose_interpreter, full_version
from mlbox.lock.debian import RELEASES, distribution_of, series_of
from mlbox.project.model import Project

if TYPE_CHECKING:
    from mlbox.engine.bases import Ground


def choose_python(project: Project, is_locked: Callable[[str], bool] = lambda python: True) -> str:
    """Return the Python ('3.11') to lock for: what the settings say, .python-version, else the newest that fits.

    The newest for which a foreign lock has its files (`is_locked`), when there is one. Raises LockError when
    nothing fits.
    """
    allowed = SpecifierSet(project.requires_python)
    stated = project.settings.python or project.python_file
    if stated:
        return minor(stated)
    fitting = [python for python in RELEASES.values() if _admits(allowed, python)]
    if not fitting:
        raise LockError(
            f"requires-python {project.requires_python!r} admits none of the Pythons of Debian's releases: "
            + ", ".join(RELEASES.values()),
            hint="widen requires-python",
        )
    fitting.sort(key=Version, reverse=True)
    return next(filter(is_locked, fitting), fitting[0])


def _admits(allowed: SpecifierSet, python: str) -> bool:
    # Which patch release the base has is known only after it is resolved: any of them may fit.
    return allowed.contains(f"{python}.0") or allowed.contains(f"{python}.99")


def minor(version: str) -> str:
    """Return '3.11' of '3.11.4'."""
    return ".".join(version.split(".")[:2])


class ChosenPython(msgspec.Struct, frozen=True, kw_only=True):
    """The Python of an image to lock for."""

    python: str
    full: str
    """Empty until the debs that bring it are known."""
    home: str = ""
    """Empty when it comes with debs."""
    notes: tuple[str, ...] = ()


def choose_interpreter_of(project: Project, ground: "Ground", name: str) -> ChosenPython:
    """Return the Python of the image `name` that the project gets; LockError when it contradicts the project."""
    stated = project.settings.python or project.python_file
    one = choose_interpreter(ground.interpreters, minor(stated), name=name, system=ground.system)
    if one is None:
        suite = ground.system.suite
        series = series_of(suite)
        assert series  # noqa: S101 - without packages that fit, one of its interpreters was chosen
        what = f"the Python that {distribution_of(suite).name} adds to base {name}"
        check_requires(project, series.python_full, what)
        return ChosenPython(python=series.python, full="")
    found = full_version(ground.root, one, ground.env, ground.installed)
    exact = project.settings.python if project.settings.python.count(".") == 2 else ""
    if found and exact not in ("", found):
        raise LockError(
            f"base {name} has Python {found} ({one.path}), and the project's settings say python = {exact!r}",
            hint=f'write python = "{one.python}", or take a base with {exact}',
        )
    if not (found or exact):
        raise LockError(
            f"base {name}: nothing in it says which {one.python} {one.path} exactly is",
            hint=f'say it: python = "{one.python}.4"',
        )
    check_requires(project, found or exact, f"{one.path} of base {name}")
    others = ", ".join(f"{other.python} ({other.path})" for other in ground.interpreters if other.python != one.python)
    notes = () if stated or not others else (f"the base has several Pythons: {one.path} is taken, not {others}",)
    return ChosenPython(python=one.python, full=found or exact, home=one.home, notes=notes)


def check_requires(project: Project, full: str, what: str) -> None:
    """Raise LockError when the project does not admit the Python `full`, which is that of `what`."""
    if not SpecifierSet(project.requires_python).contains(full, prereleases=True):
        raise LockError(
            f"{what} is Python {full}, and requires-python is {project.requires_python!r}",
            hint="take another base, or widen requires-python",
        )
