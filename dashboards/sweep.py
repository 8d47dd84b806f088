"""A sweep for people: a row for each point, throughput against latency, and the knee named."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from servemark.dashboards import curves as drawn
from servemark.dashboards.curves import STAR
from servemark.dashboards.hardware_columns import OF_HARDWARE, columns_of
from servemark.dashboards.matrix import (
    CERTIFIED,
    COLOURS,
    TONES,
    WORDS,
    counts,
    footnotes,
    plan_panel,
    reasons,
    reasons_panel,
    runs_table,
    simulated,
    unsteady_panel,
)
from servemark.dashboards.page import moment, rendered
from servemark.dashboards.panels import Cell, Figure, Note, Panel, Part, Table
from servemark.results.curves import Curve, Point, curves
from servemark.results.schema import PAGE, items, text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Rows

_FIGURES = (
    ("output_tps", "tok/s"),
    ("rps", "req/s"),
    ("goodput", "goodput"),
    ("goodput_share", "SLO met"),
    ("ttft_p50_ms", "TTFT p50"),
    ("ttft_p99_ms", "TTFT p99"),
    ("tpot_p50_ms", "TPOT p50"),
    ("tpot_p99_ms", "TPOT p99"),
)


def table_text(index: Mapping[str, Any], width: int = 120) -> str:
    """The table as plain text."""
    from rich.console import Console

    out = io.StringIO()
    print_table(index, Console(file=out, width=width, color_system=None, highlight=False))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def print_table(index: Mapping[str, Any], console: Console) -> None:
    """Curve by curve: what was reached at each load, the knee, and why runs do not count."""
    from rich.table import Table as Rows
    from rich.text import Text

    found = curves(items(index, "cells"))
    for curve in found:
        console.print(Text("\n" + "  ".join(filter(None, (curve.engine, curve.workload, curve.others))), style="bold"))
        rows = Rows.grid(padding=(0, 2))
        rows.add_column(no_wrap=True, min_width=9)
        rows.add_column(justify="right", min_width=8)
        for _ in _FIGURES:
            rows.add_column(justify="right", no_wrap=True, min_width=8)
        rows.add_row("", *(Text(head, style="dim") for head in (curve.axis or "", *(label for _, label in _FIGURES))))
        for point in curve.points:
            cells = (Text(drawn.shown(point, name), style="" if point.valid else "dim") for name, _ in _FIGURES)
            style = "yellow" if point.unsteady else COLOURS.get(point.state, "")
            rows.add_row(Text(_word(point), style=style), _load(point), *cells)
        console.print(rows, markup=False, highlight=False)
        if (hardware := _hardware_rows(curve)) is not None:
            console.print(hardware, markup=False, highlight=False)
        if said := drawn.knee_sentence(curve):
            console.print(Text(f"  {said}"), highlight=False)
    uncertain = any(_uncertain(point) for curve in found for point in curve.points)
    footnotes(items(index, "cells"), f"{CERTIFIED}; latencies in ms" if uncertain else "", _cell, console)
    for reason, concerned in reasons(items(index, "cells")).items():
        console.print(Text(f"{', '.join(_cell(each) for each in concerned)}: {reason}", style="dim"), highlight=False)


def _hardware_rows(curve: Curve) -> Rows | None:
    """Below the others, as they would not fit beside them; None where nothing is known of the hardware."""
    columns = _columns(curve)
    rows = (
        (STAR if point.unsteady else "", _load(point), *(drawn.shown(point, name) for name, _ in columns))
        for point in curve.points
    )
    return drawn.grid((9,), ("", curve.axis or "", *(label for _, label in columns)), rows) if columns else None


def _columns(curve: Curve) -> tuple[tuple[str, str], ...]:
    return columns_of(lambda name: any(point.figure(name) is not None for point in curve.points))


def _word(point: Point) -> str:
    """`2/3 VALID` where runs at the same load did not end alike, `VALID*` where the throughput is not steady."""
    word = WORDS.get(point.state, point.state)
    made = sum(cell.get("state") != "pending" for cell in point.cells)
    said = word if len(point.valid) in (0, len(point.cells)) else f"{len(point.valid)}/{made} {word}"
    return said + STAR if point.unsteady else said


def _load(point: Point) -> str:
    return point.name if point.load is None else f"{point.load:g}"


def _cell(cell: Mapping[str, Any]) -> str:
    repeat = cell.get("repeat")
    return text(cell.get("load"), 120) + (f" #{repeat}" if isinstance(repeat, int) and repeat > 1 else "")


def _uncertain(point: Point) -> bool:
    percentiles = (name for name, _ in _FIGURES if name.endswith("_ms"))
    return any(not point.certain(name) and point.figure(name) is not None for name in percentiles)


def render_sweep(index: Mapping[str, Any]) -> str:
    """The page as HTML; links lead from the folder of the index."""
    cells = items(index, "cells")
    return rendered(
        "matrix.html.j2",
        list(_panels(index, cells)),
        title=text(index.get("name"), 200),
        created=moment(index.get("created")),
        counts=counts(Counter(text(cell.get("state"), 20) for cell in cells)),
        simulated=simulated(cells),
    )


def _panels(index: Mapping[str, Any], cells: list[dict[str, Any]]) -> Iterator[tuple[str, Panel]]:
    found = curves(cells)
    about = "Latencies in ms. Of several runs at a load these are the medians of the VALID ones."
    tables = [table for curve in found for table in _tables(curve, len(found) > 1)]
    marks = [Note(f"{CERTIFIED}.", "dim")] if any(_uncertain(p) for curve in found for p in curve.points) else []
    yield "points", Panel("Points", about, [*tables, *marks])
    if charts := list(_charts(found)):
        about = (
            "A point for each load, with the load beside it; an open circle stands for a percentile that the sample "
            f"does not certify, or for an unsteady throughput (VALID{STAR}). Lines go through VALID runs only; x is an "
            "INVALID one, whose figures are no measurement."
        )
        yield "tradeoff", Panel("Throughput against latency", about, [*_knees(found), *charts])
    if len(cells) > len([point for curve in found for point in curve.points]):
        yield "runs", Panel("Runs", "Each run with its own report.", [runs_table(cells)])
    if unsteady := unsteady_panel(cells):
        yield "unsteady", unsteady
    if said := reasons_panel(cells):
        yield "reasons", said
    yield "plan", plan_panel(index)


def _knees(found: Sequence[Curve]) -> list[Part]:
    said = ((drawn.name_of(curve), drawn.knee_sentence(curve)) for curve in found)
    return [
        Note(f"{name}: {text_}" if len(found) > 1 else f"{text_[0].upper()}{text_[1:]}.")
        for name, text_ in said
        if text_
    ]


def _tables(curve: Curve, several: bool) -> Iterator[Table]:
    head = ("", curve.axis or "", *(label for _, label in _FIGURES), "report")
    name = drawn.name_of(curve) if several else ""
    yield Table(head, [_row(point) for point in curve.points], caption=name)
    if columns := _columns(curve):
        head = ("", curve.axis or "", *(label for _, label in columns))
        rows = [[_state(point), Cell(_load(point)), *_figures(point, columns)] for point in curve.points]
        yield Table(head, rows, caption=": ".join(filter(None, (name, OF_HARDWARE))))


def _state(point: Point) -> Cell:
    return Cell(_word(point), "warn" if point.unsteady else TONES.get(point.state, ""))


def _figures(point: Point, columns: Sequence[tuple[str, str]]) -> list[Cell]:
    return [Cell(drawn.shown(point, name), "" if point.valid else "dim") for name, _ in columns]


def _row(point: Point) -> list[Cell]:
    folder = text(next((cell["folder"] for cell in point.cells if cell.get("folder")), ""), 300)
    report = Cell("report", link=f"{quote(folder)}/{PAGE}") if folder else Cell("")
    return [_state(point), Cell(_load(point)), *_figures(point, _FIGURES), report]


def _charts(found: Sequence[Curve]) -> Iterator[Figure]:
    over = [curve for curve in found if curve.axis is not None]
    axes = {curve.axis for curve in over}
    offered = (lambda point: point.load, f"offered: {axes.pop()}" if len(axes) == 1 else "offered load")
    per_user = drawn.of_figure("tps_user_p50", "tok/s per user, p50")
    for curve_set, x, y, label, name in (
        (
            found,
            drawn.OUTPUT,
            drawn.of_figure("ttft_p99_ms", "TTFT p99, ms"),
            "TTFT p99 against throughput",
            "ttft_p99_ms",
        ),
        (found, drawn.OUTPUT, drawn.of_figure("tpot_p50_ms", "TPOT p50, ms"), "TPOT p50 against throughput", ""),
        (over, offered, drawn.of_figure("goodput", "goodput, req/s"), "Goodput against offered load", ""),
    ):
        if (figure := drawn.chart(curve_set, x, y, label, name)) is not None:
            yield figure
    per_gpu = drawn.pareto_chart(found)
    if per_gpu is None:  # how many GPUs there are, nobody said
        per_gpu = drawn.chart(found, per_user, drawn.OUTPUT, "Throughput against tok/s per user")
    if per_gpu is not None:
        yield per_gpu
