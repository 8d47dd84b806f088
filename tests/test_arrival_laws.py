"""Arrival processes against their laws, by figures that are worked out apart from them.

Limits are wide (five standard errors and more) and seeds fixed, so that a test fails for a wrong law and not for luck.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from servemark.harness.plan.arrivals import ARRIVALS, Gamma, Load, OpenLoop
from servemark.harness.plan.arrivals.gaps import LAWS, weibull_shape

SECOND = 1_000_000_000
Floats = npt.NDArray[np.float64]


def made(**keys: Any) -> OpenLoop:
    load: Load = ARRIVALS[keys["arrivals"]].model_validate(keys)
    assert isinstance(load, OpenLoop)
    return load


def seconds(load: OpenLoop, n: int, seed: int = 1) -> Floats:
    return np.array(list(islice(load.offsets_ns(seed), n)), dtype=np.float64) / SECOND


def until(offsets_ns: Iterator[int], end_s: float) -> Floats:
    """All that come before it."""
    found = []
    for offset_ns in offsets_ns:
        if offset_ns >= end_s * SECOND:
            break
        found.append(offset_ns / SECOND)
    return np.array(found)


def law_of(process: str, cv: float) -> Any:
    """scipy's own distribution of gaps with a mean of 1."""
    if process == "gamma":
        return stats.gamma(a=cv**-2, scale=cv**2)
    if process == "weibull":
        found = stats.weibull_min(c=weibull_shape(cv))
        return stats.weibull_min(c=weibull_shape(cv), scale=1 / found.mean())
    return stats.expon()


RENEWALS = [
    ("poisson", 1.0),
    ("gamma", 0.05),
    ("gamma", 0.5),
    ("gamma", 1.0),
    ("gamma", 2.0),
    ("gamma", 10.0),
    ("weibull", 0.05),
    ("weibull", 0.5),
    ("weibull", 1.0),
    ("weibull", 2.0),
    ("weibull", 10.0),
]


@pytest.mark.parametrize(("process", "cv"), RENEWALS)
def test_gaps_are_drawn_from_the_law(process: str, cv: float) -> None:
    """At each of these lengths the share of shorter gaps is the law's, within 5 standard errors."""
    n = 40_000
    gaps = np.diff(list(islice(LAWS[process](7, cv), n + 1)))
    law = law_of(process, cv)
    for length in (1e-6, 0.01, 0.1, 0.5, 0.9, 1.0, 1.1, 2.0, 5.0, 20.0):
        expected = float(law.cdf(length))
        allowed = 5 * math.sqrt(max(expected * (1 - expected), 1 / n) / n)
        assert abs((gaps <= length).mean() - expected) < allowed, length


@pytest.mark.parametrize(("process", "cv"), [each for each in RENEWALS if each[1] <= 1])
def test_gaps_pass_a_kolmogorov_smirnov_test(process: str, cv: float) -> None:
    keys = {"cv": cv} if process != "poisson" else {}
    gaps = np.diff(seconds(made(arrivals=process, rate=20, **keys), 20_001, seed=3)) * 20
    assert stats.kstest(gaps, law_of(process, cv).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("process", "cv"), RENEWALS)
def test_mean_and_spread_of_gaps(process: str, cv: float) -> None:
    n = 100_000
    gaps = np.diff(list(islice(LAWS[process](11, cv), n + 1)))
    law = law_of(process, cv)
    assert law.std() == pytest.approx(cv, rel=1e-6)
    assert gaps.mean() == pytest.approx(1, abs=5 * cv / math.sqrt(n))
    if cv <= 2:  # above, the fourth moment is so large that a sample's spread says little
        error = math.sqrt((float(law.stats(moments="k")) + 2) / n) / 2
        assert gaps.std() == pytest.approx(cv, rel=6 * error)


@pytest.mark.parametrize(("process", "cv"), RENEWALS)
def test_gaps_do_not_depend_on_those_before(process: str, cv: float) -> None:
    n = 50_000
    gaps = np.diff(list(islice(LAWS[process](5, cv), n + 1)))
    ranks = stats.rankdata(gaps)  # long gaps of a bursty law would decide a plain correlation alone
    for lag in (1, 2, 1024):  # and 1,024 gaps are drawn at once
        assert abs(np.corrcoef(ranks[lag:], ranks[:-lag])[0, 1]) < 5 / math.sqrt(n)


@pytest.mark.parametrize(("process", "cv"), [("poisson", 1.0), ("gamma", 0.5), ("gamma", 2.0), ("weibull", 2.0)])
def test_counts_are_as_dispersed_as_the_gaps(process: str, cv: float) -> None:
    """Over long windows the variance of counts / their mean goes to cv^2."""
    windows, length = 1000, 200.0
    times = np.array(list(islice(LAWS[process](2, cv), int(windows * length * 1.2))))
    counts = np.histogram(times, np.arange(windows + 1) * length)[0]
    assert counts.var() / counts.mean() == pytest.approx(cv**2, rel=5 * math.sqrt(2 / windows) + 0.05)


@pytest.mark.parametrize(("process", "cv"), [("poisson", 1.0), ("gamma", 0.3), ("gamma", 3.0), ("weibull", 3.0)])
def test_the_mean_rate_holds_from_the_first_moment_on(process: str, cv: float) -> None:
    """A process that began with an arrival would have (cv^2 - 1) / 2 arrivals too many, 4 of them at a cv of 3."""
    seeds, length = 400, 4.0
    counts = np.array([len(list(_before(LAWS[process](seed, cv), length))) for seed in range(seeds)])
    assert counts.mean() == pytest.approx(length, abs=5 * counts.std() / math.sqrt(seeds))


def _before(times: Iterator[float], end: float) -> Iterator[float]:
    for time in times:
        if time >= end:
            return
        yield time


def test_burstiness_is_vllms_shape_of_the_gamma_law() -> None:
    bursty = made(arrivals="gamma", rate=5, burstiness=0.25)
    assert isinstance(bursty, Gamma)
    assert bursty.variation == 2.0
    assert list(islice(bursty.offsets_ns(4), 100)) == list(
        islice(made(arrivals="gamma", rate=5, cv=2).offsets_ns(4), 100)
    )


@pytest.mark.parametrize("cv", [0.05, 0.3, 1.0, 2.5, 10.0])
def test_the_weibull_shape_has_the_asked_cv(cv: float) -> None:
    law = stats.weibull_min(c=weibull_shape(cv))
    assert law.std() / law.mean() == pytest.approx(cv, rel=1e-6)
    assert weibull_shape(1.0) == pytest.approx(1.0)  # which is the exponential


# Rates that change


def test_each_stage_gets_the_requests_that_its_rate_makes() -> None:
    parts = [(5, 5, 100), (5, 50, 60), (50, 0, 30), (0, 0, 20), (20, 20, 40)]
    stages = [{"rate": a, "to": b, "duration": f"{d}s"} for a, b, d in parts]
    found = np.array(list(made(arrivals="stages", stages=stages).offsets_ns(9))) / SECOND
    start = 0.0
    for first, last, duration in parts:
        count, expected = ((found >= start) & (found < start + duration)).sum(), (first + last) / 2 * duration
        assert abs(count - expected) <= 5 * math.sqrt(expected)
        start += duration
    assert found.max() < start


def test_inside_a_ramp_the_rate_goes_in_a_straight_line() -> None:
    """From 0 to 200/s in 100 s: (t / 100)^2 of the arrivals come before t."""
    found = np.array(list(made(arrivals="stages", stages=[{"rate": 0, "to": 200, "duration": "100s"}]).offsets_ns(3)))
    assert stats.kstest(found / SECOND / 100, lambda t: t**2).pvalue > 1e-3


def test_a_smooth_curve_over_the_day() -> None:
    """The integral of m - a cos is m t - a sin, worked out here."""
    load = made(arrivals="daily", peak=100, trough=20, trough_at="4h", day="240s")
    found = until(load.offsets_ns(8), 240)
    turn = 2 * math.pi / 240

    def area(t: float) -> float:
        return 60 * t - 40 / turn * (math.sin(turn * (t - 40)) - math.sin(-turn * 40))

    for begin in range(0, 240, 10):  # an hour of the day each
        expected = area(begin + 10) - area(begin)
        count = ((found >= begin) & (found < begin + 10)).sum()
        assert abs(count - expected) <= 5 * math.sqrt(expected)
    assert load.mean_rate == 60
    assert load.peak_rate == 100


def test_bursts_of_exponential_length_have_the_asked_means() -> None:
    load = made(arrivals="bursts", on="2s", off="6s", on_rate=200, off_rate=20, lengths="exponential")
    pieces = list(islice(load.pieces(5), 20_000))  # type: ignore[attr-defined]
    busy, quiet = (np.array([each.duration_ns for each in pieces[k::2]]) / SECOND for k in (0, 1))
    assert busy.mean() == pytest.approx(2, rel=0.05)  # 5 standard errors of 10,000 exponential draws
    assert quiet.mean() == pytest.approx(6, rel=0.05)
    assert stats.kstest(busy, stats.expon(scale=2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(busy, quiet)[0, 1]) < 0.05
    assert {each.first for each in pieces[::2]} == {200.0}


def test_bursts_are_overdispersed_as_their_rates_say() -> None:
    """Windows that hold as much busy as quiet time have no more variance than Poisson's; shorter ones do."""
    load = made(arrivals="bursts", on="5s", off="5s", on_rate=40)
    found = until(load.offsets_ns(1), 10_000)
    periods = np.histogram(found, np.arange(0, 10_001, 10))[0]
    halves = np.histogram(found, np.arange(0, 10_001, 5))[0]
    assert periods.mean() == pytest.approx(200, rel=0.02)
    assert periods.var() / periods.mean() == pytest.approx(1, abs=5 * math.sqrt(2 / 1000))
    assert halves[1::2].sum() == 0
    assert halves.var() / halves.mean() > 50


@pytest.mark.parametrize("process", [{"process": "gamma", "cv": 3.0}, {"process": "weibull", "cv": 0.2}])
def test_the_law_inside_is_kept_in_the_time_that_the_rate_makes(process: dict[str, Any]) -> None:
    """Undoing the ramp gives back the gaps of the law."""
    load = made(arrivals="stages", stages=[{"rate": 10, "to": 110, "duration": "500s"}], **process)
    found = np.array(list(load.offsets_ns(6))) / SECOND
    gaps = np.diff(10 * found + 0.1 * found**2)
    law = law_of(process["process"], process["cv"])
    for length in (0.01, 0.1, 0.5, 1.0, 2.0, 5.0):
        expected = float(law.cdf(length))
        allowed = 5 * math.sqrt(max(expected * (1 - expected), 1 / len(gaps)) / len(gaps))
        assert abs((gaps <= length).mean() - expected) < allowed
