"""Which lock of another tool counts, and how that is shown."""

import hashlib
from pathlib import Path

import pytest

from mlbox.errors import ProjectError
from mlbox.project.discover import inputs_digest, load_project
from mlbox.project.locks import lock_named
from mlbox.project.model import ForeignLock

PROJECT = '[project]\nname = "x"\ndependencies = ["numpy"]\n'


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def reasons(root: Path) -> dict[str, tuple[bool, str]]:
    return {source.path: (source.used, source.reason) for source in load_project(root).sources}


def test_a_lock_comes_before_every_list_of_requirements(tmp_path: Path) -> None:
    """It is there to be used; who asks for what still comes from its spec."""
    make(tmp_path, {"pyproject.toml": PROJECT, "uv.lock": "version = 1", "requirements.txt": "x"})
    project = load_project(tmp_path)

    assert project.foreign == ForeignLock(path="uv.lock", kind="uv", sha256=hashlib.sha256(b"version = 1").hexdigest())
    assert [one.text for one in project.requirements] == ["numpy"]
    assert reasons(tmp_path) == {
        "uv.lock": (True, "it pins what its tool would install"),
        "pyproject.toml": (True, "[project] dependencies"),
        "requirements.txt": (False, "uv.lock comes first"),
    }


def test_the_first_of_several_counts(tmp_path: Path) -> None:
    """The order is the README's; the others say who came first."""
    make(tmp_path, {"pyproject.toml": PROJECT, "uv.lock": "", "pylock.toml": ""})

    assert reasons(tmp_path)["pylock.toml"] == (False, "uv.lock comes first")


@pytest.mark.parametrize("table", ["", "[tool.ruff]", "[tool.mlbox]"])
def test_a_lock_without_its_spec_does_not_count(tmp_path: Path, table: str) -> None:
    """A stray uv.lock beside requirements.txt is not that project's."""
    make(tmp_path, {"pyproject.toml": table, "uv.lock": "", "requirements.txt": "x"})
    project = load_project(tmp_path)

    assert project.foreign is None
    assert reasons(tmp_path)["uv.lock"] == (False, "pyproject.toml has no [project] or [tool.uv]")


def test_pylock_counts_by_itself(tmp_path: Path) -> None:
    """It is made to be installed from, whatever made it."""
    project = load_project(make(tmp_path, {"pylock.toml": ""}))

    assert project.foreign and project.foreign.kind == "pylock"
    assert project.requirements == ()


@pytest.mark.parametrize("given", [False, True], ids=["settings", "command line"])
def test_the_settings_name_another(tmp_path: Path, given: bool) -> None:
    """A lock elsewhere, or a requirements file in place of the lock."""
    files = {"pyproject.toml": PROJECT, "uv.lock": "", "locks/pylock.gpu.toml": "a", "r.txt": "scipy"}
    make(tmp_path, files)

    def load(file: str) -> object:
        if given:
            return load_project(tmp_path, requirements=[file])
        (tmp_path / "mlbox.toml").write_text(f'requirements = ["{file}"]')
        return load_project(tmp_path)

    other = load("locks/pylock.gpu.toml")
    assert other.foreign.path == "locks/pylock.gpu.toml"  # type: ignore[attr-defined]
    assert other.foreign.kind == "pylock"  # type: ignore[attr-defined]
    resolved = load("r.txt")
    assert resolved.foreign is None  # type: ignore[attr-defined]
    assert [one.text for one in resolved.requirements] == ["scipy"]  # type: ignore[attr-defined]
    shown = {source.path: source.reason for source in resolved.sources}  # type: ignore[attr-defined]
    assert shown["uv.lock"] == "what the settings name comes first"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["uv.lock", "r.txt"], "uv.lock is a lock, and r.txt is named beside it"),
        (["missing/uv.lock"], "'missing/uv.lock' does not exist"),
        (["../uv.lock"], "leaves the project's folder"),
    ],
    ids=["two", "missing", "outside"],
)
def test_a_lock_that_cannot_be_named(tmp_path: Path, names: list[str], message: str) -> None:
    """One problem, with its place."""
    make(tmp_path, {"uv.lock": "", "r.txt": "", "mlbox.toml": f"requirements = {names}"})

    with pytest.raises(ProjectError, match=message):
        load_project(tmp_path)


def test_every_byte_of_the_lock_counts(tmp_path: Path) -> None:
    """mlbox.lock is stale when the other lock changed."""
    make(tmp_path, {"pyproject.toml": PROJECT, "uv.lock": "version = 1"})
    before = inputs_digest(load_project(tmp_path))
    (tmp_path / "uv.lock").write_text("version = 1 ")

    assert inputs_digest(load_project(tmp_path)) != before


def test_a_project_without_one_keeps_its_digest(tmp_path: Path) -> None:
    """Locks that are older than imports stay fresh."""
    digest = inputs_digest(load_project(make(tmp_path, {"requirements.txt": "numpy==2.0"})))

    assert digest == "sha256:f513b829388f593e4cff073183a5133d0dea09600de30a776e56657752bc8390"


@pytest.mark.parametrize("kind", ["fifo", "folder", "huge"])
def test_no_lock_at_all(tmp_path: Path, kind: str) -> None:
    """What looks like a lock by its name is read only as far as a lock can go."""
    import os

    make(tmp_path, {"mlbox.toml": 'requirements = ["pylock.toml"]'})
    path = tmp_path / "pylock.toml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(50 << 20)

    with pytest.raises(ProjectError, match=r"pylock.toml.* does not exist|larger than 32 MiB"):
        load_project(tmp_path)


@pytest.mark.parametrize(
    ("file", "kind"),
    [("a/uv.lock", "uv"), ("pylock.toml", "pylock"), ("pylock.dev.toml", "pylock"), ("requirements.txt", "")],
)
def test_names(file: str, kind: str) -> None:
    """The file's name says whose it is."""
    known = lock_named(file)
    assert (known.kind if known else "") == kind
