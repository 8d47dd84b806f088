"""The file of a trace, plain or gzipped (told by its first bytes), as lines or as CSV."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import IO

from servemark.harness.errors import BadInput
from servemark.workloads.traces.table import BadRows

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_FOUND = 100
NAME_IT = "set prompts.path in the workload file, or --data"


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked. Raises BadInput, also for what goes wrong while they are read."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            # A gzipped file by itself is slow to read line by line.
            yield io.BufferedReader(gzip.GzipFile(fileobj=file), 1 << 20) if packed else file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path}: the gzipped file is broken ({error}); fetch it again") from error
    except IsADirectoryError as error:
        raise BadInput(f"{path}: this is a folder; name a file, or set prompts.source to servegen") from error
    except OSError as error:
        raise BadInput(f"{path}: the trace cannot be read ({error.strerror or error}); {NAME_IT}") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file as it is on disk."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that is not blank."""
    for number, line in enumerate(file, 1):
        if not line.isspace():
            yield number, line.removeprefix(_BOM) if number == 1 else line


def csv_rows(file: IO[bytes], bad: BadRows) -> Generator[tuple[int, list[str]]]:
    """Line number and cells of each row that is not blank. To be closed before the file, which it leaves open."""
    # Bytes that are no UTF-8 make one cell unreadable, and not the file.
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text)
    try:
        while True:
            try:
                for cells in reader:
                    if cells:
                        yield reader.line_num, cells
                return
            except csv.Error as error:
                bad.add(reader.line_num, error)
    finally:
        text.detach()


def places(path: Path, header: Sequence[str], wanted: Sequence[str], guess: Callable[[str], str]) -> list[int]:
    """Where the wanted columns stand. Raises BadInput, which says what there is and, by `guess`, which source fits."""
    names = [name.strip() for name in header]
    first = ",".join(header)
    if not first.isprintable():
        raise BadInput(f"{path}: this is no text file; give the trace as CSV, plain or gzipped")
    if any(name not in names for name in wanted):
        raise BadInput(
            f"{path}:1: the columns {', '.join(wanted)} are needed; found {first[:_FOUND] or 'nothing'}{guess(first)}"
        )
    return [names.index(name) for name in wanted]
