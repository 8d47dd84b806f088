"""Each metric against arithmetic done by hand or token by token."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.figures import chunks
from servemark.harness.figures.frame import Frame, Window
from servemark.harness.figures.groups import by_input_length, groups
from servemark.harness.figures.metrics import METRICS, errors, view_of
from servemark.harness.figures.slo import parse_slo
from servemark.harness.figures.summary import summarize
from servemark.harness.types import Record
from tests.frames import answer, at, failed, frame

counts = st.lists(st.integers(1, 4), min_size=1, max_size=8)


def entry(name: str, *records: Record, window: Window | None = None, slo: str | None = None) -> dict[str, Any]:
    parsed = parse_slo(slo) if slo else None
    return summarize(frame(*records), window, parsed, names=[name])[name]


def value(name: str, *records: Record) -> float | None:
    """The one value of a per-request metric."""
    found = entry(name, *records)
    assert found["n"] <= 1
    return found["p50"]


def one(**changes: Any) -> Record:
    """Intended at 0, sent at 4 ms, chunks of 1, 3 and 1 tokens at 50, 110 and 120 ms."""
    return answer(0, 0, (50, 110, 120), (1, 3, 1), sent=4, **changes)


def test_latencies_of_one_answer() -> None:
    record = one(first_answer_ns=at(110), connect_started_ns=at(-9), connect_ns=at(-7))
    expected = {
        "ttft": 50,
        "ttft_sent": 46,
        "ttfa": 110,
        "tpot": (120 - 50) / (5 - 1),
        "tpot_n1": (120 - 50) / (5 - 1),
        "e2e": 120,
        "e2e_sent": 116,
        "e2e_per_token": 24,
        "tps_user": 1000 / 17.5,
        "send_lag": 4,
        "connect_time": 2,
    }
    for name, wanted in expected.items():
        assert value(name, record) == pytest.approx(wanted), name


def test_the_origin_can_be_the_sending() -> None:
    found = summarize(frame(one()), origin="sent", names=["ttft", "e2e", "ttft_sent"])
    assert [found[name]["origin"] for name in found] == ["sent", "sent", "sent"]
    assert found["ttft"]["p50"] == found["ttft_sent"]["p50"] == 46


def test_a_chunk_of_k_tokens_is_k_gaps_and_one_chunk_gap() -> None:
    itl, icl = entry("itl", one()), entry("icl", one())
    assert (itl["n"], itl["max"], itl["p50"]) == (4, 20, 20)
    assert (icl["n"], icl["max"], icl["p50"]) == (2, 60, 10)


@given(counts, st.data())
def test_token_gaps_add_up_to_last_minus_first(sizes: list[int], data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.floats(0.1, 500), min_size=len(sizes), max_size=len(sizes)))
    record = answer(0, 0, np.cumsum(gaps).tolist(), sizes)
    found = chunks.token_gaps(frame(record))
    assert len(found.values) == sum(sizes) - sizes[0]
    span = (record.last_token_ns or 0) - (record.first_token_ns or 0)
    assert found.values.sum() * 1e6 == pytest.approx(span, abs=1)
    tpot = value("tpot", record)
    if len(sizes) > 1:
        assert tpot is not None
        assert tpot == pytest.approx(found.values.mean())  # TPOT is the mean ITL of its request
    else:
        assert tpot is None


def test_gaps_never_span_two_answers() -> None:
    found = entry("icl", answer(0, 0, (10, 20)), answer(1, 5, (30, 45)), failed(2, 6), answer(3, 7, (9,)))
    assert (found["n"], found["min"], found["max"], found["n_requests"]) == (2, 10, 15, 2)


def test_chunks_are_not_counted_as_tokens() -> None:
    """Ten tokens came in three chunks of unknown sizes: no ITL, but the chunk gaps stand."""
    record = answer(0, 0, (50, 60, 90), (None, None, None), output_tokens=10)
    assert entry("itl", record)["n"] == 0
    assert entry("icl", record)["n"] == 2
    assert value("fluidity", record) is None
    assert value("tpot", record) == pytest.approx(40 / 9)  # the first chunk is taken for one token, and said so
    assert entry("tpot", record)["first_chunk_assumed"] == 1


def test_as_many_tokens_as_chunks_is_one_each() -> None:
    record = answer(0, 0, (50, 60, 90), (None, None, None), output_tokens=3)
    assert entry("itl", record)["max"] == 30
    assert entry("tpot", record)["first_chunk_assumed"] == 0


def test_a_chunk_without_a_new_token_lends_its_time_to_the_next() -> None:
    record = answer(0, 0, (50, 60, 90), (1, 0, 2))
    found = entry("itl", record)
    assert (found["n"], found["min"], found["max"]) == (2, 20, 20)


def test_tpot_is_null_where_nothing_follows_the_first_chunk() -> None:
    for record in (answer(0, 0, (50,), (7,)), answer(0, 0, (50,), (1,)), one(output_tokens=None)):
        for name in ("tpot", "tpot_n1", "tps_user"):
            assert value(name, record) is None, name


def test_lengths() -> None:
    record = one(asked_prompt_tokens=98, asked_output_tokens=8, cached_tokens=25)
    expected = {
        "output_tokens": 5,
        "prompt_tokens": 100,
        "output_drift": -3,
        "prompt_drift": 2,
        "cached_share": 0.25,
    }
    assert {name: value(name, record) for name in expected} == expected


# Fluidity


def naive_deadlines(stamps: list[float], first: float, each: float) -> tuple[float, float]:
    """Token by token: the deadline of the next is `each` after the later of this one's deadline and arrival."""
    due, met, stall = first, 0, 0.0
    for i, stamp in enumerate(stamps):
        met += stamp <= due
        stall += max(0.0, stamp - due) if stamp != stamps[0] and i else 0.0
        due = max(due, stamp) + each
    return met / len(stamps), stall


@given(st.lists(st.tuples(counts, st.integers(1, 400), st.integers(0, 10**6)), min_size=1, max_size=4))
def test_fluidity_follows_each_token(answers: list[tuple[list[int], int, int]]) -> None:
    records, expected = [], []
    for i, (sizes, first, seed) in enumerate(answers):
        gaps = np.random.default_rng(seed).integers(1, 90, len(sizes))
        arrivals = (first + np.cumsum(gaps) - gaps[0]).tolist()
        records.append(answer(i, i * 1000.0, arrivals, sizes))
        tokens = [stamp for stamp, k in zip(arrivals, sizes, strict=True) for _ in range(k)]
        expected.append(naive_deadlines(tokens, 200, 30))
    found = chunks.deadlines(frame(*records), "intended_ns", 200, 30)
    assert found.fluidity.tolist() == pytest.approx([share for share, _ in expected])
    assert found.stall_ms.tolist() == pytest.approx([stall for _, stall in expected])


def test_slack_is_carried_forward() -> None:
    """Tokens that came early pay for a pause; a server without that slack misses a deadline."""
    early = answer(0, 0, (10, 20, 30, 130), (1, 1, 1, 1))
    found = entry("fluidity", early, slo="ttft=100ms,tpot=20ms")
    assert found["p50"] == 1
    assert found["deadlines"] == {"ttft_ms": 100, "tpot_ms": 20, "source": "slo"}
    late = answer(0, 0, (100, 120, 140, 240), (1, 1, 1, 1))
    assert entry("fluidity", late, slo="ttft=100ms,tpot=20ms")["p50"] == 0.75
    assert entry("stall_time", late, slo="ttft=100ms,tpot=20ms")["p50"] == 80
    assert entry("fluidity", late)["deadlines"]["source"] == "default"


def test_fluidity_in_blocks_is_fluidity_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [answer(i, i * 7.0, range(40, 40 + 25 * (i % 9), 25) if i % 9 else (), sent=1) for i in range(40)]
    records = [r if r.chunk_ns else failed(r.request_id, r.request_id * 7.0) for r in records]
    whole = chunks.deadlines(frame(*records), "intended_ns", 60, 20)
    blocks = chunks._blocks
    monkeypatch.setattr(chunks, "_blocks", lambda offsets: blocks(offsets, 10))
    assert len(list(chunks._blocks(frame(*records).offsets))) > 5  # type: ignore[call-arg]
    parts = chunks.deadlines(frame(*records), "intended_ns", 60, 20)
    np.testing.assert_array_equal(whole.fluidity, parts.fluidity)
    np.testing.assert_array_equal(whole.stall_ms, parts.stall_ms)


# Failures


def test_failed_requests_are_infinite_in_adjusted_percentiles_only() -> None:
    records = [answer(i, i, (50 + i, 60 + i)) for i in range(98)] + [failed(98, 98), failed(99, 99)]
    found = entry("ttft", *records)
    assert (found["n"], found["n_adj"]) == (98, 100)
    assert found["p99"] == 50 + 97
    assert found["p95_adj"] == 50 + 94
    assert found["p99_adj"] is None
    assert found["p99_9_adj"] is None
    assert found["censored"] is True
    assert entry("ttft", *records[:98])["censored"] is False


def test_early_stopping_is_of_the_adjusted_sample() -> None:
    records = [answer(i, i, (50 + i, 99)) for i in range(63)] + [failed(63, 63)]
    found = entry("ttft", *records)
    assert found["certified"] == ["p50", "p90"]
    assert found["early_stopping"]["p90"] is None  # n = 64 allows the largest value only, which is infinite


def test_a_failed_request_does_not_enter_pooled_gaps() -> None:
    cut = answer(1, 1, (10, 500), error="reset")
    assert entry("itl", answer(0, 0, (10, 20)), cut)["n"] == 1


def test_errors_by_kind() -> None:
    built = frame(failed(0, 0), failed(1, 1), failed(2, 2, "empty"), failed(3, 3, phase="warmup"), answer(4, 4))
    assert errors(built) == {"reset": 2, "empty": 1}
    found = summarize(built, names=["error_rate"])["error_rate"]
    assert found["value"] == 0.75
    assert found["kinds"] == {"reset": 2, "empty": 1}


# Throughput


def test_tokens_count_where_they_are_stamped() -> None:
    """Window 100 to 1100 ms: a warm-up answer's last token is inside, the measured one's last is not."""
    records = [answer(0, 0, (50, 150), (2, 3), phase="warmup"), answer(1, 100, (500, 1050), (4, 5))]
    window = Window(at(100), at(1100))
    assert entry("output_tps", *records, window=window)["value"] == 3 + 4
    assert entry("input_tps", *records, window=window)["value"] == 100
    assert entry("rps", *records, window=window)["value"] == 1
    whole = entry("output_tps_run", *records, window=window)
    assert whole["window"] == "run"
    assert whole["value"] == pytest.approx(14 / 1.151, rel=1e-6)
    assert entry("rps_run", *records)["value"] == pytest.approx(2 / 1.151, rel=1e-6)
    assert entry("input_tps_run", *records)["value"] == pytest.approx(200 / 1.151, rel=1e-6)


def test_uncounted_chunks_share_the_response_evenly_and_it_is_said() -> None:
    record = answer(0, 0, (100, 200, 1200), (None, None, None), output_tokens=30)
    cut = failed(1, 1, chunk_ns=(at(300),), chunk_tokens=(None,))
    found = entry("output_tps", record, cut, window=Window(at(0), at(1000)))
    assert found["value"] == 20
    assert (found["spread_tokens"], found["uncounted_chunks"]) == (20, 1)


def test_a_window_without_length_has_no_rate() -> None:
    found = summarize(frame(answer(0, 0), answer(1, 0)), slo=parse_slo("ttft=1s"))
    for name in ("output_tps", "input_tps", "rps", "offered_rps", "goodput", "goodput_tps"):
        assert found[name]["value"] is None, name
    assert found["output_tps_run"]["value"] > 0
    assert found["goodput_share"]["value"] == 1


def test_coalesced_share() -> None:
    found = entry("coalesced_share", answer(0, 0, reads=6, coalesced_reads=3), answer(1, 1, reads=4))
    assert found["value"] == 0.3


# Summaries


def mixed() -> Frame:
    rng = np.random.default_rng(4)
    records = []
    for i in range(120):
        stamps = (40 + np.cumsum(rng.exponential(20, 12))).tolist()
        records.append(
            answer(i, i * 25.0, stamps, class_="ab"[i % 2], turn=i % 3, url="http://a", phase="measured")
            if i % 10
            else failed(i, i * 25.0, class_="ab"[i % 2], turn=i % 3)
        )
    return frame(*records)


def test_every_entry_is_json_and_complete() -> None:
    found = summarize(mixed(), slo=parse_slo("ttft=200ms"))
    assert list(found) == list(METRICS)
    json.dumps(found, allow_nan=False)
    for name, each in found.items():
        assert {"unit", "better", "kind", "origin", "window"} <= set(each), name
        if each["kind"] == "scalar":
            assert {"value", "seconds"} <= set(each), name
            continue
        wanted = {"n", "mean", "std", "min", "max", "p50", "p90", "p95", "p99", "p99_9", "ci", "certified"}
        assert wanted <= set(each), name
        if each["n"] > 2:
            assert each["min"] <= each["p50"] <= each["p99_9"] <= each["max"], name
            low, high = each["ci"]["p50"]
            assert low <= each["p50"] <= high, name


@pytest.mark.parametrize("records", [[], [failed(0, 0), failed(1, 5)], [answer(0, 0, phase="warmup")]])
def test_a_run_without_a_success_still_has_a_summary(records: list[Record]) -> None:
    found = summarize(frame(*records), slo=parse_slo("ttft=200ms,itl:p99=1s"))
    json.dumps(found, allow_nan=False)
    assert found["ttft"]["n"] == 0
    assert found["ttft"]["p99_adj"] is None
    assert found["itl"]["ci"] == {}


def test_goodput_is_left_out_without_an_slo() -> None:
    assert not any(METRICS[name].needs_slo for name in summarize(mixed()))


def test_autocorrelation_is_told() -> None:
    drifting = [answer(i, i, (50 + i, 60 + i)) for i in range(50)]
    assert entry("ttft", *drifting)["autocorrelated"] is True
    shuffled = np.random.default_rng(3).permutation(50)
    assert entry("ttft", *(answer(i, i, (50.0 + v, 200)) for i, v in enumerate(shuffled)))["autocorrelated"] is False


def test_groups_part_the_run() -> None:
    built = mixed()
    found = groups(built, slo=parse_slo("ttft=200ms"))
    by = [each["by"] for each in found if "input_tokens_up_to" not in each["by"]]
    assert by == [{"class": "a"}, {"class": "b"}, {"turn": 0}, {"turn": 1}, {"turn": 2}]
    whole = summarize(built)
    parts = [each["metrics"] for each in found if "class" in each["by"]]
    assert sum(part["ttft"]["n"] for part in parts) == whole["ttft"]["n"]
    for name in ("output_tps", "output_tps_run", "rps", "offered_rps"):
        assert sum(part[name]["value"] for part in parts) == pytest.approx(whole[name]["value"]), name


@given(st.lists(st.integers(1, 100_000), min_size=2, max_size=40))
def test_prompts_are_grouped_by_powers_of_two(lengths: list[int]) -> None:
    built = frame(*(answer(i, i, prompt_tokens=tokens) for i, tokens in enumerate(lengths)))
    labels = by_input_length(built)
    assert all(
        label >= tokens > label // 2 or tokens == label == 1 for label, tokens in zip(labels, lengths, strict=True)
    )


def test_one_class_makes_no_group() -> None:
    assert groups(frame(answer(0, 0), answer(1, 1))) == []


@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=2, max_size=40), st.integers(1, 400))
def test_goodput_never_exceeds_what_was_offered(requests: list[tuple[int, bool]], limit: int) -> None:
    records = [answer(i, i * 10.0, (t, t + 5)) if ok else failed(i, i * 10.0) for i, (t, ok) in enumerate(requests)]
    found = summarize(frame(*records), slo=parse_slo(f"ttft={limit}ms"))
    naive = sum(ok and t <= limit for t, ok in requests)
    assert found["goodput_share"]["value"] == naive / len(requests)
    assert found["goodput"]["value"] <= found["offered_rps"]["value"] == pytest.approx(100)
    inside = sum(ok and t <= limit for t, ok in requests[:-1])
    assert found["goodput"]["value"] * found["goodput"]["seconds"] == pytest.approx(inside)


def test_itl_and_icl_share_their_entry_where_they_are_the_same() -> None:
    view = view_of(mixed())
    assert view.itl is view.icl
    assert view_of(frame(one())).itl is not view_of(frame(one())).icl


def test_the_documented_table_is_the_registry() -> None:
    text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (\w+) \| ([\w ]+) \| ([\w' -]+) \| (\w+) \| (.+) \|$", text, re.M)
    origins = {"run": "the run's", "none": "-"}
    assert rows == [
        (m.name, m.unit, m.better, m.kind.replace("_", " "), origins.get(m.origin, m.origin), m.window, m.about)
        for _, m in METRICS.items()
    ]
    assert all(
        re.fullmatch(r"[A-Z0-9].*\.", metric.about) and "\n" not in metric.about for _, metric in METRICS.items()
    )


def test_documented_fields_are_those_of_entries() -> None:
    text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    found = summarize(mixed())
    written = found["ttft"] | found["itl"] | found["tpot"] | found["fluidity"] | found["error_rate"]
    for field in set(written) - {f"{p}{adj}" for p in ("p90", "p95", "p99") for adj in ("", "_adj")}:
        assert re.search(rf"\b{field}\b", text), field
