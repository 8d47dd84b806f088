"""What texts of people begin with alike: an instruction that stands before many of them, say.

A prefix cache rightly finds such beginnings, so a source declares them. Those that matter are in many rows, and so in a
sample: between neighbours in the alphabet every place shows where texts part.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from os.path import commonprefix

SAMPLE = 2000
LEAST_CHARACTERS = 8
LEAST_SHARE = 0.005
"""Of the sample: rarer beginnings spare a run nothing that could be seen."""
LONGEST = 1 << 14
"""Characters that are compared."""

_HIGHEST = "\U0010ffff"


class Beginnings:
    """The beginnings that many of the texts share, each with its tokens by `count`."""

    def __init__(self, texts: Sequence[str], count: Callable[[str], int]) -> None:
        self._by_length: dict[int, dict[str, int]] = defaultdict(dict)
        for shared in shared_beginnings(texts):
            self._by_length[len(shared)][shared] = count(shared)

    def of(self, text: str, before: int) -> tuple[tuple[str, int], ...]:
        """Those of one text, `before` which so many tokens stand in every prompt."""
        found = ((text[:length], known) for length, known in self._by_length.items())
        return tuple((start, before + known[start]) for start, known in found if start in known)


def shared_beginnings(texts: Sequence[str]) -> list[str]:
    """The places where two or more texts part, if enough of them come that far; shortest first."""
    ordered = sorted(text[:LONGEST] for text in texts)
    found = {commonprefix(pair) for pair in pairwise(ordered)}  # noqa: RUF071 (these are no paths)
    least = max(2, round(LEAST_SHARE * len(ordered)))
    kept = (each for each in found if len(each) >= LEAST_CHARACTERS and _holding(ordered, each) >= least)
    return sorted(kept, key=lambda each: (len(each), each))


def _holding(ordered: Sequence[str], start: str) -> int:
    return bisect_right(ordered, start + _HIGHEST) - bisect_left(ordered, start)
