"""A registry of the local store over HTTP: the pull half of the distribution-spec, and nothing that writes.

aiohttp does the HTTP: it limits headers, closes connections that do not send any in time, and speaks TLS. A slow client
costs a buffer and no thread: what touches the store happens in a few threads beside the event loop.
"""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from mlbox.errors import MlboxError, StoreError, UsageError
from mlbox.registry.access import Options, is_loopback, may_enter, names_this_machine, tls_context
from mlbox.registry.answers import Answer, Request, answer, broken, refusal
from mlbox.store.store import Store

MAX_CONNECTIONS = 512
"""Further ones are closed at once: each takes a file descriptor."""
MAX_STREAMS = 64
"""Blobs under way at a time; each takes up to three buffers of 1 MiB. Others wait until one is done."""
THREADS = 8
IDLE = 30.0
"""Seconds for the headers of a request to come, counted from the end of the one before."""
STALLED = 60.0
"""Seconds within which a client must take one more chunk (1 MiB at most), or is left."""
GRACE = 3.0
"""Seconds that downloads get to finish when the server is told to end."""

Say = Callable[[str], None]


def serve(store: Store, options: Options, say: Say) -> None:
    """Serve `store` until SIGINT, SIGTERM or SIGHUP; `say` gets a line for every request."""

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(_complaining(say))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serving(store, options, say) as port:
            say(f"serving the images of {store.home.root} on {options.url(port)}; Ctrl-C ends it")
            if options.token and not options.cert and not is_loopback(options.host):
                say("warning: without --cert and --key the token and the images can be read on the way")
            await stop.wait()

    asyncio.run(main())


def _complaining(say: Say) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Return what says the event loop's own troubles, one a minute: without a free descriptor it has many a second."""
    silent_until = 0.0

    def complain(loop: asyncio.AbstractEventLoop, problem: dict[str, Any]) -> None:
        nonlocal silent_until
        if loop.time() >= silent_until:
            silent_until = loop.time() + 60
            say(f"error: {problem['message']}")

    return complain


@contextlib.asynccontextmanager
async def serving(store: Store, options: Options, say: Say) -> AsyncIterator[int]:
    """Serve `store` and yield the port; at the end downloads get GRACE seconds, then everything is closed."""
    with ThreadPoolExecutor(THREADS, "store") as pool:
        handler = _Handler(store, options, say, pool)
        server = web.Server(
            handler.handle, access_log=None, logger=_silent(), keepalive_timeout=IDLE, lingering_time=1.0
        )

        def connected() -> asyncio.BaseProtocol:
            return server() if len(server.connections) < MAX_CONNECTIONS else _Full()

        listening = await _listen(connected, options)
        try:
            yield listening.sockets[0].getsockname()[1]
        finally:
            listening.close()
            server.pre_shutdown()
            await server.shutdown(GRACE)


async def _listen(connected: Callable[[], asyncio.BaseProtocol], options: Options) -> asyncio.Server:
    tls = tls_context(options)
    more: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": 10.0} if tls else {}
    try:
        loop = asyncio.get_running_loop()
        return await loop.create_server(connected, options.host, options.port, backlog=256, **more)
    except OSError as problem:
        hint = "'--listen ADDRESS:PORT' takes another one"
        raise UsageError(f"cannot listen on {options.host}:{options.port}: {problem.strerror}", hint=hint) from problem


def _silent() -> logging.Logger:
    """Return a logger that says nothing: a client's mistakes are in the line of its request."""
    logger = logging.getLogger("mlbox.registry.server")
    logger.disabled = True
    return logger


class _Full(asyncio.Protocol):
    """Closes a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Handler:
    """Answers the requests of all connections."""

    def __init__(self, store: Store, options: Options, say: Say, pool: ThreadPoolExecutor) -> None:
        self._store = store
        self._options = options
        self._say = say
        self._pool = pool
        self._streams = asyncio.Semaphore(MAX_STREAMS)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, and say so in one line."""
        path, _, query = request.raw_path.partition("?")
        asked = Request(method=request.method, path=path, query=query, range=request.headers.get("Range", ""))
        work, sent = _Work(self._store), _Sent()
        try:
            found = self._refused(request) or await self._in_pool(work.answer, asked)
            if found.part is None or request.method == "HEAD":
                return await self._send(request, found, sent)
            async with self._streams:
                begun: Answer = await self._in_pool(work.begin, found)
                return await self._send(request, begun, sent, work)
        except (OSError, TimeoutError, MlboxError) as problem:
            # The client went away or stands still, or the disk failed: it must not take what it has for the whole.
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError from problem
        finally:
            await asyncio.shield(self._in_pool(work.close))
            shown = path[:300].encode("ascii", "backslashreplace").decode()
            self._say(f"{request.remote} {request.method} {shown} {sent.status} {sent.size}")

    def _refused(self, request: web.BaseRequest) -> Answer | None:
        if not self._options.token:
            if names_this_machine(request.headers.get("Host", "")):
                return None
            return refusal(403, "DENIED", "without a token only this machine's own names may be asked")
        if may_enter(request.headers.get("Authorization", ""), self._options.token):
            return None
        return refusal(401, "UNAUTHORIZED", "a token is needed", {"WWW-Authenticate": 'Basic realm="mlbox"'})

    async def _send(
        self, request: web.BaseRequest, found: Answer, sent: "_Sent", work: "_Work | None" = None
    ) -> web.StreamResponse:
        """Send the headers, and the body or what `work` reads."""
        response = web.StreamResponse(status=found.status, headers=found.headers)
        response.headers.update({"Server": "mlbox", "Docker-Distribution-Api-Version": "registry/2.0"})
        response.content_length = found.length if found.part else len(found.body)
        if request.can_read_body:
            response.force_close()  # whatever the client sends along is not read
        sent.status = found.status
        async with asyncio.timeout(STALLED):
            await response.prepare(request)
        chunk = b"" if request.method == "HEAD" else found.body
        while chunk or (work and (chunk := await self._in_pool(work.read))):
            async with asyncio.timeout(STALLED):
                await response.write(chunk)
            sent.size += len(chunk)
            chunk = b""
        await response.write_eof()
        return response

    def _in_pool(self, function: Callable[..., Any], *args: object) -> "asyncio.Future[Any]":
        return asyncio.get_running_loop().run_in_executor(self._pool, function, *args)


class _Sent:
    """What became of a request, for the log."""

    def __init__(self) -> None:
        self.status = 0
        self.size = 0


class _Work:
    """One request's use of the store, by the pool's threads; prune is kept away until it is closed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()  # a request that is given up is closed while its last step may still run
        self._using = contextlib.ExitStack()
        self._chunks: Iterator[bytes | memoryview] = iter(())
        self._left = 0
        self._closed = False

    def answer(self, request: Request) -> Answer:
        """Return the answer; what it refers to stays in the store until `close`."""
        with self._lock:
            if not self._closed:
                self._using.enter_context(self._store.using())
            return answer(self._store, request)

    def begin(self, found: Answer) -> Answer:
        """Make `read` return the part of an answer; returns the answer, or an error when the part cannot be read."""
        with self._lock:
            if found.part is not None and not self._closed:
                try:
                    self._chunks = iter(found.part.open(found.start))
                except (MlboxError, OSError):
                    return broken()
                self._left = found.length
            return found

    def read(self) -> bytes:
        """Return the next bytes of the content, none at its end; raises StoreError when the store has fewer."""
        with self._lock:
            if not self._left:
                return b""
            chunk = bytes(next(self._chunks, b"")[: self._left])
            if not chunk:
                raise StoreError("a layer is shorter than its image says", hint="run 'mlbox fsck --deep'")
            self._left -= len(chunk)
            return chunk

    def close(self) -> None:
        """Let prune come."""
        with self._lock:
            self._closed = True
            self._chunks = iter(())
            self._using.close()
