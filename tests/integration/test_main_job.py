"""From a repository to running containers, as a user types it: real index, real mirror, real runc."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fakes.program import Program

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store that this module's tests share, so that the base is downloaded once."""
    home = tmp_path_factory.mktemp("home")
    yield home
    Program(home, home).run("prune", "--built", "-f", code=None)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with nothing but a requirements.txt and a script."""
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "requirements.txt").write_text("idna==3.10\n")
    (folder / "mlbox.toml").write_text('python = "3.11"\n')
    (folder / "hello.py").write_text("import idna, sys\nprint('hello', idna.__version__, sys.argv[1:])\n")
    return folder


@pytest.fixture
def mlbox(shared: Path, repository: Path) -> Program:
    """The program, standing in the repository."""
    return Program(shared, repository)


def fresh(mlbox: Program, home: Path, cwd: Path, **env: str) -> Program:
    """The program with another, empty store that already has the downloads."""
    shutil.copytree(mlbox.home / "artifacts", home / "artifacts")
    return Program(home, cwd, **env)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback and yield its address."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_build_and_run_without_configuration(mlbox: Program, repository: Path) -> None:
    """One command locks and builds, one runs; the lock names no host and no path."""
    (repository / "mlbox.toml").unlink()
    (repository / ".python-version").write_text("3.11\n")
    digest = mlbox.build("-t", "test/plain:1")

    assert digest.startswith("sha256:")
    assert mlbox.out("run", "--rm", "test/plain:1", "python", "hello.py", "-x") == "hello 3.10 ['-x']"
    text = (repository / "mlbox.lock").read_text()
    assert "://" not in text
    assert str(repository) not in text
    again = mlbox.run("build", "-q")
    assert (again.stdout, again.stderr) == (f"{digest}\n", "")


def test_the_image_is_what_pip_and_debian_would_show(mlbox: Program) -> None:
    """pip, dpkg and the dynamic linker all work inside and agree with the lock."""
    mlbox.build("-t", "test/tools")
    script = "pip list --format=freeze && pip check && dpkg --audit && ldconfig -p | head -1 && git --version || true"

    out = mlbox.out("run", "--rm", "test/tools", "sh", "-c", script)

    assert "idna==3.10" in out
    assert "No broken requirements found." in out
    assert "libs found in cache" in out


def test_equal_everywhere(mlbox: Program, repository: Path, tmp_path: Path) -> None:
    """Another store, path, umask, time zone, locale and hash seed: the same digest."""
    first = mlbox.build()
    elsewhere = tmp_path / "other place"
    shutil.copytree(repository, elsewhere)
    os.utime(elsewhere / "hello.py", (1, 1))
    before = os.umask(0o077)
    try:
        other = fresh(mlbox, tmp_path / "h2", elsewhere, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7")
        second = other.build()
    finally:
        os.umask(before)

    assert second == first


def test_epoch_is_locked(mlbox: Program, repository: Path) -> None:
    """SOURCE_DATE_EPOCH counts when the lock is made, and then for everybody who builds from it."""
    stamped = Program(mlbox.home, repository, SOURCE_DATE_EPOCH="1700000000")
    digest = stamped.build("-t", "test/epoch")

    assert mlbox.build() == digest
    assert mlbox.out("run", "--rm", "test/epoch", "stat", "-c", "%Y", "hello.py") == "1700000000"


def test_a_stale_lock_is_refused(mlbox: Program, repository: Path) -> None:
    """A changed requirement needs a new lock, a comment does not; the error names the command that mends it."""
    mlbox.build()
    (repository / "requirements.txt").write_text("# why\nidna == 3.10\n")
    mlbox.build()
    (repository / "requirements.txt").write_text("idna==3.9\n")
    refused = mlbox.run("build", code=1)

    assert "mlbox lock" in refused.stderr
    assert "--relock" in refused.stderr
    assert "idna 3.10 -> 3.9" in mlbox.out("lock", "--diff")
    mlbox.build("--relock", "-t", "test/relocked")
    assert mlbox.out("run", "--rm", "test/relocked", "python", "hello.py") == "hello 3.9 []"


def test_locking_again_changes_nothing(mlbox: Program, repository: Path) -> None:
    """The same inputs give the identical file, also when everything is resolved again."""
    mlbox.run("lock")
    before = (repository / "mlbox.lock").read_bytes()
    mlbox.run("lock")
    mlbox.run("lock", "--upgrade", "idna")

    assert (repository / "mlbox.lock").read_bytes() == before


def test_a_changed_file_moves_one_layer(mlbox: Program, repository: Path) -> None:
    """Code is the last layer: everything below it stays."""
    layers = []
    for text in ("print(1)\n", "print(2)\n"):
        (repository / "hello.py").write_text(text)
        digest = mlbox.build()
        layers.append([layer["diff_id"] for layer in json.loads(mlbox.out("history", digest, "--format", "json"))])

    assert layers[0][:-1] == layers[1][:-1]
    assert layers[0][-1] != layers[1][-1]


def test_plan_and_build_agree(mlbox: Program) -> None:
    """What plan calls cached after a build is everything, and its keys do not move."""
    before = json.loads(mlbox.out("plan", "--relock", "--format", "json"))
    mlbox.build()
    after = json.loads(mlbox.out("plan", "--format", "json"))

    assert [one["key"] for one in before["layers"]] == [one["key"] for one in after["layers"]]
    assert all(one["state"]["built"] for one in after["layers"])
    assert "ARG BASE=debian:bookworm-slim" in mlbox.out("export", "--format", "dockerfile")


def test_a_project_that_is_a_package_is_installed(mlbox: Program, repository: Path) -> None:
    """Its module, metadata and console script are there."""
    (repository / "requirements.txt").unlink()
    (repository / "src" / "mine").mkdir(parents=True)
    (repository / "src" / "mine" / "__init__.py").write_text("def main() -> None:\n    print('mine runs')\n")
    (repository / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "mine"\nversion = "1.2"\ndependencies = ["idna==3.10"]\n'
        '[project.scripts]\nmine = "mine:main"\n'
    )
    mlbox.build("-t", "test/package")

    assert mlbox.out("run", "--rm", "test/package", "mine") == "mine runs"
    code = "import importlib.metadata as m; print(m.version('mine'), m.requires('mine'))"
    assert mlbox.out("run", "--rm", "test/package", "python", "-c", code) == "1.2 ['idna==3.10']"


def test_git_and_source_distributions_are_built_once(mlbox: Program, repository: Path, tmp_path: Path) -> None:
    """A git dependency is pinned to its commit, built in a container, and recorded as pip would."""
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "fromgit"\nversion = "0.3"\n[tool.setuptools]\npy-modules = ["fromgit"]\n'
    )
    (origin / "fromgit.py").write_text("VALUE = 42\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(origin)]
    for args in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *args], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run([*git, "update-server-info"], check=True)
    with serving(origin) as url:
        (repository / "requirements.txt").write_text(f"fromgit @ git+{url}/.git\n")
        digest = mlbox.build("-t", "test/git")

    assert commit in (repository / "mlbox.lock").read_text()
    code = "import fromgit, importlib.metadata as m; print(fromgit.VALUE, m.distribution('fromgit').origin.vcs_info)"
    code = code.replace(".origin.vcs_info", ".read_text('direct_url.json')")
    out = mlbox.out("run", "--rm", "test/git", "python", "-c", code)
    assert out.startswith("42 ")
    assert commit in out
    assert mlbox.build() == digest


def test_system_packages(mlbox: Program, repository: Path) -> None:
    """What apt would install is there, in a layer of its own, and nothing of the base moved."""
    bare = json.loads(mlbox.out("history", mlbox.build(), "--format", "json"))
    (repository / "mlbox.toml").write_text('python = "3.11"\nsystem-packages = ["git"]\n')
    mlbox.build("--relock", "-t", "test/system")
    layers = json.loads(mlbox.out("history", "test/system", "--format", "json"))

    assert mlbox.out("run", "--rm", "test/system", "git", "--version").startswith("git version 2.")
    assert layers[0] == bare[0]
    assert len(layers) == len(bare) + 1


def test_a_wrong_hash_in_the_lock_stops_the_build(mlbox: Program, repository: Path, tmp_path: Path) -> None:
    """The error names the package's file; nothing is left behind, and the right lock still builds."""
    mlbox.run("lock")
    lock = repository / "mlbox.lock"
    good = lock.read_text()
    at = good.index("sha256", good.index('filename = "idna'))
    value = good[at:].split('"')[1]
    lock.write_text(good.replace(value, "0" * 64))
    other = fresh(mlbox, tmp_path / "h2", repository)
    refused = other.run("build", code=1)

    assert "idna" in refused.stderr
    assert "hint:" in refused.stderr
    assert other.out("fsck") == "clean"
    lock.write_text(good)
    assert other.build() == mlbox.build()


def test_killed_in_the_middle(mlbox: Program, repository: Path, tmp_path: Path) -> None:
    """SIGKILL at several moments of a build: fsck is clean and the next build makes the same image."""
    wanted = mlbox.build()
    other = fresh(mlbox, tmp_path / "h2", repository)
    for delay in (0.2, 0.6, 1.2, 2.0):
        process = other.start("build", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert other.out("fsck").splitlines()[-1] == "clean"

    assert other.build() == wanted
    assert other.out("fsck", "--deep") == "clean"


def test_two_builds_at_once(mlbox: Program, repository: Path, tmp_path: Path) -> None:
    """Both succeed with the same digest, and the store is sound."""
    mlbox.run("lock")
    other = fresh(mlbox, tmp_path / "h2", repository)
    both = [other.start("build", stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate() for process in both]

    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0].split()[-1] == outputs[1][0].split()[-1]
    assert other.out("fsck", "--deep") == "clean"


def test_a_full_disk(mlbox: Program, repository: Path, tmp_path: Path) -> None:
    """The error says so and what helps; with room again the build goes on."""
    wanted = mlbox.build()
    home = tmp_path / "small"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(home)], check=True)
    try:
        small = fresh(mlbox, home, repository)
        refused = small.run("build", code=1)
        assert "no space left" in refused.stderr
        assert "hint:" in refused.stderr
        assert small.out("fsck").splitlines()[-1] == "clean"
        subprocess.run(["mount", "-o", "remount,size=900m", str(home)], check=True)
        assert small.build() == wanted
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


def test_no_network(mlbox: Program, repository: Path, tmp_path: Path) -> None:
    """Locking says that nothing can be reached; a build with everything at hand needs no network."""
    wanted = mlbox.build()
    other = fresh(mlbox, tmp_path / "h2", repository)
    argv = ["unshare", "-n", "env", "-C", str(repository), sys.executable]
    built = subprocess.run([*argv, "-m", "mlbox", "build"], env=other.env, capture_output=True, text=True)
    assert built.stdout.split()[-1:] == [wanted], built.stderr

    lock = [*argv, "-m", "mlbox", "lock", "--upgrade"]
    refused = subprocess.run(lock, env=other.env, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "hint:" in refused.stderr


def test_contradictions_and_unknown_names_are_explained(mlbox: Program, repository: Path) -> None:
    """The resolver's own explanation reaches the user, with the names in it."""
    (repository / "requirements.txt").write_text("idna==3.10\nidna==3.9\n")
    assert "idna" in mlbox.run("lock", code=1).stderr
    (repository / "requirements.txt").write_text("no-such-package-as-this-one-2\n")
    assert "no-such-package-as-this-one-2" in mlbox.run("lock", code=1).stderr
    assert not (repository / "mlbox.lock").exists()


def test_empty_requirements(mlbox: Program, repository: Path) -> None:
    """An environment with only Python is an environment."""
    (repository / "requirements.txt").write_text("")
    mlbox.build("-t", "test/empty")

    assert mlbox.out("run", "--rm", "test/empty", "python", "-c", "print(1)") == "1"


def test_prune_keeps_what_is_used(mlbox: Program, repository: Path) -> None:
    """prune removes unnamed images; a stopped container keeps its layers; --built keeps the downloads."""
    mlbox.build("-t", "test/kept")
    mlbox.run("run", "--name", "keeper", "test/kept", "true")
    try:
        mlbox.run("rmi", "-f", "test/kept")
        mlbox.run("prune", "-f")
        mlbox.run("start", "keeper")
        assert mlbox.out("wait", "keeper") == "0"
    finally:
        mlbox.run("rm", "-f", "keeper")
    mlbox.run("prune", "--built", "-f")
    kinds = {line.split()[0]: line.split()[1] for line in mlbox.out("df").splitlines()}
    assert kinds["layers"] == "0"
    assert int(kinds["artifacts"]) > 50
    assert mlbox.out("fsck") == "clean"


def test_scripts_that_matter_are_run_when_asked(mlbox: Program, repository: Path) -> None:
    """The build names the packages whose scripts it did not replace; `configure` runs them, twice the same way."""
    (repository / "mlbox.toml").write_text('python = "3.11"\nsystem-packages = ["shared-mime-info"]\n')
    told = mlbox.run("build", "--relock")
    assert "shared-mime-info" in told.stderr
    with (repository / "mlbox.toml").open("a") as file:
        file.write('configure = ["shared-mime-info"]\n')
    first = mlbox.build("-t", "test/configured")

    assert "text/x-python" in mlbox.out("run", "--rm", "test/configured", "cat", "/usr/share/mime/types")
    mlbox.run("rmi", "test/configured")
    mlbox.run("prune", "-f")
    assert mlbox.build("-t", "test/configured") == first


def test_byte_code(mlbox: Program, repository: Path) -> None:
    """Compiled once, the same way each time, and used by Python instead of the source."""
    (repository / "mlbox.toml").write_text('python = "3.11"\nbytecode = true\n')
    first = mlbox.build("-t", "test/bytecode")
    code = "import idna, json; print(json.__cached__, idna.__cached__)"
    library, package = mlbox.out("run", "--rm", "test/bytecode", "python", "-c", code).split()

    assert mlbox.out("run", "--rm", "test/bytecode", "sh", "-c", f"ls {library} {package}").split() == [
        "/opt/mlbox/env/lib/python3.11/site-packages/idna/__pycache__/__init__.cpython-311.pyc",
        "/usr/lib/python3.11/json/__pycache__/__init__.cpython-311.pyc",
    ]
    assert mlbox.out("run", "--rm", "test/bytecode", "python", "hello.py") == "hello 3.10 []"
    mlbox.run("rmi", "test/bytecode")
    mlbox.run("prune", "--built", "-f")
    assert mlbox.build("-t", "test/bytecode") == first


def test_another_architecture(mlbox: Program, repository: Path) -> None:
    """An arm64 image is locked and built anywhere; where it cannot run, that is said before it starts."""
    other = "arm64" if os.uname().machine == "x86_64" else "amd64"
    mlbox.run("lock", "--arch", other)
    assert other in mlbox.run("build", "-t", "test/foreign").stderr
    refused = mlbox.run("run", "--rm", "test/foreign", "true", code=125)

    assert other in refused.stderr
    assert "hint:" in refused.stderr


def test_passwords_do_not_reach_the_image(mlbox: Program, repository: Path) -> None:
    """A spec file with a password in an address stops the build, and the message does not repeat it."""
    mlbox.build()
    with (repository / "requirements.txt").open("a") as file:
        file.write("# --index-url https://me:hunter2@example.org/simple\n")
    refused = mlbox.run("build", code=1)

    assert "requirements.txt" in refused.stderr
    assert "hunter2" not in refused.stderr
