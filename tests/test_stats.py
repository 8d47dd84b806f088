"""Percentiles, their intervals and their sample sizes, against naive or published figures."""

from fractions import Fraction
from math import comb, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.figures import stats

values = st.lists(st.floats(-1e6, 1e6) | st.just(inf), min_size=1, max_size=300)


@given(values, st.sampled_from(stats.PERCENTS))
def test_percentiles_are_nearest_rank(sample: list[float], percent: float) -> None:
    """The smallest value with at least that share of the sample at or below it."""
    share = Fraction(str(percent)) / 100
    naive = next(v for v in sorted(sample) if Fraction(sum(x <= v for x in sample), len(sample)) >= share)
    assert stats.percentile(np.sort(np.array(sample)), percent) == naive


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([50, 90, 95, 99]))
def test_percentiles_agree_with_numpy(sample: list[float], percent: float) -> None:
    expected = np.quantile(np.array(sample), percent / 100, method="inverted_cdf")
    assert stats.percentile(np.sort(np.array(sample)), percent) == expected


def test_a_tenth_of_a_percent_of_a_thousand_is_one() -> None:
    """0.999 as a float times 1000 must not round up to rank 1000."""
    assert [stats.rank(99.9, n) for n in (1000, 10_000, 1001)] == [999, 9990, 1000]


def test_labels() -> None:
    assert [stats.label(p) for p in (50, 99, 99.9)] == ["p50", "p99", "p99_9"]


def binomial_cdf(k: int, n: int, p: Fraction) -> Fraction:
    return sum((comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


@pytest.mark.parametrize("n", [5, 20, 64, 200])
@pytest.mark.parametrize("percent", [50, 90, 99])
def test_interval_covers_as_promised_and_no_more_than_needed(n: int, percent: float) -> None:
    """Each end leaves out at most 2.5 %, and one rank further in would leave out more (exact arithmetic)."""
    p, tail = Fraction(str(percent)) / 100, Fraction(1, 40)
    low, high = stats.interval_ranks(n, percent)
    if low is None:
        assert binomial_cdf(0, n, p) > tail
    else:
        assert binomial_cdf(low - 1, n, p) <= tail < binomial_cdf(low, n, p)
    if high is None:
        assert binomial_cdf(n - 1, n, p) < 1 - tail
    else:
        assert binomial_cdf(high - 1, n, p) >= 1 - tail > binomial_cdf(high - 2, n, p)


def test_interval_of_the_median_from_a_textbook_table() -> None:
    """The sign test's: for n = 20 the 6th to the 15th order statistic, which covers 95.86 %."""
    assert stats.interval(np.arange(1.0, 21.0), 50) == [6, 15]
    assert stats.interval(np.arange(3.0), 99)[1] is None
    assert stats.interval(np.array([]), 50) == [None, None]


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(400):
        low, high = stats.interval(np.sort(rng.exponential(size=120)), 50)
        held += low is not None and high is not None and low <= np.log(2) < high
    assert held >= 0.93 * 400


def test_autocorrelation() -> None:
    assert stats.autocorrelation(np.array([1.0, 2.0])) is None
    assert stats.autocorrelation(np.full(9, 3.0)) is None
    # By hand: mean 2.5; (-1.5 -.5)(.5 1.5) products .75 - .25 + .75 = 1.25 over 5
    assert stats.autocorrelation(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(0.25)
    assert (stats.autocorrelation(np.tile([1.0, -1.0], 500)) or 0) < -0.99


@given(st.integers(1, 400), st.sampled_from([50, 90, 95, 99]))
def test_early_stopping_allows_the_most_it_can(n: int, percent: float) -> None:
    over = 1 - Fraction(str(percent)) / 100
    t = stats.early_stopping(n, percent)
    limit = Fraction(1, 100)
    if t is None:
        assert binomial_cdf(1, n, over) >= limit
    else:
        assert binomial_cdf(t, n, over) < limit <= binomial_cdf(t + 1, n, over)


def test_early_stopping_estimate_is_the_value_that_many_from_the_top() -> None:
    ordered = np.arange(64.0)
    assert stats.early_stopping(64, 90) == 1
    assert stats.early_stopping_estimate(ordered, 90) == 63
    assert stats.early_stopping_estimate(ordered, 90, higher=True) == 0
    assert stats.early_stopping_estimate(ordered[:63], 90) is None
    assert stats.certified(64) == ["p50", "p90"]
    assert stats.certified(10) == []


def pooled(requests: int, gaps: int, spread: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Gaps whose level differs from request to request by `spread`."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(requests), gaps)
    return rng.exponential(size=requests * gaps) + spread * rng.normal(size=requests)[clusters], clusters


def width(interval: list[float | None]) -> float:
    low, high = interval
    assert low is not None
    assert high is not None
    return high - low


def test_bootstrap_draws_requests_and_not_gaps() -> None:
    """Gaps of a request that move together carry less information: the interval must be much wider."""
    free, clusters = pooled(200, 50, 0.0)
    tied, _ = pooled(200, 50, 3.0)
    of_free = stats.cluster_bootstrap(free, np.sort(free), clusters)
    of_tied = stats.cluster_bootstrap(tied, np.sort(tied), clusters)
    assert width(of_tied["p50"]) > 5 * width(of_free["p50"])


def test_bootstrap_agrees_with_the_plain_one() -> None:
    gaps, clusters = pooled(60, 20, 1.0)
    quick = stats.cluster_bootstrap(gaps, np.sort(gaps), clusters, (50, 90), seed=5)
    rng = np.random.default_rng(6)
    rows = gaps.reshape(60, 20)
    drawn = rows[rng.integers(0, 60, (800, 60))].reshape(800, -1)
    for percent in (50, 90):
        plain = np.quantile(np.quantile(drawn, percent / 100, axis=1, method="inverted_cdf"), (0.025, 0.975))
        assert quick[stats.label(percent)] == pytest.approx(list(plain), abs=0.25 * float(plain[1] - plain[0]))


def test_bootstrap_is_the_same_each_time_and_holds_the_estimate() -> None:
    gaps, clusters = pooled(100, 10, 0.5)
    ordered = np.sort(gaps)
    first = stats.cluster_bootstrap(gaps, ordered, clusters)
    assert first == stats.cluster_bootstrap(gaps, ordered, clusters)
    for percent in stats.PERCENTS:
        low, high = first[stats.label(percent)]
        assert low is not None
        assert high is not None
        assert low <= (stats.percentile(ordered, percent) or 0) <= high


def test_bootstrap_caps_its_cost_without_losing_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_MAX_VALUES", 4_000)
    monkeypatch.setattr(stats, "_MAX_CLUSTERS", 50)
    gaps, clusters = pooled(400, 50, 0.5)
    ordered = np.sort(gaps)
    low, high = stats.cluster_bootstrap(gaps, ordered, clusters)["p50"]
    assert low is not None
    assert high is not None
    assert low < (stats.percentile(ordered, 50) or 0) < high
    assert 0 < high - low < 1


def test_bootstrap_of_one_request_says_nothing() -> None:
    gaps = np.arange(5.0)
    assert stats.cluster_bootstrap(gaps, gaps, np.zeros(5, dtype=np.int64)) == {}
    assert stats.cluster_bootstrap(gaps[:0], gaps[:0], np.zeros(0, dtype=np.int64)) == {}


def test_trend_sees_a_drift_and_no_noise_or_outlier() -> None:
    rng = np.random.default_rng(2)
    noise = rng.lognormal(3, 0.5, 600)
    assert stats.trend(noise[:20]) is None
    rising = stats.trend(noise * np.linspace(1, 3, 600))
    calm = stats.trend(noise)
    burst = noise.copy()
    burst[500:520] = inf
    assert rising is not None
    assert calm is not None
    assert rising.z > 2.58
    assert rising.late > 1.5 * rising.early
    assert abs(calm.z) < 2.58
    found = stats.trend(burst)
    assert found is not None
    assert abs(found.z) < 2.58
    falling = stats.trend(noise[::-1] * np.linspace(3, 1, 600))
    assert falling is not None
    assert falling.z < -2.58
