"""Arithmetic on chunk stamps: gaps, tokens in a window, deadlines.

A chunk is one read that carried tokens. Where no count came with the chunks they can still be certain: a response of
N tokens in N chunks has one in each, as each chunk carries at least one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from servemark.harness.clock import MS
from servemark.harness.figures.frame import MISSING, Floats, Frame, Ints, Mask, Window


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """Pooled samples in ms, and the row of each, ascending."""

    values: Floats
    rows: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens inside a window; `spread` of them were spread evenly over chunks; `uncounted` chunks have no count."""

    total: float
    spread: float
    uncounted: int


@dataclass(frozen=True, slots=True, eq=False)
class Deadlines:
    """Per row, nan where chunk counts are unknown: share of token deadlines met, and ms of stall after the start."""

    fluidity: Floats
    stall_ms: Floats


def rows_where(frame: Frame, chunks: Mask) -> Mask:
    """Rows that have at least one such chunk."""
    found = np.zeros(len(frame), dtype=np.bool_)
    found[frame.chunk_rows[chunks]] = True
    return found


def counted(frame: Frame) -> tuple[npt.NDArray[np.int32], Mask]:
    """Tokens of each chunk (0 where unknown), and the rows whose chunks are all counted."""
    gap = frame.chunk_tokens < 0
    if not gap.any():
        return frame.chunk_tokens, frame.counts > 0
    inferred = (frame["output_tokens"] == frame.counts) & (frame.counts > 0)
    known = (~rows_where(frame, gap) | inferred) & (frame.counts > 0)
    tokens = np.where(inferred[frame.chunk_rows], 1, np.maximum(frame.chunk_tokens, 0))
    return tokens.astype(np.int32), known


def received(frame: Frame) -> Floats:
    """Output tokens of each row: as they were counted, else of the chunks that came, one where nobody says how many."""
    tokens = np.where(frame.chunk_tokens < 0, 1, frame.chunk_tokens)
    chunks = np.bincount(frame.chunk_rows, tokens, len(frame))
    found: Floats = np.where(frame["output_tokens"] > 0, frame["output_tokens"], chunks).astype(np.float64)
    return found


def first_chunk_tokens(frame: Frame) -> Floats:
    """Tokens in the first chunk of each row, nan where unknown."""
    tokens, known = counted(frame)
    result = np.full(len(frame), np.nan)
    result[known] = tokens[frame.offsets[:-1][known]]
    return result


def chunk_gaps(frame: Frame) -> Gaps:
    """ICL: every gap between neighbouring chunks of a row."""
    return _gaps(frame.chunk_ns, frame.chunk_rows)


def one_token_each(frame: Frame) -> bool:
    """Every chunk is known to hold one token, so that ITL and ICL are the same samples."""
    tokens, known = counted(frame)
    return bool(known.all() and np.all(tokens == 1))


def token_gaps(frame: Frame) -> Gaps:
    """ITL: a gap before a chunk of k tokens is k samples of gap / k. Only rows whose chunks are all counted."""
    tokens, known = counted(frame)
    # A chunk that brought no new token moves its time to the next one that did.
    used = known[frame.chunk_rows] & (tokens > 0)
    rows, sizes = frame.chunk_rows[used], tokens[used]
    gaps = _gaps(frame.chunk_ns[used], rows)
    follows = rows[1:] == rows[:-1]
    k = sizes[1:][follows]
    return Gaps(np.repeat(gaps.values / k, k), np.repeat(gaps.rows, k))


def _gaps(stamps: Ints, rows: npt.NDArray[np.int32]) -> Gaps:
    if len(stamps) < 2:
        return Gaps(np.empty(0), np.empty(0, dtype=np.int32))
    follows = rows[1:] == rows[:-1]
    return Gaps(np.diff(stamps)[follows] / MS, rows[1:][follows])


def tokens_in(frame: Frame, window: Window) -> Tokens:
    """Output tokens stamped inside a window, of all rows, failed or not."""
    tokens, known = counted(frame)
    inside = window.holds(frame.chunk_ns)
    if known[frame.counts > 0].all():
        return Tokens(float(tokens[inside].sum()), 0.0, 0)
    totals = frame["output_tokens"]
    even = ~known & (totals != MISSING) & (frame.counts > 0)
    share = np.where(even, totals / np.maximum(frame.counts, 1), 0.0)
    known_chunks = known[frame.chunk_rows] & inside
    spread = float(share[frame.chunk_rows[inside]].sum())
    uncounted = int(np.sum((~known & ~even)[frame.chunk_rows[inside]]))
    return Tokens(float(tokens[known_chunks].sum()) + spread, spread, uncounted)


def deadlines(frame: Frame, origin: str, first_ms: Floats | float, each_ms: Floats | float) -> Deadlines:
    """Fluidity as the etalon paper has it (arXiv 2407.07000): the first token is due `first_ms` after `origin`.

    Each next one is due `each_ms` after the later of its predecessor's deadline and arrival: a token that is early
    leaves slack to those after it, one that is late starts the count anew. In a chunk only the first token can be
    late, because those beside it are due later and came with it. Both times are one for all rows, or one for each.
    """
    tokens, known = counted(frame)
    usable = known & (frame[origin] != MISSING)
    met, stalled = np.full(len(frame), np.nan), np.full(len(frame), np.nan)
    due, each = (_per_row(ms, len(frame)) for ms in (first_ms, each_ms))
    for rows in _blocks(frame.offsets):
        chunks = slice(int(frame.offsets[rows.start]), int(frame.offsets[rows.stop]))
        counts, use = frame.counts[rows], usable[rows]
        row = np.repeat(np.arange(len(use)), counts)
        n = np.where(use[row], tokens[chunks], 0).astype(np.int64)
        since = frame.chunk_ns[chunks] - np.where(use, frame[origin][rows], 0)[row]
        starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
        late = _lateness(since, n, row, starts, counts > 0, due[rows], each[rows])
        total = np.bincount(row, n, len(use))
        missed = np.bincount(row, late > 0, len(use))
        opening = np.concatenate(([True], row[1:] != row[:-1])) if len(row) else np.zeros(0, dtype=np.bool_)
        late[opening] = 0
        use &= total > 0
        met[rows][use] = 1 - missed[use] / total[use]
        stalled[rows][use] = np.bincount(row, late, len(use))[use] / MS
    return Deadlines(met, stalled)


def _per_row(ms: Floats | float, rows: int) -> Ints:
    """In ns."""
    return np.broadcast_to(np.rint(np.multiply(ms, MS)), rows).astype(np.int64)


def _blocks(offsets: Ints, chunks: int = 500_000) -> Iterator[slice]:
    """Slices of rows with about that many chunks, small enough for their arrays to stay in cache."""
    start, n_rows = 0, len(offsets) - 1
    while start < n_rows:
        stop = int(np.searchsorted(offsets, offsets[start] + chunks, side="right")) - 1
        stop = min(max(stop, start + 1), n_rows)
        yield slice(start, stop)
        start = stop


def _lateness(since: Ints, n: Ints, row: Ints, starts: Ints, filled: Mask, due: Ints, each: Ints) -> Ints:
    """ns by which each chunk's first token is late. `since` the origin; `starts` the first chunk of each row."""
    if not len(since):
        return since
    before = np.cumsum(n) - n
    first = np.zeros(len(starts), dtype=np.int64)
    first[filled] = before[starts[filled]]
    place = before - first[row]  # index of the chunk's first token in its response
    # Less place * each, a deadline only changes when a token is late: it is a running maximum of what came before.
    shifted = np.where(n > 0, since - place * each[row], due[row])
    previous = np.empty_like(shifted)
    previous[1:] = shifted[:-1]
    previous[starts[filled]] = due[filled]
    # One running maximum serves all rows: each row is lifted above every value of the rows before it.
    low = min(int(shifted.min()), int(due.min()))
    lift = row * (max(int(shifted.max()), int(due.max())) - low + 1) - low
    so_far = np.maximum.accumulate(previous + lift) - lift
    return np.asarray(np.where(n > 0, np.maximum(shifted - so_far, 0), 0), dtype=np.int64)
