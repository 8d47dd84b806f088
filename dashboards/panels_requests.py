"""The panels that look inside requests: gaps between tokens over time, and each request as a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from servemark.dashboards import plots
from servemark.dashboards.panels import PANELS, Data, Figure, Panel
from servemark.dashboards.words import NOTHING
from servemark.harness.clock import MS
from servemark.harness.figures.chunks import counted
from servemark.harness.figures.frame import MISSING, Floats, Frame

MOST_ROWS = 1_500


@PANELS.register("itl_over_time")
def itl_over_time(data: Data) -> Panel | None:
    values, at = _gaps_in_time(data)
    if len(values) < 2:
        return None
    edges = plots.time_bins(data.end_s)
    middles = plots.times(edges[:-1] + (edges[1] - edges[0]) / 2)
    rows = plots.percentiles_in(edges, at, values, (50, 90, 99))
    low, mid, high = (plots.numbers(plots.or_nan(row)) for row in rows)
    traces = [
        plots.line(middles, low, "p50", "decode", width=2.4),
        plots.line(middles, mid, "p90", "tpot", width=1.4),
        plots.line(middles, high, "p99", "e2e", width=1.4),
    ]
    layout = {
        "xaxis": plots.time_axis(data.end_s),
        "yaxis": plots.axis("ITL, ms", rangemode="tozero"),
        "shapes": plots.shading(data.window_s, data.end_s),
        "hovermode": "x unified",
    }
    about = "Gaps between tokens by the time at which they ended; spikes of p99 are stalls that a reader notices."
    return Panel("ITL over time", about, [Figure("ITL over time", traces, layout, 320)])


def _gaps_in_time(data: Data) -> tuple[Floats, Floats]:
    """Inter-token latencies in ms with the second at which each ended, of the requests that succeeded."""
    frame = data.frame
    tokens, known = counted(frame)
    used = (known & frame.ok)[frame.chunk_rows] & (tokens > 0)
    rows, stamps, sizes = frame.chunk_rows[used], frame.chunk_ns[used], tokens[used]
    if len(rows) < 2:
        return np.empty(0), np.empty(0)
    follows = rows[1:] == rows[:-1]
    k = sizes[1:][follows]
    gaps = np.diff(stamps)[follows] / MS / k
    return np.repeat(gaps, k), np.repeat(data.seconds(stamps[1:][follows]), k)


@PANELS.register("timeline")
def timeline(data: Data) -> Panel | None:
    frame = data.frame
    if not len(frame):
        return None
    rows = plots.spread(len(frame), MOST_ROWS)
    names = ("intended_ns", "sent_ns", "first_token_ns", "last_token_ns")
    intended, sent, first, last = (data.seconds(frame[name][rows]) for name in names)
    thick = float(np.clip(380 / len(rows), 1, 7))
    traces = [
        _bars(rows, intended, sent, "waiting to be sent", "queue", thick),
        _bars(rows, sent, first, "until the first token", "ttft", thick),
        _bars(rows, first, last, "receiving tokens", "decode", thick),
        _spots(data, rows, first),
    ]
    ended = np.where(frame["done_ns"][rows] != MISSING, data.seconds(frame["done_ns"][rows]), intended)
    for name, role, which in (("failed", "error", frame.failed), ("gave up", "queue", frame.gave_up)):
        if which[rows].any():
            traces.append(_crosses(frame, rows, np.flatnonzero(which[rows]), ended, name, role))
    layout = {
        "xaxis": plots.time_axis(data.end_s),
        "yaxis": plots.axis("request, by intended time", autorange="reversed", showgrid=False),
        "shapes": plots.shading(data.window_s, data.end_s),
        "hovermode": "closest",
    }
    part_of = f" {len(rows):,} of {len(frame):,} requests are drawn, evenly spread." if len(rows) < len(frame) else ""
    about = f"One row per request, from its intended time to its last token.{part_of} Drag to look closer."
    return Panel("Timeline of requests", about, [Figure("Timeline of requests", traces, layout, 540)])


def _crosses(frame: Frame, rows: Any, chosen: Any, ended: Floats, name: str, role: str) -> plots.Trace:
    """Where the chosen ones of the drawn rows ended without an answer."""
    kinds = [str(kind) for kind in frame["error"][rows][chosen]]
    return plots.dots(
        plots.times(ended[chosen]),
        rows[chosen].tolist(),
        name,
        role,
        marker={"symbol": "x", "size": 7, "opacity": 0.95},
        text=kinds,
        hovertemplate="%{text}<extra></extra>",
    )


def _bars(rows: Any, start: Floats, end: Floats, name: str, role: str, thick: float) -> plots.Trace:
    drawn = np.flatnonzero(~np.isnan(start) & ~np.isnan(end) & (end > start))
    x: list[Any] = []
    y: list[Any] = []
    for row, a, b in zip(rows[drawn].tolist(), plots.times(start[drawn]), plots.times(end[drawn]), strict=True):
        x += (a, b, None)
        y += (row, row, None)
    return plots.line(x, y, name, role, width=thick, hoverinfo="skip")


def _spots(data: Data, rows: Any, first: Floats) -> plots.Trace:
    """Invisible points at the first tokens, which say what a request was when pointed at."""
    frame = data.frame
    known = np.flatnonzero(~np.isnan(first))
    chosen = rows[known]
    columns = [
        frame["request_id"][chosen].tolist(),
        plots.numbers(frame.ms_between("intended_ns", "first_token_ns")[chosen]),
        plots.numbers(frame.ms_between("intended_ns", "last_token_ns")[chosen]),
        [NOTHING if count == MISSING else count for count in frame["output_tokens"][chosen].tolist()],
    ]
    said = "request %{customdata[0]}<br>TTFT %{customdata[1]} ms<br>E2E %{customdata[2]} ms"
    said += "<br>%{customdata[3]} tokens<extra></extra>"
    return plots.dots(
        plots.times(first[known]),
        chosen.tolist(),
        "",
        "ttft",
        marker={"opacity": 0, "size": 7},
        customdata=[list(row) for row in zip(*columns, strict=True)],
        hovertemplate=said,
        showlegend=False,
    )
