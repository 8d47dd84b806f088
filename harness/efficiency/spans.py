"""Spans of time in which a server only decodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from servemark.harness.figures.frame import MISSING, Frame, Ints, Mask, Window


def quiet(frame: Frame, rows: Mask, window: Window) -> list[tuple[int, int]]:
    """Spans of the window in which one of these requests decodes and none of them is before its first token."""
    sent, first, last = (frame[name][rows] for name in ("sent_ns", "first_token_ns", "last_token_ns"))
    ended = np.where(first != MISSING, first, frame["done_ns"][rows])
    began = (sent != MISSING) & (ended != MISSING)
    busy, decodes = _union(sent[began], ended[began]), _union(first[first != MISSING], last[first != MISSING])
    spans = [(max(a, window.start_ns), min(b, window.end_ns)) for a, b in decodes]
    return [span for span in _without(spans, busy) if span[1] > span[0]]


def to_last_step(spans: Sequence[tuple[int, int]], stamps: Ints, several: bool = False) -> list[tuple[int, int]]:
    """A span ends where a prompt comes, in the midst of a step: what is after the last whole one is left out.

    With `several` steps in a chunk the first chunk may have begun before the span, so that is left out too.
    """
    if not len(stamps):
        return []
    if several:
        firsts = [int(np.searchsorted(stamps, start, side="left")) for start, _ in spans]
        spans = [(int(stamps[at]), end) for at, (_, end) in zip(firsts, spans, strict=True) if at < len(stamps)]
    ends = [int(stamps[max(0, int(np.searchsorted(stamps, end, side="right")) - 1)]) for _, end in spans]
    return [(start, last) for (start, _), last in zip(spans, ends, strict=True) if last > start]


def _union(starts: Ints, ends: Ints) -> list[tuple[int, int]]:
    """Intervals that touch, as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(zip(starts.tolist(), ends.tolist(), strict=True)):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _without(spans: Sequence[tuple[int, int]], taken: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of the spans; both are in order and do not overlap."""
    left, place = [], 0
    for start, end in spans:
        while place < len(taken) and taken[place][1] <= start:
            place += 1
        here = place
        while here < len(taken) and taken[here][0] < end:
            if taken[here][0] > start:
                left.append((start, taken[here][0]))
            start, here = max(start, taken[here][1]), here + 1
        if start < end:
            left.append((start, end))
    return left


def within(stamps: Ints, spans: Sequence[tuple[int, int]]) -> Mask:
    """After the start of a span, as the chunk of a step that began in it, and not after its end."""
    if not spans:
        return np.zeros(len(stamps), dtype=np.bool_)
    starts, ends = (np.array(each, dtype=np.int64) for each in zip(*spans, strict=True))
    place = np.searchsorted(starts, stamps, side="left") - 1
    found: Mask = (place >= 0) & (stamps <= ends[np.maximum(place, 0)])
    return found
