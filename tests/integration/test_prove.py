"""Images that were really built: made again, compared, explained, mapped."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.program import Program

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A built project whose packages ask for each other, and a second image of it with one more."""
    folder = tmp_path_factory.mktemp("prove")
    root = folder / "repo"
    root.mkdir()
    (root / "requirements.txt").write_text("# ours\nrequests==2.32.3\n")
    (root / "mlbox.toml").write_text('python = "3.11"\n')
    (root / "train.py").write_text("import requests\n")
    mlbox = Program(folder / "home", root)
    mlbox.build("-t", "prove:1")
    (root / "requirements.txt").write_text("# ours\nrequests==2.32.3\nsix==1.16.0\n")
    mlbox.build("--relock", "-t", "prove:2")
    yield mlbox
    mlbox.run("prune", "--built", "-f", code=None)


def library(mlbox: Program, image: str, name: str) -> Path:
    """Return where a file of an image lies on the disk."""
    diff_id = json.loads(mlbox.out("why", image, name, "--format", "json"))["diff_id"]
    return mlbox.home / "layers" / diff_id.removeprefix("sha256:") / "fs" / name.lstrip("/")


def test_verify(built: Program) -> None:
    """From what is attached, and from the lock and the project beside it."""
    done = built.run("verify", "prove:1")
    assert "equal (made again from the attached lock and plan)" in done.stdout

    found = json.loads(built.out("verify", "mlbox.lock", "prove:2", "--format", "json"))
    assert {layer["state"] for layer in found["layers"]} == {"equal"}
    assert found["manifest"] == "equal"
    assert "NOT EQUAL" in built.run("verify", "mlbox.lock", "prove:1", code=1).stdout


def test_verify_what_was_made_in_a_container(built: Program, tmp_path: Path) -> None:
    """Byte code is compiled again, and comes out the same."""
    root = tmp_path / "repo"
    shutil.copytree(built.cwd, root)
    (root / "mlbox.toml").write_text('python = "3.11"\nbytecode = true\n')
    mlbox = Program(built.home, root)
    mlbox.build("-t", "prove:compiled")

    found = json.loads(mlbox.out("verify", "prove:compiled", "--format", "json"))

    assert {layer["state"] for layer in found["layers"]} == {"equal"}


def test_verify_without_the_downloads(built: Program, tmp_path: Path) -> None:
    """What is not in the store any more is fetched again."""
    kept = built.home / "artifacts"
    kept.rename(tmp_path / "artifacts")
    try:
        assert built.run("verify", "prove:1", "--layer", "small-1-of-1").returncode == 0
    finally:
        shutil.rmtree(kept, ignore_errors=True)
        (tmp_path / "artifacts").rename(kept)


def test_verify_finds_an_edited_store(built: Program) -> None:
    """A byte in a layer and (the same hard link) in its piece: layer, package, file and byte are named."""
    path = library(built, "prove:1", "/opt/mlbox/env/lib/python3.11/site-packages/requests/api.py")
    status, data = path.stat(), path.read_bytes()
    try:
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
        os.utime(path, (status.st_mtime, status.st_mtime))
        out = built.run("verify", "prove:1", "--layer", "small-1-of-1", code=1).stdout
    finally:
        path.write_bytes(data)
        os.utime(path, (status.st_mtime, status.st_mtime))

    assert "changed on disk" in out
    assert "requests/api.py of requests 2.32.3: from byte 100 on" in out
    assert built.run("verify", "prove:1", "--layer", "small-1-of-1").returncode == 0


def test_why(built: Program) -> None:
    """Chains begin at the project's own line."""
    out = built.out("why", "prove:1", "urllib3")
    assert "asked for by requirements.txt:2 > requests > urllib3" in out
    assert "the layer is also in prove:2" not in out or "small" in out
    assert "from libc6" in built.out("why", "prove:1", "/lib/x86_64-linux-gnu/libc.so.6").replace(" -", "")
    assert "did you mean urllib3" in built.run("why", "prove:1", "urlib3", code=1).stderr
    assert "urllib3-" in built.out("why", "--lock", "mlbox.lock", "urllib3")


def test_diff(built: Program) -> None:
    """One requirement more: the package, its line, its layer; the base is shared."""
    found = json.loads(built.out("diff", "prove:1", "prove:2", "--format", "json"))
    assert [(one["what"], one["name"], one["cause"]) for one in found["packages"]] == [
        ("added", "six", "requirements.txt:3 > six")
    ]
    lines = (built.cwd / "mlbox.lock").read_text().splitlines()
    assert lines[found["packages"][0]["lock_line"] - 1] == 'name = "six"'
    assert found["layers"][0]["what"] == "shared"
    assert any(one["path"].endswith("/six.py") for one in found["files"])
    assert built.out("diff", "prove:1", "prove:1").startswith("the same image")
    assert "+ six 1.16.0" in built.out("diff", "prove:1", "mlbox.lock")


def test_du(built: Program, tmp_path: Path) -> None:
    """The sums are exact, and the page stands alone."""
    found = json.loads(built.out("du", "prove:2", "--format", "json"))
    assert sum(one["size"] for one in found["packages"]) == found["content"]
    assert {"requests", "six", "libc6"} <= {one["name"] for one in found["packages"]}
    page = tmp_path / "map.html"
    built.run("du", "prove:2", "--html", str(page))
    assert "://" not in page.read_text()
    assert page.stat().st_size < 1 << 20
