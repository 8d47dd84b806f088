"""The Pareto front: the points of which no other is better in one thing and at least as good in the other."""

from __future__ import annotations

import math
from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points on the front, by their first figure; more is better in both. Equal points are all on it."""
    order = sorted(range(len(points)), key=lambda place: (-points[place][0], -points[place][1]))
    found: list[int] = []
    best = (math.nan, -math.inf)
    for place in order:
        if points[place][1] > best[1] or points[place] == best:
            best = points[place]
            found.append(place)
    return sorted(found, key=lambda place: (points[place], place))
