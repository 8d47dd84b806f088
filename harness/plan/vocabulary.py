"""What is known of a server's tokens, and how a prompt of an exact count is composed from it."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
    count: Callable[[str], int] | None = None
    """Tokens of any text, without what an endpoint adds, where a tokenizer is at hand."""
    system_tokens: int | None = None
    """What a system message of `FIRST_WORD` and `LAST_PIECE` adds to a text prompt; None: nobody asked."""


class Segment(NamedTuple):
    """A part of a prompt that others may have too: equal segments, after equal ones, make equal tokens."""

    content: int
    tokens: int
    stream: bytes = b"prompts"
    """Separates kinds of content (at most 16 bytes)."""


class Composer:
    """Makes prompts from a vocabulary; prompt i is a pure function of (seed, i, count)."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._fixed = vocabulary.fixed_tokens
        self._lead = min(vocabulary.shared_prefix_tokens, vocabulary.fixed_tokens)
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
        return self.of_segments(seed, (Segment(index, tokens),))

    def of_segments(self, seed: int, segments: Sequence[Segment]) -> str:
        """A text that the server counts as all segments together, or as `least_text` where that is more.

        What every prompt starts with is part of the first segment, what stands at every end part of the last: up to
        that end, n segments are as many of the prompt's first tokens as their counts say.
        """
        left, lead = max(0, sum(part.tokens for part in segments) - self._fixed), self._lead
        texts = []
        for place, part in enumerate(segments, 1):
            wanted = left if place == len(segments) else min(left, max(0, part.tokens - lead))
            text, used = self._pieces(seed, part, wanted)
            texts.append(text)
            left -= used
            lead = max(0, lead - part.tokens)
        return f"{FIRST_WORD}{''.join(texts)}{LAST_PIECE}"

    def message(self, seed: int, part: Segment) -> str:
        """A text of so many tokens by itself, as a later message of a conversation; the template's are not counted."""
        text, _ = self._pieces(seed, part, part.tokens)
        return text.lstrip()

    def _pieces(self, seed: int, part: Segment, wanted: int) -> tuple[str, int]:
        """Pieces that cost `wanted` tokens, or the nearest below that they can, and what they cost."""
        draws = _numbers(seed, part.stream, part.content, wanted // self._smallest)
        if self._largest == self._smallest == 1:
            return "".join(map(self._texts.__getitem__, draws)), wanted
        return self._mixed(draws, wanted)

    def _mixed(self, draws: array[int], wanted: int) -> tuple[str, int]:
        """Pieces of several costs: free draws, then a tail that fits what is left."""
        parts: list[str] = []
        used = 0
        while wanted - used >= len(self._tails):
            draw = draws[used // self._smallest]
            parts.append(self._texts[draw])
            used += self._costs[draw]
        tail, cost = self._tails[wanted - used]
        return "".join(parts) + tail, used + cost

    def ids(self, seed: int, index: int, tokens: int) -> tuple[int, ...]:
        """`tokens` token ids."""
        return self.ids_of_segments(seed, (Segment(index, max(1, tokens)),))

    def ids_of_segments(self, seed: int, segments: Sequence[Segment]) -> tuple[int, ...]:
        numbers = (_numbers(seed, part.stream, part.content, part.tokens) for part in segments)
        return tuple(self._ids[number] for some in numbers for number in some)


def _numbers(seed: int, stream: bytes, content: int, count: int) -> array[int]:
    """`count` numbers below 65,536."""
    numbers = array("H", random_bytes(seed, stream, content, 2 * count))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _tails(vocabulary: Vocabulary) -> list[tuple[str, int]]:
    """For each small remainder the pieces that cost exactly that, or the nearest below it, and their cost."""
    by_cost: dict[int, str] = {}
    for piece, cost in zip(vocabulary.pieces, vocabulary.costs, strict=True):
        by_cost.setdefault(cost, piece)
    tails = [("", 0)]
    # Beyond largest * smallest every reachable remainder is reachable by a draw of any piece before it.
    for remainder in range(1, max(by_cost) * min(by_cost) + max(by_cost)):
        options = [
            (tails[remainder - cost][0] + piece, remainder)
            for cost, piece in by_cost.items()
            if cost <= remainder and tails[remainder - cost][1] == remainder - cost
        ]
        tails.append(options[0] if options else tails[-1])
    return tails
