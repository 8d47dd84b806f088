"""Dollars and joules per token: the textbook figure, and that parts add up to the whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.hardware.cost import Split, by_compute, costs, energy
from servemark.harness.hardware.joules import COUNTED, INTEGRATED, joules_between
from servemark.harness.hardware.price import Price
from servemark.harness.search.cost import economics

RATE = st.floats(1e-3, 1e6)
PRICES = st.builds(Price, st.floats(0.01, 100), st.just("--gpu-price"))
GPUS = st.integers(1, 1024)


def test_two_dollars_an_hour_at_a_hundred_tokens_a_second() -> None:
    found = costs(Price(2.0, "--gpu-price"), 1, output_tps=100, input_tps=300, rps=0.5)
    assert found.usd_per_1m_output == pytest.approx(5.5556, abs=1e-4)
    assert found.usd_per_1m_total == pytest.approx(5.5556 / 4, abs=1e-4)
    assert found.usd_per_request == pytest.approx(2 / 3600 / 0.5)
    assert (found.usd_per_hour, found.price_source) == (2.0, "--gpu-price")


@given(price=PRICES, gpus=GPUS, tps=RATE)
def test_the_convention_of_the_field_is_the_same_arithmetic(price: Price, gpus: int, tps: float) -> None:
    """$/GPU-hour over tok/s per GPU x 3,600 / 1M."""
    found = costs(price, gpus, output_tps=tps).usd_per_1m_output
    assert found == pytest.approx(price.usd_per_gpu_hour / (tps / gpus * 3600 / 1e6))


@given(price=PRICES, gpus=GPUS, output=RATE, prompt=RATE, ratio=st.floats(0.01, 100))
def test_a_split_adds_up_to_all_that_is_paid(
    price: Price, gpus: int, output: float, prompt: float, ratio: float
) -> None:
    found = costs(price, gpus, output_tps=output, input_tps=prompt, split=Split(ratio, "as sold"))
    assert found.usd_per_1m_input_split is not None
    assert found.usd_per_1m_output_split is not None
    paid = (found.usd_per_1m_input_split * prompt + found.usd_per_1m_output_split * output) / 1e6
    assert paid == pytest.approx(found.usd_per_hour / 3600)
    assert found.usd_per_1m_output_split == pytest.approx(found.usd_per_1m_input_split * ratio)


@given(price=PRICES, gpus=GPUS, output=RATE, prompt=RATE)
def test_a_split_of_one_is_the_price_of_all_tokens(price: Price, gpus: int, output: float, prompt: float) -> None:
    found = costs(price, gpus, output_tps=output, input_tps=prompt, split=Split(1.0, "as sold"))
    assert found.usd_per_1m_input_split == pytest.approx(found.usd_per_1m_total)


def test_a_split_by_compute_says_so() -> None:
    """Prompt tokens at 16 GFLOP, output tokens at 20: one of these weighs as 1.25 of those."""
    split = by_compute(16e9, 20e9)
    assert split.output_weight == 1.25
    assert split.basis == "by FLOPs: an output token takes those of 1.25 input tokens"
    assert costs(Price(1, ""), 1, output_tps=1, input_tps=1, split=split).split == split.basis


@given(price=PRICES, gpus=GPUS, output=RATE, times=st.integers(1, 100))
def test_so_many_times_the_gpus_cost_so_many_times_as_much(price: Price, gpus: int, output: float, times: int) -> None:
    one, many = (costs(price, count, output_tps=output, rps=1.0) for count in (gpus, gpus * times))
    assert many.usd_per_1m_output == pytest.approx((one.usd_per_1m_output or 0) * times)
    assert many.usd_per_request == pytest.approx((one.usd_per_request or 0) * times)
    scaled = costs(price, gpus * times, output_tps=output * times)  # and make so many times the tokens
    assert scaled.usd_per_1m_output == pytest.approx(one.usd_per_1m_output)


@given(price=PRICES, output=RATE, share=st.floats(0.01, 1))
def test_good_tokens_bear_the_cost_of_all(price: Price, output: float, share: float) -> None:
    found = costs(price, 1, output_tps=output, goodput_tps=output * share, good_rps=share, rps=1.0)
    assert found.usd_per_1m_output_at_slo == pytest.approx((found.usd_per_1m_output or 0) / share)
    assert found.usd_per_good_request == pytest.approx((found.usd_per_request or 0) / share)
    assert found.good_requests_per_usd == pytest.approx(1 / (found.usd_per_good_request or 1))


def test_what_is_not_known_has_no_price() -> None:
    """A run without a token that met the SLO has no price at the SLO, and not an infinite one."""
    found = costs(Price(2.0, ""), 1, output_tps=100, goodput_tps=0.0)
    assert found.usd_per_1m_output_at_slo is None
    unknown = costs(
        Price(2.0, ""), 1, output_tps=None, input_tps=5.0, split=Split(4, "an output token priced as 4 input tokens")
    ).to_json()
    known = {"gpus": 1, "usd_per_gpu_hour": 2.0, "price_source": "", "usd_per_hour": 2.0}
    assert {name: value for name, value in unknown.items() if value is not None} == known | {
        "split": "an output token priced as 4 input tokens"
    }
    json.dumps(unknown, allow_nan=False)


@given(price=st.floats(0.01, 100), gpus=GPUS, tps=RATE, goodput=RATE)
def test_a_search_prices_its_answer_by_the_same_arithmetic(price: float, gpus: int, tps: float, goodput: float) -> None:
    found, cost = economics(goodput, tps, gpus, price), costs(Price(price, ""), gpus, output_tps=tps, good_rps=goodput)
    assert found["usd_per_million_output_tokens"] == cost.usd_per_1m_output
    assert found["goodput_requests_per_usd"] == cost.good_requests_per_usd
    assert found["usd_per_hour"] == cost.usd_per_hour


# --- energy


def test_a_kilowatt_for_an_hour_is_a_kilowatt_hour() -> None:
    found = energy(3.6e6, 3600, 360_000, 720_000, COUNTED, usd_per_kwh=0.2, pue=1.5)
    assert (found.watts, found.kwh) == (1000, 1)
    assert (found.joules_per_output_token, found.joules_per_token) == (10, 5)
    assert found.output_tokens_per_s_per_watt == pytest.approx(100 / 1000)  # 100 tok/s on 1,000 W
    assert found.usd == pytest.approx(0.3)
    assert found.source == "energy counter"


@given(joules=st.floats(1, 1e9), seconds=st.floats(0.1, 1e5), output=st.floats(1, 1e9), prompt=st.floats(0, 1e9))
def test_tokens_per_second_and_watt_are_tokens_per_joule(
    joules: float, seconds: float, output: float, prompt: float
) -> None:
    found = energy(joules, seconds, output, output + prompt)
    assert found.watts is not None
    assert found.tokens_per_s_per_watt == pytest.approx((output + prompt) / seconds / found.watts)
    assert found.tokens_per_s_per_watt == pytest.approx(1 / (found.joules_per_token or 1))
    assert found.usd is None


def test_energy_without_tokens_has_no_joules_per_token() -> None:
    found = energy(10.0, 2.0, 0, None).to_json()
    assert (found["watts"], found["joules_per_output_token"], found["joules_per_token"]) == (5.0, None, None)


# --- joules of a window

STEPS = st.lists(st.tuples(st.floats(0.05, 5), st.floats(0, 700)), min_size=3, max_size=30)


@given(steps=STEPS, share=st.floats(0.05, 0.95))
def test_two_windows_side_by_side_take_what_both_take_together(steps: list[tuple[float, float]], share: float) -> None:
    at, used, counter, power = 0.0, 0.0, [], []
    for seconds, watts in steps:
        counter.append((at, used))
        power.append((at, watts))
        at, used = at + seconds, used + watts * seconds
    start, end = counter[0][0], counter[-1][0]
    middle = start + (end - start) * share
    for readings in ((counter, []), ([], power)):
        whole, left, right = (
            found[0]
            for each in ((start, end), (start, middle), (middle, end))
            if (found := joules_between(*readings, *each)) is not None
        )
        assert left + right == pytest.approx(whole, abs=1e-6)
    assert joules_between(counter, power, start, end) == (pytest.approx(counter[-1][1]), COUNTED)


def test_power_is_integrated_in_trapezoids_that_the_window_cuts() -> None:
    """From 100 W to 300 W over 10 s; from second 2 to 6 it goes from 140 W to 220 W."""
    found = joules_between([], [(0.0, 100.0), (10.0, 300.0)], 2.0, 6.0)
    assert found == (pytest.approx((140 + 220) / 2 * 4), INTEGRATED)


def test_a_counter_that_began_anew_loses_one_step_and_counts_no_negative_energy() -> None:
    counter = [(0.0, 1000.0), (1.0, 1100.0), (2.0, 5.0), (3.0, 105.0)]
    assert joules_between(counter, [], 0.0, 3.0) == (pytest.approx(200.0), COUNTED)


@pytest.mark.parametrize(
    "readings",
    [[], [(5.0, 1.0)], [(4.0, 1.0), (5.0, 2.0)], [(-3.0, 1.0), (-2.0, 1.0)]],
    ids=["none", "one", "half the window", "before it"],
)
def test_a_window_that_was_not_read_has_no_energy(readings: list[tuple[float, float]]) -> None:
    assert joules_between(readings, readings, 0.0, 10.0) is None


def test_an_end_of_the_window_that_lies_between_readings_is_not_lost() -> None:
    """Nine and a half of ten seconds were read, at 100 W."""
    counter = [(at / 2, 50.0 * at) for at in range(1, 21)]
    assert joules_between(counter, [], 0.0, 10.0) == (pytest.approx(1000.0), COUNTED)


def test_a_counter_that_stopped_gives_way_to_power() -> None:
    counter, power = [(0.0, 0.0), (1.0, 100.0)], [(float(at), 100.0) for at in range(11)]
    assert joules_between(counter, power, 0.0, 10.0) == (pytest.approx(1000.0), INTEGRATED)
