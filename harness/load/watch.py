"""Beside the requests: which of them have waited too long, and was the event loop held up?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from servemark.harness.clock import MS, SECOND, now_ns
from servemark.harness.load.messages import Timeouts
from servemark.harness.load.reading import Reader
from servemark.harness.load.wire import Connection, Exchange

_SWEEP_S = 0.05
_TICK_NS = 10 * MS


async def sweep(flying: Mapping[Exchange, Connection | None], reader: Reader, limits: Timeouts) -> None:
    """Until cancelled, ends what has waited too long. Total counts from the send, gap from the last bytes."""
    while True:
        await asyncio.sleep(_SWEEP_S)
        now = now_ns()
        for exchange, connection in list(flying.items()):
            if connection is None or exchange.sent_ns is None:
                continue
            waited_ns = now - exchange.sent_ns
            if waited_ns > limits.total_ns:
                connection.abort("timeout_total", f"not finished after {limits.total_ns / SECOND:g} s")
            elif waited_ns > limits.first_event_ns and not reader.saw_event(exchange):
                connection.abort("timeout_first_event", f"no event after {limits.first_event_ns / SECOND:g} s")
            elif now - connection.last_read_ns > limits.gap_ns and reader.saw_event(exchange):
                connection.abort("timeout_gap", f"no bytes for {limits.gap_ns / SECOND:g} s")


class LoopWatch:
    """Counts the times that the event loop was held longer than it should be."""

    def __init__(self) -> None:
        self.stalls = 0
        self.max_stall_ns = 0

    async def work(self) -> None:
        """Until cancelled."""
        while True:
            before = now_ns()
            await asyncio.sleep(_TICK_NS / SECOND)
            late_ns = now_ns() - before - _TICK_NS
            if late_ns > _TICK_NS:
                self.stalls += 1
                self.max_stall_ns = max(self.max_stall_ns, late_ns)
