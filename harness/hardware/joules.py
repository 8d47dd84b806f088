"""Joules of a window, from readings of a GPU's energy counter or, where it has none, of its power."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

COUNTED = "energy counter"
INTEGRATED = "power, integrated"

Reading = tuple[float, float]
"""When in seconds, and the joules or watts then."""


def joules_between(
    energy: Sequence[Reading], power: Sequence[Reading], start_s: float, end_s: float
) -> tuple[float, str] | None:
    """Joules and how they were found; None where neither was read at both ends of the window or close by.

    Between two readings the counter grows evenly and the power changes evenly; at the ends it goes on as in the mean. A
    counter that falls began anew, with the driver; what it would have grown by is not known and counts for nothing.
    """
    for readings, of_pair, source in ((energy, _counted, COUNTED), (power, _integrated, INTEGRATED)):
        if _spans(readings, start_s, end_s):
            read = sum(of_pair(*pair, start_s, end_s) for pair in pairwise(readings))
            covered_s = min(readings[-1][0], end_s) - max(readings[0][0], start_s)
            return read * (end_s - start_s) / covered_s, source
    return None


def _spans(readings: Sequence[Reading], start_s: float, end_s: float) -> bool:
    """Whether no more of the window is without readings than lies between two of them."""
    if len(readings) < 2 or end_s <= start_s:
        return False
    (first, _), (last, _) = readings[0], readings[-1]
    period = (last - first) / (len(readings) - 1)
    return first - start_s <= period and end_s - last <= period and last > start_s and first < end_s


def _counted(before: Reading, after: Reading, start_s: float, end_s: float) -> float:
    seconds = after[0] - before[0]
    inside = min(after[0], end_s) - max(before[0], start_s)
    return max(after[1] - before[1], 0.0) * inside / seconds if inside > 0 else 0.0


def _integrated(before: Reading, after: Reading, start_s: float, end_s: float) -> float:
    """A trapezoid, cut at the ends of the window."""
    (t0, w0), (t1, w1) = before, after
    begin, end = max(t0, start_s), min(t1, end_s)
    if end <= begin:
        return 0.0
    middle = ((begin + end) / 2 - t0) / (t1 - t0)
    return (w0 + (w1 - w0) * middle) * (end - begin)
