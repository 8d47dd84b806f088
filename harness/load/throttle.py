"""A cap on requests per minute, as hosted endpoints have one: the client waits, so that the server need not refuse."""

from __future__ import annotations

import asyncio

from asyncio_throttle.throttler import Throttler

from servemark.harness.clock import SECOND, now_ns

_SHORTEST_S = 0.1
_POLLS = 100  # in a period: an interval is overshot by a hundredth of it at most
_LEAST_POLL_S, _MOST_POLL_S = 0.001, 0.01  # the event loop's timers tick in milliseconds


class Throttle:
    """Lets requests go in the order in which they come, evenly spread over each minute.

    Not the whole allowance at once: many endpoints enforce a limit per minute over seconds, and latencies of a burst
    at the top of each minute are not those of the load that was meant. Above ten a second they go in small groups,
    each tenth of a second. It never lets more than `per_minute` go in any 60 s.
    """

    def __init__(self, per_minute: int) -> None:
        together = max(1, int(per_minute * _SHORTEST_S / 60))
        period_s = 60 / (per_minute // together)
        poll_s = min(max(period_s / _POLLS, _LEAST_POLL_S), _MOST_POLL_S)
        self._throttler = Throttler(together, period_s, poll_s)
        self._turn = asyncio.Lock()
        self.held = 0
        self.held_ns = 0

    async def let_go(self, intended_ns: int) -> int:
        """When the request is intended: now, where it was held, else as before."""
        came_ns = now_ns()
        async with self._turn:
            await self._throttler.acquire()  # type: ignore[no-untyped-call]
        now = now_ns()
        if now - came_ns < _LEAST_POLL_S * SECOND:
            return intended_ns
        self.held += 1
        self.held_ns += now - came_ns
        return now
