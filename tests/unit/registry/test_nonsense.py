"""Whatever a registry answers, there is a result or a RegistryError: never another exception, never a long wait."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fakes.registry import FakeRegistry, Reply, digest_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlbox.errors import RegistryError
from mlbox.http import Limits
from mlbox.oci.artifact import artifact_of, manifest_of
from mlbox.oci.digest import Digest
from mlbox.oci.image import INDEX, LAYER_TAR, MANIFEST, Descriptor
from mlbox.registry.client import Registry
from mlbox.registry.credentials import Credentials

Open = Callable[..., Registry]

IMPATIENT = Limits(connect=1, read=0.02, attempts=1, most=2, unreachable=0.1)
SECRET = "open-sesame-4711"
DATA = b"data"
BLOB = Descriptor(media_type=LAYER_TAR, digest=Digest(digest_of(DATA)), size=len(DATA))
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30)
ODD = st.sampled_from(
    [
        "",
        "/",
        "//",
        "?",
        "#",
        "http://",
        "http://[",
        "http://[::1]x",
        "http://a:99999/",
        "http://a:b@",
        "%",
        "\\",
        "/%zz?%",
    ]
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Location", "Link", "Range", "Content-Range", "Content-Type", "Content-Length", "Docker-Content-Digest",
         "Retry-After", "OCI-Subject", "OCI-Chunk-Min-Length", "WWW-Authenticate", "Content-Encoding",
         "Transfer-Encoding"]
    ),
    WORDS | ODD | st.sampled_from([MANIFEST, INDEX, BLOB.digest, "0-3", "bytes 0-3/4", "4", "99", "chunked", "gzip"]),
    max_size=4,
)  # fmt: skip
BODIES = st.sampled_from(
    [b"", DATA, b"{}", b"[]", b"null", b'{"errors":[{}]}', b'{"token":"x"}', b'{"tags":[null]}', b'{"manifests":[]}',
     b'{"schemaVersion":2,"layers":[],"config":{}}', b"\xff\xfe", b'{"errors":null}', b'{"manifests":[{}]}']
) | st.binary(max_size=40)  # fmt: skip
STATUS = st.sampled_from(
    [200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 416, 429, 500]
)
REPLIES = st.builds(Reply, STATUS, BODIES, HEADERS, st.sampled_from([None, None, 0, 2]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(REPLIES, min_size=1, max_size=6), st.booleans())
def test_nonsense(fake: FakeRegistry, client: Open, replies: list[Reply], known: bool) -> None:
    """Every operation, against answers of all kinds."""
    order = iter(range(10**9))
    fake.behave = lambda request: replies[next(order) % len(replies)]
    fake.requests.clear()
    registry = client(fake, Credentials(username="me", password=SECRET) if known else None, limits=IMPATIENT)
    artifact = manifest_of(artifact_of("x/y", b"{}"), BLOB)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "blob")
        path.write_bytes(DATA)
        for work in (
            lambda: registry.manifest("a/b", "1"),
            lambda: registry.find("a/b", BLOB.digest),
            lambda: registry.put_manifest("a/b", "1", artifact, MANIFEST),
            lambda: registry.has_blob("a/b", BLOB.digest),
            lambda: registry.blob("a/b", BLOB),
            lambda: registry.download("a/b", BLOB, Path(folder, "got")),
            lambda: registry.upload("a/b", path, BLOB),
            lambda: registry.mount("a/b", BLOB.digest, "c/d"),
            lambda: list(zip(registry.tags("a/b"), range(5), strict=False)),
            lambda: registry.referrers("a/b", BLOB.digest, "x/y"),
            lambda: registry.put_referrer("a/b", artifact, BLOB),
            registry.check_login,
        ):
            with suppress(RegistryError):
                work()
        got = Path(folder, "got")  # what a part is of can be told when it is whole
        assert not got.exists() or got.stat().st_size < len(DATA) or got.read_bytes() == DATA
    assert len(fake.requests) < 400


@pytest.mark.parametrize(
    "reply", [Reply(200, b"x", {"Content-Length": "1" * 500}), Reply(200, b"x" * 70_000, {"X" * 70_000: "x"})]
)
def test_headers_without_end(fake: FakeRegistry, client: Open, reply: Reply) -> None:
    """Are the registry's mistake."""
    fake.behave = lambda request: reply
    with pytest.raises(RegistryError):
        client(fake, limits=IMPATIENT).manifest("a/b", "1")
