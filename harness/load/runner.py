"""One worker's run: issue, send, drain, report. Sends what it is handed and knows no file format."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Literal

from servemark.harness.clock import MS, now_ns
from servemark.harness.load.issuing import Issuer, issuer_for
from servemark.harness.load.jobs import JobQueue
from servemark.harness.load.later import ReadLater
from servemark.harness.load.messages import Job, Plan, Status
from servemark.harness.load.pacer import Pacer
from servemark.harness.load.patience import Patience, gone_unsent
from servemark.harness.load.phases import phase_of
from servemark.harness.load.pool import Pool
from servemark.harness.load.reading import Reader
from servemark.harness.load.replicas import Replicas
from servemark.harness.load.watch import LoopWatch, sweep
from servemark.harness.load.wire import Connection, Exchange, WireClock
from servemark.harness.types import Adapter, Phase, Record, StopReason, WorkerReport

_LEAD_NS = 20 * MS  # from "begin" to offset 0, so that nothing is late at the start


class Runner:
    """Runs one plan. `on_record` gets each finished request's record, `on_status` figures for the live view.

    A turn that another one follows goes to `on_turn` in place of `on_record`, with its answer's text where it has
    succeeded; `follow` or `over` is to be called then.
    """

    def __init__(
        self,
        plan: Plan,
        adapter: Adapter,
        jobs: JobQueue,
        on_record: Callable[[Record], None],
        on_status: Callable[[Status], None],
        on_turn: Callable[[Record, str | None], None] = lambda record, answer: None,
    ) -> None:
        self._plan = plan
        self._jobs = jobs
        self._on_status = on_status
        self._clock = WireClock()
        self._pacer = Pacer()
        self._reader = Reader(adapter, plan.endpoint, plan.worker, [address.url for address in plan.addresses])
        self._later = ReadLater(self._reader, self._pacer, self._phase, on_record, on_turn)
        self._replicas = Replicas(plan)
        self._pool = Pool(plan, self._clock, self._done, self._later.add_early)
        self._watch = LoopWatch()
        self._flying: dict[Exchange, Connection | None] = {}  # None: still connecting
        self._patience = Patience(plan, self._reader, self._flying, self._leave)
        self._connecting: set[asyncio.Task[None]] = set()
        self._issuer: Issuer | None = None
        self._landed = asyncio.Event()
        self._stop = asyncio.Event()
        self._stop_reason: StopReason = "finished"
        self._drain_ns = plan.drain_ns
        self._started_ns = 0
        self._sent = self._sent_turns = 0

    async def prepare(self) -> int:
        """Opens connections ahead; returns how many stand."""
        return await self._pool.open_ahead()

    async def run(self, on_started: Callable[[int, int], None]) -> WorkerReport:
        """Sends everything, drains, and reports; `on_started` gets offset 0 on the monotonic and the wall clock."""
        cpu_ns = time.process_time_ns()
        self._started_ns = now_ns() + _LEAD_NS
        on_started(self._started_ns, self._started_ns + self._clock.offset_ns)
        issuer = self._issuer = issuer_for(self._plan, self._jobs, self._pacer, self._started_ns, self._start)
        with _no_garbage_collection():
            finished, drained = await self._run(issuer)
        return self._report(issuer, finished, drained, time.process_time_ns() - cpu_ns)

    async def _run(self, issuer: Issuer) -> tuple[bool, bool]:
        """Whether the schedule was finished, and whether everything in flight ended."""
        sweeping = sweep(self._flying, self._reader, self._plan.timeouts)
        work = (self._later.work(), sweeping, self._watch.work(), self._tell(), self._pool.keep())
        beside = [asyncio.create_task(each) for each in work]
        try:
            finished = await self._issue(issuer)
            drained = await self._drain(issuer)
            await _unless_lost(self._later.emptied(), beside[0])
        finally:
            for task in (*beside, *self._connecting):
                task.cancel()
            await asyncio.gather(*beside, *self._connecting, return_exceptions=True)
            self._pool.close()
            self._pacer.close()
        return finished, drained

    def stop(self, drain_ns: int, reason: StopReason = "interrupted") -> None:
        """Sends nothing more; a second call may shorten the drain."""
        if not self._stop.is_set():
            self._stop_reason = reason
        self._drain_ns = drain_ns
        self._stop.set()

    def follow(self, job: Job) -> None:
        """The next turn of a session; nothing is begun any more in a run that was stopped."""
        if self._issuer is not None and not self._stop.is_set():
            self._issuer.follow(job)

    def over(self, session_id: str) -> None:
        """No turn follows the last one of this session."""
        if self._issuer is not None and not self._stop.is_set():
            self._issuer.over(session_id)

    async def _issue(self, issuer: Issuer) -> bool:
        """Issues until the schedule is done or the run is stopped; True when it is done."""
        issuing, stopping = asyncio.create_task(issuer.issue()), asyncio.create_task(self._stop.wait())
        await asyncio.wait((issuing, stopping), return_when=asyncio.FIRST_COMPLETED)
        finished = issuing.done()
        issuing.cancel()
        stopping.cancel()
        await asyncio.gather(issuing, stopping, return_exceptions=True)
        if finished:
            issuing.result()
        return finished

    async def _drain(self, issuer: Issuer) -> bool:
        """Waits for what is in flight, up to the limit; what is left then is abandoned."""
        began_ns = now_ns()
        while True:
            held = issuer.take_back() if self._stop.is_set() else []
            for exchange in held:
                self._give_up(exchange)
            if not self._flying or now_ns() - began_ns >= self._drain_ns:
                break
            self._landed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self._landed.wait()
        self._stop.set()
        left = [*self._flying.items(), *((exchange, None) for exchange in issuer.take_back())]
        for exchange, connection in left:
            if connection is None:
                self._give_up(exchange)
            else:
                connection.abort("abandoned", "still in flight when the drain ended")
        return not left

    def _give_up(self, exchange: Exchange) -> None:
        if not gone_unsent(exchange):
            exchange.error, exchange.error_detail = "abandoned", "not sent when the drain ended"
            exchange.done_ns = now_ns()
        if exchange in self._flying:
            del self._flying[exchange]
            self._replicas.ended(exchange.address)
        else:
            exchange.address = self._replicas.choose(exchange.job)  # where it would have gone
        self._later.add(exchange)

    def _phase(self, exchange: Exchange) -> Phase:
        return phase_of(self._plan, self._started_ns, exchange.job.index, exchange.intended_ns)

    # --- one request

    def _start(self, exchange: Exchange) -> None:
        exchange.address = self._replicas.choose(exchange.job)
        self._replicas.began(exchange.address)
        if exchange.job.give_up_ns is None or self._patience.begins(exchange):
            self._depart(exchange)

    def _depart(self, exchange: Exchange) -> None:
        connection = self._pool.take(exchange.address)
        if connection is not None:
            self._send(connection, exchange)
        else:
            self._depart_afresh(exchange)

    def _depart_afresh(self, exchange: Exchange) -> None:
        self._flying[exchange] = None
        task = asyncio.create_task(self._connect_and_send(exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _send(self, connection: Connection, exchange: Exchange) -> None:
        self._flying[exchange] = connection
        if not exchange.resends:
            self._sent += 1
            self._sent_turns += exchange.job.turn > 0
        connection.send(exchange)

    async def _connect_and_send(self, exchange: Exchange) -> None:
        try:
            connection = await self._pool.open(exchange.address)
        except TimeoutError:
            self._refused(exchange, "timeout_connect", "no connection within the connect timeout")
        except OSError as error:
            self._refused(exchange, "connect", str(error) or type(error).__name__)
        else:
            self._replicas.answered(exchange.address)
            if exchange in self._flying:
                self._send(connection, exchange)
            else:  # given up meanwhile
                connection.close()

    def _refused(self, exchange: Exchange, kind: Literal["connect", "timeout_connect"], detail: str) -> None:
        """The last of all servers that is gone ends the run."""
        at_ns = now_ns()
        if exchange in self._flying:  # else its client has given up meanwhile
            exchange.error, exchange.error_detail, exchange.done_ns = kind, detail, at_ns
        if self._replicas.refused(exchange.address, at_ns):
            self.stop(self._drain_ns, "server_lost")
        self._leave(exchange)

    def _done(self, connection: Connection, exchange: Exchange) -> None:
        """The wire has finished an exchange, in whatever way."""
        if _may_resend(connection, exchange):
            exchange.resends = 1
            exchange.error = exchange.error_detail = exchange.done_ns = None
            self._pool.broke(exchange.address)
            self._depart_afresh(exchange)  # a server that closed one kept connection may have closed them all
            return
        if exchange.first_byte_ns is not None:
            self._replicas.answered(exchange.address)
        self._pool.give(connection)
        self._leave(exchange)

    def _leave(self, exchange: Exchange) -> None:
        if exchange not in self._flying:
            return  # given up before
        del self._flying[exchange]
        self._patience.ended(exchange)
        self._replicas.ended(exchange.address)
        self._later.add(exchange)
        if self._issuer is not None and not self._stop.is_set():
            self._issuer.ended(exchange)
        if not self._flying:
            self._landed.set()

    # --- what is said of it

    async def _tell(self) -> None:
        """A few times a second; garbage is collected only while nothing is in flight."""
        while True:
            await asyncio.sleep(0.25)
            reads = self._later.reads + sum(len(exchange.reads) for exchange in self._flying)
            self._on_status(Status(now_ns(), self._sent, len(self._flying), self._later.finished, reads))
            if not self._flying:
                gc.collect(1)

    def _report(self, issuer: Issuer, finished: bool, drained: bool, cpu_ns: int) -> WorkerReport:
        late, throttle = issuer.late, issuer.throttle
        return WorkerReport(
            worker=self._plan.worker,
            started_ns=self._started_ns,
            started_wall_ns=self._started_ns + self._clock.offset_ns,
            ended_ns=now_ns(),
            issued=self._sent,
            schedule_finished=finished,
            stop_reason=self._stop_reason,
            late_jobs=late.jobs,
            max_late_job_ns=late.max_ns,
            stalls=self._watch.stalls,
            max_stall_ns=self._watch.max_stall_ns,
            cpu_ns=cpu_ns,
            wall_step_ns=self._clock.step_ns(),
            reconnects=self._pool.reconnects,
            drained=drained,
            throttled=throttle.held if throttle else 0,
            throttled_ns=throttle.held_ns if throttle else 0,
            later_turns=self._sent_turns,
        )


def _may_resend(connection: Connection, exchange: Exchange) -> bool:
    """The server closed a kept-alive connection while the request was on its way: any client would resend, once."""
    unanswered = exchange.error == "reset" and exchange.first_byte_ns is None
    return unanswered and connection.requests > 1 and not exchange.resends


async def _unless_lost(work: Coroutine[Any, Any, None], needed: asyncio.Task[None]) -> None:
    """Waits for what another task does; what that task raises is raised here, and not waited for in vain."""
    waiting = asyncio.create_task(work)
    await asyncio.wait((waiting, needed), return_when=asyncio.FIRST_COMPLETED)
    if needed.done():
        waiting.cancel()
        needed.result()


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a burst would hold the event loop."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
