"""How many steps the engines took: by the server's own counter, else by the chunks of answers that cover the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from servemark.harness.efficiency.readings import Curve, curve
from servemark.harness.figures.frame import Floats, Frame, Ints, Window
from servemark.harness.hardware.layout import Layout
from servemark.harness.types import ServerSample

DOUBLE_COUNTED = 1.8
"""A counter that moved by so much more than the answers show counts each step several times."""

AGREED_SHARE = 0.05

_COUNTER = "the server's counter, which may leave out steps that gave no token"
_CHUNKS = "chunks of a chain of answers that covers the time: one chunk is taken for one step"


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Steps of a server, all servers' added up. `ranks` data ranks took part in each (None: those that had work)."""

    at: Curve
    ranks: int | None
    source: str
    note: str
    agreed: bool = False
    """The counter and the chunks of answers say the same."""

    def between(self, edges_ns: Ints) -> Floats:
        return np.diff(self.at.at(edges_ns))

    def count(self, window: Window) -> float:
        return self.at.grown(window)


def steps(frame: Frame, samples: Sequence[ServerSample], window: Window, layout: Layout) -> Steps | None:
    """None where the server does not count, and its answers did not come in pieces either."""
    told, shown = curve(samples, "iterations", window), _by_chunks(frame, window, layout)
    if told is None or told.grown(window) <= 0:
        return shown
    counted = Steps(Curve(told.stamps, told.values / layout.data), layout.data, "counter", _COUNTER)
    if shown is None or shown.count(window) <= 0:
        return counted
    times = counted.count(window) / shown.count(window)
    if times >= DOUBLE_COUNTED:
        note = f"{_CHUNKS}; the server's counter says {times:.1f} times as many, as several API servers of it would"
        return Steps(shown.at, shown.ranks, shown.source, note)
    if abs(times - 1) > AGREED_SHARE:
        return counted
    # The counter is read every second or so; the chunks say when in between.
    finer = Curve(shown.at.stamps, shown.at.values * times)
    return Steps(finer, layout.data, "counter", f"{_COUNTER}; the chunks of answers agree with it", agreed=True)


def _by_chunks(frame: Frame, window: Window, layout: Layout) -> Steps | None:
    """Each step gives every running request a chunk, so those of any one request count the steps while it runs.

    Servers behind one address, and the parts of a batch in a pipeline's stages, take steps of their own.
    """
    if not (frame.counts > 1).any():
        return None
    stamps = [chain(frame.take(frame["url"] == url)) for url in sorted(set(frame["url"].tolist()))]
    merged = np.sort(np.concatenate(stamps))
    if len(merged) < 2 or merged[0] == merged[-1]:
        return None
    each = layout.pipeline * max(1.0, layout.replicas / len(stamps))
    return Steps(_stairs(merged, each, window), None, "chunks", _CHUNKS)


def _stairs(stamps: Ints, each: float, window: Window) -> Curve:
    """Goes up by `each` right after every stamp, which so belongs to the span that begins with it."""
    places, counts = np.unique(stamps, return_counts=True)
    after = np.cumsum(counts) * each
    jumps, totals = (
        np.column_stack((places, places + 1)).ravel(),
        np.column_stack((after - counts * each, after)).ravel(),
    )
    first, last = min(window.start_ns, int(places[0])) - 1, max(window.end_ns, int(places[-1])) + 2
    return Curve(np.concatenate(([first], jumps, [last])), np.concatenate(([0.0], totals, [after[-1]])))


def chain(frame: Frame) -> Ints:
    """Stamps of the chunks of requests that follow each other, so that one of them always runs if any does."""
    pieces = [frame.chunk_ns[start:end] for start, end in _links(frame)]
    return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)


def _links(frame: Frame) -> Iterator[tuple[int, int]]:
    """Of each answer in the chain the chunks after the one before it: the answer that lasts longest takes over."""
    rows = np.flatnonzero(frame.counts > 0)
    starts, ends = frame.offsets[rows], frame.offsets[rows + 1]
    first, last = frame.chunk_ns[starts], frame.chunk_ns[ends - 1]
    covered, best = -1, -1
    for index in np.argsort(first, kind="stable").tolist():
        if first[index] > covered and best >= 0 and last[best] > covered:
            yield _after(frame.chunk_ns, int(starts[best]), int(ends[best]), covered)
            covered, best = int(last[best]), -1
        if first[index] > covered:  # nobody ran meanwhile
            yield int(starts[index]), int(ends[index])
            covered, best = int(last[index]), -1
        elif best < 0 or last[index] > last[best]:
            best = index
    if best >= 0 and last[best] > covered:
        yield _after(frame.chunk_ns, int(starts[best]), int(ends[best]), covered)


def _after(stamps: Ints, start: int, end: int, covered: int) -> tuple[int, int]:
    return start + int(np.searchsorted(stamps[start:end], covered, side="right")), end
