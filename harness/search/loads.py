"""The loads that a search may ask for: rates on a geometric scale, or whole numbers of requests in flight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

By = Literal["rate", "concurrency"]

LEAST_PRECISION = 0.005
"""Rates have four digits, and two neighbours must differ."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The search begins at `start` and goes no further than `end`, which may lie above or below it.

    Two loads are close enough when the higher is at most 1 + `precision` times the lower, or the next whole number.
    """

    by: By
    start: float
    end: float
    precision: float = 0.05

    @property
    def low(self) -> float:
        return min(self.start, self.end)

    @property
    def high(self) -> float:
        return max(self.start, self.end)

    def above(self, load: float) -> float | None:
        """Twice as much, or the highest; None where that is reached."""
        return min(self.high, self._tidy(2 * load)) if load < self.high else None

    def below(self, load: float) -> float | None:
        return max(self.low, self._tidy(load / 2)) if load > self.low else None

    def between(self, low: float, high: float) -> float | None:
        """Their geometric middle; None where they are close enough."""
        if high <= low * (1 + self.precision) * (1 + 1e-9):
            return None
        middle = self._tidy(math.sqrt(low * high))
        if self.by == "rate":
            return middle
        return None if high - low <= 1 else min(max(middle, low + 1), high - 1)

    def _tidy(self, load: float) -> float:
        return float(f"{load:.4g}") if self.by == "rate" else max(1.0, float(round(load)))
