"""A closed loop: so many users, each of whom stays with a request, or a session, to its end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from servemark.harness.clock import now_ns
from servemark.harness.load.jobs import JobQueue
from servemark.harness.load.lateness import Lateness
from servemark.harness.load.live import LiveSessions
from servemark.harness.load.messages import Job, Plan
from servemark.harness.load.pacer import Pacer
from servemark.harness.load.phases import CountedTime, phase_of
from servemark.harness.load.throttle import Throttle
from servemark.harness.load.wire import Exchange

_RETRY_S = 0.1  # a slot whose request failed pauses: a server that fails at once must not be stormed


class ClosedIssuer:
    """Each slot's next request is intended when its last one ended, plus think time, and the throttle lets it go.

    Between the turns of a session the slot waits with it, for the think time that the session's own turn brings.
    """

    def __init__(
        self, plan: Plan, jobs: JobQueue, pacer: Pacer, started_ns: int, start: Callable[[Exchange], None]
    ) -> None:
        self._plan = plan
        self._jobs = jobs
        self._pacer = pacer
        self._started_ns = started_ns
        self._start = start
        self._time = CountedTime(plan, started_ns)
        self._limit: asyncio.Timeout | None = None  # of issuing, once the end is known
        self._measured = 0
        self._over = asyncio.Event()  # nothing begins any more
        self._closed = False  # and nothing goes on
        self._hungry: deque[tuple[int, bool]] = deque()  # slots without a job, by when they came free; who thinks
        self._coming: set[asyncio.Task[None]] = set()  # users who start later
        self._fed = asyncio.Event()
        self._thinking: set[asyncio.Task[None]] = set()  # before a first turn
        self._staying: set[asyncio.Task[None]] = set()  # before a later one
        self._last: dict[str, Exchange] = {}  # of sessions whose next turn is not here yet
        self.late = Lateness()
        self.sessions = LiveSessions()
        self.throttle = Throttle(plan.requests_per_minute) if plan.requests_per_minute else None

    async def issue(self) -> None:
        await self._pacer.until(self._started_ns)
        slots = self._plan.concurrency or 0
        for slot in range(slots):
            self._arrive(self._started_ns + self._plan.ramp_up_ns * slot // slots)
        feeding = asyncio.create_task(self._feed())
        try:
            async with asyncio.timeout(self._time.seconds_left) as self._limit:
                await self._to_the_end()
        except TimeoutError:
            self.take_back()
        finally:
            self._limit = None
            self._closed = True
            self._over.set()
            feeding.cancel()
            _cancel(self._coming)
            await asyncio.gather(feeding, return_exceptions=True)
            for free_ns, _ in self._hungry:  # waited to the end, in vain
                self.late.note(now_ns() - free_ns)

    async def _to_the_end(self) -> None:
        """Until nothing begins any more, and what has begun has come to its last turn."""
        await self._over.wait()
        if self._enough:
            _cancel(self._thinking)
        else:
            await asyncio.gather(*self._thinking)
        await self.sessions.all_over()

    def ended(self, exchange: Exchange) -> None:
        job = exchange.job
        if job.more and job.session_id is not None:
            self._last[job.session_id] = exchange
        else:
            self._free(exchange)

    def _free(self, exchange: Exchange) -> None:
        """Whoever sent this, and has nothing to add, makes room for another."""
        if exchange.error is not None:
            asyncio.get_running_loop().call_later(_RETRY_S, lambda: self._next(now_ns()))
        else:
            self._next(exchange.done_ns or now_ns())

    def follow(self, job: Job) -> None:
        if self._last.pop(job.session_id or "", None) is not None and not self._closed:
            self._await(self.sessions.came(job), self._staying)

    def over(self, session_id: str) -> None:
        last = self._last.pop(session_id, None)
        if last is not None:
            self._free(last)
        self.sessions.over(session_id)

    def _arrive(self, at_ns: int) -> None:
        """A user comes at this time, with a first request that takes no thinking."""
        if at_ns <= now_ns():
            self._next(at_ns, thinks=False)
            return
        task = asyncio.create_task(self._arrive_later(at_ns))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def _arrive_later(self, at_ns: int) -> None:
        await self._pacer.until(at_ns)
        self._next(at_ns, thinks=False)

    def _next(self, free_ns: int, thinks: bool = True) -> None:
        """Gives a slot that came free at `free_ns` its next request."""
        if self._over.is_set():
            return
        job = self._jobs.take() if not self._hungry else None
        if job is not None:
            self._begin(job, free_ns, thinks)
        elif self._jobs.ended and not len(self._jobs):
            self._over.set()
        else:
            self._hungry.append((free_ns, thinks))
            self._fed.set()

    async def _feed(self) -> None:
        """Slots that came free before their request was encoded get it as soon as it is."""
        while True:
            await self._fed.wait()
            self._fed.clear()
            while self._hungry:
                job = await self._jobs.get()
                if job is None:
                    self._hungry.clear()
                    self._over.set()
                    return
                free_ns, thinks = self._hungry.popleft()
                self.late.note(now_ns() - free_ns)
                self._begin(job, free_ns, thinks)

    def _begin(self, job: Job, free_ns: int, thinks: bool) -> None:
        """A request or a session that follows on nothing: the slot has had another before it, or none."""
        think_ns = job.think_ns if thinks else 0
        exchange = Exchange(job, free_ns + think_ns)
        if think_ns or self.throttle is not None:
            self._await(exchange, self._thinking)
        else:
            self._depart(exchange)

    def _await(self, exchange: Exchange, waiting: set[asyncio.Task[None]]) -> None:
        if exchange.intended_ns <= now_ns() and self.throttle is None:
            self._depart(exchange)
            return
        task = asyncio.create_task(self._start_later(exchange))
        waiting.add(task)
        task.add_done_callback(waiting.discard)

    async def _start_later(self, exchange: Exchange) -> None:
        await self._pacer.until(exchange.intended_ns)
        if self.throttle is not None:
            exchange.intended_ns = await self.throttle.let_go(exchange.intended_ns)
        self._depart(exchange)

    @property
    def _enough(self) -> bool:
        """What has begun makes as many requests as are asked for, if all of them are answered."""
        wanted = self._plan.measured_requests
        return wanted is not None and self._measured >= wanted

    def _depart(self, exchange: Exchange) -> None:
        """Only now it is known whether it counts: it may have waited beyond the end of the warm-up."""
        job = exchange.job
        if not job.turn:
            if self._enough:
                return
            if phase_of(self._plan, self._started_ns, job.index, exchange.intended_ns) == "measured":
                self._measured += job.turns
                if self._enough:
                    self._over.set()
        if self._time.saw(job.index, exchange.intended_ns):
            self._set_limit()
        self.sessions.due(job)
        self._start(exchange)

    def _set_limit(self) -> None:
        seconds = self._time.seconds_left
        if seconds is not None and self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + seconds)

    def take_back(self) -> list[Exchange]:
        """Nothing: who is thinking, or is held back, has not asked yet."""
        _cancel(self._thinking)
        _cancel(self._staying)
        return []


def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
