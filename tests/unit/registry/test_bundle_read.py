"""Bundles from strangers: whatever is wrong with one is said, and never believed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.bundles import BLOBS, LAYER_BYTES, REFERRER_BYTES, forged, plain, small, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlbox.codec import canonical_json
from mlbox.errors import ArchiveError, MlboxError
from mlbox.oci.digest import Digest, digest_of
from mlbox.oci.layer import Entry, header
from mlbox.registry.bundle import CONTENTS_LIMIT
from mlbox.registry.bundle_contents import Damage, parse_contents
from mlbox.registry.bundle_have import given_by, missing_from
from mlbox.registry.bundle_read import open_bundle, parts_of

SMALL = written(small())
Change = Callable[[dict[str, Any]], object]
fuzzed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)


def read(path: Path) -> dict[Digest, bytes]:
    """Read all of a bundle."""
    with open_bundle(path) as bundle:
        return {digest: bundle.document(digest) for digest in bundle.frame.blobs}


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """The contents and every blob, in any order."""
    path = put(tmp_path / "x.bundle", SMALL)
    assert read(path) == BLOBS
    with open_bundle(path) as bundle:
        assert bundle.contents == small()
        assert bundle.digest == digest_of(canonical_json(small()))


def test_parts_are_read_as_one(tmp_path: Path) -> None:
    """By the whole's name or that of the first part; a missing one is noticed at once."""
    for number, start in enumerate(range(0, len(SMALL), 1000), 1):
        put(tmp_path / f"x.bundle.{number:03}", SMALL[start : start + 1000])
    assert read(tmp_path / "x.bundle") == read(tmp_path / "x.bundle.001") == BLOBS
    (tmp_path / f"x.bundle.{number:03}").unlink()
    with pytest.raises(Damage, match="it was cut off, or a part is missing"):
        read(tmp_path / "x.bundle")


def test_a_file_goes_before_parts(tmp_path: Path) -> None:
    """An older bundle in parts beside a whole one is not looked at."""
    put(tmp_path / "x.001", b"")
    assert parts_of(put(tmp_path / "x", b"")) == [tmp_path / "x"]


@fuzzed
@given(st.integers(0, len(SMALL) - 1))
def test_cut_off_anywhere(tmp_path: Path, length: int) -> None:
    """No length but the right one is accepted."""
    with pytest.raises(MlboxError), open_bundle(put(tmp_path / "x", SMALL[:length])):
        pass


@fuzzed
@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_one_byte_changed_anywhere(tmp_path: Path, where: int, by: int) -> None:
    """Headers, padding, contents and blobs: there is no byte that does not count."""
    data = bytearray(SMALL)
    data[where] ^= by
    with pytest.raises(MlboxError):
        read(put(tmp_path / "x", bytes(data)))


def test_something_after_the_end(tmp_path: Path) -> None:
    """A second archive behind the first would be seen by some programs and not by others."""
    with pytest.raises(Damage, match="512 bytes follow its end"):
        read(put(tmp_path / "x", SMALL + bytes(512)))


@pytest.mark.parametrize("data", [b"", b"x", bytes(1024), b"PK\3\4" + bytes(1000), b"\x28\xb5\x2f\xfd" * 300])
def test_files_that_are_no_bundles(tmp_path: Path, data: bytes) -> None:
    """They are named as such."""
    with pytest.raises(Damage, match="is no bundle of mlbox"):
        read(put(tmp_path / "x", data))


def test_things_that_are_no_files(tmp_path: Path) -> None:
    """A pipe must not make us wait, nor a missing file end in a traceback."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "", "missing"):
        with pytest.raises(ArchiveError, match="cannot read"):
            read(tmp_path / name)


def test_contents_that_lie_about_their_size(tmp_path: Path) -> None:
    """Neither gigabytes are read nor more than there is."""
    for size, said in ((CONTENTS_LIMIT + 1, "larger than"), (CONTENTS_LIMIT, "was cut off")):
        with pytest.raises(Damage, match=said):
            read(put(tmp_path / "x", header(Entry("bundle.json", "file", 0o644, size=size)) + bytes(1024)))


@pytest.mark.parametrize(
    "entry",
    [
        Entry("../bundle.json", "file", 0o644),
        Entry("bundle.json", "symlink", 0o777, target="/etc/passwd"),
        Entry("bundle.json", "dir", 0o755),
        Entry("bundle.json", "file", 0o4755),
        Entry("b" * 200, "file", 0o644),
    ],
)
def test_another_first_member(tmp_path: Path, entry: Entry) -> None:
    """A link, a folder, a long name: there is one header that can stand there."""
    with pytest.raises(Damage, match="no bundle"):
        read(put(tmp_path / "x", header(entry) + bytes(2048)))


@pytest.mark.parametrize("path", ["../../etc/cron.d/x", "/etc/passwd", "blobs/sha256/../../x", "bundle.json"])
def test_members_that_the_contents_do_not_name(tmp_path: Path, path: str) -> None:
    """Another member, or one again, is damage wherever it leads."""
    evil = (Entry(path, "file", 0o644, size=4), b"evil")
    with pytest.raises(Damage):
        read(put(tmp_path / "x", forged(plain(small()), evil)))


def test_numbers_a_tar_can_say_in_other_ways(tmp_path: Path) -> None:
    """Base-256 sizes and sparse files are what makes two programs see two archives."""
    for start, field in ((124, b"\x80" + bytes(7) + b"\0\0\1\0"), (156, b"S"), (345, b"etc")):
        block = bytearray(SMALL)
        block[start : start + len(field)] = field
        with pytest.raises(Damage, match="no bundle"):
            read(put(tmp_path / "x", bytes(block)))


HEX = "sha256:" + "0" * 64
HOSTILE: dict[str, tuple[Change, str]] = {
    "newer": (lambda d: d.update(format=2), "a bundle of format 2"),
    "no format": (lambda d: d.pop("format"), "missing required field"),
    "unknown key": (lambda d: d.update(hooks=["rm -rf /"]), "unknown field"),
    "no image": (lambda d: d.update(images=[]), "no image"),
    "an image twice": (lambda d: d["images"].append(d["images"][0]), "images are not sorted"),
    "a layer twice": (lambda d: d["layers"].append(d["layers"][0]), "layers are not sorted"),
    "a path as digest": (lambda d: d["images"][0].update(digest="sha256:../../x"), "not a digest"),
    "a path as file": (lambda d: d["files"][0].update(digest="../../etc/x"), "not a digest"),
    "a path as diffID": (lambda d: d["layers"][0].update(diffId="x"), "not a digest"),
    "a path as subject": (lambda d: d["referrers"][0].update(subject="/"), "not a digest"),
    "a path as since": (lambda d: d.update(since=["/"]), "not a digest"),
    "a path as what was built": (lambda d: d["files"][0].update(built=["../x"]), "a piece's key"),
    "a path as piece": (lambda d: d.update(pieces=["../x"]), "a piece's key"),
    "a path as file name": (lambda d: d["files"][0].update(filename="../../x.whl"), "not a file name"),
    "a terminal's codes": (lambda d: d["files"][0].update(filename="\x1b[2J"), "not a file name"),
    "codes in a layer": (lambda d: d["layers"][0].update(name="\x1b[2J"), "a layer's name"),
    "a name that is none": (lambda d: d["images"][0].update(names=["../x"]), "not a name"),
    "a short name": (lambda d: d["images"][0].update(names=["bert"]), "not a name"),
    "a name with digest": (lambda d: d["images"][0].update(names=[f"docker.io/a/b@{HEX}"]), "not a name"),
    "a platform": (lambda d: d["images"][0].update(os="\n"), "no platform"),
    "less than nothing": (lambda d: d["files"][0].update(size=-1), "a size that nothing has"),
    "a huge file": (lambda d: d["files"][0].update(size=1 << 60), "a size that nothing has"),
    "a huge layer": (lambda d: d["layers"][0].update(size=1 << 60), "a size that nothing has"),
    "a negative layer": (lambda d: d["layers"][0].update(size=-5), "a size that nothing has"),
    "a huge document": (lambda d: d["images"][0]["config"].update(size=5 << 20), "is too large"),
    "a huge note": (lambda d: d["referrers"][0]["blobs"][0].update(size=65 << 20), "is too large"),
    "two sizes": (
        lambda d: d["files"].insert(0, {**d["files"][0], "digest": digest_of(LAYER_BYTES)}),
        "two sizes|not s",
    ),
    "a blob that is not there": (lambda d: d["layers"][0].pop("blob"), "contradicts itself"),
    "a way": (lambda d: d["layers"][0].update(way="curl"), "Invalid enum value"),
    "a layer of text": (lambda d: d["layers"][0]["blob"].update(mediaType="text/plain"), "has the type"),
    "no manifest": (lambda d: d["images"][0].pop("manifest"), "contradicts itself"),
    "about nothing": (lambda d: d["referrers"][0].update(subject=HEX), "is about nothing here"),
    "of no image": (
        lambda d: d.update(
            remotes=[{"image": HEX, "repository": "docker.io/a/b", "manifest": d["images"][0]["config"]}]
        ),
        "is of no image here",
    ),
    "a repository": (
        lambda d: d.update(
            remotes=[
                {
                    "image": d["images"][0]["digest"],
                    "repository": "https://me:secret@host/a",
                    "manifest": d["images"][0]["config"],
                }
            ]
        ),
        "not a repository",
    ),
}


@pytest.mark.parametrize("change", HOSTILE, ids=str)
def test_contents_that_cannot_be(change: str) -> None:
    """Each is refused before a byte behind the contents is read, and says why."""
    edit, said = HOSTILE[change]
    document = plain(small())
    edit(document)
    with pytest.raises(ArchiveError, match=said) as caught:
        parse_contents(canonical_json(document), "x.bundle")
    assert caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 200_000,
        b'{"format":1,"images":' + b"[" * 200_000,
        b'{"format":1,"x":' + b'{"a":' * 100_000,
        json.dumps(plain(small()), indent=1).encode(),
        canonical_json(plain(small())) + b" ",
        b'{"format":1,"format":1}',
        b'{"format":1e400}',
        b"\xff\xfe",
        b"",
    ],
    ids=lambda data: str(data[:12]),
)
def test_contents_that_are_written_otherwise(data: bytes) -> None:
    """Deep nesting ends nobody's stack, and there is one way to write contents."""
    with pytest.raises(Damage):
        parse_contents(data, "x.bundle")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=80) | st.sampled_from([HEX, "blob", "there", 1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@fuzzed
@given(st.data())
def test_anything_anywhere_in_the_contents(data: st.DataObject) -> None:
    """Whatever stands where, it is refused in our words or harmless."""
    document = plain(small())
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    try:
        parse_contents(canonical_json(document), "x.bundle")
    except MlboxError as problem:
        assert problem.hint


def test_who_loaded_a_bundle_has_what_it_has_and_needed() -> None:
    """Nothing is missing from a store that loaded it; from an empty one all that was left out."""
    contents = small()
    layers = tuple(msgspec.structs.replace(layer, way="there", blob=None) for layer in contents.layers)
    files = tuple(msgspec.structs.replace(file, there=True) for file in contents.files)
    delta = msgspec.structs.replace(contents, layers=layers, files=files, pieces=("0" * 64,))
    assert not missing_from(given_by(delta), delta)
    assert not missing_from(given_by(contents), contents)
    missing = str(missing_from(msgspec.structs.replace(given_by(delta), layers=frozenset()), delta))
    assert missing.startswith("1 layer: numpy (")
    empty = given_by(msgspec.structs.replace(contents, layers=(), files=()))
    assert "1 file: numpy-1-py3-none-any.whl; 1 unpacked package: 000000000000" in str(missing_from(empty, delta))


def test_a_referrer_about_a_referrer() -> None:
    """A signature of a bill of materials is kept; one that comes before what it is about is not."""
    document = plain(small())
    first = document["referrers"][0]
    second = {**first, "subject": digest_of(REFERRER_BYTES), "manifest": document["images"][0]["manifest"]}
    document["referrers"] = [first, second]
    parse_contents(canonical_json(document), "x")
    document["referrers"] = [second, first]
    with pytest.raises(Damage, match="about nothing here"):
        parse_contents(canonical_json(document), "x")
