"""Clients that hang up: at their moment and no other, as no failure of the server's, beside what the server did."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from servemark.adapters.sim.launch import launch
from servemark.adapters.sim.options import SimOptions
from servemark.harness.figures.hang_ups import hang_ups
from servemark.harness.figures.metrics import errors
from servemark.harness.figures.objectives import weigh
from servemark.harness.figures.slo import parse_slo
from servemark.harness.figures.summary import summarize
from servemark.harness.figures.view import view_of
from servemark.harness.load.messages import Job, Timeouts
from servemark.harness.load.pool import Pool
from servemark.harness.load.wire import Exchange
from servemark.harness.types import Record, ServerSample
from servemark.harness.verdict.validity import Check, Evidence, judge
from tests.commands import TOLERANT, bench, check, run_json
from tests.frames import answer, at, frame
from tests.scripted_server import DONE, END, HEAD, Behaviour, Peer, chunk, event, serving
from tests.test_runner import job, plan, run

MS = 1_000_000


# -- the worker


async def never(peer: Peer) -> None:
    await peer.reader.read()


async def headers_only(peer: Peer) -> None:
    await peer.send(HEAD)
    await peer.reader.read()


async def slowly(peer: Peer) -> None:
    """The first token at once, the others over 0.8 s."""
    await peer.stream(5, pause_s=0.2)


def leaving(after_ms: int, name: str = "x", index: int = 0, offset_ns: int | None = None) -> Job:
    return replace(job(index, name, offset_ns), give_up_ns=after_ms * MS)


async def one(behaviour: Behaviour, after_ms: int, **fields: object) -> Record:
    async with serving({"x": behaviour}) as port:
        records, _ = await run(plan(port, **fields), [leaving(after_ms)])
    (record,) = records
    return record


def waited_ms(record: Record) -> float:
    assert record.done_ns is not None
    return (record.done_ns - record.intended_ns) / MS


@pytest.mark.parametrize(
    ("behaviour", "unless", "detail"),
    [
        (never, "first_token", "no byte had come"),
        (never, "end", "no byte had come"),
        (headers_only, "first_token", "no token had come"),
        (slowly, "end", "with tokens had come"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_a_client_hangs_up_when_what_it_waits_for_has_not_come(
    behaviour: Behaviour, unless: str, detail: str
) -> None:
    record = await one(behaviour, 500, give_up_unless=unless)
    assert record.error == "gave_up"
    assert record.error_detail is not None
    assert record.error_detail.startswith("hung up after 0.5")
    assert record.error_detail.endswith(detail)
    assert 500 <= waited_ms(record) < 600
    assert (0 < len(record.chunk_ns) < 5) == (behaviour is slowly)


@pytest.mark.parametrize(("unless", "after_ms"), [("first_token", 500), ("end", 9000)])
async def test_a_client_stays_when_it_has_come(unless: str, after_ms: int) -> None:
    record = await one(slowly, after_ms, give_up_unless=unless)
    assert record.error is None
    assert record.output_tokens == 5
    assert waited_ms(record) > 700


async def test_the_server_sees_the_connection_close() -> None:
    seen = asyncio.Event()

    async def watching(peer: Peer) -> None:
        assert await peer.reader.read() == b""
        seen.set()

    async with serving({"x": watching}) as port:
        records, _ = await run(plan(port), [leaving(500)])
        await asyncio.wait_for(seen.wait(), 5)
    assert [record.error for record in records] == ["gave_up"]


async def test_a_client_may_leave_while_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(self: Pool, place: int) -> None:
        await asyncio.sleep(30)

    async def none_ahead(self: Pool) -> int:
        return 0

    monkeypatch.setattr(Pool, "open", hangs)
    monkeypatch.setattr(Pool, "open_ahead", none_ahead)
    record = await one(never, 60, timeouts=Timeouts())
    assert record.error == "gave_up"
    assert record.error_detail == "hung up after 0.060 s; the request was not sent yet"
    assert (record.sent_ns, waited_ms(record)) == (None, 60)


async def test_clients_leave_the_queue_of_a_cap_without_having_asked() -> None:
    """Thousands of them in a row leave no trace but their records, and whoever comes after them gets the slot."""
    crowd = 3000

    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0.3)
        await peer.stream(1)

    jobs = [job(0, "slow", 0), *(leaving(100, index=k, offset_ns=0) for k in range(1, crowd)), job(crowd, "x", 0)]
    async with serving({"slow": slow, "x": lambda peer: peer.stream(1)}) as port:
        records, report = await run(plan(port, concurrency=None, max_in_flight=1), jobs)
    assert [records[0].error, records[-1].error] == [None, None]
    assert {record.error for record in records[1:-1]} == {"gave_up"}
    assert {record.sent_ns for record in records[1:-1]} == {None}
    assert {waited_ms(record) for record in records[1:-1]} == {100}
    assert report.issued == 2


async def test_who_left_the_queue_before_a_run_was_stopped_was_not_abandoned() -> None:
    jobs = [job(0, "x", 0), leaving(50, index=1, offset_ns=0), job(2, "x", 0)]
    async with serving({"x": never}) as port:
        records, _ = await run(plan(port, concurrency=None, max_in_flight=1), jobs, stop_after_s=0.8)
    assert [record.error for record in records] == ["abandoned", "gave_up", "abandoned"]


async def test_a_user_who_gave_up_goes_on_with_the_next_request() -> None:
    async with serving({"x": never, "y": lambda peer: peer.stream(1)}) as port:
        records, report = await run(plan(port), [leaving(50), job(1, "y"), job(2, "y")])
    assert [record.error for record in records] == ["gave_up", None, None]
    assert report.schedule_finished


async def test_what_has_been_answered_is_not_kept_until_its_clients_moment() -> None:
    """A patience of minutes would hold all answers of a run until then."""
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        records, _ = await run(plan(port), [leaving(60_000, index=k) for k in range(5)])
    assert [record.error for record in records] == [None] * 5
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Exchange) and each.job.give_up_ns == 60_000 * MS]


async def test_an_answer_that_came_in_time_is_not_touched_later() -> None:
    """The client's moment passes while its connection carries somebody else's request."""

    async def quarter(peer: Peer) -> None:
        await asyncio.sleep(0.7)
        await peer.send(HEAD, chunk(event("w", 1, "length")), chunk(DONE), END)

    async with serving({"x": lambda peer: peer.stream(1), "slow": quarter}) as port:
        records, _ = await run(plan(port, give_up_unless="end"), [leaving(500), job(1, "slow")])
    assert [record.error for record in records] == [None, None]


# -- the figures


def gone(index: int, intended: float, waited: float, chunks: tuple[float, ...] = (), **changes: Any) -> Record:
    made = answer(index, intended, chunks, asked_output_tokens=20, error="gave_up", output_tokens=None, **changes)
    return _ended(made, intended + waited)


def _ended(record: Record, ms: float) -> Record:
    import dataclasses

    return dataclasses.replace(record, done_ns=at(ms))


SERVED = [answer(k, k * 100.0, (50.0, 60.0, 70.0), asked_output_tokens=3) for k in range(90)]


def test_who_gave_up_is_no_failure_and_is_counted_apart() -> None:
    reset = answer(95, 9500.0, (), error="reset", output_tokens=None)
    found = frame(*SERVED, *(gone(k, k * 100.0, 2000) for k in range(90, 95)), reset)
    metrics = summarize(found)
    assert metrics["error_rate"]["value"] == pytest.approx(1 / 96)
    assert metrics["error_rate"]["kinds"] == {"reset": 1}
    assert metrics["give_up_rate"]["value"] == pytest.approx(5 / 96)
    assert metrics["give_up_rate"]["requests"] == 5
    assert errors(found) == {"reset": 1}


def test_who_gave_up_got_no_answer_in_time() -> None:
    """10 of 100 left after 2 s without a token: a miss of the SLO, and beyond every limit up to the wait."""
    found = frame(*SERVED, *(gone(k, k * 100.0, 2000) for k in range(90, 100)))
    slo = parse_slo("ttft=200ms,ttft:p95=500ms", 0.95)
    metrics, verdict = summarize(found, slo=slo), weigh(slo, view_of(found, slo=slo))
    assert metrics["goodput_share"]["value"] == pytest.approx(0.9)
    assert (metrics["ttft"]["n"], metrics["ttft"]["n_adj"]) == (90, 100)
    assert (metrics["ttft"]["p90_adj"], metrics["ttft"]["p95_adj"]) == (pytest.approx(50), None)
    assert (metrics["e2e"]["n_adj"], metrics["e2e"]["p95_adj"]) == (100, None)
    assert not verdict.met
    assert "10 of 100 requests failed or were given up" in verdict.reasons[0]


def test_a_first_token_that_came_before_the_client_left_is_known() -> None:
    """They left in the middle of their answers: TTFT stands, E2E does not, and the SLO is missed."""
    found = frame(*SERVED, *(gone(k, k * 100.0, 2000, (80.0, 1900.0)) for k in range(90, 100)))
    slo = parse_slo("ttft=200ms")
    metrics = summarize(found, slo=slo)
    assert (metrics["ttft"]["n"], metrics["ttft"]["n_adj"]) == (100, 100)
    assert metrics["ttft"]["p99_adj"] == pytest.approx(80)
    assert (metrics["e2e"]["n"], metrics["e2e"]["n_adj"], metrics["e2e"]["p99_adj"]) == (90, 100, None)
    assert metrics["itl"]["max"] == pytest.approx(10)  # gaps of whole answers only
    assert metrics["goodput_share"]["value"] == pytest.approx(0.9)


def test_a_failed_request_is_infinite_whatever_had_come() -> None:
    cut = answer(90, 9000.0, (80.0,), error="reset", output_tokens=None)
    assert summarize(frame(*SERVED, cut))["ttft"]["n_adj"] == 91
    assert summarize(frame(*SERVED, cut))["ttft"]["n"] == 90


# -- what the server did about it


def told(**series: tuple[float, float]) -> tuple[ServerSample, ...]:
    """A reading before the run and one after it."""
    moments = (at(-100), at(60_000))
    return tuple(
        ServerSample(moment, {name: pair[k] for name, pair in series.items()}) for k, moment in enumerate(moments)
    )


def verdict(samples: tuple[ServerSample, ...], *records: Record) -> Check:
    found = frame(*SERVED, *records)
    evidence = Evidence(frame=found, window=found.steady_window(), loop="open", server=samples)
    return next(each for each in judge(evidence).checks if each.code == "gave_up")


LEFT = [gone(k, k * 100.0, 2000, (80.0, 1900.0)) for k in range(90, 100)]  # each asked 20 tokens and got 2
GOT = 90 * 3 + 10 * 2


@pytest.mark.parametrize(
    ("samples", "severity", "said"),
    [
        ((), "pass", "the server does not tell what it did about it"),
        (told(requests_aborted=(5, 14)), "pass", "the server counted 9 aborted requests"),
        (told(requests_aborted=(5, 7)), "warning", "the server counted 2 aborted requests"),
        (told(generation_tokens=(7, 7 + GOT + 30)), "pass", "generated 30 tokens that nobody received, of 180"),
        (told(generation_tokens=(7, 7 + GOT + 180)), "warning", "generated 180 tokens that nobody received, of 180"),
        # A counter that does not count is no proof where the tokens say otherwise.
        (told(requests_aborted=(0, 0), generation_tokens=(0, GOT + 10)), "pass", "counted 0 aborted requests, and it"),
        (told(requests_aborted=(0, 0), generation_tokens=(0, GOT + 170)), "warning", "generated 170 tokens"),
    ],
)
def test_a_server_that_goes_on_for_nobody_is_named(samples: tuple[ServerSample, ...], severity: str, said: str) -> None:
    found = verdict(samples, *LEFT)
    assert found.severity == severity
    assert said in found.message
    assert found.message.startswith("10 clients gave up after 2 s (median)")
    assert bool(found.remedy) == (severity == "warning")


def test_where_nobody_asked_the_server_it_has_nothing_to_end() -> None:
    assert verdict((), *SERVED[:1]).message == "No client gave up."
    unsent = [gone(k, k * 100.0, 500, sent_ns=None) for k in range(90, 93)]
    found = verdict(told(requests_aborted=(0, 0)), *unsent)
    assert (found.severity, found.message) == (
        "pass",
        "3 clients gave up after 0.5 s (median), before their requests were sent.",
    )


def test_requests_cut_for_other_reasons_are_among_those_that_a_server_aborts() -> None:
    late = answer(100, 9_950.0, (), error="abandoned", output_tokens=None, asked_output_tokens=20)
    found = hang_ups(frame(*SERVED, *LEFT, late), told(requests_aborted=(0, 11), generation_tokens=(0, GOT)))
    assert found is not None
    assert (found.clients, found.cut, found.aborted) == (10, 11, 11)
    assert (found.unwanted_tokens, found.missing_tokens) == (0, 10 * 18 + 20)


def test_a_cap_under_which_clients_leave_the_queue_has_still_sent_its_schedule() -> None:
    unsent = [gone(k, k * 100.0, 500, sent_ns=None) for k in range(90, 100)]
    found = frame(*SERVED, *unsent)
    evidence = Evidence(frame=found, window=found.steady_window(), loop="open", cap=4, planned_in_window=100)
    by_code = {each.code: each for each in judge(evidence).checks}
    assert by_code["requests_sent"].severity == "pass"
    assert by_code["error_share"].severity == "pass"


# -- all of it, against the simulated server in the words of each that counts them


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "tgi"])
def test_a_run_says_who_gave_up_and_what_the_server_did(
    dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.yaml").write_text("""
version: 1
prompts: {source: synthetic, input_tokens: 64, output_tokens: 2000}
load: {rate: 10}
request: {give_up: {share: 0.4, after: 300ms, unless: end}}
run: {requests: 20, warmup: 0, drain: 20s}
""")
    target = "sim" if dialect == "vllm" else dialect
    with launch(SimOptions(model="qwen3-0.6b", speed=4, dialect=dialect, eos_mean_tokens=1500)) as server:
        said = bench(
            "run", "--target", target, "--url", server.url, "--workload", "w.yaml",
            *TOLERANT, "--allow", "output_length", "--quiet", "--out", "r",
        )  # fmt: skip
    assert said.code == 0, said.err
    found = run_json(Path("r"))
    left = found["summary"]["requests_gave_up"]
    assert 3 <= left <= 14
    assert found["summary"]["requests_ok"] == 20 - left
    assert found["summary"]["requests_failed"] == 0
    assert found["server"]["gave_up"]["aborted"] == left
    assert found["server"]["gave_up"]["waited_s"] == pytest.approx(0.3, abs=0.1)
    assert (check(found, "gave_up"), check(found, "error_share")) == ("pass", "pass")
    shown = bench("show", "r").out
    assert f"{left} clients after 0.3" in shown
    assert f"{left} counted, of {left} that the client cut" in shown
    page = Path("r/report.html").read_text()
    assert f"{left} counted, of {left} that the client cut" in page
    assert "Clients that gave up" in page


def test_a_batch_has_no_clients_that_could_hang_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from servemark.adapters.vllm_offline import ADAPTER
    from servemark.harness.errors import BadInput
    from servemark.harness.plan.spec import parse_workload
    from servemark.harness.prepare import refuse_pacing

    text = "version: 1\nprompts: {source: synthetic, input_tokens: 9, output_tokens: 9}\nload: {rate: inf}\n"
    refuse_pacing(ADAPTER, parse_workload(text + "run: {requests: 5}\n"))
    with pytest.raises(BadInput, match="no clients that could hang up"):
        refuse_pacing(ADAPTER, parse_workload(text + "run: {requests: 5}\nrequest: {give_up: {share: 1, after: 1s}}\n"))
