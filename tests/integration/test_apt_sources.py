"""A project with an archive of its own and commands that change the image: locked, built, moved, and made again."""

import hashlib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pysequoia
import pytest
from fakes.debian import DebianArchive, Member, deb_bytes, stanza
from fakes.program import Program

pytestmark = pytest.mark.integration

SETTINGS = """
python = "3.11"
system-packages = ["vendor-tool"]
apt-sources = [{{ name = "vendor", uri = "{uri}", suite = "stable", components = ["main"], key = "vendor.asc" }}]
run = [
    "vendor-tool > /opt/said; date > /var/log/when",
    {{ command = ["python", "-c", "import idna; print(open('seed').read(), idna.__version__)"], inputs = ["seed"] }},
    {{ command = "cat train.py > /opt/copy", after = "project" }},
]
"""


class Vendor(DebianArchive):
    """Somebody's signed archive with one real package."""

    def put(self, version: str) -> Path:
        """Publish the package in that version and nothing else; return its file."""
        fields = {"Version": version, "Architecture": "all", "Depends": "libc6"}
        script = f"#!/bin/sh\necho vendor {version}\n".encode()
        data = deb_bytes([Member("./usr/bin/vendor-tool", script, mode=0o755)], name="vendor-tool", fields=fields)
        path = self.root / f"pool/vendor-tool_{version}_all.deb"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        told = {"Architecture": "all", "Depends": "libc6", "Size": str(len(data))}
        digest = hashlib.sha256(data).hexdigest()
        named = str(path.relative_to(self.root))
        text = stanza("vendor-tool", version, **told, Filename=named, SHA256=digest)
        lines = self.index("stable", "main/binary-amd64", [text], packing=".gz", by_hash=False)
        self.sign("stable", "Origin: Vendor\nSuite: stable\n", lines, by_hash=False)
        return path


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    return Vendor(tmp_path_factory.mktemp("vendor"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, vendor: Vendor) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("sources")
    root = folder / "repo"
    root.mkdir()
    vendor.put("1.0")
    (root / "vendor.asc").write_text(str(vendor.key.extract_certificate()))
    (root / "requirements.txt").write_text("idna==3.10\n")
    (root / "seed").write_text("42\n")
    (root / "train.py").write_text("print('train')\n")
    (root / "mlbox.toml").write_text(SETTINGS.format(uri=vendor.url))
    mlbox = Program(folder / "home", root)
    mlbox.build("-t", "sources:1")
    yield mlbox
    mlbox.run("prune", "--built", "-f", code=None)


def other(built: Program, tmp_path: Path, **env: str) -> Program:
    """Return the same project on a machine that has nothing."""
    return Program(tmp_path / "home", built.cwd, **env)


def test_what_is_in_the_image(built: Program, vendor: Vendor) -> None:
    lock = tomllib.loads((built.cwd / "mlbox.lock").read_text())
    (tool,) = [deb for deb in lock["deb"] if deb["name"] == "vendor-tool"]
    assert (tool["source"], tool["suite"], tool["version"]) == ("vendor", "stable", "1.0")
    assert str(vendor.root) not in (built.cwd / "mlbox.lock").read_text()
    said = built.out(
        "run", "--rm", "--network", "none", "sources:1", "sh", "-c", "cat /opt/said /opt/copy; ls /var/log"
    )
    assert said.splitlines()[:2] == ["vendor 1.0", "print('train')"]
    assert "when" not in said


def test_a_plan_marks_the_commands(built: Program) -> None:
    lines = [line for line in built.out("plan").splitlines() if line.startswith("run ")]
    assert len(lines) == 3
    assert all("cached; " in line and "pinned by its output, not reproducible" in line for line in lines)
    assert "pinned by its output, not reproducible" in built.out("history", "sources:1")
    assert "from run 1, vendor-tool > /opt/said; date" in built.out("why", "sources:1", "/opt/said")
    statement = json.loads(built.out("provenance", "sources:1"))
    ran = statement["predicate"]["buildDefinition"]["externalParameters"]["run"]
    assert [one["reproducible"] for one in ran] == [False] * 3
    assert ran[1]["inputs"] == {"seed": hashlib.sha256(b"42\n").hexdigest()}


def test_verify_runs_the_commands_again(built: Program) -> None:
    """From what is attached, and from the project; it says that nothing else proves them."""
    for argv in (("verify", "sources:1"), ("verify", "mlbox.lock", "sources:1")):
        done = built.run(*argv)
        assert "equal (made again" in done.stdout
        assert "made by commands, which were run again: " in done.stdout + done.stderr


def test_two_runs_that_differ_are_reported(built: Program, tmp_path: Path) -> None:
    """With the file that differs; what is above it is still compared."""
    root = tmp_path / "repo"
    root.mkdir()
    for name in ("vendor.asc", "requirements.txt", "seed", "train.py", "mlbox.lock"):
        (root / name).write_bytes((built.cwd / name).read_bytes())
    chance = '"cat /proc/sys/kernel/random/uuid > /opt/chance; echo same > /opt/same",\n    "vendor-tool >'
    (root / "mlbox.toml").write_text((built.cwd / "mlbox.toml").read_text().replace('"vendor-tool >', chance, 1))
    mlbox = Program(built.home, root)
    mlbox.build("-t", "sources:chance")
    found = json.loads(mlbox.run("verify", "sources:chance", "--format", "json", code=1).stdout)
    states = {layer["name"]: layer["state"] for layer in found["layers"]}
    assert {name for name, state in states.items() if state != "equal"} == {"run 1"}
    (differing,) = [layer for layer in found["layers"] if layer["name"] == "run 1"]
    assert [one["path"] for one in differing["differences"]] == ["opt/chance"]


def test_the_same_image_elsewhere(built: Program, tmp_path: Path, vendor: Vendor) -> None:
    """Where the archive has another address."""
    moved = tmp_path / "mirror"
    moved.symlink_to(vendor.root)
    mlbox = other(built, tmp_path, MLBOX_APT_SOURCE_VENDOR=f"file:///nowhere {moved.as_uri()}")
    assert mlbox.build("--locked") == built.build("--locked")
    mlbox.run("prune", "--built", "-f", code=None)


def test_a_package_that_vanished(built: Program, tmp_path: Path, vendor: Vendor) -> None:
    """It is named, with what to do; a bundle brings it."""
    file = vendor.root / "pool/vendor-tool_1.0_all.deb"
    away = file.rename(tmp_path / "away.deb")
    mlbox = other(built, tmp_path)
    try:
        refused = mlbox.run("build", "--locked", code=1).stderr
        assert "vendor-tool 1.0 of the lock is in no store or bundle here and no longer on the mirror" in refused
        assert "mlbox lock --upgrade vendor-tool" in refused
        built.run("bundle", "sources:1", "-o", str(tmp_path / "one.bundle"), "--artifacts")
        mlbox.run("bundle", "load", str(tmp_path / "one.bundle"))
        assert mlbox.build("--locked") == built.build("--locked")
    finally:
        away.rename(file)
        mlbox.run("prune", "--built", "-f", code=None)


def test_upgrades_and_other_keys(built: Program, tmp_path: Path, vendor: Vendor) -> None:
    """A newer package is taken when it is asked for; another key makes the lock stale, one that lies is refused."""
    root = tmp_path / "repo"
    root.mkdir()
    for name in ("vendor.asc", "requirements.txt", "seed", "train.py", "mlbox.lock", "mlbox.toml"):
        (root / name).write_bytes((built.cwd / name).read_bytes())
    mlbox = Program(built.home, root)
    vendor.put("1.1")
    assert "vendor-tool 1.0 -> 1.1" in mlbox.out("lock", "--upgrade", "vendor-tool", "--diff")
    (root / "vendor.asc").write_text(str(pysequoia.Tsk.generate("Somebody else").extract_certificate()))
    assert "stale" in mlbox.run("build", code=1).stderr
    refused = mlbox.run("build", "--relock", code=1).stderr
    assert "not signed by vendor.asc, the key of the source vendor" in refused
    vendor.put("1.0")
