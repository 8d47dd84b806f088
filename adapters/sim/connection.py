"""HTTP/1.1 on one server connection: requests in, one response at a time out. It knows no route and no model."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from http.client import responses as REASONS
from socket import SO_LINGER, SOL_SOCKET
from typing import Final, cast

import httptools

from servemark.harness.clock import now_ns

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
Headers = tuple[tuple[str, str], ...]
LAST_CHUNK: Final = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One piece of a chunked response."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(status: int, headers: Headers) -> bytes:
    """The status line and the headers of a response."""
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", "server: servemark-sim"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def stream_head(content_type: str, *headers: tuple[str, str], status: int = 200) -> bytes:
    """The head of a response whose body comes in chunks."""
    return head(status, (("content-type", content_type), *headers, ("transfer-encoding", "chunked")))


class Exchange:
    """One request and the means to answer it. `arrived_ns` is when its last byte was read."""

    __slots__ = ("_connection", "arrived_ns", "body", "method", "on_lost", "path")

    def __init__(self, connection: Connection, method: str, path: str, body: bytes) -> None:
        self._connection = connection
        self.method = method
        self.path = path
        self.body = body
        self.arrived_ns = now_ns()
        self.on_lost: Callable[[], None] | None = None
        """Called when the client goes away before the response is complete."""

    def respond(self, status: int, body: bytes, content_type: str = "application/json", headers: Headers = ()) -> None:
        of_body = (("content-type", content_type),) if body else ()
        top = head(status, (("content-length", str(len(body))), *of_body, *headers))
        self.write(top if self.method == "HEAD" else top + body)
        self.end()

    def start_stream(self) -> None:
        self.write(stream_head("text/event-stream; charset=utf-8"))

    def write(self, data: bytes) -> None:
        """Raw bytes of the response; of a stream, whole chunks."""
        self._connection.write(data)

    def end(self) -> None:
        self.on_lost = None
        self._connection.response_done()

    def cut(self, reset: bool = False) -> None:
        """Breaks the connection."""
        self.on_lost = None
        self._connection.cut(reset)


class Connection(asyncio.Protocol):
    """Keep-alive, one exchange at a time; requests that come early wait their turn."""

    def __init__(self, handle: Callable[[Exchange], None], connections: set[Connection]) -> None:
        self._handle = handle
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._too_large = False
        self._current: Exchange | None = None
        self._next: deque[tuple[Exchange, bool]] = deque()
        self._keep_alive = True
        self.idle_since_ns: int | None = now_ns()

    # -- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.close()
        except httptools.HttpParserError:
            self._refuse("400 Bad Request", "Invalid HTTP request received.")

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        self._transport = None
        self._next.clear()
        exchange, self._current = self._current, None
        if exchange is not None and exchange.on_lost is not None:
            exchange.on_lost()

    # -- parser callbacks (names given by httptools)

    def on_message_begin(self) -> None:
        self._url, self._body, self._body_bytes, self._too_large = b"", [], 0, False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Sent by clients with large bodies, which wait for the answer.
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._too_large = self._too_large or self._body_bytes > MAX_BODY_BYTES
        if not self._too_large:
            self._body.append(body)

    def on_message_complete(self) -> None:
        path = self._url.partition(b"?")[0].decode("latin-1")
        method = self._parser.get_method().decode("latin-1")
        exchange = Exchange(self, method, path, b"".join(self._body))
        self._body = []
        if self._too_large:
            self._refuse("413 Content Too Large", f"The body exceeds {MAX_BODY_BYTES} bytes.")
            return
        self._next.append((exchange, self._parser.should_keep_alive()))
        self._start_next()

    # -- responses

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def response_done(self) -> None:
        self._current = None
        self.idle_since_ns = now_ns()
        if not self._keep_alive:
            self.close()
        elif self._next:
            asyncio.get_running_loop().call_soon(self._start_next)

    def close(self) -> None:
        """After what has been written is sent."""
        if self._transport is not None:
            self._transport.close()

    def cut(self, reset: bool) -> None:
        """At once; with `reset` the client gets an RST, which also discards what it has not read."""
        if self._transport is None:
            return
        if reset:
            socket = self._transport.get_extra_info("socket")
            socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _start_next(self) -> None:
        if self._current is None and self._next and self._transport is not None:
            self._current, self._keep_alive = self._next.popleft()
            self.idle_since_ns = None
            self._handle(self._current)

    def _refuse(self, status: str, why: str) -> None:
        """Of what cannot be answered in order; a response that is under way is left as it is, cut short."""
        if self._current is None:
            head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
            self.write(f"{head}content-length: {len(why)}\r\n\r\n{why}".encode())
        self.close()
