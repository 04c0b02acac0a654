"""The project's files: which are found, how they are remembered, and how they are copied."""

import json
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mlbox.build.project import fill_project, scan_project
from mlbox.errors import ProjectError
from mlbox.plan.model import ProjectFile, ProjectPiece
from mlbox.project.model import Package, Settings, Task
from mlbox.store.tree import below, diff_id_of


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    return root


def write(root: Path, *paths: str, text: str = "x") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def found(root: Path, settings: Settings | None = None, notes: list[str] | None = None) -> list[str]:
    keep = notes if notes is not None else []
    files = scan_project(root, settings or Settings(), cache=root.parent / "cache", note=keep.append)
    return [file.path for file in files]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans happen an hour from now: what was just written is no longer too young to be remembered."""
    now = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr("mlbox.build.scan.time.time_ns", lambda: now)


def test_files_are_found_in_the_order_of_the_tar(repo: Path) -> None:
    write(repo, "a/b.py", "a-b.py", "é.py", "Z")
    assert found(repo) == ["Z", "a-b.py", "a/b.py", "é.py"]


def test_what_tools_leave_behind_stays_out(repo: Path) -> None:
    write(repo, "a.py", ".git/config", "p/__pycache__/a.pyc", ".mypy_cache/x", "p/b.pyc", "mlbox.lock", "sub/.git")
    write(repo, "any-name/pyvenv.cfg", "any-name/lib/x.py", "demo.egg-info/PKG-INFO")
    assert found(repo) == ["a.py"]


def test_mlboxignore_replaces_dockerignore_which_replaces_gitignore(repo: Path) -> None:
    write(repo, "git", "docker", "mlbox", "sub/git")
    (repo / ".gitignore").write_text("git\n.*ignore\n")
    assert found(repo) == ["docker", "mlbox"]
    (repo / ".dockerignore").write_text("docker\n.*ignore\n")
    assert found(repo) == ["git", "mlbox", "sub/git"]
    (repo / ".mlboxignore").write_text("mlbox\n.*ignore\n")
    assert found(repo) == ["docker", "git", "sub/git"]


def test_nested_gitignore_files(repo: Path) -> None:
    write(repo, "a.log", "sub/a.log", "sub/deep/b.log", "sub/c.txt")
    write(repo, ".gitignore", text="*.log\n")
    write(repo, "sub/.gitignore", text="!b.log\n/c.txt\n")
    assert found(repo) == [".gitignore", "sub/.gitignore", "sub/deep/b.log"]


def test_docker_exceptions_below_an_ignored_folder(repo: Path) -> None:
    write(repo, "data/x.bin", "data/keep/a.csv", "data/keep/b.bin")
    write(repo, ".dockerignore", text="data\n!data/keep/*.csv\n")
    assert found(repo) == [".dockerignore", "data/keep/a.csv"]


def test_settings_ignore_comes_on_top(repo: Path) -> None:
    write(repo, "a.csv", "b.csv", "c.py")
    write(repo, ".gitignore", text="*.csv\n.gitignore")
    assert found(repo, Settings(ignore=("c.py", "!b.csv"))) == ["b.csv"]


def test_folders_of_tasks_stay_out(repo: Path) -> None:
    write(repo, "outputs/model.bin", "data/x", "src/outputs/code.py")
    train = Task(command=("true",), outputs="./outputs/", inputs=("data",))
    assert found(repo, Settings(train=train)) == ["src/outputs/code.py"]


def test_credentials_stay_out_with_a_note(repo: Path) -> None:
    write(repo, ".env", "sub/key.pem", ".aws/credentials", "a.py", ".env.example")
    notes: list[str] = []
    assert found(repo, notes=notes) == [".env.example", "a.py"]
    (note,) = notes
    assert ".env" in note
    assert "sub/key.pem" in note
    assert ".mlboxignore" in note
    again: list[str] = []
    assert found(repo, notes=again) == [".env.example", "a.py"]
    assert again == notes


def test_credentials_that_are_asked_for_stay(repo: Path) -> None:
    write(repo, ".env", "ca.pem", "id_rsa")
    write(repo, ".mlboxignore", text="!.env\n")
    assert found(repo, Settings(ignore=("!ca.pem",))) == [".env", ".mlboxignore", "ca.pem"]


def test_a_gitignore_exception_does_not_publish_credentials(repo: Path) -> None:
    write(repo, ".env")
    write(repo, ".gitignore", text="!.env\n")
    assert found(repo) == [".gitignore"]


def test_ignored_credentials_need_no_note(repo: Path) -> None:
    write(repo, ".env")
    write(repo, ".gitignore", text=".env\n")
    notes: list[str] = []
    assert found(repo, notes=notes) == [".gitignore"]
    assert notes == []


def test_links_inside_stay_links_and_are_not_followed(repo: Path) -> None:
    write(repo, "real/a.py")
    (repo / "link").symlink_to("real")
    (repo / "real/up").symlink_to("../real/a.py")
    (repo / "dangling").symlink_to("nowhere")
    files = {file.path: file.target for file in scan_project(repo, Settings(), cache=repo.parent / "cache")}
    assert files == {"link": "real", "dangling": "nowhere", "real/a.py": "", "real/up": "../real/a.py"}


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../outside", ".."])
def test_links_that_leave_are_refused(repo: Path, target: str) -> None:
    (repo / "link").symlink_to(target)
    with pytest.raises(ProjectError, match=r"^link: a link that leaves the project") as caught:
        found(repo)
    assert "/link" in (caught.value.hint or "")
    write(repo, ".mlboxignore", text="/link\n")
    assert found(repo) == [".mlboxignore"]


def test_sockets_and_pipes_are_left_out_with_a_note(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(repo, "a.py")
    os.mkfifo(repo / "pipe")
    monkeypatch.chdir(repo)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        notes: list[str] = []
        assert found(repo, notes=notes) == ["a.py"]
    assert "pipe, sock" in notes[0]


def test_modes_are_normalised(repo: Path) -> None:
    write(repo, "a", "b", "c")
    (repo / "a").chmod(0o600)
    (repo / "b").chmod(0o700)
    (repo / "c").chmod(0o4777)
    modes = [file.mode for file in scan_project(repo, Settings(), cache=repo.parent / "cache")]
    assert modes == [0o644, 0o755, 0o755]


def test_a_name_that_is_no_text_is_refused(repo: Path) -> None:
    (repo / os.fsdecode(b"\xff.py")).write_text("x")
    with pytest.raises(ProjectError, match="not UTF-8"):
        found(repo)


@pytest.mark.usefixtures("later")
def test_unchanged_files_are_not_read_again(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(repo, "a.py", "sub/b.py", ".gitignore")
    first = scan_project(repo, Settings(), cache=repo.parent / "cache")
    monkeypatch.setattr("mlbox.build.scan._hash", lambda *args: pytest.fail("read again"))
    monkeypatch.setattr("mlbox.build.scan.os.scandir", lambda *args: pytest.fail("listed again"))
    assert scan_project(repo, Settings(), cache=repo.parent / "cache") == first


@pytest.mark.usefixtures("later")
def test_every_kind_of_change_is_seen(repo: Path) -> None:
    write(repo, "a.py", "sub/b.py")
    cache = repo.parent / "cache"

    def changed(act: Callable[[], object]) -> tuple[ProjectFile, ...]:
        before = scan_project(repo, Settings(), cache=cache)
        act()
        after = scan_project(repo, Settings(), cache=cache)
        assert after != before
        assert after == scan_project(repo, Settings(), cache=repo.parent / "no-cache")
        return after

    changed(lambda: (repo / "a.py").write_text("y"))
    changed(lambda: (repo / "a.py").chmod(0o755))
    changed(lambda: write(repo, "sub/deep/c.py"))
    changed((repo / "sub/b.py").unlink)
    changed(lambda: write(repo, "sub/.gitignore", text="deep\n"))
    changed(lambda: write(repo, "sub/.gitignore", text="x\n"))
    changed(lambda: write(repo, ".dockerignore", text="a.py\n"))
    changed(lambda: (repo / "sub/deep/c.py").rename(repo / "c.py"))


def test_what_is_too_young_is_not_remembered(repo: Path) -> None:
    # A second write within the same tick of the clock would leave all times as they are.
    write(repo, "a.py")
    assert found(repo) == ["a.py"]
    assert not (repo.parent / "cache").exists()


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"\x80", b"garbage"])
@pytest.mark.usefixtures("later")
def test_a_damaged_memory_is_forgotten(repo: Path, damage: bytes) -> None:
    write(repo, "a.py")
    found(repo)
    (cached,) = (repo.parent / "cache").iterdir()
    cached.write_bytes(damage)
    assert found(repo) == ["a.py"]


def test_a_memory_that_cannot_be_written_is_no_error(repo: Path) -> None:
    write(repo, "a.py")
    write(repo.parent, "file")
    assert scan_project(repo, Settings(), cache=repo.parent / "file/cache")


def piece(repo: Path, **options: object) -> ProjectPiece:
    files = scan_project(repo, Settings(), cache=repo.parent / "cache")
    return ProjectPiece(workdir="/workspace", python="3.11", files=files, **options)  # type: ignore[arg-type]


def test_files_are_copied_below_the_working_directory(repo: Path, tmp_path: Path) -> None:
    write(repo, "a.py", "sub/b.sh", text="hello")
    (repo / "sub/b.sh").chmod(0o700)
    (repo / "link").symlink_to("sub/b.sh")
    tree = fill_project(tmp_path / "out", piece(repo), repo)
    assert [entry.path for entry in tree.entries] == [
        *("workspace", "workspace/a.py", "workspace/link", "workspace/sub", "workspace/sub/b.sh")
    ]
    assert (tmp_path / "out/workspace/a.py").read_text() == "hello"
    assert stat.S_IMODE((tmp_path / "out/workspace/sub/b.sh").stat().st_mode) == 0o755
    assert (tmp_path / "out/workspace/link").readlink() == Path("sub/b.sh")
    assert tree.diff_id == diff_id_of(tree.entries, below(tmp_path / "out"))


def test_an_empty_project_has_a_working_directory(repo: Path, tmp_path: Path) -> None:
    assert [entry.path for entry in fill_project(tmp_path / "out", piece(repo), repo).entries] == ["workspace"]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("other"),
        lambda path: path.write_text("xx"),
        lambda path: path.write_text(""),
        lambda path: path.unlink(),
    ],
)
def test_a_file_that_changes_meanwhile_is_named(repo: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    write(repo, "sub/a.py", text="x")
    scanned = piece(repo)
    change(repo / "sub/a.py")
    with pytest.raises(ProjectError, match=r"^sub/a\.py: changed while being read") as caught:
        fill_project(tmp_path / "out", scanned, repo)
    assert "again" in (caught.value.hint or "")


def test_a_file_that_becomes_a_link_is_not_followed(repo: Path, tmp_path: Path) -> None:
    write(repo, "a.py")
    scanned = piece(repo)
    (repo / "a.py").unlink()
    (repo / "a.py").symlink_to("/etc/passwd")
    with pytest.raises(ProjectError, match=r"^a\.py"):
        fill_project(tmp_path / "out", scanned, repo)


def test_a_package_is_installed_editable(repo: Path, tmp_path: Path) -> None:
    package = Package(
        name="my-pkg",
        version="1.2",
        requires_python=">=3.10",
        scripts={"run-it": "my_pkg.cli:main"},
        entry_points={"my.plugins": {"one": "my_pkg.one"}},
        source="src",
    )
    write(repo, "src/my_pkg/__init__.py")
    fill_project(tmp_path / "out", piece(repo, package=package), repo)
    env = tmp_path / "out/opt/mlbox/env"
    site = env / "lib/python3.11/site-packages"
    assert (site / "__editable__.my_pkg-1.2.pth").read_text() == "/workspace/src\n"
    assert "from my_pkg.cli import main" in (env / "bin/run-it").read_text()
    info = site / "my_pkg-1.2.dist-info"
    assert '"url":"file:///workspace"' in (info / "direct_url.json").read_text()
    record = {line.split(",")[0] for line in (info / "RECORD").read_text().splitlines() if line}
    assert record == {"../../../bin/run-it"} | {str(p.relative_to(site)) for p in site.rglob("*") if p.is_file()}


def test_folders_are_installed_beside_it(repo: Path, tmp_path: Path) -> None:
    """Each with metadata, path and scripts of its own; an image without any is what it was."""
    from importlib.metadata import DistributionFinder, MetadataPathFinder

    package = Package(name="app", version="1")
    flat = Package(name="flat", version="2", source="flat", folder="flat", scripts={"flat": "flat:main"})
    thing = Package(name="thing", version="3", requires=("flat",), source="libs/thing/src", folder="libs/thing")
    write(repo, "flat/flat.py", "libs/thing/src/thing/__init__.py")
    alone = piece(repo, package=package)
    whole = msgspec.structs.replace(alone, folders=(flat, thing))
    assert b"folders" not in msgspec.json.encode(alone) and alone.key != whole.key
    fill_project(tmp_path / "out", whole, repo)
    env = tmp_path / "out/opt/mlbox/env"
    site = env / "lib/python3.11/site-packages"
    paths = {path.name: path.read_text() for path in site.glob("*.pth")}
    assert paths == {
        "__editable__.app-1.pth": "/workspace\n",
        "__editable__.flat-2.pth": "/workspace/flat\n",
        "__editable__.thing-3.pth": "/workspace/libs/thing/src\n",
    }
    places = {
        found.name: json.loads(found.read_text("direct_url.json") or "")["url"]
        for found in MetadataPathFinder.find_distributions(DistributionFinder.Context(path=[str(site)]))
    }
    assert places == {
        "app": "file:///workspace",
        "flat": "file:///workspace/flat",
        "thing": "file:///workspace/libs/thing",
    }
    assert "from flat import main" in (env / "bin/flat").read_text()


def test_python_finds_the_installed_package(repo: Path, tmp_path: Path) -> None:
    from importlib.metadata import DistributionFinder, MetadataPathFinder

    package = Package(name="my-pkg", version="1.2", scripts={"run-it": "my_pkg:main"}, requires_python=">=3.10")
    fill_project(tmp_path / "out", piece(repo, package=package), repo)
    site = tmp_path / "out/opt/mlbox/env/lib/python3.11/site-packages"
    (found,) = MetadataPathFinder.find_distributions(DistributionFinder.Context(name="my-pkg", path=[str(site)]))
    assert found.version == "1.2"
    assert found.metadata["Requires-Python"] == ">=3.10"
    assert [point.value for point in found.entry_points] == ["my_pkg:main"]
    assert all(file.locate().exists() for file in found.files)


def test_a_folder_with_any_name(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    write(root, "a.py")
    assert found(root) == ["a.py"]


def test_a_store_in_the_repository_stays_out(repo: Path) -> None:
    write(repo, "a.py", "store/layers/x", "storeroom/y")
    files = scan_project(repo, Settings(), cache=repo / "store/metadata", store=repo / "store")
    assert [file.path for file in files] == ["a.py", "storeroom/y"]
