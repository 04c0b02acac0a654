"""Small parsers of what registries say: links, ranges, documents, error words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import RegistryError
from mlbox.oci.image import DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST
from mlbox.registry.endpoint import Answer
from mlbox.registry.listing import next_page
from mlbox.registry.manifests import ALL, judged
from mlbox.registry.problem import clean
from mlbox.registry.upload import _received


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("", None),
        ('</v2/x/tags/list?last=b&n=2>; rel="next"', "/v2/x/tags/list?last=b&n=2"),
        ("<next>;rel=next", "next"),
        ('<a>; rel="prev", <b>; rel="next"', "b"),
        ('<a>; title="x"; REL = "Next"', "a"),
        ('<a>; rel="nextish"', None),
        ('<a,b>; rel="next"', "a,b"),
        ("no link", None),
        ('<>; rel="next"', ""),
    ],
)
def test_links(header: str, target: str | None) -> None:
    """The page after this one, as RFC 8288 writes it."""
    assert next_page(header) == target


@given(st.text(max_size=300))
def test_links_never_fail(header: str) -> None:
    """Nonsense is no link."""
    next_page(header)


@pytest.mark.parametrize(
    ("header", "count"),
    [("0-0", 0), ("0-99", 100), ("bytes=0-99", 100), ("bytes 0-99", 100), ("", 0), ("5-9", 0), ("0-x", 0), ("-1", 0)],
)
def test_ranges(header: str, count: int) -> None:
    """How much of an upload is there."""
    assert _received(Answer(status=204, url="", headers={"range": header}, data=b"")) == count


IMAGE = {"schemaVersion": 2, "config": {}, "layers": []}
LIST = {"schemaVersion": 2, "manifests": []}


@pytest.mark.parametrize(
    ("document", "content_type", "expected"),
    [
        (IMAGE | {"mediaType": MANIFEST}, MANIFEST, MANIFEST),
        (IMAGE | {"mediaType": DOCKER_MANIFEST}, MANIFEST, DOCKER_MANIFEST),
        (IMAGE | {"mediaType": MANIFEST}, "application/json", MANIFEST),
        (IMAGE, DOCKER_MANIFEST, DOCKER_MANIFEST),
        (IMAGE, "text/plain", MANIFEST),
        (LIST, "", INDEX),
        (LIST | {"mediaType": DOCKER_INDEX}, INDEX, DOCKER_INDEX),
        (IMAGE | {"mediaType": "application/x"}, MANIFEST, MANIFEST),
    ],
)
def test_media_types(document: object, content_type: str, expected: str) -> None:
    """The document's own word goes first, then the registry's, then its shape."""
    assert judged("x", json.dumps(document).encode(), content_type) == expected


VALUES = st.none() | st.integers() | st.sampled_from(ALL) | st.lists(st.none())
DOCUMENTS = st.dictionaries(st.sampled_from([*IMAGE, *LIST, "mediaType"]), VALUES)


@given(st.binary(max_size=200) | DOCUMENTS.map(lambda value: json.dumps(value).encode()), st.sampled_from([*ALL, ""]))
def test_media_types_of_nonsense(data: bytes, content_type: str) -> None:
    """A known type or a RegistryError."""
    try:
        assert judged("x", data, content_type) in ALL
    except RegistryError:
        return


@given(st.text(max_size=500))
def test_words_fit_a_terminal(text: str) -> None:
    """One line without control characters."""
    found = clean(text)
    assert len(found) <= 300
    assert not [letter for letter in found if ord(letter) < 32 or 127 <= ord(letter) < 160]
    assert "\u202e" not in found
