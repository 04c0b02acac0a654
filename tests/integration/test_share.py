"""What other programs make of what mlbox pushes, and mlbox of what they push; and what a kill or a full disk leaves."""

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes import tools
from fakes.containers import busybox_rootfs
from fakes.hub import docker_registry
from fakes.program import Program
from fakes.registry import FakeRegistry, registry
from fakes.trees import Files, make_image, make_layer

from mlbox.linux.mount import mount, umount
from mlbox.oci.image import Image, image_of
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.store import Store

pytestmark = pytest.mark.integration

Need = Callable[[str], str]
NAME = "team/box:1"
SAYS = ("sh", "-c", "cat /etc/says; id -u")


def out(*command: str, env: dict[str, str] | None = None) -> str:
    """Return what a program prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **(env or {})})
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


@pytest.fixture
def hub(need: Need, tmp_path: Path) -> Iterator[str]:
    """A real registry on loopback."""
    with docker_registry(tmp_path / "registry", need("docker-registry")) as host:
        yield host


def box_files(folder: Path, busybox: str) -> Files:
    """Return a root file system of busybox."""
    root = busybox_rootfs(folder, busybox)
    (root / "etc/says").write_text("hello\n")
    found: dict[str, bytes | str | int] = {"proc": 0o755, "sys": 0o755, "dev": 0o755}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = path.stat().st_mode & 0o7777
    return found


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    """The store of the one who pushes."""
    store = Store(home)
    yield store
    store.close()


@pytest.fixture
def image(store: Store, tmp_path: Path, need: Need) -> Image:
    """An image that runs, of two layers, called 'box'."""
    base = make_layer(store, "base", box_files(tmp_path / "box", need("busybox")))
    image = make_image(store, base, make_layer(store, "top", {"data/é": b"x" * 100_000, "data/link": "é"}))
    store.images.tag(image.digest, parse_reference("box"))
    return image


@pytest.fixture
def pusher(home: Home, tmp_path: Path) -> Program:
    """mlbox with the image."""
    return Program(home.root, tmp_path)


@pytest.fixture
def puller(tmp_path: Path) -> Program:
    """mlbox with an empty store."""
    return Program(tmp_path / "other", tmp_path)


@pytest.fixture
def podman(need: Need, tmp_path: Path) -> Iterator[list[str]]:
    """The beginning of a podman command with a store of its own."""
    # podman refuses long names for its run folder.
    with tempfile.TemporaryDirectory(prefix="mlbox") as run:
        podman = [need("podman"), "--root", f"{tmp_path}/podman", "--runroot", run, "--tmpdir", f"{run}/tmp"]
        podman += ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]
        yield podman
        out(*podman, "rmi", "--all", "--force")


@pytest.fixture
def docker(need: Need) -> Iterator[Callable[..., str]]:
    """A Docker daemon of its own."""
    with tools.docker(need) as run:
        yield run


def digest_there(reference: str) -> str:
    """Return the digest that skopeo finds."""
    return out("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{reference}")


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_skopeo_and_podman_read_what_mlbox_pushed(
    image: Image, pusher: Program, hub: str, podman: list[str], need: Need, tmp_path: Path, compression: str
) -> None:
    """The printed digest is the one they find; every blob passes their checks; the image runs."""
    need("skopeo")
    printed = pusher.out("push", "box", "--to", f"{hub}/{NAME}", "--compression", compression)
    name, _, digest = printed.partition("@")
    assert name == f"{hub}/team/box"
    assert digest_there(f"{hub}/{NAME}") == digest
    copied = f"oci:{tmp_path}/copy:x"
    out("skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", f"docker://{printed}", copied)
    identity = out(*podman, "pull", "-q", "--tls-verify=false", printed)
    assert identity == image.manifest.config.digest.removeprefix("sha256:")
    run = [*podman, "run", "--rm", "--network", "host", "--ulimit", "nofile=256:256", "--ulimit", "nproc=256:256"]
    assert out(*run, printed, *SAYS) == "hello\n0"


def test_docker_reads_what_mlbox_pushed(image: Image, pusher: Program, hub: str, docker: Callable[..., str]) -> None:
    """With gzip: Docker before 23 takes zstd for a damaged tar."""
    printed = pusher.out("push", "box", "--to", f"{hub}/{NAME}", "--compression", "gzip")
    docker("pull", "-q", printed)
    assert docker("image", "inspect", "--format", "{{.Id}}", printed) == image.manifest.config.digest
    assert docker("run", "--rm", "--network", "none", printed, *SAYS) == "hello\n0"


def test_mlbox_reads_what_docker_pushed(
    image: Image, pusher: Program, puller: Program, hub: str, docker: Callable[..., str]
) -> None:
    """Docker's own manifest, and a layer that Docker made, which has a whiteout; it runs, and is pushed on."""
    docker("pull", "-q", pusher.out("push", "-q", "box", "--to", f"{hub}/{NAME}", "--compression", "gzip"))
    change = "echo changed >/etc/says; busybox rm /data/link; mkdir -m 1777 /made"
    docker("run", "--name", "changed", "--network", "none", f"{hub}/{NAME}", "sh", "-c", change)
    docker("commit", "changed", f"{hub}/docker/box:1")
    docker("rm", "changed")
    docker("push", "-q", f"{hub}/docker/box:1")

    digest = puller.out("pull", "-q", f"{hub}/docker/box:1")
    script = "cat /etc/says; test -f /data/é && test ! -e /data/link && test -k /made && echo sticky"
    assert puller.out("run", "--rm", digest, "sh", "-c", script) == "changed\nsticky"
    assert "clean" in puller.out("fsck", "--deep")
    onward = puller.out("push", "-q", digest, "--to", f"{hub}/onward/box:1")
    docker("pull", "-q", onward)
    assert docker("run", "--rm", "--network", "none", onward, "cat", "/etc/says") == "changed"


@pytest.mark.parametrize(
    "options", [("--format", "v2s2"), ("--format", "oci"), ("--format", "oci", "--dest-compress-format", "zstd")]
)
def test_mlbox_reads_what_skopeo_pushed(
    image: Image, pusher: Program, puller: Program, hub: str, need: Need, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Whatever the manifest and the compression, the same image arrives and runs."""
    need("skopeo")
    pusher.run("save", "box", "-o", str(tmp_path / "layout"))
    copy = ["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", *options]
    out(*copy, f"oci:{tmp_path}/layout:box:latest", f"docker://{hub}/{NAME}")

    pulled = puller.out("pull", f"{hub}/{NAME}")
    config = json.loads(puller.out("inspect", pulled))[0]["config"]
    assert config["rootfs"]["diff_ids"] == list(image.config.rootfs.diff_ids)
    assert puller.out("run", "--rm", f"{hub}/team/box@{digest_there(f'{hub}/{NAME}')}", *SAYS) == "hello\n0"


def test_mlbox_reads_an_index_of_podman(
    store: Store, image: Image, pusher: Program, puller: Program, hub: str, podman: list[str]
) -> None:
    """Of two architectures the host's is pulled; the other one when asked for; a copy takes both."""
    printed = pusher.out("push", "-q", "box", "--to", f"{hub}/{NAME}")
    other = image_of(msgspec.structs.replace(image.config, architecture="arm64"), image.manifest.layers)
    store.images.add(other)
    foreign = pusher.out("push", "-q", other.digest, "--to", f"{hub}/{NAME}-arm64")
    out(*podman, "manifest", "create", "both")
    for name in (foreign, printed):
        out(*podman, "manifest", "add", "--tls-verify=false", "both", f"docker://{name}")
    out(*podman, "manifest", "push", "--all", "--tls-verify=false", "both", f"docker://{hub}/both/box:1")

    report = json.loads(puller.out("pull", "--format", "json", f"{hub}/both/box:1"))[0]
    assert (report["image"], report["digest"]) == (image.digest, printed.partition("@")[2])
    assert report["index"] == digest_there_raw(f"{hub}/both/box:1")
    assert puller.out("run", "--rm", f"{hub}/both/box:1", *SAYS) == "hello\n0"
    assert puller.out("pull", "-q", "--arch", "arm64", f"{hub}/both/box:1") == other.digest
    copied = puller.out("copy", "-q", f"{hub}/both/box:1", f"{hub}/copied/box:1")
    assert copied == report["index"]


def digest_there_raw(reference: str) -> str:
    """Return the digest of whatever the name stands for, an index too."""
    host, _, rest = reference.partition("/")
    repository, _, tag = rest.rpartition(":")
    accept = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
    request = urllib.request.Request(f"http://{host}/v2/{repository}/manifests/{tag}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(response.headers["Docker-Content-Digest"])


def test_run_pulls_what_is_not_here(image: Image, pusher: Program, puller: Program, hub: str) -> None:
    """As with Docker: missing by default, never, always; a name that nobody knows has exit code 125."""
    printed = pusher.out("push", "-q", "box", "--to", f"{hub}/{NAME}")
    assert puller.run("run", "--rm", "--pull", "never", printed, "true", code=125).stdout == ""
    assert puller.out("run", "--rm", printed, *SAYS) == "hello\n0"
    assert puller.out("run", "--rm", "--pull", "always", f"{hub}/{NAME}", "cat", "/etc/says") == "hello"
    refused = puller.run("run", "--rm", f"{hub}/no/such:1", "true", code=125)
    assert f"{hub}" in refused.stderr
    assert "hint:" in refused.stderr


@contextmanager
def full(folder: Path, size: int) -> Iterator[Path]:
    """A small file system."""
    folder.mkdir()
    mount("tmpfs", str(folder), "tmpfs", 0, f"size={size}")
    try:
        yield folder
    finally:
        umount(str(folder))


def test_a_full_disk(store: Store, home: Home, tmp_path: Path) -> None:
    """A pull and a push that find no room say so, and leave nothing that looks whole."""
    layer = make_layer(store, "large", {"random": random.Random(1).randbytes(8 << 20)})
    image = make_image(store, layer)
    store.images.tag(image.digest, parse_reference("box"))
    with registry() as fake, full(tmp_path / "small", 6 << 20) as small:
        Program(home.root, tmp_path).run("push", "box", "--to", f"{fake.host}/{NAME}")
        mlbox = Program(small, tmp_path)
        refused = mlbox.run("pull", f"{fake.host}/{NAME}", code=1)
        assert "no space left" in refused.stderr
        assert "hint: free some space" in refused.stderr
        assert json.loads(mlbox.out("images", "--format", "json")) == []
        assert list((small / "layers").glob("*")) == []
        assert "clean" in mlbox.out("fsck", "--deep")


def slow(fake: FakeRegistry, seconds: float) -> None:
    """Make every answer take a while."""

    def behave(_: object) -> None:
        time.sleep(seconds)

    fake.behave = behave


def killed_at_random(program: Program, *args: str, longest: float) -> bool:
    """Start mlbox and kill it with its whole process group some time later; return whether it still ran."""
    process = program.start(*args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(random.uniform(0.1, longest))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


@pytest.fixture
def many(store: Store) -> Image:
    """An image of several layers that take a while."""
    layers = [make_layer(store, str(n), {f"{n}/f": random.Random(n).randbytes(3 << 20)}) for n in range(6)]
    image = make_image(store, *layers)
    store.images.tag(image.digest, parse_reference("many"))
    return image


def test_a_killed_pull_goes_on(many: Image, pusher: Program, puller: Program) -> None:
    """Killed at any moment: what was unpacked or whole is not asked for again, what was begun is completed."""
    with registry() as fake:
        report = json.loads(pusher.out("push", "many", "--to", f"{fake.host}/{NAME}", "--format", "json"))[0]
        blobs = {layer["digest"]: layer for layer in report["layers"]}
        slow(fake, 0.05)
        kills = 0
        for number in range(8):
            before = {digest: collected(puller, layer) for digest, layer in blobs.items()}
            fake.settle()
            fake.requests.clear()
            kills += killed_at_random(puller, "pull", f"{fake.host}/{NAME}", longest=0.3 + number / 10)
            check_asked(fake, blobs, before)
        before = {digest: collected(puller, layer) for digest, layer in blobs.items()}
        puller.run("fsck")
        fake.settle()
        fake.requests.clear()
        assert puller.out("pull", "-q", f"{fake.host}/{NAME}") == many.digest
        check_asked(fake, blobs, before)
        assert "clean" in puller.out("fsck", "--deep")
        assert kills


def collected(program: Program, layer: dict[str, Any]) -> int:
    """Return how many bytes of a layer's blob are there; all of them when the layer is."""
    if (program.home / "layers" / layer["diff_id"].removeprefix("sha256:")).is_dir():
        return int(layer["size"])
    part = program.home / "artifacts" / f"{layer['digest'].removeprefix('sha256:')}.partial"
    return part.stat().st_size if part.is_file() else 0


def check_asked(fake: FakeRegistry, blobs: dict[str, Any], before: dict[str, int]) -> None:
    """Check that each layer was asked for at most once, from where it stood."""
    asked: dict[str, list[int]] = {}
    for request in fake.requests:
        digest = request.path.rpartition("/")[2]
        if request.method == "GET" and "/blobs/" in request.path and digest in blobs:
            start = request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
            asked.setdefault(digest, []).append(int(start))
    for digest, starts in asked.items():
        assert starts == [before[digest]]
        assert before[digest] < blobs[digest]["size"]


def test_a_killed_push_goes_on(many: Image, pusher: Program, puller: Program) -> None:
    """Killed at any moment: no half image under the name, the store is clean, and what arrived is not sent again."""
    with registry() as fake:
        slow(fake, 0.1)
        kills = 0
        for number in range(8):
            longest = 0.3 + number / 10
            kills += killed_at_random(pusher, "push", "many", "--to", f"{fake.host}/{NAME}", longest=longest)
            if fake.tags.get("team/box"):
                break
        fake.settle()
        there = set(fake.blobs.get("team/box", {}))
        fake.requests.clear()
        pusher.run("push", "many", "--to", f"{fake.host}/{NAME}")
        sent = {path.rpartition("digest=")[2].replace("%3A", ":") for path in fake.paths("PUT") if "digest=" in path}
        assert kills
        assert not sent & there
        assert "clean" in pusher.out("fsck", "--deep")
        assert not list((pusher.home / "tmp").glob("push*"))
        assert puller.out("pull", "-q", f"{fake.host}/{NAME}") == many.digest


def test_two_pulls_at_once(many: Image, pusher: Program, puller: Program) -> None:
    """Two processes share the work: each blob is read once."""
    with registry() as fake:
        pusher.run("push", "many", "--to", f"{fake.host}/{NAME}")
        fake.settle()
        fake.requests.clear()
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda: found.append(puller.out("pull", "-q", f"{fake.host}/{NAME}")))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [many.digest] * 2
        blobs = [path.rpartition("/")[2] for path in fake.paths("GET") if "/blobs/" in path]
        layers = [digest for digest in blobs if digest != many.manifest.config.digest]
        assert sorted(layers) == sorted(set(layers))


def test_thin_and_what_is_here(hub: str, pusher: Program, puller: Program, tmp_path: Path) -> None:
    """A thin image moves the project; who pulls makes the rest, bit for bit, from packages or from what is there."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "requirements.txt").write_text("idna==3.10\n")
    (project / "mlbox.toml").write_text('python = "3.11"\n')
    (project / "hello.py").write_text("import idna; print(idna.__version__)\n")
    builder = Program(pusher.home, project)
    digest = builder.build("-t", "thin")
    thin = json.loads(builder.out("push", "--thin", "thin", "--to", f"{hub}/thin/x:1", "--format", "json"))[0]
    whole = json.loads(builder.out("push", "thin", "--to", f"{hub}/whole/x:1", "--format", "json"))[0]
    assert [layer["how"] for layer in thin["layers"]] == ["uploaded"]
    assert thin["moved"] < 10_000 < whole["moved"]

    shutil.copytree(pusher.home / "artifacts", puller.home / "artifacts")
    report = json.loads(puller.out("pull", "--format", "json", f"{hub}/whole/x:1"))[0]
    assert report["image"] == digest
    assert {layer["source"] for layer in report["layers"]} == {"artifacts", "registry"}
    assert report["moved"] < 10_000

    empty = Program(tmp_path / "empty", tmp_path)
    report = json.loads(empty.out("pull", "--format", "json", f"{hub}/thin/x:1"))[0]
    assert report["image"] == digest
    assert empty.out("run", "--rm", f"{hub}/thin/x:1", "python", "hello.py") == "3.10"
    assert empty.out("push", "-q", f"{hub}/thin/x:1", "--to", f"{hub}/again/x:1").endswith(whole["digest"])
