"""The panels that show how a run went as a whole: distributions, throughput, TTFT over time."""

from __future__ import annotations

from typing import Any

import numpy as np

from servemark.dashboards import plots
from servemark.dashboards.facts import UNCERTAIN, certain
from servemark.dashboards.panels import PANELS, Data, Figure, Panel
from servemark.dashboards.words import figure, name_of
from servemark.harness.figures.chunks import counted
from servemark.harness.figures.frame import Floats
from servemark.harness.figures.metrics import METRICS
from servemark.harness.figures.stats import percentile
from servemark.harness.figures.view import View
from servemark.results.schema import part

MOST_DOTS = 2_500
DISTRIBUTIONS = (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "decode"), ("e2e", "e2e"))


def _view(data: Data) -> View:
    origin = part(data.run, "metrics", "ttft").get("origin")
    window = data.frame.steady_window()
    return View(data.frame, window, data.frame.whole_window(), origin="sent" if origin == "sent" else "intended")


def _values(view: View, name: str) -> Floats:
    from servemark.harness.figures.summary import samples

    metric = METRICS[name]
    values: Floats = metric.compute(view).values if metric.kind == "pooled" else samples(metric, view)
    return np.sort(values)


@PANELS.register("distributions")
def distributions(data: Data) -> Panel | None:
    view = _view(data)
    figures = [
        _distribution(name, role, ordered, certain(part(data.run, "metrics", name), "p99"))
        for name, role in DISTRIBUTIONS
        if len(ordered := _values(view, name)) > 1
    ]
    about = "Bars: share of the samples in each bin. Line: share at or below a value. Dotted: p50 and p99."
    return Panel("Distributions", about, figures) if figures else None


def _distribution(name: str, role: str, ordered: Floats, certified: bool) -> Figure:
    middle, late = percentile(ordered, 50) or 0.0, percentile(ordered, 99) or 0.0
    # A few far outliers would squeeze everything else into one bar.
    end = float(ordered[-1]) if ordered[-1] <= 2.5 * late else 1.5 * late
    start = float(ordered[0])
    if end <= start:
        start, end = start - 0.5, start + 0.5
    heights, edges = np.histogram(ordered, np.linspace(start, end, 61))
    width = edges[1] - edges[0]
    reached = ordered[plots.spread(len(ordered), 240)]
    ranks = np.searchsorted(ordered, reached, side="right") / len(ordered) * 100
    beyond = int(np.sum(ordered > end))
    bars = {
        "type": "bar",
        "x": plots.numbers(edges[:-1] + width / 2, 5),
        "y": plots.numbers(heights / len(ordered) * 100),
        "width": float(width),
        "name": "share",
        "meta": {"role": role},
        "marker": {"opacity": 0.55},
        "hovertemplate": "%{x:.4~g} ms: %{y:.3~g} %<extra></extra>",
    }
    rising = plots.line(
        plots.numbers(reached, 5),
        plots.numbers(ranks),
        "at or below",
        role,
        yaxis="y2",
        hovertemplate="%{y:.4~g} % at or below %{x:.4~g} ms<extra></extra>",
    )
    layout = {
        "xaxis": plots.axis(f"{name_of(name)}, ms", range=[start, end]),
        "yaxis": plots.axis("share of samples, %", rangemode="tozero"),
        "yaxis2": plots.axis(
            "at or below, %",
            overlaying="y",
            side="right",
            range=[0, 102],
            showgrid=False,
            tickvals=[0, 25, 50, 75, 100],
        ),
        "shapes": [_marker(value) for value in (middle, late)],
        "annotations": [
            _label(middle, f"p50 {figure(middle)}", "right" if late > middle else "center"),
            _label(late, f"p99 {'' if certified else UNCERTAIN}{figure(late)}", "left"),
        ],
        "showlegend": False,
        "bargap": 0.04,
    }
    note = (
        f"{beyond:,} of {len(ordered):,} samples lie beyond the axis, up to {figure(float(ordered[-1]))} ms"
        if beyond
        else ""
    )
    return Figure(f"Distribution of {name_of(name)}", [bars, rising], layout, 280, note, half=True)


def _marker(value: float) -> dict[str, Any]:
    return {"type": "line", "x0": value, "x1": value, "yref": "paper", "y0": 0, "y1": 1, "name": "mark"}


def _label(value: float, said: str, anchor: str) -> dict[str, Any]:
    return {
        "x": value,
        "yref": "paper",
        "y": 1.0,
        "yanchor": "bottom",
        "text": said,
        "showarrow": False,
        "xanchor": {"right": "right", "left": "left"}.get(anchor, "center"),
    }


@PANELS.register("throughput")
def throughput(data: Data) -> Panel | None:
    if not len(data.frame):
        return None
    edges = plots.time_bins(data.end_s, 60)
    width, middles = edges[1] - edges[0], plots.times(edges[:-1] + (edges[1] - edges[0]) / 2)
    frame = data.frame
    sent, done = data.seconds(frame["sent_ns"]), data.seconds(frame["done_ns"])
    moments = np.linspace(0, data.end_s, 300)
    flying = np.searchsorted(np.sort(sent[~np.isnan(sent)]), moments, side="right") - np.searchsorted(
        np.sort(done[~np.isnan(done) & ~np.isnan(sent)]), moments, side="right"
    )
    answered = np.where(frame.ok, data.seconds(frame["last_token_ns"]), np.nan)
    traces = [
        plots.line(middles, plots.numbers(_tokens(data, edges) / width), "output tok/s", "decode", fill="tozeroy"),
        plots.line(
            plots.times(moments),
            flying.tolist(),
            "in flight",
            "flight",
            yaxis="y2",
            fill="tozeroy",
            line={"shape": "hv"},
        ),
        plots.line(
            middles,
            plots.numbers(plots.counts_in(edges, sent) / width),
            "sent/s",
            "queue",
            yaxis="y3",
            line={"dash": "dot"},
        ),
        plots.line(
            middles, plots.numbers(plots.counts_in(edges, answered) / width), "completed/s", "requests", yaxis="y3"
        ),
    ]
    layout = {
        "xaxis": plots.time_axis(data.end_s, anchor="y3"),
        "yaxis": plots.axis("output tok/s", domain=[0.56, 1], rangemode="tozero"),
        "yaxis2": plots.axis("in flight", domain=[0.28, 0.5], rangemode="tozero"),
        "yaxis3": plots.axis("requests/s", domain=[0, 0.22], rangemode="tozero"),
        "shapes": plots.shading(data.window_s, data.end_s),
        "hovermode": "x unified",
    }
    about = f"In bins of {width:g} s. Shaded: outside the steady window (warm-up before it, the drain after it)."
    return Panel("Throughput over time", about, [Figure("Throughput over time", traces, layout, 520)])


def _tokens(data: Data, edges: Floats) -> Floats:
    """Output tokens per bin; where a server does not say how many each chunk held, spread evenly over them."""
    tokens, known = counted(data.frame)
    totals = data.frame.floats("output_tokens")
    even = np.nan_to_num(totals / np.maximum(data.frame.counts, 1))
    rows = data.frame.chunk_rows
    return plots.counts_in(edges, data.seconds(data.frame.chunk_ns), np.where(known[rows], tokens, even[rows]))


@PANELS.register("ttft_over_time")
def ttft_over_time(data: Data) -> Panel | None:
    view = _view(data)
    values, at = METRICS["ttft"].compute(view), data.seconds(data.frame["intended_ns"])
    good = np.flatnonzero(~np.isnan(values) & data.frame.ok)
    if not len(good):
        return None
    shown = good[plots.spread(len(good), MOST_DOTS)]
    edges = plots.time_bins(data.end_s, 60)
    middles = plots.times(edges[:-1] + (edges[1] - edges[0]) / 2)
    (median,) = plots.percentiles_in(edges, at[good], values[good], (50,))
    failed = np.flatnonzero(data.frame.failed)
    failed = failed[plots.spread(len(failed), 500)]
    traces = [
        plots.dots(plots.times(at[shown]), plots.numbers(values[shown]), "request", "ttft", marker={"opacity": 0.45}),
        plots.line(middles, plots.numbers(plots.or_nan(median)), "median", "ttft", width=2.4, connectgaps=True),
    ]
    if len(failed):
        traces.append(
            plots.dots(
                plots.times(at[failed]),
                [0] * len(failed),
                "failed",
                "error",
                marker={"symbol": "x", "size": 8, "opacity": 0.9},
            )
        )
    layout = {
        "xaxis": plots.time_axis(data.end_s),
        "yaxis": plots.axis("TTFT, ms", rangemode="tozero"),
        "shapes": plots.shading(data.window_s, data.end_s),
    }
    sampled = f" {len(shown):,} of {len(good):,} requests are drawn." if len(shown) < len(good) else ""
    about = f"Each dot is a request, at its intended time. A rise says that the load outgrows the server.{sampled}"
    return Panel("TTFT over time", about, [Figure("TTFT over time", traces, layout, 340)])
