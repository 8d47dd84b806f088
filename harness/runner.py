"""One worker: open and closed loop, warm-up, drain, abort. Sends what it is handed and knows no file format."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from servemark.harness.clock import MS, SECOND, now_ns
from servemark.harness.jobs import JobQueue
from servemark.harness.messages import Plan, Status
from servemark.harness.pacer import Pacer
from servemark.harness.pool import Pool
from servemark.harness.reading import Reader
from servemark.harness.types import Adapter, Phase, Record, WorkerReport
from servemark.harness.wire import Connection, Exchange, WireClock

StopReason = Literal["finished", "interrupted", "server_lost", "generator_lost"]

_SLICE_READS = 16  # read between two looks at the sockets: about 0.1 ms
_SWEEP_S = 0.05
_TICK_NS = 10 * MS
_LEAD_NS = 20 * MS  # from "begin" to offset 0, so that nothing is late at the start
_RETRY_S = 0.1  # a closed loop against a refusing port must not spin
_LOST_AFTER_NS = 5 * SECOND
_LOST_FAILURES = 20


class Runner:
    """Runs one plan. `on_record` gets each finished request's record, `on_status` a few figures for the live view."""

    def __init__(
        self,
        plan: Plan,
        adapter: Adapter,
        jobs: JobQueue,
        on_record: Callable[[Record], None],
        on_status: Callable[[Status], None],
    ) -> None:
        self._plan = plan
        self._jobs = jobs
        self._on_record = on_record
        self._on_status = on_status
        self._clock = WireClock()
        self._pacer = Pacer()
        self._pool = Pool(plan, self._clock, self._done, self._read_ahead)
        self._reader = Reader(adapter, plan.endpoint, plan.worker, [address.url for address in plan.addresses])
        self._flying: dict[Exchange, Connection | None] = {}
        self._held: deque[Exchange] = deque()  # open loop: due, but the cap is reached
        self._hungry: deque[tuple[int, int]] = deque()  # closed loop: (slot, free since), no job there
        self._unread: deque[Exchange] = deque()
        self._read_wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._issued_all = asyncio.Event()
        self._stop = asyncio.Event()
        self._stop_reason: StopReason = "finished"
        self._drain_ns = plan.drain_ns
        self._background: set[asyncio.Task[None]] = set()
        self._started_ns = 0
        self._sent = self._finished = self._measured = self._reads = 0
        self._late_jobs = self._max_late_ns = 0
        self._stalls = self._max_stall_ns = 0
        self._refusals = 0
        self._refused_since_ns = 0

    # --- the run as a whole

    async def prepare(self) -> int:
        """Opens connections ahead; returns how many stand."""
        return await self._pool.open_ahead()

    async def run(self, on_started: Callable[[int, int], None]) -> WorkerReport:
        """Sends everything, drains, and reports; `on_started` gets offset 0 on the monotonic and the wall clock."""
        gc.collect()
        gc.freeze()
        gc.disable()
        cpu_ns = time.process_time_ns()
        self._started_ns = now_ns() + _LEAD_NS
        on_started(self._started_ns, self._started_ns + self._clock.offset_ns)
        helpers = [
            asyncio.create_task(work)
            for work in (self._read(), self._sweep(), self._watch(), self._tell(), self._pool.keep())
        ]
        try:
            finished = await self._issue()
            drained = await self._drain()
            await self._read_rest()
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._pool.close()
            self._pacer.close()
            gc.enable()
            gc.unfreeze()
        return WorkerReport(
            worker=self._plan.worker,
            started_ns=self._started_ns,
            started_wall_ns=self._started_ns + self._clock.offset_ns,
            ended_ns=now_ns(),
            issued=self._sent,
            schedule_finished=finished,
            stop_reason=self._stop_reason,
            late_jobs=self._late_jobs,
            max_late_job_ns=self._max_late_ns,
            stalls=self._stalls,
            max_stall_ns=self._max_stall_ns,
            cpu_ns=time.process_time_ns() - cpu_ns,
            wall_step_ns=self._clock.step_ns(),
            reconnects=self._pool.reconnects,
            drained=drained,
        )

    def stop(self, drain_ns: int, reason: StopReason = "interrupted") -> None:
        """Sends nothing more; a second call shortens the drain."""
        if not self._stop.is_set():
            self._stop_reason = reason
        self._drain_ns = drain_ns
        self._stop.set()

    async def _issue(self) -> bool:
        """Issues until the schedule is done or the run is stopped; True when it is done."""
        work = self._closed_loop() if self._plan.concurrency is not None else self._open_loop()
        issuing = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((issuing, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if issuing.done():
            issuing.result()
            return True
        issuing.cancel()
        await asyncio.gather(issuing, return_exceptions=True)
        self._issued_all.set()
        return False

    async def _drain(self) -> bool:
        """Waits for what is in flight, up to the limit; what is left then is abandoned."""
        began_ns = now_ns()
        while (self._flying or self._held) and now_ns() - began_ns < self._drain_ns:
            while self._stop.is_set() and self._held:
                self._give_up(self._held.popleft())
            self._idle.clear()
            try:
                async with asyncio.timeout(0.1):
                    await self._idle.wait()
            except TimeoutError:
                pass
        drained = not self._flying and not self._held
        while self._held:
            self._give_up(self._held.popleft())
        for exchange, connection in list(self._flying.items()):
            if connection is None:
                self._give_up(exchange)
            else:
                connection.abort("abandoned", "still in flight when the drain ended")
        for task in self._background:
            task.cancel()
        return drained

    def _give_up(self, exchange: Exchange) -> None:
        exchange.error, exchange.error_detail = "abandoned", "not sent when the drain ended"
        exchange.done_ns = now_ns()
        self._flying.pop(exchange, None)
        self._to_read(exchange)

    # --- issuing

    async def _open_loop(self) -> None:
        """Sleeps to each absolute deadline; what the server does has no say in it."""
        while True:
            waited = not len(self._jobs)
            job = await self._jobs.get()
            if job is None:
                return
            due_ns = self._started_ns + (job.offset_ns or 0)
            if waited:
                self._note_late(now_ns() - due_ns)
            await self._pacer.until(due_ns)
            exchange = Exchange(job, due_ns)
            cap = self._plan.max_in_flight
            if cap is not None and len(self._flying) >= cap:
                self._held.append(exchange)
            else:
                self._start(exchange)

    async def _closed_loop(self) -> None:
        """Each slot's next request is intended when its last one ended, plus think time."""
        await self._pacer.until(self._started_ns)
        feeding = asyncio.create_task(self._feed_hungry())
        for slot in range(self._plan.concurrency or 0):
            self._next(slot, self._started_ns)
        try:
            if self._plan.duration_ns is None:
                await self._issued_all.wait()
            else:
                end_ns = self._started_ns + self._plan.warmup_ns + self._plan.duration_ns
                timer = asyncio.create_task(self._pacer.until(end_ns))
                counter = asyncio.create_task(self._issued_all.wait())
                await asyncio.wait((timer, counter), return_when=asyncio.FIRST_COMPLETED)
                timer.cancel()
                counter.cancel()
        finally:
            self._issued_all.set()
            feeding.cancel()

    async def _feed_hungry(self) -> None:
        """Slots that came free before their request was encoded get it as soon as it is."""
        while not self._issued_all.is_set():
            if not self._hungry:
                await asyncio.sleep(0.001)
                continue
            job = await self._jobs.get()
            if job is None:
                self._issued_all.set()
                return
            _, free_ns = slot = self._hungry.popleft()
            self._note_late(now_ns() - free_ns)
            self._launch(Exchange(job, free_ns, slot[0]))

    def _next(self, slot: int, free_ns: int) -> None:
        """Gives a free slot its next request."""
        if self._issued_all.is_set() or self._stop.is_set():
            return
        job = self._jobs.take() if not self._hungry else None
        if job is None:
            if self._jobs.ended and not len(self._jobs):
                self._issued_all.set()
            else:
                self._hungry.append((slot, free_ns))
            return
        self._launch(Exchange(job, free_ns, slot))

    def _launch(self, exchange: Exchange) -> None:
        if self._phase(exchange) == "measured":
            self._measured += 1
            wanted = self._plan.measured_requests
            if wanted is not None and self._measured >= wanted:
                self._issued_all.set()
        if self._plan.think_time_ns and exchange.intended_ns > self._started_ns:
            exchange.intended_ns += self._plan.think_time_ns
            self._spawn(self._start_at(exchange))
        else:
            self._start(exchange)

    async def _start_at(self, exchange: Exchange) -> None:
        self._flying[exchange] = None
        await self._pacer.until(exchange.intended_ns)
        self._start(exchange)

    def _note_late(self, late_ns: int) -> None:
        if late_ns > 0:
            self._late_jobs += 1
            self._max_late_ns = max(self._max_late_ns, late_ns)

    def _phase(self, exchange: Exchange) -> Phase:
        if exchange.job.index < self._plan.warmup_requests:
            return "warmup"
        return "warmup" if exchange.intended_ns < self._started_ns + self._plan.warmup_ns else "measured"

    # --- one request

    def _start(self, exchange: Exchange) -> None:
        connection = self._pool.take(self._plan.addresses[exchange.job.address])
        self._flying[exchange] = connection
        if connection is None:
            self._spawn(self._connect_and_send(exchange))
        else:
            self._send(connection, exchange)

    def _send(self, connection: Connection, exchange: Exchange) -> None:
        self._flying[exchange] = connection
        if not exchange.resends:
            self._sent += 1
        connection.send(exchange)

    async def _connect_and_send(self, exchange: Exchange) -> None:
        try:
            connection = await self._pool.open(self._plan.addresses[exchange.job.address])
        except TimeoutError:
            self._failed_to_connect(exchange, "timeout_connect", "no connection within the connect timeout")
        except OSError as error:
            self._failed_to_connect(exchange, "connect", str(error) or type(error).__name__)
        else:
            self._refusals = 0
            self._send(connection, exchange)

    def _failed_to_connect(self, exchange: Exchange, kind: Literal["connect", "timeout_connect"], detail: str) -> None:
        exchange.error, exchange.error_detail = kind, detail
        exchange.done_ns = now_ns()
        if not self._refusals:
            self._refused_since_ns = exchange.done_ns
        self._refusals += 1
        if self._refusals >= _LOST_FAILURES and exchange.done_ns - self._refused_since_ns > _LOST_AFTER_NS:
            self.stop(self._drain_ns, "server_lost")
        self._leave(exchange)

    def _done(self, connection: Connection, exchange: Exchange) -> None:
        """The wire has finished an exchange, in whatever way."""
        if (
            exchange.error == "reset"
            and exchange.first_byte_ns is None
            and connection.requests > 1
            and not exchange.resends
        ):
            # The server closed a kept-alive connection while the request was on its way: any client would resend.
            exchange.resends = 1
            exchange.error = exchange.error_detail = exchange.done_ns = None
            self._start(exchange)
            return
        self._pool.give(connection)
        self._leave(exchange)

    def _leave(self, exchange: Exchange) -> None:
        self._flying.pop(exchange, None)
        self._to_read(exchange)
        if exchange.slot >= 0:
            free_ns = exchange.done_ns or now_ns()
            if exchange.error in ("connect", "timeout_connect"):
                asyncio.get_running_loop().call_later(_RETRY_S, lambda: self._next(exchange.slot, now_ns()))
            else:
                self._next(exchange.slot, free_ns)
        elif self._held and not self._stop.is_set():
            self._start(self._held.popleft())
        if not self._flying and not self._held:
            self._idle.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- beside the requests

    def _to_read(self, exchange: Exchange) -> None:
        self._unread.append(exchange)
        self._read_wanted.set()

    def _read_ahead(self, exchange: Exchange) -> None:
        """The wire holds much of a response that has not ended yet."""
        if not exchange.queued:
            exchange.queued = True
            self._to_read(exchange)

    async def _read(self) -> None:
        """Reads what has ended, or grown long, a slice at a time between looks at the sockets."""
        while True:
            if not self._unread:
                self._read_wanted.clear()
                await self._read_wanted.wait()
            await self._read_one(self._unread.popleft())

    async def _read_one(self, exchange: Exchange) -> None:
        ended = exchange.done_ns is not None
        while not self._reader.consume(exchange, _SLICE_READS):
            await asyncio.sleep(0)
        exchange.queued = False
        if ended:
            record = self._reader.record(exchange, self._phase(exchange))
            self._finished += 1
            self._reads += record.reads
            self._on_record(record)
        await asyncio.sleep(0)

    async def _read_rest(self) -> None:
        while self._unread:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)

    async def _sweep(self) -> None:
        """Ends what has waited too long. Total counts from the send, gap from the last bytes."""
        limits = self._plan.timeouts
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = now_ns()
            for exchange, connection in list(self._flying.items()):
                if connection is None or exchange.sent_ns is None:
                    continue
                waited_ns = now - exchange.sent_ns
                if waited_ns > limits.total_ns:
                    connection.abort("timeout_total", f"not finished after {limits.total_ns / SECOND:g} s")
                elif waited_ns > limits.first_event_ns and not self._reader.saw_event(exchange):
                    connection.abort("timeout_first_event", f"no event after {limits.first_event_ns / SECOND:g} s")
                elif now - connection.last_read_ns > limits.gap_ns and self._reader.saw_event(exchange):
                    connection.abort("timeout_gap", f"no bytes for {limits.gap_ns / SECOND:g} s")

    async def _watch(self) -> None:
        """Counts the times that the event loop was held up."""
        while True:
            before = now_ns()
            await asyncio.sleep(_TICK_NS / SECOND)
            late_ns = now_ns() - before - _TICK_NS
            if late_ns > _TICK_NS:
                self._stalls += 1
                self._max_stall_ns = max(self._max_stall_ns, late_ns)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            reads = self._reads + sum(len(exchange.reads) for exchange in self._flying)
            self._on_status(Status(now_ns(), self._sent, len(self._flying), self._finished, reads))
            if not self._flying:
                gc.collect(1)
