"""The prompts and tokens that a server must have computed for what its clients saw, each with its time and context."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from servemark.harness.figures.chunks import counted
from servemark.harness.figures.frame import MISSING, Floats, Frame, Ints, Mask


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Tokens after the first of an answer: those of a chunk came at `stamps`, the first of them after `contexts`
    cached tokens. `rows` are the frame's."""

    stamps: Ints
    tokens: Floats
    contexts: Floats
    rows: Ints

    def where(self, chosen: Mask) -> Decoded:
        return Decoded(self.stamps[chosen], self.tokens[chosen], self.contexts[chosen], self.rows[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class Prefilled:
    """Prompts, at the stamp of the first token: that is when they were computed to the end."""

    stamps: Ints
    prompts: Floats
    cached: Floats
    rows: Ints

    @property
    def new(self) -> Floats:
        return self.prompts - self.cached

    def where(self, chosen: Mask) -> Prefilled:
        return Prefilled(self.stamps[chosen], self.prompts[chosen], self.cached[chosen], self.rows[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """`unknown_prompts` are requests whose prompt's length nobody told; `uncounted` are chunks taken for a token."""

    decoded: Decoded
    prefilled: Prefilled
    unknown_prompts: int
    uncounted: int


def seen(frame: Frame, cached_share: float | None = None) -> Seen:
    """Of all requests, failed ones too. `cached_share` is for those whose usage does not tell their cached tokens."""
    prompts, unknown = _prompts(frame)
    tokens, uncounted = tokens_of_chunks(frame)
    rows = frame.chunk_rows.astype(np.int64)
    before = _before(frame, tokens)
    decoded = np.where(before > 0, tokens, np.maximum(tokens - 1, 0))
    contexts = prompts[rows] + np.maximum(before, 1) - 1
    later = decoded > 0
    begun = np.flatnonzero((frame.counts > 0) & (prompts > 0))
    return Seen(
        Decoded(frame.chunk_ns[later], decoded[later], contexts[later], rows[later]),
        Prefilled(
            frame.chunk_ns[frame.offsets[:-1][begun]], prompts[begun], _cached(frame, cached_share)[begun], begun
        ),
        int((unknown & (frame.counts > 0)).sum()),
        uncounted,
    )


def _prompts(frame: Frame) -> tuple[Floats, Mask]:
    """Tokens of each prompt as the server counts them, else as asked, else 0 and marked."""
    told, asked = frame["prompt_tokens"], frame["asked_prompt_tokens"]
    found = np.where(told != MISSING, told, np.where(asked != MISSING, asked, 0))
    return found.astype(np.float64), (told == MISSING) & (asked == MISSING)


def _cached(frame: Frame, share: float | None) -> Floats:
    """At least a prompt's last token is computed, since its output is what is wanted."""
    prompts, _ = _prompts(frame)
    told = frame["cached_tokens"]
    cached = np.where(told != MISSING, told, (share or 0.0) * prompts)
    found: Floats = np.clip(cached, 0, np.maximum(prompts - 1, 0))
    return found


def tokens_of_chunks(frame: Frame) -> tuple[Floats, int]:
    """Spread evenly where only their sum is known, and one where nothing is; and for how many that is so."""
    tokens, known = counted(frame)
    totals = frame["output_tokens"]
    even = ~known & (totals >= frame.counts) & (frame.counts > 0)
    spread = np.where(even, totals / np.maximum(frame.counts, 1), 1.0)
    rows = frame.chunk_rows
    found: Floats = np.where(known[rows], tokens, spread[rows]).astype(np.float64)
    return found, int((~known & ~even)[rows].sum())


def _before(frame: Frame, tokens: Floats) -> Floats:
    """How many tokens of the same answer came before each chunk."""
    total = np.concatenate(([0.0], np.cumsum(tokens)))
    found: Floats = total[:-1] - total[frame.offsets[:-1]][frame.chunk_rows]
    return found
