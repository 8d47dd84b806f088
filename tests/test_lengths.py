"""Length distributions: draws at known quantiles, shorthands, and refusals."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from servemark.harness.plan.lengths import LENGTHS, Lengths, LengthsField

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
    st.sampled_from(["uniform(3, 900)", "normal(50, 500)", "lognormal(median=20, p95=4000)", 7]),
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
        ("many", "is no length; write a number such as 500"),
        ("uniform(1, 2, 3)", "takes min, max by position"),
        ("uniform(1, x)", "'x' in 'uniform"),
        ("unifrom(1, 2)", "there is no length distribution 'unifrom'"),
        ("uniform(9, 3)", "max 3 is below min 9; swap them"),
        ("normal(5, 1, min=9, max=3)", "max 3 is below min 9; swap them"),
        ("lognormal(100)", "exactly one of p95, mean, sigma, and here are none"),
        ("lognormal(100, p95=300, mean=120)", "here are p95, mean; keep one"),
        ("lognormal(100, p95=30)", "p95 30 is below the median 100"),
        ({"distribution": "gama"}, "there is no length distribution 'gama'"),
        ({"tokens": 3}, "`distribution` is missing"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_sentence(value: Any, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence.replace("(", r"\(")):
        read(value)


def test_names_in_files_are_the_registered_ones() -> None:
    for name, model in LENGTHS.items():
        assert model.model_fields["distribution"].default == name


def test_a_dump_reads_back() -> None:
    lengths = read("lognormal(100, p95=300, max=4000)")
    assert read(FIELD.dump_python(lengths, mode="json")) == lengths
