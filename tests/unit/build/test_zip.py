"""Reading zips of strangers: every lie is found, and nothing but ArchiveError comes out."""

import os
import struct
import zipfile
from pathlib import Path

import pytest
from fakes.wheels import stored_zip, zip_file
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlbox.build.zip import BIG, Limits, Zip
from mlbox.errors import ArchiveError

CENTRAL = struct.Struct("<4sHHHHHHLLLHHHHHLL")
CRC, PACKED, SIZE, OFFSET, FLAGS, METHOD = 7, 8, 9, 16, 3, 4


def read_all(path: Path, limits: Limits | None = None) -> dict[str, bytes]:
    with Zip(path, path.name, limits or Limits()) as archive:
        return {name: b"".join(archive.chunks(member)) for name, member in archive.members.items()}


def refuse(path: Path, message: str, limits: Limits | None = None) -> None:
    with pytest.raises(ArchiveError, match=message) as caught:
        read_all(path, limits)
    assert caught.value.message.startswith(path.name + ": ")
    assert caught.value.hint


def change_central(path: Path, index: int, field: int, value: int) -> Path:
    """Change one field of the central directory's entry number `index`."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    for _ in range(index):
        at = data.index(b"PK\1\2", at + 1)
    fields = list(CENTRAL.unpack_from(data, at))
    fields[field] = value
    CENTRAL.pack_into(data, at, *fields)
    path.write_bytes(data)
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return zip_file(tmp_path / "x.zip", [("a", b"a" * 100), ("b", b"b" * 100), ("c", os.urandom(100))])


def test_reads_what_zipfile_writes(tmp_path: Path) -> None:
    files = {"a": b"", "d/b": b"b" * 1000, "ü": b"c", "big": os.urandom(BIG) + bytes(BIG)}
    assert read_all(zip_file(tmp_path / "x.zip", files.items())) == files


def test_stored_members_and_folders(tmp_path: Path) -> None:
    big = os.urandom(BIG + 5)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("folder")
        archive.writestr("small", b"s")
        archive.writestr("big", big)
    assert read_all(path) == {"small": b"s", "big": big}


def test_sizes_that_follow_the_data(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with path.open("wb") as file:
        file.seekable = lambda: False  # type: ignore[method-assign]
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", b"a" * 50)
            archive.writestr("b", b"b" * 50)
    assert read_all(path) == {"a": b"a" * 50, "b": b"b" * 50}


def test_zip64(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w", force_zip64=True) as file:
        file.write(b"a" * 70_000)
    assert read_all(path) == {"a": b"a" * 70_000}
    many = {str(number): b"" for number in range(70_000)}  # more than the 16-bit count holds
    assert read_all(stored_zip(tmp_path / "y.zip", many.items())) == many


def test_executable_means_a_regular_file_with_an_x_bit(tmp_path: Path) -> None:
    modes = {"none": 0, "plain": 0o100644, "all": 0o100755, "other": 0o100645, "typeless": 0o755}

    def edit(info: zipfile.ZipInfo) -> None:
        info.external_attr = modes[info.filename] << 16

    with Zip(zip_file(tmp_path / "x.zip", [(name, b"") for name in modes], edit=edit), "x") as archive:
        assert [name for name, member in archive.members.items() if member.executable] == ["all", "other"]


def test_not_a_zip(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"<html>not found</html>")
    refuse(tmp_path / "x.zip", "not a readable zip archive")


@pytest.mark.parametrize("keep", [0, 10, 60, -1, -30])
def test_truncated(sound: Path, keep: int) -> None:
    sound.write_bytes(sound.read_bytes()[:keep])
    refuse(sound, "not a readable zip archive|damaged|overlaps")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (CRC, 1, "'a' is damaged"),
        (SIZE, 99, "disagree about its size"),
        (SIZE, 101, "disagree about its size"),
        (PACKED, 1, "disagree about its size"),
        (PACKED, 90, "overlaps"),
        (FLAGS, 1, "encrypted"),
        (METHOD, 12, "method 12"),
        (METHOD, 0, "header and the central directory disagree"),
        (OFFSET, 1, "header and the central directory disagree|overlaps"),
    ],
)
def test_a_central_directory_that_lies(sound: Path, field: int, value: int, message: str) -> None:
    refuse(change_central(sound, 0, field, value), message)


@pytest.mark.parametrize(("field", "value"), [(SIZE, 99), (SIZE, 101)])
def test_both_headers_lie_about_the_size(sound: Path, field: int, value: int) -> None:
    change_central(sound, 0, field, value)
    data = bytearray(sound.read_bytes())
    struct.pack_into("<L", data, 22, value)
    sound.write_bytes(data)
    refuse(sound, "'a' is damaged")


def test_a_member_that_inflates_beyond_its_size_is_not_inflated_further(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "x.zip", [("a", bytes(64 << 20))])
    data = bytearray(change_central(path, 0, SIZE, 10).read_bytes())
    struct.pack_into("<L", data, 22, 10)
    path.write_bytes(data)
    import tracemalloc

    tracemalloc.start()
    refuse(path, "'a' is damaged")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_overlapping_members(sound: Path) -> None:
    refuse(change_central(sound, 1, OFFSET, 0), "overlaps|disagree")


def test_other_name_in_the_members_own_header(sound: Path) -> None:
    data = bytearray(sound.read_bytes())
    data[30] = ord("z")
    sound.write_bytes(data)
    refuse(sound, "'a': its own header and the central directory disagree")


def test_a_name_with_a_zero_byte(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "x.zip", [("aXb", b"1")])
    path.write_bytes(path.read_bytes().replace(b"aXb", b"a\0b"))
    refuse(path, "leaves the archive or is no path")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicates(tmp_path: Path) -> None:
    refuse(zip_file(tmp_path / "x.zip", [("a", b"1"), ("a", b"2")]), "two members have the name 'a'")


def test_a_huge_central_directory_is_not_read(tmp_path: Path) -> None:
    path = stored_zip(tmp_path / "x.zip", [("n" * 200 + str(number), b"") for number in range(100)])
    refuse(path, "central directory wants", Limits(files=10))


def test_a_limit_on_what_is_read_at_once(tmp_path: Path) -> None:
    with Zip(zip_file(tmp_path / "x.zip", [("a", bytes(100))]), "x.zip") as archive:
        with pytest.raises(ArchiveError, match="'a' has 100 bytes, more than the 99"):
            archive.read(archive.members["a"], 99)
        assert archive.read(archive.members["a"], 100) == bytes(100)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(0, 500), value=st.binary(min_size=1, max_size=4))
@example(at=0, value=b"")
def test_any_change_is_harmless_or_refused(tmp_path_factory: pytest.TempPathFactory, at: int, value: bytes) -> None:
    path = tmp_path_factory.mktemp("zip") / "x.zip"
    sound = {"a": b"a" * 100, "dir/b": b"b" * 30, "é": b"c" * 9}
    data = bytearray(zip_file(path, sound.items()).read_bytes())
    at %= len(data)
    data[at : at + len(value)] = value
    path.write_bytes(data)
    try:
        read = read_all(path)
    except ArchiveError:
        return
    # Times, comments and attributes do not matter; a name may change when both headers agree.
    assert set(read.values()) <= set(sound.values())
