"""An estimate as a page: its tables, and throughput per GPU against speed per user, a curve for each deployment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from servemark.dashboards import plots
from servemark.dashboards.curves import ROLES
from servemark.dashboards.estimate import BOUNDS, NOWHERE, predictions_title
from servemark.dashboards.estimate_answer import (
    FULL,
    NO_QUEUEING,
    choice,
    fits_nowhere,
    misses,
    needs,
    rate_title,
    short,
    ties,
)
from servemark.dashboards.estimate_rows import HEAD, MEMORY_HEAD, SLO_HEAD, memory_rows, point_rows, shown, slo_rows
from servemark.dashboards.estimate_words import asked_line, model_line, name_of, notes, objectives
from servemark.dashboards.page import moment, rendered, write_html
from servemark.dashboards.panels import Cell, Facts, Figure, Note, Panel, Part, Table
from servemark.dashboards.words import figure
from servemark.results.schema import items, number, part, text

_DASHES = ("solid", "dash", "dot", "dashdot")
_MOST_CURVES = 24


def write_estimate_page(found: Mapping[str, Any], path: Path) -> Path:
    """Raises ResultUnusable where it cannot be written."""
    return write_html(render_estimate(found), path)


def render_estimate(found: Mapping[str, Any]) -> str:
    """The page as HTML."""
    deployments = items(found, "deployments")
    fitting = sum(part(each, "memory").get("fits") is True for each in deployments)
    counts = [(fitting, "fit", "good"), (len(deployments) - fitting, "do not fit", "bad")]
    simulated = any(run.get("simulated") is True for run in items(found, "like"))
    return rendered(
        "matrix.html.j2",
        list(_panels(found)),
        title=f"Estimate: {text(part(found, 'model').get('name'), 120)}",
        created=moment(datetime.now(UTC).isoformat(timespec="seconds")),
        counts=[each for each in counts if each[0]],
        simulated="Predictions rest on a simulated server: its efficiency is an assumption." if simulated else "",
    )


def _panels(found: Mapping[str, Any]) -> Iterator[tuple[str, Panel]]:
    said = [Note(sentence) for sentence in (model_line(found), asked_line(found), *ties(found), *notes(found))]
    yield (
        "asked",
        Panel(
            "What is estimated",
            "Worked out from the model's config.json and the published figures of the GPUs; nothing was run for it.",
            said,
        ),
    )
    about = (
        "Of the fullest GPU, in GB. KV room is what is left for the KV cache; the largest batch is that of a server."
    )
    nowhere = [NOWHERE] if fits_nowhere(found) else []
    lacks = [Note(sentence) for sentence in (*short(found), *nowhere)]
    yield "memory", Panel("Memory", about, [_table(MEMORY_HEAD, memory_rows(found)), *lacks])
    if not nowhere:
        yield from _answers(found)
    yield "sources", Panel("Sources", "Where the figures of the GPUs are published.", [_sources(found)])


def _answers(found: Mapping[str, Any]) -> Iterator[tuple[str, Panel]]:
    if title := rate_title(found):
        yield "rate", Panel(title, FULL, [Note(sentence) for sentence in (*needs(found), *choice(found))])
    if objectives(found):
        about = f"The largest batch that meets it, and what it comes to there. Times in ms. {NO_QUEUEING}"
        parts: list[Part] = [_table(SLO_HEAD, slo_rows(found), 2), *map(Note, misses(found))]
        yield "slo", Panel(f"At the SLO {objectives(found)}", about, parts)
    for kind, title, about in _kinds(found):
        table = _table(HEAD, point_rows(found, kind))
        yield kind, Panel(title, about, [*_charts(found, kind), table])


def _kinds(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    columns = "Times in ms; `by` is what binds the step and the throughput; tok/s are output tokens."
    if any(point_rows(found, "predicted")):
        about = f"{predictions_title(found)}, as said above: TPOT with other requests' prompts in it. {columns}"
        yield "predicted", "Predictions", about
    yield "bound", "Bounds", f"{BOUNDS[0].upper()}{BOUNDS[1:]}. {columns}"


def _table(head: Sequence[str], rows: Iterator[list[str]], numbers_from: int = 1) -> Table:
    kept, cells = shown(head, rows)
    return Table(kept, [[Cell(value) for value in row] for row in cells], numbers_from=numbers_from)


def _charts(found: Mapping[str, Any], kind: str) -> Iterator[Figure]:
    y = ("output_tps_per_gpu", "output tok/s per GPU")
    if chart := _chart(
        found, kind, ("output_tps_per_user", "tok/s per user (1 / TPOT)"), y, "Throughput against speed"
    ):
        yield chart
    y = ("usd_per_1m_output", "$ per 1M output tokens")
    if chart := _chart(found, kind, ("output_tps_per_user", "tok/s per user (1 / TPOT)"), y, "Cost against speed"):
        yield chart


def _chart(found: Mapping[str, Any], kind: str, x: tuple[str, str], y: tuple[str, str], label: str) -> Figure | None:
    """A line through the batches of each deployment, which are written at its points."""
    shown = items(found, "deployments")[:_MOST_CURVES]
    traces = [trace for place, each in enumerate(shown) if (trace := _trace(each, kind, x[0], y[0], place))]
    if not traces:
        return None
    low = next((limit for name, limit in _speed_limits(found) if x[0] == name), None)
    shapes = [] if low is None else [{"type": "line", "x0": low, "x1": low, "yref": "paper", "y0": 0, "y1": 1}]
    layout = {
        "xaxis": plots.axis(x[1], rangemode="tozero"),
        "yaxis": plots.axis(y[1], **({"type": "log"} if y[0].startswith("usd") else {"rangemode": "tozero"})),
        "hovermode": "closest",
        "shapes": shapes,
        "showlegend": True,
    }
    note = "" if low is None else f"The upright line is the slowest that meets TPOT: {figure(low)} tok/s per user."
    return Figure(label, traces, layout, 400, note=note, half=True)


def _speed_limits(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    tpot_s = number(part(part(found, "asked"), "slo").get("tpot_s"))
    if tpot_s:
        yield "output_tps_per_user", 1 / tpot_s


def _trace(deployment: Mapping[str, Any], kind: str, x: str, y: str, place: int) -> plots.Trace | None:
    points = [part(row, kind) for row in items(deployment, "curve")]
    known = [
        (a, b, number(point.get("batch")) or 0)
        for point in points
        if (a := number(point.get(x))) is not None and (b := number(point.get(y))) is not None
    ]
    if not known:
        return None
    return plots.line(
        plots.numbers([a for a, _, _ in known]),
        plots.numbers([b for _, b, _ in known]),
        name_of(deployment),
        ROLES[place % len(ROLES)],
        mode="lines+markers",
        text=[f"batch {batch:,.0f}" for *_, batch in known],
        hoverinfo="name+text+x+y",
        line={"dash": _DASHES[place // len(ROLES) % len(_DASHES)]},
    )


def _sources(found: Mapping[str, Any]) -> Facts:
    rows = [("model", text(part(found, "model").get("source"), 300))]
    for gpu in items(found, "gpus"):
        peaks = ", ".join(
            f"{text(name, 10)} {figure(number(value))}" for name, value in part(gpu, "dense_tflops").items()
        )
        mib = number(gpu.get("memory_mib"))
        reported = "" if mib is None else f" ({mib:,.0f} MiB by its driver)"
        bandwidth = figure(number(gpu.get("bandwidth_gb_s")))
        figures = f"{figure(number(gpu.get('memory_gb')))} GB{reported}, {bandwidth} GB/s"
        source = f"{text(gpu.get('source'), 300)}, {text(gpu.get('retrieved'), 40)}"
        rows.append((text(gpu.get("title"), 120), f"{figures}, dense TFLOP/s {peaks}. {source}"))
    for each in {text(d.get("price_source"), 200) for d in items(found, "deployments") if d.get("price_source")}:
        rows.append(("price", each))
    return Facts(rows)
