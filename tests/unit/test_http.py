import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.server import Reply, Request, Server, serving

from mlbox.errors import FetchError
from mlbox.http import Http, HttpError, Limits, redact, redact_text, without_credentials
from mlbox.http.transport import TemporaryError, Transport

DATA = bytes(range(256)) * 4000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.files["/file"] = DATA
        yield running


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "MLBOX_OFFLINE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def http(pauses: list[float]) -> Http:
    return Http(limits=Limits(connect=60, read=60, attempts=3, most=12, unreachable=2), sleep=pauses.append)


def test_get_returns_the_document(server: Server, http: Http) -> None:
    assert http.get(f"{server.url}/file", limit=len(DATA)) == DATA


def test_get_refuses_more_than_the_limit(server: Server, http: Http) -> None:
    with pytest.raises(FetchError, match=f"more than {len(DATA) - 1} bytes"):
        http.get(f"{server.url}/file", limit=len(DATA) - 1)


def test_get_bounds_what_a_compressed_answer_becomes(server: Server, http: Http) -> None:
    import gzip

    body = gzip.compress(bytes(5_000_000))
    server.behave = lambda request: Reply(body, headers={"Content-Encoding": "gzip"})
    with pytest.raises(FetchError, match="more than 100000 bytes"):
        http.get(f"{server.url}/bomb", limit=100_000)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_get_tries_again_what_may_pass(server: Server, http: Http, pauses: list[float], status: int) -> None:
    server.fail_first(2, Reply(status=status))
    assert http.get(f"{server.url}/file", limit=1 << 22) == DATA
    assert len(pauses) == 2
    assert pauses[1] > pauses[0] * 1.1


def test_get_gives_up_after_bounded_tries(server: Server, http: Http) -> None:
    server.behave = lambda request: Reply(status=500)
    with pytest.raises(FetchError, match=r"answered 500 \(tried 3 times\)"):
        http.get(f"{server.url}/file", limit=1 << 22)
    assert len(server.requests) == 3


def test_get_gives_up_on_a_server_that_stalls(server: Server, pauses: list[float]) -> None:
    http = Http(limits=Limits(connect=60, read=0.2, attempts=3), sleep=pauses.append)
    server.behave = lambda request: Reply(DATA, cut=10, stall=True)
    with pytest.raises(FetchError, match="stopped answering"):
        http.get(f"{server.url}/file", limit=1 << 22)
    assert len(server.requests) == 3


def test_get_notices_a_truncated_answer(server: Server, http: Http) -> None:
    server.fail_first(1, Reply(DATA, cut=1000))
    assert http.get(f"{server.url}/file", limit=1 << 22) == DATA


def test_retry_after_is_honoured_up_to_a_bound(server: Server, http: Http, pauses: list[float]) -> None:
    replies = [Reply(status=429, headers={"Retry-After": "3"}), Reply(status=503, headers={"Retry-After": "99999"})]
    server.behave = lambda request: replies.pop(0) if replies else None
    http.get(f"{server.url}/file", limit=1 << 22)
    assert pauses == [3.0, Limits().wait]


@pytest.mark.parametrize("value", ["soon", "", "-1", "Wed, 99 Foo 2020", "9" * 400])
def test_odd_retry_after_is_harmless(server: Server, http: Http, value: str) -> None:
    server.fail_first(1, Reply(status=503, headers={"Retry-After": value}))
    assert http.get(f"{server.url}/file", limit=1 << 22) == DATA


def test_missing_document_is_not_tried_again(server: Server, http: Http) -> None:
    with pytest.raises(HttpError) as caught:
        http.get(f"{server.url}/nothing", limit=10)
    assert caught.value.status == 404
    assert caught.value.hint
    assert len(server.requests) == 1


def test_redirects_are_followed_and_the_final_address_is_told(server: Server, http: Http) -> None:
    server.fail_first(1, Reply(status=302, headers={"Location": "/file"}))
    answer = http.fetch(f"{server.url}/old", limit=1 << 22)
    assert answer.body == DATA
    assert answer.url == f"{server.url}/file"


def test_endless_redirects_end(server: Server, http: Http) -> None:
    server.behave = lambda request: Reply(status=302, headers={"Location": "/again"})
    with pytest.raises(FetchError, match="too many redirects"):
        http.get(f"{server.url}/again", limit=10)


def test_unreachable_host_is_said_quickly(http: Http) -> None:
    with pytest.raises(FetchError, match="nobody accepts connections") as caught:
        http.get("http://127.0.0.1:1/x", limit=10)
    assert "online" in str(caught.value.hint)


def test_unknown_host_is_said_quickly(http: Http) -> None:
    with pytest.raises(FetchError, match="could not be resolved"):
        http.get("http://nowhere.invalid/x", limit=10)


@pytest.mark.parametrize(("number", "tries"), [(socket.EAI_NONAME, 1), (socket.EAI_AGAIN, 3)])
def test_an_unknown_host_is_not_asked_for_again(
    http: Http, monkeypatch: pytest.MonkeyPatch, number: int, tries: int
) -> None:
    """No further try makes a host of a wrong name; a name server that does not answer may answer later."""
    asked = []

    def resolve(*_: object, **__: object) -> None:
        asked.append(1)
        raise socket.gaierror(number, "no")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(FetchError, match="could not be resolved"):
        http.get("http://nowhere.example/x", limit=10)
    assert len(asked) == tries


def test_offline_mode_asks_nobody(server: Server, http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBOX_OFFLINE", "1")
    with pytest.raises(FetchError, match="offline"):
        http.get(f"{server.url}/file", limit=1 << 22)
    assert server.requests == []


def test_other_schemes_are_refused(http: Http) -> None:
    with pytest.raises(FetchError, match="not an http, https or file address"):
        http.get("ftp://host/x", limit=10)


def test_file_addresses(tmp_path: Path, http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBOX_OFFLINE", "1")
    path = tmp_path / "a b"
    path.write_bytes(DATA)
    assert http.get(path.as_uri(), limit=1 << 22) == DATA
    assert http.size_of(path.as_uri()) == len(DATA)
    http.download([path.as_uri()], tmp_path / "copy", sha256=SHA, size=len(DATA))
    assert (tmp_path / "copy").read_bytes() == DATA
    with pytest.raises(FetchError, match="No such file"):
        http.get((tmp_path / "none").as_uri(), limit=1)


def test_size_of_asks_for_no_content(server: Server, http: Http) -> None:
    assert http.size_of(f"{server.url}/file") == len(DATA)
    assert server.requests[0].method == "HEAD"
    assert http.size_of(f"{server.url}/nothing") == 0


# Credentials


def test_password_of_the_url_is_sent_but_never_shown(server: Server, http: Http) -> None:
    url = server.url.replace("//", "//me:s%40cret@")
    assert http.get(f"{url}/file", limit=1 << 22) == DATA
    assert server.requests[0].headers["Authorization"] == "Basic bWU6c0BjcmV0"
    with pytest.raises(HttpError) as caught:
        http.get(f"{url}/nothing?token=abc", limit=1)
    for secret in ("cret", "me:", "abc"):
        assert secret not in f"{caught.value.message} {caught.value.hint}"


def test_password_of_an_index_serves_its_files_too(server: Server, http: Http) -> None:
    http.learn(server.url.replace("//", "//me:pw@") + "/simple")
    http.get(f"{server.url}/file", limit=1 << 22)
    assert "Authorization" in server.requests[0].headers


def test_password_is_not_sent_to_the_host_of_a_redirect(server: Server, http: Http) -> None:
    with serving() as other:
        other.files["/file"] = DATA
        server.behave = lambda request: Reply(status=302, headers={"Location": f"{other.url}/file"})
        # 127.0.0.1 by another port is another origin only for some clients; by another name it is for all.
        server.behave = lambda request: Reply(
            status=302, headers={"Location": f"{other.url}/file".replace("127.0.0.1", "localhost")}
        )
        http.get(server.url.replace("//", "//me:pw@") + "/file", limit=1 << 22)
        assert "Authorization" not in other.requests[0].headers


def test_netrc(server: Server, http: Http, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password pw\n")
    (tmp_path / "netrc").chmod(0o600)
    http.get(f"{server.url}/file", limit=1 << 22)
    assert server.requests[0].headers["Authorization"] == "Basic bWU6cHc="


def test_broken_netrc_is_ignored(server: Server, http: Http, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine machine login\nrubbish")
    assert http.get(f"{server.url}/file", limit=1 << 22) == DATA


@pytest.mark.parametrize(("status", "words"), [("407 Who", "a user and a password"), ("403 No", "NO_PROXY names")])
def test_a_proxy_that_refuses(http: Http, monkeypatch: pytest.MonkeyPatch, status: str, words: str) -> None:
    """It is reached, so it is not asked again, and what mends it is said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
        asked: list[bytes] = []

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                asked.append(sock.recv(1 << 16))
                sock.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(FetchError, match=f"the proxy answered {status[:3]}") as caught:
            http.get("https://somewhere.invalid/x", limit=100)
        thread.join(120)
        assert asked[0].startswith(b"CONNECT somewhere.invalid:443")
        assert words in str(caught.value.hint)


@pytest.mark.parametrize(
    "proxy", ["http://u:secret@[x", "socks5://u:secret@h:1", "http://u:secret@:1", "http://h:99999"]
)
def test_what_is_no_proxy(http: Http, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """It is shown without its password."""
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(FetchError, match="not an http proxy") as caught:
        http.get("http://somewhere.invalid/x", limit=100)
    assert "secret" not in str(caught.value)


def test_proxy_of_the_environment_is_used(server: Server, http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//proxy:pw@"))
    server.behave = lambda request: Reply(b"by proxy")
    assert http.get("http://somewhere.invalid/x", limit=100) == b"by proxy"
    assert server.requests[0].path == "http://somewhere.invalid/x"
    assert server.requests[0].headers["Proxy-Authorization"] == "Basic cHJveHk6cHc="
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    http.get(f"{server.url}/file", limit=1 << 22)
    assert server.requests[1].path == "/file"


def test_missing_ca_bundle_is_named(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(FetchError, match="CA bundle not found: /nowhere/ca"):
        http.get("https://127.0.0.1:1/", limit=1)


def test_redact() -> None:
    assert redact("https://u:p@host:8/simple/x?token=1#sha256=2") == "https://host:8/simple/x?***"
    assert redact("file:///a/b") == "file:///a/b"
    assert redact("https://u:p@[x/?token=1") == "https://[x/"
    assert without_credentials("https://u:p@host/a?b=1") == "https://host/a?b=1"


def test_other_programs_tell_no_password() -> None:
    assert redact_text("unable to access 'https://u:p@q@host/x': no") == "unable to access 'https://host/x': no"
    assert redact_text("proxy //u:p@proxy:3128") == "proxy //proxy:3128"


# Downloads


def test_download(server: Server, http: Http, tmp_path: Path) -> None:
    http.download([f"{server.url}/file"], tmp_path / "deep/target", sha256=SHA, size=len(DATA))
    assert (tmp_path / "deep/target").read_bytes() == DATA
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep/target"]


def test_download_goes_on_after_a_break(server: Server, http: Http, tmp_path: Path) -> None:
    server.fail_first(1, Reply(DATA, cut=300_000))
    http.download([f"{server.url}/file"], tmp_path / "target", sha256=SHA, size=len(DATA))
    assert (tmp_path / "target").read_bytes() == DATA
    start = int(server.requests[1].headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 300_000


def test_download_goes_on_where_another_process_stopped(server: Server, http: Http, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(DATA[:500_000])
    http.download([f"{server.url}/file"], tmp_path / "target", sha256=SHA, size=len(DATA))
    assert server.requests[0].headers["Range"] == "bytes=500000-"
    assert (tmp_path / "target").read_bytes() == DATA


def test_complete_part_needs_no_request(server: Server, http: Http, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(DATA)
    http.download([f"{server.url}/file"], tmp_path / "target", sha256=SHA, size=len(DATA))
    assert server.requests == []
    assert (tmp_path / "target").read_bytes() == DATA


@pytest.mark.parametrize("left", [b"wrong" * 1000, DATA + b"more", DATA[:-1] + b"?"])
def test_wrong_leftovers_are_replaced(server: Server, http: Http, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "target").write_bytes(left)
    http.download([f"{server.url}/file"], tmp_path / "target", sha256=SHA, size=len(DATA))
    assert (tmp_path / "target").read_bytes() == DATA


def test_server_without_ranges_starts_over(server: Server, http: Http, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "target").write_bytes(DATA[:500_000])
    http.download([f"{server.url}/file"], tmp_path / "target", sha256=SHA, size=len(DATA))
    assert (tmp_path / "target").read_bytes() == DATA


def test_server_that_lies_about_the_range_starts_over(server: Server, http: Http, tmp_path: Path) -> None:
    def behave(request: Request) -> Reply | None:
        if "Range" in request.headers:
            return Reply(DATA, 206, {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"})
        return None

    server.behave = behave
    (tmp_path / "target").write_bytes(DATA[:500_000])
    http.download([f"{server.url}/file"], tmp_path / "target", sha256=SHA, size=len(DATA))
    assert (tmp_path / "target").read_bytes() == DATA


def test_unknown_size_is_allowed(server: Server, http: Http, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(DATA)  # whole, which only the server can tell
    http.download([f"{server.url}/file"], tmp_path / "target", sha256=SHA)
    assert (tmp_path / "target").read_bytes() == DATA


def test_wrong_content_names_file_and_both_hashes(server: Server, http: Http, tmp_path: Path) -> None:
    other = bytes(len(DATA))
    server.files["/file"] = other
    with pytest.raises(FetchError) as caught:
        http.download([f"{server.url}/file"], tmp_path / "t", sha256=SHA, size=len(DATA), name="numpy.whl")
    for word in ("numpy.whl", SHA, hashlib.sha256(other).hexdigest()):
        assert word in caught.value.message
    assert caught.value.hint
    assert (tmp_path / "t").stat().st_size == 0


def test_wrong_size_is_refused_before_it_is_transferred(server: Server, http: Http, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=f"has {len(DATA)} bytes, expected 5"):
        http.download([f"{server.url}/file"], tmp_path / "t", sha256=SHA, size=5, name="numpy.whl")


def test_endless_answer_ends_at_the_size(server: Server, http: Http, tmp_path: Path) -> None:
    server.behave = lambda request: Reply(DATA, headers={"Content-Length": "1" + "0" * 12}, stall=True)
    with pytest.raises(FetchError, match="expected 1000"):
        http.download([f"{server.url}/file"], tmp_path / "t", sha256=SHA, size=1000)


def test_second_place_is_tried(server: Server, http: Http, tmp_path: Path) -> None:
    server.files["/bad"] = bytes(len(DATA))
    urls = [f"{server.url}/none", f"{server.url}/bad", f"{server.url}/file", f"{server.url}/never"]
    http.download(urls, tmp_path / "t", sha256=SHA, size=len(DATA))
    assert (tmp_path / "t").read_bytes() == DATA
    assert "/never" not in server.paths()


def test_all_failures_are_told(server: Server, http: Http, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="every place") as caught:
        http.download([f"{server.url}/a", f"{server.url}/b"], tmp_path / "t", sha256=SHA)
    assert "/a" in caught.value.message
    assert "/b" in caught.value.message


def test_breaks_without_end_are_bounded(server: Server, http: Http, tmp_path: Path) -> None:
    def one_byte(request: Request) -> Reply:
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"}
        return Reply(DATA[start:], 206 if start else 200, headers, cut=1)

    server.behave = one_byte
    with pytest.raises(FetchError, match="tried 12 times"):
        http.download([f"{server.url}/file"], tmp_path / "t", sha256=SHA, size=len(DATA))


def test_progress_adds_up(server: Server, http: Http, tmp_path: Path) -> None:
    class Counting:
        total = 0

        def step(self, what: str) -> None: ...
        def expect(self, what: str, total: int) -> None: ...
        def note(self, text: str) -> None: ...
        def advance(self, what: str, amount: int) -> None:
            self.total += amount

    listener = Counting()
    server.ranges = False
    server.fail_first(1, Reply(DATA, cut=300_000))
    (tmp_path / "t").write_bytes(b"junk")
    http.download([f"{server.url}/file"], tmp_path / "t", sha256=SHA, size=len(DATA), listener=listener)
    assert listener.total == len(DATA)


# What registries need of the transport


class Pieces:
    """A body that counts how often it was read to its end."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def read(self, size: int = -1, /) -> bytes:
        """Return at most 1000 bytes."""
        piece, self.left = self.left[:1000], self.left[1000:]
        return piece


@pytest.fixture
def transport(pauses: list[float]) -> Transport:
    """A transport that does not wait."""
    return Transport(limits=Limits(connect=1, read=10, attempts=3, most=12, unreachable=2), sleep=pauses.append)


def test_answers_of_any_status_come_back(server: Server, transport: Transport) -> None:
    """The transport judges nothing, and the connection is good for the next request whatever was read of an answer."""
    server.behave = lambda request: Reply(DATA, status=418)
    for _ in range(3):
        with transport.open(f"{server.url}/x", {}) as response:
            assert response.status == 418
            response.read(10)


def test_bodies_are_made_anew_for_every_try(transport: Transport) -> None:
    """A body that was read is not sent again half."""
    from fakes.registry import Reply as RegistryReply
    from fakes.registry import registry

    def send() -> int:
        headers = {"Content-Length": str(len(DATA))}
        with transport.open(f"{fake.url}/v2/", headers, method="PUT", body=Pieces(DATA), redirects=0) as response:
            if response.status == 503:
                raise TemporaryError("busy")
            return response.status

    with registry() as fake:
        fake.behave = lambda request: RegistryReply(503) if len(fake.requests) < 2 else None
        assert transport.retrying(fake.url, send) == 200
        assert [request.body for request in fake.requests] == [DATA] * 3
        assert {request.headers["Transfer-Encoding"] for request in fake.requests} == {None}


def test_redirects_can_be_left_to_the_caller(server: Server, transport: Transport) -> None:
    """With none allowed, a redirect is an answer."""
    server.behave = lambda request: Reply(status=302, headers={"Location": "/file"})
    with transport.open(f"{server.url}/x", {}, redirects=0) as response:
        assert (response.status, response.headers["location"]) == (302, "/file")


def test_a_server_without_tls_is_called_so(server: Server, transport: Transport) -> None:
    """Not one with a bad certificate."""
    with (
        pytest.raises(FetchError, match="does not speak TLS"),
        transport.open(server.url.replace("http", "https") + "/x", {}),
    ):
        pass


def test_proxies_are_not_asked_for_this_machine(server: Server, http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is here is no business of a proxy elsewhere."""
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    assert http.get(f"{server.url}/file", limit=1 << 22) == DATA
