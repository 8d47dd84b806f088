"""How many steps the engines took: by the server's own counter, else by the chunks of answers that cover the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from servemark.harness.clock import MS
from servemark.harness.efficiency.readings import Curve, curve, grown
from servemark.harness.efficiency.seen import tokens_of_chunks
from servemark.harness.figures.chunks import chunk_gaps
from servemark.harness.figures.frame import Floats, Frame, Ints, Window
from servemark.harness.hardware.layout import Layout
from servemark.harness.types import ServerSample

DOUBLE_COUNTED = 1.8
"""A counter that moved by so much more than the answers show counts each step several times."""

AGREED_SHARE = 0.05

_COUNTER = "the server's counter, which may leave out steps that gave no token"
_CHUNKS = "chunks of a chain of answers that covers the time: one chunk is taken for one step"
_DRAFTED = "and held {:.2g} tokens: without drafts there were as many more steps"
SEVERAL = 1.1
"""Tokens in a chunk on average, from which on it matters whether they are of one step."""


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Steps of a server, all servers' added up. `ranks` data ranks took part in each (None: those that had work)."""

    at: Curve
    ranks: int | None
    source: str
    note: str
    agreed: bool = False
    """The counter and the chunks of answers say the same."""
    by_token: bool = False
    """A server that drafts nothing gives a request one token a step, so that a chunk of several holds several steps."""

    def between(self, edges_ns: Ints) -> Floats:
        return np.diff(self.at.at(edges_ns))

    def count(self, window: Window) -> float:
        return self.at.grown(window)


def steps(frame: Frame, samples: Sequence[ServerSample], window: Window, layout: Layout) -> Steps | None:
    """None where the server does not count, and its answers did not come in pieces either."""
    told = curve(samples, "iterations", window)
    if told is None or told.grown(window) <= 0:
        return _by_chunks(frame, window, layout, by_token=False)
    by_token = not grown(samples, "spec_drafts", window)
    shown = _by_chunks(frame, window, layout, by_token)
    counted = Steps(Curve(told.stamps, told.values / layout.data), layout.data, "counter", _COUNTER, by_token=by_token)
    if shown is None or shown.count(window) <= 0:
        return counted
    times = counted.count(window) / shown.count(window)
    if times >= DOUBLE_COUNTED:
        note = f"{_CHUNKS}; the server's counter says {times:.1f} times as many, as several API servers of it would"
        return replace(shown, note=note)
    if abs(times - 1) > AGREED_SHARE:
        return counted
    # The counter is read every second or so; the chunks say when in between.
    finer = Curve(shown.at.stamps, shown.at.values * times)
    return Steps(finer, layout.data, "counter", f"{_COUNTER}; the chunks of answers agree with it", True, by_token)


def _by_chunks(frame: Frame, window: Window, layout: Layout, by_token: bool) -> Steps | None:
    """Each step gives every running request a chunk, so those of any one request count the steps while it runs.

    Servers behind one address, and the parts of a batch in a pipeline's stages, take steps of their own.
    """
    if not (frame.counts > 1).any():
        return None
    chains = [chain(frame.take(frame["url"] == url)) for url in sorted(set(frame["url"].tolist()))]
    stamps, tokens = (np.concatenate(each) for each in zip(*chains, strict=True))
    if len(stamps) < 2 or stamps.min() == stamps.max():
        return None
    taken = tokens if by_token else np.ones(len(stamps))
    each = layout.pipeline * max(1.0, layout.replicas / len(chains))
    note = _CHUNKS if by_token or tokens.mean() < SEVERAL else f"{_CHUNKS}, {_DRAFTED.format(tokens.mean())}"
    return Steps(_stairs(stamps, taken * each, window), None, "chunks", note, by_token=by_token)


def _stairs(stamps: Ints, steps_each: Floats, window: Window) -> Curve:
    """Goes up by the steps of a stamp right after it, so that it belongs to the span that begins with it."""
    places, place = np.unique(stamps, return_inverse=True)
    rises = np.bincount(place, steps_each)
    after = np.cumsum(rises)
    jumps, totals = (
        np.column_stack((places, places + 1)).ravel(),
        np.column_stack((after - rises, after)).ravel(),
    )
    first, last = min(window.start_ns, int(places[0])) - 1, max(window.end_ns, int(places[-1])) + 2
    return Curve(np.concatenate(([first], jumps, [last])), np.concatenate(([0.0], totals, [after[-1]])))


def chain(frame: Frame) -> tuple[Ints, Floats]:
    """Chunks of requests that follow each other, so that one of them always runs if any does: stamps and tokens."""
    links = [np.arange(start, end) for start, end in _links(frame, _same_step_ns(frame))]
    chosen = np.concatenate(links) if links else np.empty(0, dtype=np.int64)
    return frame.chunk_ns[chosen], np.maximum(tokens_of_chunks(frame)[0], 1.0)[chosen]


def _same_step_ns(frame: Frame) -> int:
    """How far apart chunks of one step may come: half of what lies between the steps that follow each other fast."""
    gaps = chunk_gaps(frame).values
    return round(float(np.quantile(gaps, 0.25)) * MS / 2) if len(gaps) else 0


def _links(frame: Frame, same_ns: int) -> Iterator[tuple[int, int]]:
    """Of each answer in the chain the chunks after the one before it: the answer that lasts longest takes over.

    A step's chunks come one after the other, so what comes within `same_ns` of the last one is not of a further step.
    """
    rows = np.flatnonzero(frame.counts > 0)
    starts, ends = frame.offsets[rows], frame.offsets[rows + 1]
    first, last = frame.chunk_ns[starts], frame.chunk_ns[ends - 1]
    covered, best = -1, -1
    for index in np.argsort(first, kind="stable").tolist():
        if first[index] > covered and best >= 0 and last[best] > covered:
            yield _after(frame.chunk_ns, int(starts[best]), int(ends[best]), covered)
            covered, best = int(last[best]) + same_ns, -1
        if first[index] > covered:  # nobody ran meanwhile
            yield int(starts[index]), int(ends[index])
            covered, best = int(last[index]) + same_ns, -1
        elif best < 0 or last[index] > last[best]:
            best = index
    if best >= 0 and last[best] > covered:
        yield _after(frame.chunk_ns, int(starts[best]), int(ends[best]), covered)


def _after(stamps: Ints, start: int, end: int, covered: int) -> tuple[int, int]:
    return start + int(np.searchsorted(stamps[start:end], covered, side="right")), end
