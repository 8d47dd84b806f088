"""Input and output together: lengths that were seen side by side stay side by side."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, TypeAdapter, ValidationError, model_validator

from servemark.harness.plan.lengths.base import FromData, Lengths
from servemark.harness.plan.lengths.columns import Columns, read_columns
from servemark.harness.plan.lengths.field import LengthsField
from servemark.harness.plan.lengths.shorthand import BOTH_PATTERN, spell_out_both
from servemark.harness.plan.lengths.weighted import Some, Weight, Weights
from servemark.harness.plan.strict import Count, Strict

_FIELD: TypeAdapter[Lengths] = TypeAdapter(LengthsField)


@dataclass(frozen=True, slots=True)
class Both:
    """Lengths of prompt and answer. `joined`: both are of one row, and so drawn by the same uniform number."""

    input: Lengths
    output: Lengths
    joined: bool
    most_tokens: int | None

    def draw(self, u_input: float, u_output: float) -> tuple[int, int]:
        return self.input.draw(u_input), self.output.draw(u_input if self.joined else u_output)


def drawn_apart(input_tokens: Lengths, output_tokens: Lengths) -> Both:
    """Lengths that do not depend on each other."""
    longest = (input_tokens.most, output_tokens.most)
    return Both(input_tokens, output_tokens, False, None if None in longest else sum(filter(None, longest)))


def both_of_text(text: str) -> tuple[Lengths, Lengths]:
    """Input and output of `D(100,1000)` or `N(480,240)/(300,150)`. Raises ValueError with one sentence."""
    first, second = spell_out_both(text)
    try:
        return _FIELD.validate_python(first), _FIELD.validate_python(second)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        said = str(detail.get("ctx", {}).get("error") or detail["msg"].removeprefix("Input ")).replace("should", "must")
        place = ".".join(map(str, detail["loc"]))
        raise ValueError(f"{text!r}: {place + ' ' if place else ''}{said}") from None


class PairColumns(Strict):
    """The columns of a file of pairs."""

    input: str = Field(description="the column of prompt lengths")
    output: str = Field(description="the column of answer lengths")


def _with_weight(value: Any) -> Any:
    """[input, output] counts once."""
    if isinstance(value, list | tuple):
        if len(value) not in (2, 3):
            raise ValueError(f"{list(value)!r} is no pair; write [input, output] or [input, output, weight]")
        return (*value, 1.0) if len(value) == 2 else tuple(value)
    return value


Pair = Annotated[
    tuple[Count, Count, Weight],
    BeforeValidator(_with_weight, json_schema_input_type=tuple[Count, Count] | tuple[Count, Count, Weight]),
]


class Pairs(FromData):
    """Each draw takes both lengths from one row."""

    path: str | None = Field(
        default=None, description="a CSV file; a relative path starts at the workload file's folder"
    )
    columns: PairColumns | None = Field(default=None, description="the file's columns: {input, output}")
    pairs: Annotated[tuple[Pair, ...], *Some] | None = Field(
        default=None, description="in place of a file: a list of [input, output] or [input, output, weight]"
    )
    max_input_tokens: Count | None = Field(default=None, description="longer inputs become this")
    max_output_tokens: Count | None = Field(default=None, description="longer outputs become this")
    _columns: Columns | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_origin(self) -> Pairs:
        if (self.path is None) == (self.pairs is None):
            raise ValueError("pairs of lengths take a path with columns, or pairs; give one of the two")
        if (self.path is None) != (self.columns is None):
            raise ValueError("path and columns go together; write `columns: {input: NAME, output: NAME}`")
        return self

    def ready(self, folder: Path) -> Self:
        if self.path is None or self.columns is None:
            return self
        copy = self.model_copy()
        names = (self.columns.input, self.columns.output)
        copy._columns = read_columns(folder / Path(self.path).expanduser(), names)
        return copy

    def both(self) -> Both:
        inputs, outputs, weights = self._rows()
        most_in, most_out = self.max_input_tokens, self.max_output_tokens
        longest = max(_up_to(i, most_in) + _up_to(o, most_out) for i, o in zip(inputs, outputs, strict=True))
        return Both(Side.of(inputs, weights, most_in), Side.of(outputs, weights, most_out), True, longest)

    def _rows(self) -> tuple[array[int], array[int], Weights | None]:
        if self.pairs is not None:
            first = array("I", (each for each, _, _ in self.pairs))
            second = array("I", (each for _, each, _ in self.pairs))
            return first, second, Weights(weight for _, _, weight in self.pairs)
        assert self._columns is not None, "its data was not read: make it ready first"
        inputs, outputs = self._columns.values
        return inputs, outputs, None

    @property
    def digest(self) -> str | None:
        return self._columns.digest if self._columns else None

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self._columns.notes, *self._clipped(self._columns)) if self._columns else ()

    def _clipped(self, columns: Columns) -> Iterator[str]:
        limits = (("input", self.max_input_tokens), ("output", self.max_output_tokens))
        for (name, most), values in zip(limits, columns.values, strict=True):
            over = sum(value > most for value in values) if most is not None else 0
            if over:
                yield f"{over} of {len(values)} {name} lengths are above {most} and become it"


class Side(Lengths):
    """One side of the pairs: the same `u` chooses the same row on both."""

    distribution: Literal["pairs"] = "pairs"
    _values: array[int] = PrivateAttr()
    _weights: Weights | None = PrivateAttr()
    _limit: int | None = PrivateAttr()

    @classmethod
    def of(cls, values: array[int], weights: Weights | None, limit: int | None) -> Side:
        side = cls()
        side._values, side._weights, side._limit = values, weights, limit
        return side

    def draw(self, u: float) -> int:
        row = int(u * len(self._values)) if self._weights is None else self._weights.choose(u)
        return _up_to(self._values[min(row, len(self._values) - 1)], self._limit)

    @property
    def least(self) -> int:
        return _up_to(min(self._values), self._limit)

    @property
    def most(self) -> int:
        return _up_to(max(self._values), self._limit)


def _up_to(length: int, limit: int | None) -> int:
    return length if limit is None else min(length, limit)


def _spell_out_pairs(value: Any) -> Any:
    """A list is one of pairs."""
    return {"pairs": value} if isinstance(value, list | tuple) else value


_Written = Pairs | list[Pair] | Annotated[str, Field(pattern=BOTH_PATTERN)]

PairsField = Annotated[Pairs, BeforeValidator(_spell_out_pairs, json_schema_input_type=_Written)]
"""A field that holds pairs of lengths: a mapping, or the list of them. Whoever has it reads `both_of_text` before."""
