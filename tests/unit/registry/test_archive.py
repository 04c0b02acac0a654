"""Loading archives: of mlbox, in the shapes that other tools write, and of people who mean harm."""

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes.trees import make_image, make_layer
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbox.errors import ArchiveError, MlboxError, NotFoundError, UsageError
from mlbox.oci.artifact import LOCK_TYPE, artifact_of, subject_of
from mlbox.oci.digest import digest_of
from mlbox.oci.image import Image
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.registry.archive import load_images
from mlbox.registry.members import MOST_MEMBERS
from mlbox.store.layout import Chosen, export, write_archive
from mlbox.store.store import Store

NAMES = (parse_reference("me/bert:1"), parse_reference("bert"))
Docs = dict[str, bytes]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Store]:
    """The store that saves."""
    store = Store(Home(tmp_path / "source"))
    yield store
    store.close()


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    """The store that loads."""
    store = Store(home)
    yield store
    store.close()


@pytest.fixture
def image(source: Store) -> Image:
    one = make_layer(source, "one", {"bin/x": b"1", "link": "bin/x"})
    return make_image(source, one, make_layer(source, "two", {"big": b"2" * 3_000_000}), one)


def tar_of(files: Mapping[str, bytes | tuple[bytes, str]]) -> bytes:
    """Return a tar in that order; a pair is a link: its type and where it points."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, what in files.items():
            member = tarfile.TarInfo(path)
            if isinstance(what, tuple):
                member.type, member.linkname = what
                tar.addfile(member)
            else:
                member.size = len(what)
                tar.addfile(member, io.BytesIO(what))
    return out.getvalue()


def files_of(data: bytes) -> Docs:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}


def saved(store: Store, *chosen: Chosen, **options: Any) -> bytes:
    out = io.BytesIO()
    write_archive(store, chosen, out, **options)
    return out.getvalue()


def load(store: Store, data: bytes, tmp_path: Path, **options: Any) -> list[tuple[str, list[str]]]:
    path = tmp_path / "in.tar"
    path.write_bytes(data)
    return named(load_images(store, path, **{"arch": "amd64", **options}))


def named(loaded: Any) -> list[tuple[str, list[str]]]:
    return [(digest, [name.familiar for name in names]) for digest, names in loaded]


def blob(data: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}", data


def entry(data: bytes, media_type: str = "application/vnd.oci.image.manifest.v1+json", **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def index_of(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def foreign(image: Image, layers: list[bytes], **config: Any) -> tuple[bytes, Docs]:
    """Return the manifest of `image` as registries have it, with gzipped layers, and all its blobs."""
    squeezed = [gzip.compress(layer, mtime=0) for layer in layers]
    config_bytes = json.dumps({**json.loads(image.config_bytes), **config}).encode() if config else image.config_bytes
    manifest = {
        "schemaVersion": 2,
        "config": entry(config_bytes, CONFIG),
        "layers": [entry(layer, GZIP) for layer in squeezed],
    }
    data = json.dumps(manifest, indent=1).encode()
    return data, dict([blob(data), blob(config_bytes), *map(blob, squeezed)])


def layers_of(store: Store, image: Image) -> list[bytes]:
    return [b"".join(bytes(c) for c in store.layers.tar(d)) for d in image.config.rootfs.diff_ids]


def test_what_mlbox_saved_is_the_same_image(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """Every form of it: digest, names and layers are as they were."""
    chosen = Chosen(image, NAMES)
    wanted = [(image.digest, ["me/bert:1", "bert:latest"])]
    for at, ending in enumerate((".tar", ".tar.gz", ".tar.zst", "")):
        export(source, [chosen], tmp_path / f"saved{ending}")
        fresh = Store(Home(tmp_path / f"home{at}"))
        assert named(load_images(fresh, tmp_path / f"saved{ending}", arch="amd64")) == wanted
        assert layers_of(fresh, image) == layers_of(source, image)
        assert not any(fresh.home.tmp.iterdir())
        fresh.close()
    assert load(store, saved(source, chosen, form="docker"), tmp_path) == wanted
    assert store.images.resolve("bert") == image.digest
    assert store.layers.verify(image.config.rootfs.diff_ids[1])


def test_a_pipe_is_read_to_its_end(source: Store, store: Store, image: Image) -> None:
    """A stream that cannot be searched is kept in the store's temporary folder, and removed."""
    reading, writing = os.pipe()

    def send() -> None:
        with os.fdopen(writing, "wb") as out:
            out.write(saved(source, Chosen(image, NAMES)))

    thread = threading.Thread(target=send)
    thread.start()
    with os.fdopen(reading, "rb") as file:
        assert named(load_images(store, file, arch="amd64"))[0][0] == image.digest
    thread.join()
    assert not any(store.home.tmp.iterdir())


def test_members_come_in_any_order(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """Documents may follow what they name, paths may begin with './'."""
    files = files_of(saved(source, Chosen(image, NAMES)))
    shuffled = {f"./{path}": files[path] for path in sorted(files, reverse=True)}

    assert load(store, tar_of(shuffled), tmp_path)[0][0] == image.digest


def test_several_images(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """All are loaded; a name of the command line fits only one."""
    other = make_image(source, make_layer(source, "three", {"x": b"3"}))
    data = saved(source, Chosen(image, NAMES[:1]), Chosen(other))

    assert load(store, data, tmp_path) == [(image.digest, ["me/bert:1"]), (other.digest, [])]
    with pytest.raises(UsageError, match="2 images"):
        load(store, data, tmp_path, names=NAMES)
    assert load(store, saved(source, Chosen(other)), tmp_path, names=NAMES) == [
        (other.digest, ["me/bert:1", "bert:latest"])
    ]
    assert store.images.resolve("me/bert:1") == other.digest


def test_an_image_of_a_registry_gets_the_digest_it_has_here(
    source: Store, store: Store, image: Image, tmp_path: Path
) -> None:
    """Compressed layers are unpacked and compared; the registry's digest means the same image afterwards."""
    manifest, blobs = foreign(image, layers_of(source, image))
    name = {"org.opencontainers.image.ref.name": "gpu01:5000/me/bert:7"}
    data = tar_of({**blobs, "index.json": index_of(entry(manifest, annotations=name))})

    assert load(store, data, tmp_path) == [(image.digest, ["gpu01:5000/me/bert:7"])]
    assert store.images.resolve(f"gpu01:5000/me/bert@{digest_of(manifest)}") == image.digest
    squeezed = digest_of(gzip.compress(layers_of(source, image)[1], mtime=0))
    assert store.remotes.diff_id_of(squeezed) == image.config.rootfs.diff_ids[1]


def test_docker_25_writes_both_formats(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """Its layout counts, and the whole name in containerd's annotation."""
    files = files_of(saved(source, Chosen(image)))
    (plain,) = json.loads(files["index.json"])["manifests"]
    notes = {"io.containerd.image.name": "docker.io/me/bert:1", "org.opencontainers.image.ref.name": "1"}
    layers = [f"blobs/sha256/{layer.digest[7:]}" for layer in image.manifest.layers]
    config = f"blobs/sha256/{image.manifest.config.digest[7:]}"
    files["index.json"] = index_of({**plain, "annotations": notes})
    files["manifest.json"] = json.dumps([{"Config": config, "RepoTags": ["me/wrong:1"], "Layers": layers}]).encode()

    assert load(store, tar_of(files), tmp_path) == [(image.digest, ["me/bert:1"])]
    del files["index.json"]
    assert load(store, tar_of(files), tmp_path) == [(image.digest, ["me/wrong:1"])]


@pytest.mark.parametrize("link", [(tarfile.SYMTYPE, "../one/layer.tar"), (tarfile.LNKTYPE, "one/layer.tar")])
def test_old_docker_links_equal_layers(
    source: Store, store: Store, image: Image, tmp_path: Path, link: tuple[bytes, str]
) -> None:
    """Before 25, `docker save` has one folder per layer, and links where a layer comes again."""
    layers = layers_of(source, image)
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": [f"{n}/layer.tar" for n in ("one", "two", "three")]}]
    files = {"one/layer.tar": layers[0], "two/layer.tar": layers[1], "three/layer.tar": link}
    data = tar_of({**files, "c.json": image.config_bytes, "manifest.json": json.dumps(manifest).encode()})

    assert load(store, data, tmp_path) == [(image.digest, [])]


def test_the_image_for_this_machine_is_taken(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """Of an index for several machines one is loaded: this one's or the one asked for; attestations are none."""
    arm = make_image(source, make_layer(source, "arm", {"x": b"arm"}), label="arm")
    platform = {"amd64": image, "arm64": arm}
    blobs = files_of(saved(source, Chosen(image), Chosen(arm)))
    inner = index_of(
        entry(b"gone", platform={"os": "unknown", "architecture": "unknown"}),
        *(entry(i.manifest_bytes, platform={"os": "linux", "architecture": a}) for a, i in platform.items()),
    )
    notes = {"org.opencontainers.image.ref.name": "me/bert:1"}
    files = {**blobs, **dict([blob(inner)]), "index.json": index_of(entry(inner, INDEX, annotations=notes))}

    assert load(store, tar_of(files), tmp_path) == [(image.digest, ["me/bert:1"])]
    assert load(store, tar_of(files), tmp_path, arch="arm64") == [(arm.digest, ["me/bert:1"])]
    with pytest.raises(ArchiveError, match=r"linux/riscv64; it is for linux/amd64, linux/arm64"):
        load(store, tar_of(files), tmp_path, arch="riscv64")


def test_names_that_are_none_are_said_and_left(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """A bare tag, a path or a secret-looking text names no image; the image is loaded all the same."""
    notes: list[str] = []

    class Talk:
        def note(self, text: str) -> None:
            notes.append(text)

        def expect(self, what: str, total: int) -> None: ...
        def advance(self, what: str, amount: int) -> None: ...
        def step(self, what: str) -> None: ...

    files = files_of(saved(source, Chosen(image)))
    for bad in ("latest", "../../x:1", "UPPER/x:1", f"me/bert@{image.digest}"):
        ref = {"org.opencontainers.image.ref.name": bad}
        files["index.json"] = index_of(entry(image.manifest_bytes, annotations=ref))
        assert load(store, tar_of(files), tmp_path, listener=Talk()) == [(image.digest, [])]
        assert repr(bad) in notes.pop()
    assert store.images.names(image.digest) == ()


def test_a_name_with_a_digest_is_refused_first(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """Before anything is taken from the archive: it would stay without a name."""
    name = parse_reference(f"me/bert@{image.digest}")
    with pytest.raises(UsageError, match="with a digest"):
        load(store, saved(source, Chosen(image)), tmp_path, names=[name])
    assert store.images.list() == []


def test_a_name_that_moves_is_said(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """Somebody's archive may take a name away, but not in silence."""
    other = make_image(source, make_layer(source, "three", {"x": b"3"}))
    load(store, saved(source, Chosen(other, NAMES[:1])), tmp_path)
    notes: list[str] = []

    class Talk:
        note = staticmethod(notes.append)
        expect = advance = step = staticmethod(lambda *_: None)

    load(store, saved(source, Chosen(image, NAMES)), tmp_path, listener=Talk())
    assert notes == [f"me/bert:1 was {other.digest}, which keeps its digest"]


def test_attachments_come_along(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """Locks, signatures and what is about them; but a stranger's lock never replaces the one of an image built here."""
    lock = source.referrers.add(artifact_of(LOCK_TYPE, b"theirs"), subject_of(image.digest, image.manifest_bytes))
    about = artifact_of("application/x-signature", b"mine")
    signature = source.referrers.add(about, subject_of(lock, source.content.read(lock)))
    data = saved(source, Chosen(image, NAMES), attachments=True)
    load(store, data, tmp_path)

    assert store.referrers.lock_of(image.digest) == b"theirs"
    assert [found.digest for found in store.referrers.of(lock)] == [signature]
    store.referrers.add(artifact_of(LOCK_TYPE, b"ours"), subject_of(image.digest, image.manifest_bytes))
    load(store, data, tmp_path)
    assert store.referrers.lock_of(image.digest) == b"ours"


def test_attachments_as_other_tools_place_them(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """As further entries of index.json; they are no images, and what is about something else is left out."""
    lock = source.referrers.add(artifact_of(LOCK_TYPE, b"theirs"), subject_of(image.digest, image.manifest_bytes))
    lost = source.referrers.add(artifact_of("x/y", b"lost"), subject_of(digest_of(b"?"), b"?"))
    files = files_of(saved(source, Chosen(image, NAMES)))
    data = [source.content.read(one) for one in (lock, lost)]
    entries = json.loads(files["index.json"])["manifests"] + [entry(one) for one in data]
    files |= dict(map(blob, (*data, b"theirs", b"lost"))) | {"index.json": index_of(*entries)}

    assert load(store, tar_of(files), tmp_path) == [(image.digest, ["me/bert:1", "bert:latest"])]
    assert store.referrers.lock_of(image.digest) == b"theirs"
    assert not store.content.has(lost)


Spoil = Callable[[Docs, Image], Mapping[str, Any]]


def without(which: Callable[[Image], str]) -> Spoil:
    return lambda files, image: {path: data for path, data in files.items() if which(image)[7:] not in path}


def changed(which: Callable[[Image], str], how: Callable[[bytes], bytes]) -> Spoil:
    return lambda files, image: {p: how(data) if which(image)[7:] in p else data for p, data in files.items()}


def with_manifest(change: Callable[[dict[str, Any]], None]) -> Spoil:
    def spoil(files: Docs, image: Image) -> Docs:
        document = json.loads(image.manifest_bytes)
        change(document)
        data = json.dumps(document).encode()
        return {**files, **dict([blob(data)]), "index.json": index_of(entry(data))}

    return spoil


def with_index(make: Callable[[Image], bytes]) -> Spoil:
    return lambda files, image: {**files, "index.json": make(image)}


def nested(depth: int, width: int = 1) -> Spoil:
    def spoil(files: Docs, image: Image) -> Docs:
        data, kind = image.manifest_bytes, "application/vnd.oci.image.manifest.v1+json"
        for _ in range(depth):
            data, kind = index_of(*[entry(data, kind)] * width), INDEX
            files = {**files, **dict([blob(data)])}
        return {**files, "index.json": data}

    return spoil


def layer(image: Image) -> str:
    return image.manifest.layers[1].digest


def config(image: Image) -> str:
    return image.manifest.config.digest


SPOILED: dict[str, tuple[Spoil, str]] = {
    "no documents": (lambda files, image: {"readme": b""}, "neither index.json nor manifest.json"),
    "no layer": (without(layer), "is missing"),
    "no config": (without(config), "is missing"),
    "no manifest": (without(lambda image: image.digest), "is missing"),
    "changed layer": (changed(layer, lambda data: b"x" + data[1:]), "layer"),
    "shorter layer": (changed(layer, lambda data: data[:-512]), "bytes long"),
    "empty layer": (changed(layer, lambda data: b""), "bytes long"),
    "changed config": (changed(config, lambda data: data.replace(b"amd64", b"arm64")), "another digest"),
    "changed manifest": (changed(lambda image: image.digest, lambda data: data + b" "), "another digest"),
    "lying size": (with_index(lambda i: index_of(entry(i.manifest_bytes) | {"size": 7})), "not 7"),
    "negative size": (with_index(lambda i: index_of(entry(i.manifest_bytes) | {"size": -7})), "below zero"),
    "no digest": (with_index(lambda i: index_of(entry(i.manifest_bytes) | {"digest": "sha256:../../etc"})), "digest"),
    "other digest": (with_index(lambda i: index_of(entry(i.manifest_bytes) | {"digest": "md5:" + "0" * 32})), "digest"),
    "no index": (with_index(lambda i: b"[]"), "index.json"),
    "an empty index": (with_index(lambda i: index_of()), "no image"),
    "deep JSON": (with_index(lambda i: b'{"a":' * 100_000), "index.json"),
    "huge index": (with_index(lambda i: b" " * (5 << 20)), "index.json has"),
    "many images": (with_index(lambda i: index_of(*[entry(i.manifest_bytes)] * 2000)), "more than 1000"),
    "deep index": (nested(9), "deep"),
    "fewer layers": (with_manifest(lambda m: m["layers"].pop()), "2 layers"),
    "other order": (
        with_manifest(lambda m: m["layers"].reverse() or m["layers"].insert(0, m["layers"].pop(1))),
        "layer",
    ),
    "layers twice": (with_manifest(lambda m: m["layers"].extend(m["layers"] * 300)), "layers"),
    "two kinds": (with_manifest(lambda m: m.update(mediaType=INDEX)), "says it is"),
    "climbing": (lambda files, image: {**files, "../../etc/cron.d/x": b""}, "climbs"),
    "long name": (lambda files, image: {**files, "x" * 300: b""}, "more than 255"),
    "link out": (lambda files, image: {**files, "index.json": (tarfile.SYMTYPE, "../../etc/passwd")}, "climbs"),
    "absolute link": (lambda files, image: {**files, "index.json": (tarfile.SYMTYPE, "/etc/passwd")}, "neither"),
    "link to itself": (lambda files, image: {**files, "index.json": (tarfile.SYMTYPE, "index.json")}, "link to"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_hostile_and_damaged_layouts(name: str, source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """Each is refused with a reason, and leaves no image, no name and nothing unfinished."""
    spoil, reason = SPOILED[name]
    data = tar_of(spoil(files_of(saved(source, Chosen(image, NAMES))), image))

    with pytest.raises(ArchiveError, match=reason):
        load(store, data, tmp_path)
    assert store.images.list() == []
    assert not store.home.tmp.exists() or not any(store.home.tmp.iterdir())


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([{"Config": "../../etc/passwd", "Layers": []}], "climbs"),
        ([{"Config": "c.json", "Layers": ["/one.tar", "two.tar"]}], "2 layers"),
        ([{"Config": "c.json", "Layers": ["two.tar", "one.tar", "one.tar"]}], "layer"),
        ([{"Config": "c.json", "Layers": ["one.tar", "no.tar", "one.tar"]}], "missing"),
        ([{"Config": "one.tar", "Layers": []}], "config"),
        ([{"Layers": []}], "manifest.json"),
        ({}, "manifest.json"),
        ([], "no image"),
    ],
)
def test_hostile_archives_of_docker(
    source: Store, store: Store, image: Image, tmp_path: Path, entries: Any, reason: str
) -> None:
    """Its manifest names paths; they stay inside, and the configuration says what the layers must be."""
    layers = layers_of(source, image)
    files = {"one.tar": layers[0], "two.tar": layers[1], "c.json": image.config_bytes}
    data = tar_of({**files, "manifest.json": json.dumps(entries).encode()})

    with pytest.raises(ArchiveError, match=reason):
        load(store, data, tmp_path)
    assert store.images.list() == []


@pytest.mark.parametrize("config", [{"os": "windows"}, {"rootfs": {"type": "wcow", "diff_ids": []}}])
def test_images_that_are_not_for_linux(
    source: Store, store: Store, image: Image, tmp_path: Path, config: dict[str, Any]
) -> None:
    """They are refused before a layer is taken, as a pull refuses them."""
    layers = layers_of(source, image) if "os" in config else []
    manifest, blobs = foreign(image, layers, **config)
    files = {"index.json": index_of(entry(manifest)), **blobs, **dict([blob(manifest)])}
    with pytest.raises(ArchiveError, match=r"for linux|of type 'wcow'"):
        load(store, tar_of(files), tmp_path)
    assert list(store.layers.diff_ids()) == []


def test_one_bad_image_leaves_the_good_one_out(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """All of an archive or nothing of it."""
    other = make_image(source, make_layer(source, "three", {"x": b"3"}))
    files = files_of(saved(source, Chosen(image, NAMES[:1]), Chosen(other, NAMES[1:])))
    del files[f"blobs/sha256/{other.manifest.layers[0].digest[7:]}"]

    with pytest.raises(ArchiveError, match="missing"):
        load(store, tar_of(files), tmp_path)
    assert store.images.list() == []


def test_a_damaged_attachment_leaves_the_image_out(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """What comes last is checked before anything gets a name, too."""
    source.referrers.add(artifact_of(LOCK_TYPE, b"lock"), subject_of(image.digest, image.manifest_bytes))
    files = files_of(saved(source, Chosen(image, NAMES), attachments=True))
    files[blob(b"lock")[0]] = b"LOCK"

    with pytest.raises(ArchiveError, match="another digest"):
        load(store, tar_of(files), tmp_path)
    assert store.images.list() == []


def test_a_compressed_blob_must_be_what_its_manifest_says(
    source: Store, store: Store, image: Image, tmp_path: Path
) -> None:
    """The right layer in a wrong compressed blob is refused: others would be told that the blob is known."""
    layers = layers_of(source, image)
    manifest, blobs = foreign(image, layers)
    true = gzip.compress(layers[1], mtime=0)
    false = true[:4] + b"\1" + true[5:]  # another time in gzip's header
    files = {**blobs, blob(true)[0]: false, "index.json": index_of(entry(manifest))}

    with pytest.raises(ArchiveError, match="another digest"):
        load(store, tar_of(files), tmp_path)
    assert store.remotes.diff_id_of(digest_of(true)) is None
    assert not store.layers.has(image.config.rootfs.diff_ids[1])


def test_one_bad_layer_stops_the_others(source: Store, store: Store, tmp_path: Path) -> None:
    """Nobody waits for a gigabyte that will not be needed."""
    layers = [make_layer(source, str(n), {"x": bytes([n]) * 20_000_000}) for n in range(6)]
    image = make_image(source, *layers)
    files = files_of(saved(source, Chosen(image)))
    files[f"blobs/sha256/{layers[0].diff_id[7:]}"] = bytes(layers[0].size)
    advanced = []

    class Talk:
        note = expect = step = staticmethod(lambda *_: None)
        advance = staticmethod(lambda what, amount: advanced.append(amount))

    with pytest.raises(ArchiveError, match=layers[0].diff_id[7:19]):
        load(store, tar_of(files), tmp_path, listener=Talk())
    assert sum(advanced) < 5 * 20_000_000
    assert not any(store.home.tmp.iterdir())


def test_two_members_of_one_name(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """Documents that nothing verifies must be there once: tools differ in which one they read."""
    data = saved(source, Chosen(image, NAMES))
    other = tar_of({"index.json": index_of()})
    twice = data[: -2 * 512] + other
    with pytest.raises(ArchiveError, match="two members"):
        load(store, twice, tmp_path)
    again = tar_of(dict([blob(image.config_bytes)]))
    assert load(store, data[: -2 * 512] + again, tmp_path)[0][0] == image.digest


def test_what_is_no_archive(store: Store, tmp_path: Path) -> None:
    """Texts, zeros, damaged compression and missing files are named, not guessed at."""
    for data in (b"", b"hello", bytes(10240), b"x" * 10240, os.urandom(2000)):
        with pytest.raises(ArchiveError, match="no archive that mlbox reads"):
            load(store, data, tmp_path)
    with pytest.raises(ArchiveError, match="gzip"):
        load(store, gzip.compress(b"x" * 1000)[:-9], tmp_path)
    with pytest.raises(NotFoundError, match="No such file"):
        load_images(store, tmp_path / "missing", arch="amd64")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiveError, match="no image"):
        load_images(store, tmp_path / "empty", arch="amd64")


def test_an_archive_that_was_cut_off(source: Store, store: Store, image: Image, tmp_path: Path) -> None:
    """Wherever it ends, it says so."""
    data = saved(source, Chosen(image, NAMES))
    for end in (700, 5000, len(data) // 2, len(data) - 2500):
        with pytest.raises(ArchiveError, match=r"ends inside|missing|no image|header"):
            load(store, data[:end], tmp_path)


def test_too_many_members(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of nothing but headers does not fill the memory."""
    assert MOST_MEMBERS == 100_000
    monkeypatch.setattr("mlbox.registry.members.MOST_MEMBERS", 10)
    with pytest.raises(ArchiveError, match="more than 10"):
        load(store, tar_of({str(n): b"" for n in range(11)}), tmp_path)


def test_global_headers_without_an_end(store: Store, tmp_path: Path) -> None:
    """They belong to no member, and each could bring a megabyte that stays in memory."""
    out = io.BytesIO()
    for n in range(5):
        out.write(tarfile.TarInfo.create_pax_global_header({f"comment{n}": "x" * 300_000}))
    with pytest.raises(ArchiveError, match="no archive"):
        load(store, out.getvalue() + tar_of({"a": b""}), tmp_path)


@pytest.mark.parametrize("what", ["symlink", "fifo", "folder"])
def test_a_folder_is_read_only_through_plain_files(
    source: Store, store: Store, image: Image, tmp_path: Path, what: str
) -> None:
    """A link out of a stranger's folder, or a pipe that nobody writes to, is no blob."""
    export(source, [Chosen(image, NAMES)], tmp_path / "out")
    path = tmp_path / "out" / blob(image.config_bytes)[0]
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    if what == "symlink":
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()

    with pytest.raises(ArchiveError, match="out"):
        load_images(store, tmp_path / "out", arch="amd64")
    assert store.images.list() == []


def test_a_full_disk_is_foreseen(
    source: Store, store: Store, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file that unpacks to more than there is room stops before the disk is full."""
    monkeypatch.setattr("mlbox.registry.members._RESERVE", 1 << 60)
    with pytest.raises(MlboxError, match="larger than what is free"):
        load(store, gzip.compress(saved(source, Chosen(image))), tmp_path)
    assert not any(store.home.tmp.iterdir())


@settings(max_examples=150, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), data=st.binary(min_size=1, max_size=600))
def test_damage_anywhere_is_an_error_or_harmless(
    at: float, data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever bytes are overwritten: an MlboxError, or the image that was saved."""
    folder = tmp_path_factory.mktemp("damage")
    source, store = Store(Home(folder / "a")), Store(Home(folder / "b"))
    image = make_image(source, make_layer(source, "one", {"x": b"1" * 700}))
    whole = saved(source, Chosen(image, NAMES))
    start = int(at * len(whole))
    try:
        assert load(store, whole[:start] + data + whole[start + len(data) :], folder)[0][0] == image.digest
    except MlboxError:
        assert store.images.list() == []
    finally:
        source.close()
        store.close()
