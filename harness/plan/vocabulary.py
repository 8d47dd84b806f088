"""What is known of a server's tokens, and how a prompt of an exact count is composed from it."""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from typing import Literal

from servemark.harness.plan.draws import random_bytes

Origin = Literal["server", "file", "estimate"]

FIRST_WORD = "the"
"""Every text starts with it: chat templates may strip a leading space, which would change the first piece's cost."""

LAST_PIECE = " the"
"""Every text ends with it: what a template puts behind a text can merge with its end, so the end is always the same."""

_DRAWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Pieces of text with their cost in tokens, as one server counts them on one endpoint.

    A text is `FIRST_WORD`, pieces that each start with a space, and `LAST_PIECE`. The server counts `fixed_tokens` for
    the text without pieces (chat template, BOS, first and last word) plus the pieces' `costs`. `ids` are ordinary token
    ids for prompts of ids, which cost nothing beside themselves.
    """

    pieces: tuple[str, ...]
    costs: tuple[int, ...]
    fixed_tokens: int
    ids: tuple[int, ...]
    exact: bool
    origin: Origin
    shared_prefix_tokens: int = 0
    """Tokens with which every text prompt starts, the template's included: a prefix cache may rightly hit them."""
    note: str = ""
    """Why `exact` is false."""


class Composer:
    """Makes prompts from a vocabulary; prompt i is a pure function of (seed, i, count)."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._fixed = vocabulary.fixed_tokens
        count = len(vocabulary.pieces)
        # Two random bytes choose a piece: a table of 65,536 makes that one lookup.
        self._ids = [vocabulary.ids[draw % len(vocabulary.ids)] for draw in range(_DRAWS)]
        self._texts = [vocabulary.pieces[draw % count] for draw in range(_DRAWS)]
        self._costs = [vocabulary.costs[draw % count] for draw in range(_DRAWS)]
        self._largest, self._smallest = max(vocabulary.costs), min(vocabulary.costs)
        self._tails = _tails(vocabulary)

    @property
    def least_text(self) -> int:
        """The shortest text prompt, in tokens."""
        return self._fixed

    def text(self, seed: int, index: int, tokens: int) -> str:
        """A text that the server counts as `tokens`, or as `least_text` where that is more."""
        wanted = max(0, tokens - self._fixed)
        draws = _numbers(seed, index, wanted // self._smallest)
        if self._largest == self._smallest == 1:
            return f"{FIRST_WORD}{''.join(map(self._texts.__getitem__, draws))}{LAST_PIECE}"
        return f"{FIRST_WORD}{self._mixed(draws, wanted)}{LAST_PIECE}"

    def _mixed(self, draws: array[int], wanted: int) -> str:
        """Pieces of several costs: free draws, then a tail that fits what is left."""
        parts: list[str] = []
        used = 0
        while wanted - used >= len(self._tails):
            draw = draws[used // self._smallest]
            parts.append(self._texts[draw])
            used += self._costs[draw]
        return "".join(parts) + self._tails[wanted - used]

    def ids(self, seed: int, index: int, tokens: int) -> tuple[int, ...]:
        """`tokens` token ids."""
        return tuple(map(self._ids.__getitem__, _numbers(seed, index, max(1, tokens))))


def _numbers(seed: int, index: int, count: int) -> array[int]:
    """`count` numbers below 65,536."""
    numbers = array("H", random_bytes(seed, b"prompts", index, 2 * count))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _tails(vocabulary: Vocabulary) -> list[str]:
    """For each small remainder the pieces that cost exactly that, or the nearest below it."""
    by_cost: dict[int, str] = {}
    for piece, cost in zip(vocabulary.pieces, vocabulary.costs, strict=True):
        by_cost.setdefault(cost, piece)
    tails, exact = [""], [True]
    # Beyond largest * smallest every reachable remainder is reachable by a draw of any piece before it.
    for remainder in range(1, max(by_cost) * min(by_cost) + max(by_cost)):
        options = [
            tails[remainder - cost] + piece
            for cost, piece in by_cost.items()
            if cost <= remainder and exact[remainder - cost]
        ]
        tails.append(options[0] if options else tails[-1])
        exact.append(bool(options))
    return tails
