"""Columns of whole numbers from a CSV file, row by row, so that a large file takes little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from servemark.harness.errors import BadInput
from servemark.harness.plan.bad_rows import BadRows
from servemark.harness.plan.data_files import csv_rows, digest_of, header_of, opened
from servemark.harness.plan.strict import MOST


@dataclass(slots=True)
class Columns:
    """The asked columns, of the rows that hold a length in each of them."""

    path: Path
    values: tuple[array[int], ...]
    digest: str = ""
    bad: BadRows = field(default_factory=BadRows)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self.bad.note(len(self.values[0]) + self.bad.count, f" of {self.path.name}"))


def read_columns(path: Path, names: Sequence[str]) -> Columns:
    """The columns of these names, or without names the only one there is. Raises BadInput with file and line."""
    found = Columns(path, tuple(array("I") for _ in names or ("",)))
    do = "set `path` of the lengths in the workload file"
    with opened(path, "lengths", do) as file, closing(csv_rows(file, found.bad)) as rows:
        _read(found, names, rows)
    if not found.values[0]:
        first = f" ({found.bad.first[0]})" if found.bad.count else ""
        raise BadInput(f"{path}: no row holds a length{first}; see that it is the right file and column")
    found.digest = digest_of(path)
    return found


def _read(found: Columns, names: Sequence[str], rows: Iterator[tuple[int, list[str]]]) -> None:
    first = header_of(found.path, rows)
    if not first:
        return
    headed, places = _places(found.path, names, first)
    if not headed:
        _take(found, names, places, first, 1)
    for line, cells in rows:
        _take(found, names, places, cells, line)


def _places(path: Path, names: Sequence[str], first: list[str]) -> tuple[bool, list[int]]:
    """Whether the first row names the columns, and where the asked ones are. Raises BadInput."""
    if names:
        missing = [name for name in names if name not in first]
        if missing:
            raise BadInput(f"{path}:1: there is no column {missing[0]!r}; there are: {', '.join(first)[:200]}")
        return True, [first.index(name) for name in names]
    if len(first) != 1:
        raise BadInput(f"{path}:1: there are {len(first)} columns ({', '.join(first)[:200]}); name one with `column`")
    return _whole(first[0]) is None, [0]


def _take(found: Columns, names: Sequence[str], places: Sequence[int], cells: Sequence[str], line: int) -> None:
    numbers = []
    for at, place in enumerate(places):
        cell = cells[place].strip() if place < len(cells) else ""
        number = _whole(cell)
        if number is None or not 1 <= number <= MOST:
            of = f" as {names[at]}" if names else ""
            found.bad.add(f"line {line}", f"has {cell[:40]!r}{of}")
            return
        numbers.append(number)
    for column, number in zip(found.values, numbers, strict=True):
        column.append(number)


def _whole(cell: str) -> int | None:
    """A whole number, `512.0` included; None for anything else."""
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        number = float(cell)
    except ValueError:
        return None
    return int(number) if number.is_integer() and abs(number) <= MOST else None
