"""Reading lists of files: index pages as HTML (PEP 503) or JSON (PEP 691), and folders of find-links."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import msgspec

from mlbox.errors import FetchError
from mlbox.http import Answer, Http, HttpError, file_path, redact
from mlbox.lock.python.model import SDISTS, File

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
PAGE_LIMIT = 256 << 20
Attributes = dict[str, str | None]
_SUFFIXES = (".whl", *SDISTS)


def files_of_page(answer: Answer) -> tuple[File, ...]:
    """Return the files that an index page lists; what is malformed in it is skipped."""
    kind = answer.headers.get("content-type", "text/html").split(";")[0].strip().lower()
    if kind.endswith("json"):
        return tuple(_from_json(answer))
    return tuple(_from_html(answer))


def files_of_project(http: Http, index_url: str, name: str) -> tuple[File, ...]:
    """Return the files that the index has for the project `name`; none when it does not know it."""
    url = f"{index_url.rstrip('/')}/{name}/"
    folder = file_path(url)
    if folder is None:
        try:
            return files_of_page(http.fetch(url, limit=PAGE_LIMIT, headers={"Accept": ACCEPT}))
        except HttpError as problem:
            if problem.status in (404, 410):
                return ()
            raise
    page = folder / "index.html"
    return files_of_page(Answer(url, {}, page.read_bytes())) if page.is_file() else local_files([str(folder)])


def files_of_link(http: Http, link: str) -> tuple[File, ...]:
    """Return the files of one find-links: a folder, or the address of a page."""
    if "://" in link and file_path(link) is None:
        return files_of_page(http.fetch(link, limit=PAGE_LIMIT, headers={"Accept": "text/html"}))
    return local_files([link])


def local_files(find_links: Iterable[str]) -> tuple[File, ...]:
    """Return the files (without hashes) of those find-links that are folders of this machine."""
    found = []
    for link in find_links:
        folder = file_path(link) or Path(link)
        if "://" in link and file_path(link) is None:
            continue
        if folder.is_dir():
            paths = sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIXES) and path.is_file())
            found += [File(filename=path.name, url=path.absolute().as_uri(), sha256="") for path in paths]
    return tuple(found)


def _from_json(answer: Answer) -> list[File]:
    try:
        document: Any = msgspec.json.decode(answer.body)
        entries = document["files"]
        return [_json_file(entry, answer.url) for entry in entries if _usable(entry)]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError) as problem:
        raise FetchError(f"{redact(answer.url)}: not an index page", hint="check the configured index") from problem


def _usable(entry: Any) -> bool:  # noqa: ANN401 - from a stranger's JSON
    return isinstance(entry, dict) and isinstance(entry.get("filename"), str) and isinstance(entry.get("url"), str)


def _json_file(entry: dict[str, Any], base: str) -> File:
    hashes, size = entry.get("hashes"), entry.get("size")
    sha256 = hashes.get("sha256", "") if isinstance(hashes, dict) else ""
    return File(
        filename=entry["filename"],
        url=_absolute(base, entry["url"]),
        sha256=sha256 if isinstance(sha256, str) else "",
        size=size if isinstance(size, int) and size > 0 else 0,
    )


def anchors_of_project(http: Http, index_url: str, name: str) -> list[tuple[File, Attributes]]:
    """Return the files that an index has for the project `name`, with what its page (PEP 503) says of each."""
    url = f"{index_url.rstrip('/')}/{name}/"
    if (folder := file_path(url)) is not None:
        page = folder / "index.html"
        if not page.is_file():
            return [(file, {}) for file in local_files([str(folder)])]
        return list(_anchors(Answer(url, {}, page.read_bytes())))
    try:
        return list(_anchors(http.fetch(url, limit=PAGE_LIMIT, headers={"Accept": "text/html"})))
    except HttpError as problem:
        if problem.status in (403, 404, 410):  # a bucket without listing says 403 of what it does not have
            return []
        raise


def _from_html(answer: Answer) -> list[File]:
    return [file for file, _ in _anchors(answer)]


def _anchors(answer: Answer) -> Iterator[tuple[File, Attributes]]:
    parser = _Anchors()
    with suppress(AssertionError):  # what the parser says to '<![' without a name: the page ends there
        parser.feed(answer.body.decode("utf-8", errors="replace"))
        parser.close()
    base = _absolute(answer.url, parser.base) if parser.base else answer.url
    for attributes in parser.anchors:
        url, fragment = urldefrag(_absolute(base, attributes["href"] or ""))
        filename = unquote(urlsplit(url).path.rpartition("/")[2])
        if filename.endswith(_SUFFIXES):
            sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
            yield File(filename=filename, url=url, sha256=sha256), attributes


def _absolute(base: str, href: str) -> str:
    try:
        return urljoin(base, href.strip())
    except ValueError:
        return ""


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: list[Attributes] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        href = attributes.get("href") or ""
        if tag == "a" and href:
            self.anchors.append(attributes)
        elif tag == "base" and href and not self.base:
            self.base = href
