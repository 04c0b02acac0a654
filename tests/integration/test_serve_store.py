"""Pulling from a served store with other programs, as another machine would."""

import hashlib
import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes import tools
from fakes.containers import wait_for
from fakes.program import Program
from fakes.tools import Need, out
from fakes.trees import make_image, make_layer

from mlbox.oci.image import Image
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.store import Store

pytestmark = pytest.mark.integration

TOKEN = "a-token-of-sufficient-length"


@pytest.fixture
def image(home: Home) -> Image:
    """An image with a large layer, called me/bert:1, and gpu01:5000/team/bert:1."""
    store = Store(home)
    files = {"bin/x": b"#!/bin/sh\n", "lib/é": b"2" * 20_000_000, "link": "bin/x", "tmp": 0o1777}
    one = make_layer(store, "one", files)
    image = make_image(store, one, make_layer(store, "two", {"bin/x": b"over"}), one)
    for name in ("me/bert:1", "gpu01:5000/team/bert:1"):
        store.images.tag(image.digest, parse_reference(name))
    store.close()
    return image


@pytest.fixture
def mlbox(home: Home, image: Image, tmp_path: Path) -> Program:
    """The one who serves; the image is in its store."""
    return Program(home.root, tmp_path)


@contextmanager
def serving(mlbox: Program, *options: str, **env: str) -> Iterator[str]:
    """Run `mlbox serve-store` and yield where it listens; it must end well when it is told to."""
    log = mlbox.cwd / "serve.log"
    mlbox.env |= env
    with log.open("wb") as file:
        process = mlbox.start("serve-store", "--listen", "127.0.0.1:0", *options, stderr=file)

    def host() -> str:
        assert process.poll() is None, log.read_text()
        found = re.search(r"on https?://(127\.0\.0\.1:\d+);", log.read_text())
        return found[1] if found else ""

    try:
        yield wait_for(host, "serve-store")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        assert "Traceback" not in log.read_text()
        assert TOKEN not in log.read_text()


def test_skopeo_copies_the_same_image(image: Image, mlbox: Program, need: Need, tmp_path: Path) -> None:
    """Every blob passes its checks, the digest is the store's own."""
    skopeo = need("skopeo")
    with serving(mlbox) as host:
        for name in ("me/bert:1", "team/bert:1", f"me/bert@{image.digest}"):
            target = f"oci:{tmp_path}/{hashlib.sha256(name.encode()).hexdigest()}:x"
            copy = ("copy", "-q", "--insecure-policy", "--preserve-digests", "--src-tls-verify=false")
            out(skopeo, *copy, f"docker://{host}/{name}", target)
            assert out(skopeo, "inspect", "--format", "{{.Digest}}", target) == image.digest
        tags = out(skopeo, "list-tags", "--tls-verify=false", f"docker://{host}/me/bert")
        assert json.loads(tags)["Tags"] == ["1"]


def test_podman_pulls_the_same_image(image: Image, mlbox: Program, need: Need, tmp_path: Path) -> None:
    """By tag and by digest."""
    with tools.podman(need, tmp_path) as podman, serving(mlbox) as host:
        identity = podman("pull", "-q", "--tls-verify=false", f"{host}/me/bert:1")
        assert identity == image.manifest.config.digest[7:]
        assert podman("image", "inspect", "--format", "{{.Digest}}", identity) == image.digest
        assert podman("pull", "-q", "--tls-verify=false", f"{host}/me/bert@{image.digest}") == identity


def test_docker_pulls_the_same_image(image: Image, mlbox: Program, need: Need) -> None:
    """With a token as password too; a wrong one is refused."""
    with tools.docker(need) as docker:
        with serving(mlbox) as host:
            assert image.digest in docker("pull", f"{host}/me/bert:1")
            assert docker("image", "inspect", "--format", "{{.Id}}", f"{host}/me/bert:1") == (
                image.manifest.config.digest
            )
            docker("rmi", f"{host}/me/bert:1")
        with serving(mlbox, MLBOX_STORE_TOKEN=TOKEN) as host:
            with pytest.raises(AssertionError, match=r"no basic auth|unauthorized|token is needed"):
                docker("pull", f"{host}/me/bert:1")
            with pytest.raises(AssertionError, match=r"unauthorized|token is needed|401"):
                docker("login", "-u", "me", "-p", "wrong" + TOKEN, host)
            docker("login", "-u", "me", "-p", TOKEN, host)
            assert image.digest in docker("pull", f"{host}/me/bert:1")


def test_a_token_file(image: Image, mlbox: Program, need: Need, tmp_path: Path) -> None:
    """It is made on the first start; skopeo gets in with it, and not without; it stands in no line."""
    skopeo, path = need("skopeo"), tmp_path / "token"
    with serving(mlbox, "--token-file", str(path)) as host:
        token = path.read_text().strip()
        source = f"docker://{host}/me/bert:1"
        argv = [skopeo, "inspect", "--tls-verify=false", "--format", "{{.Digest}}"]
        assert out(*argv, "--creds", f"me:{token}", source) == image.digest
        for wrong in ((), ("--creds", "me:wrong-token-of-sufficient-length")):
            with pytest.raises(AssertionError, match=r"unauthorized|authentication required|401|token is needed"):
                out(*argv, *wrong, source)


def test_strangers_need_a_token(mlbox: Program) -> None:
    """Without one it does not start where others could reach it."""
    done = mlbox.run("serve-store", "--listen", "0.0.0.0:0", code=2)
    assert "other machines" in done.stderr
    assert "--token-file" in done.stderr


def test_mlbox_pulls_the_same_image(image: Image, mlbox: Program, need: Need, tmp_path: Path) -> None:
    """From store to store, by the digest it has everywhere."""
    other = Program(tmp_path / "other", tmp_path)
    with serving(mlbox) as host:
        assert image.digest in other.out("pull", f"{host}/me/bert:1")
        assert other.out("images", "-q") == image.digest
        assert "clean" in other.out("fsck", "--deep")


def test_twenty_clients_and_a_prune(image: Image, mlbox: Program, need: Need) -> None:
    """All get the whole layer; a prune meanwhile is told to wait, and takes nothing away."""
    layer = image.manifest.layers[0].digest

    def fetch(host: str) -> str:
        with urllib.request.urlopen(f"http://{host}/v2/me/bert/blobs/{layer}", timeout=60) as reply:
            return "sha256:" + hashlib.file_digest(reply, "sha256").hexdigest()

    with serving(mlbox) as host:
        slow = socket.create_connection(host.split(":"), timeout=30)
        slow.sendall(f"GET /v2/me/bert/blobs/{layer} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert slow.recv(20).startswith(b"HTTP/1.1 200")
        assert "another mlbox" in mlbox.run("prune", "-f", code=1).stderr
        with ThreadPoolExecutor(20) as pool:
            assert set(pool.map(fetch, [host] * 20)) == {layer}
        slow.close()
        wait_for(lambda: mlbox.run("prune", "-f", code=None).returncode == 0, "the prune")
        assert fetch(host) == layer


def test_it_ends_while_somebody_downloads(image: Image, mlbox: Program) -> None:
    """A client that never reads does not keep it from ending."""
    layer = image.manifest.layers[0].digest
    with serving(mlbox) as host:
        slow = socket.create_connection(host.split(":"), timeout=30)
        slow.sendall(f"GET /v2/me/bert/blobs/{layer} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert slow.recv(20).startswith(b"HTTP/1.1 200")
    slow.close()
    with pytest.raises((urllib.error.URLError, OSError)):
        urllib.request.urlopen(f"http://{host}/v2/", timeout=2)
    assert not any((mlbox.home / "tmp").iterdir())
