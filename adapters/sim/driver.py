"""Drives the engine in real time: steps end at absolute deadlines, one after another.

A step starts where the one before ended, or where a request arrived at an idle engine, not where the process got round
to it: lateness does not add up. A request is seen by the first step that starts after its arrival. Only when the
process falls far behind (a laptop that slept) the clock is moved forward.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from servemark.adapters.sim.engine import Engine, EngineRequest
from servemark.adapters.sim.stats import LATENESS_S, Histogram
from servemark.harness.clock import SECOND, now_ns
from servemark.harness.load.pacer import Pacer

FAR_BEHIND_NS: Final = 1 * SECOND


class Driver:
    def __init__(self, engine: Engine, speed: float, on_tokens: Callable[[list[EngineRequest]], None]) -> None:
        self.engine = engine
        self.lateness = Histogram(LATENESS_S)
        self._speed = speed
        self._on_tokens = on_tokens
        self._arrived = asyncio.Event()

    def submit(self, request: EngineRequest) -> None:
        self.engine.submit(request)
        self._arrived.set()

    async def run(self) -> None:
        """Until cancelled."""
        pacer, free_ns = Pacer(), 0
        try:
            while True:
                self._arrived.clear()
                if not self.engine.waiting:
                    await self._arrived.wait()
                if self.engine.waiting:  # it may have been aborted already
                    free_ns = await self._busy_period(pacer, max(free_ns, self.engine.waiting[0].arrival_ns))
        finally:
            pacer.close()

    async def _busy_period(self, pacer: Pacer, start_ns: int) -> int:
        """Steps back to back until there is nothing to do; returns when the last one ended."""
        while (duration_ns := self.engine.begin(start_ns)) is not None:
            end_ns = start_ns + round(duration_ns / self._speed)
            if now_ns() < end_ns:
                await pacer.until(end_ns)
            else:
                await asyncio.sleep(0)  # behind, but connections must still be read
            late_ns = now_ns() - end_ns
            self.lateness.observe(late_ns / SECOND)
            self._on_tokens(self.engine.finish(end_ns))
            start_ns = end_ns if late_ns < FAR_BEHIND_NS else now_ns()
        return start_ns
