"""The clients of a ServeGen folder, each with its windows of arrivals and its lengths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from servemark.harness.errors import BadInput
from servemark.harness.plan.bad_rows import BadRows
from servemark.harness.plan.data_files import csv_rows, digest_of
from servemark.workloads.traces.files import NAME_IT, opened
from servemark.workloads.traces.gaps import LAWS, LEAST_SHAPE, MOST_SHAPE, SECOND, Window
from servemark.workloads.traces.histograms import LengthsByTime

MOST_RATE = 1e6
_TRACE = re.compile(r"chunk-(\d{1,9})-trace\.csv(?:\.gz)?")
_LONGEST_S = 10**9
_ONE_WINDOW_S = 600


@dataclass(frozen=True, slots=True)
class Client:
    number: int
    windows: tuple[Window, ...]
    lengths: LengthsByTime

    def busy(self, first_ns: int, last_ns: int) -> Iterator[int]:
        """Its windows between two times in which it sends anything."""
        for number, window in enumerate(self.windows):
            if window.rate and window.start_ns < last_ns and window.end_ns > first_ns:
                yield number


def read_clients(folder: Path, bad: BadRows) -> tuple[list[Client], str]:
    """The clients of a folder, and a digest of all their files. Raises BadInput."""
    try:
        matches = [match for path in folder.iterdir() if (match := _TRACE.fullmatch(path.name))]
    except OSError as error:
        raise BadInput(f"{folder}: the folder cannot be read ({error.strerror}); {NAME_IT}") from error
    names = {int(match[1]): match[0] for match in matches}
    if not names:
        raise BadInput(f"{folder}: no chunk-0-trace.csv or the like is in it; name the folder of one ServeGen model")
    clients, digest = [], sha256()
    for number in sorted(names):
        trace = folder / names[number]
        lengths = next(iter(folder.glob(f"chunk-{number}-dataset.json*")), folder / f"chunk-{number}-dataset.json")
        clients.append(Client(number, tuple(_windows(trace, bad)), _lengths(lengths)))
        for path in (trace, lengths):
            digest.update(f"{path.name} {digest_of(path)}\n".encode())
    return clients, digest.hexdigest()


def _windows(path: Path, bad: BadRows) -> Iterator[Window]:
    """Each lasts until the next begins, the last one as long as the one before."""
    found: list[tuple[int, float, str, float]] = []
    with opened(path) as file:
        for line, cells in csv_rows(file, bad):
            try:
                window = _window(cells)
                if found and window[0] <= found[-1][0]:
                    raise ValueError("its time is not after the row's before")
                found.append(window)
            except (ValueError, IndexError) as error:
                bad.add(f"line {line} of {path.name}:", error)
    starts = [window[0] for window in found]
    lasts_s = starts[-1] - starts[-2] if len(starts) > 1 else _ONE_WINDOW_S
    ends = [*starts[1:], *(start_s + lasts_s for start_s in starts[-1:])]
    for (start_s, rate, law, shape), end_s in zip(found, ends, strict=True):
        yield Window(start_s * SECOND, end_s * SECOND, rate, law, shape)


def _window(cells: list[str]) -> tuple[int, float, str, float]:
    """Start, rate, law and shape; the scale follows from the rate. Raises ValueError."""
    if len(cells) < 6:
        raise IndexError
    start_s, rate, _, law, shape, _ = cells[:6]
    found = int(float(start_s)), float(rate), law.strip(), float(shape)
    if not 0 <= found[0] <= _LONGEST_S or not 0 <= found[1] <= MOST_RATE:
        raise ValueError(f"a rate of {rate} at {start_s} s is out of bounds")
    if found[1] and found[2] not in LAWS:
        raise ValueError(f"{law!r} is none of {', '.join(LAWS)}")
    if found[1] and not LEAST_SHAPE <= found[3] <= MOST_SHAPE:
        raise ValueError(f"a shape of {shape} is out of bounds")
    return found


def _lengths(path: Path) -> LengthsByTime:
    with opened(path) as file:
        data = file.read()
    try:
        found = msgspec.json.decode(data, type=dict[str, dict[str, str]])
        return LengthsByTime({int(at): fields for at, fields in found.items()})
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: this is no ServeGen data set ({error}); fetch the file again") from None
    except KeyError as error:
        raise BadInput(f"{path}: a window has no {error}; take a ServeGen model with lengths of text") from None
