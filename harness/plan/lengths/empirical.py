"""Lengths as they were seen: a list, a histogram, or a column of a CSV file."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from servemark.harness.plan.lengths.base import LENGTHS, Clipped
from servemark.harness.plan.lengths.columns import Columns, read_columns
from servemark.harness.plan.lengths.weighted import Some, Weight, Weights
from servemark.harness.plan.strict import MOST, Count

_BIN = re.compile(r"\s*(\d{1,10})\s*(?:-\s*(\d{1,10})\s*)?")


class Bin(NamedTuple):
    """Every whole number from `low` to `high`, both included, equally often."""

    low: int
    high: int
    weight: float


@LENGTHS.register("empirical")
class Empirical(Clipped):
    """Draws from lengths that were seen, each as often as it was."""

    distribution: Literal["empirical"] = "empirical"
    values: Annotated[tuple[Count, ...], *Some] | None = Field(
        default=None, description="lengths that were seen, each as often as it was"
    )
    histogram: Annotated[dict[str | int, Weight], Field(json_schema_extra={"minProperties": 1})] | None = Field(
        default=None,
        description="length: weight; or a bin with both its ends, as 101-200: 5, inside which all are alike",
    )
    path: str | None = Field(
        default=None, description="a CSV file of lengths; a relative path starts at the workload file's folder"
    )
    column: str | None = Field(default=None, description="the file's column; not needed where it has one only")
    _columns: Columns | None = PrivateAttr(default=None)

    @field_validator("histogram")
    @classmethod
    def _read_bins(cls, histogram: dict[str | int, float] | None) -> dict[str | int, float] | None:
        if histogram is not None and not histogram:
            raise ValueError("the histogram is empty; write lengths and their weights, as 101-200: 5")
        for key in histogram or ():
            bin_of(key, 1.0)
        return histogram

    @model_validator(mode="after")
    def _one_origin(self) -> Empirical:
        given = [name for name in ("values", "histogram", "path") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "empirical lengths take exactly one of values, histogram, path, and here are "
                f"{', '.join(given) or 'none'}; keep one"
            )
        if self.column is not None and self.path is None:
            raise ValueError("column is one of a file; give its path, or remove it")
        return self

    def ready(self, folder: Path) -> Self:
        if self.path is None:
            return self
        copy = self.model_copy()
        names = () if self.column is None else (self.column,)
        copy._columns = read_columns(folder / Path(self.path).expanduser(), names)
        return copy

    def draw(self, u: float) -> int:
        part = self._weights.choose(u)
        low, high, _ = self._bins[part]
        if low == high:
            return self._clip(low)
        return self._clip(low + min(int(self._weights.inside(part, u) * (high - low + 1)), high - low))

    @cached_property
    def _bins(self) -> list[Bin]:
        return sorted(self._seen())

    @cached_property
    def _weights(self) -> Weights:
        return Weights(each.weight for each in self._bins)

    def _seen(self) -> Iterator[Bin]:
        if self.histogram is not None:
            return (bin_of(key, weight) for key, weight in self.histogram.items())
        lengths: tuple[int, ...] | array[int] | None = self.values
        if self.path is not None:
            assert self._columns is not None, "its data was not read: make it ready first"
            lengths = self._columns.values[0]
        return (Bin(length, length, times) for length, times in Counter(lengths).items())

    @property
    def least(self) -> int:
        return self._clip(min(each.low for each in self._bins))

    @property
    def most(self) -> int | None:
        return self._clip(max(each.high for each in self._bins))

    @property
    def digest(self) -> str | None:
        return self._columns.digest if self._columns else None

    @property
    def notes(self) -> tuple[str, ...]:
        if self._columns is None:
            return ()
        rows = sum(int(each.weight) for each in self._bins)
        limits = (
            ("below", self.min, sum(int(each.weight) for each in self._bins if each.low < self.min)),
            ("above", self.max, sum(int(each.weight) for each in self._bins if self.max and each.low > self.max)),
        )
        said = (f"{count} of {rows} lengths are {side} {limit} and become it" for side, limit, count in limits if count)
        return (*self._columns.notes, *said)


def bin_of(key: str | int, weight: float) -> Bin:
    """`512` or `101-200`. Raises ValueError."""
    match = _BIN.fullmatch(str(key))
    if match is None:
        raise ValueError(f"{key!r} is no length; write a whole number such as 512, or a bin such as 101-200")
    low, high = int(match[1]), int(match[2] or match[1])
    if not 1 <= low <= high <= MOST:
        raise ValueError(f"{key!r} is no bin of lengths; write its ends in order, from 1 on, as 101-200")
    return Bin(low, high, weight)
