"""The simulated server in this process, so that a test sees what its engine did; and its answers read by adapters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.options import SimOptions
from servemark.adapters.sim.server import SimServer
from servemark.harness.load.sse import SseParser
from servemark.harness.server.discovery import load_adapter
from servemark.harness.types import Delta, Endpoint, Message, Options, Outcome, Request

MODEL = "qwen3-0.6b"


@dataclass
class Simulated:
    server: SimServer
    client: httpx.AsyncClient
    port: int
    engine: list[EngineRequest] = field(default_factory=list)
    """What the engine was given, in order; each is kept after its end."""

    async def chunks(self, path: str, **fields: Any) -> list[str]:
        """The payloads of a streamed answer."""
        response = await self.client.post(path, json=fields)
        assert response.status_code == 200, response.text
        return payloads(response.text)


@contextlib.asynccontextmanager
async def simulated(**options: Any) -> AsyncIterator[Simulated]:
    """Serves on a free port of the loopback interface while the block runs."""
    server = SimServer(SimOptions(**{"model": MODEL, "speed": 50.0, **options}))
    listener = await asyncio.get_running_loop().create_server(server.connection, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    task = asyncio.create_task(server.sim.driver.run())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
        one = Simulated(server, client, port)
        _note_requests(one)
        try:
            yield one
        finally:
            listener.close()
            for connection in list(server.connections):
                connection.cut(reset=False)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _note_requests(one: Simulated) -> None:
    submit = one.server.sim.driver.submit

    def noting(request: EngineRequest) -> None:
        one.engine.append(request)
        submit(request)

    one.server.sim.driver.submit = noting  # type: ignore[method-assign]


def payloads(body: str) -> list[str]:
    """What stands after `data:` in each event of a stream."""
    return [event.decode() for event in _events(body.encode())]


def _events(body: bytes) -> list[bytes]:
    parser = SseParser()
    return [*parser.feed(body), *parser.finish()]


@dataclass(frozen=True)
class Reading:
    """One answer as an adapter reads it."""

    status: int
    deltas: list[Delta]
    outcome: Outcome
    clean: bool
    text: str = ""
    """Of the answer."""

    @property
    def tokens(self) -> list[int | None]:
        """Of each chunk that carries any."""
        return [delta.tokens for delta in self.deltas if delta.carries]


async def read(
    one: Simulated,
    dialect: str,
    endpoint: Endpoint,
    prompt: str,
    length: int,
    forced: bool = True,
    target: str | None = None,
    history: tuple[Message, ...] = (),
) -> Reading:
    """Asks through the adapter of the dialect (or of `target`), and reads the answer with its decoder."""
    adapter = load_adapter(target or dialect)
    model = "ensemble" if dialect == "trtllm-triton" else MODEL
    options = Options(model=model, endpoint=endpoint, force_output_length=forced)
    http = adapter.encode(Request(0, prompt, None, length, history=history), options)
    path = f"/v1{http.path}" if target == "openai" else http.path
    body, status, clean = b"", 0, True
    try:
        async with one.client.stream(http.method, path, content=http.body, headers=dict(http.headers)) as response:
            status = response.status_code
            async for piece in response.aiter_bytes():
                body += piece
    except (httpx.RemoteProtocolError, httpx.ReadError):
        clean = False
    decoder = adapter.decoder(endpoint)
    decoder.answer = []
    deltas = [decoder.feed(event) for event in _events(body)] if status == 200 else []
    outcome = decoder.finish(clean)
    return Reading(status, deltas, outcome, clean, "".join(decoder.answer))
