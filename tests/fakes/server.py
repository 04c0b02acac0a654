"""An HTTP server of this process that serves bytes, and misbehaves on request."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    """What a client asked for."""

    method: str
    path: str
    headers: Message


class Reply(NamedTuple):
    """What it gets; `cut` ends the connection after so many bytes, `stall` waits for the server's end there."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = {}
    cut: int | None = None
    stall: bool = False


Behaviour = Callable[[Request], Reply]


class Server:
    """Serves `files` (path -> bytes) with ranges; `behave` may answer first, by returning a Reply."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.requests: list[Request] = []
        self.behave: Callable[[Request], Reply | None] = lambda request: None
        self.ranges = True
        self.stopping = threading.Event()
        self.url = ""

    def paths(self) -> list[str]:
        """Return the paths asked for so far."""
        return [request.path for request in self.requests]

    def fail_first(self, times: int, reply: Reply) -> None:
        """Answer the first `times` requests with `reply`."""
        replies = [reply] * times
        self.behave = lambda request: replies.pop() if replies else None

    def answer(self, request: Request) -> Reply:
        """Return what the file store has for `request`."""
        path = request.path.partition("?")[0]
        body = self.files.get(path)
        if body is None:
            return Reply(b"not here", 404)
        headers = {"Content-Type": self.types.get(path, "application/octet-stream")}
        asked = request.headers.get("Range", "")
        if not self.ranges or not asked.startswith("bytes="):
            return Reply(body, headers=headers)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) if last else len(body) - 1, len(body) - 1)
        if start >= len(body):
            return Reply(b"", 416)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
        return Reply(body[start : end + 1], 206, headers)


def send(handler: BaseHTTPRequestHandler, reply: Any, stopping: threading.Event) -> None:
    """Send `reply` (a Reply of any fake server), cut short and stalled as it says, until `stopping` at the longest."""
    handler.send_response(reply.status)
    for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(reply.body[: reply.cut])
    if reply.stall:
        handler.wfile.flush()
        stopping.wait(30)
    if reply.stall or reply.cut is not None:
        handler.close_connection = True


@contextmanager
def serving() -> Iterator[Server]:
    """Run a Server on a free port of this machine; `server.url` is its address."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            request = Request(self.command, self.path, self.headers)
            server.requests.append(request)
            reply = server.behave(request) or server.answer(request)
            send(self, reply, server.stopping)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        server.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            listening.shutdown()
            thread.join()
