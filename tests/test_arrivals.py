"""Arrival processes are pure: tables and properties, no sleeping."""

from __future__ import annotations

import math
import time
import tracemalloc
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from servemark.harness.plan.arrivals import ARRIVALS, ClosedLoop, Constant, Load, OpenLoop, Poisson, Trace
from servemark.harness.plan.arrivals.rates import Piece
from servemark.harness.plan.draws import random_bytes, uniform, uniforms

SECOND = 1_000_000_000


class Recorded:
    def __init__(self, *offsets_ns: int) -> None:
        self.size: int | None = len(offsets_ns)
        self._offsets = offsets_ns

    def offset_ns(self, index: int) -> int:
        return self._offsets[index]


def first(load: OpenLoop, n: int, seed: int = 0) -> list[int]:
    return list(islice(load.offsets_ns(seed), n))


def rated(model: type[OpenLoop], rate: Any) -> OpenLoop:
    return model.model_validate({"rate": rate})


@pytest.mark.parametrize(
    ("rate", "offsets"),
    [
        (1, [0, SECOND, 2 * SECOND]),
        (4, [0, SECOND // 4, SECOND // 2]),
        (3, [0, 333_333_333, 666_666_667]),
        ("0.5", [0, 2 * SECOND, 4 * SECOND]),
        ("inf", [0, 0, 0]),
    ],
)
def test_constant_arrivals(rate: object, offsets: list[int]) -> None:
    assert first(rated(Constant, rate), 3) == offsets


def test_constant_arrivals_do_not_drift() -> None:
    # 1/7 s is no whole number of ns: adding rounded gaps would be off after a while.
    assert first(rated(Constant, 7), 700_001)[-1] == 100_000 * SECOND


def test_poisson_arrivals_at_an_infinite_rate_are_all_at_once() -> None:
    assert first(rated(Poisson, "inf"), 3) == [0, 0, 0]


def test_poisson_gaps_have_the_mean_and_spread_of_an_exponential() -> None:
    n, rate = 20_000, 50
    offsets = [0, *first(rated(Poisson, rate), n, seed=3)]
    gaps = [(later - earlier) / SECOND for earlier, later in pairwise(offsets)]
    mean = sum(gaps) / n
    std = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / n)
    # Standard error of the mean is 1 / (rate sqrt(n)) = 0.7 %; 5 of them.
    assert mean == pytest.approx(1 / rate, rel=0.035)
    assert std == pytest.approx(1 / rate, rel=0.05)
    assert sum(gap > 1 / rate for gap in gaps) / n == pytest.approx(math.exp(-1), abs=0.02)


@given(st.integers(0, 2**63 - 1), st.floats(0.01, 1e5))
def test_poisson_arrivals_ascend_and_repeat_with_their_seed(seed: int, rate: float) -> None:
    load = rated(Poisson, rate)
    offsets = first(load, 50, seed)
    assert offsets == sorted(offsets)
    assert offsets[0] >= 0
    assert first(load, 50, seed) == offsets
    assert first(load, 20, seed) == offsets[:20]


def test_seeds_give_different_arrivals() -> None:
    assert first(rated(Poisson, 5), 5, seed=1) != first(rated(Poisson, 5), 5, seed=2)


@pytest.mark.parametrize(
    ("scale", "offsets"),
    [
        ({}, [0, SECOND, 5 * SECOND]),
        ({"speed": 2}, [0, SECOND // 2, 5 * SECOND // 2]),
        # Two gaps in 5 s are 0.4/s; at 4/s they take 0.5 s.
        ({"rate": 4}, [0, SECOND // 10, SECOND // 2]),
        ({"rate": "inf"}, [0, 0, 0]),
        ({"speed": "inf"}, [0, 0, 0]),
    ],
)
def test_a_trace_is_replayed_at_its_own_times_or_scaled(scale: dict[str, Any], offsets: list[int]) -> None:
    recorded = Recorded(0, SECOND, 5 * SECOND)
    assert list(Trace.model_validate(scale).offsets_ns(0, recorded)) == offsets


def test_a_trace_of_one_row_can_be_scaled_to_any_rate() -> None:
    assert list(Trace.model_validate({"rate": 3}).offsets_ns(0, Recorded(7))) == [7]


def test_a_trace_has_one_scale() -> None:
    with pytest.raises(ValidationError, match="keep one"):
        Trace.model_validate({"speed": 2, "rate": 4})


@pytest.mark.parametrize(("load", "at_once"), [({"rate": 5}, False), ({"rate": "inf"}, True)])
def test_a_load_says_when_it_comes_all_at_once(load: dict[str, Any], at_once: bool) -> None:
    assert Poisson.model_validate(load).all_at_once is at_once
    assert Trace.model_validate(load).all_at_once is at_once
    assert not ClosedLoop(concurrency=3).all_at_once


def test_names_in_files_are_the_registered_ones() -> None:
    for name, model in ARRIVALS.items():
        assert model.model_fields["arrivals"].default == name
    ours = {"closed", "constant", "poisson", "gamma", "weibull", "stages", "bursts", "daily", "trace"}
    assert set(ARRIVALS) >= ours


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_uniform_draws_lie_inside_the_unit_interval(seed: int, index: int) -> None:
    assert 0 < uniform(seed, b"x", index) < 1


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_the_first_and_the_last_draw_lie_inside_it_too(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Digest:
        def digest(self) -> bytes:
            return word.to_bytes(8, "little")

    monkeypatch.setattr("servemark.harness.plan.draws.blake2b", lambda *args, **named: Digest())
    assert 0 < uniform(1, b"x", 1) < 1


def test_streams_and_indices_are_independent() -> None:
    draws = {uniform(1, stream, index) for stream in (b"input", b"output") for index in range(500)}
    assert len(draws) == 1000
    assert random_bytes(1, b"p", 1, 64) != random_bytes(1, b"p", 2, 64)
    # A longer draw starts with the shorter one: a prompt's words do not depend on what follows them.
    assert random_bytes(1, b"p", 1, 64)[:32] == random_bytes(1, b"p", 1, 32)


def test_a_block_of_draws_lies_inside_the_unit_interval_and_repeats() -> None:
    block = uniforms(3, b"x", 0, 4096)
    assert 0 < block.min() < 0.01 < 0.99 < block.max() < 1
    assert (uniforms(3, b"x", 0, 4096) == block).all()
    assert not (uniforms(3, b"x", 1, 4096) == block).any()
    assert not (uniforms(3, b"y", 0, 4096) == block).any()


# Processes of every kind


def made(**keys: Any) -> OpenLoop:
    load: Load = ARRIVALS[keys["arrivals"]].model_validate(keys)
    assert isinstance(load, OpenLoop)
    return load


rates = st.floats(0.01, 1e5)
levels = st.one_of(st.just(0.0), rates)
spreads = st.floats(0.05, 10)
busy_rates = st.floats(1, 1e5)
durations = st.integers(10_000, 10**7).map(lambda us: f"{us}us")
laws = st.one_of(
    st.fixed_dictionaries({"process": st.sampled_from(["constant", "poisson"])}),
    st.fixed_dictionaries({"process": st.sampled_from(["gamma", "weibull"]), "cv": spreads}),
)
steady = st.builds(made, arrivals=st.sampled_from(["gamma", "weibull"]), rate=rates, cv=spreads)
stage = st.fixed_dictionaries({"rate": rates, "to": st.one_of(st.none(), levels), "duration": durations})
staged = st.builds(
    lambda stages, law: made(arrivals="stages", stages=stages, **law), st.lists(stage, min_size=1, max_size=5), laws
)
bursty = st.builds(
    lambda on, off, rate, quiet, lengths, law: made(
        arrivals="bursts", on=on, off=off, on_rate=rate, off_rate=quiet, lengths=lengths, **law
    ),
    durations, durations, busy_rates, levels, st.sampled_from(["fixed", "exponential"]), laws,
)  # fmt: skip
daily = st.builds(
    lambda pair, day, law: made(arrivals="daily", peak=max(pair), trough=min(pair), day=f"{day}s", **law),
    st.tuples(busy_rates, busy_rates),
    st.integers(60, 86_400),
    laws,
)
loads = st.one_of(steady, staged, bursty, daily)


@given(loads, st.integers(0, 2**63 - 1))
def test_arrivals_ascend_and_are_a_pure_function_of_their_seed(load: OpenLoop, seed: int) -> None:
    offsets = first(load, 60, seed)
    assert offsets == sorted(offsets)
    assert not offsets or offsets[0] >= 0
    assert all(type(offset) is int for offset in offsets)
    assert first(load, 60, seed) == offsets
    assert first(load, 20, seed) == offsets[:20]
    if load.lasts_ns is not None:
        assert not offsets or offsets[-1] <= load.lasts_ns


@given(loads)
def test_the_peak_is_no_lower_than_the_mean(load: OpenLoop) -> None:
    assert load.mean_rate is not None
    assert load.peak_rate is not None
    assert 0 < load.mean_rate <= load.peak_rate * (1 + 1e-9)


@given(st.one_of(staged, bursty, daily), rates)
def test_a_rate_over_a_course_scales_it_to_that_mean(load: OpenLoop, rate: float) -> None:
    assert load.mean_rate is not None
    assert load.peak_rate is not None
    scaled = load.model_copy(update={"rate": rate})
    assert scaled.mean_rate == pytest.approx(rate)
    assert scaled.peak_rate == pytest.approx(rate * load.peak_rate / load.mean_rate)


@pytest.mark.parametrize(
    "keys",
    [
        {"arrivals": "gamma", "rate": 5, "cv": 2},
        {"arrivals": "weibull", "rate": 5, "cv": 2},
        {"arrivals": "stages", "stages": [{"rate": 5, "duration": "1h"}]},
        {"arrivals": "bursts", "on": "2s", "off": "2s", "on_rate": 5},
        {"arrivals": "daily", "peak": 5, "trough": 1},
    ],
)
def test_other_seeds_give_other_arrivals(keys: dict[str, Any]) -> None:
    one, other = (set(first(made(**keys), 200, seed)) for seed in (1, 2))
    assert len(one & other) < 5


def test_a_stage_at_one_rate_is_the_poisson_process_of_that_rate() -> None:
    staged = made(arrivals="stages", stages=[{"rate": 7, "duration": "1h"}])
    plain = made(arrivals="poisson", rate=7)
    assert first(staged, 5000, 3) == pytest.approx(first(plain, 5000, 3), abs=2)


def test_even_arrivals_on_a_ramp_come_where_the_area_under_it_is_whole() -> None:
    """From 0 to 20/s in 10 s the area until t is t^2."""
    load = made(arrivals="stages", process="constant", stages=[{"rate": 0, "to": 20, "duration": "10s"}])
    assert list(load.offsets_ns(0)) == pytest.approx([math.sqrt(k) * SECOND for k in range(100)], abs=1)


def test_even_arrivals_fall_too() -> None:
    """From 20/s to 0 in 10 s it is 100 - (10 - t)^2."""
    load = made(arrivals="stages", process="constant", stages=[{"rate": 20, "to": 0, "duration": "10s"}])
    assert list(load.offsets_ns(0)) == pytest.approx([(10 - math.sqrt(100 - k)) * SECOND for k in range(100)], abs=1)


def test_stages_follow_each_other_and_end() -> None:
    stages = [{"rate": 2, "duration": "2s"}, {"rate": 0, "duration": "3s"}, {"rate": 4, "duration": "1s"}]
    load = made(arrivals="stages", process="constant", stages=stages)
    found = [offset / SECOND for offset in load.offsets_ns(0)]
    assert found == [0, 0.5, 1, 1.5, 5, 5.25, 5.5, 5.75]
    assert load.lasts_ns == 6 * SECOND
    assert load.mean_rate == pytest.approx(8 / 6)
    assert load.course()[2] == {"start_s": 5, "end_s": 6, "rate_start": 4, "rate_end": 4, "expected": 4}


def test_a_busy_time_comes_first_and_a_quiet_one_follows() -> None:
    load = made(arrivals="bursts", process="constant", on="1s", off="2s", on_rate=2, off_rate=1)
    assert [offset / SECOND for offset in first(load, 9)] == [0, 0.5, 1, 2, 3, 3.5, 4, 5, 6]


def test_bursts_of_which_only_the_mean_is_given() -> None:
    """12/s in the mean with two thirds of the time quiet are 36/s while busy."""
    load = made(arrivals="bursts", on="1s", off="2s", rate=12)
    assert (load.mean_rate, load.peak_rate) == (12, pytest.approx(36))


def test_a_day_of_hourly_rates_starts_where_it_is_asked_to() -> None:
    """A day of 24 s: an hour is a second, and 22:30 is half a second before the rate goes to 23."""
    load = made(arrivals="daily", process="constant", rates=list(range(24)), day="24s", start="22h30m")
    found = [offset / SECOND for offset in first(load, 11 + 23 + 1 + 1)]
    assert sum(offset < 0.5 for offset in found) == 11
    assert sum(0.5 <= offset < 1.5 for offset in found) == 23
    assert sum(1.5 <= offset < 2.5 for offset in found) == 0  # the hour after midnight has a rate of 0
    assert found[-1] == pytest.approx(3.5, abs=0.01)
    assert load.mean_rate == 11.5


@given(st.integers(1, 10**13), levels, levels, st.floats(0, 1))
def test_the_way_through_a_piece_is_the_inverse_of_its_area(
    duration_ns: int, first_rate: float, last_rate: float, share: float
) -> None:
    piece = Piece(duration_ns, first_rate, last_rate)
    wanted = piece.area * share
    at_ns = piece.reached_ns(wanted)
    assert 0 <= at_ns <= duration_ns
    seconds, slope = at_ns / SECOND, (last_rate - first_rate) * SECOND / duration_ns
    area = first_rate * seconds + slope * seconds**2 / 2
    # Times are whole ns: the area may be off by what comes in one, or by the last digits of its terms.
    assert area == pytest.approx(wanted, rel=1e-6, abs=max(first_rate, last_rate) / SECOND + 1e-9 * piece.area)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"arrivals": "gamma", "rate": 5}, "exactly one of cv and burstiness"),
        ({"arrivals": "gamma", "rate": 5, "cv": 1, "burstiness": 1}, "exactly one of cv and burstiness"),
        ({"arrivals": "gamma", "rate": 5, "cv": 0.01}, "greater than or equal to 0.05"),
        ({"arrivals": "weibull", "rate": 5, "cv": 11}, "less than or equal to 10"),
        ({"arrivals": "stages", "stages": []}, "at least 1 item"),
        ({"arrivals": "stages", "stages": [{"rate": 0, "duration": "5s"}]}, "all rates are 0"),
        ({"arrivals": "stages", "stages": [{"rate": "inf", "duration": "5s"}]}, "has to be finite"),
        ({"arrivals": "stages", "rate": "inf", "stages": [{"rate": 1, "duration": "5s"}]}, "take arrivals: poisson"),
        ({"arrivals": "stages", "cv": 2, "stages": [{"rate": 1, "duration": "5s"}]}, "cv goes with process"),
        ({"arrivals": "stages", "process": "gamma", "stages": [{"rate": 1, "duration": "5s"}]}, "gamma needs a cv"),
        ({"arrivals": "bursts", "on": "1s", "off": "1s"}, "bursts need a rate"),
        ({"arrivals": "bursts", "on": "1s", "off": "1s", "rate": 5, "off_rate": 1}, "needs the on_rate beside it"),
        ({"arrivals": "bursts", "on": "1us", "off": "1s", "rate": 5}, "1ms or more"),
        ({"arrivals": "daily"}, "its peak and its trough, or 24 rates"),
        ({"arrivals": "daily", "peak": 5}, "its peak and its trough, or 24 rates"),
        ({"arrivals": "daily", "peak": 5, "trough": 1, "rates": [1] * 24}, "its peak and its trough, or 24 rates"),
        ({"arrivals": "daily", "rates": [1] * 23}, "at least 24 items"),
        ({"arrivals": "daily", "peak": 1, "trough": 5}, "swap them"),
        ({"arrivals": "daily", "peak": 5, "trough": 1, "start": "24h"}, "a time of day"),
        ({"arrivals": "daily", "peak": 5, "trough": 1, "day": "1ms"}, "1s or more"),
    ],
)
def test_a_process_that_makes_no_sense_is_refused_in_a_sentence(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        made(**keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"arrivals": "poisson", "rate": 1000},
        {"arrivals": "gamma", "rate": 1000, "cv": 2},
        {"arrivals": "stages", "process": "gamma", "cv": 2, "stages": [{"rate": 500, "to": 1500, "duration": "1h"}]},
        {"arrivals": "daily", "peak": 1500, "trough": 500, "day": "1h"},
    ],
)
def test_an_hours_schedule_is_made_as_it_is_asked_for(keys: dict[str, Any]) -> None:
    """3.6 million arrivals: the first is there at once, and however many were drawn, a block of them is all that is
    held."""
    load = made(**keys)
    next(load.offsets_ns(1))  # imports what it needs
    began = time.perf_counter()
    offsets = load.offsets_ns(0)
    next(offsets)
    assert time.perf_counter() - began < 0.5
    tracemalloc.start()
    try:
        for _ in islice(offsets, 30_000):
            pass
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
