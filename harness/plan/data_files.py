"""Files of data, plain or gzipped (told by their first bytes): their bytes, lines, rows of CSV, and digest."""

from __future__ import annotations

import csv
import gzip
import io
import shutil
import stat
import tempfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import IO

from servemark.harness.errors import BadInput
from servemark.harness.plan.bad_rows import BadRows

BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_PAGE = 1 << 20


@contextmanager
def opened(path: Path, what: str, do: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked. `what` it holds and what to `do` stand in the sentence if it cannot be read.

    Raises BadInput, also for what goes wrong while it is read.
    """
    try:
        _check_regular(path)
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            # A gzipped file by itself is slow to read line by line.
            yield io.BufferedReader(gzip.GzipFile(fileobj=file), _PAGE) if packed else file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path}: the gzipped file is broken ({error}); fetch it again") from error
    except OSError as error:
        raise BadInput(f"{path}: the {what} cannot be read ({error.strerror or error}); {do}") from error


def _check_regular(path: Path) -> None:
    """A pipe would wait for a writer, and a device may have no end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BadInput(f"{path}: this is a pipe or a device, and data is read more than once; write it to a file first")


@contextmanager
def on_disk(path: Path, what: str, do: str) -> Iterator[IO[bytes]]:
    """The same where any place is read at any time; of a gzipped file a temporary copy that has no name."""
    with opened(path, what, do) as file:
        if not isinstance(getattr(file, "raw", None), gzip.GzipFile):
            yield file
            return
        with tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(file, unpacked, _PAGE)
            unpacked.flush()
            yield unpacked


def digest_of(path: Path) -> str:
    """SHA-256 of a file as it is on disk."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that is not blank."""
    for number, line in enumerate(file, 1):
        if not line.isspace():
            yield number, line.removeprefix(BOM) if number == 1 else line


def header_of(path: Path, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    """The cells of the first row. Raises BadInput where the file is no text."""
    _, cells = next(rows, (1, []))
    if not ",".join(cells).isprintable():
        raise BadInput(f"{path}: this is no text file; give it as CSV, plain or gzipped")
    return [cell.strip() for cell in cells]


def csv_rows(file: IO[bytes], bad: BadRows, spanning: bool = False) -> Generator[tuple[int, list[str]]]:
    """First line and cells of each row that is not blank. To be closed before the file, which it leaves open.

    A row goes over several lines where its texts do. Where there are none (not `spanning`), a quote was left open, and
    all the lines that it swallows are bad rows.
    """
    # Bytes that are no UTF-8 make one cell unreadable, and not the file.
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text)
    line = following = 1
    try:
        while True:
            try:
                for cells in reader:
                    line, following = following, reader.line_num + 1
                    if following - line > 1 and not spanning:
                        bad.add(f"line {line}:", f"a quote is open up to line {reader.line_num}", following - line)
                    elif cells:
                        yield line, cells
                return
            except csv.Error as error:
                line, following = following, reader.line_num + 1
                bad.add(f"line {line}:", error, 1 if spanning else following - line)
    finally:
        text.detach()
