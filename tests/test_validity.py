"""Each reason: a sound run passes it, and the fault that it is for does not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from servemark.harness.clock import MS, SECOND
from servemark.harness.figures.slo import parse_slo
from servemark.harness.figures.summary import summarize
from servemark.harness.plan.cache_rate import Sharing
from servemark.harness.types import Promises, Record, ServerSample, WorkerReport
from servemark.harness.verdict.thresholds import THRESHOLDS, table
from servemark.harness.verdict.validity import CHECKS, Check, Evidence, judge
from tests.frames import START_NS, answer, at, failed, frame

REPORT = WorkerReport(
    worker=0,
    started_ns=at(0),
    started_wall_ns=1_700_000_000 * SECOND,
    ended_ns=at(16_000),
    issued=150,
    schedule_finished=True,
    stop_reason="finished",
    late_jobs=0,
    max_late_job_ns=0,
    stalls=0,
    max_stall_ns=0,
    cpu_ns=SECOND,
    wall_step_ns=2_000,
    reconnects=0,
    drained=True,
)
PROMISES = Promises(
    fixed_length=True, exact_counts=True, cached_tokens=False, per_chunk_counts=True, token_id_prompts=True
)


def sound(count: int = 150, every_ms: float = 100.0, ttft: Callable[[int], float] | None = None) -> list[Record]:
    """15 s at 10 requests/s, of which the first 3 s are warm-up: what a demo run is."""
    rng = np.random.default_rng(8)
    wait = ttft or (lambda i: float(rng.lognormal(4, 0.3)))
    records = []
    for i in range(count):
        stamps = wait(i) + np.arange(20) * 20.0
        phase = "warmup" if i * every_ms < 3000 else "measured"
        lengths = {"asked_prompt_tokens": 100, "asked_output_tokens": 20}
        records.append(answer(i, i * every_ms, stamps.tolist(), sent=0.1, phase=phase, **lengths))
    return records


def readings(count: int, **series: Callable[[int], float]) -> tuple[ServerSample, ...]:
    """One each 400 ms, the first before the run and the last after it."""
    times = np.linspace(-100, 16_100, count)
    return tuple(ServerSample(at(t), {k: f(i) for k, f in series.items()}) for i, t in enumerate(times))


def evidence(records: Sequence[Record] | None = None, **changes: Any) -> Evidence:
    built = frame(*(sound() if records is None else records))
    window = changes.pop("window", built.steady_window(at(3000)))
    slo = changes.get("slo")
    fields: dict[str, Any] = {
        "loop": "open",
        "metrics": summarize(built, window, slo),
        "reports": (REPORT,),
        "planned_in_window": 120,
        "force_output_length": True,
        "promises": PROMISES,
    }
    return Evidence(built, window, **(fields | changes))


def check(code: str, records: Sequence[Record] | None = None, **changes: Any) -> Check:
    return next(each for each in judge(evidence(records, **changes)).checks if each.code == code)


def reported(**changes: Any) -> dict[str, Any]:
    return {"reports": (replace(REPORT, **changes),)}


def measured(records: list[Record], **changes: Any) -> list[Record]:
    """The same run with every 5th measured request changed."""
    return [replace(r, **changes) if i % 5 == 0 and r.phase == "measured" else r for i, r in enumerate(records)]


def test_a_sound_short_run_is_valid_without_a_warning() -> None:
    verdict = judge(evidence())
    assert verdict.valid
    assert [each.code for each in verdict.checks] == list(CHECKS)
    assert [each for each in verdict.checks if each.severity != "pass"] == []
    assert verdict.reasons == verdict.warnings == ()


def test_a_sound_closed_loop_is_valid() -> None:
    assert judge(evidence(loop="closed", planned_in_window=None)).valid


def test_a_verdict_is_json_of_sentences() -> None:
    broken = measured(sound(), prompt_tokens=300, output_tokens=3, reads=9, coalesced_reads=9)
    verdict = judge(evidence([*broken, failed(500, 15_000)], **reported(drained=False, stalls=3, max_stall_ns=10**9)))
    found = verdict.to_json()
    json.dumps(found, allow_nan=False)
    assert found["valid"] is False
    for each in found["checks"]:
        assert set(each) == {"code", "severity", "value", "threshold", "message", "remedy", "waived"}
        assert re.fullmatch(r"[A-Z0-9].*\.", each["message"]), each
        assert bool(each["remedy"]) == (each["severity"] != "pass"), each


def test_a_waived_reason_is_recorded_and_does_not_count() -> None:
    broken = reported(stop_reason="interrupted")
    assert not judge(evidence(**broken)).valid
    verdict = judge(evidence(**broken), allow=["interrupted"])
    assert verdict.valid
    assert [(each.code, each.severity, each.waived) for each in verdict.warnings] == [("interrupted", "invalid", True)]


def test_only_known_codes_can_be_waived() -> None:
    with pytest.raises(ValueError, match=r"no verdict check 'client_leg' to allow; there are: .*client_lag"):
        judge(evidence(), allow={"client_leg"})


# The client


@pytest.mark.parametrize("reason", ["interrupted", "server_lost", "generator_lost"])
def test_how_a_run_ended(reason: str) -> None:
    verdict = judge(evidence(**reported(stop_reason=reason, schedule_finished=False)))
    assert [each.code for each in verdict.reasons] == [reason]


def test_a_run_without_a_report_lost_its_generator() -> None:
    assert check("generator_lost", reports=()).severity == "invalid"


def test_client_lag() -> None:
    late = [replace(r, sent_ns=r.intended_ns + 3 * MS) for r in sound()]
    assert check("client_lag", late).severity == "invalid"
    assert check("client_lag", [late[-1], *sound()[:-1]]).severity == "pass"  # 1 of 120: the p99 is the next one
    assert check("client_lag", [*late[-2:], *sound()[:-2]]).severity == "warning"
    assert check("client_lag", [*late[-9:], *sound()[:-9]]).severity == "invalid"
    assert check("client_lag", late, cap=8).severity == "pass"
    assert check("client_lag", late, loop="closed").severity == "pass"
    found = check("client_lag", [replace(r, sent_ns=r.intended_ns + 3 * MS) for r in sound(ttft=lambda _: 400.0)])
    assert (found.severity, found.value, found.threshold) == ("pass", 3, 8)  # 2 % of a TTFT of 400 ms


def turns(*lags_ms: float) -> list[Record]:
    """Sound requests, of which every second one goes on with a session and leaves so late."""
    records = sound()
    for place, lag in enumerate(lags_ms):
        at_place = 31 + 2 * place
        record = records[at_place]
        records[at_place] = replace(record, session_id=f"s{place}", turn=1, sent_ns=record.intended_ns + int(lag * MS))
    return records


def test_later_turns_that_leave_late_are_judged_in_a_closed_loop_too() -> None:
    """Their slot is theirs already, so what is late is the client; first turns wait for slots."""
    late = turns(*[60.0] * 40)
    assert check("client_lag", late, loop="closed").severity == "invalid"
    assert check("client_lag", late, loop="open", cap=8).severity == "pass"
    assert check("client_lag", turns(*[0.1] * 40), loop="closed").severity == "pass"


def made(*delays_ms: float, ttft_ms: float = 50.0) -> list[Record]:
    """Sound requests, of which later turns were made so long after their think time, and left at once."""
    records = sound(ttft=lambda _: ttft_ms)
    for place, delay in enumerate(delays_ms):
        row = 31 + 2 * place
        ready_ns = records[row].intended_ns + int(delay * MS)
        sent_ns = max(ready_ns, records[row].intended_ns)
        records[row] = replace(records[row], session_id=f"s{place}", turn=1, ready_ns=ready_ns, sent_ns=sent_ns)
    return records


@pytest.mark.parametrize("loop", ["open", "closed"])
def test_the_making_of_a_later_turn_is_judged_apart_from_sending_it(loop: Literal["open", "closed"]) -> None:
    """A load that asks at once is no fault of the client's; only what weighs on TTFT is said."""
    for delay, ttft, severity in (
        (-900.0, 50.0, "pass"),  # made while the user thought
        (1.5, 50.0, "pass"),
        (3.0, 50.0, "warning"),  # above 2 ms, and 2 % of the TTFT
        (3.0, 400.0, "pass"),
        (12.0, 400.0, "warning"),
        (12.0, 50.0, "invalid"),  # above 10 ms, and a tenth of the TTFT
    ):
        records = made(*[delay] * 40, ttft_ms=ttft)
        assert check("client_lag", records, loop=loop).severity == "pass", delay
        found = check("late_turns", records, loop=loop)
        assert (found.severity, found.value) == (severity, max(0.0, delay)), (delay, ttft)
    assert "while its user thinks" in found.remedy
    assert check("late_turns", made(60.0, *[0.1] * 39), loop=loop).severity == "warning"  # one proves nothing of a p99
    assert check("late_turns", sound(), loop=loop).severity == "pass"


def test_a_later_turn_that_was_there_and_left_late_is_the_clients_lag() -> None:
    records = [replace(r, sent_ns=(r.sent_ns or 0) + 60 * MS) if r.turn else r for r in made(*[12.0] * 40)]
    assert check("client_lag", records, loop="closed").severity == "invalid"
    assert check("client_lag", records, loop="closed").value == 60


def test_the_schedule_is_held_against_first_turns_alone() -> None:
    assert check("requests_sent", turns(*[0.1] * 40), planned_in_window=80).severity == "pass"
    assert check("requests_sent", turns(*[0.1] * 40), planned_in_window=120).severity == "invalid"


def test_late_jobs() -> None:
    assert check("late_jobs", **reported(late_jobs=9, max_late_job_ns=MS)).severity == "pass"
    assert check("late_jobs", **reported(late_jobs=1, max_late_job_ns=3 * MS)).severity == "warning"
    assert check("late_jobs", **reported(late_jobs=2, max_late_job_ns=3 * MS)).severity == "invalid"


@pytest.mark.parametrize(
    ("code", "fine", "warned", "wrong"),
    [
        ("loop_stalls", {"max_stall_ns": 19 * MS}, {"max_stall_ns": 21 * MS}, {"max_stall_ns": 501 * MS}),
        ("client_cpu", {"cpu_ns": 12 * SECOND}, {"cpu_ns": 14 * SECOND}, {"cpu_ns": 16 * SECOND}),
        ("wall_step", {"wall_step_ns": MS // 10}, {"wall_step_ns": MS}, {"wall_step_ns": -3 * MS}),
    ],
)
def test_graded_reasons(code: str, fine: dict[str, int], warned: dict[str, int], wrong: dict[str, int]) -> None:
    found = [check(code, **reported(**each)).severity for each in (fine, warned, wrong)]
    assert found == ["pass", "warning", "invalid"]


def test_coalesced_reads() -> None:
    shares = (1, 4, 12)  # of 20 reads
    found = [check("coalesced_reads", [replace(r, coalesced_reads=n) for r in sound()]).severity for n in shares]
    assert found == ["pass", "warning", "invalid"]


def test_user_stamps_warn_and_make_the_wall_clock_irrelevant() -> None:
    user = [replace(r, stamp="user") for r in sound()]
    assert check("user_stamps", user).severity == "warning"
    assert check("wall_step", user, **reported(wall_step_ns=SECOND)).severity == "pass"


# The load


def test_no_success() -> None:
    broken = [failed(i, i * 100.0) for i in range(150)]
    verdict = judge(evidence(broken, planned_in_window=150, window=frame(*broken).steady_window()))
    assert {"no_success", "error_share"} <= {each.code for each in verdict.reasons}
    assert check("no_success", broken).message == "None of 150 requests succeeded (reset 150)."
    assert not judge(evidence([])).valid


def test_error_share() -> None:
    """1 of 120 is a warning, 2 are above 1 %."""
    for failures, severity in ((0, "pass"), (1, "warning"), (2, "invalid")):
        records = sound()
        records[100 : 100 + failures] = [failed(i, i * 100.0) for i in range(100, 100 + failures)]
        assert check("error_share", records).severity == severity


def test_requests_sent_against_the_drawn_schedule() -> None:
    assert check("requests_sent", planned_in_window=121).severity == "pass"
    assert check("requests_sent", planned_in_window=122).severity == "invalid"
    assert check("requests_sent", planned_in_window=118).severity == "invalid"
    assert check("requests_sent", planned_in_window=300, loop="closed").severity == "pass"


def test_requests_sent_after_the_window_do_not_count_as_sent_in_it() -> None:
    """A client that falls behind sends everything in the end: only the window shows it."""
    behind = [replace(r, sent_ns=r.intended_ns + (r.intended_ns - START_NS) // 20) for r in sound()]
    found = check("requests_sent", behind)
    assert (found.severity, found.message) == ("invalid", "112 of 120 planned requests were sent in the window.")
    assert check("requests_sent", behind, cap=4).severity == "pass"


def test_schedule_not_finished() -> None:
    assert check("schedule_finished", **reported(schedule_finished=False)).severity == "invalid"


def test_abandoned_requests() -> None:
    records = sound()
    records[149] = failed(149, 14_900, "abandoned")
    found = check("drain", records, **reported(drained=False))
    assert (found.severity, found.value) == ("warning", 1)


def test_sample_size_is_judged_for_what_is_asked() -> None:
    assert check("sample_size").message == "120 requests certify percentiles up to p90."
    asked = check("sample_size", slo=parse_slo("ttft=1s,ttft:p99=1s"))
    assert (asked.severity, asked.value, asked.threshold) == ("invalid", 120, 662)
    assert check("sample_size", slo=parse_slo("itl:p90=1s")).severity == "pass"
    assert check("sample_size", slo=parse_slo("itl:p95=1s")).value == 120  # requests, not gaps
    assert check("sample_size", asked_percents=(95,)).severity == "invalid"
    few = sound(60)
    found = check("sample_size", few, planned_in_window=30)
    assert (found.severity, found.value) == ("warning", 30)


def test_short_runs_warn() -> None:
    assert check("short_run").value == pytest.approx(11.9)
    assert check("short_run", sound(100)).severity == "warning"


def test_a_load_that_was_intended_at_once_has_no_steady_window() -> None:
    same = [replace(r, intended_ns=at(0), sent_ns=at(0), phase="measured") for r in sound()]
    for code in ("short_run", "short_warmup", "not_steady"):
        assert check(code, same).severity == "pass", code
    assert "whole run" in check("short_run", same).message
    assert check("short_run", same[:20]).severity == "warning"


def test_an_engines_own_stamps_are_not_held_against_its_count() -> None:
    assert "own stamps" in check("outside_server", [replace(r, stamp="engine") for r in sound()]).message


def test_warm_up() -> None:
    assert check("short_warmup").severity == "pass"
    assert check("short_warmup", [replace(r, phase="measured") for r in sound()]).severity == "warning"
    slow = [replace(r, last_token_ns=r.intended_ns + 4 * SECOND) for r in sound()]
    assert check("short_warmup", slow).severity == "warning"


def test_a_trend_of_ttft_is_a_warning() -> None:
    rising = sound(ttft=lambda i: 50 + i)
    assert check("not_steady", rising).severity == "warning"
    assert check("not_steady", sound(ttft=lambda i: 250 - i)).severity == "warning"
    assert check("not_steady", sound(ttft=lambda i: 50 + i / 100)).severity == "pass"  # a trend of no size


def test_a_growing_server_queue_is_a_warning() -> None:
    growing = readings(60, waiting=lambda i: float(i))
    noisy = readings(60, waiting=lambda i: float(i % 5))
    assert check("not_steady", server=growing).severity == "warning"
    assert check("not_steady", server=noisy).severity == "pass"


def overload(share: float) -> list[Record]:
    """A server that answers one at a time, `share` of what comes in."""
    records, free = [], 0.0
    for i in range(150):
        start = max(free, i * 100.0)
        free = start + 100 / share
        base = sound(1)[0]
        stamps = tuple(at(free + k * 2.0) for k in range(20))
        phase = "warmup" if i < 30 else "measured"
        times = {"intended_ns": at(i * 100.0), "sent_ns": at(i * 100.0), "first_token_ns": stamps[0]}
        ends = {"last_token_ns": stamps[-1], "done_ns": stamps[-1] + MS, "chunk_ns": stamps}
        records.append(replace(base, request_id=i, phase=phase, **times, **ends))  # type: ignore[arg-type]
    return records


def test_an_overloaded_open_loop_is_invalid() -> None:
    found = check("overloaded", overload(0.7))
    assert found.severity == "invalid"
    assert "latencies here tell how long the run was" in found.message
    assert check("overloaded", overload(0.7), cap=4).severity == "invalid"
    assert check("overloaded", overload(0.7), loop="closed").severity == "pass"
    assert check("overloaded", overload(1.2)).severity == "pass"


def test_overload_shows_though_the_waiting_requests_were_given_up() -> None:
    records = [
        replace(r, error="abandoned", first_token_ns=None, chunk_ns=(), chunk_tokens=(), done_ns=at(16_000))
        if i > 80
        else r
        for i, r in enumerate(overload(0.7))
    ]
    assert check("overloaded", records).severity == "invalid"


def test_filling_up_is_no_overload() -> None:
    """Answers longer than the warm-up: in flight grows to its level while nobody waits."""
    long = [replace(r, last_token_ns=r.intended_ns + 10 * SECOND, done_ns=r.intended_ns + 10 * SECOND) for r in sound()]
    assert check("overloaded", long).severity == "pass"


@pytest.mark.parametrize("seed", range(20))
def test_a_busy_but_stable_server_is_not_called_overloaded(seed: int) -> None:
    """Poisson arrivals at eight slots, 70 % busy, answers of 0.5 s on average."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1000 / 11.2, 260))
    slots, records = np.zeros(8), []
    for i, when in enumerate(arrivals):
        slot = int(slots.argmin())
        start = max(when, slots[slot])
        slots[slot] = start + rng.gamma(4, 125)
        ttft, end = start - when + 40 + rng.exponential(10), slots[slot] - when + 41
        phase = "warmup" if when < 3000 else "measured"
        records.append(answer(i, float(when), (float(ttft), float(max(end, ttft + 1))), phase=phase))
    found = check("overloaded", records)
    assert found.severity == "pass", found.message


# Lengths, counts, cache, others


def test_token_counts() -> None:
    one_off = [replace(r, output_tokens=(r.output_tokens or 0) + (i == 50)) for i, r in enumerate(sound())]
    assert check("token_counts", one_off).severity == "warning"
    assert check("token_counts", measured(sound(), output_tokens=22)).severity == "invalid"
    unknown = [replace(r, chunk_tokens=(None,) * 20, output_tokens=30) for r in sound()]
    assert check("token_counts", unknown).severity == "pass"


def test_the_servers_own_token_counter() -> None:
    exact = readings(40, generation_tokens=lambda i: 7e6 + 150 * 20 * (i == 39))
    more = readings(40, generation_tokens=lambda i: 7e6 + 150 * 25 * (i == 39))
    assert check("token_counts", server=exact).severity == "pass"
    assert check("token_counts", server=more).severity == "warning"
    assert check("token_counts", server=more[1:]).severity == "pass"  # it was first read after the start


def test_prompt_length() -> None:
    for tokens, severity in ((100, "pass"), (105, "warning"), (115, "invalid"), (85, "invalid")):
        assert check("prompt_length", measured(sound(), prompt_tokens=tokens)).severity == severity
    unasked = [replace(r, asked_prompt_tokens=None) for r in sound()]
    assert check("prompt_length", unasked).severity == "pass"


def test_output_length_is_held_to_what_the_server_promises() -> None:
    short = measured(sound(), asked_output_tokens=25)
    assert check("output_length", short).severity == "invalid"
    assert check("output_length", short, promises=replace(PROMISES, fixed_length=False)).severity == "warning"
    assert check("output_length", short, force_output_length=False).severity == "pass"


def test_prefix_cache_by_the_responses() -> None:
    hit = [replace(r, cached_tokens=16) for r in sound()]
    found = check("prefix_cache", hit)
    assert (found.severity, found.value) == ("invalid", 0.16)
    assert check("prefix_cache", hit, sharing=Sharing(15)).severity == "pass"
    assert check("prefix_cache", hit, prompts_unique=False).severity == "warning"
    assert check("prefix_cache", [replace(r, cached_tokens=0) for r in sound()]).severity == "pass"


def test_prefix_cache_where_responses_leave_the_field_out_for_no_hits() -> None:
    """One of 120 measured prompts of 100 tokens took 60 from the cache: 60 / 12,000."""
    one_hit = [replace(r, prompt_tokens=100, cached_tokens=60 if i == 40 else None) for i, r in enumerate(sound())]
    found = check("prefix_cache", one_hit)
    assert (found.severity, found.value) == ("pass", pytest.approx(0.005))


def test_prefix_cache_by_the_servers_counters() -> None:
    def counters(hits: float) -> tuple[ServerSample, ...]:
        return readings(40, prefix_queries=lambda i: 5e5 + 400.0 * i, prefix_hits=lambda i: 1e5 + 400.0 * hits * i)

    assert check("prefix_cache", server=counters(0.3)).severity == "invalid"
    assert check("prefix_cache", server=counters(0.005)).severity == "pass"
    restarted = readings(2, prefix_queries=lambda i: 500.0 - i, prefix_hits=lambda i: 100.0 - i)
    assert check("prefix_cache", server=restarted).value is None


def test_prefix_cache_that_cannot_be_read() -> None:
    assert check("prefix_cache").severity == "pass"
    assert check("prefix_cache", prompts_unique=False).severity == "warning"


def test_other_clients_load() -> None:
    def finished(count: float) -> tuple[ServerSample, ...]:
        return readings(40, requests_finished=lambda i: 1e4 + count * i / 39)

    assert check("other_load", server=finished(150)).severity == "pass"
    assert check("other_load", server=finished(153)).severity == "pass"
    found = check("other_load", server=finished(170))
    assert (found.severity, found.value) == ("warning", 170)
    # Ten requests that were sent again count once more each.
    resent = [replace(r, resends=1) if i < 20 else r for i, r in enumerate(sound())]
    assert check("other_load", resent, server=finished(170)).severity == "pass"


def test_token_counts_that_are_estimates() -> None:
    assert check("token_source").severity == "pass"
    found = check("token_source", measured(sound(), token_source="estimate"))
    assert (found.severity, found.value) == ("warning", pytest.approx(0.2))
    nobody = check("token_source", measured(sound(), output_tokens=None))
    assert (nobody.severity, nobody.value) == ("warning", pytest.approx(0.2))
    assert check("token_source", promises=replace(PROMISES, exact_counts=False)).severity == "pass"
    assert check("token_source", []).severity == "pass"


def test_chunks_without_counts() -> None:
    """20 tokens in 20 chunks are one in each; 30 tokens in 20 chunks are nobody knows where."""
    unsaid = [replace(r, chunk_tokens=(None,) * 20) for r in sound()]
    assert check("chunk_counts", unsaid).severity == "pass"
    found = check("chunk_counts", measured(unsaid, output_tokens=30))
    assert (found.severity, found.value) == ("warning", pytest.approx(0.2))
    for limit, severity in (("itl:p99=90ms", "invalid"), ("icl:p99=90ms", "warning"), ("tpot=90ms", "warning")):
        found = check("chunk_counts", measured(unsaid, output_tokens=30), slo=parse_slo(limit, 0.9))
        assert found.severity == severity, limit


def server_ttft(ms: float, count: int = 150) -> tuple[ServerSample, ...]:
    """Two readings, between which the server counted so many first tokens of this mean."""
    return readings(2, ttft_sum=lambda i: 9.0 + i * ms * count / 1000, ttft_count=lambda i: 1e3 + i * count)


@pytest.mark.parametrize(
    ("server_ms", "severity"),
    [(100, "pass"), (81, "pass"), (79, "warning"), (104, "pass"), (106, "warning")],
)
def test_the_servers_own_ttft(server_ms: float, severity: str) -> None:
    """The client's mean is 100 ms; it may be 20 ms above the server's, or 5 % below it."""
    records = sound(ttft=lambda i: 100.1)
    found = check("outside_server", records, server=server_ttft(server_ms))
    assert found.severity == severity
    assert found.value == pytest.approx(100 - server_ms)


def test_the_servers_own_ttft_of_other_requests_too() -> None:
    found = check("outside_server", sound(ttft=lambda i: 100.1), server=server_ttft(60, 300))
    assert "(of 150 and of 300 requests)" in found.message
    assert check("outside_server").severity == "pass"


A, B = "http://a:1", "http://b:1"


def at_two(extra_ms: float, every: int = 2) -> list[Record]:
    """Requests by turns at two replicas, of which the second answers so much later."""
    waits = sound(ttft=lambda i: 100 + i % 7 + (extra_ms if i % every else 0))
    return [replace(record, url=B if i % every else A) for i, record in enumerate(waits)]


@pytest.mark.parametrize(
    ("extra_ms", "severity"),
    [(0, "pass"), (15, "pass"), (24, "pass"), (30, "warning")],  # a median of 103 ms, of which a quarter is 26 ms
)
def test_replicas_that_answer_unevenly(extra_ms: float, severity: str) -> None:
    found = check("replicas_uneven", at_two(extra_ms))
    assert found.severity == severity
    assert found.value == pytest.approx(extra_ms / 103, abs=0.02)
    if severity == "warning":
        assert f"at {B} and" in found.message


def test_few_requests_prove_no_difference_between_replicas() -> None:
    records = [replace(record, phase="warmup") for record in at_two(60)[:-6]] + at_two(60)[-6:]
    assert check("replicas_uneven", records).severity == "pass"


def test_a_replica_that_answers_nothing() -> None:
    gone = [replace(record, error="connect") if record.url == B else record for record in at_two(0)]
    found = check("replicas_uneven", gone)
    assert (found.severity, found.message) == ("warning", f"No request to {B} was answered.")
    assert check("replicas_uneven", [replace(record, error="connect") for record in gone]).severity == "pass"
    assert check("replicas_uneven").message == "The requests went to one server."


def test_replicas_of_different_versions() -> None:
    assert check("replica_versions", versions=("1.2",)).severity == "pass"
    found = check("replica_versions", versions=("1.2", "1.3"))
    assert (found.severity, found.message) == ("warning", "The replicas are of 2 versions: 1.2, 1.3.")


def test_a_cap_that_holds_requests_back() -> None:
    few = replace(REPORT, throttled=7, throttled_ns=7 * SECOND)  # of 150: 4.7 %
    assert check("throttled", reports=(few,)).severity == "pass"
    many = replace(REPORT, throttled=75, throttled_ns=150 * SECOND)
    found = check("throttled", reports=(many,))
    assert (found.severity, found.value) == ("warning", 0.5)
    assert "held back 50% of the requests, for 2 s on average" in found.message
    assert check("throttled").message == "No request waited for a cap on requests per minute."


def documented() -> str:
    return (Path(__file__).parents[1] / "docs" / "verdict.md").read_text()


def test_the_documented_reasons_are_the_registry() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (warning|invalid) \| (.+) \|$", documented(), re.M)
    assert rows == [(each.code, each.worst, each.about) for _, each in CHECKS.items()]


def test_the_documented_thresholds_are_the_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([0-9.]+) \| (.+) \|$", documented(), re.M)
    assert {name: float(value) for name, value, _ in rows} == table()
    for name, _, what in rows:
        for code in re.findall(r"`(\w+)`", what):
            assert code in CHECKS, (name, code)


def test_every_threshold_is_used() -> None:
    folder = Path(__file__).parents[1] / "harness" / "verdict"
    text = "".join(path.read_text() for path in folder.glob("checks_*.py"))
    assert [name for name in table() if not re.search(rf"\.{name}\b", text)] == []


def test_a_threshold_can_be_set() -> None:
    strict = replace(THRESHOLDS, min_window_s=60.0)
    assert check("short_run", thresholds=strict).severity == "warning"
