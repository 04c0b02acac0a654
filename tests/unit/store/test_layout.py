import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from fakes.trees import make_image, make_layer

from mlbox.errors import StoreError, UsageError
from mlbox.oci.artifact import LOCK_TYPE, artifact_of, subject_of
from mlbox.oci.image import Image
from mlbox.oci.reference import parse_reference
from mlbox.store import layout
from mlbox.store.layout import Chosen, export, export_layout, write_archive
from mlbox.store.store import Store

NAMES = (parse_reference("me/bert:1"), parse_reference("bert"))


@pytest.fixture
def image(store: Store) -> Image:
    one = make_layer(store, "one", {"bin/x": b"1", "link": "bin/x"})
    return make_image(store, one, make_layer(store, "two", {"big": b"2" * 3_000_000}), one)


def check(files: dict[str, bytes], image: Image) -> None:
    assert json.loads(files.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(files.pop("index.json"))
    assert index["schemaVersion"] == 2
    assert {m["digest"] for m in index["manifests"]} == {image.digest}
    for path, data in files.items():
        assert path == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    wanted = {image.digest, image.manifest.config.digest, *(layer.digest for layer in image.manifest.layers)}
    assert {f"sha256:{path.rpartition('/')[2]}" for path in files} == wanted


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def index_names(folder: Path) -> dict[str, str]:
    manifests = json.loads((folder / "index.json").read_bytes())["manifests"]
    return {m.get("annotations", {}).get("org.opencontainers.image.ref.name", ""): m["digest"] for m in manifests}


def test_a_folder(store: Store, image: Image, tmp_path: Path) -> None:
    export_layout(store, image, tmp_path / "new/out", NAMES)
    check(files_of(tmp_path / "new/out"), image)
    assert index_names(tmp_path / "new/out") == {"me/bert:1": image.digest, "bert:latest": image.digest}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_an_archive_is_the_same_bytes_again(store: Store, image: Image, tmp_path: Path) -> None:
    export_layout(store, image, tmp_path / "out.tar", NAMES)
    export_layout(store, image, tmp_path / "out.tar", NAMES)
    stream = io.BytesIO()
    write_archive(store, [Chosen(image, NAMES)], stream)
    assert stream.getvalue() == (tmp_path / "out.tar").read_bytes()
    with tarfile.open(tmp_path / "out.tar") as tar:
        check({m.name: tar.extractfile(m).read() for m in tar if m.isreg()}, image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out.tar"]


def test_a_second_image_joins_the_layout_and_a_name_moves(store: Store, image: Image, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_layout(store, image, out, NAMES)
    index = json.loads((out / "index.json").read_bytes())
    foreign = {"mediaType": "x/y", "digest": "sha256:" + "0" * 64, "size": 1, "artifactType": "kept as it is"}
    (out / "index.json").write_text(json.dumps(index | {"manifests": [foreign, *index["manifests"]]}))
    other = make_image(store, make_layer(store, "three", {"x": b""}))
    export_layout(store, other, out, NAMES[:1])
    export_layout(store, other, out, NAMES[:1])
    assert foreign in json.loads((out / "index.json").read_bytes())["manifests"]
    assert index_names(out) == {"me/bert:1": other.digest, "bert:latest": image.digest, "": foreign["digest"]}
    assert len(json.loads((out / "index.json").read_bytes())["manifests"]) == 3


def test_somebody_else_was_faster(store: Store, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that write the same new folder at once, the later adds to what is there then."""
    other = make_image(store, make_layer(store, "other", {"y": b"2"}))
    fill = layout._fill

    def overtaken(*args: object) -> None:
        monkeypatch.setattr(layout, "_fill", fill)
        fill(*args)  # type: ignore[arg-type]
        export_layout(store, other, tmp_path / "out", [parse_reference("other:1")])

    monkeypatch.setattr(layout, "_fill", overtaken)
    export_layout(store, image, tmp_path / "out", [parse_reference("one:1")])
    index = json.loads((tmp_path / "out/index.json").read_bytes())
    assert {one["digest"] for one in index["manifests"]} == {image.digest, other.digest}
    assert [path.name for path in tmp_path.glob(".tmp*")] == []


def test_without_a_name_there_is_one_entry(store: Store, image: Image, tmp_path: Path) -> None:
    for _ in range(2):
        export_layout(store, image, tmp_path / "out")
    assert index_names(tmp_path / "out") == {"": image.digest}
    assert len(json.loads((tmp_path / "out/index.json").read_bytes())["manifests"]) == 1


def test_a_damaged_blob_in_the_layout_is_mended(store: Store, image: Image, tmp_path: Path) -> None:
    export_layout(store, image, tmp_path / "out")
    for path in (tmp_path / "out/blobs/sha256").iterdir():
        path.write_bytes(b"?" * path.stat().st_size)
    export_layout(store, image, tmp_path / "out")
    check(files_of(tmp_path / "out"), image)


@pytest.mark.parametrize("name", ["out", "out.tar"])
def test_a_damaged_layer_is_not_exported(store: Store, image: Image, tmp_path: Path, name: str) -> None:
    (store.layers.root(image.config.rootfs.diff_ids[1]) / "big").write_bytes(b"3" * 3_000_000)
    with pytest.raises(StoreError, match="changed on the disk"):
        export_layout(store, image, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_other_folders_are_left_alone(store: Store, image: Image, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis.tex").write_text("")
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("work", "folder.tar", "file"):
        with pytest.raises(StoreError, match=name):
            export_layout(store, image, tmp_path / name)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_filled(store: Store, image: Image, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_layout(store, image, tmp_path / "out")
    check(files_of(tmp_path / "out"), image)


def test_a_damaged_index_is_named(store: Store, image: Image, tmp_path: Path) -> None:
    export_layout(store, image, tmp_path / "out")
    (tmp_path / "out/index.json").write_text("[]")
    with pytest.raises(StoreError, match=r"index\.json"):
        export_layout(store, image, tmp_path / "out")


def tar_files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}


def test_several_images_in_one_archive_share_their_layers(store: Store, image: Image, tmp_path: Path) -> None:
    """Each image has its entry and its name; a blob that both need is there once."""
    other = make_image(store, make_layer(store, "one", {}), label="other")
    export(store, [Chosen(image, NAMES), Chosen(other, (parse_reference("me/other:2"),))], tmp_path / "out.tar")

    with tarfile.open(tmp_path / "out.tar") as tar:
        names = [member.name for member in tar]
        index = json.load(tar.extractfile("index.json"))
    assert len(names) == len(set(names))
    assert [(m["annotations"]["org.opencontainers.image.ref.name"], m["digest"]) for m in index["manifests"]] == [
        ("me/bert:1", image.digest),
        ("bert:latest", image.digest),
        ("me/other:2", other.digest),
    ]


def test_dockers_archive(store: Store, image: Image) -> None:
    """manifest.json names configuration, tags and layers in order; all of them are there, and the same again."""
    one, two = io.BytesIO(), io.BytesIO()
    for stream in (one, two):
        write_archive(store, [Chosen(image, NAMES)], stream, form="docker")
    files = tar_files(one.getvalue())
    (entry,) = json.loads(files["manifest.json"])

    assert one.getvalue() == two.getvalue()
    assert files[entry["Config"]] == image.config_bytes
    assert entry["RepoTags"] == ["me/bert:1", "bert:latest"]
    layers = [f"sha256:{hashlib.sha256(files[path]).hexdigest()}" for path in entry["Layers"]]
    assert layers == list(image.config.rootfs.diff_ids)
    top = image.config.rootfs.diff_ids[-1].removeprefix("sha256:")
    assert json.loads(files["repositories"]) == {"me/bert": {"1": top}, "bert": {"latest": top}}


def test_dockers_format_is_no_folder(store: Store, image: Image, tmp_path: Path) -> None:
    """A folder in docker's format is nothing that docker could read."""
    with pytest.raises(UsageError, match="archive"):
        export(store, [Chosen(image)], tmp_path / "out", form="docker")
    assert not (tmp_path / "out").exists()


def attach(store: Store, image: Image) -> tuple[str, str]:
    lock = store.referrers.add(artifact_of(LOCK_TYPE, b"lock"), subject_of(image.digest, image.manifest_bytes))
    about = artifact_of("application/x-signature", b"mine")
    return lock, store.referrers.add(about, subject_of(lock, store.content.read(lock)))


def attached(files: dict[str, bytes]) -> dict[str, str]:
    digest = json.loads(files["index.json"])["annotations"]["vnd.mlbox.attachments"]
    index = json.loads(files[f"blobs/sha256/{digest.removeprefix('sha256:')}"])
    return {entry["digest"]: entry["artifactType"] for entry in index["manifests"]}


def test_attachments_go_along_when_asked_for(store: Store, image: Image, tmp_path: Path) -> None:
    """They stand in an index of their own: in index.json they would hide the image from tools that want only one."""
    lock, about = attach(store, image)
    export(store, [Chosen(image, NAMES)], tmp_path / "plain.tar")
    export(store, [Chosen(image, NAMES)], tmp_path / "out.tar", attachments=True)

    assert b"lock" not in tar_files((tmp_path / "plain.tar").read_bytes()).values()
    files = tar_files((tmp_path / "out.tar").read_bytes())
    assert attached(files) == {lock: LOCK_TYPE, about: "application/x-signature"}
    assert {entry["digest"] for entry in json.loads(files["index.json"])["manifests"]} == {image.digest}
    assert {b"lock", b"mine", b"{}", store.content.read(lock)} <= set(files.values())
    for path, data in files.items():
        assert not path.startswith("blobs/") or path.endswith(hashlib.sha256(data).hexdigest())


def test_attachments_of_two_images_meet_in_one_folder(store: Store, image: Image, tmp_path: Path) -> None:
    """A second image that joins a layout leaves the first one's attachments there."""
    other = make_image(store, make_layer(store, "three", {"x": b""}))
    wanted = {*attach(store, image), *attach(store, other)}
    for each, name in zip((image, other), NAMES, strict=True):
        export(store, [Chosen(each, (name,))], tmp_path / "out", attachments=True)
    export(store, [Chosen(image)], tmp_path / "out")

    assert set(attached(files_of(tmp_path / "out"))) == wanted
