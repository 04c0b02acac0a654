"""Archives between mlbox and the other tools, both ways: always the same image."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import tools
from fakes.program import Program
from fakes.tools import Need, Run, out
from fakes.trees import key, make_image, make_layer

from mlbox.oci.image import Image
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.store import Store
from mlbox.store.tree import Tree, TreeWriter, below, diff_id_of

pytestmark = pytest.mark.integration

NAME = "me/bert:1"


@pytest.fixture
def image(home: Home) -> Image:
    """An image with a layer that comes twice, called NAME, in the store that saves."""
    store = Store(home)
    files = {"bin/x": b"#!/bin/sh\n", "lib/é": b"2" * 2_000_000, "long/" + "n" * 90 + "/f": b"3", "tmp": 0o1777}
    one = make_layer(store, "one", files)
    image = make_image(store, one, make_layer(store, "two", {"bin/x": b"over", "link": "bin/x"}), one)
    store.images.tag(image.digest, parse_reference(NAME))
    store.close()
    return image


@pytest.fixture
def saver(home: Home, tmp_path: Path) -> Program:
    return Program(home.root, tmp_path)


@pytest.fixture
def loader(tmp_path: Path) -> Program:
    """mlbox with an empty store."""
    return Program(tmp_path / "other", tmp_path)


@pytest.fixture
def podman(need: Need, tmp_path: Path) -> Iterator[Run]:
    with tools.podman(need, tmp_path) as run:
        yield run


@pytest.fixture
def docker(need: Need) -> Iterator[Run]:
    with tools.docker(need) as run:
        yield run


def loads(loader: Program, path: Path, digest: str, name: str) -> None:
    """Loading must give that image that name, leave the store clean, and make the same layers."""
    assert f"loaded {name} {digest}" in loader.out("load", "-i", str(path)).splitlines()
    assert "clean" in loader.out("fsck", "--deep")
    assert list((loader.home / "tmp").iterdir()) == []


def test_docker_and_mlbox(image: Image, saver: Program, loader: Program, docker: Run, tmp_path: Path) -> None:
    """What mlbox saves docker loads, compressed or not; what docker saves then is the same image for mlbox."""
    saver.run("save", NAME, "-o", "out.tar", "--format", "docker")
    saver.run("save", NAME, "-o", "out.tar.gz", "--format", "docker")
    for archive in ("out.tar", "out.tar.gz"):
        assert NAME in docker("load", "-i", f"{tmp_path}/{archive}")
        assert docker("image", "inspect", "--format", "{{.Id}}", NAME) == image.manifest.config.digest
    docker("tag", NAME, "other/name:2")
    docker("save", NAME, "other/name:2", "-o", f"{tmp_path}/back.tar")
    loads(loader, tmp_path / "back.tar", image.digest, NAME)
    assert loader.out("inspect", "other/name:2") == loader.out("inspect", image.digest)


def test_an_image_that_docker_made(loader: Program, docker: Run, tmp_path: Path) -> None:
    """Its layers are tars that mlbox would not write; saved again they are the same bytes, so the same image."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context/hello").write_text("hello\n")
    (tmp_path / "context/Dockerfile").write_text("FROM scratch\nCOPY hello /a/hello\nCOPY hello /b\nCMD ['/a']\n")
    docker("build", "-q", "-t", NAME, f"{tmp_path}/context")
    identity = docker("image", "inspect", "--format", "{{.Id}}", NAME)
    docker("save", NAME, "-o", f"{tmp_path}/docker.tar")
    docker("rmi", NAME)

    digest = loader.out("load", "-i", "docker.tar").split()[-1]
    loader.run("save", digest, "-o", "mlbox.tar", "--format", "docker")
    docker("load", "-i", f"{tmp_path}/mlbox.tar")
    assert docker("image", "inspect", "--format", "{{.Id}}", NAME) == identity
    assert "clean" in loader.out("fsck", "--deep")


@pytest.mark.parametrize("form", ["oci-archive", "oci-dir", "docker-archive"])
def test_podman_and_mlbox(
    image: Image, saver: Program, loader: Program, podman: Run, tmp_path: Path, form: str
) -> None:
    """podman loads either format, attachments or not, and saves the same image, whose layers it compresses."""
    saver.run(
        "save", NAME, "-o", "out.tar", *(["--format", "docker"] if form == "docker-archive" else ["--attachments"])
    )
    name = podman("load", "-q", "-i", f"{tmp_path}/out.tar").rpartition(" ")[2]
    assert name.endswith(NAME)
    assert podman("image", "inspect", "--format", "{{.Id}}", name) == image.manifest.config.digest[7:]
    podman("save", "-q", "--format", form, "-o", f"{tmp_path}/back", name)
    loads(loader, tmp_path / "back", image.digest, name)


@pytest.mark.parametrize("form", ["oci", "oci-archive", "docker-archive"])
def test_skopeo_and_mlbox(image: Image, saver: Program, loader: Program, need: Need, tmp_path: Path, form: str) -> None:
    """skopeo copies a layout or an archive, with and without a name, and what it writes is the same image."""
    skopeo = need("skopeo")
    saver.run("save", NAME, "-o", "out.tar", "--attachments")
    for source in (f"oci-archive:{tmp_path}/out.tar", f"oci-archive:{tmp_path}/out.tar:{NAME}"):
        assert out(skopeo, "inspect", "--format", "{{.Digest}}", source) == image.digest
    copy = tmp_path / f"copy-{form}"
    out(skopeo, "copy", "-q", "--insecure-policy", source, f"{form}:{copy}:{NAME}")
    loads(loader, copy, image.digest, NAME)


def test_skopeo_reads_dockers_format(image: Image, saver: Program, need: Need, tmp_path: Path) -> None:
    """Several images in one archive, each found by its name."""
    saver.run("tag", NAME, "other/name:2")
    saver.run("save", NAME, "other/name:2", "-o", "out.tar", "--format", "docker")
    for name in (NAME, "other/name:2"):
        config = out(need("skopeo"), "inspect", "--config", "--raw", f"docker-archive:{tmp_path}/out.tar:{name}")
        assert json.loads(config)["rootfs"]["diff_ids"] == list(image.config.rootfs.diff_ids)


def test_umoci_reads_a_layout_with_attachments(image: Image, saver: Program, need: Need, tmp_path: Path) -> None:
    """It lists the names, and unpacks."""
    saver.run("save", NAME, "-o", "out", "--attachments")
    assert out(need("umoci"), "ls", "--layout", f"{tmp_path}/out") == NAME
    out(need("umoci"), "unpack", "--image", f"{tmp_path}/out:{NAME}", f"{tmp_path}/bundle")
    assert (tmp_path / "bundle/rootfs/bin/x").read_bytes() == b"#!/bin/sh\n"


def test_through_pipes(image: Image, saver: Program, loader: Program) -> None:
    """`mlbox save | gzip | mlbox load`, as over ssh; stdin may also be a file."""
    save = saver.start("save", NAME, "-o", "-", stdout=subprocess.PIPE)
    squeeze = subprocess.Popen(["gzip", "-1"], stdin=save.stdout, stdout=subprocess.PIPE)
    load = loader.start("load", stdin=squeeze.stdout, stdout=subprocess.PIPE)
    for end in (save.stdout, squeeze.stdout):
        end.close()
    assert load.communicate(timeout=60)[0].decode() == f"loaded {NAME} {image.digest}\n"
    assert (save.wait(), squeeze.wait(), load.returncode) == (0, 0, 0)
    saver.run("save", NAME, "-o", "out.tar")
    with (saver.cwd / "out.tar").open("rb") as file:
        done = loader.start("load", "-t", "new/name:3", stdin=file, stdout=subprocess.PIPE)
        assert done.communicate(timeout=60)[0].decode() == f"loaded new/name:3 {image.digest}\n"


def test_mistakes_are_said(image: Image, saver: Program, loader: Program, tmp_path: Path) -> None:
    """No traceback, the exit code of what it was, and a hint."""
    with (tmp_path / "half.tar").open("wb") as file:
        file.write(saver.start("save", NAME, "-o", "-", stdout=subprocess.PIPE).communicate()[0][:1_000_000])
    for args, code, words in (
        (("load", "-i", "half.tar"), 1, "ends inside"),
        (("load", "-i", "no.tar"), 1, "no.tar"),
        (("load", "-i", "."), 1, "no image"),
        (("save", NAME, "-o", "out", "--format", "docker"), 1, "no image me/bert:1"),
    ):
        done = loader.run(*args, code=code)
        assert words in done.stderr
        assert "hint:" in done.stderr or words == "no.tar"
    assert saver.run("save", NAME, "-o", "out", "--format", "docker", code=2).stderr.count("hint:") == 1
    assert saver.run("save", NAME, "-o", "x.tar", "--format", "docker", "--attachments", code=2).stderr


def peak(process: "subprocess.Popen[bytes]") -> int:
    """Wait for a program that must succeed, and return the most memory it had, in MB.

    Read while it runs: ru_maxrss begins with that of whoever started it, here of all the tests so far.
    """
    most, status = 0, Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        most = max(most, int(found[1]) if found else 0)
        time.sleep(0.01)
    assert process.returncode == 0
    return most >> 10


def test_a_large_layer_needs_little_memory(saver: Program, loader: Program, home: Home, tmp_path: Path) -> None:
    """A layer of 1 GB is saved and loaded with less than 250 MB, whichever way it comes."""
    store = Store(home)
    block = os.urandom(1 << 20)

    def large(root: Path) -> Tree:
        writer = TreeWriter(root, "large")
        writer.file("weights", (block for _ in range(1000)))
        entries = writer.finish().entries
        return Tree(entries=entries, diff_id=diff_id_of(entries, below(root)))

    piece = store.pieces.make(key("large"), "large", large)
    image = make_image(store, store.layers.assemble(key("layer"), "large", [piece]))
    store.images.tag(image.digest, parse_reference(NAME))
    store.close()
    for path, *options in (("large.tar.zst",), ("large.tar", "--format", "docker")):
        assert peak(saver.start("save", NAME, "-o", path, *options, stdout=subprocess.DEVNULL)) < 250
        assert peak(loader.start("load", "-i", path, stdout=subprocess.DEVNULL)) < 250
        loader.run("rmi", NAME)
        loader.run("prune", "-f")
        (tmp_path / path).unlink()
