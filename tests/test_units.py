"""Durations and rates carry units; what has none is refused with a sentence."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.units import (
    DURATION_PATTERN,
    RATE_PATTERN,
    format_duration,
    format_rate,
    parse_duration,
    parse_rate,
)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("200ms", 200_000_000),
        ("60s", 60_000_000_000),
        ("2m", 120_000_000_000),
        ("2min", 120_000_000_000),
        ("500us", 500_000),
        ("500µs", 500_000),
        ("1.5s", 1_500_000_000),
        ("0.1s", 100_000_000),
        ("1m30s", 90_000_000_000),
        ("1h", 3_600_000_000_000),
        ("7ns", 7),
        (" 5s ", 5_000_000_000),
        ("0s", 0),
    ],
)
def test_durations_are_read_exactly(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("value", [60, 0.5, "60", "1.5"])
def test_a_bare_number_is_refused_and_shown_with_a_unit(value: object) -> None:
    with pytest.raises(ValueError, match=rf"{value} has no unit; write {value}s or {value}ms"):
        parse_duration(value)


@pytest.mark.parametrize("value", ["", "s", "5 apples", "-5s", "5s 3", None, True, [1]])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is no duration; write"):
        parse_duration(value)


def test_a_duration_that_no_clock_holds_is_refused() -> None:
    assert parse_duration("10000h") == 36 * 10**15
    with pytest.raises(ValueError, match="longer than 10,000 hours"):
        parse_duration("99999999999999999999s")


@given(st.integers(0, 10**15))
def test_a_formatted_duration_reads_back(ns: int) -> None:
    text = format_duration(ns)
    assert parse_duration(text) == ns
    assert re.match(DURATION_PATTERN, text)


@pytest.mark.parametrize(
    ("ns", "text"), [(0, "0s"), (60_000_000_000, "60s"), (120_000_000_000, "2m"), (1_500_000_000, "1500ms"), (3, "3ns")]
)
def test_durations_are_written_as_people_write_them(ns: int, text: str) -> None:
    assert format_duration(ns) == text


@pytest.mark.parametrize(
    ("value", "rate"), [("8", 8.0), (8, 8.0), ("8/s", 8.0), (0.5, 0.5), ("inf", math.inf), (math.inf, math.inf)]
)
def test_rates_are_read(value: object, rate: float) -> None:
    assert parse_rate(value) == rate
    assert not isinstance(value, str) or re.match(RATE_PATTERN, value)


@pytest.mark.parametrize("value", ["fast", "8ms", "-3", "", None, True, [8], "nan"])
def test_what_is_no_rate_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is no rate; write requests per second"):
        parse_rate(value)


@pytest.mark.parametrize("value", [0, -1, "0", math.nan])
def test_a_rate_that_sends_nothing_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="sends nothing"):
        parse_rate(value)


@pytest.mark.parametrize(("rate", "written"), [(8.0, 8), (0.5, 0.5), (math.inf, "inf")])
def test_rates_are_written_so_that_json_can_hold_them(rate: float, written: object) -> None:
    assert format_rate(rate) == written
    assert parse_rate(format_rate(rate)) == rate
