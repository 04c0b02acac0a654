"""The client against registries that break, lie and attack: a clear error, no wrong byte kept, no secret shown."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.registry import FakeRegistry, Reply, Request, digest_of
from fakes.registry import registry as running_registry

from mlbox.errors import RegistryError
from mlbox.http import Limits
from mlbox.oci.digest import Digest
from mlbox.oci.image import CONFIG, INDEX, LAYER_TAR, MANIFEST, Descriptor
from mlbox.registry import upload
from mlbox.registry.client import Registry
from mlbox.registry.credentials import Credentials

Open = Callable[..., Registry]
Behave = Callable[[Request], Reply | None]

REPOSITORY = "team/bert"
DATA = bytes(range(256)) * 400
BLOB = Descriptor(media_type=LAYER_TAR, digest=Digest(digest_of(DATA)), size=len(DATA))
OTHER = "sha256:" + "0" * 64
SECRET = "open-sesame-4711"
ME = Credentials(username="me", password=SECRET)
HASTY = Limits(connect=5, read=0.3, attempts=3, most=12, unreachable=2)
WAITED_FOR = ("stopped answering", "tried|bytes, expected")
TOO_LARGE = b'{"schemaVersion":2,"x":"' + b"x" * (4 << 20) + b'"}'


def always(reply: Reply, part: str = "/blobs/") -> Behave:
    """Answer whatever has `part` in its path with `reply`."""
    return lambda request: reply if part in request.path else None


def errors(*problems: dict[str, object], status: int = 400) -> Reply:
    """Return an answer in the registry's form."""
    return Reply(status, json.dumps({"errors": problems}).encode())


DOWNLOADS: list[tuple[str, Behave, str]] = [
    ("wrong bytes", always(Reply(200, bytes(len(DATA)))), "has sha256 .* expected"),
    ("too few, whole answer", always(Reply(200, DATA[:100])), "has 100 bytes, expected"),
    ("too many", always(Reply(200, DATA + b"x")), "bytes, expected"),
    ("length lies, too small", always(Reply(200, DATA, {"Content-Length": "10"})), "has 10 bytes"),
    ("length lies, too large", always(Reply(200, DATA, {"Content-Length": "9" * 15})), "bytes, expected"),
    ("no end", always(Reply(200, DATA * 2, {"Transfer-Encoding": "x", "Content-Length": ""}, cut=-1)), "expected"),
    ("breaks every time", always(Reply(200, DATA, cut=5)), "tried"),
    ("stalls", always(Reply(200, DATA, cut=5, stall=True)), "stopped answering"),
    ("500", always(Reply(500)), r"answered 500 \(tried 3 times\)"),
    ("429", always(errors({"code": "TOOMANYREQUESTS", "message": "slow down"}, status=429)), "429: TOOMANYREQUESTS"),
    ("404", lambda request: None, "404: BLOB_UNKNOWN"),
    ("redirect loop", always(Reply(307, b"", {"Location": "/v2/team/bert/blobs/x"})), "too many redirects"),
    ("redirect to a file", always(Reply(307, b"", {"Location": "file:///etc/passwd"})), "strange address"),
    ("redirect to half an address", always(Reply(307, b"", {"Location": "http://[::1/x"})), "strange address"),
    ("redirect to no port", always(Reply(307, b"", {"Location": "http://a:b/x"})), "strange address"),
    ("redirect with a login", always(Reply(307, b"", {"Location": f"ftp://me:{SECRET}@x/\xe9"})), "strange address"),
    ("odd length", always(Reply(200, DATA, {"Content-Length": "a lot"})), "tried|bytes, expected"),
    ("odd host", always(Reply(307, b"", {"Location": "http://a b\\c/x"})), "not a usable|resolved|strange"),
    ("redirect to nowhere", always(Reply(307, b"", {"Location": "http://127.0.0.1:1/x"})), "nobody accepts"),
    ("redirect without a place", always(Reply(307)), "answered 307"),
    ("other range", always(Reply(206, DATA, {"Content-Range": "bytes 7-9/10"})), "could not resume"),
    ("416 for ever", always(Reply(416)), "could not resume"),
    (
        "words with colours",
        always(errors({"code": "X", "message": "\x1b[31mred\r\n\u202e" + "x" * 999})),
        "X:  ?.?31mred",
    ),
    ("odd errors", always(Reply(400, b'{"errors":[null,7]}')), "answered 400$"),
    ("null words", always(errors({"code": "DENIED", "message": None, "detail": [1]})), "400: DENIED$"),
    ("html", always(Reply(403, b"<html>" * 100_000)), "answered 403$"),
]


@pytest.mark.parametrize(("behave", "words"), [case[1:] for case in DOWNLOADS], ids=[case[0] for case in DOWNLOADS])
def test_downloads(fake: FakeRegistry, client: Open, tmp_path: Path, behave: Behave, words: str) -> None:
    """Clear, soon, and without a wrong byte left behind."""
    fake.behave = behave
    waits = {"limits": HASTY} if words in WAITED_FOR else {}
    with pytest.raises(RegistryError, match=words) as caught:
        client(fake, ME, **waits).download(REPOSITORY, BLOB, tmp_path / "blob", name="layer of torch")

    left = (tmp_path / "blob").read_bytes() if (tmp_path / "blob").exists() else b""
    assert DATA.startswith(left)
    assert left or not (tmp_path / "blob").exists()
    text = f"{caught.value.message}{caught.value.hint}"
    assert SECRET not in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert len(text) < 1500


def test_limits_of_docker_hub(fake: FakeRegistry, client: Open) -> None:
    """Who pulls too much is told that a login helps."""
    fake.behave = always(errors({"code": "TOOMANYREQUESTS"}, status=429))
    with pytest.raises(RegistryError, match="TOOMANYREQUESTS") as caught:
        client(fake).blob(REPOSITORY, BLOB)
    assert caught.value.status == 429
    assert f"mlbox login {fake.host}" in str(caught.value.hint)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_passes_is_waited_for(
    fake: FakeRegistry, client: Open, tmp_path: Path, pauses: list[float], status: int
) -> None:
    """Two failures are not the end, and Retry-After is honoured."""
    fake.add_blob(REPOSITORY, DATA)
    fake.fail_first(2, Reply(status, b"", {"Retry-After": "3"}), part="/blobs/")

    client(fake).download(REPOSITORY, BLOB, tmp_path / "blob")

    assert pauses == [3.0, 3.0]


def test_broken_download_goes_on_where_it_broke(fake: FakeRegistry, client: Open, tmp_path: Path) -> None:
    """What arrived is not asked for again."""
    fake.add_blob(REPOSITORY, DATA)
    fake.fail_first(1, Reply(200, DATA, cut=60_000), part="/blobs/")

    client(fake).download(REPOSITORY, BLOB, tmp_path / "blob")

    assert (tmp_path / "blob").read_bytes() == DATA
    assert fake.requests[-1].headers["Range"] == "bytes=60000-"


def manifest(body: object, content_type: str = MANIFEST, headers: dict[str, str] | None = None) -> Behave:
    """Answer with that manifest."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return always(Reply(200, data, {"Content-Type": content_type, **(headers or {})}), "/manifests/")


CONFIGURATION = {"mediaType": CONFIG, "digest": digest_of(b"{}"), "size": 2}
IMAGE = {"schemaVersion": 2, "config": CONFIGURATION, "layers": []}
LIST = {"schemaVersion": 2, "manifests": []}
MANIFESTS: list[tuple[str, Behave, str]] = [
    ("huge", manifest(TOO_LARGE), "more than 4194304 bytes"),
    ("huge, length lies", manifest(TOO_LARGE, headers={"Content-Length": "10"}), "not a manifest"),
    ("no JSON", manifest(b"<html>"), "not a manifest"),
    ("no object", manifest([]), "not a manifest"),
    ("deep", manifest(b"[" * 100_000), "not a manifest"),
    ("neither", manifest({"schemaVersion": 2}, "text/plain"), "neither a manifest nor an index"),
    ("both", manifest(IMAGE | LIST), "at once"),
    ("index in words, image in shape", manifest(IMAGE | {"mediaType": INDEX}), "is said to be"),
    ("index in the header, image in shape", manifest(IMAGE, INDEX), "is said to be"),
    ("image in words, index in the header", manifest(IMAGE | {"mediaType": MANIFEST}, INDEX), "is said to be"),
    ("schema 1", manifest({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
    ("other digest in the header", manifest(IMAGE, headers={"Docker-Content-Digest": BLOB.digest}), "with digest"),
    ("401 without a word", always(Reply(401), "/manifests/"), "answered 401"),
    ("401 with nonsense", always(Reply(401, b"", {"WWW-Authenticate": '",,=\t"'}), "/manifests/"), "answered 401"),
    ("401 Negotiate", always(Reply(401, b"", {"WWW-Authenticate": "Negotiate"}), "/manifests/"), "answered 401"),
    ("401 Basic for ever", always(Reply(401, b"", {"WWW-Authenticate": "Basic"}), "/manifests/"), "answered 401"),
    (
        "401 Bearer to nowhere",
        always(Reply(401, b"", {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/t"'}), "/manifests/"),
        "nobody accepts",
    ),
    (
        "401 Bearer to half an address",
        always(Reply(401, b"", {"WWW-Authenticate": 'Bearer realm="http://[::1"'}), "/manifests/"),
        "strange token server",
    ),
    (
        "401 Bearer to a file",
        always(Reply(401, b"", {"WWW-Authenticate": 'Bearer realm="file:///etc/passwd"'}), "/manifests/"),
        "strange token server",
    ),
]


@pytest.mark.parametrize("credentials", [ME, None], ids=["known", "anonymous"])
@pytest.mark.parametrize(("behave", "words"), [case[1:] for case in MANIFESTS], ids=[case[0] for case in MANIFESTS])
def test_manifests(
    fake: FakeRegistry, client: Open, credentials: Credentials | None, behave: Behave, words: str
) -> None:
    """What is no manifest, or two things at once, is refused."""
    fake.behave = behave
    with pytest.raises(RegistryError, match=words) as caught:
        client(fake, credentials).manifest(REPOSITORY, "1")
    assert SECRET not in f"{caught.value.message}{caught.value.hint}"
    assert len(fake.requests) < 10


def test_manifest_by_digest_is_compared(fake: FakeRegistry, client: Open) -> None:
    """Other bytes than those asked for are never returned, whatever the header says."""
    body = json.dumps(IMAGE).encode()
    fake.behave = manifest(body, headers={"Docker-Content-Digest": BLOB.digest})
    with pytest.raises(RegistryError, match=f"{digest_of(body)}, expected {BLOB.digest}"):
        client(fake).manifest(REPOSITORY, BLOB.digest)


def test_find_does_not_believe_another_digest(fake: FakeRegistry, client: Open) -> None:
    """HEAD for a digest that answers with another one is an error."""
    fake.behave = manifest(IMAGE, headers={"Docker-Content-Digest": BLOB.digest})
    with pytest.raises(RegistryError, match="answers with"):
        client(fake).find(REPOSITORY, "sha256:" + "0" * 64)


@pytest.mark.parametrize("size", [0, 5])
def test_small_blobs_are_verified(fake: FakeRegistry, client: Open, size: int) -> None:
    """`blob` returns what was asked for or nothing; of a lying size it reads no more."""
    fake.behave = always(Reply(200, DATA[:size] + b"x"))
    wanted = Descriptor(media_type=CONFIG, digest=Digest(digest_of(DATA[:size])), size=size)
    with pytest.raises(RegistryError, match=r"more than|with digest"):
        client(fake).blob(REPOSITORY, wanted)
    with pytest.raises(RegistryError, match="more than 10"):
        client(fake).blob(REPOSITORY, BLOB, 10)


# Uploads


@pytest.fixture
def chunked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A blob that goes in four chunks."""
    monkeypatch.setattr(upload, "CHUNK", len(DATA) // 4 + 1)
    (tmp_path / "blob").write_bytes(DATA)
    return tmp_path / "blob"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A blob that goes in one piece."""
    (tmp_path / "blob").write_bytes(DATA)
    return tmp_path / "blob"


def test_upload_goes_on_where_it_broke(fake: FakeRegistry, client: Open, chunked: Path) -> None:
    """The registry is asked what arrived, and only the rest is sent."""
    broken: list[int] = []

    def behave(request: Request) -> Reply | None:
        if request.method == "PATCH" and request.headers["Content-Range"].startswith("25601") and not broken:
            broken.append(1)
            (session,) = fake.uploads
            fake.uploads[session] += DATA[25601:30000]  # a part of the chunk arrived
            return Reply(503, cut=0)
        return None

    fake.behave = behave
    client(fake).upload(REPOSITORY, chunked, BLOB)

    assert fake.blobs[REPOSITORY][BLOB.digest] == DATA
    assert [
        request.headers["Content-Range"].partition("-")[0] for request in fake.requests if request.method == "PATCH"
    ] == [
        "0",
        "25601",
        "30000",
        "55601",
        "81202",
    ]


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "GET"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_uploads_try_again(fake: FakeRegistry, client: Open, chunked: Path, method: str, status: int) -> None:
    """Whatever fails for a while does not fail the upload."""
    fake.fail_first(2, Reply(status), method)
    client(fake).upload(REPOSITORY, chunked, BLOB)
    assert fake.blobs[REPOSITORY][BLOB.digest] == DATA


def test_upload_in_one_piece_tries_again(fake: FakeRegistry, client: Open, whole: Path) -> None:
    """From the start, with the whole body."""
    fake.fail_first(1, Reply(502), "PUT")
    client(fake).upload(REPOSITORY, whole, BLOB)
    assert fake.blobs[REPOSITORY][BLOB.digest] == DATA


def test_lost_last_word_is_not_a_lost_upload(fake: FakeRegistry, client: Open, chunked: Path) -> None:
    """When the registry has the blob but its answer was lost, nothing is sent again."""

    def behave(request: Request) -> Reply | None:
        if request.method == "PUT" and REPOSITORY not in fake.blobs:
            fake.add_blob(REPOSITORY, DATA)
            fake.uploads.clear()
            return Reply(504)
        return None

    fake.behave = behave
    client(fake).upload(REPOSITORY, chunked, BLOB)
    assert len(fake.paths("POST")) == 1


def test_forgotten_upload_begins_again(fake: FakeRegistry, client: Open, chunked: Path) -> None:
    """A registry that restarted knows no upload; a new one is opened."""
    forgot: list[int] = []

    def behave(request: Request) -> Reply | None:
        if request.method == "PATCH" and len(fake.paths("PATCH")) == 2 and not forgot:
            forgot.append(1)
            fake.uploads.clear()
            return Reply(500)
        return None

    fake.behave = behave
    client(fake).upload(REPOSITORY, chunked, BLOB)
    assert fake.blobs[REPOSITORY][BLOB.digest] == DATA
    assert len(fake.paths("POST")) == 2


@pytest.mark.parametrize("status", [400, 404, 405, 411, 416, 501])
def test_registries_without_chunks_get_one_piece(fake: FakeRegistry, client: Open, chunked: Path, status: int) -> None:
    """Where PATCH is refused, the blob goes in one PUT."""
    fake.behave = lambda request: Reply(status) if request.method == "PATCH" else None
    client(fake).upload(REPOSITORY, chunked, BLOB)
    assert fake.blobs[REPOSITORY][BLOB.digest] == DATA
    assert len(fake.paths("PATCH")) == (3 if status == 416 else 1)


def test_proxies_that_limit_bodies_get_chunks(fake: FakeRegistry, client: Open, tmp_path: Path) -> None:
    """413 to a blob in one piece: it goes in chunks."""
    data = bytes(3 << 20)
    (tmp_path / "blob").write_bytes(data)
    fake.behave = lambda request: Reply(413) if int(request.headers.get("Content-Length", 0)) > 2 << 20 else None
    descriptor = Descriptor(media_type=LAYER_TAR, digest=Digest(digest_of(data)), size=len(data))
    client(fake).upload(REPOSITORY, tmp_path / "blob", descriptor)
    assert fake.blobs[REPOSITORY][descriptor.digest] == data


UPLOADS: list[tuple[str, Behave, str]] = [
    ("no place", lambda request: Reply(202) if request.method == "POST" else None, "does not say where"),
    (
        "strange place",
        lambda request: Reply(202, b"", {"Location": "gopher://x/"}) if request.method == "POST" else None,
        "strange address",
    ),
    (
        "takes nothing",
        lambda request: Reply(202, b"", {"Range": "0-0"}) if request.method == "PATCH" else None,
        "took nothing",
    ),
    (
        "refuses",
        lambda request: errors({"code": "DENIED"}, status=403) if request.method == "POST" else None,
        "403: DENIED",
    ),
    ("broken disk", lambda request: Reply(500) if request.method == "PUT" else None, "answered 500"),
    (
        "other digest",
        lambda request: (
            Reply(201, b"", {"Docker-Content-Digest": "sha256:" + "0" * 64}) if request.method == "PUT" else None
        ),
        "stored it as",
    ),
    (
        "bad digest",
        lambda request: errors({"code": "DIGEST_INVALID"}) if request.method == "PUT" else None,
        "DIGEST_INVALID",
    ),
    (
        "redirects",
        lambda request: Reply(307, b"", {"Location": "/x"}) if request.method == "POST" else None,
        "too many redirects",
    ),
]


@pytest.mark.parametrize(("behave", "words"), [case[1:] for case in UPLOADS], ids=[case[0] for case in UPLOADS])
def test_uploads_end(fake: FakeRegistry, client: Open, chunked: Path, behave: Behave, words: str) -> None:
    """Refusals are told, and endless ones end."""
    fake.behave = behave
    with pytest.raises(RegistryError, match=words) as caught:
        client(fake, ME).upload(REPOSITORY, chunked, BLOB)
    assert SECRET not in f"{caught.value.message}{caught.value.hint}"
    assert len(fake.requests) < 40


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_upload_stalls(
    fake: FakeRegistry, client: Open, whole: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A registry that never answers is given up."""
    monkeypatch.setattr(upload, "PATIENCE", 0.4)
    fake.behave = lambda request: Reply(202, b"x", cut=0, stall=True) if request.method == method else None
    with pytest.raises(RegistryError, match=r"stopped answering|connection broke"):
        client(fake, limits=HASTY).upload(REPOSITORY, whole, BLOB)


# Lists


def test_page_of_another_host(fake: FakeRegistry, client: Open) -> None:
    """A list does not lead the login elsewhere."""
    link = {"Link": '<https://evil.example/v2/x/tags/list>; rel="next"'}
    fake.behave = always(Reply(200, b'{"tags":["a"]}', link), "/tags/")
    with pytest.raises(RegistryError, match="another host"):
        list(client(fake, ME).tags(REPOSITORY))


def test_page_at_half_an_address(fake: FakeRegistry, client: Open) -> None:
    """A link that is no address is an error, not a bug."""
    fake.behave = always(Reply(200, b'{"tags":["a"]}', {"Link": '<http://[::1>; rel="next"'}), "/tags/")
    with pytest.raises(RegistryError, match="strange address"):
        list(client(fake).tags(REPOSITORY))


def test_pages_in_a_circle(fake: FakeRegistry, client: Open) -> None:
    """A page that links back ends the list."""
    link = {"Link": f'</v2/{REPOSITORY}/tags/list?n=1000>; rel="next"'}
    fake.behave = always(Reply(200, b'{"tags":["a"]}', link), "/tags/")
    with pytest.raises(RegistryError, match="links back"):
        list(client(fake).tags(REPOSITORY))


def test_endless_pages(fake: FakeRegistry, client: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of pages is bounded."""
    monkeypatch.setattr("mlbox.registry.listing._MOST_PAGES", 20)
    count = iter(range(10**6))

    def behave(request: Request) -> Reply | None:
        link = {"Link": f'</v2/{REPOSITORY}/tags/list?last={next(count)}>; rel="next"'}
        return Reply(200, b'{"tags":[]}', link) if "/tags/" in request.path else None

    fake.behave = behave
    with pytest.raises(RegistryError, match="more than 20 pages"):
        list(client(fake).tags(REPOSITORY))


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>", {"Content-Type": "text/html"}),
        Reply(404, b"404 page not found"),
        Reply(405),
        Reply(400, b"{}"),
    ],
)
def test_registries_without_referrers(fake: FakeRegistry, client: Open, reply: Reply) -> None:
    """Whatever they say, the index under the tag is looked at."""
    fake.behave = always(reply, "/referrers/")
    assert client(fake).referrers(REPOSITORY, BLOB.digest) == ()
    assert fake.paths()[-1].endswith(f"/manifests/sha256-{BLOB.digest[7:]}")


@pytest.mark.parametrize("body", [b"{", b'{"manifests":[{"digest":"x"}]}', b'{"manifests":7}'])
def test_broken_referrers(fake: FakeRegistry, client: Open, body: bytes) -> None:
    """Nonsense in a list of referrers is an error."""
    fake.behave = always(Reply(200, body, {"Content-Type": INDEX}), "/referrers/")
    with pytest.raises(RegistryError, match="referrers"):
        client(fake).referrers(REPOSITORY, BLOB.digest)


def test_unreachable(client: Open) -> None:
    """Nobody there: said soon, with the host."""
    with running_registry() as gone:
        pass
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1.*nobody accepts connections"):
        client(gone).manifest(REPOSITORY, "1")


def test_offline(fake: FakeRegistry, client: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLBOX_OFFLINE asks nobody."""
    monkeypatch.setenv("MLBOX_OFFLINE", "1")
    with pytest.raises(RegistryError, match="offline"):
        client(fake).manifest(REPOSITORY, "1")
    assert fake.requests == []
