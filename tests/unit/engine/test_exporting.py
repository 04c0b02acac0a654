"""What is exported: a project with its lock, a lock alone, an image; and where the paths in it lead."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlbox.cli import main
from mlbox.engine.exporting import ExportOptions, export
from mlbox.errors import LockError, MlboxError, NotFoundError, UsageError
from mlbox.events import SILENT
from mlbox.lock.file import write_lock
from mlbox.lock.model import Base, LayerGroup, Lock, Package, Target
from mlbox.paths import Home
from mlbox.project.discover import inputs_digest, load_project

PACKAGE = Package(
    name="idna",
    version="3.10",
    filename="idna-3.10-py3-none-any.whl",
    sha256="1" * 64,
    wanted_by=("requirements.txt:1",),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of one requirement, with its lock."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "requirements.txt").write_text("idna\n")
    (root / "train.py").write_text("")
    lock(root)
    return root


def lock(root: Path, *packages: Package, **more: Any) -> None:
    """Write the lock of the project as it stands."""
    packages = packages or (PACKAGE,)
    target = Target(
        arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36", accelerator=more.pop("accelerator", "cpu")
    )
    digest = inputs_digest(load_project(root))
    layers = (LayerGroup(name="all", packages=tuple(dict.fromkeys(one.name for one in packages))),)
    write_lock(
        root / "mlbox.lock",
        Lock(inputs=digest, target=target, base=Base(suite="bookworm"), packages=packages, layers=layers, **more),
    )


def exported(home: Home, what: Path | str, form: str, **more: Any) -> str:
    """Return what `mlbox export` would write."""
    return export(home, ExportOptions(what=str(what), form=form, **more), SILENT).data.decode()  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["pylock", "requirements", "environment.yml", "dockerfile", "sbom", "spdx"])
def test_a_project_and_its_lock_say_the_same(root: Path, home: Home, form: str) -> None:
    """Either may be named, and both know the package and its hash."""
    text = exported(home, root, form)
    assert text == exported(home, root / "mlbox.lock", form)
    assert "idna" in text
    assert "1" * 64 in text


def test_a_stale_lock_is_no_project_s(root: Path, home: Home) -> None:
    """The project is refused, its lock alone says what it says; a Dockerfile is of the project."""
    (root / "requirements.txt").write_text("numpy\n")
    assert "idna==3.10" in exported(home, root / "mlbox.lock", "requirements")
    for what, form in ((root, "requirements"), (root / "mlbox.lock", "dockerfile")):
        with pytest.raises(LockError, match="stale"):
            exported(home, what, form)


@pytest.mark.parametrize(
    ("what", "problem", "said"),
    [
        ("empty", LockError, "there is no mlbox.lock"),
        ("nothing", NotFoundError, "no image nothing"),
        ("bad", LockError, "bad: "),
    ],
    ids=["no lock", "no image", "damaged"],
)
def test_what_cannot_be_exported(root: Path, home: Home, what: str, problem: type[MlboxError], said: str) -> None:
    """Each says what is missing."""
    (root / "empty").mkdir()
    (root / "empty/requirements.txt").touch()
    (root / "bad").write_bytes(b"\xff\0")
    path = root / what
    with pytest.raises(problem, match=said):
        exported(home, path if path.exists() else what, "pylock")


def test_paths_are_seen_from_the_file(root: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels and the project's own files are found from where pylock.toml lies."""
    local = msgspec.structs.replace(PACKAGE, index="direct", url="libs/idna-3.10-py3-none-any.whl")
    lock(root, local)
    output = root / "locks/deep/pylock.toml"
    archive = tomllib.loads(exported(home, root, "pylock", output=output))["packages"][0]["archive"]
    assert archive["path"] == "../../libs/idna-3.10-py3-none-any.whl"
    lock(root)
    monkeypatch.chdir(root)
    wheel = tomllib.loads(exported(home, ".", "pylock"))["packages"][0]["wheels"][0]
    assert wheel["path"] == "wheels/idna-3.10-py3-none-any.whl"


def test_an_accelerator_is_chosen(root: Path, home: Home) -> None:
    """Of several in a lock the first counts, or the one that is named."""
    (root / "mlbox.toml").write_text('accelerators = ["cpu", "cu126"]\n')
    cuda = msgspec.structs.replace(PACKAGE, version="4", filename="idna-4-py3-none-any.whl", accelerators=("cu126",))
    lock(root, msgspec.structs.replace(PACKAGE, accelerators=("cpu",)), cuda, accelerators=("cpu", "cu126"))
    assert "idna==3.10" in exported(home, root, "requirements")
    assert "idna==4" in exported(home, root, "requirements", accelerator="cu126")
    with pytest.raises(UsageError, match="rocm"):
        exported(home, root, "requirements", accelerator="rocm7.1")


def test_an_export_is_no_part_of_itself(
    root: Path, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written twice into the project it is the same; its .dockerignore lets in the image's files."""
    monkeypatch.setenv("MLBOX_HOME", str(home.root))
    monkeypatch.chdir(root)
    found = []
    for _ in range(2):
        assert main.run(["export", "--format", "dockerfile", "-o", "Dockerfile"]) == 0
        found.append([(root / name).read_text() for name in ("Dockerfile", "Dockerfile.dockerignore")])
    assert found[0] == found[1]
    assert found[0][1].splitlines() == ["**", "!requirements.txt", "!train.py"]
    assert capsys.readouterr().out == ""


def test_conda_lock_needs_conda(root: Path, home: Home) -> None:
    """There is nothing that it could say without."""
    with pytest.raises(LockError, match="no conda packages"):
        exported(home, root, "conda-lock")
