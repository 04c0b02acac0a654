"""Signed images between two machines and a real registry, and what other programs make of the documents."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import missing
from fakes.containers import busybox_rootfs, wait_for
from fakes.hub import docker_registry
from fakes.program import Program
from fakes.trees import make_image, make_layer

from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.store import Store

pytestmark = pytest.mark.integration

Need = Callable[[str], str]
PASSWORD = "hunter2-secret"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def hub(need: Need, tmp_path: Path) -> Iterator[str]:
    """A real registry on loopback."""
    with docker_registry(tmp_path / "registry", need("docker-registry")) as host:
        yield host


def fetched(address: str, path: str, accept: str = "*/*") -> bytes:
    request = urllib.request.Request(f"http://{address}/v2/{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


@pytest.fixture
def ours(home: Home, tmp_path: Path, need: Need) -> Program:
    """mlbox on the machine of the one who signs: with an image 'box' that runs, and a key."""
    store = Store(home)
    root = busybox_rootfs(tmp_path / "box", need("busybox"))
    files: dict[str, bytes | str | int] = {"proc": 0o755, "sys": 0o755, "dev": 0o755}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            files[name] = str(path.readlink())
        else:
            files[name] = path.read_bytes() if path.is_file() else path.stat().st_mode & 0o7777
    image = make_image(store, make_layer(store, "box", files))
    store.images.tag(image.digest, parse_reference("box"))
    store.close()
    program = Program(home.root, tmp_path, MLBOX_KEY_PASSWORD=PASSWORD)
    program.run("key", "generate", "team")
    program.run("key", "generate", "stranger")
    return program


def theirs(tmp_path: Path, hub: str, key: str) -> Program:
    """mlbox on another machine, which runs images of the hub only when they are signed with `key`."""
    folder = tmp_path / f"machine-{key}"
    folder.mkdir()
    (folder / "policy.toml").write_text(
        f'default = "deny"\n[[rule]]\nprefix = "{hub}"\naction = "signed"\nkeys = ["{tmp_path}/{key}.pub"]\n'
    )
    return Program(folder / "home", folder, MLBOX_POLICY=str(folder / "policy.toml"))


def test_a_signed_image_runs_where_its_key_is_trusted(ours: Program, hub: str, tmp_path: Path) -> None:
    """Unsigned it is refused, signed it is pulled and runs; on a machine that trusts others it does neither."""
    name = f"{hub}/team/box:1"
    trusting, distrusting = theirs(tmp_path, hub, "team"), theirs(tmp_path, hub, "stranger")
    ours.run("push", "box", "--to", name)
    refused = trusting.run("pull", name, code=1)
    assert "it has no signature" in refused.stderr
    assert "team.pub" in refused.stderr
    pinned = ours.out("push", "box", "--to", name, "--sign", "team.key", "--sbom")
    trusting.run("pull", pinned)
    assert trusting.out("run", "--rm", pinned, "echo", "trusted") == "trusted"
    assert "none of its 2 signatures" in distrusting.run("pull", name, code=1).stderr
    assert distrusting.run("run", "--rm", name, "true", code=125).returncode == 125
    assert json.loads(distrusting.out("sbom", pinned))["metadata"]["component"]["version"] in pinned
    # On the trusting machine the policy turns round: what is there does not run any more.
    trusting.env["MLBOX_POLICY"] = distrusting.env["MLBOX_POLICY"]
    assert "stranger.pub" in trusting.run("run", "--rm", pinned, "true", code=125).stderr


def test_a_container_outlives_the_policy_and_nothing_starts_in_it(ours: Program, tmp_path: Path) -> None:
    """Its program goes on; no other is started beside it, nor itself again once it ends."""
    policy = tmp_path / "policy.toml"
    policy.write_text('local = "allow"\n')
    ours.env["MLBOX_POLICY"] = str(policy)
    script = "echo begun; while [ ! -e /end ]; do sleep 0.05; done; busybox rm /end; exit 7"
    ours.run("run", "-d", "--name", "work", "--restart", "always", "box", "sh", "-c", script)
    try:
        ours.run("exec", "work", "touch", "/end")
        wait_for(lambda: ours.out("logs", "work").split() == ["begun", "begun"], "its second run")
        ours.run("exec", "-d", "work", "sh", "-c", "sleep 2; touch /end")
        policy.write_text('local = "deny"\n')
        refused = ours.run("exec", "work", "true", code=125)
        assert f"the policy {policy} allows no image that was built or loaded here" in refused.stderr
        wait_for(lambda: status(ours)["status"] == "exited", "its end")
        assert f"the policy {policy}" in status(ours)["error"]
        assert status(ours)["exit_code"] == 125
        assert ours.out("logs", "work").split() == ["begun", "begun"]
        assert "the policy" in ours.run("start", "work", code=125).stderr
    finally:
        ours.run("rm", "-f", "work")


def status(ours: Program) -> dict[str, Any]:
    """Return the state of the one container."""
    found: dict[str, Any] = json.loads(ours.out("ps", "-a", "--format", "json"))[0]["state"]
    return found


def test_openssl_finds_the_signature_good(ours: Program, hub: str, tmp_path: Path, need: Need) -> None:
    """Payload and signature as cosign fetches them: the tag's manifest, its layer, its annotation."""
    pinned = ours.out("push", "box", "--to", f"{hub}/team/box:1", "--sign", "team.key")
    digest = pinned.partition("@")[2]
    tag = digest.replace(":", "-") + ".sig"
    layer = json.loads(fetched(hub, f"team/box/manifests/{tag}", MANIFEST))["layers"][0]
    payload = fetched(hub, f"team/box/blobs/{layer['digest']}")
    assert json.loads(payload)["critical"]["image"]["docker-manifest-digest"] == digest
    (tmp_path / "payload").write_bytes(payload)
    (tmp_path / "sig").write_bytes(base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"]))
    for key, good in (("team", True), ("stranger", False)):
        verify = [need("openssl"), "dgst", "-sha256", "-verify", f"{key}.pub", "-signature", "sig", "payload"]
        assert (subprocess.run(verify, cwd=tmp_path, capture_output=True).returncode == 0) is good


def test_passwords_are_nowhere(ours: Program, hub: str, tmp_path: Path) -> None:
    """Not in what is printed, not in what is written, not in the registry."""
    done = ours.run("push", "box", "--to", f"{hub}/team/box:1", "--sign", "team.key", "--sbom")
    ours.env["MLBOX_KEY_PASSWORD"] = f"{PASSWORD}-wrong"
    wrong = ours.run("sign", "box", "--key", "team.key", code=1)
    assert PASSWORD not in done.stdout + done.stderr + wrong.stdout + wrong.stderr
    body = (tmp_path / "team.key").read_text().splitlines()[1]
    for folder in (ours.home, tmp_path / "registry"):
        for path in folder.rglob("*"):
            if path.is_file() and path.stat().st_size < 1 << 20:
                data = path.read_bytes()
                assert PASSWORD.encode() not in data, path
                assert body.encode() not in data, path


def test_another_scanner_finds_the_same_packages(home: Home, tmp_path: Path) -> None:
    """A built image: syft and the bill agree on every package; every one has a hash; nothing changes twice."""
    syft = shutil.which("syft", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or missing("no syft")
    (tmp_path / "requirements.txt").write_text("six\nattrs\n")
    (tmp_path / "x.py").write_text("import six\n")
    program = Program(home.root, tmp_path)
    program.run("build", "-t", "team/x:1")
    bill = json.loads(program.out("sbom", "team/x:1"))
    assert program.out("sbom", "team/x:1") == program.out("sbom", "team/x:1")
    ours = {_identity(part) for part in bill["components"]}
    program.run("save", "team/x:1", "-o", str(tmp_path / "layout"))
    scan = [syft, "scan", f"oci-dir:{tmp_path}/layout", "-o", "cyclonedx-json", "-q"]
    found = json.loads(subprocess.run(scan, capture_output=True, check=True).stdout)
    kinds = ("pkg:deb/", "pkg:pypi/")
    assert ours == {_identity(part) for part in found["components"] if part.get("purl", "").startswith(kinds)}
    assert all(part["hashes"] for part in bill["components"])
    spdx = json.loads(program.out("sbom", "team/x:1", "--format", "spdx"))
    assert len(spdx["packages"]) == len(ours) + 1
    materials = json.loads(program.out("provenance", "team/x:1"))["predicate"]["buildDefinition"][
        "resolvedDependencies"
    ]
    hashes = {part["hashes"][0]["content"] for part in bill["components"]}
    assert {one["digest"]["sha256"] for one in materials} == hashes


def _identity(part: dict[str, Any]) -> tuple[str, str, str]:
    kind = part["purl"].partition("/")[0]
    name = re.sub(r"[-_.]+", "-", part["name"]).lower() if kind == "pkg:pypi" else part["name"]
    return kind, name, part["version"]
