"""A rate that changes in time, laid over arrivals at a rate of 1.

As many arrivals are expected until t as the area under the rate until t. An arrival at time x of a process with rate 1
is moved to where that area is x: a Poisson process stays one, with the changing rate, and any other keeps its law
between arrivals, in the time that the rate makes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Piece:
    """So long a rate that goes in a straight line from `first` to `last`, in requests per second."""

    duration_ns: int
    first: float
    last: float

    @property
    def area(self) -> float:
        """Arrivals expected in it."""
        return (self.first + self.last) / 2 * self.duration_ns / SECOND

    def scaled(self, factor: float) -> Piece:
        return Piece(self.duration_ns, self.first * factor, self.last * factor)

    def reached_ns(self, area: float) -> int:
        """How long after its begin that much of its area lies behind."""
        if area <= 0:
            return 0
        slope = (self.last - self.first) * SECOND / self.duration_ns
        # The root of first x + slope x^2 / 2 = area in the form that neither a flat nor a falling line upsets.
        root = math.sqrt(max(0.0, self.first**2 + 2 * slope * area))
        return min(self.duration_ns, round(2 * area / (self.first + root) * SECOND))


def rescaled(times: Iterable[float], pieces: Iterable[Piece]) -> Iterator[int]:
    """Times of a process with rate 1 -> offsets in ns of one whose rate is the pieces', one after another.

    Ends with the pieces; an arrival at a piece's very end belongs to the next one.
    """
    left = iter(pieces)
    piece, began_ns, behind = next(left), 0, 0.0
    area = piece.area
    for time in times:
        while time - behind >= area:
            began_ns += piece.duration_ns
            behind += area
            following = next(left, None)
            if following is None:
                return
            piece, area = following, following.area
        yield began_ns + piece.reached_ns(time - behind)
