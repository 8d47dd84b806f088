"""Which rows of a trace are sent, when, and how long: slice, limits on lengths, loop; and what that changed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import Field

from servemark.harness.errors import BadInput
from servemark.harness.plan.bad_rows import counted
from servemark.harness.plan.sources import Seeds
from servemark.harness.plan.strict import Count, Duration, PositiveDuration, Strict
from servemark.harness.units import format_duration
from servemark.workloads.traces.table import MOST_TOKENS, Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]
    Counts = npt.NDArray[np.uint32]


class Slice(Strict):
    """Which part of the trace is replayed; in the trace's own time, before any scaling."""

    start: Duration = Field(default=0, description="begin so long after the trace's beginning, its first row")
    duration: PositiveDuration | None = Field(default=None, description="end so long after that; else at its end")
    rows: Count | None = Field(default=None, description="at most so many rows")


class Wanted(Protocol):
    """The keys of the section that choose among the rows."""

    slice: Slice
    loop: int
    min_input_tokens: int | None
    max_input_tokens: int | None
    min_output_tokens: int | None
    max_output_tokens: int | None
    over_limit: Literal["clip", "drop"]
    shuffle: bool

    def spread_ns(self, at_ns: Ints, seeds: Seeds) -> Ints: ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """One pass through the slice; item i is row i % n of it, i // n passes on."""

    at_ns: Ints
    """Offsets from the slice's start, ascending."""
    rows: Counts
    """Their rows in the table."""
    input_tokens: Counts
    output_tokens: Counts
    pass_ns: int
    """How long one pass takes."""
    passes: int
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.at_ns) * self.passes

    def place(self, index: int) -> tuple[int, int]:
        """The pass that an item is in, and its place there."""
        return divmod(index, len(self.at_ns))


def choose(table: Table, wanted: Wanted, seeds: Seeds) -> Chosen:
    """Raises BadInput where nothing is left."""
    import numpy as np

    at_ns, order, notes = _in_order(table)
    at_ns = wanted.spread_ns(at_ns, seeds)
    cut = _cut(at_ns, wanted.slice, table)
    places = slice(cut.first, cut.last)
    rows = np.arange(cut.first, cut.last, dtype=np.uint32) if order is None else order[places].astype(np.uint32)
    fitted = _fit(table, rows, wanted)
    rows, inputs, outputs = rows[fitted.kept], fitted.inputs[fitted.kept], fitted.outputs[fitted.kept]
    offsets = (at_ns[places] - cut.start_ns)[fitted.kept]
    if not len(rows):
        raise BadInput(f"{table.path}: no row is left of the trace; widen prompts.slice or the limits on lengths")
    pass_ns = _pass_ns(table, offsets, wanted.slice.duration if cut.whole else None) if wanted.loop > 1 else 0
    if wanted.shuffle:
        dealt = np.array(_shuffled(len(rows), seeds.order))
        rows, inputs, outputs = rows[dealt], inputs[dealt], outputs[dealt]
    told = [*_first_notes(table, wanted, len(rows)), *notes, *fitted.notes]
    return Chosen(offsets, rows, inputs, outputs, pass_ns, wanted.loop, tuple(told))


def _in_order(table: Table) -> tuple[Ints, Ints | None, list[str]]:
    """Ascending times; the rows in that order, None where it is the file's."""
    import numpy as np

    at_ns = np.frombuffer(table.at_ns, np.int64)
    behind = int(np.count_nonzero(at_ns < np.maximum.accumulate(at_ns))) if len(at_ns) else 0
    if not behind:
        return at_ns, None, []
    order = np.argsort(at_ns, kind="stable")
    return at_ns[order], order, [f"{counted(behind, 'row')} earlier than a row before, sent in the order of time"]


@dataclass(frozen=True, slots=True)
class _Cut:
    first: int
    last: int
    start_ns: int
    whole: bool
    """The trace goes on to the slice's end, and no limit on rows has cut it short."""


def _cut(at_ns: Ints, part: Slice, table: Table) -> _Cut:
    import numpy as np

    if not len(at_ns):
        return _Cut(0, 0, 0, False)
    start_ns = (int(at_ns[0]) if table.origin_ns is None else table.origin_ns) + part.start
    ends_ns = int(at_ns[-1]) if table.end_ns is None else table.end_ns
    until_ns = ends_ns + 1 if part.duration is None else start_ns + part.duration
    first, last = (int(place) for place in np.searchsorted(at_ns, (start_ns, until_ns)))
    limited = min(last, first + part.rows) if part.rows is not None else last
    return _Cut(first, limited, start_ns, limited == last and until_ns <= ends_ns)


def _pass_ns(table: Table, offsets: Ints, duration_ns: int | None) -> int:
    """The slice's own length where it has one; else the next pass begins a mean gap after the last row."""
    if duration_ns is not None:
        return duration_ns
    span_ns = int(offsets[-1] - offsets[0])
    if not span_ns:
        raise BadInput(
            f"{table.path}: prompts.loop needs to know how long the slice is, and all its rows have one time; "
            "give prompts.slice.duration"
        )
    return span_ns + round(span_ns / (len(offsets) - 1))


def _shuffled(count: int, seed: int) -> list[int]:
    dealt = list(range(count))
    random.Random(seed).shuffle(dealt)  # noqa: S311 (no secret)
    return dealt


@dataclass(frozen=True, slots=True)
class _Fitted:
    inputs: Counts
    outputs: Counts
    kept: npt.NDArray[np.bool_]
    notes: list[str]


def _fit(table: Table, rows: Counts, wanted: Wanted) -> _Fitted:
    """Lengths within the limits; rows that are left out for theirs are not `kept`."""
    import numpy as np

    kept, notes, fitted = np.ones(len(rows), np.bool_), [], []
    drop = wanted.over_limit == "drop"
    for name, column, least, most in (
        ("input", table.input_tokens, wanted.min_input_tokens or 0, wanted.max_input_tokens or MOST_TOKENS),
        ("output", table.output_tokens, wanted.min_output_tokens or 0, wanted.max_output_tokens or MOST_TOKENS),
    ):
        lengths = np.frombuffer(column, np.uint32)[rows]
        long, short, none = lengths > most, lengths < least, lengths < 1
        for found, done, which in (
            (long, "left out" if drop else "shortened", f"{name} above {most} tokens"),
            (short, "left out" if drop else "lengthened", f"{name} below {least} tokens"),
            (none & (least < 1), "raised to 1", f"{name} of 0 tokens"),
        ):
            if count := int(np.count_nonzero(found)):
                notes.append(f"{count:,} of {len(rows):,} rows {done}: {which}")
        if drop:
            kept &= ~(long | short)
        fitted.append(np.clip(lengths, max(1, least), most).astype(np.uint32))
    return _Fitted(fitted[0], fitted[1], kept, notes)


def _first_notes(table: Table, wanted: Wanted, used: int) -> Iterator[str]:
    part, there = wanted.slice, table.there
    begin = f", from {format_duration(part.start)} on" if part.start else ""
    end = f", for {format_duration(part.duration)}" if part.duration else ""
    again = f", {wanted.loop} times over" if wanted.loop > 1 else ""
    yield f"{used:,} of {there:,} {table.what} are sent{begin}{end}{again}"
    yield from table.bad.note(there)
    yield from table.notes
    if wanted.shuffle:
        yield "lengths are dealt out in another order than the trace's"
