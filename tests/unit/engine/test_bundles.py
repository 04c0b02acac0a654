"""Images that travel in a file: what leaves one store is what arrives in the other, or nothing arrives."""

import hashlib
import io
import os
import signal
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from fakes.sites import attach, build
from fakes.trees import make_image, make_layer
from fakes.wheels import make_wheel

from mlbox.codec import canonical_json
from mlbox.engine.bundles.load import load_bundle, load_stream, verify_bundle
from mlbox.engine.bundles.write import Bundled, BundleOptions, left_out, make_bundle
from mlbox.engine.trust.admission import admit_run
from mlbox.errors import ArchiveError, MlboxError, NotFoundError, StoreError, TrustError, UsageError
from mlbox.lock.model import Base, Package
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE, Artifact, Blob, artifact_of, subject_of
from mlbox.oci.digest import DiffID, Digest, digest_of, hex_of
from mlbox.oci.image import CONFIG, MANIFEST, ContainerConfig, Descriptor, Image, ImageIndex, Manifest, local_image
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.plan.model import BuildPlan, BuiltWheelPiece, EnvPiece, LayerPlan, RunPiece, WheelPiece
from mlbox.registry.bundle import BundledLayer, BundledRemote, Contents
from mlbox.registry.bundle_contents import Damage
from mlbox.registry.bundle_have import given_by, have_of
from mlbox.registry.bundle_read import open_bundle
from mlbox.registry.bundle_write import write_bundle
from mlbox.store.built import BuiltWheel
from mlbox.store.fsck import fsck
from mlbox.store.store import Store

NAME = "me/bert:1"
WHEELS = {"one": b"1", "two": b"2" * 5000}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda fd: None)  # nobody pulls the plug here; a kill loses nothing


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    """The store where images are built."""
    store = Store(home)
    yield store
    store.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """The store of a machine without a network."""
    store = Store(Home(tmp_path / "other"))
    yield store
    store.close()


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Image:
    """An image that was built from two wheels."""
    return build(store, tmp_path, NAME, WHEELS)


def bundle(store: Store, path: Path, *names: str, **options: object) -> Bundled:
    """Bundle images to `path`."""
    with path.open("wb") as out:
        return make_bundle(store, names or (NAME,), out, msgspec.convert(options, BundleOptions))


def delta(store: Store, path: Path, name: str, have: Contents, **options: object) -> Bundled:
    """Bundle what a store that loaded `have` lacks."""
    with path.open("wb") as out:
        asked = BundleOptions(have=given_by(have), since=(digest_of(b"old"),), **options)  # type: ignore[arg-type]
        return make_bundle(store, (name,), out, asked)


def ways(made: Bundled) -> dict[str, str]:
    return {layer.name: layer.way for layer in made.contents.layers}


def forge(
    source: Path, target: Path, change: Callable[[Contents], Contents], blobs: dict[Digest, bytes] | None = None
) -> Path:
    """Write a bundle whose bytes are in order and whose contents lie."""
    with open_bundle(source) as opened, target.open("wb") as out:
        extra = {} if blobs is None else blobs
        write_bundle(
            change(opened.contents),
            lambda digest: [extra[digest]] if digest in extra else opened.blob(digest),
            out,
        )
    return target


def nothing_of(store: Store) -> bool:
    """Whether a store has neither images nor names, and is sound."""
    return not store.images.list() and fsck(store, deep=True).clean


def test_the_same_image_arrives(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """Digest, name, files, lock and plan; the receiving store is sound and has the wheels."""
    made = bundle(store, tmp_path / "x")
    assert verify_bundle(other, tmp_path / "x").digest == made.digest
    assert not other.home.root.exists()  # verifying writes nothing
    loaded = load_bundle(other, tmp_path / "x")
    assert [found.digest for found in loaded.images] == [image.digest]
    assert other.images.resolve(NAME) == image.digest
    assert other.images.get(image.digest) == image
    assert all(other.layers.verify(diff_id) for diff_id in image.config.rootfs.diff_ids)
    assert other.referrers.plan_of(image.digest) == store.referrers.plan_of(image.digest)
    assert other.referrers.lock_of(image.digest) == store.referrers.lock_of(image.digest)
    assert set(other.artifacts.hashes()) == set(store.artifacts.hashes())
    assert sorted(loaded.unpacked) == ["project", "python environment", "small"]
    assert (loaded.files, made.digest) == (2, loaded.digest)
    assert fsck(other, deep=True).clean


def test_through_a_pipe(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """What comes through one is checked like any other, and leaves nothing but the image."""
    bundle(store, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    with pytest.raises(Damage, match=r"^the bundle: .* was cut off"):
        load_stream(other, io.BytesIO(data[:-1]))
    assert nothing_of(other)
    assert load_stream(other, io.BytesIO(data)).images[0].digest == image.digest
    assert list(other.home.tmp.iterdir()) == []


def test_equal_images_make_equal_bundles(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """On another machine too: the bundle of what was loaded is the bundle it came from."""
    bundle(store, tmp_path / "a")
    load_bundle(other, tmp_path / "a")
    bundle(other, tmp_path / "b")
    bundle(store, tmp_path / "c", image.digest, NAME)
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


def test_nothing_of_the_host_is_in_it(store: Store, image: Image, tmp_path: Path) -> None:
    """Neither paths nor the machine's name nor who made it, when nothing is compressed."""
    token = "https://me:token-4711@example.com/x.whl"
    store.home.metadata.mkdir()
    (store.home.metadata / "urls").write_text(token)
    bundle(store, tmp_path / "x", compression="none")
    data = (tmp_path / "x").read_bytes()
    assert b"python environment" in data
    for secret in (
        token,
        "token-4711",
        str(tmp_path),
        str(store.home.root),
        socket.gethostname(),
        os.environ.get("USER", ""),
    ):
        assert not secret or secret == "root" or secret.encode() not in data


def test_loading_again_changes_nothing(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """And says that all was there."""
    bundle(store, tmp_path / "x")
    load_bundle(other, tmp_path / "x")
    again = load_bundle(other, tmp_path / "x")
    assert (again.unpacked, again.made, again.files) == ((), (), 0)
    assert not again.images[0].new
    assert len(other.referrers.of(image.digest)) == 2


def test_several_images_share_their_layers(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """The environment and the wheels are in it once."""
    second = build(store, tmp_path, "me/bert:2", WHEELS, b"print(2)")
    made = bundle(store, tmp_path / "x", NAME, "me/bert:2", image.digest[:20])
    assert len(made.contents.layers) == 4
    load_bundle(other, tmp_path / "x")
    assert other.images.resolve("me/bert:2") == second.digest
    assert other.images.resolve(NAME) == image.digest


def test_a_name_that_moves_is_reported(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """What had it before stays in the store."""
    before = make_image(other, label="before")
    other.images.tag(before.digest, parse_reference(NAME))
    bundle(store, tmp_path / "x")
    (name,) = load_bundle(other, tmp_path / "x").images[0].names
    assert (name.name, name.before) == (NAME, before.digest)
    assert other.images.has(before.digest)


def test_only_the_name_that_was_asked_for(store: Store, image: Image, tmp_path: Path) -> None:
    """By digest all of them."""
    store.images.tag(image.digest, parse_reference("me/secret-project"))
    assert bundle(store, tmp_path / "x").contents.images[0].names == ("docker.io/me/bert:1",)
    assert len(bundle(store, tmp_path / "x", image.digest).contents.images[0].names) == 2


def test_an_image_of_which_nothing_is_known(store: Store, other: Store, tmp_path: Path) -> None:
    """It travels without wheels; to ask for them is an error that says why."""
    foreign = make_image(store, make_layer(store, "a", {"x": b"1"}), make_layer(store, "b", {"x": b"2"}))
    store.images.tag(foreign.digest, parse_reference("foreign"))
    with pytest.raises(NotFoundError, match="what it was built from is not known"):
        bundle(store, tmp_path / "x", "foreign", artifacts=True)
    bundle(store, tmp_path / "x", "foreign")
    load_bundle(other, tmp_path / "x")
    assert other.images.resolve("foreign") == foreign.digest


def test_layers_that_others_made(store: Store, other: Store, tmp_path: Path) -> None:
    """Their tars arrive byte for byte, one that comes twice in an image too; and an image may have none at all."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("usr", "usr/bin"):
            info = tarfile.TarInfo(name)
            info.type, info.uname, info.mtime, info.mode = tarfile.DIRTYPE, "builder", 1_700_000_000, 0o755
            tar.addfile(info)
        info = tarfile.TarInfo("usr/bin/x")
        info.size, info.gname = 3, "staff"
        tar.addfile(info, io.BytesIO(b"abc"))
    diff_id = DiffID(digest_of(data.getvalue()))
    size = store.layers.ingest(diff_id, [data.getvalue()], "foreign")
    for name, diff_ids in (("me/twice", (diff_id, diff_id)), ("me/empty", ())):
        config = msgspec.json.encode(
            {"architecture": "amd64", "os": "linux", "config": None, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        )
        foreign = local_image(config, [size] * len(diff_ids))
        store.images.add(foreign)
        store.images.tag(foreign.digest, parse_reference(name))
        bundle(store, tmp_path / "x", name)
        load_bundle(other, tmp_path / "x")
        assert other.images.resolve(name) == foreign.digest
    assert b"".join(bytes(chunk) for chunk in other.layers.tar(diff_id)) == data.getvalue()


def test_wheels_that_are_gone(store: Store, image: Image, tmp_path: Path) -> None:
    """Asked for, they are an error; else the bundle has the rest."""
    store.artifacts.delete(next(store.artifacts.hashes()))
    with pytest.raises(NotFoundError, match="no longer has 1 of the files"):
        bundle(store, tmp_path / "x", artifacts=True)
    assert len(bundle(store, tmp_path / "x").contents.files) == 1
    assert bundle(store, tmp_path / "x", artifacts=False).contents.files == ()


def test_what_is_not_there(store: Store, tmp_path: Path) -> None:
    """An unknown image, or none."""
    with pytest.raises(NotFoundError):
        bundle(store, tmp_path / "x", "nobody/knows:1")
    with pytest.raises(UsageError):
        make_bundle(store, (), io.BytesIO(), BundleOptions())


def test_a_layer_that_changed_on_the_disk(store: Store, image: Image, tmp_path: Path) -> None:
    """It does not leave the store."""
    root = store.layers.root(image.config.rootfs.diff_ids[1])
    next(path for path in root.rglob("one.py")).write_bytes(b"x")
    with pytest.raises(StoreError, match="layer small was changed on the disk"):
        bundle(store, tmp_path / "x")


# deltas


def test_a_delta_has_what_is_new(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """The project's layer and the new wheel; the layer of the wheels is made there."""
    first = bundle(store, tmp_path / "1")
    second = build(store, tmp_path, "me/bert:2", {**WHEELS, "three": b"3"}, b"print(2)")
    made = delta(store, tmp_path / "2", "me/bert:2", first.contents)
    assert ways(made) == {"python environment": "there", "small": "made", "project": "blob"}
    assert [file.filename for file in made.contents.files if not file.there] == ["three-1.0-py3-none-any.whl"]
    assert len(list(left_out(made.contents))) == 3
    load_bundle(other, tmp_path / "1")
    loaded = load_bundle(other, tmp_path / "2")
    assert (loaded.made, loaded.unpacked, loaded.there) == (("small",), ("project",), ("python environment",))
    assert other.images.get(second.digest) == second
    assert all(other.layers.verify(diff_id) for diff_id in second.config.rootfs.diff_ids)
    assert fsck(other, deep=True).clean


def test_a_delta_of_a_delta(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """What a delta needed is there for the next one."""
    contents = bundle(store, tmp_path / "0").contents
    load_bundle(other, tmp_path / "0")
    for number in ("1", "2"):
        last = build(store, tmp_path, f"me/bert:{number}", WHEELS, number.encode())
        contents = delta(store, tmp_path / number, f"me/bert:{number}", contents).contents
        load_bundle(other, tmp_path / number)
    assert other.images.get(last.digest) == last
    assert [layer.way for layer in contents.layers].count("there") == 2


def test_without_wheels_only_what_can_be_made_of_those_there(store: Store, image: Image, tmp_path: Path) -> None:
    """A new wheel that is not in the bundle brings its whole layer; without one the layer is made."""
    first = bundle(store, tmp_path / "1")
    build(store, tmp_path, "me/more", {**WHEELS, "three": b"3"})
    assert ways(delta(store, tmp_path / "2", "me/more", first.contents, artifacts=False))["small"] == "blob"
    build(store, tmp_path, "me/less", {"one": b"1"})
    made = delta(store, tmp_path / "3", "me/less", first.contents, artifacts=False)
    assert ways(made)["small"] == "made"
    assert [file.filename for file in made.contents.files if file.there] == ["one-1.0-py3-none-any.whl"]


def test_pieces_serve_where_wheels_are_gone(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """A store that unpacked a wheel and forgot it can still make layers of it."""
    bundle(store, tmp_path / "1")
    load_bundle(other, tmp_path / "1")
    plan = msgspec.json.decode(other.referrers.plan_of(image.digest) or b"", type=BuildPlan)
    for piece in plan.layers[1].pieces:
        folder = store.pieces.folder(piece.key)
        other.pieces.folder(piece.key).parent.mkdir(exist_ok=True)
        folder.rename(other.pieces.folder(piece.key))
    for sha256 in list(other.artifacts.hashes()):
        other.artifacts.delete(sha256)
    have = have_of(other)
    less = build(store, tmp_path, "me/less", {"one": b"1"})
    with (tmp_path / "2").open("wb") as out:
        made = make_bundle(store, ("me/less",), out, BundleOptions(have=have, artifacts=False))
    assert ways(made)["small"] == "made"
    assert len(made.contents.pieces) == 1
    load_bundle(other, tmp_path / "2")
    assert other.layers.verify(less.config.rootfs.diff_ids[1])


def test_a_delta_for_another_store(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """The error names what is missing and the commands that mend it; nothing has come."""
    first = bundle(store, tmp_path / "1")
    build(store, tmp_path, "me/bert:2", {**WHEELS, "three": b"3"}, b"print(2)")
    delta(store, tmp_path / "2", "me/bert:2", first.contents)
    with pytest.raises(StoreError) as refused:
        load_bundle(other, tmp_path / "2")
    assert "1 layer: python environment (" in refused.value.message
    assert "2 files: " in refused.value.message
    assert digest_of(b"old") in refused.value.message
    assert "mlbox bundle have" in (refused.value.hint or "")
    assert nothing_of(other)
    assert str(verify_bundle(other, tmp_path / "2").missing).startswith("1 layer: python environment")
    assert not verify_bundle(store, tmp_path / "2").missing


def test_a_plan_of_a_stranger_makes_nothing_else(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """A plan that makes another layer than the image has is found out, and no image appears."""
    first = bundle(store, tmp_path / "1")
    load_bundle(other, tmp_path / "1")
    before = other.images.list()
    second = build(store, tmp_path, "me/bert:2", {**WHEELS, "three": b"3"}, b"2")
    plan = msgspec.json.decode(store.referrers.plan_of(second.digest) or b"", type=BuildPlan)
    lie = msgspec.structs.replace(plan.layers[1], pieces=tuple(reversed(plan.layers[1].pieces[:2])))
    attach(store, second, msgspec.structs.replace(plan, layers=(plan.layers[0], lie, plan.layers[2])))
    made = delta(store, tmp_path / "2", "me/bert:2", first.contents)
    assert ways(made)["small"] == "made"
    with pytest.raises(StoreError, match=r"layer small becomes sha256:\w+ and not"):
        load_bundle(other, tmp_path / "2")
    assert other.images.list() == before


@pytest.mark.parametrize(
    "piece",
    [
        WheelPiece(
            name="one", version="1.0", filename="one-1.0-py3-none-any.whl", sha256="", python="../../../../tmp/x"
        ),
        WheelPiece(name="one", version="1.0", filename="../x.whl", sha256="", python="3.11"),
        EnvPiece(python="3.11/../../../../../tmp", python_full="3.11.2"),
        EnvPiece(python="3.11", python_full="3.11.2", rules=99),
    ],
)
def test_a_plan_that_climbs_is_not_used(
    store: Store, image: Image, tmp_path: Path, piece: WheelPiece | EnvPiece
) -> None:
    """Its words would become paths on the disk: such a layer travels as it is."""
    first = bundle(store, tmp_path / "1")
    second = build(store, tmp_path, "me/bert:2", {"one": b"1"}, b"2")
    if isinstance(piece, WheelPiece):
        piece = msgspec.structs.replace(piece, sha256=first.contents.files[0].digest[7:])
    plan = msgspec.json.decode(store.referrers.plan_of(second.digest) or b"", type=BuildPlan)
    evil = LayerPlan(name="small", kind="environment", pieces=(piece,))
    attach(store, second, msgspec.structs.replace(plan, layers=(plan.layers[0], evil, plan.layers[2])))
    assert ways(delta(store, tmp_path / "2", "me/bert:2", first.contents))["small"] == "blob"


# what is about an image


def test_everything_about_an_image_comes_along(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """A bill, and a signature of the bill; of two locks the last."""
    subject = subject_of(image.digest, image.manifest_bytes)
    bill = store.referrers.add(
        Artifact(artifact_type="x/bill", blobs=(Blob(media_type="x/y", data=b"a bill"),)), subject
    )
    about = Descriptor(media_type=MANIFEST, digest=bill, size=len(store.content.read(bill)))
    store.referrers.add(artifact_of("x/signature", b"signed"), about)
    store.referrers.add(artifact_of(LOCK_TYPE, b"the last"), subject)
    bundle(store, tmp_path / "x")
    load_bundle(other, tmp_path / "x")
    assert [found.digest for found in other.referrers.of(image.digest, "x/bill")] == [bill]
    (signature,) = other.referrers.of(bill)
    assert other.referrers.blob(other.referrers.manifest(signature.digest).layers[0]) == b"signed"
    assert other.referrers.lock_of(image.digest) == b"the last"
    assert len(other.referrers.of(image.digest, LOCK_TYPE)) == 1


def test_our_own_lock_is_not_replaced(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """A bundle does not change what this machine knows of an image that it built itself."""
    build(other, tmp_path, NAME, WHEELS)
    ours = artifact_of(LOCK_TYPE, b"ours"), artifact_of(PLAN_TYPE, b"{}")
    for artifact in ours:
        other.referrers.add(artifact, subject_of(image.digest, image.manifest_bytes))
    bundle(store, tmp_path / "x")
    load_bundle(other, tmp_path / "x")
    assert (other.referrers.lock_of(image.digest), other.referrers.plan_of(image.digest)) == (b"ours", b"{}")


def pushed(store: Store, image: Image) -> tuple[Digest, Digest]:
    """Remember the image as if it had been pulled by an index; return the digests of manifest and index."""
    compressed = tuple(Descriptor(media_type="x/y", digest=digest_of(b"gz"), size=2) for _ in image.manifest.layers)
    manifest = msgspec.json.encode(Manifest(config=image.manifest.config, layers=compressed))
    entry = Descriptor(media_type=MANIFEST, digest=digest_of(manifest), size=len(manifest))
    index = msgspec.json.encode(ImageIndex(manifests=(entry,)))
    for data in (manifest, index):
        store.content.put(data)
        store.remotes.remember(digest_of(data), "registry.example.com/team/bert", image.digest)
    return digest_of(manifest), digest_of(index)


def test_where_else_the_image_lies_is_known_there_too(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """So that a digest of a registry can be run, and a signature of it counts."""
    digests = pushed(store, image)
    bundle(store, tmp_path / "x")
    load_bundle(other, tmp_path / "x")
    for digest in digests:
        assert other.remotes.image_of(digest, "registry.example.com/team/bert") == image.digest
        assert other.content.has(digest)


def test_what_an_image_stands_on_comes_along(store: Store, other: Store, tmp_path: Path) -> None:
    """Building again needs the base's configuration; but the base takes no name from an image of the other machine."""
    base = make_image(store, make_layer(store, "debian", {"bin/python": b"3"}))
    store.images.tag(base.digest, parse_reference("registry.example.com/python:3"))
    manifest = msgspec.json.encode(Manifest(config=base.manifest.config, layers=base.manifest.layers), order="sorted")
    store.content.put(manifest)
    store.remotes.remember(digest_of(manifest), "registry.example.com/python", base.digest)
    upper = build(store, tmp_path, "me/plain", {"one": b"1"})
    plan = msgspec.json.decode(store.referrers.plan_of(upper.digest) or b"", type=BuildPlan)
    locked = Base(
        kind="image",
        reference="registry.example.com/python:3",
        manifest=digest_of(manifest),
        config=base.manifest.config.digest,
    )
    attach(store, upper, msgspec.structs.replace(plan, base=locked))
    theirs = make_image(other, label="theirs")
    other.images.tag(theirs.digest, parse_reference("registry.example.com/python:3"))

    contents = bundle(store, tmp_path / "x", "me/plain").contents
    assert {image.digest: image.below for image in contents.images} == {base.digest: True, upper.digest: False}
    load_bundle(other, tmp_path / "x")
    assert other.content.has(base.manifest.config.digest)
    assert other.remotes.image_of(digest_of(manifest), "registry.example.com/python") == base.digest
    assert other.images.resolve("registry.example.com/python:3") == theirs.digest
    assert len(bundle(store, tmp_path / "y", "me/plain", artifacts=False).contents.images) == 1


def test_a_manifest_of_another_image_is_found_out(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """A bundle cannot say that a registry's digest means its own image, nor with an index that lists another."""
    another = build(store, tmp_path, "me/other", {"one": b"1"})
    manifest, index = pushed(store, another)
    bundle(store, tmp_path / "x", NAME, "me/other")

    def lie(contents: Contents) -> Contents:
        remotes = tuple(msgspec.structs.replace(remote, image=image.digest) for remote in contents.remotes)
        return msgspec.structs.replace(contents, remotes=remotes)

    def lie_of_index(contents: Contents) -> Contents:
        remotes = tuple(
            msgspec.structs.replace(remote, image=image.digest) if remote.manifest.digest == index else remote
            for remote in contents.remotes
        )
        return msgspec.structs.replace(contents, remotes=remotes)

    for change, said in ((lie, f"{manifest} is of another image"), (lie_of_index, "does not list its image")):
        path = forge(tmp_path / "x", tmp_path / "y", change)
        with pytest.raises(Damage, match=said):
            load_bundle(other, path)
        assert nothing_of(other)


# strangers


def replaced(contents: Contents, name: str, **changes: object) -> Contents:
    layers = tuple(
        msgspec.structs.replace(layer, **changes) if layer.name == name else layer for layer in contents.layers
    )
    return msgspec.structs.replace(contents, layers=tuple(sorted(layers, key=lambda layer: layer.diff_id)))


def bomb(contents: Contents) -> tuple[Contents, dict[Digest, bytes]]:
    """A layer whose blob is gigabytes of zeros, compressed."""
    from mlbox.store.compression import compressed

    data = b"".join(bytes(chunk) for chunk in compressed((bytes(1 << 20) for _ in range(300)), "zstd"))
    layer = next(layer for layer in contents.layers if layer.name == "small")
    assert layer.blob is not None
    blob = msgspec.structs.replace(layer.blob, digest=digest_of(data), size=len(data))
    return replaced(contents, "small", blob=blob), {blob.digest: data}


def test_a_bomb_goes_off_nowhere(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """No more is unpacked than the layer is said to have."""
    bundle(store, tmp_path / "x")
    with open_bundle(tmp_path / "x") as opened:
        contents, blobs = bomb(opened.contents)
    path = forge(tmp_path / "x", tmp_path / "y", lambda _: without_manifest(contents, blobs), blobs)
    for check in (verify_bundle, load_bundle):
        with pytest.raises(ArchiveError, match="small"):
            check(other, path)
    assert nothing_of(other)


def without_manifest(contents: Contents, blobs: dict[Digest, bytes]) -> Contents:
    """Return `contents` whose manifests for other tools fit its layers; they are put into `blobs`."""
    from mlbox.engine.bundles.check import manifest_for_others

    by_layer = {layer.diff_id: layer.blob for layer in contents.layers if layer.blob}
    sizes = {layer.diff_id: layer.size for layer in contents.layers}
    images = []
    for image in contents.images:
        data = SOURCES[image.config.digest]
        diff_ids = [DiffID(diff_id) for diff_id in msgspec.json.decode(data)["rootfs"]["diff_ids"]]
        whole = local_image(data, [sizes[diff_id] for diff_id in diff_ids])
        manifest = manifest_for_others(whole, by_layer)
        blobs[digest_of(manifest)] = manifest
        descriptor = Descriptor(media_type=MANIFEST, digest=digest_of(manifest), size=len(manifest))
        images.append(msgspec.structs.replace(image, digest=whole.digest, manifest=descriptor))
    known = {image.digest: new.digest for image, new in zip(contents.images, images, strict=True)}
    referrers = tuple(r for r in contents.referrers if known.get(r.subject, "") == r.subject)
    return msgspec.structs.replace(contents, images=tuple(images), referrers=referrers)


SOURCES: dict[Digest, bytes] = {}


@pytest.fixture(autouse=True)
def _configurations(image: Image) -> None:
    SOURCES[image.manifest.config.digest] = image.config_bytes


def test_another_layer_under_a_diff_id(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """What the tar is decides, not what the contents call it."""
    bundle(store, tmp_path / "x")
    with open_bundle(tmp_path / "x") as opened:
        by_name = {layer.name: layer for layer in opened.contents.layers}
        project = by_name["project"].blob
        contents = replaced(opened.contents, "small", blob=project)
    blobs: dict[Digest, bytes] = {}
    path = forge(tmp_path / "x", tmp_path / "y", lambda _: without_manifest(contents, blobs), blobs)
    for check in (verify_bundle, load_bundle):
        with pytest.raises(ArchiveError):
            check(other, path)
    assert nothing_of(other)


@pytest.mark.parametrize("by", [512, -512])
def test_sizes_that_lie(store: Store, other: Store, image: Image, tmp_path: Path, by: int) -> None:
    """The image's digest holds the sizes of its tars, so a wrong one makes another image: found when unpacked."""
    bundle(store, tmp_path / "x")
    with open_bundle(tmp_path / "x") as opened:
        small = next(layer for layer in opened.contents.layers if layer.name == "small")
        contents = replaced(opened.contents, "small", size=small.size + by)
    blobs: dict[Digest, bytes] = {}
    fitting = without_manifest(contents, blobs)
    plain = forge(tmp_path / "x", tmp_path / "y", lambda _: contents)
    with pytest.raises(Damage, match="is not what its configuration and layers make"):
        load_bundle(other, plain)
    path = forge(tmp_path / "x", tmp_path / "z", lambda _: fitting, blobs)
    for check in (verify_bundle, load_bundle, load_bundle):  # the second time the layer itself is there
        with pytest.raises(ArchiveError, match="layer small"):
            check(other, path)
    assert nothing_of(other)


def test_more_than_the_disk_has(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """It is refused before a byte is written."""
    bundle(store, tmp_path / "x")
    with open_bundle(tmp_path / "x") as opened:
        contents = replaced(opened.contents, "small", size=1 << 49)
    blobs: dict[Digest, bytes] = {}
    path = forge(tmp_path / "x", tmp_path / "y", lambda _: without_manifest(contents, blobs), blobs)
    with pytest.raises(StoreError, match=r"needs 5629\d\d\.\d GB, and the disk of the store has"):
        load_bundle(other, path)
    assert nothing_of(other)


LIES: dict[str, tuple[Callable[[Contents], Contents], str]] = {
    "another digest": (
        lambda c: msgspec.structs.replace(
            c,
            images=(msgspec.structs.replace(c.images[0], digest=digest_of(b"x")),),
            referrers=(),
        ),
        "is not what its configuration and layers make",
    ),
    "another platform": (
        lambda c: msgspec.structs.replace(c, images=(msgspec.structs.replace(c.images[0], architecture="arm64"),)),
        "for another platform",
    ),
    "another manifest": (
        lambda c: msgspec.structs.replace(
            c, images=(msgspec.structs.replace(c.images[0], manifest=c.referrers[0].manifest),)
        ),
        "is of another image",
    ),
    "another configuration": (
        lambda c: msgspec.structs.replace(
            c,
            images=(
                msgspec.structs.replace(
                    c.images[0], config=msgspec.structs.replace(c.referrers[0].manifest, media_type=CONFIG)
                ),
            ),
        ),
        "missing required field",
    ),
    "a layer of no image": (
        lambda c: msgspec.structs.replace(
            c,
            layers=tuple(
                sorted(
                    (
                        *c.layers,
                        BundledLayer(
                            diff_id=DiffID(digest_of(b"x")), size=1, name="x", way="blob", blob=c.layers[0].blob
                        ),
                    ),
                    key=lambda layer: layer.diff_id,
                )
            ),
        ),
        "is of no image",
    ),
    "a layer less": (lambda c: msgspec.structs.replace(c, layers=c.layers[1:]), "nothing says where layer"),
    "about something else": (
        lambda c: msgspec.structs.replace(
            c,
            referrers=(
                c.referrers[0],
                msgspec.structs.replace(c.referrers[1], subject=c.referrers[0].manifest.digest),
            ),
        ),
        "is not what the contents say",
    ),
    "other documents": (
        lambda c: msgspec.structs.replace(
            c, referrers=(msgspec.structs.replace(c.referrers[0], blobs=c.referrers[1].blobs), c.referrers[1])
        ),
        "is not what the contents say",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_contents_that_lie(store: Store, other: Store, image: Image, tmp_path: Path, lie: str) -> None:
    """Each document is compared with what names it, before anything is unpacked."""
    change, said = LIES[lie]
    bundle(store, tmp_path / "x")
    path = forge(tmp_path / "x", tmp_path / "y", change)
    for check in (verify_bundle, load_bundle):
        with pytest.raises(MlboxError, match=said):
            check(other, path)
    assert nothing_of(other)
    assert list(other.layers.diff_ids()) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"[" * 100_000,
        b'{"config":' * 100_000,
        b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["../../x"]}}',
        b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":' + b"[" * 50_000,
        b'{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":[' + b'"sha256:00",' * 50_000 + b'""]}}',
        b'{"schemaVersion":2,"manifests":' + b"[" * 100_000,
        b'{"mediaType":1e999}',
        b"\xff",
    ],
    ids=lambda data: str(data[:20]),
)
def test_documents_of_strangers(store: Store, other: Store, image: Image, tmp_path: Path, data: bytes) -> None:
    """Whichever document it is that is none, it is refused in our words."""
    bundle(store, tmp_path / "x")
    evil = Descriptor(media_type=MANIFEST, digest=digest_of(data), size=len(data))

    def as_config(c: Contents) -> Contents:
        return msgspec.structs.replace(c, images=(msgspec.structs.replace(c.images[0], config=evil),))

    def as_manifest(c: Contents) -> Contents:
        return msgspec.structs.replace(c, images=(msgspec.structs.replace(c.images[0], manifest=evil),))

    def as_referrer(c: Contents) -> Contents:
        first = msgspec.structs.replace(c.referrers[0], manifest=evil)
        return msgspec.structs.replace(c, referrers=(first, *c.referrers[1:]))

    def as_remote(c: Contents) -> Contents:
        remote = BundledRemote(image=image.digest, repository="docker.io/a/b", manifest=evil)
        return msgspec.structs.replace(c, remotes=(remote,))

    for change in (as_config, as_manifest, as_referrer, as_remote):
        path = forge(tmp_path / "x", tmp_path / "y", change, {evil.digest: data})
        for check in (verify_bundle, load_bundle):
            with pytest.raises(MlboxError):
                check(other, path)
    assert nothing_of(other)


def test_every_damaged_byte_is_found_by_verify(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """Some hundred places over the whole file; loading what is damaged names nothing."""
    bundle(store, tmp_path / "x")
    data = bytearray((tmp_path / "x").read_bytes())
    for where in range(0, len(data), max(1, len(data) // 150)):
        data[where] ^= 1
        (tmp_path / "y").write_bytes(data)
        with pytest.raises(MlboxError):
            verify_bundle(other, tmp_path / "y")
        data[where] ^= 1
    assert nothing_of(other)


# trust


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the policy of the machine."""

    def write(text: str) -> None:
        (tmp_path / "policy.toml").write_text(text)
        monkeypatch.setenv("MLBOX_POLICY", str(tmp_path / "policy.toml"))

    return write


def test_signatures_are_checked_without_a_network(
    store: Store, other: Store, image: Image, tmp_path: Path, policy: Callable[[str], None]
) -> None:
    """By the key that signed, and no other; the policy lets in what is signed, and not what claims an origin."""
    from mlbox.engine.trust.signing import sign
    from mlbox.trust.keys import generate, load_private, load_public

    for name in ("ours", "theirs"):
        generate(tmp_path / name, b"secret")
    key = load_private(tmp_path / "ours.key", lambda *_: b"secret")
    store.images.tag(image.digest, parse_reference("registry.example.com/team/bert:1"))
    bundle(store, tmp_path / "unsigned", image.digest)
    sign(store.home, NAME, key)
    bundle(store, tmp_path / "signed", image.digest)
    ours, theirs = (load_public(tmp_path / f"{name}.pub") for name in ("ours", "theirs"))
    assert verify_bundle(other, tmp_path / "signed", keys=(theirs, ours))
    for path, keys in ((tmp_path / "signed", (theirs,)), (tmp_path / "unsigned", (ours,))):
        with pytest.raises(TrustError, match="is not signed by"):
            verify_bundle(other, path, keys=keys)
    rule = 'local = "deny"\n[[rule]]\nprefix = "registry.example.com"\naction = '
    policy(f'{rule}"signed"\nkeys = ["ours.pub"]\n')
    with pytest.raises(TrustError):
        load_bundle(other, tmp_path / "unsigned")
    policy(f'{rule}"allow"\n')
    for path in (tmp_path / "unsigned", tmp_path / "signed"):
        with pytest.raises(TrustError):
            load_bundle(other, path)
    assert nothing_of(other)
    policy(f'{rule}"signed"\nkeys = ["ours.pub"]\n')
    load_bundle(other, tmp_path / "signed")
    admit_run(other, NAME, image)
    policy(f'{rule}"allow"\n')
    with pytest.raises(TrustError, match="built or loaded here"):
        admit_run(other, NAME, image)


# at any time, by anybody


def test_two_at_once(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """All end well, with one image."""
    bundle(store, tmp_path / "x")
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: load_bundle(other, tmp_path / "x"), range(4)))
    assert {one.images[0].digest for one in loaded} == {image.digest}
    assert fsck(other, deep=True).clean


def test_killed_at_any_time(store: Store, other: Store, image: Image, tmp_path: Path) -> None:
    """A load that is killed leaves a sound store; a name that is there is of a whole image; again it works."""
    bundle(store, tmp_path / "x")
    other.close()
    for pause in (0.0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04):
        child = os.fork()
        if child == 0:
            try:
                load_bundle(Store(other.home), tmp_path / "x")
            finally:
                os._exit(0)
        time.sleep(pause)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert fsck(other, deep=True).clean
        for row in other.images.list():
            assert all(other.layers.verify(one) for one in other.images.load(row.digest).config.rootfs.diff_ids)
        other.close()
    load_bundle(other, tmp_path / "x")
    assert other.images.resolve(NAME) == image.digest


def test_interrupted_when_the_disk_is_full(
    store: Store, other: Store, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the middle names nothing, and the next load goes on."""
    bundle(store, tmp_path / "x")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(other.artifacts), "publish", full)
    with pytest.raises(StoreError, match="no space left on the disk"):
        load_bundle(other, tmp_path / "x")
    monkeypatch.undo()
    assert nothing_of(other)
    loaded = load_bundle(other, tmp_path / "x")
    assert (loaded.unpacked, loaded.files) == ((), 2)


def test_a_layer_is_made_by_the_file_that_its_hash_names(store: Store, image: Image) -> None:
    """The fakes make wheels whose hash is that of the file in the store."""
    for sha256 in store.artifacts.hashes():
        assert hashlib.sha256(store.artifacts.path(sha256).read_bytes()).hexdigest() == sha256
    assert all(hex_of(diff_id) for diff_id in image.config.rootfs.diff_ids)


def compiled(store: Store, tmp_path: Path, *, wheel: str = "demo") -> tuple[Image, BuiltWheelPiece, LayerPlan]:
    """Return an image with a wheel that was built and the layer of a command, and what these are."""
    piece = BuiltWheelPiece(
        source=Package(name="demo", version="1.0", filename="demo-1.0.tar.gz", sha256="0" * 64, compiled=("c",)),
        build_packages=(),
        debs=(),
        python="3.11",
        python_full="3.11.2",
        suite="bookworm",
        arch="amd64",
    )
    path = make_wheel(tmp_path, {f"{wheel}.py": b"x = 1"}, name=wheel)
    sha256 = store.artifacts.add_file(path)
    raw = msgspec.Raw(canonical_json(piece))
    store.built.put(BuiltWheel(piece=raw, filename=path.name, sha256=sha256, size=path.stat().st_size))
    small = LayerPlan(name="small", kind="environment", pieces=(piece,))
    command = RunPiece(command=("/bin/sh", "-ec", "date > /x"), below="0" * 64, arch="amd64", workdir="/w", env=())
    run = LayerPlan(name="run 1", kind="run", pieces=(command,))
    layers = make_layer(store, "small", {"demo.py": b"x = 1"}), make_layer(store, "run", {"x": b"now"})
    image = make_image(store, *layers)
    attach(store, image, BuildPlan(arch="amd64", layers=(small, run), config=ContainerConfig()))
    store.images.tag(image.digest, parse_reference(NAME))
    return image, piece, run


def test_what_containers_made_is_taken_on_trust(store: Store, other: Store, tmp_path: Path) -> None:
    """The wheel and the command's layer come along; builds use them when whoever loads says so, and only then."""
    image, piece, run = compiled(store, tmp_path)
    made = bundle(store, tmp_path / "x")

    names = ("demo-1.0-py3-none-any.whl", "run 1, date > /x")
    assert load_bundle(other, tmp_path / "x").ran == names
    assert other.built.get(piece.key) is None
    assert other.layers.find(run.key) is None

    assert load_bundle(other, tmp_path / "x", trust=True).ran == names
    taken, ours = other.built.get(piece.key), store.built.get(piece.key)
    assert taken is not None
    assert ours is not None
    assert (taken.sha256, taken.origin) == (ours.sha256, f"bundle@{made.digest}")
    assert other.artifacts.has(taken.sha256)
    layer = other.layers.find(run.key)
    assert layer is not None
    assert layer.diff_id == image.config.rootfs.diff_ids[-1]
    assert fsck(other, deep=True).clean


def test_what_was_made_here_stays(store: Store, other: Store, tmp_path: Path) -> None:
    _, piece, run = compiled(store, tmp_path)
    bundle(store, tmp_path / "x")
    (tmp_path / "ours").mkdir()
    ours = make_wheel(tmp_path / "ours", {"demo.py": b"ours"}, name="demo")
    raw = msgspec.Raw(canonical_json(piece))
    wheel = BuiltWheel(piece=raw, filename=ours.name, sha256=other.artifacts.add_file(ours), size=ours.stat().st_size)
    other.built.put(wheel)
    layer = other.layers.adopt(run.key, "run 1", make_layer(other, "ours", {"x": b"ours"}).diff_id)

    load_bundle(other, tmp_path / "x", trust=True)

    assert other.built.get(piece.key) == wheel
    assert other.layers.find(run.key) == layer


def test_a_wheel_of_another_name_is_not_taken(store: Store, other: Store, tmp_path: Path) -> None:
    _, piece, _ = compiled(store, tmp_path, wheel="other")
    bundle(store, tmp_path / "x")
    with pytest.raises(MlboxError, match="is no wheel of demo"):
        load_bundle(other, tmp_path / "x", trust=True)
    assert other.built.get(piece.key) is None


def test_built_wheels_stay_out_when_asked_or_there(store: Store, tmp_path: Path) -> None:
    compiled(store, tmp_path)
    first = bundle(store, tmp_path / "x")
    assert [file.there for file in delta(store, tmp_path / "y", NAME, first.contents).contents.files] == [True]
    assert bundle(store, tmp_path / "z", artifacts=False).contents.files == ()
