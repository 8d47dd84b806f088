"""What `--over NAME=VALUES` stands for: lists, ranges in steps, and ranges by a factor.

1,2,4           these values, each as the workload file writes it; commas in brackets and quotes part nothing
1..8            from 1 to 8 in steps of 1
10s..60s+10s    in steps of 10s
1..64x2         each twice the last one
1..4,8..64x2    one after the other
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from itertools import product
from math import prod
from typing import Any

from servemark.harness.errors import BadInput
from servemark.harness.matrix.cells import MOST_CELLS
from servemark.harness.plan.overrides import FLAGS, SET
from servemark.harness.plan.places import parse_path
from servemark.harness.plan.yaml_lines import read_value

FLAG = "--over"
MOST_VALUES = 1_000
_NOT_SWEPT = {"headers", "extra_body", "gate", "slo", SET}
_NUMBER, _UNIT = r"(\d+(?:\.\d+)?)", r"(ns|us|ms|s|min|m|h)?"
_RANGE = re.compile(rf"{_NUMBER}{_UNIT}\.\.{_NUMBER}{_UNIT}(?:\+{_NUMBER}{_UNIT}|x{_NUMBER})?")
_LIKE_A_RANGE = re.compile(r"[+-]?\.?\d[\w.]*\.\..*")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Over:
    """`name` is a flag with underscores, or, with `placed`, the dotted path of a field."""

    name: str
    values: tuple[Any, ...]
    placed: bool = False

    def flags(self, value: Any) -> dict[str, Any]:
        return {SET: {self.name: value}} if self.placed else {self.name: value}


def parse_over(text: str, spellings: Mapping[str, str]) -> Over:
    """`spellings` are what the command calls its flags: `max-concurrency` -> `concurrency`. Raises BadInput."""
    written, equals, values = text.partition("=")
    name = written.strip()
    if not equals or not name:
        raise BadInput(f"{FLAG} {text}: needs a name and its values, as {FLAG} rate=1,2,4 or {FLAG} rate=1..64x2")
    placed = "." in name or "[" in name
    try:
        if placed:
            parse_path(name)
        return Over(name if placed else _flag(name, spellings), tuple(spread(values)), placed)
    except ValueError as error:
        raise BadInput(f"{FLAG} {name}: {error}") from None


def _flag(written: str, spellings: Mapping[str, str]) -> str:
    name = written.removeprefix("--")
    name = spellings.get(name, name).replace("-", "_")
    known = [each for each in FLAGS if each not in _NOT_SWEPT]
    if name not in known:
        close = get_close_matches(name, known, 1)
        guess = f"did you mean {close[0]}? " if close else ""
        raise ValueError(
            f"there is no such flag to sweep over; {guess}there are: {', '.join(known)}; a field of the workload file "
            "is named by its path, as load.max_concurrency"
        )
    return name


def spread(text: str) -> Iterator[Any]:
    """The values, in the order in which they stand there. Raises ValueError."""
    seen: set[str] = set()
    for item in _items(text):
        for word in _words(item):
            value = read_value(word)
            key = repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)
            if key in seen:
                raise ValueError(f"{word} stands there twice; keep one of them")
            seen.add(key)
            if len(seen) > MOST_VALUES:
                raise ValueError(f"these are more than {MOST_VALUES:,} values; take larger steps")
            yield value


def _items(text: str) -> Iterator[str]:
    """Parted at the commas that stand in no brackets and no quotes."""
    start, closing, quote = 0, "", ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and not text[start:place].strip(" ([{,:"):
            quote = letter
        elif letter in _CLOSING:
            closing = _CLOSING[letter] + closing
        elif closing and letter == closing[0]:
            closing = closing[1:]
        elif letter == "," and not closing:
            yield _some(text[start:place])
            start = place + 1
    if closing or quote:
        raise ValueError(f"{text!r} lacks a {(quote or closing[0])!r}")
    yield _some(text[start:])


def _some(item: str) -> str:
    if not item.strip():
        raise ValueError("between two commas there is no value; give values as 1,2,4 or 1..64x2")
    return item.strip()


def _words(item: str) -> Iterator[str]:
    found = _RANGE.fullmatch(item)
    if found is None:
        if _LIKE_A_RANGE.fullmatch(item):
            raise ValueError(f"{item!r} is no range; write 1..8, 1..8+2 in steps of 2, or 1..64x2 by a factor of 2")
        yield item
        return
    first, unit, last, same, step, step_unit, factor = found.groups()
    if unit != same or step_unit not in (None, unit):
        raise ValueError(f"{item!r} has several units; write its ends and its step in one")
    start, end = Decimal(first), Decimal(last)
    if start > end:
        raise ValueError(f"{item!r} leads downwards; write the lower end first")
    how_far = Decimal(step or "1") if factor is None else Decimal(factor)
    if (factor is None and how_far <= 0) or (factor is not None and (how_far <= 1 or start <= 0)):
        raise ValueError(f"{item!r} never comes to its end; give a step above 0, or a factor above 1 from above 0 on")
    while start <= end:
        yield f"{_short(start):f}{unit or ''}"
        start = start + how_far if factor is None else start * how_far


def _short(value: Decimal) -> Decimal:
    """Steps are exact, and so are whole numbers; others that a factor gives have six digits."""
    whole = value == value.to_integral_value()
    return (value if whole else Decimal(f"{value:.6g}")).normalize()


def combined(overs: list[Over]) -> list[dict[str, Any]]:
    """A load for each combination, the last name's values going through first. Raises BadInput."""
    names = [over.name for over in overs]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{FLAG} {name}: is given twice; give all of its values in one")
    if prod(len(over.values) for over in overs) > MOST_CELLS:
        raise BadInput(f"{FLAG}: these are more than {MOST_CELLS:,} combinations; list fewer values")
    found = []
    for chosen in product(*(over.values for over in overs)):
        load: dict[str, Any] = {}
        for over, value in zip(overs, chosen, strict=True):
            for flag, each in over.flags(value).items():
                load[flag] = {**load[flag], **each} if flag == SET and SET in load else each
        found.append(load)
    return found
