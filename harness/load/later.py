"""Record now, read later: responses are read in slices, between looks at the sockets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from servemark.harness.load.pacer import Pacer
from servemark.harness.load.reading import Reader
from servemark.harness.load.wire import Exchange
from servemark.harness.types import Phase, Record

_SLICE_READS = 16  # about 0.1 ms


class ReadLater:
    """Takes exchanges that have ended, or grown long, and gives the records of the former to `on_record`.

    A turn that another one follows goes to `on_turn`, with its answer's text where it has succeeded.
    """

    def __init__(
        self,
        reader: Reader,
        pacer: Pacer,
        phase: Callable[[Exchange], Phase],
        on_record: Callable[[Record], None],
        on_turn: Callable[[Record, str | None], None],
    ) -> None:
        self._reader = reader
        self._pacer = pacer
        self._phase = phase
        self._on_record = on_record
        self._on_turn = on_turn
        self._waiting: deque[Exchange] = deque()
        self._wanted = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.finished = 0
        self.reads = 0
        """Of the finished ones."""

    def add(self, exchange: Exchange) -> None:
        self._waiting.append(exchange)
        self._empty.clear()
        self._wanted.set()

    def add_early(self, exchange: Exchange) -> None:
        """One that has not ended, but of which much is held undecoded."""
        if not exchange.queued:
            exchange.queued = True
            self.add(exchange)

    async def work(self) -> None:
        """Until cancelled."""
        while True:
            if not self._waiting:
                self._empty.set()
                self._wanted.clear()
                await self._wanted.wait()
            await self._read(self._waiting.popleft())

    async def _room(self) -> None:
        """A look at the sockets, and more of them while a send is nearly due."""
        await asyncio.sleep(0)
        while self._pacer.due_soon:
            await asyncio.sleep(0)

    async def emptied(self) -> None:
        await self._empty.wait()

    async def _read(self, exchange: Exchange) -> None:
        await self._room()
        ended = exchange.done_ns is not None and not exchange.recorded
        while not self._reader.consume(exchange, _SLICE_READS):
            await self._room()
        exchange.queued = False
        if ended:
            exchange.recorded = True
            record = self._reader.record(exchange, self._phase(exchange))
            self.finished += 1
            self.reads += record.reads
            if exchange.job.more:
                self._on_turn(record, self._reader.answer(exchange) if record.error is None else None)
            else:
                self._on_record(record)
