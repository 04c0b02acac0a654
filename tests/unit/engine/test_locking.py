"""Which Python a project is locked for, and when its lock is stale."""

from pathlib import Path

import pytest

from mlbox.engine.locking import check_fresh, choose_python
from mlbox.errors import LockError
from mlbox.lock.model import Base, Lock, Target
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
