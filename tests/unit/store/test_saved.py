import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import ArchiveError, StoreError
from mlbox.oci.layer import Entry, Kind, header
from mlbox.store.saved import load_entries, load_record, pack_entries, saved_path, unpack_entries

names = st.binary(min_size=1, max_size=20).map(lambda b: b.decode("utf-8", "surrogateescape"))
kinds = st.sampled_from(["file", "dir", "symlink"])
entries = st.builds(Entry, names, kinds, st.integers(0, 0o7777), st.integers(0, 2**33), st.integers(0, 2**62), names)


@given(st.lists(entries, max_size=5).map(tuple))
def test_any_bytes_in_names_survive(found: tuple[Entry, ...]) -> None:
    assert unpack_entries(pack_entries(found)) == found


def test_twenty_thousand_entries_load_fast() -> None:
    found = tuple(
        Entry(f"opt/mlbox/env/lib/python3.11/site-packages/package/module/file_{i}.py", "file", 0o644, size=i)
        for i in range(20_000)
    )
    data = pack_entries(found)
    start = time.process_time()
    assert unpack_entries(data) == found
    assert time.process_time() - start < 0.5
    assert len(data) < 120 * len(found)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x90", b"garbage", b"\x92\x91\x93\xa1a\xa3fil\x00\x80"])
def test_damage_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "entries").write_bytes(data)
    (tmp_path / "record.json").write_bytes(data)
    with pytest.raises(StoreError, match="entries"):
        load_entries(tmp_path)
    with pytest.raises(StoreError, match=r"record\.json"):
        load_record(tmp_path)


def test_a_key_names_no_other_folder(tmp_path: Path) -> None:
    for key in ("", "..", "a" * 63, "../" + "a" * 61, "A" * 64):
        with pytest.raises(StoreError, match="not a key"):
            saved_path(tmp_path, key)


def test_entries_of_older_stores_are_read() -> None:
    """What had no whiteouts yet, and so one field less."""
    old = msgspec.msgpack.encode(((("a", "dir", 0o755, 5, 0, "", 0, 0), ("a/b", "file", 0o644, 5, 7, "", 1, 2)), {}))
    assert unpack_entries(old) == (Entry("a", "dir", 0o755, 5), Entry("a/b", "file", 0o644, 5, 7, "", 1, 2))


def test_every_kind_of_entry_comes_back() -> None:
    """Those of foreign layers too."""
    entries = (
        Entry("a", "dir", 0o755, opaque=True),
        Entry("b", "link", 0o644, -5, 0, "é"),
        Entry("c", "whiteout", 0),
        Entry("d", "fifo", 0o600),
        Entry("e", "char", 0o600),
        Entry("f\udcff", "block", 0o600),
    )
    assert unpack_entries(pack_entries(entries)) == entries


@pytest.mark.parametrize("kind", ["link", "whiteout", "fifo", "char", "block"])
def test_only_plain_entries_are_written_to_a_tar(kind: Kind) -> None:
    """The rest is in the frames of the layer that it came with."""
    with pytest.raises(ArchiveError, match=f"'a': a {kind} has no place"):
        header(Entry("a", kind, 0o644))
