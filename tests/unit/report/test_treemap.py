"""The page: complete, closed to the outside, and safe with names of strangers."""

import base64
import hashlib
import html.parser
import json
import re

import pytest
from fakes.images import SITE, debs, make_image, wheel
from hypothesis import given
from hypothesis import strategies as st

from mlbox.report.contents import contents_of
from mlbox.report.treemap import page, parts_of
from mlbox.report.usage import usage_of
from mlbox.store.store import Store

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


class Page(html.parser.HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag = self.tags[-1][0] if self.tags else ""
        self.data[tag] = self.data.get(tag, "") + data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def render(store: Store, layers: dict[str, dict[str, bytes | str | int]], name: str = "me:1") -> str:
    contents = contents_of(store, make_image(store, layers), name)
    return page(usage_of(store, contents), contents)


@pytest.fixture
def text(store: Store) -> str:
    base = debs(("libc6", "1", "", {"usr/lib/libc.so": bytes(900_000)}), ("tiny", "1", "", {"usr/tiny": b"1"}))
    many = {f"pkg__f{number}": bytes(1000) for number in range(100)}
    return render(store, {"base": base, "env": wheel("pkg", **many), "project": {"workspace/x": bytes(5000)}})


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    """No address but the file's own, and a policy that would forbid it."""
    parsed = Page(text)

    assert not re.search(r"(?:src|href|action|url\()\s*=?\s*['\"]?(?!#)", text.partition("</style>")[2])
    assert "://" not in text
    policy = next(meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'")
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_every_package_is_in_the_table_and_large_ones_in_the_map(text: str) -> None:
    parsed = Page(text)
    tiles = [button for button in parsed.all("button") if button.get("class", "").startswith("t")]  # type: ignore[union-attr]

    assert all(name in text for name in (">libc6<", ">tiny<", ">pkg<", ">project<"))
    assert any("libc6 1, 900.0 kB, " in (tile["aria-label"] or "") for tile in tiles)
    assert any("1 smaller packages" in (tile["aria-label"] or "") for tile in tiles)


def test_tiles_and_data_fit_together(text: str) -> None:
    """The n-th tile opens the n-th entry, whose parts fill the room."""
    parsed = Page(text)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    numbers = [button["data-i"] for button in parsed.all("button") if "data-i" in button]

    assert numbers == [str(number) for number in range(len(data))]
    opened = next(one for one in data if one["name"] == "pkg")
    assert sum(part[4] * part[5] for part in opened["parts"]) == pytest.approx(10_000, rel=0.01)
    assert sum(part[8] * part[9] for part in opened["parts"]) == pytest.approx(10_000, rel=0.01)


def test_hostile_names_stay_text(store: Store) -> None:
    """A script in the name of an image, a package, a version, a layer or a file runs nowhere."""
    info = f"{SITE}/x-1.dist-info"
    record = f'"{EVIL.replace(chr(34), chr(34) * 2)}/{EVIL}.py",,\n'.encode()
    files: dict[str, bytes | str | int] = {
        f"{info}/METADATA": f"Name: {EVIL}\nVersion: {EVIL}\n".encode(),
        f"{info}/RECORD": record,
        f"{SITE}/a</script><script>alert(3)</script>": bytes(70_000),
        "bad\udcff<b>name": bytes(70_001),
        "workspace/</script><!--": bytes(70_000),
    }
    text = render(store, {EVIL: files, "$title": {"x": b"1" * 1000}}, name=EVIL)
    parsed = Page(text)

    assert len(parsed.all("script")) == 2
    assert not parsed.all("img")
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert "alert(1)</script>" not in text
    text.encode()


@given(st.lists(st.tuples(st.text("ab/", min_size=1, max_size=9), st.integers(1, 1000)), min_size=1, max_size=80))
def test_parts_are_the_whole(files: list[tuple[str, int]]) -> None:
    """Whatever is opened and put together, no byte is lost or counted twice."""
    parts = parts_of(files, most=10)

    assert sum(size for _, size in parts) == sum(size for _, size in files)
    assert len(parts) <= 11
    assert [size for _, size in parts] == sorted((size for _, size in parts), reverse=True)


def test_an_empty_image_makes_a_page(store: Store) -> None:
    assert "0 B in 0 files" in render(store, {"nothing": {}})
