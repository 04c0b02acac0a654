"""The bundle as bytes: a tar that other tools read, and that says the same thing the same way."""

import io
import json
import tarfile
from pathlib import Path

import msgspec
import pytest
from fakes.bundles import BLOBS, WHEEL_BYTES, small, written

from mlbox.errors import StoreError
from mlbox.oci.digest import digest_of, hex_of
from mlbox.oci.image import ImageIndex
from mlbox.registry.bundle import FORMAT, REF_NAME, Contents, digest_of_bundle, frame_of, index_of
from mlbox.registry.bundle_write import bundle_file, write_bundle


def delta() -> Contents:
    """The small bundle without its layer."""
    contents = small()
    layers = tuple(msgspec.structs.replace(layer, way="there", blob=None) for layer in contents.layers)
    images = tuple(msgspec.structs.replace(image, manifest=None) for image in contents.images)
    return msgspec.structs.replace(contents, layers=layers, images=images)


def test_any_tar_program_reads_it() -> None:
    """The contents come first, then the marks of an OCI layout, then each blob once under its digest."""
    with tarfile.open(fileobj=io.BytesIO(written(small()))) as tar:
        members = tar.getmembers()
        blobs = {member.name: tar.extractfile(member) for member in members if member.isfile()}
    names = [member.name for member in members]
    assert names[:6] == ["bundle.json", "bundle.sha256", "oci-layout", "index.json", "blobs", "blobs/sha256"]
    assert sorted(names[6:]) == sorted(f"blobs/sha256/{hex_of(digest)}" for digest in BLOBS)
    assert names[-1] == f"blobs/sha256/{hex_of(digest_of(WHEEL_BYTES))}"
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}
    assert len({member.mtime for member in members}) == 1
    assert all(blobs)


def test_its_index_names_the_image_for_other_tools() -> None:
    """One entry per name, of the manifest with compressed layers."""
    index = msgspec.json.decode(index_of(small()), type=ImageIndex)
    (entry,) = index.manifests
    assert entry.annotations == {REF_NAME: "me/bert:1"}
    assert entry.digest == small().images[0].manifest.digest  # type: ignore[union-attr]
    assert entry.platform is not None


def test_other_tools_see_what_was_asked_for() -> None:
    """Not the image below it: podman refuses to choose."""
    below = msgspec.structs.replace(small().images[0], below=True, digest=digest_of(b"below"), names=())
    contents = msgspec.structs.replace(small(), images=(*small().images, below))
    assert index_of(contents) == index_of(small())


def test_a_delta_offers_other_tools_nothing() -> None:
    """Nobody else could add the layers that it lacks."""
    assert json.loads(index_of(delta()))["manifests"] == []
    assert delta().is_delta
    assert not small().is_delta


def test_equal_contents_make_equal_bytes() -> None:
    """The digest of the contents is that of the bundle."""
    assert written(small()) == written(small())
    assert digest_of_bundle(small()) != digest_of_bundle(delta())


def test_the_format_stays() -> None:
    """Bundles lie around for years: what changes a byte of this one raises FORMAT."""
    assert FORMAT == 1
    assert digest_of(written(small())) == "sha256:c77f2ae117ee51cd60386c7d83a08a38580453f770d992a9467b713112a90c4c"


def test_every_place_is_known_beforehand() -> None:
    """A blob can be found without reading what is before it."""
    data, frame = written(small()), frame_of(small())
    assert len(data) == frame.size
    for digest, member in frame.blobs.items():
        assert data[member.start : member.start + member.size] == BLOBS[digest]
        assert data[member.offset : member.start] == member.header


@pytest.mark.parametrize("wrong", [WHEEL_BYTES[:-1], WHEEL_BYTES + b"1", b"x" * len(WHEEL_BYTES)])
def test_a_blob_that_changed_on_the_disk_makes_no_bundle(tmp_path: Path, wrong: bytes) -> None:
    """Nothing lies at the target, and nothing beside it."""
    blobs = BLOBS | {digest_of(WHEEL_BYTES): wrong}
    with (
        pytest.raises(StoreError, match="was changed on the disk"),
        bundle_file(tmp_path / "x.bundle") as out,
    ):
        write_bundle(small(), lambda digest: [blobs[digest]], out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, 511, 512, 1000, 1 << 20])
def test_parts_are_the_whole_cut_in_pieces(tmp_path: Path, size: int) -> None:
    """Each but the last is as large as was asked for, and `cat` puts them together."""
    data = written(small()) if size > 1 else b"abc"
    with bundle_file(tmp_path / "x.bundle", size) as out:
        out.write(data)
    parts = sorted(tmp_path.iterdir())
    assert parts[0].name == "x.bundle.001"
    assert b"".join(part.read_bytes() for part in parts) == data
    assert all(part.stat().st_size == size for part in parts[:-1])


def test_too_many_parts(tmp_path: Path) -> None:
    """The thousandth would sort before the second."""
    with pytest.raises(StoreError, match="more than 999 parts"), bundle_file(tmp_path / "x", 1) as out:
        out.write(bytes(1000))
    assert list(tmp_path.iterdir()) == []


def test_writing_again_leaves_nothing_of_the_last_time(tmp_path: Path) -> None:
    """Parts of an older bundle would be taken for the end of the new one."""
    target = tmp_path / "x.bundle"
    for size, names in ((2, ["x.bundle.001", "x.bundle.002"]), (3, ["x.bundle.001"]), (None, ["x.bundle"])):
        with bundle_file(target, size) as out:
            out.write(b"abc")
        assert sorted(path.name for path in tmp_path.iterdir()) == names
