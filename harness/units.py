"""Values with units as users write them: durations (`200ms`, `1m30s`) and rates (`8`, `8/s`, `inf`)."""

from __future__ import annotations

import math
import re
from decimal import Decimal

_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_LONGEST_H = 10_000
_LONGEST_NS = _LONGEST_H * _NS["h"]
_PART = r"\d+(?:\.\d+)?(?:ns|us|µs|ms|s|min|m|h)"
DURATION_PATTERN = rf"^(?:{_PART})+$"
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|min|m|h)")
_DURATION = re.compile(DURATION_PATTERN)
_NUMBER = re.compile(r"^\d+(?:\.\d*)?(?:e[+-]?\d+)?$")
RATE_PATTERN = r"^(?:inf|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(?:/s)?$"


def parse_duration(text: object) -> int:
    """Nanoseconds of `200ms`, `60s`, `2m`, `1m30s`. A number without a unit is refused: ValueError."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise ValueError(f"{text} has no unit; write {text}s or {text}ms")
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no duration; write 200ms, 60s or 2m")
    clean = text.strip()
    if _NUMBER.match(clean):
        raise ValueError(f"{clean} has no unit; write {clean}s or {clean}ms")
    if not _DURATION.match(clean):
        raise ValueError(f"{text!r} is no duration; write 200ms, 60s or 2m")
    duration_ns = int(sum(Decimal(number) * _NS[unit] for number, unit in _PARTS.findall(clean)))
    if duration_ns > _LONGEST_NS:
        raise ValueError(f"{text!r} is longer than {_LONGEST_H:,} hours")
    return duration_ns


def format_duration(duration_ns: int) -> str:
    """The shortest exact way to write a duration with one unit; `parse_duration` reads it back."""
    for unit in ("h", "m", "s", "ms", "us"):
        if duration_ns and duration_ns % _NS[unit] == 0 and (unit != "h" or duration_ns >= 2 * _NS["h"]):
            count = duration_ns // _NS[unit]
            # 60s and 90s are what people write; 2m is clearer than 120s.
            if unit == "m" and count < 2:
                continue
            return f"{count}{unit}"
    return f"{duration_ns}ns" if duration_ns else "0s"


def parse_rate(value: object) -> float:
    """Requests per second of `8`, `8.5`, `"8/s"` or `"inf"`. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no rate; write requests per second, such as 8, 0.5 or inf")
    if isinstance(value, str):
        text = value.strip().lower().removesuffix("/s").strip()
        if text != "inf" and not _NUMBER.match(text):
            raise ValueError(f"{value!r} is no rate; write requests per second, such as 8, 0.5 or inf")
        value = float(text)
    if math.isnan(value) or value <= 0:
        raise ValueError(f"a rate of {value:g} sends nothing; give requests per second above 0")
    return float(value)


def format_rate(rate: float) -> float | int | str:
    """A rate as JSON and YAML can hold it: `inf` is a word, whole numbers have no fraction."""
    if math.isinf(rate):
        return "inf"
    return int(rate) if rate == int(rate) else rate
