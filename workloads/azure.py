"""Replay of the Azure LLM inference traces: recorded times and lengths, synthetic prompts.

The files (Azure Public Dataset, CC-BY; Patel et al., Splitwise, ISCA 2024) have the columns TIMESTAMP, ContextTokens
and GeneratedTokens, and no prompts.
"""

from __future__ import annotations

import csv
import random
import re
from bisect import bisect_left
from calendar import timegm
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from servemark.harness.errors import BadInput
from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptMaker, PromptSource
from servemark.harness.plan.strict import Count, Duration, PositiveDuration, Strict
from servemark.harness.types import Request


class Slice(Strict):
    """Which part of the trace is replayed; in the trace's own time, before any scaling."""

    start: Duration = Field(default=0, description="begin so long after the trace's first row")
    duration: PositiveDuration | None = Field(default=None, description="end so long after that; else at its end")
    rows: Count | None = Field(default=None, description="at most so many rows")


@SOURCES.register("azure")
class Azure(PromptSource):
    """Lengths and times of an Azure trace file."""

    finite = True
    timed = True

    source: Literal["azure"] = "azure"
    path: str = Field(description="the CSV file; a relative path starts at the workload file's folder")
    slice: Slice = Slice()
    max_input_tokens: Count | None = Field(default=None, description="the longest input that the server can carry")
    max_output_tokens: Count | None = Field(default=None, description="the longest output that is wanted")
    over_limit: Literal["clip", "drop"] = Field(
        default="clip", description="what happens to rows above a limit: they are shortened to it, or left out"
    )
    shuffle: bool = Field(
        default=False, description="deal the lengths out in another order (seed `order`); the times stay"
    )

    def prepare(self, given: Given) -> Prepared:
        return _Prepared(self, given)


class Row(NamedTuple):
    at_ns: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class _Fitted:
    rows: list[Row]
    notes: tuple[str, ...]


class _Prepared(Prepared):
    def __init__(self, params: Azure, given: Given) -> None:
        # Joining an absolute path gives that path.
        path = given.folder / Path(params.path).expanduser()
        rows, digest = read_trace(path)
        self.data_digest: str | None = digest
        rows, start_ns = cut(rows, params.slice)
        fitted = _fit(rows, params)
        if not fitted.rows:
            raise BadInput(f"{path}: no row is left of the trace; widen prompts.slice or the limits on lengths")
        self.notes = fitted.notes
        self.size: int | None = len(fitted.rows)
        self._offsets = [row.at_ns - start_ns for row in fitted.rows]
        self._lengths = [(row.input_tokens, row.output_tokens) for row in fitted.rows]
        if params.shuffle:
            random.Random(given.seeds.order).shuffle(self._lengths)  # noqa: S311 (no secret)
        self.most_tokens: int | None = max(map(sum, self._lengths))
        self._maker = PromptMaker(given, params.tokens)
        self._maker.check_least("prompts.max_input_tokens", params.max_input_tokens)

    def lengths(self, index: int) -> tuple[int, int]:
        return self._lengths[index]

    def request(self, index: int) -> Request:
        return self._maker.request(index, index, *self._lengths[index])

    def offset_ns(self, index: int) -> int:
        return self._offsets[index]


_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?$")
_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def timestamp_ns(text: str) -> int:
    """Unix nanoseconds of `2023-11-16 18:17:03.9799600`, which datetime would cut to microseconds."""
    match = _TIME.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no timestamp such as 2023-11-16 18:17:03.9799600")
    *parts, fraction = match.groups()
    year, month, day, hour, minute, second = map(int, parts)
    seconds = timegm((year, month, day, hour, minute, second))
    return seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def read_trace(path: Path) -> tuple[list[Row], str]:
    """The rows in the order of their times, and the file's SHA-256. Raises BadInput with file and line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{path}: the trace cannot be read ({error.strerror}); set prompts.path in the workload file, or --data"
        ) from error
    try:
        rows = list(_rows(path, data.decode("utf-8-sig")))
    except UnicodeDecodeError:
        raise BadInput(f"{path}: this is no text file; give the trace as an unpacked CSV") from None
    rows.sort(key=lambda row: row.at_ns)
    return rows, sha256(data).hexdigest()


def _rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(StringIO(text, newline=""))
    header = next(reader, [])
    try:
        at, context, generated = (header.index(name) for name in _COLUMNS)
    except ValueError:
        raise BadInput(f"{path}:1: the columns {', '.join(_COLUMNS)} are needed; found {header}") from None
    for cells in reader:
        if not cells:
            continue
        try:
            yield Row(timestamp_ns(cells[at]), int(cells[context]), int(cells[generated]))
        except (ValueError, IndexError) as error:
            raise BadInput(f"{path}:{reader.line_num}: {error}; repair or remove the row {cells}") from None


def cut(rows: list[Row], part: Slice) -> tuple[list[Row], int]:
    """The rows of a slice, and the time at which it starts."""
    if not rows:
        return [], 0
    start_ns = rows[0].at_ns + part.start
    first = bisect_left(rows, start_ns, key=lambda row: row.at_ns)
    last = len(rows)
    if part.duration is not None:
        last = bisect_left(rows, start_ns + part.duration, key=lambda row: row.at_ns)
    return rows[first:last][: part.rows], start_ns


def _fit(rows: list[Row], params: Azure) -> _Fitted:
    """Rows within the limits; what had to be changed is said in `notes`."""
    most_in, most_out = params.max_input_tokens, params.max_output_tokens
    fitted, over_in, over_out = [], 0, 0
    for at_ns, input_tokens, output_tokens in rows:
        long_in = most_in is not None and input_tokens > most_in
        long_out = most_out is not None and output_tokens > most_out
        over_in += long_in
        over_out += long_out
        if params.over_limit == "drop" and (long_in or long_out):
            continue
        fitted.append(
            Row(
                at_ns,
                max(1, min(input_tokens, most_in or input_tokens)),
                max(1, min(output_tokens, most_out or output_tokens)),
            )
        )
    done = "shortened" if params.over_limit == "clip" else "left out"
    limits = (("input", over_in, most_in), ("output", over_out, most_out))
    notes = [f"{over} of {len(rows)} rows {done}: {name} above {most} tokens" for name, over, most in limits if over]
    return _Fitted(fitted, tuple(notes))
