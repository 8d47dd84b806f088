"""Arrivals of one client in a window of time, by the law of its gaps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

SECOND = 1_000_000_000
LEAST_SHAPE, MOST_SHAPE = 0.01, 10_000.0
_MOST_GAPS = 1 << 26
_MARGIN = 16

Draw = Callable[[bytes, int], "Floats"]
"""(stream, count) -> the first so many uniform numbers of it, for one client and window."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time with one rate. Gaps are of `law` with this shape; their mean follows from the rate."""

    start_ns: int
    end_ns: int
    rate: float
    law: str
    shape: float

    @property
    def expected(self) -> float:
        """Arrivals in the mean."""
        return self.rate * (self.end_ns - self.start_ns) / SECOND

    def arrivals_ns(self, draw: Draw) -> Ints:
        """Those of a process that did not begin with the window, so that their number is `expected` in the mean."""
        import numpy as np

        gaps, weighted = LAWS[self.law]
        first = draw(b"servegen.first", 2)
        at = float(weighted(self.shape, first[:1])[0]) * float(first[1])
        count = _MARGIN + round(2 * self.expected)
        while True:
            times = at + np.concatenate(([0.0], np.cumsum(gaps(self.shape, draw(b"servegen.gaps", count)))))
            if times[-1] >= self.expected or count > _MOST_GAPS:
                break
            count *= 2
        inside: Ints = self.start_ns + (times[times < self.expected] / self.rate * SECOND).astype(np.int64)
        return inside


def _gamma(shape: float, u: Floats) -> Floats:
    from scipy.special import gammaincinv

    found: Floats = gammaincinv(shape, u) / shape
    return found


def _weibull(shape: float, u: Floats) -> Floats:
    import numpy as np

    found: Floats = (-np.log(u)) ** (1 / shape) / math.gamma(1 + 1 / shape)
    return found


def _gamma_weighted(shape: float, u: Floats) -> Floats:
    from scipy.special import gammaincinv

    found: Floats = gammaincinv(shape + 1, u) / shape
    return found


def _weibull_weighted(shape: float, u: Floats) -> Floats:
    from scipy.special import gammaincinv

    found: Floats = gammaincinv(1 + 1 / shape, u) ** (1 / shape) / math.gamma(1 + 1 / shape)
    return found


LAWS = {"Gamma": (_gamma, _gamma_weighted), "Weibull": (_weibull, _weibull_weighted)}
"""Gaps with a mean of 1 from uniform numbers; and such gaps drawn with a chance proportional to their length, as is the
one that a window begins in."""
