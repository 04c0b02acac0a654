"""What other tools make of an exported layout: the same digest, the same files."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.trees import make_image, make_layer

from mlbox.oci.image import Image
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.layout import export_layout
from mlbox.store.store import Store

pytestmark = pytest.mark.integration

NAME = "me/bert:1"
LONG = "long/" + "n" * 90 + "/file"
Need = Callable[[str], str]


def out(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    store = Store(home)
    yield store
    store.close()


@pytest.fixture
def image(store: Store) -> Image:
    files = {"bin/x": b"#!/bin/sh\n", "lib/é": b"2" * 2_000_000, LONG: b"3", "link": "bin/x", "tmp": 0o1777}
    return make_image(store, make_layer(store, "one", files), make_layer(store, "two", {"bin/x": b"over"}))


@pytest.fixture(params=["folder", "archive"])
def layout(store: Store, image: Image, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The image as other tools name it: 'oci:...' or 'oci-archive:...'."""
    target = tmp_path / ("out" if request.param == "folder" else "out.tar")
    export_layout(store, image, target, (parse_reference(NAME),))
    return f"{'oci' if request.param == 'folder' else 'oci-archive'}:{target}:{NAME}"


def test_skopeo_sees_the_same_digest(image: Image, layout: str, need: Need, tmp_path: Path) -> None:
    skopeo = need("skopeo")
    assert out(skopeo, "inspect", "--format", "{{.Digest}}", layout) == image.digest
    assert json.loads(out(skopeo, "inspect", "--config", layout))["rootfs"]["diff_ids"] == list(
        image.config.rootfs.diff_ids
    )
    # Copied with every blob checked, and still the same image.
    out(skopeo, "copy", "--insecure-policy", "--preserve-digests", layout, f"oci:{tmp_path}/copy:x")
    assert out(skopeo, "inspect", "--format", "{{.Digest}}", f"oci:{tmp_path}/copy:x") == image.digest


def test_umoci_unpacks_the_same_files(store: Store, image: Image, need: Need, tmp_path: Path) -> None:
    umoci = need("umoci")
    # umoci takes what follows the first ':' for the reference, as skopeo does.
    export_layout(store, image, tmp_path / "out", (parse_reference(NAME),))
    out(umoci, "unpack", "--image", f"{tmp_path}/out:{NAME}", str(tmp_path / "bundle"))
    root = tmp_path / "bundle/rootfs"
    assert (root / "bin/x").read_bytes() == b"over"
    assert (root / "bin/x").stat().st_mode & 0o7777 == 0o755
    assert (root / "lib/é").stat().st_size == 2_000_000
    assert (root / LONG).read_bytes() == b"3"
    assert (root / "link").readlink() == Path("bin/x")
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777


@pytest.fixture
def podman(need: Need, tmp_path: Path) -> Iterator[list[str]]:
    """The beginning of a podman command with a store of its own."""
    # podman refuses long names for its run folder.
    with tempfile.TemporaryDirectory(prefix="mlbox") as run:
        podman = [need("podman"), "--root", f"{tmp_path}/podman", "--runroot", run, "--storage-driver", "vfs"]
        yield podman
        out(*podman, "rmi", "--all", "--force")


def test_podman_pulls_the_same_digest(image: Image, layout: str, podman: list[str]) -> None:
    identity = out(*podman, "pull", "--quiet", layout)
    assert identity == image.manifest.config.digest.removeprefix("sha256:")
    assert out(*podman, "image", "inspect", "--format", "{{.Digest}}", identity) == image.digest


def test_podman_loads_the_archive_with_its_name(store: Store, image: Image, podman: list[str], tmp_path: Path) -> None:
    export_layout(store, image, tmp_path / "out.tar", (parse_reference(NAME),))
    assert NAME in out(*podman, "load", "--quiet", "--input", str(tmp_path / "out.tar"))
