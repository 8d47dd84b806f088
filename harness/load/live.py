"""Sessions as the load generator knows them: which of them are not over."""

from __future__ import annotations

import asyncio

from servemark.harness.clock import now_ns
from servemark.harness.load.messages import Job
from servemark.harness.load.wire import Exchange


class LiveSessions:
    """A session lives from when its first turn is due until its last one is, or until it is said to be over."""

    def __init__(self) -> None:
        self._live: set[str] = set()
        self._none = asyncio.Event()
        self._none.set()

    def came(self, job: Job) -> Exchange:
        """A later turn, which is intended when its think time is over, whenever it came."""
        exchange = Exchange(job, job.due_ns or 0)
        exchange.ready_ns = now_ns()
        return exchange

    def due(self, job: Job) -> None:
        """A request is due, and another may follow it."""
        if job.session_id is None:
            return
        if job.more:
            self._live.add(job.session_id)
            self._none.clear()
        else:
            self.over(job.session_id)

    def over(self, session_id: str) -> None:
        self._live.discard(session_id)
        if not self._live:
            self._none.set()

    async def all_over(self) -> None:
        await self._none.wait()
