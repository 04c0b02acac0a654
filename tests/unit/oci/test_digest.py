import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import MlboxError
from mlbox.oci.digest import digest_of, hex_of, parse_digest


@given(st.binary())
def test_a_digest_parses_as_itself_and_is_sha256(data: bytes) -> None:
    digest = digest_of(data)
    assert parse_digest(digest) == digest
    assert hex_of(digest) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "a" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha512:" + "a" * 128,
        "sha256:" + "a" * 64 + "\n",
        "sha256:../" + "a" * 61,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(MlboxError, match="not a digest"):
        parse_digest(text)
