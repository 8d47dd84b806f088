"""Figures from texts that people check a benchmark against."""

import numpy as np
import pytest

from servemark.harness.figures.frame import Window
from servemark.harness.figures.metrics import view_of
from servemark.harness.figures.objectives import weigh
from servemark.harness.figures.slo import parse_slo
from servemark.harness.figures.stats import certified, early_stopping, samples_needed
from servemark.harness.figures.summary import summarize
from tests.frames import answer, at, failed, frame


def test_goodput_is_30_where_30_of_100_rps_meet_both_limits() -> None:
    """100 requests a second for 10 s, of which 30 meet TTFT <= 200 ms and TPOT <= 100 ms.

    Of the 70 others 40 miss TTFT only, 20 miss TPOT only and 10 fail.
    """
    rng = np.random.default_rng(0)
    records = []
    for second in range(10):
        kinds = rng.permutation(["good"] * 30 + ["late"] * 40 + ["slow"] * 20 + ["failed"] * 10)
        for i, kind in enumerate(kinds):
            index, when = second * 100 + i, second * 1000.0 + i * 10
            chunks = {"good": (200, 300), "late": (201, 250), "slow": (90, 191)}.get(kind)
            records.append(answer(index, when, chunks) if chunks else failed(index, when))
    slo = parse_slo("ttft=200ms,tpot=100ms")
    found = summarize(frame(*records), Window(at(0), at(10_000)), slo)
    assert found["offered_rps"]["value"] == 100
    assert found["goodput"]["value"] == 30
    assert found["goodput_share"]["value"] == 0.3
    assert found["goodput_tps"]["value"] == 60


@pytest.mark.parametrize(("ttft", "tpot"), [(50, 20), (200, 100), (1, 0.5)])
def test_an_answer_of_100_tokens_takes_ttft_and_99_tpot(ttft: float, tpot: float) -> None:
    """TTFT + TPOT x tokens, as texts have it, counts the first token twice."""
    record = answer(0, 0, [ttft + tpot * i for i in range(100)])
    found = summarize(frame(record))
    assert found["output_tokens"]["p50"] == 100
    assert found["e2e"]["p50"] == pytest.approx(ttft + 99 * tpot)
    assert found["e2e"]["p50"] == pytest.approx(found["ttft"]["p50"] + 99 * found["tpot"]["p50"])
    assert found["e2e_per_token"]["p50"] == pytest.approx((ttft + 99 * tpot) / 100)
    assert found["tps_user"]["p50"] == pytest.approx(1000 / tpot)
    assert found["itl"]["p99"] == pytest.approx(tpot)


def test_a_speculative_server_is_as_fast_as_its_tokens() -> None:
    """Four tokens every 80 ms: 20 ms a token, though the chunks are 80 ms apart."""
    record = answer(0, 0, [100 + 80 * i for i in range(25)], [4] * 25)
    found = summarize(frame(record))
    assert found["tpot"]["p50"] == found["itl"]["p50"] == 20
    assert found["icl"]["p50"] == 80
    assert found["tpot_n1"]["p50"] == pytest.approx(80 * 24 / 99)  # the field's form flatters it a little


def test_mlperf_early_stopping_needs_64_130_662_and_6636_requests() -> None:
    percents = (90, 95, 99, 99.9)
    assert [samples_needed(p) for p in percents] == [64, 130, 662, 6636]
    assert [samples_needed(p, over=0) for p in percents] == [44, 90, 459, 4603]
    for percent, n in zip(percents, (64, 130, 662, 6636), strict=True):
        assert early_stopping(n, percent) == 1
        assert early_stopping(n - 1, percent) is None
    assert certified(6635) == ["p50", "p90", "p95", "p99"]
    assert certified(6636)[-1] == "p99_9"


def test_with_one_percent_failures_p99_is_infinite_and_p95_is_not() -> None:
    """11 of 1,000 fail: the 990th of 1,000 is a failure. With 10 it is the worst success."""
    for failures, p99 in ((11, None), (10, 50 + 989)):
        records = [answer(i, i, (50.0 + i, 2000)) for i in range(1000 - failures)]
        records += [failed(2000 + i, 2000.0 + i) for i in range(failures)]
        view = view_of(frame(*records))
        found = summarize(view.frame, names=["ttft"])["ttft"]
        assert found["p99_adj"] == p99
        assert found["p95_adj"] == 50 + 949
        assert found["p99"] is not None
        assert weigh(parse_slo("ttft:p99=2s"), view).met == (p99 is not None)


def test_coordinated_omission_shows_from_the_intended_time() -> None:
    """A server that answers in 1 ms stalls for 1 s; a request was due each 10 ms and the client waited its turn.

    From sent only one request was slow. Users who came during the stall waited 1000, 990, 980 ... ms.
    """
    records = [answer(0, 0, (1000, 1001))]
    records += [answer(i, i * 10.0, (1001 - i * 10.0, 1002), sent=1000 - i * 10.0) for i in range(1, 100)]
    records += [answer(i, i * 10.0, (1.0, 2)) for i in range(100, 200)]
    found = summarize(frame(*records), names=["ttft", "ttft_sent"])
    assert found["ttft_sent"]["p99"] == pytest.approx(1)
    assert found["ttft"]["p95"] == pytest.approx(1001 - 100)
    assert found["ttft"]["p90"] == pytest.approx(1001 - 200)
