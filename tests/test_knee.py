"""The knee is the load of the highest power, and where the loads do not show one, none is named."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.figures.knee import MARGIN, Knee, LoadPoint, knee

POSITIVE = st.floats(0.01, 1e6)


def open_loop(rates: list[float], capacity: float, base: float = 1.0) -> list[LoadPoint]:
    """A queue with one server: the response time is base / (1 - rate / capacity)."""
    return [LoadPoint(rate, 100 * rate, base / (1 - rate / capacity)) for rate in rates]


def closed_loop(users: list[float], cores: float, decay: float = 4.0) -> list[LoadPoint]:
    """Throughput that bends smoothly to that of `cores` users; the response time by Little's law."""
    reached = [n / (1 + (n / cores) ** decay) ** (1 / decay) for n in users]
    return [LoadPoint(n, x, n / x) for n, x in zip(users, reached, strict=True)]


def test_of_a_queue_with_one_server_it_is_half_the_capacity() -> None:
    """Kleinrock: x (1 - x) is highest at 1/2."""
    found = knee(open_loop([1, 2, 3, 4, 5, 6, 7, 8, 9], capacity=10))
    assert found == Knee("knee", 5, 4, 6)


def test_of_a_closed_loop_it_is_where_a_percent_of_users_gives_half_a_percent() -> None:
    """With decay 4 the elasticity 1 / (1 + (n/c)^4) is 1/2 at n = c."""
    assert knee(closed_loop([1, 2, 4, 8, 16, 32, 64, 128], cores=16)) == Knee("knee", 16, 8, 32)


@given(st.permutations([1, 2, 4, 8, 16, 32, 64]), POSITIVE, POSITIVE)
def test_neither_order_nor_units_matter(order: list[float], tokens: float, seconds: float) -> None:
    points = closed_loop([float(n) for n in order], cores=9)
    scaled = [replace(p, throughput=p.throughput * tokens, latency=p.latency * seconds) for p in points]
    assert knee(scaled) == knee(points) == knee(sorted(points, key=lambda point: point.load))
    assert knee(points).kind == "knee"


@given(st.integers(0, 10_000), st.floats(4, 40))
def test_noise_moves_it_by_one_load_at_most(seed: int, cores: float) -> None:
    draw = random.Random(seed)
    users = [float(2**k) for k in range(9)]
    true = knee(closed_loop(users, cores)).load
    noisy = [
        LoadPoint(p.load, p.throughput * draw.uniform(0.97, 1.03), p.latency * draw.uniform(0.97, 1.03))
        for p in closed_loop(users, cores)
    ]
    found = knee(noisy).load
    assert true is not None
    assert found is not None
    assert abs(users.index(found) - users.index(true)) <= 1


@given(st.lists(POSITIVE, min_size=3, max_size=12, unique=True), POSITIVE, POSITIVE)
def test_there_is_none_while_throughput_grows_for_nothing(loads: list[float], each: float, latency: float) -> None:
    found = knee([LoadPoint(load, load * each, latency) for load in loads])
    assert found.load is None
    assert found.kind in ("above", "flat")


@given(st.lists(POSITIVE, min_size=3, max_size=12, unique=True), POSITIVE, POSITIVE)
def test_there_is_none_where_only_latency_grows(loads: list[float], throughput: float, each: float) -> None:
    found = knee([LoadPoint(load, throughput, load * each) for load in loads])
    assert found.load is None
    assert found.kind in ("below", "flat")


@given(st.lists(POSITIVE, min_size=3, max_size=12, unique=True), st.integers(0, 1000))
def test_noise_alone_is_none(loads: list[float], seed: int) -> None:
    """Power that is the same at all loads but for less than the margin."""
    draw = random.Random(seed)
    points = [LoadPoint(load, load * draw.uniform(1, MARGIN - 0.001), load) for load in loads]
    assert knee(points) == Knee("flat")


def test_an_overloaded_server_bounds_it_from_above() -> None:
    points = open_loop([1, 2, 4], capacity=20)
    assert knee(points) == Knee("above")
    assert knee(points, overload=16) == Knee("knee", 4, 2, 16, overload=16)
    assert knee(points, overload=3) == Knee("knee", 2, 1, 3, overload=3)  # what is above it counts no more


@pytest.mark.parametrize("count", range(3))
def test_less_than_three_loads_say_nothing(count: int) -> None:
    assert knee(open_loop([1, 5, 9][:count], capacity=10)) == Knee("few")


def test_points_without_throughput_or_latency_are_left_out() -> None:
    points = [*open_loop([1, 5, 9], capacity=10), LoadPoint(7, 0, 1), LoadPoint(6, 1, 0)]
    assert knee(points) == Knee("knee", 5, 1, 9)


@given(st.lists(st.tuples(POSITIVE, POSITIVE, POSITIVE), max_size=12), st.none() | POSITIVE)
def test_what_it_names_is_a_load_of_the_sweep(rows: list[tuple[float, float, float]], overload: float | None) -> None:
    points = [LoadPoint(*row) for row in {row[0]: row for row in rows}.values()]
    found = knee(points, overload)
    if found.kind != "knee":
        assert found == Knee(found.kind)
        return
    assert found.load in [point.load for point in points]
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.load < found.high  # type: ignore[operator]
    powers = {point.load: point.power for point in points if overload is None or point.load < overload}
    assert powers[found.load] == max(powers.values())  # type: ignore[index]
