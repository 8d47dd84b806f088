"""The rows of a data file. Only where each begins and ends is kept; a row is read when it is asked for.

A file is JSON Lines, one JSON array, or plain text. A gzipped one is read in a copy that goes when the run does.
"""

from __future__ import annotations

import mmap
import os
import re
import weakref
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from servemark.harness.errors import BadInput
from servemark.harness.plan.data_files import BOM, digest_of, on_disk

Unit = Literal["line", "paragraph", "file"]

_BETWEEN = re.compile(rb"[\s,]*")


class Rows:
    """The rows of one open file, by number. `word` is what one is called: the line of a file, or a row of an array."""

    def __init__(self, path: Path, file: IO[bytes], digest: str) -> None:
        self.path = path
        self.digest = digest
        """SHA-256 of the file as it is on disk."""
        self.word = "line"
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._starts, self._sizes, self._numbers = array("Q"), array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, row: int) -> bytes:
        return os.pread(self._descriptor, self._sizes[row], self._starts[row])

    def place(self, row: int) -> str:
        """What a sentence calls the row."""
        return f"{self.word} {self._numbers[row]}"

    def add(self, start: int, size: int, number: int) -> None:
        self._starts.append(start)
        self._sizes.append(size)
        self._numbers.append(number)

    def keep(self, rows: Iterable[int]) -> None:
        """Forgets all others; `rows` are in order."""
        kept = array("Q", rows)
        for name in ("_starts", "_sizes", "_numbers"):
            column = getattr(self, name)
            setattr(self, name, array("Q", map(column.__getitem__, kept)))

    def object(self, row: int) -> dict[str, Any]:
        """The row as a JSON object. Raises ValueError, whose text says what it is instead."""
        try:
            found = msgspec.json.decode(self[row])
        except (ValueError, RecursionError):
            raise ValueError("is no JSON") from None
        if not isinstance(found, dict):
            raise ValueError("is no JSON object")
        return found

    def is_text(self, row: int) -> bool:
        try:
            return self[row].decode("utf-8").strip().isprintable()
        except UnicodeDecodeError:
            return False

    def text(self, row: int) -> str:
        """Raises BadInput where it is none."""
        try:
            return self[row].decode("utf-8").replace("\r\n", "\n").strip("\n")
        except UnicodeDecodeError:
            raise BadInput(f"{self.path}: {self.place(row)} is no UTF-8 text; convert the file") from None


def open_json(path: Path, where: str) -> Rows:
    """The rows of JSON Lines or of a JSON array. `where` ends the sentence for a file that is not there."""
    with on_disk(path, "data", where) as file:
        rows = Rows(path, file, digest_of(path))
        if _first(file) == b"[":
            _add_elements(rows, file)
        else:
            _add_lines(rows, file)
        return rows


def open_text(path: Path, unit: Unit, where: str) -> Rows:
    """The units of a text that hold more than white space."""
    with on_disk(path, "data", where) as file:
        rows = Rows(path, file, digest_of(path))
        if unit == "file":
            rows.add(_start(file), os.fstat(file.fileno()).st_size, 1)
        else:
            _add_lines(rows, file, paragraphs=unit == "paragraph")
        return rows


def _start(file: IO[bytes]) -> int:
    """Where the text begins, behind a byte order mark."""
    file.seek(0)
    return len(BOM) if file.read(len(BOM)) == BOM else 0


def _first(file: IO[bytes]) -> bytes:
    """The first byte that is no white space, if it is within a page."""
    file.seek(_start(file))
    return file.read(4096).lstrip()[:1]


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Where each line begins, and the line."""
    at = _start(file)
    file.seek(at)
    for line in file:
        yield at, line
        at += len(line)


def _add_lines(rows: Rows, file: IO[bytes], paragraphs: bool = False) -> None:
    """Each line that is not blank; or each run of such lines."""
    start = end = begun = 0
    for number, (at, line) in enumerate(_lines(file), 1):
        blank = not line.strip()
        if begun and (blank or not paragraphs):
            rows.add(start, end - start, begun)
            begun = 0
        if not blank and not begun:
            start, begun = at, number
        end = at + len(line)
    if begun:
        rows.add(start, end - start, begun)


def _add_elements(rows: Rows, file: IO[bytes]) -> None:
    """Each element of a JSON array, found by a parser that copies nothing."""
    rows.word = "row"
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        at = mapped.find(b"[") + 1
        for number, size in enumerate(_sizes(rows.path, mapped), 1):
            between = _BETWEEN.match(mapped, at)
            at = between.end() if between else at
            rows.add(at, size, number)
            at += size


def _sizes(path: Path, mapped: mmap.mmap) -> list[int]:
    with memoryview(mapped) as whole, whole[mapped.find(b"[") :] as view:
        try:
            return [memoryview(raw).nbytes for raw in msgspec.json.decode(view, type=list[msgspec.Raw])]
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}: this is no JSON array ({error}); fetch the file again, or repair it") from None
