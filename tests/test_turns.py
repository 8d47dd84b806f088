"""The worker's side of sessions: think times are kept, users stay with their conversation, and every run ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from servemark.adapters.vllm import ADAPTER
from servemark.harness.errors import BadInput
from servemark.harness.load import pool
from servemark.harness.load.fleet import Fleet
from servemark.harness.load.jobs import JobQueue
from servemark.harness.load.messages import Address, Job, Plan, SessionOver, Started, Timeouts
from servemark.harness.load.reading import MOST_ANSWER_CHARS, Reader, Reading
from servemark.harness.load.runner import Runner
from servemark.harness.load.sse import parser_for
from servemark.harness.load.wire import Exchange
from servemark.harness.types import Record, WorkerReport
from tests.commands import alive
from tests.scripted_server import DONE, END, ERROR, HEAD, Behaviour, Peer, chunk, event, serving

MS = 1_000_000
PATIENCE_S = 30
Next = Callable[[Record, str | None], Job | SessionOver]


def job(index: int, session: str | None, turn: int = 0, turns: int = 3, name: str = "x", **fields: object) -> Job:
    head = f"POST /{name} HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n"
    return Job(
        index, fields.pop("offset_ns", None), head.encode() + b"{}", session_id=session, turn=turn,  # type: ignore[arg-type]
        turns=turns, more=turn + 1 < turns, asked_output_tokens=3, **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def session(number: int, turns: int = 3, **fields: object) -> Job:
    """The first turn of session `number`; all have as many turns."""
    return job(number * turns, f"s{number}", 0, turns, **fields)


def thinking(think_ns: int, names: Callable[[Record], str] = lambda record: "x") -> Next:
    """Goes on after every answer, `think_ns` later; the next turn is sent to the route that `names` says."""

    def next_turn(record: Record, answer: str | None) -> Job | SessionOver:
        assert record.session_id is not None
        if answer is None or record.done_ns is None:
            return SessionOver(record.session_id)
        turns = {"s": 3, "t": 2}[record.session_id[0]]
        due_ns = record.done_ns + think_ns
        return job(record.request_id + 1, record.session_id, record.turn + 1, turns, names(record), due_ns=due_ns)

    return next_turn


def plan(port: int, **fields: object) -> Plan:
    fields.setdefault("concurrency", 1)
    fields.setdefault("connections_ahead", 2)
    address = Address(f"http://127.0.0.1:{port}", "127.0.0.1", port, False)
    return Plan(0, (address,), "vllm", "sse", "chat", fields.pop("timeouts", Timeouts()), **fields)  # type: ignore[arg-type]


class Talks:
    """A worker in this process, whose coordinator answers each turn after `delay_s`."""

    def __init__(self, made: Plan, jobs: Sequence[Job], following: Next, delay_s: float = 0) -> None:
        self.records: list[Record] = []
        self.answers: list[str | None] = []
        self._queue = JobQueue(lambda count: None)
        for one in jobs:
            self._queue.put(one)
        self._queue.end()
        self._following = following
        self._delay_s = delay_s
        self.runner = Runner(
            made, ADAPTER, self._queue, self.records.append, lambda status: None, on_turn=self._on_turn
        )

    def _on_turn(self, record: Record, answer: str | None) -> None:
        self.records.append(record)
        self.answers.append(answer)
        asyncio.get_running_loop().call_later(self._delay_s, self._go_on, record, answer)

    def _go_on(self, record: Record, answer: str | None) -> None:
        found = self._following(record, answer)
        if isinstance(found, Job):
            self.runner.follow(found)
        else:
            self.runner.over(found.session_id)

    async def to_end(self, stop_after_s: float | None = None) -> WorkerReport:
        await self.runner.prepare()
        if stop_after_s is not None:
            asyncio.get_running_loop().call_later(stop_after_s, self.runner.stop, 0)
        report = await asyncio.wait_for(self.runner.run(lambda mono, wall: None), PATIENCE_S)
        self.records.sort(key=lambda record: record.intended_ns)
        return report

    @property
    def order(self) -> list[tuple[str | None, int]]:
        return [(record.session_id, record.turn) for record in self.records]

    def thought_ns(self) -> list[int]:
        """From each answer to the next turn's intended time."""
        by = {(record.session_id, record.turn): record for record in self.records}
        return [
            record.intended_ns - (by[record.session_id, record.turn - 1].done_ns or 0)
            for record in self.records
            if record.turn
        ]


async def quick(peer: Peer) -> None:
    await peer.stream(3, 0)


async def slow(peer: Peer) -> None:
    await peer.stream(3, 0.03)


async def run(
    behaviour: Behaviour,
    jobs: Sequence[Job],
    think_ns: int = 20 * MS,
    stop_after_s: float | None = None,
    delay_s: float = 0,
    **fields: object,
) -> tuple[Talks, WorkerReport]:
    async with serving({"x": behaviour}) as port:
        talks = Talks(plan(port, **fields), jobs, thinking(think_ns), delay_s)
        return talks, await talks.to_end(stop_after_s)


OPEN = {"concurrency": None}


@pytest.mark.parametrize("loop", [OPEN, {"concurrency": 2}], ids=["open", "closed"])
async def test_think_times_are_kept_and_the_answers_text_goes_back(loop: dict[str, object]) -> None:
    jobs = [session(k, offset_ns=None if loop["concurrency"] else k * 10 * MS) for k in range(4)]
    talks, report = await run(quick, jobs, **loop)
    assert talks.thought_ns() == [20 * MS] * 8
    assert talks.answers == ["www"] * 8  # of the turns that another follows, and of no others
    assert sorted(record.request_id for record in talks.records) == list(range(12))
    assert all(record.sent_ns is not None and record.sent_ns >= record.intended_ns for record in talks.records)
    assert (report.issued, report.later_turns, report.schedule_finished, report.drained) == (12, 8, True, True)
    assert report.late_jobs == 0


async def test_a_turn_that_is_made_too_late_is_sent_late_and_counted() -> None:
    """What the user waits for it stays in its latency: it is intended when the think time was over."""
    talks, report = await run(quick, [session(0, offset_ns=0)], think_ns=5 * MS, delay_s=0.04, **OPEN)
    lags = [(record.sent_ns or 0) - record.intended_ns for record in talks.records if record.turn]
    assert talks.thought_ns() == [5 * MS] * 2
    assert all(lag >= 30 * MS for lag in lags)
    made_ns = [(record.ready_ns or 0) - record.intended_ns for record in talks.records if record.turn]
    assert all(30 * MS <= made <= lag for made, lag in zip(made_ns, lags, strict=True))
    assert [record.ready_ns for record in talks.records if not record.turn] == [None]
    assert report.late_jobs == 0


async def test_an_open_loops_arrivals_do_not_wait_for_sessions() -> None:
    jobs = [session(k, offset_ns=k * 15 * MS) for k in range(6)]
    talks, report = await run(slow, jobs, **OPEN)
    first = [record.intended_ns - report.started_ns for record in talks.records if not record.turn]
    assert first == [k * 15 * MS for k in range(6)]


def cut_at(records: Sequence[Record], end_ns: int, think_ns: int) -> bool:
    """Every turn that fell due before the end was sent, and none that fell due after it; 30 ms decide nothing."""
    sent = {(record.session_id, record.turn) for record in records}
    dues = [((r.session_id, r.turn + 1), (r.done_ns or 0) + think_ns) for r in records if r.turn < 2]
    assert any(due_ns >= end_ns for _, due_ns in dues)
    early = all(turn in sent for turn, due_ns in dues if due_ns < end_ns - 30 * MS)
    return early and all(turn not in sent for turn, due_ns in dues if due_ns >= end_ns)


async def test_an_open_loop_begins_no_turn_after_its_time() -> None:
    """The run is over when nothing can be due any more, whatever sessions are left."""
    jobs = [session(k, offset_ns=k * 50 * MS) for k in range(4)]
    talks, report = await run(quick, jobs, think_ns=120 * MS, duration_ns=200 * MS, **OPEN)
    assert cut_at(talks.records, report.started_ns + 200 * MS, 120 * MS)
    assert report.schedule_finished
    assert report.ended_ns - report.started_ns < 2_000 * MS


async def test_an_open_loop_whose_time_begins_with_the_first_request_that_counts() -> None:
    jobs = [session(k, offset_ns=k * 50 * MS) for k in range(3)]
    fields = {"warmup_requests": 3, "duration_ns": 100 * MS, **OPEN}
    talks, report = await run(quick, jobs, think_ns=60 * MS, **fields)
    # Index 3 is session 1's first turn, at 50 ms: the end is at 150 ms. Phases of turns go by their index.
    assert all(record.intended_ns < report.started_ns + 150 * MS for record in talks.records)
    assert {record.phase for record in talks.records if record.session_id == "s0"} == {"warmup"}
    assert {record.phase for record in talks.records if record.session_id != "s0"} == {"measured"}


async def test_an_open_loop_without_an_end_goes_on_to_the_last_turn() -> None:
    talks, report = await run(quick, [session(0, offset_ns=0)], think_ns=150 * MS, **OPEN)
    assert talks.order == [("s0", 0), ("s0", 1), ("s0", 2)]
    assert report.ended_ns - report.started_ns > 300 * MS


async def test_a_cap_in_flight_holds_later_turns_too() -> None:
    jobs = [session(k, offset_ns=0) for k in range(3)]
    talks, _ = await run(slow, jobs, think_ns=0, max_in_flight=1, **OPEN)
    times = sorted((record.sent_ns or 0, record.done_ns or 0) for record in talks.records)
    assert len(times) == 9
    assert all(sent >= done for (_, done), (sent, _) in pairwise(times))


async def test_a_closed_loops_user_stays_to_the_end_of_the_session() -> None:
    """The load's own think time lies between sessions, the session's between its turns."""
    jobs = [session(0, think_ns=50 * MS), job(3, None, turns=1, think_ns=50 * MS), session(2, think_ns=50 * MS)]
    talks, _ = await run(quick, jobs, think_ns=20 * MS)
    assert talks.order == [("s0", 0), ("s0", 1), ("s0", 2), (None, 0), ("s2", 0), ("s2", 1), ("s2", 2)]
    gaps = [later.intended_ns - (earlier.done_ns or 0) for earlier, later in pairwise(talks.records)]
    assert gaps == [20 * MS, 20 * MS, 50 * MS, 50 * MS, 20 * MS, 20 * MS]


async def test_a_user_who_thinks_for_long_finds_a_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers close idle ones; what takes their place is opened while the user thinks."""
    monkeypatch.setattr(pool, "_IDLE_LIMIT_NS", 60 * MS)
    talks, _ = await run(quick, [session(0)], think_ns=400 * MS, concurrency=1, connections_ahead=1)
    assert [record.error for record in talks.records] == [None] * 3
    for before, after in pairwise(talks.records):
        assert before.done_ns is not None
        assert after.connect_ns is not None
        assert before.done_ns < after.connect_ns < after.intended_ns


async def test_no_more_users_than_asked_for_whatever_they_do() -> None:
    talks, _ = await run(quick, [session(k) for k in range(6)], think_ns=30 * MS, concurrency=2)
    spans: dict[str, list[int]] = {}
    for record in talks.records:
        spans.setdefault(str(record.session_id), []).extend((record.intended_ns, record.done_ns or 0))
    moments = sorted((min(times), max(times)) for times in spans.values())
    for begin, _ in moments:
        assert sum(one <= begin < other for one, other in moments) <= 2


async def test_a_closed_loop_that_counts_ends_with_the_session_that_fills_the_number() -> None:
    talks, report = await run(quick, [session(k) for k in range(9)], concurrency=2, measured_requests=5)
    assert sorted(talks.order) == [(f"s{k}", turn) for k in range(2) for turn in range(3)]
    assert report.schedule_finished


async def test_a_closed_loop_that_counts_goes_on_for_sessions_that_began_in_the_warm_up() -> None:
    jobs = [session(k) for k in range(9)]
    talks, report = await run(quick, jobs, think_ns=150 * MS, warmup_ns=200 * MS, measured_requests=3)
    # One user; session 0 began in the warm-up, and session 1 is the first to count.
    assert talks.order == [(f"s{k}", turn) for k in range(2) for turn in range(3)]
    end_ns = report.started_ns + 200 * MS
    assert [record.phase == "warmup" for record in talks.records] == [r.intended_ns < end_ns for r in talks.records]
    assert talks.records[0].phase == "warmup"
    assert talks.records[2].phase == "measured"
    assert report.schedule_finished


async def test_a_closed_loops_time_cuts_sessions_and_ends_the_run() -> None:
    talks, report = await run(
        quick, [session(k) for k in range(9)], think_ns=80 * MS, concurrency=2, duration_ns=120 * MS
    )
    assert cut_at(talks.records, report.started_ns + 120 * MS, 80 * MS)
    assert report.drained
    assert report.ended_ns - report.started_ns < 2_000 * MS


async def test_what_is_in_flight_at_the_end_drains_and_nothing_follows_it() -> None:
    for loop in (OPEN, {"concurrency": 1}):
        jobs = [session(0, offset_ns=None if loop["concurrency"] else 0)]
        talks, report = await run(slow, jobs, think_ns=0, duration_ns=50 * MS, **loop)
        assert talks.order == [("s0", 0)]
        assert talks.records[0].error is None
        assert report.drained


async def test_the_cap_per_minute_holds_for_every_turn() -> None:
    """1,200 a minute are two each tenth of a second: six requests take 0.2 s at least."""
    talks, report = await run(quick, [session(0), session(1)], think_ns=0, concurrency=2, requests_per_minute=1200)
    sent = sorted(record.sent_ns or 0 for record in talks.records)
    assert len(sent) == 6
    assert sent[-1] - sent[0] > 150 * MS
    assert report.throttled > 0


async def refused(peer: Peer) -> None:
    body = b'{"error":{"message":"maximum context length is 4096 tokens"}}'
    await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def broken(peer: Peer) -> None:
    await peer.send(HEAD, chunk(event("w", 1)), chunk(ERROR), chunk(DONE), END)


async def reset(peer: Peer) -> None:
    await peer.send(HEAD, chunk(event("w", 1)))
    peer.reset()


@pytest.mark.parametrize("loop", [OPEN, {"concurrency": 1}], ids=["open", "closed"])
@pytest.mark.parametrize(
    ("failing", "kind"),
    [(refused, "http_status"), (broken, "server_error"), (reset, "reset")],
    ids=lambda each: str(each),
)
async def test_a_turn_that_fails_ends_its_session_and_no_other(
    failing: Behaviour, kind: str, loop: dict[str, object]
) -> None:
    jobs = [session(k, offset_ns=None if loop["concurrency"] else 0) for k in range(2)]
    async with serving({"x": quick, "bad": failing}) as port:
        following = thinking(0, lambda record: "bad" if record.session_id == "s0" else "x")
        talks = Talks(plan(port, **loop), jobs, following)
        report = await talks.to_end()
    by = {(record.session_id, record.turn): record.error for record in talks.records}
    assert by == {("s0", 0): None, ("s0", 1): kind, **{("s1", turn): None for turn in range(3)}}
    assert talks.answers.count(None) == 1
    assert report.schedule_finished


async def test_a_server_that_is_gone_in_the_middle_of_sessions_ends_them() -> None:
    """Every later turn is a failed request, and the run comes to its end."""
    jobs = [session(k, offset_ns=k * 10 * MS) for k in range(3)]
    async with serving({"x": quick}) as port:
        talks = Talks(plan(port, **OPEN), jobs, thinking(400 * MS))
        ending = asyncio.create_task(talks.to_end())
        async with asyncio.timeout(PATIENCE_S):
            while len(talks.records) < 3:
                await asyncio.sleep(0.005)
    report = await ending
    assert [record.error for record in talks.records if not record.turn] == [None] * 3
    later = [record for record in talks.records if record.turn]
    assert [record.turn for record in later] == [1] * 3
    assert {record.error for record in later} <= {"connect", "reset"}
    assert report.schedule_finished


@pytest.mark.parametrize("loop", [OPEN, {"concurrency": 2}], ids=["open", "closed"])
async def test_a_stop_ends_sessions_that_think_and_those_that_wait(loop: dict[str, object]) -> None:
    jobs = [session(k, offset_ns=None if loop["concurrency"] else 0) for k in range(2)]
    talks, report = await run(quick, jobs, think_ns=3_600_000 * MS, stop_after_s=0.2, **loop)
    assert [record.error for record in talks.records] == [None] * 2
    assert (report.stop_reason, report.schedule_finished, report.drained) == ("interrupted", False, True)
    assert report.ended_ns - report.started_ns < 2_000 * MS


async def test_a_stop_while_the_coordinator_is_silent_ends_the_run() -> None:
    for loop in (OPEN, {"concurrency": 2}):
        jobs = [session(k, offset_ns=None if loop["concurrency"] else 0) for k in range(2)]
        talks, report = await run(quick, jobs, delay_s=3600, stop_after_s=0.2, **loop)
        assert len(talks.records) == 2
        assert report.drained


async def test_a_held_turn_is_abandoned_by_a_stop_and_said_so() -> None:
    async def hanging(peer: Peer) -> None:
        await asyncio.sleep(3600)

    async with serving({"x": quick, "hang": hanging}) as port:
        following = thinking(0, lambda record: "hang")
        jobs = [session(k, offset_ns=0) for k in range(2)]
        talks = Talks(plan(port, max_in_flight=1, **OPEN), jobs, following)
        report = await talks.to_end(stop_after_s=0.3)
    by = {(record.session_id, record.turn): record.error for record in talks.records}
    assert by == {("s0", 0): None, ("s1", 0): None, ("s0", 1): "abandoned", ("s1", 1): "abandoned"}
    assert not report.drained


def test_an_answer_without_end_is_let_go_and_what_is_counted_is_not() -> None:
    reading = Reading(parser_for("sse"), ADAPTER.decoder("chat"))
    reading.decoder.answer = []
    piece = event("w" * (MOST_ANSWER_CHARS // 4))
    for stamp in range(1, 5):
        reading.read(stamp, piece)
    assert sum(map(len, reading.decoder.answer or ())) == MOST_ANSWER_CHARS
    reading.read(5, piece)
    assert reading.decoder.answer is None
    reading.read(6, piece)
    assert len(reading.chunk_ns) == 6


def test_half_a_character_in_an_answer_breaks_nothing() -> None:
    """An answer that is cut by its length may end in the middle of one: Python can hold that, and UTF-8 cannot."""
    reader = Reader(ADAPTER, "chat", 0, ["http://a"])
    exchange = Exchange(session(0), 0)
    exchange.status = 200
    reader.consume(exchange, 1)
    exchange.reading.decoder.answer.append("caf\ud83d")
    assert reader.answer(exchange) == "caf?"
    assert reader.answer(Exchange(job(0, None, turns=1), 0)) is None


# --- with a coordinator of its own


class Coordinated:
    """A fleet and what it told."""

    def __init__(self, port: int, jobs: Sequence[Job], following: Next, **fields: object) -> None:
        self.records: list[Record] = []
        self.begun: list[Started] = []
        self.fleet = Fleet(
            plan(port, **fields),
            iter(jobs),
            on_record=self.records.append,
            on_status=lambda status: None,
            on_started=self.begun.append,
            follow=following,
        )

    async def to_end(self) -> WorkerReport | None:
        return await asyncio.wait_for(self.fleet.run(), PATIENCE_S)


async def test_sessions_go_on_between_two_processes() -> None:
    async with serving({"x": quick}) as port:
        run = Coordinated(port, [session(k) for k in range(8)], thinking(100 * MS), concurrency=3)
        report = await run.to_end()
    assert report is not None
    assert sorted(record.request_id for record in run.records) == list(range(24))
    assert (report.issued, report.later_turns) == (24, 16)
    later = [record for record in run.records if record.turn]
    assert all(record.ready_ns is not None and record.ready_ns < record.intended_ns for record in later)
    assert report.schedule_finished


async def test_a_worker_that_is_killed_in_the_middle_of_sessions_ends_the_run_and_loses_no_record() -> None:
    async with serving({"x": quick}) as port:
        jobs = [session(k) for k in range(4)]
        run = Coordinated(port, jobs, thinking(3_600_000 * MS), concurrency=4)
        running = asyncio.create_task(run.to_end())
        async with asyncio.timeout(PATIENCE_S):
            while len(run.records) < 4:
                await asyncio.sleep(0.01)
        process = run.fleet._process
        assert process is not None
        process.kill()
        assert await running is None
    assert sorted(record.request_id for record in run.records) == [0, 3, 6, 9]
    assert not alive(process.pid)


async def test_a_turn_that_cannot_be_made_ends_the_run_with_its_sentence() -> None:
    def impossible(record: Record, answer: str | None) -> Job | SessionOver:
        raise BadInput("request 1 cannot be written")

    async with serving({"x": quick}) as port:
        run = Coordinated(port, [session(0)], impossible)
        with pytest.raises(BadInput, match="request 1 cannot be written"):
            await run.to_end()
    assert [record.request_id for record in run.records] == [0]


async def test_a_stop_from_outside_ends_sessions_that_think() -> None:
    async with serving({"x": quick}) as port:
        run = Coordinated(port, [session(k) for k in range(2)], thinking(3_600_000 * MS), concurrency=2)
        running = asyncio.create_task(run.to_end())
        async with asyncio.timeout(PATIENCE_S):
            while len(run.records) < 2:
                await asyncio.sleep(0.01)
        run.fleet.stop(0)
        report = await running
    assert report is not None
    assert report.stop_reason == "interrupted"
    assert len(run.records) == 2
