"""When each request leaves: an open loop by its schedule, a closed loop by its free slots."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.load.jobs import JobQueue
from servemark.harness.load.messages import Plan
from servemark.harness.load.pacer import Pacer
from servemark.harness.load.throttle import Throttle
from servemark.harness.load.wire import Exchange
from servemark.harness.types import Phase

_RETRY_S = 0.1  # a slot whose request failed pauses: a server that fails at once must not be stormed


class Lateness:
    """Requests that were not encoded when they were due."""

    def __init__(self) -> None:
        self.jobs = 0
        self.max_ns = 0

    def note(self, late_ns: int) -> None:
        if late_ns > 0:
            self.jobs += 1
            self.max_ns = max(self.max_ns, late_ns)


class Issuer(Protocol):
    late: Lateness
    throttle: Throttle | None

    async def issue(self) -> None:
        """Hands requests to `start` until the schedule is done; cancelled to stop before."""

    def ended(self, exchange: Exchange) -> None:
        """A request is over, in whatever way: there is room for another."""

    def take_back(self) -> list[Exchange]:
        """What is due and not started, which then never will be."""


Start = Callable[[Exchange], None]


def issuer_for(plan: Plan, jobs: JobQueue, pacer: Pacer, started_ns: int, start: Start) -> Issuer:
    kind = OpenIssuer if plan.concurrency is None else ClosedIssuer
    return kind(plan, jobs, pacer, started_ns, start)


def phase_of(plan: Plan, started_ns: int, index: int, intended_ns: int) -> Phase:
    """By number where the warm-up is one, else by the intended time."""
    early = index < plan.warmup_requests or intended_ns < started_ns + plan.warmup_ns
    return "warmup" if early else "measured"


class OpenIssuer:
    """Sleeps to each absolute deadline; what the server does has no say in it, but for a cap in flight."""

    def __init__(self, plan: Plan, jobs: JobQueue, pacer: Pacer, started_ns: int, start: Start) -> None:
        self._cap = plan.max_in_flight
        self._jobs = jobs
        self._pacer = pacer
        self._started_ns = started_ns
        self._start = start
        self._in_flight = 0
        self._held: deque[Exchange] = deque()  # due, but the cap is reached
        self.late = Lateness()
        self.throttle: Throttle | None = None

    async def issue(self) -> None:
        while True:
            waited = not len(self._jobs)
            job = await self._jobs.get()
            if job is None:
                return
            due_ns = self._started_ns + (job.offset_ns or 0)
            if waited:
                self.late.note(now_ns() - due_ns)
            await self._pacer.until(due_ns)
            exchange = Exchange(job, due_ns)
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


class ClosedIssuer:
    """Each slot's next request is intended when its last one ended, plus think time, and the throttle lets it go."""

    def __init__(self, plan: Plan, jobs: JobQueue, pacer: Pacer, started_ns: int, start: Start) -> None:
        self._plan = plan
        self._jobs = jobs
        self._pacer = pacer
        self._started_ns = started_ns
        self._start = start
        self._measured = 0
        self._over = asyncio.Event()
        self._hungry: deque[int] = deque()  # slots without a job, by when they came free
        self._fed = asyncio.Event()
        self._thinking: set[asyncio.Task[None]] = set()
        self.late = Lateness()
        self.throttle = Throttle(plan.requests_per_minute) if plan.requests_per_minute else None

    async def issue(self) -> None:
        await self._pacer.until(self._started_ns)
        for _ in range(self._plan.concurrency or 0):
            self._next(self._started_ns)
        feeding = asyncio.create_task(self._feed())
        try:
            async with asyncio.timeout(self._seconds()):
                await self._over.wait()
                if self._enough:
                    self.take_back()
                else:
                    await asyncio.gather(*self._thinking)
        except TimeoutError:
            self.take_back()
        finally:
            self._over.set()
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            for free_ns in self._hungry:  # waited to the end, in vain
                self.late.note(now_ns() - free_ns)

    def _seconds(self) -> float | None:
        """How long to issue, from now; None where a count decides."""
        if self._plan.duration_ns is None:
            return None
        end_ns = self._started_ns + self._plan.warmup_ns + self._plan.duration_ns
        return max(0.0, (end_ns - now_ns()) / SECOND)

    def ended(self, exchange: Exchange) -> None:
        if exchange.error is not None:
            asyncio.get_running_loop().call_later(_RETRY_S, lambda: self._next(now_ns()))
        else:
            self._next(exchange.done_ns or now_ns())

    def _next(self, free_ns: int) -> None:
        """Gives a slot that came free at `free_ns` its next request."""
        if self._over.is_set():
            return
        job = self._jobs.take() if not self._hungry else None
        if job is not None:
            self._launch(Exchange(job, free_ns))
        elif self._jobs.ended and not len(self._jobs):
            self._over.set()
        else:
            self._hungry.append(free_ns)
            self._fed.set()

    async def _feed(self) -> None:
        """Slots that came free before their request was encoded get it as soon as it is."""
        while True:
            await self._fed.wait()
            self._fed.clear()
            while self._hungry:
                job = await self._jobs.get()
                if job is None:
                    self._over.set()
                    return
                free_ns = self._hungry.popleft()
                self.late.note(now_ns() - free_ns)
                self._launch(Exchange(job, free_ns))

    def _launch(self, exchange: Exchange) -> None:
        think_ns = self._plan.think_time_ns if exchange.intended_ns > self._started_ns else 0
        exchange.intended_ns += think_ns
        if not think_ns and self.throttle is None:
            self._depart(exchange)
            return
        task = asyncio.create_task(self._start_later(exchange))
        self._thinking.add(task)
        task.add_done_callback(self._thinking.discard)

    async def _start_later(self, exchange: Exchange) -> None:
        await self._pacer.until(exchange.intended_ns)
        if self.throttle is not None:
            exchange.intended_ns = await self.throttle.let_go(exchange.intended_ns)
        self._depart(exchange)

    @property
    def _enough(self) -> bool:
        return self._measured == self._plan.measured_requests

    def _depart(self, exchange: Exchange) -> None:
        """Only now it is known whether it counts: it may have waited beyond the end of the warm-up."""
        if self._enough:
            return
        if phase_of(self._plan, self._started_ns, exchange.job.index, exchange.intended_ns) == "measured":
            self._measured += 1
            if self._enough:
                self._over.set()
        self._start(exchange)

    def take_back(self) -> list[Exchange]:
        """Nothing: who is thinking, or is held back, has not asked yet."""
        for task in self._thinking:
            task.cancel()
        return []
