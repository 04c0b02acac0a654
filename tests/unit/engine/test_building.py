"""From a project to its lock, as the commands ask for it."""

from pathlib import Path

import msgspec
import pytest

from mlbox.build.linking import Finding
from mlbox.engine import locking
from mlbox.engine.building import ProjectOptions, Workshop, epoch_of_environment
from mlbox.engine.freshness import LockOptions
from mlbox.errors import BuildError, LockError, ProjectError, UsageError
from mlbox.lock.file import read_lock, write_lock
from mlbox.lock.model import Base, Folder, Lock, Target
from mlbox.paths import Home
from mlbox.plan.model import ProjectPiece
from mlbox.project.discover import inputs_digest, load_project

NEW = Lock(
    inputs="0" * 64,
    target=Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36"),
    base=Base(suite="bookworm"),
)


class Talk:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def step(self, what: str) -> None:
        self.said.append(what)

    def note(self, text: str) -> None:
        self.said.append(text)

    def expect(self, what: str, total: int) -> None: ...

    def advance(self, what: str, amount: int) -> None: ...


class FakeLocker:
    """Resolves everything to NEW."""

    def __init__(self, *_: object) -> None: ...

    def lock(self, previous: Lock | None, options: LockOptions) -> Lock:
        assert previous is None
        return NEW


@pytest.fixture
def talk() -> Talk:
    return Talk()


@pytest.fixture
def workshop(tmp_path: Path, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setattr(locking, "Locker", FakeLocker)
    root = tmp_path / "project"
    root.mkdir()
    (root / "requirements.txt").write_text("six")
    return Workshop(Home(tmp_path / "home"), ProjectOptions(root=root), talk)


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n", "", "version = 99\n", "version = 1\n"])
def test_locking_mends_a_damaged_lock(workshop: Workshop, talk: Talk, text: str) -> None:
    """Building refuses it with the command that makes it again, and that command does."""
    path = workshop.options.root / "mlbox.lock"
    path.write_text(text)
    with pytest.raises(LockError) as refused:
        workshop.ready_lock(relock=False)
    assert "mlbox lock" in (refused.value.hint or "")

    assert workshop.ready_lock(relock=True) == NEW
    assert read_lock(path) == NEW
    assert "versions may move" in talk.said[0]


def test_a_folder_that_is_not_in_the_image_is_said(workshop: Workshop) -> None:
    """It would be installed from a place that is empty."""
    root = workshop.options.root
    (root / "libs/thing/src/thing").mkdir(parents=True)
    (root / "libs/thing/src/thing/__init__.py").touch()
    (root / "libs/thing/pyproject.toml").write_text('[project]\nname = "thing"\nversion = "1"\n')
    lock = msgspec.structs.replace(NEW, folders=(Folder(name="thing", path="libs/thing"),))
    (piece,) = workshop.plan(lock).layers[-1].pieces
    assert isinstance(piece, ProjectPiece) and piece.folders
    assert [(one.name, one.source) for one in piece.folders] == [("thing", "libs/thing/src")]
    (root / ".mlboxignore").write_text("libs\n")
    with pytest.raises(ProjectError, match="libs/thing: nothing of libs/thing/src is in the image"):
        workshop.plan(lock)
    other = msgspec.structs.replace(NEW, folders=(Folder(name="other", path="libs/thing"),))
    with pytest.raises(LockError, match=r"has the folder libs/thing as 'other', which it is not called"):
        workshop.plan(other)


def test_locking_what_is_locked_says_so(workshop: Workshop, talk: Talk) -> None:
    """And leaves the file alone."""
    path = workshop.options.root / "mlbox.lock"
    write_lock(path, msgspec.structs.replace(NEW, inputs=inputs_digest(load_project(path.parent))))
    before = path.stat()

    workshop.lock(LockOptions())

    assert talk.said == ["mlbox.lock is up to date"]
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_lock_that_is_no_file_is_left_alone(workshop: Workshop) -> None:
    (workshop.options.root / "mlbox.lock").mkdir()
    with pytest.raises(LockError, match="Is a directory"):
        workshop.lock(LockOptions())


@pytest.mark.parametrize("text", ["x", "-1", "1e9", " 5", "\u0663", str(8**11)])
def test_times_that_are_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(UsageError, match="is no time"):
        epoch_of_environment()


MISSING = Finding(kind="missing", name="libGL.so.1", package="demo 1", modules=("a",), of=1)


@pytest.fixture
def lacking(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A project that wants packages added, in whose image libGL.so.1 is missing until libgl1 is locked.

    Yields what was added to the lock.
    """
    (workshop.options.root / "mlbox.toml").write_text("auto-system-packages = true\n")
    added: list[tuple[str, ...]] = []

    def lock(_: Workshop, options: LockOptions) -> Lock:
        added.append(options.found_packages)
        return msgspec.structs.replace(NEW, system_packages=options.found_packages)

    def prove(_store: object, _image: object, _plan: object, lock: Lock) -> tuple[tuple[Finding, ...], bool]:
        return () if "libgl1" in lock.system_packages else (MISSING,), True

    monkeypatch.setattr(Workshop, "lock", lock)
    monkeypatch.setattr(Workshop, "_image", lambda *_: "image")
    monkeypatch.setattr(Workshop, "plan", lambda *_: "plan")
    monkeypatch.setattr("mlbox.engine.linking.prove", prove)
    return added


def test_a_build_adds_what_is_missing(workshop: Workshop, talk: Talk, lacking: list[tuple[str, ...]]) -> None:
    """To the lock, and says so; from that lock the next build has nothing to add."""
    _, _, lock = workshop._proven("plan", NEW, locked=False)  # type: ignore[arg-type]
    assert lacking == [("libgl1",)]
    assert "libgl1" in talk.said[0]
    assert workshop._proven("plan", lock, locked=False)[2] == lock  # type: ignore[arg-type]
    assert len(lacking) == 1


def test_a_locked_build_adds_nothing(workshop: Workshop, lacking: list[tuple[str, ...]]) -> None:
    """It fails, as one whose project does not want packages added."""
    with pytest.raises(BuildError, match=r"libGL\.so\.1"):
        workshop._proven("plan", NEW, locked=True)  # type: ignore[arg-type]
    (workshop.options.root / "mlbox.toml").write_text("")
    del workshop.project
    with pytest.raises(BuildError, match=r"libGL\.so\.1"):
        workshop._proven("plan", NEW, locked=False)  # type: ignore[arg-type]
    assert lacking == []
