"""The client against docker-registry: open, with passwords, with TLS, with signed tokens; and what skopeo sees."""

import base64
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fakes.hub import docker_registry

from mlbox.codec import canonical_json
from mlbox.errors import RegistryError
from mlbox.http.pool import Tls
from mlbox.oci.artifact import EMPTY, EMPTY_BYTES, LOCK_TYPE, PLAN_TYPE, artifact_of, manifest_of
from mlbox.oci.digest import digest_of
from mlbox.oci.image import CONFIG, LAYER_TAR, MANIFEST, Descriptor, Manifest
from mlbox.registry import upload
from mlbox.registry.client import Registry
from mlbox.registry.credentials import Credentials
from mlbox.registry.dockerconfig import erase_login, logins_of
from mlbox.registry.hosts import Site, Sites
from mlbox.registry.login import log_in

pytestmark = pytest.mark.integration

Need = Callable[[str], str]
Serve = Callable[..., str]

ME = Credentials(username="me", password="open sesame")
HTPASSWD = "me:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n"
"""That password as bcrypt has it, the only way that docker-registry reads."""
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
RSA = ("-newkey", "rsa:2048", "-nodes")
REPOSITORY = "team/bert"


@pytest.fixture
def serve(need: Need, tmp_path: Path) -> Iterator[Serve]:
    """Start docker-registry with more settings; returns its host."""
    program = need("docker-registry")
    with ExitStack() as running:

        def start(**settings: object) -> str:
            return running.enter_context(docker_registry(tmp_path / "registry", program, **settings))

        yield start


def client(
    host: str,
    credentials: Credentials | None = None,
    tls: Tls | None = None,
    schemes: tuple[str, ...] = ("http", "https"),
) -> Registry:
    """Open a client."""
    site = Site(name=host, host=host, schemes=schemes, tls=tls or Tls())
    return Registry(Sites(registry=site), lambda _: lambda _: credentials)


def blob(data: bytes) -> Descriptor:
    """Return how a manifest refers to `data`."""
    return Descriptor(media_type=LAYER_TAR, digest=digest_of(data), size=len(data))


def exercise(registry: Registry, folder: Path) -> None:
    """Do everything a registry is for."""
    data = os.urandom(3_000_000)
    (folder / "blob").write_bytes(data)
    registry.upload(REPOSITORY, folder / "blob", blob(data))
    registry.download(REPOSITORY, blob(data), folder / "back")
    assert (folder / "back").read_bytes() == data
    assert registry.mount("team/other", blob(data).digest, REPOSITORY)
    assert registry.has_blob("team/other", blob(data).digest)
    registry.put_blob(REPOSITORY, EMPTY_BYTES)
    config = Descriptor(media_type=CONFIG, digest=EMPTY.digest, size=EMPTY.size)
    manifest = canonical_json(Manifest(config=config, layers=(blob(data),)))
    for tag in ("1", "2", "3"):
        registry.put_manifest(REPOSITORY, tag, manifest, MANIFEST)
    subject = registry.manifest(REPOSITORY, "1").descriptor
    assert registry.find(REPOSITORY, subject.digest) == subject
    assert sorted(registry.tags(REPOSITORY)) == ["1", "2", "3"]
    for kind in (LOCK_TYPE, PLAN_TYPE):
        registry.put_referrer(REPOSITORY, manifest_of(artifact_of(kind, EMPTY_BYTES), subject), subject)
    assert [one.artifact_type for one in registry.referrers(REPOSITORY, subject.digest)] == [LOCK_TYPE, PLAN_TYPE]
    assert registry.find(REPOSITORY, "no-such") is None


def test_open(serve: Serve, tmp_path: Path) -> None:
    """Everybody may do everything."""
    exercise(client(serve()), tmp_path)


def test_chunks(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob in many pieces is the blob."""
    monkeypatch.setattr(upload, "CHUNK", 1 << 19)
    exercise(client(serve()), tmp_path)


def test_upload_survives_a_break(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is cut in a chunk does not fail the upload (this registry forgets it then: from the start)."""
    monkeypatch.setattr(upload, "CHUNK", 1 << 20)
    data = os.urandom(4 << 20)
    (tmp_path / "blob").write_bytes(data)
    with cutting(serve(), after=(5 << 19) + 5000) as (proxy, seen):
        client(proxy).upload(REPOSITORY, tmp_path / "blob", blob(data))
        client(proxy).download(REPOSITORY, blob(data), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert seen[0] < 2 * len(data)


@contextmanager
def cutting(host: str, after: int) -> Iterator[tuple[str, list[int]]]:
    """Pass connections on to `host`, and cut the one that carries byte number `after`; counts what clients sent."""
    address, _, port = host.partition(":")
    seen = [0]
    cut: list[int] = []

    def pump(source: socket.socket, target: socket.socket, count: bool) -> None:
        try:
            while data := source.recv(16384):
                seen[0] += len(data) if count else 0
                if count and seen[0] > after and not cut:
                    cut.append(1)
                    break
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                inner, _ = listening.accept()
            except OSError:
                return
            outer = socket.create_connection((address, int(port)))
            sockets.extend([inner, outer])
            for source, target, count in ((inner, outer, True), (outer, inner, False)):
                threading.Thread(target=pump, args=(source, target, count), daemon=True).start()

    sockets: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", seen
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    for one in sockets:
        one.close()


def test_passwords(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """htpasswd: nobody gets in, the wrong password does not, the right one does; login checks it."""
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    host = serve(auth={"htpasswd": {"realm": "here", "path": str(tmp_path / "htpasswd")}})

    exercise(client(host, ME), tmp_path)

    with pytest.raises(RegistryError, match="401") as caught:
        client(host).find(REPOSITORY, "1")
    assert f"mlbox login {host}" in str(caught.value.hint)
    wrong = Credentials(username="me", password="close sesame")
    with pytest.raises(RegistryError, match="401"):
        log_in(host, wrong, path=tmp_path / "config.json")
    assert not (tmp_path / "config.json").exists()
    assert log_in(host, ME, path=tmp_path / "config.json").checked


# TLS


def openssl(folder: Path, *argv: str) -> None:
    """Run openssl in `folder`."""
    subprocess.run(["openssl", *argv], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def keys(need: Need, tmp_path: Path) -> Path:
    """A folder with an authority of our own (ca.*), and keys it signed for a server and a client."""
    need("openssl")
    folder = tmp_path / "keys"
    folder.mkdir()
    openssl(
        folder,
        "req",
        "-x509",
        *EC,
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-days",
        "2",
        "-subj",
        "/CN=our authority",
    )
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        openssl(folder, "req", *EC, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.crt", "-days", "2", "-extfile", "extensions",
        )  # fmt: skip
    return folder


def test_private_authority(serve: Serve, keys: Path, tmp_path: Path) -> None:
    """TLS with a certificate that only the settings of this host make trusted."""
    host = serve(tls={"certificate": str(keys / "server.crt"), "key": str(keys / "server.key")})

    exercise(client(host, tls=Tls(authorities=(keys / "ca.crt",))), tmp_path)

    with pytest.raises(RegistryError, match="certificate is not trusted"):
        client(host, schemes=("https",)).find(REPOSITORY, "1")


def test_client_certificates(serve: Serve, keys: Path, tmp_path: Path) -> None:
    """A registry that wants to see ours gets it, and nobody without gets in."""
    host = serve(
        tls={
            "certificate": str(keys / "server.crt"),
            "key": str(keys / "server.key"),
            "clientcas": [str(keys / "ca.crt")],
        }
    )
    trusting = Tls(authorities=(keys / "ca.crt",))
    own = Tls(authorities=(keys / "ca.crt",), certificate=keys / "client.crt", key=keys / "client.key")

    exercise(client(host, tls=own), tmp_path)

    with pytest.raises(RegistryError, match="wants a certificate of ours") as caught:
        client(host, tls=trusting).find(REPOSITORY, "1")
    assert "'cert' of this host" in str(caught.value.hint)


# Tokens


class TokenServer:
    """Sells tokens that docker-registry believes: JWTs signed with the key of the certificate that it was given."""

    def __init__(self, folder: Path) -> None:
        openssl(folder, "req", "-x509", *RSA, "-keyout", "t.key", "-out", "t.crt", "-days", "2", "-subj", "/CN=us")
        openssl(folder, "x509", "-in", "t.crt", "-outform", "der", "-out", "t.der")
        self._folder = folder
        self.asked: list[tuple[str, list[str]]] = []

    def token(self, account: str, scopes: list[str]) -> str:
        """Return a token for what the account may do: everything for 'me', pulling for everybody."""
        self.asked.append((account, scopes))
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = [action for action in actions.split(",") if account or action == "pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode((self._folder / "t.der").read_bytes()).decode()]}
        times = {"exp": now + 60, "nbf": now - 5, "iat": now}
        claims = {"iss": "us", "sub": account, "aud": "them", "jti": "x", "access": access, **times}
        text = ".".join(_url64(json.dumps(one).encode()) for one in (head, claims))
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self._folder / "t.key")]
        signature = subprocess.run(argv, input=text.encode(), check=True, capture_output=True).stdout
        return f"{text}.{_url64(signature)}"


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def selling(tokens: TokenServer) -> Iterator[str]:
    """Run the token server; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            proof = self.headers.get("Authorization", "")
            if proof and base64.b64decode(proof.removeprefix("Basic ")) != b"me:open sesame":
                self.send_error(401)
                return
            token = tokens.token("me" if proof else "", query.get("scope", []))
            body = json.dumps({"token": token, "expires_in": 60}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/token"
        finally:
            server.shutdown()
            thread.join()


def test_tokens(serve: Serve, need: Need, tmp_path: Path) -> None:
    """Signed tokens: everybody pulls, who logs in pushes, and one token serves many requests."""
    need("openssl")
    tokens = TokenServer(tmp_path)
    with selling(tokens) as realm:
        bundle = str(tmp_path / "t.crt")
        host = serve(auth={"token": {"realm": realm, "service": "them", "issuer": "us", "rootcertbundle": bundle}})

        exercise(client(host, ME), tmp_path)
        assert len(tokens.asked) <= 5

        anonymous = client(host)
        assert anonymous.find(REPOSITORY, "1")
        with pytest.raises(RegistryError, match="401") as caught:
            anonymous.put_blob(REPOSITORY, b"x")
        assert "mlbox login" in str(caught.value.hint)
        with pytest.raises(RegistryError, match="does not accept this login"):
            client(host, Credentials(username="me", password="no")).find(REPOSITORY, "1")
        assert log_in(host, ME, path=tmp_path / "config.json").checked


def test_login_of_skopeo(serve: Serve, need: Need, tmp_path: Path) -> None:
    """A login that skopeo (and so podman) kept is ours, for the registry and for a namespace of it; and goes away."""
    skopeo = need("skopeo")
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    host = serve(auth={"htpasswd": {"realm": "here", "path": str(tmp_path / "htpasswd")}})
    path = tmp_path / "auth.json"
    for place in (host, f"{host}/team"):
        argv = [skopeo, "login", "--tls-verify=false", "--authfile", str(path), "-u", "me", "--password-stdin", place]
        subprocess.run(argv, input=ME.password.encode(), check=True, capture_output=True)
        assert logins_of(host, (path,))(REPOSITORY) == ME
        if place == host:
            assert erase_login(host, (path,)) == (str(path),)
            assert logins_of(host, (path,))(REPOSITORY) is None


def test_skopeo_sees_the_same(serve: Serve, need: Need, tmp_path: Path) -> None:
    """What mlbox pushed, skopeo reads, with the login that mlbox kept."""
    skopeo = need("skopeo")
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    host = serve(auth={"htpasswd": {"realm": "here", "path": str(tmp_path / "htpasswd")}})
    exercise(client(host, ME), tmp_path)
    log_in(host, ME, path=tmp_path / "auth.json")

    argv = [skopeo, "inspect", "--raw", "--tls-verify=false", "--authfile", str(tmp_path / "auth.json")]
    done = subprocess.run([*argv, f"docker://{host}/{REPOSITORY}:1"], capture_output=True, check=True)

    assert digest_of(done.stdout) == client(host, ME).manifest(REPOSITORY, "1").digest
