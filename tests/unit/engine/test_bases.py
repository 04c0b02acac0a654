"""An image below: found once, then named by digests; what is gone, damaged or unfit says so."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.registry import FakeRegistry, digest_of, registry

from mlbox.engine.bases import find_base, have_base, look_into
from mlbox.errors import LockError, RegistryError, TrustError
from mlbox.events import SILENT
from mlbox.lock.model import Base
from mlbox.oci.digest import DiffID, Digest
from mlbox.oci.image import CONFIG, INDEX, LAYER_GZIP, MANIFEST
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.gc import prune
from mlbox.store.store import Store

LIBC = b"\0GNU C Library (GNU libc) stable release version 2.36.\n"
LOW = {"lib64/libc.so.6": LIBC, "usr/bin/python3.11": b"#!", "etc/motd": b"hello"}
HIGH = {"usr/local/bin/python3.12": b"\x7fELF", "usr/bin/.wh.python3.11": b"", "etc/motd": b"bye"}
CONTAINER = {
    "Env": ["PATH=/usr/local/bin:/usr/bin", "NOTHING"],
    "User": "app",
    "Labels": {"b": "2", "a": "1"},
    "Cmd": ["x"],
}


@pytest.fixture
def remote() -> Iterator[FakeRegistry]:
    with registry() as running:
        yield running


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    store = Store(home)
    yield store
    store.close()


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def push(remote: FakeRegistry, *layers: dict[str, bytes], tag: str = "1", arch: str = "amd64", **config: Any) -> str:
    """Put an image into the registry; return the digest of its manifest."""
    tars = [tar_of(files) for files in layers]
    document = {
        "architecture": arch,
        "os": "linux",
        "config": config or CONTAINER,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(remote, json.dumps(document).encode(), CONFIG),
        "layers": [blob(remote, gzip.compress(tar, mtime=0), LAYER_GZIP) for tar in tars],
    }
    return remote.add_manifest("team/base", json.dumps(manifest).encode(), MANIFEST, tag)


def blob(remote: FakeRegistry, data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": remote.add_blob("team/base", data), "size": len(data)}


def index_of(remote: FakeRegistry, tag: str = "1", **by_arch: str) -> str:
    """Put an index over manifests into the registry; return its digest."""
    manifests = [
        {
            "mediaType": MANIFEST,
            "digest": digest,
            "size": len(remote.manifests["team/base"][digest].data),
            "platform": {"architecture": arch, "os": "linux"},
        }
        for arch, digest in by_arch.items()
    ]
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    return remote.add_manifest("team/base", data, INDEX, tag)


def find(store: Store, remote: FakeRegistry, name: str = ":1", locked: Base | None = None, arch: Any = "amd64") -> Base:
    reference = parse_reference(f"{remote.host}/team/base{name}")
    return find_base(store, reference, arch, SILENT, locked=locked, locked_arch="amd64")


def drop(remote: FakeRegistry, *digests: str) -> None:
    """Take manifests and all tags out of the registry."""
    remote.tags["team/base"].clear()
    for digest in digests:
        del remote.manifests["team/base"][digest]


def test_a_name_becomes_digests(store: Store, remote: FakeRegistry) -> None:
    """Everything that is needed later stands in the base: no tag is asked again."""
    mine, other = push(remote, LOW, HIGH), push(remote, LOW, arch="arm64")
    index = index_of(remote, amd64=mine, arm64=other)

    base = find(store, remote)

    assert (base.reference, base.digest, base.manifest) == (f"{remote.host}/team/base:1", index, mine)
    assert (base.user, base.env, base.labels) == ("app", ("PATH=/usr/local/bin:/usr/bin",), ("a=1", "b=2"))
    assert [layer.diff_id for layer in base.layers] == [digest_of(tar_of(LOW)), digest_of(tar_of(HIGH))]
    assert all(store.layers.has(layer.diff_id) for layer in base.layers)
    assert have_base(store, base, SILENT).rootfs.diff_ids == tuple(layer.diff_id for layer in base.layers)


def test_what_is_locked_is_not_asked_for(store: Store, remote: FakeRegistry) -> None:
    """With the layers in the store the registry hears nothing, whatever became of the tag."""
    base = find(store, remote, name=f"@{push(remote, LOW)}")
    push(remote, LOW, HIGH)
    remote.requests.clear()

    assert find(store, remote, locked=base) == base
    assert not remote.requests


def test_another_machine_gets_the_same_release(store: Store, remote: FakeRegistry) -> None:
    """Locked for one machine, the same index is asked for the other, not the tag, which has moved."""
    index = index_of(remote, amd64=push(remote, LOW), arm64=(other := push(remote, HIGH, arch="arm64")))
    base = find(store, remote)
    push(remote, LOW, HIGH)

    found = find(store, remote, locked=base, arch="arm64")

    assert (found.digest, found.manifest) == (index, other)


def test_an_empty_store_fetches_by_digest(store: Store, remote: FakeRegistry, home: Home) -> None:
    """The build on another machine needs no tag."""
    digest = push(remote, LOW, HIGH)
    base = find(store, remote)
    remote.tags["team/base"].clear()
    elsewhere = Store(Home(home.root / "elsewhere"))

    have_base(elsewhere, base, SILENT)

    assert all(elsewhere.layers.has(layer.diff_id) for layer in base.layers)
    assert base.manifest == digest
    assert elsewhere.images.list()[0].digest == store.images.list()[0].digest
    elsewhere.close()


def test_gone_for_good(store: Store, remote: FakeRegistry, home: Home) -> None:
    """The error names what was locked and what the name means now."""
    old = push(remote, LOW)
    base = find(store, remote)
    drop(remote, old)
    elsewhere = Store(Home(home.root / "elsewhere"))

    with pytest.raises(RegistryError, match=f"no longer has {old}.*the name is gone too"):
        have_base(elsewhere, base, SILENT)
    new = push(remote, LOW, HIGH)
    with pytest.raises(RegistryError, match=f"no longer has {old}.*the name now means {new}") as gone:
        have_base(elsewhere, base, SILENT)
    assert "--upgrade" in (gone.value.hint or "")
    elsewhere.close()


@pytest.mark.parametrize("field", ["config", "layers"])
def test_a_lock_that_contradicts_the_image(store: Store, remote: FakeRegistry, field: str) -> None:
    """An edited digest is found, whether the layers are here or in the registry."""
    push(remote, LOW, HIGH)
    base = find(store, remote)
    wrong = {
        "config": Digest("sha256:" + "0" * 64),
        "layers": (msgspec.structs.replace(base.layers[0], diff_id=base.layers[1].diff_id), base.layers[1]),
    }
    with pytest.raises(LockError, match=r"mlbox\.lock contradicts its base"):
        have_base(store, msgspec.structs.replace(base, **{field: wrong[field]}), SILENT)

    absent = msgspec.structs.replace(base.layers[0], diff_id=DiffID(Digest("sha256:" + "0" * 64)))
    with pytest.raises(LockError, match=r"mlbox\.lock contradicts its base"):
        have_base(store, msgspec.structs.replace(base, layers=(absent, base.layers[1])), SILENT)


def test_for_another_machine(store: Store, remote: FakeRegistry) -> None:
    """The error names what there is."""
    index_of(remote, "both", arm64=push(remote, LOW, arch="arm64"))
    with pytest.raises(RegistryError, match="linux/arm64"):
        find(store, remote, ":both")
    with pytest.raises(LockError, match="is for arm64, not for amd64"):
        find(store, remote)


def test_a_prune_leaves_it(store: Store, remote: FakeRegistry) -> None:
    """The base is an image with a name, also when only a digest was asked for."""
    tagged, pinned = push(remote, LOW), push(remote, HIGH, tag="2")
    bases = [find(store, remote), find(store, remote, f"@{pinned}")]

    prune(store, "unused")

    assert all(store.layers.has(layer.diff_id) for base in bases for layer in base.layers)
    names = {name for row in store.images.list() for name in row.names}
    assert names == {f"{remote.host}/team/base:1", f"{remote.host}/team/base:locked-{pinned[7:19]}"}
    assert tagged != pinned


def test_a_name_of_the_user_is_not_taken(store: Store, remote: FakeRegistry, home: Home) -> None:
    """Fetched for a build, the base takes no name that another image has here."""
    push(remote, LOW)
    base = find(store, remote)
    push(remote, HIGH)
    elsewhere = Store(Home(home.root / "elsewhere"))
    newer = find(elsewhere, remote)

    have_base(elsewhere, base, SILENT)

    named = elsewhere.images.load(elsewhere.images.resolve(newer.reference))
    assert named.config.rootfs.diff_ids == tuple(layer.diff_id for layer in newer.layers)
    elsewhere.close()


def test_offline_the_store_answers(store: Store, remote: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was pulled from that repository is found without a network, with the digests it had there."""
    index_of(remote, amd64=push(remote, LOW, HIGH))
    online = find(store, remote)
    remote.requests.clear()
    monkeypatch.setenv("MLBOX_OFFLINE", "1")

    assert find(store, remote) == online
    assert not remote.requests
    with pytest.raises(RegistryError):
        find(store, remote, ":2")


def test_a_policy_is_asked_about_what_is_here(
    store: Store, remote: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base that was fetched while it was allowed, or of which other images left the layers, is judged again."""
    push(remote, LOW)
    base = find(store, remote)
    have_base(store, base, SILENT)
    (tmp_path / "policy.toml").write_text(f'[[rule]]\nprefix = "{remote.host}"\naction = "deny"')
    monkeypatch.setenv("MLBOX_POLICY", str(tmp_path / "policy.toml"))
    with pytest.raises(TrustError, match="does not allow"):
        have_base(store, base, SILENT)
    with pytest.raises(TrustError, match="does not allow"):
        find(store, remote, locked=base)
    monkeypatch.setenv("MLBOX_OFFLINE", "1")
    with pytest.raises(TrustError, match="does not allow"):
        find(store, remote)
    store.images.remove(store.images.resolve(base.reference))
    with pytest.raises(TrustError, match="does not allow"):
        have_base(store, base, SILENT)


def test_looking_into_it(store: Store, remote: FakeRegistry) -> None:
    """Layers are seen as a container sees them: a Python that an upper layer removed is not there."""
    push(remote, LOW, HIGH, Entrypoint=["/banner"])
    ground = look_into(store, find(store, remote), "amd64")

    assert [one.path for one in ground.interpreters] == ["/usr/local/bin/python3.12"]
    assert ground.root.read("etc/motd") == b"bye"
    assert (ground.glibc, ground.system.suite, ground.installed) == ("2.36", "", {})
    assert ground.entrypoint == ("/banner",)


def test_an_image_of_mlbox_is_no_base(store: Store, remote: FakeRegistry) -> None:
    """Its environment would show through the new one."""
    push(remote, LOW, {"opt/mlbox/env/pyvenv.cfg": b""})

    with pytest.raises(LockError, match="packages would mix"):
        look_into(store, find(store, remote), "amd64")
