"""An open loop: requests and sessions begin at their own times; a session's next turn is due after its think time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from servemark.harness.clock import now_ns
from servemark.harness.load.jobs import JobQueue
from servemark.harness.load.lateness import Lateness
from servemark.harness.load.live import LiveSessions
from servemark.harness.load.messages import Job, Plan
from servemark.harness.load.pacer import Pacer
from servemark.harness.load.phases import CountedTime
from servemark.harness.load.throttle import Throttle
from servemark.harness.load.wire import Exchange


class OpenIssuer:
    """Sleeps to each absolute deadline; what the server does has no say in it, but for a cap in flight."""

    def __init__(
        self, plan: Plan, jobs: JobQueue, pacer: Pacer, started_ns: int, start: Callable[[Exchange], None]
    ) -> None:
        self._cap = plan.max_in_flight
        self._jobs = jobs
        self._pacer = pacer
        self._started_ns = started_ns
        self._start = start
        self._in_flight = 0
        self._held: deque[Exchange] = deque()  # due, but the cap is reached
        self._thinking: set[asyncio.Task[None]] = set()
        self._time = CountedTime(plan, started_ns)
        self.late = Lateness()
        self.sessions = LiveSessions()
        self.throttle: Throttle | None = None

    async def issue(self) -> None:
        """Until nothing is left to be due: sessions may have turns after the last arrival."""
        try:
            await self._arrivals()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._time.seconds_left):
                    await self.sessions.all_over()
            await asyncio.gather(*self._thinking)  # they are due before the end, which is now
        finally:
            for task in self._thinking:
                task.cancel()

    async def _arrivals(self) -> None:
        while True:
            waited = not len(self._jobs)
            job = await self._jobs.get()
            if job is None:
                return
            due_ns = self._started_ns + (job.offset_ns or 0)
            if waited:
                self.late.note(now_ns() - due_ns)
            self._time.saw(job.index, due_ns)
            await self._pacer.until(due_ns)
            self._due(Exchange(job, due_ns))

    def follow(self, job: Job) -> None:
        """A turn that would be due after the planned time is never sent."""
        exchange = self.sessions.came(job)
        end_ns = self._time.end_ns
        if end_ns is not None and exchange.intended_ns >= end_ns:
            self.over(job.session_id or "")
            return
        if exchange.intended_ns <= now_ns():
            self._due(exchange)
            return
        task = asyncio.create_task(self._think(exchange))
        self._thinking.add(task)
        task.add_done_callback(self._thinking.discard)

    async def _think(self, exchange: Exchange) -> None:
        await self._pacer.until(exchange.intended_ns)
        self._due(exchange)

    def over(self, session_id: str) -> None:
        self.sessions.over(session_id)

    def _due(self, exchange: Exchange) -> None:
        self.sessions.due(exchange.job)
        if self._cap is not None and self._in_flight >= self._cap:
            self._held.append(exchange)
        else:
            self._launch(exchange)

    def _launch(self, exchange: Exchange) -> None:
        self._in_flight += 1
        self._start(exchange)

    def ended(self, exchange: Exchange) -> None:
        self._in_flight -= 1
        if self._held:
            self._launch(self._held.popleft())

    def take_back(self) -> list[Exchange]:
        held = list(self._held)
        self._held.clear()
        return held
