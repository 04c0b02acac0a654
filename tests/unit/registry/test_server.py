"""The store as a registry: what is answered, to whom, and what a bad client can do."""

import asyncio
import base64
import hashlib
import http.client
import json
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fakes.trees import make_image, make_layer

from mlbox.errors import StoreError, UsageError
from mlbox.oci.artifact import LOCK_TYPE, artifact_of, subject_of
from mlbox.oci.digest import DiffID, digest_of
from mlbox.oci.image import Image
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.registry import server
from mlbox.registry.access import Options, is_loopback, may_enter, names_this_machine, options_of
from mlbox.registry.answers import Request, answer
from mlbox.store.gc import prune
from mlbox.store.store import Store

TOKEN = "a-token-of-sufficient-length"
BIG = 30_000_000


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with an image of a small and a large layer, and its lock."""
    store = Store(Home(tmp_path_factory.mktemp("home")))
    files = {f"lib/{n}": bytes([n]) * 1000 for n in range(100)} | {"lib/big": b"2" * BIG}
    image = make_image(store, make_layer(store, "one", {"bin/x": b"1"}), make_layer(store, "two", files))
    for name in ("me/bert:1", "bert", "gpu01:5000/team/bert:1", "gpu01:5000/me/bert:2"):
        store.images.tag(image.digest, parse_reference(name))
    store.referrers.add(artifact_of(LOCK_TYPE, b"lock"), subject_of(image.digest, image.manifest_bytes))
    yield store
    store.close()


@pytest.fixture
def image(filled: Store) -> Image:
    return filled.images.load(filled.images.resolve("me/bert:1"))


@pytest.fixture
def big(image: Image) -> str:
    return image.manifest.layers[1].digest


class Running(NamedTuple):
    port: int
    lines: list[str]


@contextmanager
def running(store: Store, **options: Any) -> Iterator[Running]:
    """Serve `store` from a thread of its own."""
    lines: list[str] = []
    ready: list[Any] = []
    started = threading.Event()

    async def main() -> None:
        stop = asyncio.Event()
        async with server.serving(store, Options(**{"host": "127.0.0.1", "port": 0, **options}), lines.append) as port:
            ready[:] = [port, asyncio.get_running_loop(), stop]
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert started.wait(10)
    port, loop, stop = ready
    try:
        yield Running(port, lines)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def up(filled: Store) -> Iterator[Running]:
    with running(filled) as found:
        yield found


def ask(up: Running, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=30)
    try:
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def code(body: bytes) -> str:
    return str(json.loads(body)["errors"][0]["code"])


def test_an_image_is_pulled(up: Running, image: Image) -> None:
    """By tag and by digest the manifest is the store's own; every blob is what its digest says."""
    for reference in ("1", image.digest):
        status, headers, body = ask(up, f"/v2/me/bert/manifests/{reference}")
        assert (status, body) == (200, image.manifest_bytes)
        assert headers["docker-content-digest"] == image.digest
        assert headers["content-type"] == "application/vnd.oci.image.manifest.v1+json"
    for part in (image.manifest.config, *image.manifest.layers):
        status, headers, body = ask(up, f"/v2/me/bert/blobs/{part.digest}")
        assert (status, len(body), digest_of(body)) == (200, part.size, part.digest)


def test_heads_have_no_body(up: Running, image: Image, big: str) -> None:
    """They say size and digest, and make no layer."""
    for path, size in ((f"manifests/{image.digest}", len(image.manifest_bytes)), (f"blobs/{big}", None)):
        status, headers, body = ask(up, f"/v2/me/bert/{path}", "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) == (size or image.manifest.layers[1].size)
        assert headers["docker-content-digest"] == path.partition("/")[2]


def test_a_connection_is_used_again(up: Running, image: Image) -> None:
    """Requests follow each other on one connection, also after a HEAD, an error and a part of a blob."""
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=30)
    connection.connect()
    first = connection.sock
    for method, path in (("GET", "/v2/"), ("HEAD", "/v2/me/bert/manifests/1"), ("GET", "/v2/no/such/tags/list")) * 2:
        connection.request(method, path)
        connection.getresponse().read()
    assert connection.sock is first
    connection.close()


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-1048576", 0, 1 << 20),
        ("bytes=51300-", 51300, None),
        ("bytes=20000000-20000999", 20_000_000, 20_000_999),
        ("bytes=20000000-99999999999", 20_000_000, None),
        ("bytes=-700", -700, None),
        ("bytes=-99999999999", 0, None),
    ],
)
def test_a_part_of_a_blob(
    up: Running, filled: Store, image: Image, big: str, asked: str, first: int, last: int | None
) -> None:
    """A download goes on where it stopped: the bytes are those of the whole."""
    whole = b"".join(bytes(chunk) for chunk in filled.layers.tar(DiffID(big)))
    wanted = whole[first : None if last is None else last + 1]
    status, headers, body = ask(up, f"/v2/me/bert/blobs/{big}", Range=asked)

    assert status == 206
    assert hashlib.sha256(body).digest() == hashlib.sha256(wanted).digest()
    start = first % len(whole)
    assert headers["content-range"] == f"bytes {start}-{start + len(wanted) - 1}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-", "bytes=0-1,3-4", "lines=1-2", "bytes=0-" + "9" * 5000, "x"])
def test_ranges_that_are_none_are_ignored(filled: Store, image: Image, asked: str) -> None:
    """HTTP has it so: the whole is the right answer to a range that cannot be read."""
    part = image.manifest.layers[0]
    found = answer(filled, Request(method="GET", path=f"/v2/me/bert/blobs/{part.digest}", range=asked))
    assert (found.status, found.start, found.length) == (200, 0, part.size)


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=2560-9999", "bytes=-0"])
def test_ranges_behind_the_end(filled: Store, image: Image, asked: str) -> None:
    """There is nothing to send, and the client learns the size."""
    part = image.manifest.layers[0]
    found = answer(filled, Request(method="GET", path=f"/v2/me/bert/blobs/{part.digest}", range=asked))
    assert (found.status, found.headers["Content-Range"]) == (416, f"bytes */{part.size}")


def get(store: Store, path: str, query: str = "") -> Any:
    found = answer(store, Request(method="GET", path=path, query=query))
    return json.loads(found.body) if found.status == 200 else found.status


def test_names_are_served_under_their_path(filled: Store, image: Image) -> None:
    """Without the registry; 'bert' is also docker.io's library/bert; a name that says less wins over a longer one."""
    assert get(filled, "/v2/_catalog") == {"repositories": ["bert", "me/bert", "team/bert"]}
    assert get(filled, "/v2/me/bert/tags/list") == {"name": "me/bert", "tags": ["1", "2"]}
    assert get(filled, "/v2/team/bert/tags/list") == {"name": "team/bert", "tags": ["1"]}
    for repository in ("bert", "library/bert"):
        found = answer(filled, Request(method="GET", path=f"/v2/{repository}/manifests/latest"))
        assert found.headers["Docker-Content-Digest"] == image.digest
    other = make_image(filled, make_layer(filled, "three", {"x": b""}))
    filled.images.tag(other.digest, parse_reference("gpu01:5000/me/bert:1"))
    found = answer(filled, Request(method="GET", path="/v2/me/bert/manifests/1"))
    assert found.headers["Docker-Content-Digest"] == image.digest
    filled.images.untag("gpu01:5000/me/bert:1")


def test_lists_come_in_pages(filled: Store) -> None:
    """As many as asked for, and where the next ones are."""
    request = Request(method="GET", path="/v2/_catalog", query="n=2")
    assert json.loads(answer(filled, request).body)["repositories"] == ["bert", "me/bert"]
    assert answer(filled, request).headers["Link"] == '</v2/_catalog?n=2&last=me%2Fbert>; rel="next"'
    assert get(filled, "/v2/_catalog", "n=2&last=me%2Fbert") == {"repositories": ["team/bert"]}
    assert get(filled, "/v2/_catalog", "n=0") == {"repositories": []}
    for odd in ("n=-1", "n=x", "n=" + "9" * 100, "&" * 500, "last=%ff", "n=1000000"):
        assert "repositories" in get(filled, "/v2/_catalog", odd)


def test_referrers(filled: Store, image: Image) -> None:
    """The lock is found and can be fetched; a filter says that it was applied; an unknown subject has none."""
    (found,) = get(filled, f"/v2/me/bert/referrers/{image.digest}")["manifests"]
    assert found["artifactType"] == LOCK_TYPE
    manifest = answer(filled, Request(method="GET", path=f"/v2/me/bert/manifests/{found['digest']}"))
    assert digest_of(manifest.body) == found["digest"]
    body = answer(filled, Request(method="GET", path=f"/v2/me/bert/blobs/{digest_of(b'lock')}"))
    assert body.part and b"".join(bytes(c) for c in body.part.open(2)) == b"ck"
    filtered = Request(
        method="GET", path=f"/v2/me/bert/referrers/{image.digest}", query="artifactType=application%2Fother"
    )
    assert json.loads(answer(filled, filtered).body)["manifests"] == []
    assert answer(filled, filtered).headers["OCI-Filters-Applied"] == "artifactType"
    assert get(filled, f"/v2/me/bert/referrers/{digest_of(b'?')}")["manifests"] == []


def test_only_what_a_repository_holds(filled: Store, image: Image) -> None:
    """An image without a name, or with one elsewhere, is not there, whoever knows its digests."""
    hidden = make_image(filled, make_layer(filled, "hidden", {"secret": b"1"}))
    filled.images.tag(hidden.digest, parse_reference("secret/x:1"))
    for digest in (hidden.digest, hidden.manifest.config.digest, hidden.manifest.layers[0].digest):
        assert get(filled, f"/v2/me/bert/blobs/{digest}") == 404
        assert get(filled, f"/v2/me/bert/manifests/{digest}") == 404
    filled.images.untag("secret/x:1")
    assert get(filled, f"/v2/secret/x/manifests/{hidden.digest}") == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/v1/", 404),
        ("/v2/me/bert", 404),
        ("/v2/me/bert/", 404),
        ("/v2//manifests/1", 404),
        ("/v2/me/bert/manifests/2", 200),
        ("/v2/me%2fbert/manifests/1", 404),
        ("/v2/me/bert/manifests/..%2f..%2fmlbox.db", 404),
        ("/v2/../../../etc/passwd", 404),
        ("/v2/me/bert/blobs/../../../../mlbox.db", 404),
        ("/v2/me/bert/blobs/..%2f..%2fmlbox.db", 400),
        ("/v2/me/bert/blobs/sha256:" + "0" * 63, 400),
        ("/v2/me/bert/blobs/sha256:" + "A" * 64, 400),
        ("/v2/me/bert/blobs/sha256:" + "0" * 64, 404),
        ("/v2/me/bert/blobs/sha512:" + "0" * 128, 400),
        ("/v2/me/bert/blobs/uploads/", 404),
        ("/v2/me/bert/referrers/latest", 400),
        ("/v2/me/bert/tags/other", 400),
        ("/v2/" + "a/" * 3000 + "tags/list", 404),
        ("/v2/me/bert%00/tags/list", 404),
        ("/V2/me/bert/tags/list", 404),
    ],
)
def test_paths(up: Running, path: str, status: int) -> None:
    """Nothing in a path is decoded or followed; errors are those of the specification."""
    found, _, body = ask(up, path)
    assert found == status
    assert status == 200 or code(body) in ("NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "DIGEST_INVALID")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_nothing_is_written(up: Running, method: str) -> None:
    """Every method but GET and HEAD is refused."""
    status, headers, body = ask(up, "/v2/me/bert/manifests/1", method)
    assert status in (400, 405)  # the parser does not know all of them
    assert status == 400 or (code(body), headers["allow"]) == ("UNSUPPORTED", "GET, HEAD")


def raw(up: Running, data: bytes, wait: float = 10) -> bytes:
    """Send `data` and return all that comes until the server closes, or nothing more for `wait` seconds."""
    received = b""
    with socket.create_connection(("127.0.0.1", up.port), timeout=wait) as connection:
        try:
            connection.sendall(data)
            while chunk := connection.recv(1 << 16):
                received += chunk
        except (TimeoutError, ConnectionError):
            pass
    return received


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01" + bytes(300),
        b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\r\n\r\n\r\nnonsense\r\n\r\n",
    ],
)
def test_bad_requests_are_refused(up: Running, data: bytes) -> None:
    """Whatever is no request, or a huge one, gets an error and no more."""
    assert raw(up, data, 3).split(b" ")[1:2] == [b"400"]
    assert ask(up, "/v2/")[0] == 200


def test_a_body_is_not_read(up: Running) -> None:
    """What a client sends along is nothing to us, and is not taken for the next request."""
    smuggled = b"GET /v2/_catalog HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    assert raw(up, head + smuggled, 3).count(b"HTTP/1.1") == 1
    assert raw(up, head.replace(b"GET", b"POST") + smuggled, 3).count(b"HTTP/1.1") == 1


def test_headers_must_come_in_time(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends them a byte at a time, or none, is left; the others do not notice."""
    monkeypatch.setattr(server, "IDLE", 0.5)
    with running(filled) as up, socket.create_connection(("127.0.0.1", up.port), timeout=10) as slow:
        with pytest.raises(ConnectionError):
            for byte in b"GET /v2/ HTTP/1.1\r\nX-Slow: " + b"a" * 2000:
                slow.send(bytes([byte]))
                time.sleep(0.05)
                slow.setblocking(False)
                try:
                    if slow.recv(10) == b"":
                        raise ConnectionResetError
                except BlockingIOError:
                    pass
                slow.setblocking(True)
        assert ask(up, "/v2/")[0] == 200


def test_connections_are_limited(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is closed at once; when another goes there is room again."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 5)
    with running(filled) as up:
        held = [socket.create_connection(("127.0.0.1", up.port), timeout=10) for _ in range(5)]
        for connection in held:
            connection.sendall(b"HEAD /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert raw(up, b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
        for connection in held:
            connection.close()
        assert within(120, lambda: raw(up, b"HEAD /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 1) != b"")


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@contextmanager
def slow_download(up: Running, digest: str) -> Iterator[socket.socket]:
    """Begin to download a blob, and read only its first bytes."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", up.port))
        connection.sendall(f"GET /v2/me/bert/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(10).startswith(b"HTTP/1.1")
        yield connection


def test_prune_waits_for_downloads(filled: Store, image: Image, big: str, up: Running) -> None:
    """What is being sent stays; the store is free again as soon as the client is gone."""
    with slow_download(up, big), pytest.raises(StoreError, match="another mlbox"):
        prune(filled, "unused")
    assert within(120, lambda: free(filled))
    assert filled.layers.has(DiffID(big))
    assert within(120, lambda: any(big in line and line.split()[-2] == "200" for line in up.lines))


def free(store: Store) -> bool:
    with store.alone() as alone:
        return alone


def test_a_client_that_stands_still_is_left(filled: Store, big: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot hold what it was given for ever."""
    monkeypatch.setattr(server, "STALLED", 0.5)
    with running(filled) as up, slow_download(up, big):
        assert not free(filled)
        assert within(120, lambda: free(filled))


def test_slow_clients_do_not_hold_up_others(up: Running, image: Image, big: str) -> None:
    """Forty that read nothing, and one that does."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(slow_download(up, big))
        assert len(ask(up, f"/v2/me/bert/blobs/{big}")[2]) == image.manifest.layers[1].size


def test_twenty_clients_at_once(up: Running, big: str) -> None:
    """All get the same bytes."""
    with ThreadPoolExecutor(20) as pool:
        bodies = list(pool.map(lambda _: digest_of(ask(up, f"/v2/me/bert/blobs/{big}")[2]), range(20)))
    assert bodies == [big] * 20


def test_more_than_may_stream_wait_their_turn(filled: Store, big: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is refused for others being first."""
    monkeypatch.setattr(server, "MAX_STREAMS", 2)
    with running(filled) as up, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: digest_of(ask(up, f"/v2/me/bert/blobs/{big}")[2]), range(8))) == {big}


def test_a_layer_that_was_damaged_is_not_taken_for_whole(tmp_path: Path) -> None:
    """A file that became shorter breaks the download off; the rest is served on."""
    store = Store(Home(tmp_path))
    image = make_image(store, make_layer(store, "one", {"a": b"1" * 3_000_000, "b": b"2" * 3_000_000}))
    store.images.tag(image.digest, parse_reference("me/bert:1"))
    layer = image.manifest.layers[0].digest
    (store.layers.root(DiffID(layer)) / "b").write_bytes(b"short")
    with running(store) as up:
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            ask(up, f"/v2/me/bert/blobs/{layer}")
        assert ask(up, "/v2/me/bert/manifests/1")[0] == 200
        store.layers.delete(DiffID(layer))
        assert ask(up, f"/v2/me/bert/blobs/{layer}")[0] == 500
        store.content.path(image.digest).write_bytes(b"{}")
        status, _, body = ask(up, "/v2/me/bert/manifests/1")
        assert (status, code(body)) == (500, "UNKNOWN")
        assert str(tmp_path).encode() not in body
    store.close()


def test_who_may_enter() -> None:
    """The token is a bearer's, or the password of any user; nothing else opens."""
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    for good in (f"Bearer {TOKEN}", f"bearer  {TOKEN}", f"Basic {basic}"):
        assert may_enter(good, TOKEN)
    wrong = base64.b64encode(f"{TOKEN}:".encode()).decode()
    for bad in ("", "Bearer", "Bearer ", f"Bearer {TOKEN}x", TOKEN, f"Basic {wrong}", "Basic !", f"Digest {TOKEN}"):
        assert not may_enter(bad, TOKEN)


def test_a_token_is_asked_for_and_never_said(filled: Store) -> None:
    """Without it there is nothing to see, not even which repositories there are; it stands in no line of the log."""
    with running(filled, token=TOKEN) as up:
        for headers in ({}, {"Authorization": "Bearer wrong-token"}):
            for path in ("/v2/", "/v2/_catalog", "/v2/me/bert/manifests/1", "/v2/no/such/tags/list"):
                status, found, body = ask(up, path, **headers)
                assert (status, code(body)) == (401, "UNAUTHORIZED")
                assert found["www-authenticate"] == 'Basic realm="mlbox"'
        assert ask(up, "/v2/_catalog", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert len(up.lines) == 9
    assert TOKEN not in "".join(up.lines)


def test_a_page_in_a_browser_cannot_read(up: Running) -> None:
    """Its own name may mean 127.0.0.1; without a token only this machine's names are answered."""
    assert ask(up, "/v2/", Host=f"evil.example:{up.port}")[0] == 403
    for good in ("localhost", f"127.0.0.1:{up.port}", "[::1]:5000", "127.1.2.3"):
        assert names_this_machine(good)
    for bad in ("evil.example", "localhost.evil.example:80", "192.168.0.1", "[::2]", "0x7f.1"):
        assert not names_this_machine(bad)


def test_log_lines_are_lines(up: Running) -> None:
    """Method, path, status, bytes; a path cannot make a line of its own, nor its query enter the log."""
    ask(up, "/v2/?token=secret")
    raw(up, b"GET /v2/\xff\x1b[31m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 2)
    assert within(120, lambda: bool(up.lines))
    assert up.lines[0] == "127.0.0.1 GET /v2/ 200 2"
    assert all(line.isascii() and line.isprintable() for line in up.lines)


def test_options(tmp_path: Path) -> None:
    """Other machines need a token; one that is not there is made, for its owner alone."""
    assert options_of("127.0.0.1", environment={}).url(5000) == "http://127.0.0.1:5000"
    assert options_of("[::1]:99", environment={}).url(99) == "http://[::1]:99"
    assert options_of("::1", environment={}).port == 5000
    for stranger in ("0.0.0.0:5000", "[::]:5000", "192.168.0.1"):
        with pytest.raises(UsageError, match="other machines") as caught:
            options_of(stranger, environment={})
        assert "--token-file" in str(caught.value.hint)
    made = options_of("0.0.0.0:5000", token_file=tmp_path / "token", environment={}).token
    assert len(made) > 40
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert options_of("0.0.0.0", token_file=tmp_path / "token", environment={}).token == made
    (tmp_path / "empty").touch(0o644)
    options_of("0.0.0.0", token_file=tmp_path / "empty", environment={})
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o600
    assert options_of("0.0.0.0", environment={"MLBOX_STORE_TOKEN": TOKEN + "\n"}).token == TOKEN
    with pytest.raises(UsageError, match="shorter than"):
        options_of("0.0.0.0", environment={"MLBOX_STORE_TOKEN": "short"})
    with pytest.raises(UsageError, match="cannot"):
        options_of("127.0.0.1", token_file=tmp_path, environment={})
    for bad in ("", ":5000", "127.0.0.1:port", "127.0.0.1:99999"):
        with pytest.raises(UsageError, match="not an address"):
            options_of(bad, environment={})
    with pytest.raises(UsageError, match="both"):
        options_of("127.0.0.1", cert=tmp_path, environment={})
    assert is_loopback("localhost")


def test_a_taken_port_is_said(filled: Store, up: Running) -> None:
    """With its number and what to do."""
    with pytest.raises(UsageError, match=str(up.port)):
        asyncio.run(server.serving(filled, Options(host="127.0.0.1", port=up.port), print).__aenter__())


def test_tls(filled: Store, tmp_path: Path, image: Image, big: str) -> None:
    """With a certificate nothing is said in the clear; a file that is none is named."""
    certify(tmp_path)
    with running(filled, cert=tmp_path / "cert.pem", key=tmp_path / "key.pem", token=TOKEN) as up:
        trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        connection = http.client.HTTPSConnection("localhost", up.port, context=trusting, timeout=30)
        connection.request("GET", f"/v2/me/bert/blobs/{big}", headers={"Authorization": f"Bearer {TOKEN}"})
        assert digest_of(connection.getresponse().read()) == big
        connection.close()
        assert b"HTTP" not in raw(up, b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 2)
    with pytest.raises(UsageError, match=r"key\.pem"):
        options = Options(host="127.0.0.1", port=0, cert=tmp_path / "key.pem", key=tmp_path / "key.pem")
        asyncio.run(server.serving(filled, options, print).__aenter__())


def certify(folder: Path) -> None:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    cert = builder.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
