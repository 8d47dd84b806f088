"""THE HOT PATH: connect, send, receive, stamp. Nothing else stamps, and nothing here reads an event.

A read is `(stamp_ns, body bytes)`; what it means is worked out later (reading.py). The stamp is the kernel's time of
arrival of the last returned byte's segment (SO_TIMESTAMPNS), moved to the monotonic clock, so that a busy event loop
cannot move it; where the kernel gives none, it is taken right after the read and the exchange says so.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import httptools

from servemark.harness.clock import now_ns, wall_offset_ns
from servemark.harness.load.messages import Address, Job
from servemark.harness.load.tls import TlsLayer
from servemark.harness.types import ErrorKind

READ_BYTES = 65536
SO_TIMESTAMPNS = 35  # Linux, asm-generic/socket.h; the socket module does not name it
PENDING_BYTES_LIMIT = 65536
"""An exchange that holds more undecoded bytes than this is decoded before it has ended."""
_AWAITED_BYTES = 2048
"""Likewise where another turn waits for the answer: little is then left to read when it ends."""

_TIMESPEC = struct.Struct("qq")
_CONTROL_BYTES = socket.CMSG_SPACE(_TIMESPEC.size) if sys.platform == "linux" else 0


class Exchange:
    """One request on its way. The wire writes it, the runner and the reader read it."""

    __slots__ = (
        "address",
        "complete",
        "connect_ns",
        "connect_started_ns",
        "content_type",
        "done_ns",
        "error",
        "error_detail",
        "first_byte_ns",
        "full_bytes",
        "intended_ns",
        "job",
        "pending_bytes",
        "queued",
        "reading",
        "reads",
        "ready_ns",
        "recorded",
        "resends",
        "sent_ns",
        "stamp",
        "status",
    )

    def __init__(self, job: Job, intended_ns: int) -> None:
        self.job = job
        self.intended_ns = intended_ns
        self.address = 0  # its place in the plan, chosen when it is sent
        self.ready_ns: int | None = None
        self.sent_ns: int | None = None
        self.connect_started_ns: int | None = None
        self.connect_ns: int | None = None
        self.first_byte_ns: int | None = None
        self.done_ns: int | None = None
        self.status: int | None = None
        self.content_type = b""
        self.reads: list[tuple[int, bytes]] = []
        self.pending_bytes = 0
        self.full_bytes = _AWAITED_BYTES if job.more else PENDING_BYTES_LIMIT
        self.complete = False
        self.error: ErrorKind | None = None
        self.error_detail: str | None = None
        self.resends = 0
        self.stamp: Literal["kernel", "user"] = "kernel"
        self.queued = False
        self.recorded = False
        self.reading: Any = None  # the reader's state, made when it first looks


class WireClock:
    """Moves the kernel's wall-clock stamps to the monotonic clock by one offset, taken at the start."""

    def __init__(self) -> None:
        self.offset_ns = wall_offset_ns()

    def step_ns(self) -> int:
        """How far the wall clock has moved against the monotonic one since the start."""
        return abs(wall_offset_ns() - self.offset_ns)


Endpoints = Sequence[tuple[Any, ...]]
"""What getaddrinfo answers."""


async def open_connection(
    place: int,
    address: Address,
    endpoints: Endpoints,
    clock: WireClock,
    *,
    context: ssl.SSLContext | None,
    timeout_s: float,
    on_done: Callable[[Connection, Exchange], None],
    on_full: Callable[[Exchange], None],
    on_idle_lost: Callable[[Connection], None],
) -> Connection:
    """Connects, and shakes hands where there is TLS. Raises OSError (ssl.SSLError included) or TimeoutError.

    `place` is the address's in the plan.
    """
    loop = asyncio.get_running_loop()
    started_ns = now_ns()
    async with asyncio.timeout(timeout_s):
        sock = await _connect(loop, address, endpoints)
        try:
            tls = None
            if context is not None:
                tls = TlsLayer(context, address.host)
                await tls.handshake(loop, sock)
        except BaseException:
            sock.close()
            raise
    return Connection(loop, place, sock, tls, clock, started_ns, on_done, on_full, on_idle_lost)


async def _connect(loop: asyncio.AbstractEventLoop, address: Address, endpoints: Endpoints) -> socket.socket:
    """To the first of the host's addresses that answers."""
    failure: OSError | None = None
    for family, kind, protocol, _, target in endpoints:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sys.platform == "linux":
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            await loop.sock_connect(sock, target)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure or OSError(f"{address.host} has no address")


class Connection:
    """One connection, which carries one exchange at a time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        place: int,
        sock: socket.socket,
        tls: TlsLayer | None,
        clock: WireClock,
        started_ns: int,
        on_done: Callable[[Connection, Exchange], None],
        on_full: Callable[[Exchange], None],
        on_idle_lost: Callable[[Connection], None],
    ) -> None:
        self.place = place
        self.started_ns = started_ns
        self.opened_ns = now_ns()
        self.idle_since_ns = self.opened_ns
        self.requests = 0
        self.closed = False
        self.reusable = True
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._recvmsg = sock.recvmsg
        self._tls = tls
        self._offset_ns = clock.offset_ns
        self._on_done = on_done
        self._on_full = on_full
        self._on_idle_lost = on_idle_lost
        self._exchange: Exchange | None = None
        self._parser: Any = None
        self._framed = False  # the response has a length or chunks, so its end does not hang on the connection's
        self.last_read_ns = 0
        self._unsent = b""
        loop.add_reader(self._fd, self._readable)

    def send(self, exchange: Exchange) -> None:
        """Hands a request to the kernel; the stamp is taken just before."""
        data = exchange.job.message(exchange.address)
        if self._tls is not None:
            data = self._tls.encrypt(data)
        self._parser = httptools.HttpResponseParser(self)
        self._framed = False
        self._exchange = exchange
        self.requests += 1
        exchange.connect_started_ns = self.started_ns
        exchange.connect_ns = self.opened_ns
        exchange.sent_ns = now_ns()
        self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._lost("reset", str(error))
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        self._loop.remove_writer(self._fd)
        self._write(self._unsent)

    def _readable(self) -> None:
        try:
            data, control, _, _ = self._recvmsg(READ_BYTES, _CONTROL_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost("reset", str(error))
            return
        exchange = self._exchange
        if control:
            seconds, nanoseconds = _TIMESPEC.unpack(control[0][2])
            self.last_read_ns = seconds * 1_000_000_000 + nanoseconds - self._offset_ns
        else:
            self.last_read_ns = now_ns()
            if data and exchange is not None:
                exchange.stamp = "user"
        if not data:
            self._ended()
            return
        if self._tls is not None:
            try:
                data = self._tls.decrypt(data)
            except ssl.SSLError as error:
                self._lost("reset", f"TLS: {error.reason}")
                return
            if not data:
                if self._tls.closed:
                    self._ended()
                return
        if exchange is None:  # nothing was asked for: not a connection to use again
            self._lost("protocol", "bytes without a request")
            return
        if exchange.first_byte_ns is None:
            exchange.first_byte_ns = self.last_read_ns
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lost("protocol", f"not an HTTP response: {error}")
            return
        if exchange.complete:
            self._finish(exchange)
        elif exchange.pending_bytes > exchange.full_bytes:
            self._on_full(exchange)

    # httptools calls these while it is fed.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        elif name == b"content-type" and self._exchange is not None:
            self._exchange.content_type = value

    def on_headers_complete(self) -> None:
        if self._exchange is not None:
            self._exchange.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.reads.append((self.last_read_ns, body))
            exchange.pending_bytes += len(body)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.status is not None and 100 <= exchange.status < 200:  # an interim response; the real one follows
            exchange.status = None
            return
        exchange.complete = True
        self.reusable = bool(self._parser.should_keep_alive())

    def _finish(self, exchange: Exchange) -> None:
        self._exchange = self._parser = None
        exchange.done_ns = self.last_read_ns
        if not self.reusable or self._unsent:
            self.close()
        else:
            self.idle_since_ns = now_ns()
        self._on_done(self, exchange)

    def _ended(self) -> None:
        """The peer closed its side: the regular end of a response without length, else a cut."""
        exchange = self._exchange
        if exchange is not None and exchange.status is not None:
            if not self._framed:
                exchange.complete = True
                self.close()
                self._finish(exchange)
            else:
                self._lost("incomplete", "the server closed the connection in the middle of the response")
            return
        self._lost("reset", "the server closed the connection before it answered")

    def _lost(self, kind: ErrorKind, detail: str) -> None:
        self.close()
        exchange, self._exchange, self._parser = self._exchange, None, None
        if exchange is None:
            self._on_idle_lost(self)
            return
        exchange.error, exchange.error_detail = kind, detail
        exchange.done_ns = now_ns()
        self._on_done(self, exchange)

    def abort(self, kind: ErrorKind, detail: str) -> None:
        """Ends the exchange in flight with this error; its connection cannot be used again."""
        self._lost(kind, detail)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.reusable = False
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._sock.close()
