"""When each request leaves: an open loop by its schedule, a closed loop by its free slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from servemark.harness.load.closed_loop import ClosedIssuer
from servemark.harness.load.jobs import JobQueue
from servemark.harness.load.lateness import Lateness
from servemark.harness.load.live import LiveSessions
from servemark.harness.load.messages import Job, Plan
from servemark.harness.load.open_loop import OpenIssuer
from servemark.harness.load.pacer import Pacer
from servemark.harness.load.throttle import Throttle
from servemark.harness.load.wire import Exchange


class Issuer(Protocol):
    late: Lateness
    sessions: LiveSessions
    throttle: Throttle | None

    async def issue(self) -> None:
        """Hands requests to `start` until the schedule is done; cancelled to stop before."""

    def ended(self, exchange: Exchange) -> None:
        """A request is over, in whatever way: there is room for another."""

    def follow(self, job: Job) -> None:
        """The next turn of a session whose last one was answered."""

    def over(self, session_id: str) -> None:
        """No turn follows the last one of this session."""

    def take_back(self) -> list[Exchange]:
        """What is due and not started, which then never will be."""


def issuer_for(plan: Plan, jobs: JobQueue, pacer: Pacer, started_ns: int, start: Callable[[Exchange], None]) -> Issuer:
    kind = OpenIssuer if plan.concurrency is None else ClosedIssuer
    return kind(plan, jobs, pacer, started_ns, start)
