"""Small parts of plotly figures as plain data: axes, traces, bins. Nothing here knows a metric."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from servemark.harness.figures.frame import Floats
from servemark.harness.figures.stats import percentile

Trace = dict[str, Any]

_STEPS = (0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


def time_bins(end_s: float, most: int = 120) -> Floats:
    """Edges of equal bins from 0 to past the end, of a width that people count in."""
    width = next((step for step in _STEPS if end_s / step <= most), None)
    if width is None:
        return np.linspace(0, end_s, most + 1)
    edges: Floats = np.arange(0, np.ceil(end_s / width) + 1) * width
    return edges if edges[-1] >= end_s else np.append(edges, edges[-1] + width)


def counts_in(edges: Floats, times: Floats, weights: Floats | None = None) -> Floats:
    """Sum per bin; what lies outside, and nan, is left out."""
    known = ~np.isnan(times)
    found, _ = np.histogram(times[known], edges, weights=None if weights is None else weights[known])
    return found.astype(np.float64)


def percentiles_in(edges: Floats, times: Floats, values: Floats, percents: Sequence[float]) -> list[list[Any]]:
    """For each percent its percentile per bin, None where a bin is empty."""
    bins = np.searchsorted(edges, times, side="right").astype(np.int32)
    order = np.argsort(bins, kind="stable")
    starts = np.searchsorted(bins[order], np.arange(1, len(edges) + 1))
    rows: list[list[Any]] = [[] for _ in percents]
    for low, high in pairwise(starts):
        inside = np.sort(values[order[low:high]])
        for row, percent in zip(rows, percents, strict=True):
            row.append(percentile(inside, percent))
    return rows


def spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most `most` indices of `count`, evenly spread, the first and the last among them."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def numbers(values: npt.NDArray[Any] | Sequence[Any], digits: int = 4) -> list[float | None]:
    """JSON numbers, short: rounded to `digits` significant digits, None for what is no finite number."""
    found = []
    for value in np.asarray(values, dtype=np.float64).tolist():
        known = value == value and abs(value) != float("inf")
        found.append(float(f"{value:.{digits}g}") if known else None)
    return found


def or_nan(values: Sequence[float | None]) -> Floats:
    """The values with nan for None."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def times(values: npt.NDArray[Any]) -> list[float | None]:
    """Seconds to a tenth of a millisecond."""
    return [round(value, 4) if value == value else None for value in np.asarray(values, np.float64).tolist()]


def line(x: list[Any], y: list[Any], name: str, role: str, **more: Any) -> Trace:
    """A line; `fill` in `more` takes the role's colour too."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "name": name,
        "meta": {"role": role},
        "line": {"width": more.pop("width", 1.8), **more.pop("line", {})},
        **more,
    }


def dots(x: list[Any], y: list[Any], name: str, role: str, **more: Any) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": y,
        "name": name,
        "meta": {"role": role},
        "marker": {"size": 4.5, "opacity": 0.6, **more.pop("marker", {})},
        **more,
    }


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **more}


def time_axis(end_s: float, **more: Any) -> dict[str, Any]:
    return axis("time since the start, s", range=[0, round(end_s, 3)], **more)


def shading(window_s: tuple[float, float] | None, end_s: float) -> list[dict[str, Any]]:
    """What lies outside the steady window, shaded."""
    if window_s is None:
        return []
    spans = [(0.0, max(0.0, window_s[0])), (min(window_s[1], end_s), end_s)]
    return [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": round(a, 3),
            "x1": round(b, 3),
            "y0": 0,
            "y1": 1,
            "name": "outside",
        }
        for a, b in spans
        if b > a
    ]
