"""Built wheels go to a registry and come from one: nothing is believed of what they were made from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.index import make_wheel
from fakes.registry import FakeRegistry, digest_of, registry

from mlbox.codec import canonical_json
from mlbox.engine import wheels
from mlbox.errors import MlboxError, RegistryError, StoreError, TrustError, UsageError
from mlbox.events import SILENT
from mlbox.lock.model import Package
from mlbox.oci.image import MANIFEST, ContainerConfig
from mlbox.paths import Home
from mlbox.plan.model import BuildPlan, BuiltWheelPiece, LayerPlan
from mlbox.registry.client import open_registry
from mlbox.registry.wheels import tag_of
from mlbox.store.built import BuiltWheel
from mlbox.store.store import Store


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry of this process."""
    with registry() as running:
        yield running


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    """An empty store."""
    store = Store(home)
    yield store
    store.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """The empty store of somebody else."""
    store = Store(Home(tmp_path / "other"))
    yield store
    store.close()


@pytest.fixture(autouse=True)
def _as_on_any_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLBOX_POLICY", str(tmp_path / "policy.toml"))
    (tmp_path / "policy.toml").write_text("")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("HOME", str(tmp_path))


def piece(name: str = "demo") -> BuiltWheelPiece:
    return BuiltWheelPiece(
        source=Package(name=name, version="1.0", filename=f"{name}-1.0.tar.gz", sha256="0" * 64, compiled=("c",)),
        build_packages=(),
        debs=(),
        python="3.11",
        python_full="3.11.2",
        suite="bookworm",
        arch="amd64",
    )


def plan(*pieces: BuiltWheelPiece) -> BuildPlan:
    layer = LayerPlan(name="small", kind="environment", pieces=pieces)
    return BuildPlan(arch="amd64", layers=(layer,), config=ContainerConfig())


def built(store: Store, tmp_path: Path, one: BuiltWheelPiece, content: bytes = b"x = 1\n") -> BuiltWheel:
    name = one.source.name
    filename, data = make_wheel(name, "1.0", files={f"{name}.py": content})
    path = tmp_path / filename
    path.write_bytes(data)
    wheel = BuiltWheel(
        piece=msgspec.Raw(canonical_json(one)),
        filename=filename,
        sha256=store.artifacts.add_file(path),
        size=len(data),
    )
    store.built.put(wheel)
    return wheel


def hows(found: list[wheels.Shared]) -> list[tuple[str, str]]:
    return [(one.name, one.how) for one in found]


def test_from_one_store_to_another(store: Store, other: Store, fake: FakeRegistry, tmp_path: Path) -> None:
    """By the key of all that went into it; what is there is not sent again, and where it came from is known."""
    name = f"{fake.host}/team/wheels"
    wheel = built(store, tmp_path, piece())
    built(store, tmp_path, piece("unneeded"))

    assert hows(wheels.push(store, plan(piece(), piece("later")), name, SILENT)) == [
        ("demo", "sent"),
        ("later", "not built"),
    ]
    assert hows(wheels.push(store, plan(piece()), name, SILENT)) == [("demo", "there")]
    assert hows(wheels.pull(other, plan(piece(), piece("later")), name, SILENT)) == [
        ("demo", "fetched"),
        ("later", "not there"),
    ]

    found = other.built.get(piece().key)
    assert found
    assert (found.filename, found.sha256) == (wheel.filename, wheel.sha256)
    assert found.origin.startswith(f"{name}@sha256:")
    assert other.artifacts.verify(wheel.sha256)
    assert hows(wheels.pull(other, plan(piece()), name, SILENT)) == [("demo", "here")]
    assert [(one.name, one.origin) for one in wheels.local(other)] == [("demo", found.origin)]


def test_all_of_a_store_and_of_a_repository(store: Store, other: Store, fake: FakeRegistry, tmp_path: Path) -> None:
    name = f"{fake.host}/team/wheels"
    built(store, tmp_path, piece())
    built(store, tmp_path, piece("more"))
    assert {one.how for one in wheels.push(store, None, name, SILENT)} == {"sent"}
    assert {(one.name, one.how) for one in wheels.remote(other, name, SILENT)} == {("demo", "there"), ("more", "there")}
    assert {one.how for one in wheels.pull(other, None, name, SILENT)} == {"fetched"}
    assert {one.how for one in wheels.remote(other, name, SILENT)} == {"here"}


def test_two_builds_of_the_same_that_differ(store: Store, other: Store, fake: FakeRegistry, tmp_path: Path) -> None:
    """Neither side is overwritten, and both are told."""
    name = f"{fake.host}/team/wheels"
    mine, theirs = built(store, tmp_path, piece(), b"x = 1\n"), built(other, tmp_path, piece(), b"x = 2\n")
    wheels.push(other, None, name, SILENT)
    assert hows(wheels.push(store, None, name, SILENT)) == [("demo", "other there")]
    assert hows(wheels.pull(store, plan(piece()), name, SILENT)) == [("demo", "other here")]
    known = store.built.get(piece().key)
    assert known
    assert known.sha256 == mine.sha256 != theirs.sha256


def test_a_wheel_that_was_changed_on_the_disk_is_not_sent(store: Store, fake: FakeRegistry, tmp_path: Path) -> None:
    wheel = built(store, tmp_path, piece())
    store.artifacts.path(wheel.sha256).write_bytes(b"other")
    with pytest.raises(StoreError, match="changed on the disk"):
        wheels.push(store, None, f"{fake.host}/team/wheels", SILENT)
    assert not fake.manifests


def manifest_in(fake: FakeRegistry) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(open_registry(fake.host).manifest("team/wheels", tag_of(piece().key)).data)
    return found


def replaced(fake: FakeRegistry, document: dict[str, Any], blob: bytes = b"") -> None:
    """Put another manifest in the place of the one there is."""
    client = open_registry(fake.host)
    if blob:
        client.put_blob("team/wheels", blob)
    client.put_manifest("team/wheels", tag_of(piece().key), json.dumps(document).encode(), MANIFEST)


def descriptor(data: bytes, media_type: str, **annotations: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), "annotations": annotations}


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "another type": ({"artifactType": "application/x"}, "no built wheel"),
    "no wheel": ({"layers": []}, "no built wheel"),
    "a path": ({"title": "../../evil-1.0-py3-none-any.whl"}, "no built wheel"),
    "no name of a wheel": ({"title": "demo.zip"}, "no built wheel"),
    "another package": ({"title": "evil-1.0-py3-none-any.whl"}, "no wheel of demo"),
    "another piece": ({"piece": canonical_json(piece("evil"))}, "made from something else"),
    "huge": ({"size": 1 << 50}, "no built wheel"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_registry_that_lies(store: Store, other: Store, fake: FakeRegistry, tmp_path: Path, lie: str) -> None:
    name = f"{fake.host}/team/wheels"
    built(store, tmp_path, piece())
    wheels.push(store, None, name, SILENT)
    document, (change, message) = manifest_in(fake), LIES[lie]
    if "title" in change:
        document["layers"][0]["annotations"] = {"org.opencontainers.image.title": change["title"]}
    elif "piece" in change:
        document["config"] = descriptor(change["piece"], document["config"]["mediaType"])
    elif "size" in change:
        document["layers"][0]["size"] = change["size"]
    else:
        document.update(change)
    replaced(fake, document, change.get("piece", b""))

    with pytest.raises(RegistryError, match=message):
        wheels.pull(other, plan(piece()), name, SILENT)
    assert not other.built.get(piece().key)


def test_other_bytes_than_the_digest_says(store: Store, other: Store, fake: FakeRegistry, tmp_path: Path) -> None:
    name = f"{fake.host}/team/wheels"
    wheel = built(store, tmp_path, piece())
    wheels.push(store, None, name, SILENT)
    (blobs,) = fake.blobs.values()
    blobs[f"sha256:{wheel.sha256}"] = b"\0" * wheel.size
    with pytest.raises(MlboxError):
        wheels.pull(other, plan(piece()), name, SILENT)
    assert not other.built.get(piece().key)
    assert not other.artifacts.has(wheel.sha256)


def test_the_policy_counts(store: Store, other: Store, fake: FakeRegistry, tmp_path: Path) -> None:
    name = f"{fake.host}/team/wheels"
    built(store, tmp_path, piece())
    wheels.push(store, None, name, SILENT)
    (tmp_path / "policy.toml").write_text('default = "deny"\n')
    with pytest.raises(TrustError):
        wheels.pull(other, plan(piece()), name, SILENT)
    assert not other.built.get(piece().key)


@pytest.mark.parametrize("name", ["host.example/x:1", "host.example/x@sha256:" + "1" * 64, "host.example:5000/x:tag"])
def test_wheels_lie_under_no_tag(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="not under a tag"):
        wheels.push(store, None, name, SILENT)


def test_only_what_is_built_from_source_can_be_built_again(store: Store) -> None:
    with pytest.raises(UsageError, match="numpy is not built from source") as refused:
        wheels.rebuild(None, None, plan(piece()), ["numpy"])  # type: ignore[arg-type]
    assert "demo" in (refused.value.hint or "")
