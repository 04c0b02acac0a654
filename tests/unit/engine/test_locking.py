"""Which Python a project is locked for, and when its lock is stale."""

from pathlib import Path

import msgspec
import pytest

from mlbox.build.union import Union
from mlbox.engine import environments, locking
from mlbox.engine.bases import Ground
from mlbox.engine.freshness import LockOptions, check_fresh
from mlbox.engine.locking import Locker
from mlbox.engine.pythons import ChosenPython, choose_interpreter_of, choose_python
from mlbox.errors import LockError
from mlbox.events import SILENT
from mlbox.http import Http
from mlbox.lock.base import Interpreter, System
from mlbox.lock.debian import Asked, DebianLock
from mlbox.lock.model import Base, Lock, Target
from mlbox.lock.python.resolve import LockedPython
from mlbox.paths import Home
from mlbox.project.discover import inputs_digest
from mlbox.project.model import Project, Requirement, Settings


def project(**fields: object) -> Project:
    """A project with nothing but `fields`."""
    return Project(**{"root": Path("/p"), "name": "p", "settings": Settings(), "sources": (), **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "python"),
    [
        (project(settings=Settings(python="3.11"), python_file="3.13"), "3.11"),
        (project(python_file="3.11.4", requires_python=">=3.9"), "3.11"),
        (project(requires_python=">=3.9,<3.12"), "3.11"),
        (project(requires_python=">=3.11.4"), "3.13"),
        (project(requires_python="==3.11.*"), "3.11"),
        (project(), "3.13"),
    ],
)
def test_choice_of_python(one: Project, python: str) -> None:
    """The setting, then .python-version, then the newest that requires-python admits."""
    assert choose_python(one) == python


def test_python_of_a_foreign_lock() -> None:
    """The newest that the lock has files for; where it has them for none, the newest, and the import says why."""
    one = project(requires_python=">=3.9")

    assert choose_python(one, lambda python: python in ("3.9", "3.11")) == "3.11"
    assert choose_python(one, lambda python: False) == "3.13"
    assert choose_python(project(python_file="3.13"), lambda python: False) == "3.13"


def test_no_python_fits() -> None:
    """The error names what there is."""
    with pytest.raises(LockError, match=r"3\.11"):
        choose_python(project(requires_python="==3.12.*"))


def test_a_lock_knows_its_inputs() -> None:
    """A lock is fresh for the requirements it was made from, and for no others."""
    one = project(requirements=(Requirement(text="numpy", origin="requirements.txt:1"),))
    lock = Lock(
        inputs=inputs_digest(one),
        target=Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36"),
        base=Base(suite="bookworm"),
    )
    check_fresh(lock, one)

    with pytest.raises(LockError) as refused:
        check_fresh(lock, project(requirements=(Requirement(text="numpy>2", origin="requirements.txt:1"),)))
    assert "--relock" in (refused.value.hint or "")


def debian(asked: Asked, **_: object) -> DebianLock:
    """Resolves nothing."""
    return DebianLock(suite=asked.suite, python_full="3.11.2", glibc="2.36", debs=())


def test_packages_that_builds_found_stay(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the setting is on and the release the same; what the project names itself is not one of them."""
    monkeypatch.setattr(locking, "lock_debian", debian)
    monkeypatch.setattr(environments, "lock_python", lambda *_, **__: LockedPython((), ()))

    def locked(previous: Lock | None, found: tuple[str, ...] = (), *, auto: bool = True, **settings: object) -> Lock:
        chosen = Settings(python="3.11", auto_system_packages=auto, **settings)  # type: ignore[arg-type]
        locker = Locker(project(settings=chosen), home, Http(), SILENT)
        return locker.lock(previous, LockOptions(arch="amd64", found_packages=found))

    first = locked(None, ("libgl1",))
    assert (first.system_packages, first.found_packages) == (("libgl1",), ("libgl1",))
    more = locked(first, ("libasound2",))
    assert more.found_packages == ("libasound2", "libgl1")
    named = locked(more, system_packages=("libgl1", "git"))
    assert (named.system_packages, named.found_packages) == (("libgl1", "git", "libasound2"), ("libasound2",))
    off = locked(more, ("libx",), auto=False)
    assert (off.system_packages, off.found_packages) == ((), ())
    assert off.inputs != more.inputs
    other = msgspec.structs.replace(more, base=Base(suite="trixie"))
    assert locked(other).found_packages == ()


def ground(*interpreters: Interpreter, suite: str = "bookworm", version: str = "3.12.4") -> Ground:
    """An image with those Pythons."""
    return Ground(
        root=Union(()),
        system=System(name="Debian", suite=suite),
        glibc="2.36",
        env={"PYTHON_VERSION": version},
        status=b"",
        installed={},
        merged=True,
        interpreters=interpreters,
        entrypoint=(),
    )


LOCAL, OTHER = Interpreter(python="3.12", home="/usr/local/bin"), Interpreter(python="3.11", home="/usr/bin")
THEIRS = ChosenPython(python="3.12", full="3.12.4", home="/usr/local/bin")


@pytest.mark.parametrize(
    ("one", "there", "chosen"),
    [
        (project(), ground(LOCAL), ChosenPython(python="3.12", full="3.12.4", home="/usr/local/bin")),
        (
            project(python_file="3.12.1"),
            ground(LOCAL),
            ChosenPython(python="3.12", full="3.12.4", home="/usr/local/bin"),
        ),
        (
            project(settings=Settings(python="3.12.7")),
            ground(LOCAL, version=""),
            ChosenPython(python="3.12", full="3.12.7", home="/usr/local/bin"),
        ),
        (project(requires_python=">=3.9"), ground(), ChosenPython(python="3.11", full="")),
        (project(requires_python=">=3.12.2"), ground(suite="noble"), ChosenPython(python="3.12", full="")),
    ],
)
def test_the_python_of_an_image(one: Project, there: Ground, chosen: ChosenPython) -> None:
    """The image's own; the one of its release when it has none; what the settings say when nothing else does."""
    assert choose_interpreter_of(one, there, "x") == chosen


def test_several_pythons_are_told() -> None:
    """Who did not say which hears which was taken."""
    assert (
        "/usr/local/bin/python3.12 is taken, not 3.11"
        in choose_interpreter_of(project(), ground(LOCAL, OTHER), "x").notes[0]
    )
    assert choose_interpreter_of(project(python_file="3.12"), ground(LOCAL, OTHER), "x").notes == ()


@pytest.mark.parametrize(
    ("one", "there", "words"),
    [
        (project(requires_python=">=3.13"), ground(LOCAL), r"is Python 3\.12\.4, and requires-python is '>=3\.13'"),
        (project(requires_python=">=3.12"), ground(), r"Debian adds to base x is Python 3\.11"),
        (project(requires_python="<3.10"), ground(suite="jammy"), r"Ubuntu adds to base x is Python 3\.10\.12"),
        (project(settings=Settings(python="3.12.1")), ground(LOCAL), r"has Python 3\.12\.4 .* say python = '3\.12\.1'"),
        (project(python_file="3.13"), ground(LOCAL), r"asks for 3\.13"),
        (project(), ground(LOCAL, version=""), "nothing in it says which 3.12"),
    ],
)
def test_an_image_that_contradicts_the_project(one: Project, there: Ground, words: str) -> None:
    """Both sides are named."""
    with pytest.raises(LockError, match=words) as refused:
        choose_interpreter_of(one, there, "x")
    assert refused.value.hint
