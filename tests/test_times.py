"""Distributions of times: what they draw, how they are written, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from servemark.harness.plan.times import Times, TimesField

SECOND = 1_000_000_000
field: TypeAdapter[Times] = TypeAdapter(TimesField)


def times(value: Any) -> Times:
    return field.validate_python(value)


LAWS = [
    ("uniform(1s, 5s)", stats.uniform(1, 4)),
    ("exponential(3s)", stats.expon(scale=3)),
    ("lognormal(4s, p95=20s)", stats.lognorm(s=math.log(5) / stats.norm.ppf(0.95), scale=4)),
    ("lognormal(4s, sigma=0.5)", stats.lognorm(s=0.5, scale=4)),
    ("lognormal(2s, mean=3s)", stats.lognorm(s=math.sqrt(2 * math.log(1.5)), scale=2)),
]


@pytest.mark.parametrize(("text", "law"), LAWS)
def test_a_draw_is_the_laws_quantile(text: str, law: Any) -> None:
    for u in (0.001, 0.1, 0.5, 0.9, 0.999):
        assert times(text).draw_ns(u) / SECOND == pytest.approx(float(law.ppf(u)), rel=1e-6)


@pytest.mark.parametrize("value", ["1m30s", {"distribution": "fixed", "time": "90s"}, "fixed(90s)"])
def test_a_plain_time_is_always_the_same(value: Any) -> None:
    assert {times(value).draw_ns(u) for u in (0.1, 0.5, 0.9)} == {90 * SECOND}
    assert field.dump_python(times(value), mode="json") == "90s"


@given(st.sampled_from([text for text, _ in LAWS]), st.floats(1e-12, 1 - 1e-12), st.floats(1e-12, 1 - 1e-12))
def test_longer_quantiles_are_no_shorter(text: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= times(text).draw_ns(low) <= times(text).draw_ns(high)


def test_draws_beyond_a_limit_become_the_limit() -> None:
    clipped = times({"distribution": "exponential", "mean": "10s", "min": "1s", "max": "20s"})
    assert [clipped.draw_ns(u) for u in (0.001, 0.999)] == [SECOND, 20 * SECOND]
    assert times("lognormal(1s, sigma=10)").draw_ns(1 - 1e-16) <= 10_000 * 3600 * SECOND


def test_what_was_written_is_read_back_from_a_result() -> None:
    for text, _ in LAWS:
        assert times(field.dump_python(times(text), mode="json")) == times(text)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5, "5 has no unit; write 5s or 5ms"),
        ("5", "has no unit"),
        ("soon", "is no duration"),
        ("zipf(3s)", "there is no distribution of times 'zipf'; there are: fixed, uniform, exponential, lognormal"),
        ("uniform(1s, 2s, 3s)", "takes min, max by position"),
        ("uniform(5s, 1s)", "max is below min"),
        ("lognormal(4s)", "exactly one of p95, mean, sigma"),
        ("lognormal(4s, p95=2s)", "p95 is below the median"),
        ("lognormal(4s, sigma=big)", "is no number for sigma"),
        ("exponential(3)", "has no unit"),
        ("exponential(0s)", "greater than 0"),
        ({"time": "3s"}, "`distribution` is missing"),
    ],
)
def test_what_is_no_time_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        times(value)
    assert said in str(refused.value)
