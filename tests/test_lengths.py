"""Length distributions: draws at known quantiles, shorthands, and refusals."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from servemark.harness.plan.lengths import LENGTHS, Lengths, LengthsField, both_of_text
from servemark.harness.plan.lengths.weighted import Weights

FIELD: TypeAdapter[Lengths] = TypeAdapter(LengthsField)
# Quantiles of the standard normal, from printed tables.
U_OF_Z = {-1.0: 0.158655, 0.0: 0.5, 1.0: 0.841345, 2.0: 0.977250}


def read(value: Any) -> Lengths:
    return FIELD.validate_python(value)


@pytest.mark.parametrize("value", [500, "500", "fixed(500)", {"distribution": "fixed", "tokens": 500}])
def test_a_fixed_length_can_be_written_four_ways(value: Any) -> None:
    lengths = read(value)
    assert [lengths.draw(u) for u in (0.001, 0.5, 0.999)] == [500, 500, 500]
    assert (lengths.least, lengths.most) == (500, 500)


def test_uniform_covers_both_ends_evenly() -> None:
    lengths = read("uniform(10, 13)")
    draws = [lengths.draw((i + 0.5) / 400) for i in range(400)]
    assert {length: draws.count(length) for length in set(draws)} == {10: 100, 11: 100, 12: 100, 13: 100}


@pytest.mark.parametrize(("z", "length"), [(-1.0, 240), (0.0, 480), (1.0, 720), (2.0, 960)])
def test_normal_quantiles(z: float, length: int) -> None:
    assert read("normal(480, 240)").draw(U_OF_Z[z]) == length


@pytest.mark.parametrize(
    "spread",
    [
        {"sigma": 0.693147},
        # sigma = ln 2: p95 = 100 * 2 ** 1.644854, mean = 100 * exp(ln(2) ** 2 / 2).
        {"p95": 312.71},
        {"mean": 127.15},
    ],
)
def test_lognormal_takes_the_figure_that_is_known(spread: dict[str, float]) -> None:
    lengths = read({"distribution": "lognormal", "median": 100, **spread})
    assert [lengths.draw(U_OF_Z[z]) for z in (-1.0, 0.0, 1.0, 2.0)] == [50, 100, 200, 400]


def test_draws_outside_the_limits_become_the_limits() -> None:
    lengths = read("normal(mean=100, std=50, min=80, max=120)")
    assert [lengths.draw(u) for u in (0.001, 0.5, 0.999)] == [80, 100, 120]
    assert (lengths.least, lengths.most) == (80, 120)


@given(
    st.sampled_from(
        [
            "uniform(3, 900)",
            "normal(50, 500)",
            "lognormal(median=20, p95=4000)",
            7,
            "exponential(300)",
            "geometric(4, max=50)",
            "pareto(10, 0.3)",
            {"distribution": "empirical", "histogram": {"1-50": 3, 400: 1, "600-601": 2}, "min": 5},
        ]
    ),
    st.floats(1e-12, 1 - 1e-12),
    st.floats(1e-12, 1 - 1e-12),
)
def test_draws_are_positive_within_bounds_and_rise_with_u(value: Any, one: float, other: float) -> None:
    lengths = read(value)
    low, high = lengths.draw(min(one, other)), lengths.draw(max(one, other))
    assert 1 <= lengths.least <= low <= high
    assert lengths.most is None or high <= lengths.most


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (0, "greater than or equal to 1"),
        (True, "is no length"),
        (5.5, "is no length"),
        ("many", "is no length; write 500, or uniform"),
        ("uniform(1, 2, 3)", "takes min, max by position"),
        ("uniform(1, x)", "'x' in 'uniform"),
        ("unifrom(1, 2)", "there is no length distribution 'unifrom'"),
        ("uniform(9, 3)", "max 3 is below min 9; swap them"),
        ("normal(5, 1, min=9, max=3)", "max 3 is below min 9; swap them"),
        ("lognormal(100)", "exactly one of p95, mean, sigma, and here are none"),
        ("lognormal(100, p95=300, mean=120)", "here are p95, mean; keep one"),
        ("lognormal(100, p95=30)", "p95 is below the median"),
        ({"distribution": "gama"}, "there is no length distribution 'gama'"),
        ({"tokens": 3}, "`distribution` is missing"),
        ("D(100,1000)", "D(100,1000) is input and output, and here is one of them"),
        ("empirical(3)", "empirical has no short form; write `distribution: empirical`"),
        ("geometric(0.5)", "greater than or equal to 1"),
        ({"distribution": "empirical"}, "exactly one of values, histogram, path, and here are none"),
        ({"distribution": "empirical", "values": [1], "path": "a.csv"}, "and here are values, path; keep one"),
        ({"distribution": "empirical", "values": [1], "column": "a"}, "column is one of a file"),
        ({"distribution": "empirical", "histogram": {"20-10": 1}}, "'20-10' is no bin of lengths"),
        ({"distribution": "empirical", "histogram": {"0-10": 1}}, "'0-10' is no bin of lengths"),
        ({"distribution": "empirical", "histogram": {"many": 1}}, "'many' is no length"),
        ({"distribution": "empirical", "histogram": {"10": 0}}, "greater than 0"),
        (
            {"distribution": "mixture", "components": [{"tokens": {"distribution": "mixture", "components": []}}]},
            "a mixture cannot stand here; take one of",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_sentence(value: Any, sentence: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        read(value)


@pytest.mark.parametrize(
    ("short", "long"), [("D(100)", 100), ("N(480,240)", "normal(480, 240)"), ("U(100,200)", "uniform(100, 200)")]
)
def test_the_letters_of_other_tools_mean_the_same(short: str, long: Any) -> None:
    assert read(short) == read(long)


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("D(100,1000)", 100, 1000),
        ("N(480,240)/(300,150)", "normal(480, 240)", "normal(300, 150)"),
        (" U(100, 200) / (200, 300) ", "uniform(100, 200)", "uniform(200, 300)"),
        ("500/uniform(10, 20)", 500, "uniform(10, 20)"),
        ("lognormal(100, p95=300)/(20, sigma=1)", "lognormal(100, p95=300)", "lognormal(20, sigma=1)"),
    ],
)
def test_input_and_output_in_short(text: str, first: Any, second: Any) -> None:
    assert both_of_text(text) == (read(first), read(second))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("N(480,240)", "'N(480,240)' names one length; write input and output, as D(100,1000)"),
        ("D(0,1)", "'D(0,1)': tokens must be greater than or equal to 1"),
        ("N(1,1)/(9,1,max=2,min=3)", "max 2 is below min 3; swap them"),
        ("X(1,2)/(3,4)", "there is no length distribution 'x'"),
        ("D(1,2)/(3,4)", "is input and output, and here is one of them"),
        ("lots", "'lots' is no length"),
    ],
)
def test_what_names_no_two_lengths_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        both_of_text(text)
    assert "\n" not in str(error.value)


def test_a_geometric_length_stops_with_the_same_chance_at_each_token() -> None:
    lengths = read("geometric(4)")
    draws = [lengths.draw((i + 0.5) / 40_000) for i in range(40_000)]
    for k in (1, 2, 3, 7):
        assert draws.count(k) / len(draws) == pytest.approx(0.75 ** (k - 1) * 0.25, abs=1e-4)
    assert sum(draws) / len(draws) == pytest.approx(4, rel=1e-3)
    assert {read("geometric(1)").draw(u) for u in (1e-9, 0.5, 1 - 1e-9)} == {1}


def test_an_exponential_length_has_its_median_at_ln_2_of_the_mean() -> None:
    assert read("exponential(1000)").draw(0.5) == 693
    assert read("exponential(1000)").draw(1 - math.exp(-3)) == 3000


def test_of_a_pareto_the_share_above_x_falls_by_its_shape() -> None:
    """With shape 2 a quarter is above twice the shortest, a hundredth above ten times."""
    lengths = read("pareto(100, 2)")
    assert [lengths.draw(u) for u in (1e-9, 0.75, 0.99)] == [100, 200, 1000]
    assert read("pareto(100, 0.001)").draw(1 - 1e-12) == 10**9


def test_lengths_that_were_seen_come_as_often_as_they_were() -> None:
    listed = read({"distribution": "empirical", "values": [10, 30, 30, 20]})
    counted = read({"distribution": "empirical", "histogram": {10: 1, 20: 1, "30": 2}})
    for lengths in (listed, counted):
        draws = [lengths.draw((i + 0.5) / 400) for i in range(400)]
        assert {length: draws.count(length) for length in set(draws)} == {10: 100, 20: 100, 30: 200}
        assert (lengths.least, lengths.most) == (10, 30)


def test_inside_a_bin_all_lengths_are_alike() -> None:
    lengths = read({"distribution": "empirical", "histogram": {"1-4": 1, "101-102": 3}})
    draws = [lengths.draw((i + 0.5) / 800) for i in range(800)]
    assert {length: draws.count(length) for length in set(draws)} == dict.fromkeys(range(1, 5), 50) | {
        101: 300,
        102: 300,
    }


def test_a_mixture_is_its_components_by_their_weights() -> None:
    parts = [{"weight": 3, "tokens": "U(1,2)"}, {"weight": 1, "tokens": {"distribution": "fixed", "tokens": 900}}]
    lengths = read({"distribution": "mixture", "components": parts})
    draws = [lengths.draw((i + 0.5) / 800) for i in range(800)]
    assert {length: draws.count(length) for length in set(draws)} == {1: 300, 2: 300, 900: 200}
    assert (lengths.least, lengths.most) == (1, 900)
    assert read({"distribution": "mixture", "components": [*parts, {"tokens": "N(5,1)"}]}).most is None


@given(st.lists(st.floats(0.001, 1e9), min_size=1, max_size=20), st.floats(1e-15, 1 - 1e-15))
def test_a_choice_by_weights_leaves_a_uniform_number(weights: list[float], u: float) -> None:
    chooser = Weights(weights)
    part = chooser.choose(u)
    inside = chooser.inside(part, u)
    assert 0 < inside < 1
    back = (sum(weights[:part]) + inside * weights[part]) / sum(weights)
    assert back == pytest.approx(u, abs=1e-9)


def test_names_in_files_are_the_registered_ones() -> None:
    for name, model in LENGTHS.items():
        assert model.model_fields["distribution"].default == name


def test_a_dump_reads_back() -> None:
    mixed = [{"weight": 2, "tokens": "pareto(5, 2)"}, {"tokens": "geometric(3)"}]
    seen = {"distribution": "empirical", "histogram": {"1-9": 2, "12": 1}}
    for value in ("lognormal(100, p95=300, max=4000)", seen, {"distribution": "mixture", "components": mixed}):
        lengths = read(value)
        assert read(FIELD.dump_python(lengths, mode="json")) == lengths
