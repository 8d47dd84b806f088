"""Encoded requests that wait in the worker for their moment.

The coordinator bounds them: it keeps at most a look-ahead of jobs (in count and bytes) beyond those the worker says it
has taken, so its other messages are never stuck behind requests.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from servemark.harness.load.messages import Job

TAKEN_EVERY = 32


class JobQueue:
    """In order. `on_taken` gets the running count every few jobs, and at each while few are left."""

    def __init__(self, on_taken: Callable[[int], None]) -> None:
        self._on_taken = on_taken
        self._jobs: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._taken = 0
        self.ended = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        self._jobs.append(job)
        self._arrived.set()

    def end(self) -> None:
        self.ended = True
        self._arrived.set()

    def take(self) -> Job | None:
        """The next job if it is there."""
        if not self._jobs:
            return None
        job = self._jobs.popleft()
        self._taken += 1
        # When few are left each one counts: a look-ahead that is bounded in bytes may hold fewer jobs than TAKEN_EVERY.
        if self._taken % TAKEN_EVERY == 0 or (len(self._jobs) < TAKEN_EVERY and not self.ended):
            self._on_taken(self._taken)
        return job

    async def get(self) -> Job | None:
        """The next job, waited for; None when there will be none."""
        while (job := self.take()) is None:
            if self.ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return job
