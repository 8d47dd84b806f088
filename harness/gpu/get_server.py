"""The smallest HTTP server for one page: GET of one path, bounded in size, time and number, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from servemark.harness.clock import now_ns

_LONGEST_HEAD = 8 * 1024
_MOST_CONNECTIONS = 32
_HEAD_WITHIN_S = 5.0
_IDLE_S = 60.0
_WRITTEN_WITHIN_S = 5.0

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Page:
    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


def _says(status: int, sentence: str) -> Page:
    return Page(f"{sentence}\n".encode(), status)


class GetServer:
    """Answers `path` with what `page` gives, which is told when the request was there, on the monotonic clock."""

    def __init__(self, path: str, page: Callable[[int], Awaitable[Page]]) -> None:
        self._path = path
        self._page = page
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._closing = False
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """The address that it listens on. Raises OSError."""
        self._listener = await asyncio.start_server(self._connection, host, port, limit=_LONGEST_HEAD)
        found: tuple[str, int] = self._listener.sockets[0].getsockname()[:2]
        return found

    async def close(self) -> None:
        """Open connections are cut, whatever they wait for."""
        self._closing = True
        if self._listener is not None:
            self._listener.close()
        tasks = [task for task in self._open.values() if task is not None]
        for writer, task in list(self._open.items()):
            writer.transport.abort()
            if task is not None:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = asyncio.current_task()
        try:
            if len(self._open) > _MOST_CONNECTIONS:
                await _write(writer, _says(503, "too many connections"), keep=False)
                return
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, TimeoutError):  # whoever asked has gone, or takes too long
            writer.transport.abort()
        except asyncio.CancelledError:
            if not self._closing:  # asyncio complains on stderr of connections that end so
                raise
        finally:
            del self._open[writer]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether another may come."""
        async with asyncio.timeout(_IDLE_S):
            first = await reader.readexactly(1)
        try:
            async with asyncio.timeout(_HEAD_WITHIN_S):
                head = first + await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            await _write(writer, _says(431, "the request's head is too long"), keep=False)
            return False
        page, keep = await self._answer(head, now_ns())
        await _write(writer, page, keep)
        return keep

    async def _answer(self, head: bytes, asked_ns: int) -> tuple[Page, bool]:
        """The page, and whether the connection stays open: what has a body is not read any further."""
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _says(400, "this is no HTTP/1.1 request"), False
        if fields.get("content-length", "0") != "0" or "transfer-encoding" in fields:
            return _says(400, "a request here has no body"), False
        keep = words[2] == "HTTP/1.1" and fields.get("connection", "").lower() != "close"
        if words[0] != "GET":
            return _says(405, "there is only GET here"), False
        if words[1].partition("?")[0] != self._path:
            return _says(404, f"there is only {self._path} here"), keep
        return await self._page(asked_ns), keep


async def _write(writer: asyncio.StreamWriter, page: Page, keep: bool) -> None:
    lines = [
        f"HTTP/1.1 {page.status} {_REASONS[page.status]}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(page.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        f"Connection: {'keep-alive' if keep else 'close'}",
    ]
    if page.status == 405:
        lines.append("Allow: GET")
    writer.write("\r\n".join([*lines, "", ""]).encode("ascii") + page.body)
    async with asyncio.timeout(_WRITTEN_WITHIN_S):
        await writer.drain()
