"""A registry of this process (distribution-spec v1.1), in memory; it behaves well unless `behave` says otherwise.

with registry() as running:
    open_registry(running.host)
"""

import base64
import hashlib
import json
import re
import secrets
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from fakes.server import send

INDEX = "application/vnd.oci.image.index.v1+json"
_ROUTE = re.compile(r"/v2/(?P<repository>.+?)/(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>.*)")


class Request(NamedTuple):
    """What a client asked for; the body was read unless `behave` answers before."""

    method: str
    path: str
    headers: Message
    body: bytes = b""


class Reply(NamedTuple):
    """What it gets; `cut` ends the connection after so many bytes, `stall` waits for the registry's end there."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}
    cut: int | None = None
    stall: bool = False


class Manifest(NamedTuple):
    """A stored manifest."""

    media_type: str
    data: bytes


def digest_of(data: bytes) -> str:
    """Return the sha256 digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class FakeRegistry:
    """The state of the registry; tests read and change it at will."""

    def __init__(self) -> None:
        self.host = ""
        """As image names have it: 127.0.0.1:PORT."""
        self.url = ""
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, Manifest]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.requests: list[Request] = []
        self.referrers_api = True
        self.mounts = True
        self.ranges = True
        self.page = 100
        self.chunk_min = 0
        self.redirect_blobs = ""
        """Where blobs are really served, as `other.url`; it must have them in the same repository."""
        self.auth = ""
        """'', 'basic' or 'bearer'; the token server is the registry itself, at /token."""
        self.users: dict[str, str] = {}
        self.anonymous_pull = False
        self.token_life = 300
        self.tokens: dict[str, tuple[float, frozenset[str]]] = {}
        self.identity_tokens: dict[str, str] = {}
        self.behave: Callable[[Request], Reply | None] = lambda request: None
        """May answer first, by returning a Reply."""
        self.stopping = threading.Event()
        self.lock = threading.RLock()
        self._connections = 0
        self._counted = threading.Condition()

    # What tests ask and say

    def settle(self) -> None:
        """Wait until all that clients who have ended asked for was read: it no longer comes into `requests`."""
        urllib.request.urlopen(f"{self.url}/v2/", timeout=60).close()  # connections are taken in their order
        with self._counted:
            assert self._counted.wait_for(lambda: not self._connections, 60), "a client is still connected"

    def count(self, change: int) -> None:
        """Note that a connection was taken or has ended."""
        with self._counted:
            self._connections += change
            self._counted.notify_all()

    def paths(self, method: str = "") -> list[str]:
        """Return the paths asked for so far."""
        return [request.path for request in self.requests if method in ("", request.method)]

    def fail_first(self, times: int, reply: Reply, method: str = "", part: str = "/") -> None:
        """Answer the first `times` requests of that method, whose path holds `part`, with `reply`."""
        replies = [reply] * times

        def behave(request: Request) -> Reply | None:
            fits = method in ("", request.method) and part in request.path and request.path != "/v2/"
            return replies.pop() if replies and fits else None

        self.behave = behave

    def add_blob(self, repository: str, data: bytes) -> str:
        """Store a blob, return its digest."""
        digest = digest_of(data)
        self.blobs.setdefault(repository, {})[digest] = data
        return digest

    def add_manifest(self, repository: str, data: bytes, media_type: str, tag: str = "") -> str:
        """Store a manifest, return its digest."""
        digest = digest_of(data)
        self.manifests.setdefault(repository, {})[digest] = Manifest(media_type, data)
        if tag:
            self.tags.setdefault(repository, {})[tag] = digest
        return digest

    # The protocol

    def answer(self, request: Request) -> Reply:
        """Return what a well-behaved registry says."""
        parts = urlsplit(request.path)
        if parts.path == "/token":
            return self._token(request)
        route = _ROUTE.fullmatch(parts.path)
        repository = route["repository"] if route else ""
        if (refused := self._refuse(request, repository, parts.query)) is not None:
            return refused
        if parts.path == "/v2/":
            return Reply(200, b"{}")
        if route is None:
            return _error(404, "NAME_UNKNOWN")
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        with self.lock:
            if route["kind"] == "manifests":
                return self._manifest(request, repository, route["rest"])
            if route["kind"] == "tags":
                return self._tags(repository, query)
            if route["kind"] == "referrers":
                return self._referrers(repository, route["rest"], query)
            if route["rest"].startswith("uploads/"):
                return self._upload(request, repository, route["rest"].removeprefix("uploads/"), query)
            return self._blob(request, repository, route["rest"])

    def _manifest(self, request: Request, repository: str, reference: str) -> Reply:
        stored = self.manifests.setdefault(repository, {})
        tags = self.tags.setdefault(repository, {})
        if request.method == "PUT":
            return self._put_manifest(request, repository, reference)
        digest = tags.get(reference, reference)
        found = stored.get(digest)
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN")
        if request.method == "DELETE":
            tags.pop(reference, None) or stored.pop(digest)
            return Reply(202)
        return Reply(200, found.data, {"Content-Type": found.media_type, "Docker-Content-Digest": digest})

    def _put_manifest(self, request: Request, repository: str, reference: str) -> Reply:
        digest = digest_of(request.body)
        if reference.startswith("sha256:") and reference != digest:
            return _error(400, "DIGEST_INVALID")
        try:
            document = json.loads(request.body)
        except ValueError:
            return _error(400, "MANIFEST_INVALID")
        blobs, manifests = self.blobs.get(repository, {}), self.manifests[repository]
        parts = [document["config"], *document["layers"]] if "config" in document else []
        if any(part["digest"] not in blobs for part in parts):
            return _error(404, "MANIFEST_BLOB_UNKNOWN")
        if any(part["digest"] not in manifests for part in document.get("manifests", [])):
            return _error(404, "MANIFEST_UNKNOWN")
        manifests[digest] = Manifest(request.headers.get("Content-Type", ""), request.body)
        if not reference.startswith("sha256:"):
            self.tags[repository][reference] = digest
        headers = {"Location": f"/v2/{repository}/manifests/{digest}", "Docker-Content-Digest": digest}
        if self.referrers_api and "subject" in document:
            headers["OCI-Subject"] = document["subject"]["digest"]
        return Reply(201, b"", headers)

    def _tags(self, repository: str, query: dict[str, str]) -> Reply:
        if repository not in self.manifests and repository not in self.tags:
            return _error(404, "NAME_UNKNOWN")
        names = [name for name in sorted(self.tags[repository]) if name > query.get("last", "")]
        size = min(int(query.get("n", self.page)), self.page)
        headers = {"Content-Type": "application/json"}
        if len(names) > size:
            headers["Link"] = f'</v2/{repository}/tags/list?n={size}&last={quote(names[size - 1])}>; rel="next"'
        return Reply(200, json.dumps({"name": repository, "tags": names[:size]}).encode(), headers)

    def _referrers(self, repository: str, digest: str, query: dict[str, str]) -> Reply:
        if not self.referrers_api:
            return _error(404, "PAGE_NOT_FOUND")
        found = []
        for own, manifest in sorted(self.manifests.get(repository, {}).items()):
            document = json.loads(manifest.data)
            if (document.get("subject") or {}).get("digest") == digest:
                found.append(_referrer(own, manifest, document))
        headers = {"Content-Type": INDEX}
        if wanted := query.get("artifactType"):
            found = [one for one in found if one["artifactType"] == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        start = int(query.get("start", 0))
        if start + self.page < len(found):
            extra = f"&artifactType={quote(wanted)}" if wanted else ""
            headers["Link"] = f'</v2/{repository}/referrers/{digest}?start={start + self.page}{extra}>; rel="next"'
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found[start : start + self.page]}
        return Reply(200, json.dumps(document).encode(), headers)

    def _blob(self, request: Request, repository: str, digest: str) -> Reply:
        data = self.blobs.get(repository, {}).get(digest)
        if data is None:
            return _error(404, "BLOB_UNKNOWN")
        if self.redirect_blobs and request.method == "GET":
            where = f"{self.redirect_blobs}/v2/{repository}/blobs/{digest}?X-Signature=presigned"
            return Reply(307, b"", {"Location": where})
        headers = {"Docker-Content-Digest": digest, "Content-Type": "application/octet-stream"}
        asked = request.headers.get("Range", "")
        if not self.ranges or not asked.startswith("bytes="):
            return Reply(200, data, headers)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) if last else len(data) - 1, len(data) - 1)
        if start >= len(data):
            return _error(416, "RANGE_INVALID")
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return Reply(206, data[start : end + 1], headers)

    def _upload(self, request: Request, repository: str, session: str, query: dict[str, str]) -> Reply:
        if request.method == "POST":
            return self._open_upload(request, repository, query)
        if session not in self.uploads:
            return _error(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "DELETE":
            del self.uploads[session]
            return Reply(204)
        if request.method == "PATCH":
            start = request.headers.get("Content-Range", "0-").partition("-")[0]
            if int(start) != len(self.uploads[session]):
                return _error(416, "BLOB_UPLOAD_INVALID", self._state(repository, session))
            self.uploads[session] += request.body
            return Reply(202, b"", self._state(repository, session))
        if request.method == "PUT":
            return self._commit(repository, bytes(self.uploads.pop(session)) + request.body, query.get("digest", ""))
        return Reply(204, b"", self._state(repository, session))

    def _open_upload(self, request: Request, repository: str, query: dict[str, str]) -> Reply:
        source = self.blobs.get(query.get("from", ""), {}).get(query.get("mount", ""))
        if source is not None and self.mounts:
            return self._commit(repository, source, query["mount"])
        if "digest" in query and "mount" not in query:
            return self._commit(repository, request.body, query["digest"])
        session = secrets.token_hex(8)
        self.uploads[session] = bytearray()
        return Reply(202, b"", self._state(repository, session))

    def _state(self, repository: str, session: str) -> dict[str, str]:
        headers = {
            "Location": f"/v2/{repository}/blobs/uploads/{session}?_state=opaque%3D{session}",
            "Range": f"0-{max(len(self.uploads[session]) - 1, 0)}",
            "Docker-Upload-UUID": session,
        }
        return headers | ({"OCI-Chunk-Min-Length": str(self.chunk_min)} if self.chunk_min else {})

    def _commit(self, repository: str, data: bytes, digest: str) -> Reply:
        if digest_of(data) != digest:
            return _error(400, "DIGEST_INVALID")
        self.blobs.setdefault(repository, {})[digest] = data
        where = f"/v2/{repository}/blobs/{digest}"
        return Reply(201, b"", {"Location": where, "Docker-Content-Digest": digest})

    # Logins

    def _refuse(self, request: Request, repository: str, query: str) -> Reply | None:
        kind, _, proof = request.headers.get("Authorization", "").partition(" ")
        if self.auth == "basic":
            if kind == "Basic" and self._user(proof):
                return None
            return _error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="fake registry"'})
        if self.auth == "bearer":
            actions = "pull" if request.method in ("GET", "HEAD") else "pull,push"
            needed = {f"repository:{repository}:{action}" for action in actions.split(",")} if repository else set()
            ends, granted = self.tokens.get(proof, (0.0, frozenset[str]()))
            if kind == "Bearer" and ends > time.monotonic() and needed <= granted:
                return None
            scope = f',scope="repository:{repository}:{actions}"' if repository else ""
            return _error(
                401, "UNAUTHORIZED", {"WWW-Authenticate": f'Bearer realm="{self.url}/token",service="fake"{scope}'}
            )
        return None

    def _token(self, request: Request) -> Reply:
        if request.method == "POST":
            form = parse_qs(request.body.decode())
            user = self.identity_tokens.get(form.get("refresh_token", [""])[0], "")
            scopes = form.get("scope", [""])[0].split()
            known = bool(user)
        else:
            kind, _, proof = request.headers.get("Authorization", "").partition(" ")
            known = kind == "Basic" and self._user(proof)
            scopes = parse_qs(urlsplit(request.path).query).get("scope", [])
            if kind and not known:
                return _error(401, "UNAUTHORIZED")
        if not known and not self.anonymous_pull:
            return _error(401, "UNAUTHORIZED")
        granted = set()
        for scope in scopes:
            name, _, actions = scope.rpartition(":")
            granted |= {f"{name}:{action}" for action in actions.split(",") if known or action == "pull"}
        token = secrets.token_hex(16)
        self.tokens[token] = (time.monotonic() + self.token_life, frozenset(granted))
        answer = {"token": token, "access_token": token, "expires_in": self.token_life}
        return Reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _user(self, proof: str) -> bool:
        try:
            user, _, password = base64.b64decode(proof).decode().partition(":")
        except ValueError:
            return False
        return user in self.users and self.users[user] == password


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> Reply:
    body = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}).encode()
    return Reply(status, body, {"Content-Type": "application/json", **(headers or {})})


def _referrer(digest: str, manifest: Manifest, document: dict[str, Any]) -> dict[str, Any]:
    kind = document.get("artifactType") or document.get("config", {}).get("mediaType", "")
    found = {"mediaType": manifest.media_type, "digest": digest, "size": len(manifest.data), "artifactType": kind}
    return found | ({"annotations": document["annotations"]} if document.get("annotations") else {})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    wbufsize = 1 << 16  # one packet for a small answer: two would wait for each other
    fake: FakeRegistry

    def _handle(self) -> None:
        early = self.fake.behave(Request(self.command, self.path, self.headers))
        body = b"" if early and early.cut == 0 else self._content()
        request = Request(self.command, self.path, self.headers, body)
        self.fake.requests.append(request)
        reply = early or self.fake.answer(request)
        send(self, reply, self.fake.stopping)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = bytearray()
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(data)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    fake: FakeRegistry

    def process_request(self, request: Any, client_address: Any) -> None:
        self.fake.count(1)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.fake.count(-1)

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def registry(*, tls: ssl.SSLContext | None = None) -> Iterator[FakeRegistry]:
    """Run a registry on a free port of this machine, with TLS when a server's context is given."""
    fake = FakeRegistry()
    handler = type("Handler", (_Handler,), {"fake": fake})
    with _Server(("127.0.0.1", 0), handler) as listening:
        if tls is not None:
            listening.socket = tls.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
        listening.fake = fake
        fake.host = f"127.0.0.1:{listening.server_address[1]}"
        fake.url = f"{'https' if tls else 'http'}://{fake.host}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield fake
        finally:
            fake.stopping.set()
            listening.shutdown()
            thread.join()
