"""Times as traces write them -> nanoseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Literal

Unit = Literal["s", "ms", "us", "ns", "iso"]

SECOND = 1_000_000_000
_MOST_DIGITS = 30
NS = {"s": SECOND, "ms": 1_000_000, "us": 1_000, "ns": 1}

_LAST_NS: list[int] = [10 ** (11 - count) for count in range(12)]
"""What the last of so many digits stands for, of which two are seconds."""
_MINUTE = re.compile(r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d)")
_REST = re.compile(r":([0-5]\d|60)(?:[.,](\d{1,9}))?(?: ?(?:Z|UTC|([+-])(\d\d):?(\d\d)))?")


class Stamps:
    """Unix nanoseconds of `2023-11-16 18:17:03.9799600`, which datetime would cut to microseconds.

    A time without a zone is UTC. Rows of one minute come together, so a minute is taken apart once.
    """

    def __init__(self) -> None:
        self._minute, self._minute_ns = "", 0

    def __call__(self, text: str) -> int:
        digits = text[17:19] + text[20:]
        usual = text[16:20:3] == ":." and digits.isdecimal() and digits < "6" and 2 < len(digits) < 12
        if usual and text[:16] == self._minute:
            return self._minute_ns + int(digits) * _LAST_NS[len(digits)]
        return self._exactly(text)

    def _exactly(self, text: str) -> int:
        rest = _REST.fullmatch(text, 16)
        if rest is None:
            raise _no_stamp(text)
        if text[:16] != self._minute:
            self._minute_ns, self._minute = _minute_ns(text), text[:16]
        seconds, fraction, sign, hours, minutes = rest.groups()
        at_ns = self._minute_ns + int(seconds) * SECOND
        if fraction:
            at_ns += int(fraction) * 10 ** (9 - len(fraction))
        if sign:
            ahead_ns = (int(hours) * 60 + int(minutes)) * 60 * SECOND
            at_ns += ahead_ns if sign == "-" else -ahead_ns
        return at_ns


def _minute_ns(text: str) -> int:
    match = _MINUTE.match(text)
    if match is None:
        raise _no_stamp(text)
    try:
        year, month, day, hour, minute = map(int, match.groups())
        return round(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()) * SECOND
    except ValueError:
        raise _no_stamp(text) from None


def _no_stamp(text: str) -> ValueError:
    return ValueError(f"{text!r} is no timestamp such as 2023-11-16 18:17:03.9799600")


def numbers_ns(unit: Unit) -> Callable[[str], int]:
    """A reader of numbers in CSV, exact to the nanosecond. It raises ValueError."""
    scale = NS[unit]

    def at_ns(text: str) -> int:
        seconds, _, fraction = text.partition(".")
        if seconds.isdecimal() and (not fraction or fraction.isdecimal()):
            return int(seconds) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
        try:
            exact = Decimal(text)
            if not exact.is_finite() or exact.adjusted() > _MOST_DIGITS:  # as a whole number it could be endless
                raise ValueError
            return int(exact * scale)
        except (InvalidOperation, ValueError):
            raise ValueError(f"{text!r} is no time in {unit}") from None

    return at_ns


def reader(unit: Unit) -> Callable[[str], int]:
    """Text in that unit -> nanoseconds. It raises ValueError."""
    return Stamps() if unit == "iso" else numbers_ns(unit)


def json_reader(unit: Unit) -> Callable[[object], int]:
    """A value of JSON in that unit -> nanoseconds. It raises ValueError."""
    of_text = reader(unit)

    def at_ns(value: object) -> int:
        if isinstance(value, str):
            return of_text(value)
        if unit == "iso" or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{value!r} is no time in {unit}")
        return value * NS[unit] if isinstance(value, int) else round(value * NS[unit])

    return at_ns
