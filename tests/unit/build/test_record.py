"""RECORD files read back as they were written."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.build.record import Row, check_rows, expected_hash, read_record, row_for, write_record
from mlbox.errors import ArchiveError

TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r\n"), min_size=1)


@given(st.dictionaries(TEXT, st.binary()))
def test_what_is_written_reads_back(files: dict[str, bytes]) -> None:
    rows = {path: row_for(path, data) for path, data in files.items()}
    assert read_record(write_record(rows.values()), "x.whl") == rows
    for path, data in files.items():
        assert expected_hash(rows[path], "x.whl") == ("sha256", hashlib.sha256(data).digest())


def test_rows_are_sorted_and_end_as_pip_ends_them() -> None:
    assert write_record([Row("b", "", ""), Row("a,c", "h", "1")]) == b'"a,c",h,1\r\nb,,\r\n'


def test_short_lines_and_empty_lines() -> None:
    assert read_record(b"a\n\nb,sha256=x\n", "x.whl") == {"a": Row("a", "", ""), "b": Row("b", "sha256=x", "")}


def test_the_same_line_twice_is_one() -> None:
    assert list(read_record(b"a,,\na,,\n", "x.whl")) == ["a"]


def test_folders_in_record_are_ignored() -> None:
    check_rows(read_record(b"a/,,\na/b,,\n", "x.whl"), ["a/b"], [], "x.whl")


def test_what_is_missing_is_named() -> None:
    rows = read_record(b"a,,\nb,,\nc,,\n", "x.whl")
    with pytest.raises(ArchiveError, match=r"x\.whl: RECORD lists 'a' and 2 more"):
        check_rows(rows, [], [], "x.whl")
    with pytest.raises(ArchiveError, match=r"x\.whl: 'd' is not listed in its RECORD"):
        check_rows(rows, ["a", "b", "c", "d"], [], "x.whl")
