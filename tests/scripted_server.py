"""A server that does what the request's path says, so that a test can name each way in which a server can behave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def event(text: str = "a", count: int | None = None, finish: str | None = None) -> bytes:
    usage = f',"usage":{{"prompt_tokens":3,"completion_tokens":{count}}}' if count is not None else ""
    reason = f'"{finish}"' if finish else "null"
    choice = f'{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":{reason}}}'
    return f'data: {{"id":"c1","choices":[{choice}]{usage}}}\n\n'.encode()


DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"engine died","type":"InternalServerError","code":500}}\n\n'


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Peer:
    """One connection as a behaviour sees it. `served` counts the requests before this one on the connection."""

    body = b""
    """Of the request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.served = 0

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def stream(self, tokens: int = 3, pause_s: float = 0.002) -> None:
        await self.send(HEAD)
        for k in range(1, tokens + 1):
            await self.send(chunk(event("w", k, "length" if k == tokens else None)))
            await asyncio.sleep(pause_s)
        await self.send(chunk(DONE), END)

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(behaviours: dict[str, Behaviour], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serves `POST /<name>` with that behaviour on a free loopback port, which it yields."""
    open_writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.add(writer)
        peer = Peer(reader, writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                name = head.split(b" ", 2)[1].decode().strip("/")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                peer.body = await reader.readexactly(length)
                await behaviours[name](peer)
                peer.served += 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            open_writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in list(open_writers):
            writer.transport.abort()
        await asyncio.sleep(0.01)
