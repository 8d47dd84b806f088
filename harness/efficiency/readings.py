"""Counters and levels over a window: readings come every so often, and not at its edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from servemark.harness.figures.frame import Floats, Ints, Window
from servemark.harness.server.samples import growth
from servemark.harness.types import ServerSample

LEAST_COVERED = 0.8
"""Share of a window that readings must span to speak for it."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A counter over time: between readings, and beyond the first and the last, it grows evenly."""

    stamps: Ints
    values: Floats

    def at(self, stamps: Any) -> Floats:
        first, last = int(self.stamps[0]), int(self.stamps[-1])
        rate = (self.values[-1] - self.values[0]) / (last - first)
        asked = np.asarray(stamps, dtype=np.int64)
        beyond = np.minimum(asked - first, 0) + np.maximum(asked - last, 0)
        inside: Floats = np.interp(asked - first, self.stamps - first, self.values) + rate * beyond
        return inside

    def grown(self, window: Window) -> float:
        return float(np.diff(self.at((window.start_ns, window.end_ns)))[0])


def curve(samples: Sequence[ServerSample], name: str, window: Window) -> Curve | None:
    """Of a counter that is told in most of the window and does not fall in it; else None."""
    inside = _around(samples, window)
    if growth(inside, name) is None or not _cover(inside, window):
        return None
    values = [sample.values.get(name, 0.0) for sample in inside]
    if any(later < earlier for earlier, later in pairwise(values)):
        return None
    return Curve(np.array([sample.at_ns for sample in inside]), np.array(values, dtype=np.float64))


def grown(samples: Sequence[ServerSample], name: str, window: Window) -> float | None:
    """How far a counter moved in the window."""
    found = curve(samples, name, window)
    return None if found is None else found.grown(window)


def pulled_in(samples: Sequence[ServerSample], run: Window) -> list[ServerSample]:
    """With the last reading before a run stamped at its begin, and the first after it at its end.

    A counter moves while requests are in flight: what it grew by between those two is of the run alone, and none of it
    of the idle time around.
    """
    around = _around(samples, run)
    return [replace(each, at_ns=min(max(each.at_ns, run.start_ns), run.end_ns)) for each in around]


@dataclass(frozen=True, slots=True)
class Level:
    """`above_zero` is the share of the time in which it was more than 0."""

    mean: float
    largest: float
    above_zero: float


def level(samples: Sequence[ServerSample], name: str, window: Window) -> Level | None:
    """Of a level in the window, weighted by time; None where most of it has no reading."""
    known = [sample for sample in samples if name in sample.values]
    readings = [(sample.at_ns, sample.values[name]) for sample in known]
    return weighted(readings, window)


def weighted(readings: Sequence[tuple[int, float]], window: Window) -> Level | None:
    """Each reading stands for the time since the one before it, the first one for as long as is usual."""
    if not readings or window.seconds <= 0:
        return None
    ordered = sorted(readings)
    stamps = np.array([at_ns for at_ns, _ in ordered], dtype=np.int64)
    values = np.array([value for _, value in ordered])
    usual = int(np.median(np.diff(stamps))) if len(stamps) > 1 else window.end_ns - window.start_ns
    since = np.concatenate(([stamps[0] - usual], stamps[:-1]))
    weights = np.minimum(stamps, window.end_ns) - np.maximum(since, window.start_ns)
    weights = np.maximum(weights, 0).astype(np.float64)
    if weights.sum() < LEAST_COVERED * (window.end_ns - window.start_ns):
        return None
    share = weights / weights.sum()
    return Level(float(share @ values), float(values[weights > 0].max()), float(share @ (values > 0)))


def _around(samples: Sequence[ServerSample], window: Window) -> list[ServerSample]:
    """The readings in the window, the last before it and the first after it."""
    before = [each for each in samples if each.at_ns <= window.start_ns][-1:]
    inside = [each for each in samples if window.start_ns < each.at_ns < window.end_ns]
    return [*before, *inside, *[each for each in samples if each.at_ns >= window.end_ns][:1]]


def _cover(samples: Sequence[ServerSample], window: Window) -> bool:
    if len(samples) < 2 or samples[-1].at_ns <= samples[0].at_ns:
        return False
    spanned = min(samples[-1].at_ns, window.end_ns) - max(samples[0].at_ns, window.start_ns)
    return spanned >= LEAST_COVERED * (window.end_ns - window.start_ns)
