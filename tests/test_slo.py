"""The SLO grammar, its error sentences, and how a run is held to it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.figures.metrics import METRICS, view_of
from servemark.harness.figures.objectives import weigh
from servemark.harness.figures.slo import Slo, from_vllm_goodput, limitable, parse_slo
from servemark.harness.types import Record
from tests.frames import answer, failed, frame


@pytest.mark.parametrize(
    ("text", "metric", "percent", "value"),
    [
        ("ttft=200ms", "ttft", None, 200),
        ("ttft=0.2s", "ttft", None, 200),
        ("tpot=500us", "tpot", None, 0.5),
        ("e2e=1min", "e2e", None, 60_000),
        ("ttft:p99=500ms", "ttft", 99, 500),
        ("itl:p99.9=1.5 s", "itl", 99.9, 1500),
        ("itl:p99_9=1e3ms", "itl", 99.9, 1000),
        ("tps_user=20tok/s", "tps_user", None, 20),
        ("fluidity=90%", "fluidity", None, 0.9),
        ("error_rate=0.5%", "error_rate", None, 0.005),
        ("output_tps=1000tok/s", "output_tps", None, 1000),
        ("e2e_per_token=30ms", "e2e_per_token", None, 30),
    ],
)
def test_limits(text: str, metric: str, percent: float | None, value: float) -> None:
    (limit,) = parse_slo(text).limits
    assert (limit.metric, limit.percent) == (metric, percent)
    assert limit.value == pytest.approx(value)
    assert limit.per_request == (percent is None and METRICS[metric].kind == "per_request")


def test_several_limits_and_their_text() -> None:
    slo = parse_slo(["ttft=200ms, tpot=50ms", "ttft:p99=1s"], attainment=0.95)
    assert str(slo) == "ttft=200ms,tpot=50ms,ttft:p99=1s"
    assert parse_slo(str(slo), 0.95) == slo
    assert [limit.metric for limit in slo.per_request] == ["ttft", "tpot"]
    assert slo.deadlines_ms() == {"ttft": 200, "tpot": 50}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no limit"),
        ("ttft", "'ttft' is no limit"),
        ("ttft=200", r"'ttft=200' has no unit; write ttft=200ms"),
        ("ttft=fast", "has no value in us or ms or s"),
        ("ttft=200tok/s", "has no value in us or ms"),
        ("ttft=-5ms", "has no value"),
        ("tftt=200ms", "'tftt' in 'tftt=200ms' is no metric; limits go on: ttft,"),
        ("output_tokens=5ms", "cannot be limited"),
        ("goodput=5req/s", "cannot be limited"),
        ("itl=50ms", "itl has no one value per request; write a percentile, as itl:p99=50ms"),
        ("ttft:p100=5ms", "'p100' in 'ttft:p100=5ms' is no percentile"),
        ("ttft:mean=5ms", "'mean' in 'ttft:mean=5ms' is no percentile"),
        ("error_rate:p99=1%", "has one value a run"),
        ("error_rate=1", "has no unit; write error_rate=1%"),
        ("error_rate=0.01", "has no unit; write error_rate=1%"),
        ("error_rate=.005", r"has no unit; write error_rate=0\.5%"),
        ("fluidity=0.9", "has no unit; write fluidity=90%"),
        ("fluidity=1", "has no unit; write fluidity=100%"),
        ("fluidity=90", "has no unit; write fluidity=90%"),
        ("ttft=200ms,ttft=300ms", "ttft is limited twice"),
    ],
)
def test_what_is_no_slo_is_said_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        parse_slo(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("attainment", [0, -1, 1.1])
def test_attainment_is_a_share(attainment: float) -> None:
    with pytest.raises(ValueError, match="is no share"):
        parse_slo("ttft=1s", attainment)


def test_every_limitable_metric_has_a_unit_to_write() -> None:
    units = {"ms": "ms", "ms/tok": "ms", "tok/s": "tok/s", "req/s": "req/s", "share": "%"}
    for name in limitable():
        percentile = ":p90" if METRICS[name].kind == "pooled" else ""
        assert parse_slo(f"{name}{percentile}=5{units[METRICS[name].unit]}").limits[0].metric == name


def test_vllms_goodput() -> None:
    expected = parse_slo("ttft=200ms,tpot=50ms,e2e=2000ms")
    assert from_vllm_goodput(["ttft:200", "tpot:50", "e2el:2000"]) == expected
    assert from_vllm_goodput(["ttft:200 tpot:50,e2el:2000"]) == expected
    for wrong in ("ttft", "itl:5", "ttft:200ms", "ttft:-1"):
        with pytest.raises(ValueError, match=r"no --goodput limit|holds no"):
            from_vllm_goodput([wrong])


def test_reading_an_slo_loads_no_numpy() -> None:
    program = (
        "import sys; from servemark.harness.figures.slo import parse_slo; parse_slo('ttft:p99=1s');"
        "print([m for m in ('numpy', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def passes(slo: Slo, *records: Record) -> list[bool]:
    found: list[bool] = slo.passes(view_of(frame(*records))).tolist()
    return found


def test_a_request_passes_only_with_every_limit_met() -> None:
    slo = parse_slo("ttft=100ms,tpot=20ms")
    records = [
        answer(0, 0, (100, 120, 140)),  # exactly at both limits
        answer(1, 1, (101, 102)),
        answer(2, 2, (50, 71)),
        failed(3, 3),
        answer(4, 4, (50, 60), error="abandoned"),
        answer(5, 5, (50, 60), phase="warmup"),
    ]
    assert passes(slo, *records) == [True, False, False, False, False, False]


def test_lateness_of_the_client_counts_against_the_request() -> None:
    """From the intended time: a request that waited for a slot felt slow."""
    slo, late = parse_slo("ttft=100ms"), answer(0, 0, (150, 160), sent=80)
    assert passes(slo, late) == [False]
    assert slo.passes(view_of(frame(late), origin="sent")).tolist() == [True]


def test_an_answer_of_one_chunk_meets_any_tpot_but_no_ttfa_it_never_had() -> None:
    single = answer(0, 0, (50,), (1,))
    assert passes(parse_slo("tpot=1ms"), single) == [True]
    assert passes(parse_slo("tps_user=1000tok/s"), single) == [True]
    assert passes(parse_slo("ttfa=1s"), answer(0, 0, first_answer_ns=None)) == [False]
    assert passes(parse_slo("tpot=1s"), answer(0, 0, output_tokens=None)) == [False]


def test_attainment_is_the_joint_share() -> None:
    """Each limit alone is met by 9 of 10, both by 8 of 10."""
    records = [answer(i, i, (50, 60)) for i in range(8)]
    records += [answer(8, 8, (500, 510)), answer(9, 9, (50, 150))]
    view = view_of(frame(*records))
    missed = weigh(parse_slo("ttft=100ms,tpot=20ms", 0.85), view)
    assert (missed.met, missed.good, missed.measured, missed.share) == (False, 8, 10, 0.8)
    assert [each.value for each in missed.limits] == [0.9, 0.9]
    assert missed.reasons == ("80.00% of 10 requests meet ttft=100ms,tpot=20ms; 0.85 of them must",)
    assert weigh(parse_slo("ttft=100ms,tpot=20ms", 0.8), view).met
    assert not weigh(parse_slo("ttft=100ms,tpot=20ms"), view).met  # 0.99 where none is named


def test_run_limits_are_judged_on_adjusted_percentiles() -> None:
    fine = [answer(i, i, (50, 60)) for i in range(98)]
    slo = parse_slo("ttft:p99=100ms,itl:p99=20ms,error_rate=5%")
    assert weigh(slo, view_of(frame(*fine))).met
    result = weigh(slo, view_of(frame(*fine, failed(98, 98), failed(99, 99))))
    assert [each.met for each in result.limits] == [False, True, True]
    assert result.reasons == ("ttft p99 is infinite, as 2 of 100 requests failed; the limit is 100 ms",)
    json.dumps(result.to_json(), allow_nan=False)


def test_reasons_hold_the_figures() -> None:
    slow = [answer(i, i, (612, 700)) for i in range(10)] + [failed(10, 10)]
    result = weigh(parse_slo("ttft:p50=500ms,error_rate=1%,output_tps=9e9tok/s"), view_of(frame(*slow)))
    assert result.reasons[0] == "ttft p50 is 612 ms; the limit is 500 ms"
    assert result.reasons[1] == "error_rate is 9.091 %; the limit is 1 %"
    assert "output_tps is" in result.reasons[2]


def test_where_higher_is_better_the_percentile_is_what_that_share_reaches() -> None:
    """TPOT 10, 20 ... 1000 ms: 99 % of users see at least 1000 / 990 tok/s."""
    records = [answer(i, i, (50, 50 + 10 * (i + 1))) for i in range(100)]
    view = view_of(frame(*records))
    result = weigh(parse_slo("tps_user:p99=1tok/s"), view)
    assert result.limits[0].value == pytest.approx(1000 / 990)
    assert result.met
    assert not weigh(parse_slo("tps_user:p99=1.1tok/s"), view).met
    with_failure = view_of(frame(*records[:9], failed(200, 200)))
    assert weigh(parse_slo("tps_user:p95=1tok/s"), with_failure).limits[0].value is None


@pytest.mark.parametrize("records", [[], [failed(0, 0)], [answer(0, 0, phase="warmup")]])
def test_a_run_without_a_success_meets_nothing(records: list[Record]) -> None:
    for text in ("ttft=1s", "ttft:p50=1s", "itl:p99=1s"):
        result = weigh(parse_slo(text), view_of(frame(*records)))
        assert not result.met
        assert result.reasons


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 300), st.sampled_from([50, 90, 99]))
def test_a_percentile_limit_is_a_share_limit(ttfts: list[int], limit: int, percent: int) -> None:
    """pNN <= x exactly when NN % of requests have at most x."""
    records = [answer(i, i, (t, t + 9)) for i, t in enumerate(ttfts)]
    met = weigh(parse_slo(f"ttft:p{percent}={limit}ms"), view_of(frame(*records))).met
    assert met == (np.sum(np.array(ttfts) <= limit) * 100 >= percent * len(ttfts))
