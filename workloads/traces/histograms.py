"""Lengths of one client, which change from window to window: shares of each length."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_HISTOGRAM = re.compile(r"\{[\d\s.eE+:,-]*\}")


class Histogram:
    """A distribution of numbers by their shares."""

    def __init__(self, values: Floats, shares: Floats) -> None:
        import numpy as np

        self._values = values
        self._until = np.cumsum(shares) / shares.sum()

    def at(self, u: Floats) -> Floats:
        """Its inverse distribution."""
        import numpy as np

        places = np.minimum(np.searchsorted(self._until, u, side="left"), len(self._values) - 1)
        found: Floats = self._values[places]
        return found


def read_histogram(text: str) -> Histogram | None:
    """Of `{45: 0.0097, 46: 0.0117}`, a literal of Python, read without evaluating it; None where it is empty.

    Raises ValueError.
    """
    import numpy as np

    if not _HISTOGRAM.fullmatch(text.strip()):
        raise ValueError(f"{text[:60]!r} is no table of numbers and their shares")
    inside = text.strip().strip("{}").rstrip(", ")
    if not inside:
        return None
    pairs = inside.split(",")
    if any(pair.count(":") != 1 for pair in pairs):
        raise ValueError(f"{text[:60]!r} is no table of numbers and their shares")
    values, shares = (np.array([float(pair.split(":")[side]) for pair in pairs], dtype=np.float64) for side in (0, 1))
    if values.min() < 0 or values.max() > 1e9 or shares.min() < 0 or not 0 < shares.sum() < math.inf:
        raise ValueError(f"{text[:60]!r} has numbers or shares that are out of bounds")
    order = np.argsort(values, kind="stable")
    return Histogram(values[order], shares[order])


@dataclass(frozen=True, slots=True)
class Lengths:
    input_tokens: Histogram
    output_tokens: Histogram
    reasoning: Histogram | None


class LengthsByTime:
    """A client's lengths: of each moment those of the newest window that has any, before the first one the first's."""

    def __init__(self, windows: Mapping[int, Mapping[str, str]]) -> None:
        self._windows = windows
        self._times = sorted(at for at, found in windows.items() if all(not _empty(found[key]) for key in _NEEDED))
        self._read: dict[int, Lengths] = {}

    def __bool__(self) -> bool:
        return bool(self._times)

    def at(self, at_s: int) -> Lengths:
        """Raises ValueError."""
        time = self._times[max(0, bisect_right(self._times, at_s) - 1)]
        if time not in self._read:
            self._read[time] = _lengths(self._windows[time])
        return self._read[time]


_NEEDED = ("input_tokens", "output_tokens")


def _empty(text: str) -> bool:
    return text.strip().strip("{} ") == ""


def _lengths(found: Mapping[str, str]) -> Lengths:
    inputs, outputs = (read_histogram(found[key]) for key in _NEEDED)
    if inputs is None or outputs is None:
        raise ValueError("a window holds no lengths")
    return Lengths(inputs, outputs, read_histogram(found.get("reason_ratio", "{}")))
