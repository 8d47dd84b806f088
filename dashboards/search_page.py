"""The page of a search: attainment against load with its intervals, the bracket, the answer, and every run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from servemark.dashboards import plots
from servemark.dashboards.hardware_columns import OF_HARDWARE
from servemark.dashboards.page import moment, rendered, write_html
from servemark.dashboards.panels import Cell, Facts, Figure, Note, Panel, Table, Verbatim
from servemark.dashboards.search import (
    HEAD,
    WORDS,
    columns,
    load_of,
    mean,
    money,
    points_of,
    rows,
    sentence,
    shown,
    unsteady_notes,
)
from servemark.dashboards.words import figure, share
from servemark.results.schema import PAGE, items, number, part, text

_TONES = {"meets": "good", "misses": "bad", "uncertain": "warn"}
_ROLES = {"meets": "ttft", "misses": "error", "uncertain": "decode"}
_STATES = {
    "counts": "counts",
    "void": "says nothing",
    "stopped": "INVALID",
    "interrupted": "CUT SHORT",
    "pending": "cut",
}


def write_search_page(index: Mapping[str, Any], path: Path) -> Path:
    """Raises ResultUnusable where it cannot be written."""
    return write_html(render_search(index), path)


def render_search(index: Mapping[str, Any]) -> str:
    """The page as HTML; links lead from the folder of the index."""
    points = points_of(index)
    states = [text(point.get("state"), 20) for point in points]
    simulated = any(run.get("simulated") is True for run in items(index, "runs"))
    return rendered(
        "matrix.html.j2",
        list(_panels(index, points)),
        title=text(index.get("name"), 200),
        created=moment(index.get("created")),
        counts=[(states.count(state), word, _TONES[state]) for state, word in WORDS.items() if state in states],
        simulated="The target is a simulation: no figure is one of a real server." if simulated else "",
    )


def _panels(index: Mapping[str, Any], points: list[dict[str, Any]]) -> Iterator[tuple[str, Panel]]:
    said = [Note(sentence(index), "" if part(index, "answer") else "warn")]
    costs = money(index)
    yield "answer", Panel("Answer", "The highest load that meets the SLO.", [*said, *([Note(costs)] if costs else [])])
    if points:
        about = (
            "Share of requests that met every limit on a request, over all runs of a load, with its interval: "
            "Clopper-Pearson on the number of independent requests that it is worth. Shaded: what is not proved."
        )
        yield (
            "attainment",
            Panel("Attainment against load", about, [_attainment(index, points), *_others(index, points)]),
        )
    about = (
        "All runs of a load together; `worth` is the effective number of requests. Latencies in ms, means of the runs."
    )
    notes = [Note(said, "dim") for said in unsteady_notes(index)]
    yield "points", Panel("Points", about, [_points(index), *_hardware(index), *notes])
    yield "runs", Panel("Runs", "In the order in which they were made; each has a report of its own.", [_runs(index)])
    asked = [
        (name.replace("_", " "), _plain(value)) for name, value in part(index, "asked").items() if value is not None
    ]
    workload = part(index, "workload").get("text")
    body = Verbatim(workload[:200_000]) if isinstance(workload, str) else Note("The index holds no workload.", "dim")
    yield (
        "asked",
        Panel("What was asked", "Settings of the search, and the workload, word for word.", [Facts(asked), body]),
    )


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else text(value, 300)


def _attainment(index: Mapping[str, Any], points: list[dict[str, Any]]) -> Figure:
    traces = [_dots(index, points, state) for state in WORDS if any(p.get("state") == state for p in points)]
    layout: dict[str, Any] = {
        "xaxis": _load_axis(index),
        "yaxis": plots.axis("share of requests that met the SLO, %"),
        "shapes": list(_shapes(index)),
    }
    return Figure("attainment", traces, layout, 380)


def _dots(index: Mapping[str, Any], points: list[dict[str, Any]], state: str) -> plots.Trace:
    here = [point for point in points if point.get("state") == state]
    shares = [(number(p.get("good")) or 0) / max(1.0, number(p.get("requests")) or 0) for p in here]
    up, down = (
        [abs((number(p.get(side)) or 0) - at) * 100 for p, at in zip(here, shares, strict=True)]
        for side in ("high", "low")
    )
    return plots.dots(
        plots.numbers([number(p.get("load")) or 0 for p in here]),
        plots.numbers([100 * each for each in shares], 5),
        WORDS[state].lower(),
        _ROLES[state],
        marker={"size": 9, "opacity": 1},
        error_y={"type": "data", "symmetric": False, "array": plots.numbers(up), "arrayminus": plots.numbers(down)},
        text=[load_of(index, p.get("load")) for p in here],
    )


def _shapes(index: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The share that is to be met, the answer, and between what is proved on either side a shade."""
    asked, answer = part(index, "asked"), part(index, "answer")
    target, load = number(asked.get("attainment")), number(answer.get("load"))
    proved, refuted = number(answer.get("proved")), number(answer.get("refuted"))
    if proved is not None and refuted is not None:
        span = {"x0": proved, "x1": refuted, "y0": 0, "y1": 1}
        yield {"type": "rect", "xref": "x", "yref": "paper", "name": "outside", **span}
    if target is not None:
        yield {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": 100 * target, "y1": 100 * target}
    if load is not None:
        yield {"type": "line", "xref": "x", "x0": load, "x1": load, "yref": "paper", "y0": 0, "y1": 1}


def _others(index: Mapping[str, Any], points: list[dict[str, Any]]) -> Iterator[Figure]:
    """What latency and throughput do meanwhile."""
    for name, label, role in (
        ("ttft_p99_ms", "TTFT p99, ms", "ttft"),
        ("goodput", "goodput, requests/s that met the SLO", "requests"),
    ):
        known = [(p.get("load"), mean(index, p.get("load"), name)) for p in points]
        shown = [(number(load) or 0.0, value) for load, value in known if value is not None]
        if shown:
            xs, ys = ([pair[i] for pair in shown] for i in (0, 1))
            trace = plots.line(plots.numbers(xs), plots.numbers(ys), label, role, mode="lines+markers")
            layout = {"xaxis": _load_axis(index), "yaxis": plots.axis(label, rangemode="tozero"), "showlegend": False}
            yield Figure(label.partition(",")[0], [trace], layout, 300, half=True)


def _load_axis(index: Mapping[str, Any]) -> dict[str, Any]:
    """Labelled with the unit alone."""
    return plots.axis(load_of(index, 1).partition(" ")[2], type="log")


def _points(index: Mapping[str, Any]) -> Table:
    tones = {word: _TONES[state] for state, word in WORDS.items()}
    shown = [[Cell(load), Cell(word, tones.get(word, "")), *map(Cell, more)] for load, word, *more in rows(index)]
    return Table(HEAD, shown, numbers_from=2)


def _hardware(index: Mapping[str, Any]) -> Iterator[Table]:
    if known := columns(index):
        loads = [point.get("load") for point in points_of(index)]
        rows = [[Cell(load_of(index, load)), *(Cell(shown(index, load, name)) for name, _ in known)] for load in loads]
        yield Table(("load", *(label for _, label in known)), rows, caption=OF_HARDWARE)


def _runs(index: Mapping[str, Any]) -> Table:
    shown = []
    for run in items(index, "runs"):
        folder, state = text(run.get("folder"), 300), text(run.get("state"), 20)
        report = Cell("report", link=f"{quote(folder)}/{PAGE}") if folder else Cell("")
        figures = part(run, "figures")
        shown.append(
            [
                Cell(text(run.get("id"), 200)),
                Cell(
                    _STATES.get(state, state), "" if state == "counts" else "warn", note=text(run.get("reason"), 1_000)
                ),
                Cell(text(run.get("why"), 20)),
                report,
                Cell(figure(number(figures.get("requests_measured")))),
                Cell(share(number(figures.get("goodput_share")))),
                *(Cell(figure(number(figures.get(name)))) for name in ("ttft_p99_ms", "tpot_p50_ms", "output_tps")),
            ]
        )
    heads = ("run", "", "why", "report", "requests", "SLO met", "TTFT p99", "TPOT p50", "tok/s")
    return Table(heads, shown, numbers_from=4)
