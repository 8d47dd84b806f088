"""A run in progress: the load, and beside it the journal, the server's metrics, the live view and Ctrl-C."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from servemark.dashboards.live import LiveView
from servemark.dashboards.progress import Tally
from servemark.harness.clock import SECOND, now_ns
from servemark.harness.interrupts import Interrupts
from servemark.harness.launch.launching import Engine
from servemark.harness.load.batch import BatchFleet
from servemark.harness.load.fleet import Fleet, Follow, nothing_follows
from servemark.harness.load.messages import Job, Plan, Started
from servemark.harness.plaintext import one_line
from servemark.harness.server.target import Target
from servemark.harness.types import Adapter, Record, WorkerReport

INTERRUPT_DRAIN_NS = 5 * SECOND
_WRITING = "the load is over and its result is being written; Ctrl-C again ends without it"


class Journal(Protocol):
    """Takes each record, and writes what is due to be written."""

    def record(self, record: Record) -> None: ...

    def flush_due(self, at_ns: int) -> None: ...


class Reader(Protocol):
    """Reads something beside the load, until cancelled: the server's metrics, the GPUs."""

    async def run(self) -> None: ...


class Drive:
    """A run in progress."""

    def __init__(
        self,
        target: Target,
        plan: Plan,
        jobs: Iterator[Job],
        store: Journal,
        readers: Sequence[Reader],
        title: str,
        quiet: bool,
        follow: Follow = nothing_follows,
    ) -> None:
        self._store = store
        self._engine = target.engine
        self._view = LiveView(f"{target.adapter.name}  {one_line(target.model)}  {title}", quiet=quiet)
        self._tally = _tally(plan)
        self._readers = tuple(readers)
        self._fleet = self._fleet_for(target.adapter, plan, jobs, follow)
        self._brief_drain_ns = min(INTERRUPT_DRAIN_NS, plan.drain_ns)
        self._interrupted = False

    def _fleet_for(self, adapter: Adapter, plan: Plan, jobs: Iterator[Job], follow: Follow) -> Fleet | BatchFleet:
        make = partial(Fleet, follow=follow) if adapter.batch_path is None else partial(BatchFleet, adapter)
        return make(plan, jobs, on_record=self._record, on_status=self._tally.status, on_started=self._started)

    async def run(self, interrupts: Interrupts) -> tuple[WorkerReport | None, int]:
        """The worker's report (None: it was lost), and the CPU time in ns that this process took beside it."""
        began_ns = time.process_time_ns()
        report = await self._run(interrupts)
        return report, time.process_time_ns() - began_ns

    async def _run(self, interrupts: Interrupts) -> WorkerReport | None:
        loop = asyncio.get_running_loop()
        interrupts.to(lambda: _soon(loop, self._interrupt))
        with self._view:
            running = asyncio.create_task(self._fleet.run())
            beside = [asyncio.create_task(self._tick())]
            beside += [asyncio.create_task(reader.run()) for reader in self._readers]
            if self._engine is not None:
                beside.append(asyncio.create_task(self._watch(self._engine)))
            try:
                return await _first_of(running, beside)
            finally:
                for task in (running, *beside):
                    task.cancel()
                await asyncio.gather(running, *beside, return_exceptions=True)
                interrupts.hold_once(_WRITING)

    def _record(self, record: Record) -> None:
        self._store.record(record)
        self._tally.record(record)

    def _started(self, started: Started) -> None:
        self._tally.started(started.started_ns)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            self._store.flush_due(now_ns())
            self._view.update(self._tally.progress(now_ns()))

    async def _watch(self, engine: Engine) -> None:
        """An engine that has ended ends the run: no answer comes any more."""
        await engine.process.ended()
        self._fleet.stop(0, "server_lost")
        self._tally.stopping()

    def _interrupt(self) -> None:
        """The first Ctrl-C drains briefly, the second stops at once."""
        self._fleet.stop(0 if self._interrupted else self._brief_drain_ns)
        self._interrupted = True
        self._tally.stopping()
        self._view.update(self._tally.progress(now_ns()))


async def _first_of(
    running: asyncio.Task[WorkerReport | None], beside: list[asyncio.Task[None]]
) -> WorkerReport | None:
    """The run's result; what fails beside it (a full disk) ends it."""
    waiting: set[asyncio.Task[Any]] = {running, *beside}
    while not running.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {running}:
            task.result()
    return running.result()


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(call)  # a signal may come while the loop sleeps


def _tally(plan: Plan) -> Tally:
    total_s = None if plan.duration_ns is None else (plan.duration_ns + plan.warmup_ns) / SECOND
    requests = None if plan.measured_requests is None else plan.measured_requests + plan.warmup_requests
    return Tally(total_s, requests, plan.warmup_ns / SECOND)
