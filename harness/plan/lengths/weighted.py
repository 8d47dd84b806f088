"""A choice by weights at a uniform number, and where inside the chosen part that number lies."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Annotated, Any

from pydantic import AfterValidator, Field

Weight = Annotated[float, Field(gt=0, le=1e12)]


def _some(items: tuple[Any, ...]) -> tuple[Any, ...]:
    # A minimum length would be a second complaint where an item is wrong.
    if not items:
        raise ValueError("the list is empty; write at least one item")
    return items


Some = (Field(strict=False, json_schema_extra={"minItems": 1}), AfterValidator(_some))
"""Annotates a tuple that is written as a list, of one item or more."""

_INSIDE = 2.0**-53


class Weights:
    """Part k is chosen by the share of its weight."""

    def __init__(self, weights: Iterable[float]) -> None:
        self._sums = array("d", accumulate(weights))

    def __len__(self) -> int:
        return len(self._sums)

    def choose(self, u: float) -> int:
        """The part at quantile `u`, 0 < u < 1."""
        return min(bisect_right(self._sums, u * self._sums[-1]), len(self._sums) - 1)

    def inside(self, part: int, u: float) -> float:
        """How far into the part `u` lies, as a uniform number inside (0, 1)."""
        before = self._sums[part - 1] if part else 0.0
        share = (u * self._sums[-1] - before) / (self._sums[part] - before)
        return min(max(share, _INSIDE), 1 - _INSIDE)
