"""Who is connected to a container's monitor: what each wants, and what it has not read yet."""

import select
import socket
from collections.abc import Callable, Iterator

from mlbox.runtime import frames

BACKLOG = 256 << 10
"""Bytes that may wait for a client: one that reads slower than the program writes holds it back, as a pipe would."""


class Client:
    """One connection."""

    def __init__(self, sock: socket.socket, hello: frames.Hello) -> None:
        self.sock = sock
        self.hello = hello
        self.decoder = frames.Decoder()
        self.backlog = bytearray()

    def send(self, data: bytes) -> bool:
        """Send what can be sent now; False when the client is gone."""
        self.backlog += data
        try:
            while self.backlog:
                del self.backlog[: self.sock.send(self.backlog)]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


class Clients:
    """All connections; `lost` is told of each that ends."""

    def __init__(self, lost: Callable[[Client], None]) -> None:
        self._lost = lost
        self._by_fd: dict[int, Client] = {}

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._by_fd.values()))

    def get(self, fd: int) -> Client | None:
        """Return the client whose connection is `fd`."""
        return self._by_fd.get(fd)

    def welcome(self, sock: socket.socket, hello: frames.Hello) -> None:
        """Take in a new connection."""
        sock.setblocking(False)
        self._by_fd[sock.fileno()] = Client(sock, hello)

    def lose(self, client: Client) -> None:
        """Let a connection go."""
        del self._by_fd[client.sock.fileno()]
        client.sock.close()
        self._lost(client)

    def tell(self, kind: bytes, payload: bytes = b"", *, everyone: bool = False) -> None:
        """Send a frame to those who asked for output, or to `everyone`."""
        data = frames.frame(kind, payload)
        for client in self:
            wanted = everyone or client.hello.output or kind == frames.STARTED
            if wanted and not client.send(data):
                self.lose(client)

    def are_behind(self) -> bool:
        """Whether somebody has more to read than may wait."""
        return any(len(client.backlog) > BACKLOG for client in self)

    def flush(self) -> None:
        """Wait until every client has read everything, or has gone."""
        while pending := [client for client in self if client.backlog]:
            poll = select.poll()
            for client in pending:
                poll.register(client.sock, select.POLLOUT)
            for fd, _ in poll.poll():
                client = self._by_fd[fd]
                if not client.send(b""):
                    self.lose(client)
