"""Arrival processes are pure: tables and properties, no sleeping."""

from __future__ import annotations

import math
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from servemark.harness.plan.arrivals import ARRIVALS, ClosedLoop, Constant, OpenLoop, Poisson, Trace
from servemark.harness.plan.draws import random_bytes, uniform

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
    assert set(ARRIVALS) >= {"closed", "constant", "poisson", "trace"}


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_uniform_draws_lie_inside_the_unit_interval(seed: int, index: int) -> None:
    assert 0 < uniform(seed, b"x", index) < 1


def test_streams_and_indices_are_independent() -> None:
    draws = {uniform(1, stream, index) for stream in (b"input", b"output") for index in range(500)}
    assert len(draws) == 1000
    assert random_bytes(1, b"p", 1, 64) != random_bytes(1, b"p", 2, 64)
    # A longer draw starts with the shorter one: a prompt's words do not depend on what follows them.
    assert random_bytes(1, b"p", 1, 64)[:32] == random_bytes(1, b"p", 1, 32)
