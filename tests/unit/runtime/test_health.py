"""Waiting for a service, against a real one on the loopback."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from mlbox.errors import ContainerError
from mlbox.runtime.health import answers, wait_healthy


class Service(http.server.BaseHTTPRequestHandler):
    """Answers 503 twice, then 204; anything but /health is 404."""

    asked = 0

    def do_GET(self) -> None:
        """Answer."""
        type(self).asked += 1
        self.send_response(404 if self.path != "/health" else 503 if self.asked <= 2 else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a service."""
    Service.asked = 0
    with http.server.HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_ready_after_a_while(port: int) -> None:
    """It is asked until it says yes."""
    waits: list[float] = []
    wait_healthy(port, "/health", ended=lambda seconds: bool(waits.append(seconds)), interval=0.001)
    assert Service.asked == 3
    assert waits == [0.001, 0.001]


def test_the_end_comes_first(port: int) -> None:
    """A container that ended will never be ready."""
    with pytest.raises(ContainerError, match="ended before"):
        wait_healthy(port, "/health", ended=lambda _: True)


def test_never_ready(port: int) -> None:
    """Bounded, with the address in the message."""
    with pytest.raises(ContainerError, match=f"127.0.0.1:{port}/other"):
        wait_healthy(port, "/other", ended=lambda _: False, timeout=0.02, interval=0)


def test_nobody_listens() -> None:
    """A closed port is no answer, and no error."""
    with http.server.HTTPServer(("127.0.0.1", 0), Service) as server:
        port = server.server_port
    assert not answers(port, "/")
