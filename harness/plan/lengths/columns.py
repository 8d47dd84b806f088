"""Columns of whole numbers from a CSV file, row by row, so that a large file takes little memory."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from servemark.harness.errors import BadInput
from servemark.harness.plan.strict import MOST

_NAMED = 3
"""Bad rows that a note names; the others are counted."""


@dataclass(slots=True)
class Columns:
    """The asked columns, of the rows that hold a length in each of them."""

    path: Path
    values: tuple[array[int], ...]
    digest: str = ""
    rows: int = 0
    bad: int = 0
    named: list[str] = field(default_factory=list)

    def refuse(self, line: int, why: str) -> None:
        self.bad += 1
        if len(self.named) < _NAMED:
            self.named.append(f"line {line} {why}")

    @property
    def notes(self) -> tuple[str, ...]:
        if not self.bad:
            return ()
        others = f" and {self.bad - len(self.named)} others" if self.bad > len(self.named) else ""
        return (f"{self.bad} of {self.rows} rows of {self.path.name} left out: {', '.join(self.named)}{others}",)


def read_columns(path: Path, names: Sequence[str]) -> Columns:
    """The columns of these names, or without names the only one there is. Raises BadInput with file and line."""
    found = Columns(path, tuple(array("I") for _ in names or ("",)))
    digest = sha256()
    try:
        with path.open("rb") as file:
            _read(found, names, csv.reader(_lines(path, file, digest)))
    except OSError as error:
        raise BadInput(
            f"{path}: the lengths cannot be read ({error.strerror}); set the path in the workload"
        ) from error
    if not found.values[0]:
        first = f" ({found.named[0]})" if found.named else ""
        raise BadInput(f"{path}: no row holds a length{first}; see that it is the right file and column")
    found.digest = digest.hexdigest()
    return found


def _lines(path: Path, file: BinaryIO, digest: Any) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        digest.update(line)
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise BadInput(f"{path}:{number}: this is no text; give the lengths as an unpacked CSV") from None


def _read(found: Columns, names: Sequence[str], rows: Any) -> None:
    """`rows` is a reader of the csv module, which knows its line."""
    try:
        first = [cell.strip() for cell in next(rows, [])]
        headed, places = _places(found.path, names, first)
        if not headed:
            _take(found, names, places, first, rows.line_num)
        for cells in rows:
            if cells:
                _take(found, names, places, cells, rows.line_num)
    except csv.Error as error:
        raise BadInput(f"{found.path}:{rows.line_num}: this is no CSV ({error}); repair the file") from None


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
    found.rows += 1
    numbers = []
    for at, place in enumerate(places):
        cell = cells[place].strip() if place < len(cells) else ""
        number = _whole(cell)
        if number is None or not 1 <= number <= MOST:
            of = f" as {names[at]}" if names else ""
            found.refuse(line, f"has {cell[:40]!r}{of}")
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
