"""`bench gpu-exporter`: tells of this machine's GPUs over HTTP, to a run elsewhere and to Prometheus.

It reads when it is asked, so it costs nothing while nobody asks, and a mean since the last reading is one since the
last time that somebody asked.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, Protocol

from servemark.harness.clock import MS, SECOND, now_ns
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.gpu.exposition import answered, write
from servemark.harness.gpu.get_server import GetServer, Page
from servemark.harness.gpu.nvml import Reader
from servemark.harness.gpu.watch import LEAST_PERIOD_S
from servemark.harness.plaintext import one_line
from servemark.harness.server.address import is_loopback
from servemark.harness.types import GpuSample
from servemark.harness.units import parse_duration

PATH = "/metrics"
_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_READ_WITHIN_S = 5.0
"""A driver that hangs holds up an answer no longer than this."""
_LONGEST_WAIT_NS = SECOND // 4
_LATE_NS = 5 * MS
_CLOSED_WITHIN_S = 2.0


class Gpus(Protocol):
    """What is told of; `nvml.Reader` is one. Read in a thread, by one at a time."""

    def read(self) -> list[GpuSample]: ...

    def facts(self) -> dict[str, Any]: ...


class Readings:
    """The latest reading, taken anew for whoever asks, but no more often than every `period_s`."""

    def __init__(self, gpus: Gpus, period_s: float) -> None:
        self._gpus = gpus
        self._period_ns = round(period_s * SECOND)
        self._read_ns = 0
        self._running: asyncio.Future[None] | None = None
        self.samples: list[GpuSample] = []
        self.facts: Mapping[str, Any] = {}

    async def refresh(self) -> None:
        """Raises TimeoutError where the driver gives no answer.

        Who comes shortly before a period's end waits for it and a new reading: somebody who asks once in every period
        gets a new one each time, whatever the beat.
        """
        if self._running is None:
            due_ns, asked_ns = self._read_ns + self._period_ns, now_ns()
            if self.samples and due_ns - asked_ns > min(self._period_ns // 2, _LONGEST_WAIT_NS):
                return
            self._running = asyncio.ensure_future(self._take(max(due_ns, asked_ns) if self.samples else asked_ns))
            self._running.add_done_callback(self._done)
        async with asyncio.timeout(_READ_WITHIN_S):
            await asyncio.shield(self._running)

    def _done(self, _: object) -> None:
        self._running = None

    async def _take(self, due_ns: int) -> None:
        await asyncio.sleep((due_ns - now_ns()) / SECOND)
        # Counted from when it was due: else each would be a little later than the last, and one left out in the end.
        self._read_ns = max(due_ns, now_ns() - _LATE_NS)
        self.samples, self.facts = await _in_thread(lambda: (self._gpus.read(), self._gpus.facts()))


async def _in_thread(work: Callable[[], Any]) -> Any:
    """In a thread of its own that the process does not wait for when it ends: the driver may hang in it."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Any] = loop.create_future()

    def tell(result: Any) -> None:
        if not found.done():
            found.set_result(result)

    def run() -> None:
        result = work()
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=run, daemon=True).start()
    return await found


def server(gpus: Gpus, period_s: float) -> GetServer:
    """The page of these GPUs; made inside an event loop or outside."""
    readings, version = Readings(gpus, period_s), metadata.version("servemark")

    async def page(asked_ns: int) -> Page:
        try:
            await readings.refresh()
        except TimeoutError:
            return Page(f"the driver gives no answer within {_READ_WITHIN_S:g} s\n".encode(), 503)
        facts = {**readings.facts, "period_s": period_s}
        text = "".join(write(readings.samples, facts, asked_ns, version, time.process_time()))
        return Page((text + answered(now_ns())).encode(), content_type=_TYPE)

    return GetServer(PATH, page)


def export(host: str, port: int, period: str, chosen: Sequence[str]) -> None:
    """Serves until SIGINT or SIGTERM. BadInput for what cannot be, TargetUnusable where there is no GPU to read."""
    period_s = _period_s(period)
    reader = Reader(period_s, chosen)
    try:
        if not reader.alive:
            notes = reader.facts()["notes"] or ["no GPU was found"]
            raise TargetUnusable("; ".join(one_line(note) for note in notes))
        for note in reader.facts()["notes"]:
            _warn(one_line(note))
        asyncio.run(_serve(reader, host, port, period_s))
    finally:
        closing = threading.Thread(target=reader.close, daemon=True)  # as the driver may hang
        closing.start()
        closing.join(_CLOSED_WITHIN_S)


def _period_s(text: str) -> float:
    try:
        period_s = parse_duration(text) / SECOND
    except ValueError as error:
        raise BadInput(f"--period: {error}") from None
    if period_s < LEAST_PERIOD_S:
        raise BadInput(f"--period: {text} is too often; give {LEAST_PERIOD_S * 1000:g}ms or more")
    return period_s


async def _serve(gpus: Gpus, host: str, port: int, period_s: float) -> None:
    pages = server(gpus, period_s)
    try:
        there, port = await pages.start(host, port)
    except OSError as error:
        why = error.strerror or str(error)
        raise BadInput(f"--host {host} --port {port}: cannot listen there: {why}; --port 0 takes a free one") from None
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    print(f"listening http://{f'[{there}]' if ':' in there else there}:{port}{PATH}", flush=True)
    if not is_loopback(there):
        _warn(f"{there}:{port} can be read by everybody who reaches it: there is no password and no encryption")
    await stop.wait()
    await pages.close()


def _warn(sentence: str) -> None:
    print(f"bench gpu-exporter: {sentence}", file=sys.stderr, flush=True)
