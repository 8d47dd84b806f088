"""The lognormal law as the workload file gives it, for lengths and for times alike: its median and one spread."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Protocol

_STANDARD = NormalDist()
_Z95 = _STANDARD.inv_cdf(0.95)
_FURTHEST = 300.0
"""e^300 is beyond every length and every time."""


class Shape(Protocol):
    """All in one unit but `sigma`, the standard deviation of the natural logarithm; the unused ones are None."""

    @property
    def median(self) -> float: ...
    @property
    def p95(self) -> float | None: ...
    @property
    def mean(self) -> float | None: ...
    @property
    def sigma(self) -> float | None: ...


def check_spread(shape: Shape) -> None:
    """Raises ValueError where the shape is given twice, or not at all, or is none."""
    given = [name for name in ("p95", "mean", "sigma") if getattr(shape, name) is not None]
    if len(given) != 1:
        raise ValueError(
            f"a lognormal takes its median and exactly one of p95, mean, sigma, and here are "
            f"{', '.join(given) or 'none'}; keep one"
        )
    if given[0] != "sigma" and getattr(shape, given[0]) < shape.median:
        raise ValueError(f"{given[0]} is below the median, which no lognormal has")


def spread(shape: Shape) -> float:
    """Sigma of the logarithm: given, ln(p95 / median) / z95, or sqrt(2 ln(mean / median))."""
    if shape.p95 is not None:
        return math.log(shape.p95 / shape.median) / _Z95
    if shape.mean is not None:
        return math.sqrt(2 * math.log(shape.mean / shape.median))
    return shape.sigma or 0.0


def quantile(shape: Shape, u: float) -> float:
    """The value below which a share `u` of the draws is, 0 < u < 1."""
    return shape.median * math.exp(min(spread(shape) * _STANDARD.inv_cdf(u), _FURTHEST))
