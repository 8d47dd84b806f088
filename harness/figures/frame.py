"""Many records as columns: int64 arrays with MISSING for None, object arrays for text, ragged chunk stamps.

Rows are in order of intended time, which is what trends and autocorrelation are about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from servemark.harness.clock import MS, SECOND
from servemark.harness.types import Record

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]
Ragged = tuple[Any, Any]
"""(values of all rows one after another, offsets of which row i owns [offsets[i], offsets[i + 1]))."""

MISSING = int(np.iinfo(np.int64).min)
"""Stands for None in an int64 column."""
UNKNOWN = -1
"""Stands for None in chunk_tokens (int32)."""

_RAGGED = ("chunk_ns", "chunk_tokens")
INT_COLUMNS = tuple(f.name for f in fields(Record) if str(f.type).startswith("int"))
TEXT_COLUMNS = tuple(f.name for f in fields(Record) if f.name not in INT_COLUMNS and f.name not in _RAGGED)
_DEFAULTS: dict[str, Any] = {
    "class_": "default",
    "phase": "measured",
    "url": "",
    "turn": 0,
    "worker": 0,
    "reads": 0,
    "coalesced_reads": 0,
    "resends": 0,
    "stamp": "kernel",
    "token_source": "none",
}


@dataclass(frozen=True, slots=True)
class Window:
    """A span of the run, half open: `end_ns` itself is outside, so n evenly spaced arrivals give their true rate."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return max(0, self.end_ns - self.start_ns) / SECOND

    def holds(self, stamps: Ints) -> Mask:
        """Which stamps lie inside; a missing stamp never does."""
        inside: Mask = (stamps >= self.start_ns) & (stamps < self.end_ns) & (stamps != MISSING)
        return inside


@dataclass(frozen=True, eq=False)
class Frame:
    """Columns by the names of `Record`. Chunks of row i are [offsets[i], offsets[i + 1]) of the chunk arrays."""

    columns: Mapping[str, npt.NDArray[Any]]
    chunk_ns: Ints
    chunk_tokens: npt.NDArray[np.int32]
    offsets: Ints

    @classmethod
    def from_records(cls, records: Sequence[Record]) -> Frame:
        columns: dict[str, Any] = {
            name: [getattr(record, name) for record in records] for name in INT_COLUMNS + TEXT_COLUMNS
        }
        sizes = [len(record.chunk_ns) for record in records]
        offsets = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        stamps = np.fromiter(chain.from_iterable(r.chunk_ns for r in records), np.int64, offsets[-1])
        tokens = np.fromiter(
            chain.from_iterable(_known(r.chunk_tokens, len(r.chunk_ns)) for r in records),
            np.int32,
            offsets[-1],
        )
        return cls.from_columns(columns, (stamps, offsets), (tokens, offsets))

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Any], chunk_ns: Ragged = ((), (0,)), chunk_tokens: Ragged | None = None
    ) -> Frame:
        """Columns as lists (None: missing) or arrays (nan or masked: missing), by `Record` name or the file's `class`.

        Columns that are absent are missing throughout; `intended_ns` must be there. Raises ValueError when lengths
        differ. `chunk_ns` and `chunk_tokens` are (values, offsets) with one row each; no chunk_tokens: all unknown.
        """
        if "intended_ns" not in columns:
            raise ValueError("a frame needs the column intended_ns")
        size = len(columns["intended_ns"])
        named = {("class_" if name == "class" else name): values for name, values in columns.items()}
        for name, values in named.items():
            if len(values) != size:
                raise ValueError(f"column {name} has {len(values)} rows, intended_ns has {size}")
        built: dict[str, npt.NDArray[Any]] = {}
        for name in INT_COLUMNS:
            built[name] = _ints(named[name]) if name in named else np.full(size, _DEFAULTS.get(name, MISSING))
        for name in TEXT_COLUMNS:
            built[name] = _texts(named.get(name, [_DEFAULTS.get(name)] * size))
        stamps, offsets = _ragged(chunk_ns, size)
        if chunk_tokens is None:
            tokens = np.full(len(stamps), MISSING)
        else:
            tokens, token_offsets = _ragged(chunk_tokens, size)
            if not np.array_equal(offsets, token_offsets):
                raise ValueError("chunk_ns and chunk_tokens do not have the same lengths row by row")
        small = np.where(tokens < 0, UNKNOWN, tokens).astype(np.int32)
        return cls(built, stamps, small, offsets)._in_order()

    def __len__(self) -> int:
        return len(self.columns["intended_ns"])

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    def floats(self, name: str) -> Floats:
        """An int column as float64, nan where missing."""
        values = self.columns[name]
        return np.where(values == MISSING, np.nan, values.astype(np.float64))

    def ms_between(self, earlier: str, later: str) -> Floats:
        """later - earlier in ms, exact in ns before the division; nan where either is missing."""
        first, last = self.columns[earlier], self.columns[later]
        known = (first != MISSING) & (last != MISSING)
        return np.where(known, np.where(known, last - first, 0) / MS, np.nan)

    @cached_property
    def measured(self) -> Mask:
        return np.asarray(self.columns["phase"] == "measured", dtype=np.bool_)

    @cached_property
    def ok(self) -> Mask:
        return np.asarray(self.columns["error"] == None, dtype=np.bool_)  # noqa: E711 (elementwise)

    @cached_property
    def gave_up(self) -> Mask:
        """Whose client hung up, as the workload asks: no answer, and no failure of the server's."""
        return np.asarray(self.columns["error"] == "gave_up", dtype=np.bool_)

    @cached_property
    def failed(self) -> Mask:
        return ~self.ok & ~self.gave_up

    @cached_property
    def counts(self) -> Ints:
        """Chunks of each row."""
        return np.diff(self.offsets)

    @cached_property
    def chunk_rows(self) -> npt.NDArray[np.int32]:
        """The row of each chunk."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.counts)

    def take(self, rows: npt.NDArray[Any]) -> Frame:
        """The rows of a mask or of indices, in the order given."""
        indices = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        counts = self.counts[indices]
        offsets = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        # Position of each taken chunk: its place inside its row plus where that row starts.
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[indices] - offsets[:-1], counts)
        columns = {name: values[indices] for name, values in self.columns.items()}
        return Frame(columns, self.chunk_ns[places], self.chunk_tokens[places], offsets)

    def steady_window(self, warmup_end_ns: int | None = None) -> Window:
        """From the end of warm-up (default: the first measured arrival) to the last intended arrival measured."""
        intended = self.columns["intended_ns"][self.measured]
        if not len(intended):
            start = warmup_end_ns or 0
            return Window(start, start)
        start = int(intended[0]) if warmup_end_ns is None else warmup_end_ns
        return Window(start, max(start, int(intended[-1])))

    def whole_window(self) -> Window:
        """From the first intended arrival of any phase to the last stamp of any request, that stamp included."""
        if not len(self):
            return Window(0, 0)
        stamps = ("intended_ns", "sent_ns", "last_token_ns", "done_ns")
        return Window(int(self.columns["intended_ns"][0]), max(int(self.columns[name].max()) for name in stamps) + 1)

    def _in_order(self) -> Frame:
        intended = self.columns["intended_ns"]
        if len(intended) and intended.min() == MISSING:
            raise ValueError("intended_ns is missing in some row; every request has one")
        if np.all(intended[1:] >= intended[:-1]):
            return self
        return self.take(np.argsort(intended, kind="stable"))


def _known(tokens: Sequence[int | None], size: int) -> Iterable[int]:
    if len(tokens) != size:
        return [UNKNOWN] * size
    if None in tokens:
        return [UNKNOWN if count is None else count for count in tokens]
    return tokens  # type: ignore[return-value]


def _ints(values: Any) -> Ints:
    if isinstance(values, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(values), MISSING, values.data.astype(np.int64))
    if isinstance(values, np.ndarray) and values.dtype.kind in "iub":
        return values.astype(np.int64)
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        known = ~np.isnan(values)
        return np.where(known, np.where(known, values, 0).astype(np.int64), MISSING)
    convert: Callable[[Any], int] = lambda v: MISSING if v is None or v != v else int(v)  # noqa: E731
    return np.fromiter(map(convert, values), np.int64, len(values))


def _texts(values: Any) -> Texts:
    column = np.empty(len(values), dtype=np.object_)
    column[:] = list(values)
    return column


def _ragged(ragged: Ragged, size: int) -> tuple[Ints, Ints]:
    offsets = _ints(ragged[1])
    if len(offsets) == 1 and size:
        offsets = np.full(size + 1, offsets[0])
    if len(offsets) != size + 1:
        raise ValueError(f"{len(offsets)} offsets for {size} rows; there must be one more than rows")
    values = _ints(ragged[0])[int(offsets[0]) : int(offsets[-1])]
    return values, offsets - offsets[0]
