from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlbox.errors import FetchError
from mlbox.http import Answer, Http
from mlbox.lock.python.pages import files_of_page, files_of_project, local_files

BASE = "https://h.invalid/simple/six/"
HEX = "a" * 64


def page(body: str | bytes, kind: str = "text/html", url: str = BASE) -> Answer:
    return Answer(url, {"content-type": kind}, body.encode() if isinstance(body, str) else body)


def test_html_page() -> None:
    files = files_of_page(
        page(
            f"""<!DOCTYPE html><body><a href="../../f/six-1.0-py3-none-any.whl#sha256={HEX}">six</a>
            <A HREF='https://o.invalid/six-1.0+cpu-py3-none-any.whl?x=1' data-yanked=''>x</a>
            <a href="/six-1.0.tar.gz#md5=1">s</a> <a href="six%2B1.zip"> <a name=x> <a href="">
            <a href="six.exe"><a href"""
        )
    )
    assert [(file.filename, file.url, file.sha256) for file in files] == [
        ("six-1.0-py3-none-any.whl", "https://h.invalid/f/six-1.0-py3-none-any.whl", HEX),
        ("six-1.0+cpu-py3-none-any.whl", "https://o.invalid/six-1.0+cpu-py3-none-any.whl?x=1", ""),
        ("six-1.0.tar.gz", "https://h.invalid/six-1.0.tar.gz", ""),
        ("six+1.zip", "https://h.invalid/simple/six/six%2B1.zip", ""),
    ]


def test_html_base_counts() -> None:
    (file,) = files_of_page(page('<base href="https://b.invalid/x/"><a href="six-1.tar.gz">'))
    assert file.url == "https://b.invalid/x/six-1.tar.gz"


def test_json_page() -> None:
    entry = {"filename": "six-1.0.tar.gz", "url": "../six-1.0.tar.gz", "hashes": {"sha256": HEX}, "size": 5}
    odd = [{"filename": 1, "url": "x"}, None, {"url": "x"}, {**entry, "hashes": None, "size": "5"}]
    body = msgspec.json.encode({"files": [entry, *odd]})
    files = files_of_page(page(body, "application/vnd.pypi.simple.v1+json"))
    assert [(file.url, file.sha256, file.size) for file in files] == [
        ("https://h.invalid/simple/six-1.0.tar.gz", HEX, 5),
        ("https://h.invalid/simple/six-1.0.tar.gz", "", 0),
    ]


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"files": 3}', "<html>", '{"files":' + "[" * 5000])
def test_what_is_no_json_page_is_said(body: str) -> None:
    with pytest.raises(FetchError, match="not an index page"):
        files_of_page(page(body, "application/json"))


@given(
    st.binary(max_size=300) | st.text(max_size=100).map(lambda text: f'<a href="{text}.whl">'.encode(errors="replace"))
)
@example(b"<![\x00")
def test_any_html_is_read_without_crash(body: bytes) -> None:
    for file in files_of_page(page(body)):
        assert "/" not in file.filename or "%2F" in file.url.upper()


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "six-1.0-py3-none-any.whl").write_bytes(b"x")
    (tmp_path / "note.txt").write_bytes(b"x")
    (tmp_path / "dir.whl").mkdir()
    for link in (str(tmp_path), tmp_path.as_uri()):
        (file,) = local_files([link, "https://h.invalid/page", str(tmp_path / "none")])
        assert file.filename == "six-1.0-py3-none-any.whl"
        assert file.url == (tmp_path / "six-1.0-py3-none-any.whl").as_uri()


def test_an_index_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "simple/six"
    folder.mkdir(parents=True)
    (folder / "six-1.tar.gz").write_bytes(b"")
    index = (tmp_path / "simple").as_uri()
    assert [file.filename for file in files_of_project(Http(), index, "six")] == ["six-1.tar.gz"]
    (folder / "index.html").write_text('<a href="../../f/six-2.tar.gz">')
    assert [file.url for file in files_of_project(Http(), index, "six")] == [(tmp_path / "f/six-2.tar.gz").as_uri()]
    assert files_of_project(Http(), index, "other") == ()
