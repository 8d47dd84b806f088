"""The knee of a load curve: up to there more throughput is worth its latency, beyond it is not.

The power of a load is its throughput divided by its mean response time (Giessler, Haenle, Koenig and Pade, Free buffer
allocation, Computer Networks 2, 1978; Kleinrock, Power and deterministic rules of thumb, ICC 1979), and the knee is the
load at which it is highest (Jain and Ramakrishnan, Congestion avoidance in computer networks, 1988). Below it a percent
of throughput costs less than a percent of response time, above it more. In a closed loop it is where a percent of users
begins to give less than half a percent of throughput.

Unlike the distance from a chord (Satopaa et al., Finding a Kneedle in a haystack, ICDCSW 2011) it needs no smoothing,
and does not move with the range that was swept: of more loads on either side none is chosen that has less power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MARGIN = 1.05
"""So many times the power of the lowest load, and of the highest, must the knee's be: less may be noise."""
LEAST_LOADS = 3

Kind = Literal["knee", "above", "below", "flat", "few"]


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """What was reached at a load; `latency` is the mean response time. Units do not matter."""

    load: float
    throughput: float
    latency: float

    @property
    def power(self) -> float:
        return self.throughput / self.latency


@dataclass(frozen=True, slots=True)
class Knee:
    """`load` is None where there is no knee: it lies `above` the loads, or `below` them, the curve is `flat`, or the
    loads are too `few`.

    With loads as coarse as they are, the power is highest somewhere between `low` and `high`; `overload` is the load
    that bounds the knee from above as the server was overloaded there.
    """

    kind: Kind
    load: float | None = None
    low: float | None = None
    high: float | None = None
    overload: float | None = None


def knee(points: Sequence[LoadPoint], overload: float | None = None) -> Knee:
    """`overload` is the lowest load that is known to be too much: there the power falls to nothing, as latency grows
    for as long as the load goes on."""
    known = sorted((p for p in points if p.throughput > 0 and p.latency > 0), key=lambda point: point.load)
    if overload is not None:
        known = [point for point in known if point.load < overload]
    loads = [point.load for point in known] + ([] if overload is None else [overload])
    if len(set(loads)) < LEAST_LOADS:
        return Knee("few")
    best = max(known, key=lambda point: (point.power, -point.load))
    rises = best.power >= MARGIN * known[0].power
    falls = overload is not None or best.power >= MARGIN * known[-1].power
    if not (rises and falls):
        return Knee("above" if rises else "below" if falls else "flat")
    place = loads.index(best.load)
    bound = overload if best.load == known[-1].load else None
    return Knee("knee", best.load, loads[place - 1], loads[place + 1], bound)
