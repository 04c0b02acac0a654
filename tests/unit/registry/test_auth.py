"""Logins: what is sent to whom, how often, and to whom never."""

import json
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fakes.registry import FakeRegistry, Reply, Request, digest_of, registry

from mlbox.errors import RegistryError
from mlbox.http.pool import Tls
from mlbox.oci.artifact import EMPTY_BYTES
from mlbox.oci.digest import Digest
from mlbox.oci.image import CONFIG, Descriptor
from mlbox.registry.client import Registry
from mlbox.registry.credentials import Credentials
from mlbox.registry.hosts import Site, Sites

Open = Callable[..., Registry]

REPOSITORY = "team/bert"
SECRET = "open-sesame-4711"
ME = Credentials(username="me", password=SECRET)
BLOB = Descriptor(media_type=CONFIG, digest=Digest(digest_of(EMPTY_BYTES)), size=2)


@pytest.fixture
def locked(fake: FakeRegistry) -> FakeRegistry:
    """A registry with a token server, and one blob."""
    fake.auth, fake.users = "bearer", {"me": SECRET}
    fake.add_blob(REPOSITORY, EMPTY_BYTES)
    return fake


def scopes(fake: FakeRegistry) -> list[list[str]]:
    """Return the scopes of the tokens that were asked for."""
    return [parse_qs(urlsplit(path).query).get("scope", []) for path in fake.paths() if path.startswith("/token")]


def test_basic(fake: FakeRegistry, client: Open) -> None:
    """The password goes along once the registry asked for it, and with every request after."""
    fake.auth, fake.users = "basic", {"me": SECRET}
    registry = client(fake, ME)
    for _ in range(3):
        assert not registry.has_blob(REPOSITORY, BLOB.digest)
    assert ["Authorization" in request.headers for request in fake.requests] == [False, True, True, True]


def test_wrong_password(fake: FakeRegistry, client: Open) -> None:
    """A 401 with the status, a hint and no password in it; it is tried once."""
    fake.auth, fake.users = "basic", {"me": "another"}
    with pytest.raises(RegistryError, match="401: UNAUTHORIZED") as caught:
        client(fake, ME).manifest(REPOSITORY, "1")
    assert caught.value.status == 401
    assert "stored login is not accepted" in str(caught.value.hint)
    assert len(fake.requests) == 2


def test_nobody_is_told_to_log_in(locked: FakeRegistry, client: Open) -> None:
    """Without a login, the hint is the command."""
    with pytest.raises(RegistryError, match="a login is needed") as caught:
        client(locked).manifest(REPOSITORY, "1")
    assert f"mlbox login {locked.host}" in str(caught.value.hint)


def test_one_token_per_scope(locked: FakeRegistry, client: Open) -> None:
    """Tokens are asked for once; one for pushing serves pulls too."""
    registry = client(locked, ME)
    for _ in range(3):
        assert registry.blob(REPOSITORY, BLOB) == EMPTY_BYTES
    registry.put_blob(REPOSITORY, b"other")
    assert registry.mount("team/new", BLOB.digest, REPOSITORY)
    registry.blob(REPOSITORY, BLOB)
    assert scopes(locked) == [
        ["repository:team/bert:pull"],
        ["repository:team/bert:pull,push"],
        ["repository:team/new:pull,push", "repository:team/bert:pull"],
    ]


def test_anonymous_tokens(locked: FakeRegistry, client: Open) -> None:
    """Docker Hub gives everybody a token for what is public; no password is needed or sent."""
    locked.anonymous_pull = True
    assert client(locked).blob(REPOSITORY, BLOB) == EMPTY_BYTES
    assert [path for path in locked.paths() if path.startswith("/token")]
    with pytest.raises(RegistryError, match="401") as caught:
        client(locked).put_blob(REPOSITORY, b"x")
    assert "mlbox login" in str(caught.value.hint)
    assert len(locked.requests) < 15


def test_expired_tokens_are_bought_again(locked: FakeRegistry, client: Open) -> None:
    """By the clock when the life is known, else when the registry refuses."""
    now = [1000.0]
    registry = client(locked, ME, clock=lambda: now[0])
    registry.blob(REPOSITORY, BLOB)
    now[0] += 299
    registry.blob(REPOSITORY, BLOB)
    assert len(scopes(locked)) == 2
    locked.tokens.clear()
    registry.blob(REPOSITORY, BLOB)
    assert len(scopes(locked)) == 3


def test_identity_token(locked: FakeRegistry, client: Open) -> None:
    """An OAuth2 refresh token goes in the form of a POST, never in an address."""
    locked.identity_tokens["refresh-4711"] = "me"
    assert client(locked, Credentials(identity_token="refresh-4711")).blob(REPOSITORY, BLOB) == EMPTY_BYTES
    (request,) = (one for one in locked.requests if one.path.startswith("/token"))
    assert (request.method, request.path) == ("POST", "/token")
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["refresh_token"],
        "service": ["fake"],
        "client_id": ["mlbox"],
        "scope": ["repository:team/bert:pull"],
        "refresh_token": ["refresh-4711"],
    }


def test_registry_token(locked: FakeRegistry, client: Open) -> None:
    """A ready token is sent as it is, and not again when it is refused."""
    with pytest.raises(RegistryError, match="401"):
        client(locked, Credentials(registry_token="ready-4711")).blob(REPOSITORY, BLOB)
    assert [one.headers.get("Authorization") for one in locked.requests] == [None, "Bearer ready-4711"]


def test_scopes_of_the_challenge_are_asked_for(fake: FakeRegistry, client: Open) -> None:
    """A registry may want more than we thought; nonsense among its scopes is left out."""
    scope = "repository:team/bert:pull,delete registry:catalog:* \\x https://evil/?a=b"

    def behave(request: Request) -> Reply | None:
        if request.path.startswith("/token"):
            return Reply(200, b'{"token":"t"}')
        challenge = f'Bearer realm="{fake.url}/token",scope="{scope}"'
        return None if "Authorization" in request.headers else Reply(401, b"", {"WWW-Authenticate": challenge})

    fake.behave = behave
    client(fake, ME).has_blob(REPOSITORY, BLOB.digest)
    assert scopes(fake)[-1] == ["repository:team/bert:pull"]  # known from the first word of the registry

    fake.requests.clear()
    fake.behave = lambda request: None if request.path == "/v2/" else behave(request)
    client(fake, ME).has_blob(REPOSITORY, BLOB.digest)
    assert scopes(fake)[-1] == ["repository:team/bert:pull", "repository:team/bert:pull,delete", "registry:catalog:*"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Reply(200, b"{}"), "no usable token"),
        (Reply(200, b'{"token":"a\\r\\nX-Evil: 1"}'), "no usable token"),
        (Reply(200, b'{"token":7}'), "Expected `str`"),
        (Reply(200, b"<html>"), "malformed"),
        (Reply(200, b'{"token":"' + b"x" * (2 << 20) + b'"}'), "longer than"),
        (Reply(302, b"", {"Location": "https://evil.example/"}), "it answered 302"),
        (Reply(401), "does not accept this login"),
        (Reply(404), "it answered 404"),
        (Reply(500), "token server answered 500"),
        (Reply(200, b'{"token":"stale"}'), "answered 401"),
        (Reply(200, b'{"token":"stale","expires_in":-5}'), "answered 401"),
        (Reply(200, b'{"token":"stale","expires_in":1e99}'), "answered 401"),
    ],
)
def test_token_servers_that_misbehave(locked: FakeRegistry, client: Open, answer: Reply, words: str) -> None:
    """Every nonsense is an error, tokens that never work are not asked for for ever, and nothing secret is shown."""
    locked.behave = lambda request: answer if request.path.startswith("/token") else None
    with pytest.raises(RegistryError, match=words) as caught:
        client(locked, ME).manifest(REPOSITORY, "1")
    text = f"{caught.value.message}{caught.value.hint}"
    assert SECRET not in text
    assert "stale" not in text
    assert len(locked.requests) < 10


def test_what_registries_echo_is_scrubbed(locked: FakeRegistry, client: Open) -> None:
    """A registry that repeats the password or token in its error does not put it on the screen."""

    def behave(request: Request) -> Reply | None:
        if "/manifests/" not in request.path:
            return None
        words = f"you sent {request.headers['Authorization']} {SECRET} bWU6b3Blbi1zZXNhbWUtNDcxMQ=="
        return Reply(400, json.dumps({"errors": [{"code": "X", "message": words}]}).encode())

    locked.behave = behave
    with pytest.raises(RegistryError, match="you sent") as caught:
        client(locked, ME).manifest(REPOSITORY, "1")
    (token,) = locked.tokens
    for secret in (SECRET, token, "bWU6b3Blbi1zZXNhbWUtNDcxMQ=="):
        assert secret not in str(caught.value)


# Other hosts


def test_redirects_to_other_hosts_carry_no_login(
    locked: FakeRegistry, other: FakeRegistry, client: Open, tmp_path: Path
) -> None:
    """The storage behind the registry gets the request, not the token; also when it sends us back."""
    other.add_blob(REPOSITORY, EMPTY_BYTES)
    locked.redirect_blobs = other.url
    client(locked, ME).download(REPOSITORY, BLOB, tmp_path / "blob")
    assert [one.headers.get("Authorization") for one in other.requests] == [None]

    other.behave = lambda request: Reply(307, b"", {"Location": f"{locked.url}/back"})
    (tmp_path / "blob").unlink()
    with pytest.raises(RegistryError, match="the storage behind the registry"):
        client(locked, ME).download(REPOSITORY, BLOB, tmp_path / "blob")
    assert locked.requests[-1].path == "/back"
    assert "Authorization" not in locked.requests[-1].headers


def test_uploads_to_other_hosts_carry_no_login(
    locked: FakeRegistry, other: FakeRegistry, client: Open, tmp_path: Path
) -> None:
    """A Location elsewhere gets the blob, not the token."""
    other.uploads["elsewhere"] = bytearray()
    locked.behave = lambda request: (
        Reply(202, b"", {"Location": f"{other.url}/v2/x/blobs/uploads/elsewhere?sig=1"})
        if request.method == "POST" and "/uploads/" in request.path
        else None
    )
    (tmp_path / "blob").write_bytes(EMPTY_BYTES)
    client(locked, ME).upload(REPOSITORY, tmp_path / "blob", BLOB)
    assert other.blobs["x"][BLOB.digest] == EMPTY_BYTES
    assert {request.headers.get("Authorization") for request in other.requests} == {None}
    assert "?sig=1&digest=sha256%3A" in other.requests[-1].path


def test_token_server_elsewhere(locked: FakeRegistry, other: FakeRegistry, client: Open) -> None:
    """On this machine another port may be the token server: nobody can have changed the challenge on the way."""
    other.users = locked.users
    challenge = {"WWW-Authenticate": f'Bearer realm="{other.url}/token",service="x"'}
    locked.behave = lambda request: None if request.headers.get("Authorization") else Reply(401, b"", challenge)
    other.tokens = locked.tokens
    assert client(locked, ME).blob(REPOSITORY, BLOB) == EMPTY_BYTES


@pytest.mark.parametrize("realm", ["http://evil.example/token", "http://127.0.0.1.evil.example/"])
def test_password_does_not_go_in_plain_text(fake: FakeRegistry, client: Open, realm: str) -> None:
    """A token server without TLS elsewhere never gets it."""
    fake.behave = lambda request: Reply(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}"'})
    with pytest.raises(RegistryError, match="not safe"):
        client(fake, ME).manifest(REPOSITORY, "1")


def test_plain_registry_elsewhere_cannot_send_the_password_on() -> None:
    """Whoever sits between us and an insecure registry may have written the challenge."""
    from mlbox.registry.auth import Authorizer, Scope
    from mlbox.registry.challenge import Challenge

    site = Site(name="r.example", host="r.example", schemes=("http",))
    authorizer = Authorizer(site, lambda _: ME, None)  # type: ignore[arg-type]
    challenge = Challenge(scheme="bearer", parameters={"realm": "https://evil.example/token"})
    authorizer.learn((challenge,), Scope(repository="x"), "", "http://r.example")
    with pytest.raises(RegistryError, match="not safe"):
        authorizer.header(Scope(repository="x"))


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine, signed by itself, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", "key.pem", "-out", "crt.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    (folder / "both.pem").write_bytes((folder / "crt.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return folder / "both.pem"


@pytest.fixture
def secure(certificate: Path) -> Iterator[FakeRegistry]:
    """A registry with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with registry(tls=context) as running:
        running.add_blob(REPOSITORY, EMPTY_BYTES)
        yield running


def over_tls(fake: FakeRegistry, certificate: Path | None, schemes: tuple[str, ...] = ("https",)) -> Registry:
    """Open a client that trusts that certificate."""
    tls = Tls(authorities=(certificate,)) if certificate else Tls()
    site = Site(name=fake.host, host=fake.host, schemes=schemes, tls=tls)
    return Registry(Sites(registry=site), lambda _: lambda _: ME, sleep=lambda _: None)


def test_private_authority(secure: FakeRegistry, certificate: Path) -> None:
    """A certificate that only this registry's settings name is trusted; without, the error names the setting."""
    assert over_tls(secure, certificate).blob(REPOSITORY, BLOB) == EMPTY_BYTES
    with pytest.raises(RegistryError, match="certificate is not trusted") as caught:
        over_tls(secure, None).blob(REPOSITORY, BLOB)
    assert "registries.toml" in str(caught.value.hint)


def test_https_on_this_machine_is_found(secure: FakeRegistry, certificate: Path) -> None:
    """Where plain http is not understood, https is tried."""
    assert over_tls(secure, certificate, ("http", "https")).blob(REPOSITORY, BLOB) == EMPTY_BYTES


def test_no_way_from_https_to_http(
    secure: FakeRegistry, other: FakeRegistry, certificate: Path, tmp_path: Path
) -> None:
    """Neither blobs nor uploads leave TLS; a wrong scheme of the own host is understood as https."""
    secure.redirect_blobs = other.url.replace("127.0.0.1", "localhost")
    with pytest.raises(RegistryError, match="from https to plain http"):
        over_tls(secure, certificate).download(REPOSITORY, BLOB, tmp_path / "blob")
    secure.redirect_blobs = ""
    plain = secure.url.replace("https", "http")
    secure.behave = lambda request: (
        Reply(307, b"", {"Location": f"{plain}/v2/again/blobs/{BLOB.digest}"}) if REPOSITORY in request.path else None
    )
    secure.add_blob("again", EMPTY_BYTES)
    over_tls(secure, certificate).download(REPOSITORY, BLOB, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == EMPTY_BYTES


def test_plain_http_where_https_is_spoken(other: FakeRegistry) -> None:
    """A registry without TLS where TLS is wanted is an error, not a fallback."""
    with pytest.raises(RegistryError, match="does not speak TLS"):
        over_tls(other, None).blob(REPOSITORY, BLOB)
    assert other.requests == []


def test_storage_with_a_certificate_of_its_own(
    fake: FakeRegistry, secure: FakeRegistry, certificate: Path, tmp_path: Path
) -> None:
    """The settings of the storage's host are used for it, those of the registry are not."""
    fake.add_blob(REPOSITORY, EMPTY_BYTES)
    fake.redirect_blobs = secure.url.replace("127.0.0.1", "localhost")
    port = secure.host.partition(":")[2]
    trusted = {f"localhost:{port}": Tls(authorities=(certificate,))}
    for tls, elsewhere, words in ((Tls(), trusted, ""), (Tls(authorities=(certificate,)), {}, "not trusted")):
        site = Site(name=fake.host, host=fake.host, schemes=("http",), tls=tls, elsewhere=elsewhere)
        registry = Registry(Sites(registry=site), lambda _: lambda _: ME, sleep=lambda _: None)
        if not words:
            registry.download(REPOSITORY, BLOB, tmp_path / "blob")
            assert (tmp_path / "blob").read_bytes() == EMPTY_BYTES
            (tmp_path / "blob").unlink()
            continue
        with pytest.raises(RegistryError, match=words):
            registry.download(REPOSITORY, BLOB, tmp_path / "blob")


def test_unreadable_certificates(other: FakeRegistry, tmp_path: Path) -> None:
    """The file is named."""
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(RegistryError, match=r"ca\.pem: not a usable"):
        over_tls(other, tmp_path / "ca.pem").blob(REPOSITORY, BLOB)
    with pytest.raises(RegistryError, match=r"none\.pem: No such file"):
        over_tls(other, tmp_path / "none.pem").blob(REPOSITORY, BLOB)


def test_credentials_do_not_show() -> None:
    """Not even when somebody prints them."""
    assert SECRET not in repr(ME)
    assert SECRET not in f"{[ME]}"
