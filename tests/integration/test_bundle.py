"""A bundle goes to a machine without a network: everything that worked here works there, from one file."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.program import Program

pytestmark = pytest.mark.integration

NAME = "test/travel:1"
Need = Callable[[str], str]


def out(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Offline(Program):
    """The program in a network namespace with not even a loopback: what asks for a network fails."""

    def run(self, *args: str, code: int | None = 0, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run `mlbox ARGS` to its end."""
        argv = ["unshare", "--net", sys.executable]
        done = subprocess.run([*argv, "-m", "mlbox", *args], cwd=self.cwd, env=self.env, capture_output=True, text=True)
        if code is not None:
            assert done.returncode == code, f"mlbox {' '.join(args)}\n{done.stdout}{done.stderr}"
            assert "Traceback" not in done.stderr, done.stderr
        return done


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The machine with a network: a project, built, with its first bundle."""
    root = tmp_path_factory.mktemp("work")
    project = root / "project"
    project.mkdir()
    (project / "requirements.txt").write_text("idna==3.10\n")
    (project / "mlbox.toml").write_text('python = "3.11"\n')
    (project / "hello.py").write_text("import idna\nprint('hello', idna.__version__)\n")
    program = Program(root / "home", project)
    (root / "digest").write_text(program.build("-t", NAME))
    program.run("bundle", NAME, "-o", str(root / "full.bundle"), "--artifacts", "--sbom")
    yield root
    program.run("prune", "--built", "-f", code=None)


@pytest.fixture
def site(work: Path, need: Need, tmp_path: Path) -> Iterator[Offline]:
    """The machine without a network, with nothing but a copy of the project."""
    need("unshare")
    shutil.copytree(work / "project", tmp_path / "elsewhere")
    program = Offline(tmp_path / "site", tmp_path / "elsewhere", MLBOX_OFFLINE="1")
    yield program
    program.run("prune", "--built", "-f", code=None)


def digest_of(work: Path) -> str:
    return (work / "digest").read_text()


def test_all_of_it_works_without_a_network(work: Path, site: Offline) -> None:
    """Load, run, prove, build again from nothing but the bundle's files: the same digest."""
    digest, path = digest_of(work), str(work / "full.bundle")
    assert "undamaged" in site.out("bundle", "verify", path)
    assert site.out("bundle", "load", path) == f"{digest} {NAME}"
    assert site.out("run", "--rm", "--network", "none", NAME, "python", "hello.py") == "hello 3.10"
    assert "equal" in site.out("verify", NAME)
    assert json.loads(site.out("sbom", NAME))["bomFormat"] == "CycloneDX"
    assert site.build("-t", "test/again") == digest
    assert site.out("fsck", "--deep") == "clean"


def test_a_delta_after_a_change(work: Path, site: Offline, tmp_path: Path) -> None:
    """Less than a hundredth of the whole, and a machine that lacks the rest says what and what to do."""
    project = tmp_path / "changed"
    shutil.copytree(work / "project", project)
    (project / "requirements.txt").write_text("idna==3.10\nsix==1.17.0\n")
    program = Program(work / "home", project)
    digest = program.build("--relock", "-t", "test/travel:2")
    full, small = work / "full.bundle", tmp_path / "delta"
    program.run("bundle", "test/travel:2", "--since", str(full), "-o", str(small))
    assert small.stat().st_size < full.stat().st_size / 100

    refused = site.run("bundle", "load", str(small), code=1)
    assert "this store lacks" in refused.stderr
    assert "mlbox bundle have" in refused.stderr
    assert site.out("images", "-q") == ""

    site.run("bundle", "load", str(full))
    site.run("bundle", "have", "-o", str(tmp_path / "list"))
    program.run("bundle", "test/travel:2", "--have", str(tmp_path / "list"), "-o", str(tmp_path / "fitting"))
    loaded = json.loads(site.out("bundle", "load", str(small), "--format", "json"))
    assert [image["digest"] for image in loaded["images"]] == [digest]
    assert site.out("bundle", "load", str(tmp_path / "fitting")).startswith(digest)
    assert site.out("run", "--rm", "--network", "none", digest, "python", "-c", "import six; print(1)") == "1"


def test_other_tools_read_a_bundle(work: Path, need: Need, tmp_path: Path) -> None:
    """skopeo and podman take it for an archive of an OCI layout, and check every blob."""
    skopeo, podman = need("skopeo"), need("podman")
    layout = f"oci-archive:{work / 'full.bundle'}:{NAME}"
    out(skopeo, "copy", "--insecure-policy", "--preserve-digests", layout, f"oci:{tmp_path}/copy:x")
    inside = json.loads(out(skopeo, "inspect", "--config", layout))
    image = json.loads(Program(work / "home", tmp_path).out("inspect", NAME))[0]
    assert inside["rootfs"]["diff_ids"] == image["config"]["rootfs"]["diff_ids"]
    with tempfile.TemporaryDirectory(prefix="mlbox") as run:
        begin = [podman, "--root", f"{tmp_path}/podman", "--runroot", run, "--storage-driver", "vfs"]
        try:
            assert NAME in out(*begin, "load", "--quiet", "--input", str(work / "full.bundle"))
        finally:
            out(*begin, "rmi", "--all", "--force")


def test_killed_while_loading(work: Path, site: Offline) -> None:
    """Whenever the power goes, the next load ends well."""
    for seconds in (0.2, 0.35, 0.5, 0.8):
        child = site.start("bundle", "load", str(work / "full.bundle"), stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert site.out("fsck").endswith("clean")
    assert site.out("bundle", "load", str(work / "full.bundle")) == f"{digest_of(work)} {NAME}"
    assert site.out("fsck", "--deep") == "clean"


def test_through_a_pipe_and_in_parts(work: Path, site: Offline, tmp_path: Path) -> None:
    """The same bytes on standard output; parts for sticks that hold no large file, of which one may be lost."""
    program = Program(work / "home", tmp_path)
    with (tmp_path / "piped").open("wb") as file:
        program.start("bundle", NAME, "--artifacts", "-o", "-", stdout=file, stderr=subprocess.DEVNULL).wait()
    assert (tmp_path / "piped").read_bytes() == (work / "full.bundle").read_bytes()
    program.run("bundle", NAME, "--artifacts", "-o", str(tmp_path / "cut"), "--split", "20M")
    parts = sorted(tmp_path.glob("cut.*"))
    assert len(parts) > 2
    assert {part.stat().st_size for part in parts[:-1]} == {20_000_000}
    assert "undamaged" in site.out("bundle", "verify", str(tmp_path / "cut"))
    parts[-1].unlink()
    assert "a part is missing" in site.run("bundle", "load", str(tmp_path / "cut"), code=1).stderr
