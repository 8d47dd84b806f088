"""A matrix for people: a table in the terminal, and a page with a row for each cell and a link to its report."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from servemark.dashboards import plots
from servemark.dashboards.page import moment, rendered, write_html
from servemark.dashboards.panels import Cell, Figure, Note, Panel, Table, Verbatim
from servemark.dashboards.words import figure, share
from servemark.results.schema import PAGE, items, number, part, text

if TYPE_CHECKING:
    from rich.console import Console

WORDS = {"valid": "VALID", "invalid": "INVALID", "interrupted": "CUT SHORT", "failed": "FAILED", "pending": "to run"}
_COLOURS = {"valid": "green", "invalid": "red", "interrupted": "yellow", "failed": "red", "pending": "dim"}
_TONES = {"valid": "good", "invalid": "bad", "interrupted": "warn", "failed": "bad", "pending": ""}
_FIGURES = (
    ("output_tps", "tok/s"),
    ("rps", "req/s"),
    ("ttft_p50_ms", "TTFT p50"),
    ("ttft_p99_ms", "TTFT p99"),
    ("tpot_p50_ms", "TPOT p50"),
    ("itl_p99_ms", "ITL p99"),
    ("e2e_p50_ms", "E2E p50"),
    ("goodput_share", "SLO met"),
)
_ROLES = ("ttft", "e2e", "decode", "tpot", "error", "requests", "flight")
_REASON = 160


def table_text(index: Mapping[str, Any], width: int = 120) -> str:
    """The table as plain text."""
    from rich.console import Console

    out = io.StringIO()
    print_table(index, Console(file=out, width=width, color_system=None, highlight=False))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def print_table(index: Mapping[str, Any], console: Console) -> None:
    """Engine by engine; what became of each cell, its figures, and below it why it does not count."""
    from rich.table import Table as Rows
    from rich.text import Text

    for engine, cells in _by_engine(items(index, "cells")).items():
        console.print(Text(f"\n{engine}", style="bold"))
        rows = Rows.grid(padding=(0, 2))
        rows.add_column(no_wrap=True, min_width=9)
        rows.add_column(ratio=None, min_width=18)
        for _ in _FIGURES:
            rows.add_column(justify="right", no_wrap=True, min_width=8)
        rows.add_row("", *(Text(head, style="dim") for head in ("latencies in ms", *(label for _, label in _FIGURES))))
        for cell in cells:
            state = text(cell.get("state"), 20)
            found = part(cell, "figures")
            word = Text(WORDS.get(state, state), style=_COLOURS.get(state, ""))
            rows.add_row(word, _what(cell), *(_shown(found, name) for name, _ in _FIGURES))
        console.print(rows, markup=False, highlight=False)
        for reason, concerned in _reasons(cells).items():
            console.print(Text(f"  {', '.join(map(_what, concerned))}: {reason}", style="dim"), highlight=False)


def _shown(figures: Mapping[str, Any], name: str) -> str:
    """The share is of requests that met every limit on a request, where the workload has any."""
    value = number(figures.get(name))
    return share(value) if name == "goodput_share" and value is not None else figure(value)


def _reasons(cells: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Why cells do not count, in short: the first line, and of a log the last one."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        lines = str(cell.get("reason") or "").splitlines()
        if lines:
            last = f" {text(lines[-1].strip(), _REASON)}" if len(lines) > 1 else ""
            found.setdefault(text(lines[0], _REASON) + last, []).append(cell)
    return found


def _by_engine(cells: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        found.setdefault(text(cell.get("engine"), 200), []).append(cell)
    return found


def _what(cell: Mapping[str, Any]) -> str:
    repeat = number(cell.get("repeat")) or 1
    again = f"  #{repeat:.0f}" if repeat > 1 else ""
    return f"{text(cell.get('workload'), 60)}  {text(cell.get('load'), 120)}{again}"


def write_matrix_page(index: Mapping[str, Any], path: Path) -> Path:
    """Raises ResultUnusable where it cannot be written."""
    return write_html(render_matrix(index), path)


def render_matrix(index: Mapping[str, Any]) -> str:
    """The page as HTML; links lead from the folder of the index."""
    cells = items(index, "cells")
    states = Counter(text(cell.get("state"), 20) for cell in cells)
    return rendered(
        "matrix.html.j2",
        list(_panels(index, cells)),
        title=text(index.get("name"), 200),
        created=moment(index.get("created")),
        counts=[(states[state], word, _TONES[state]) for state, word in WORDS.items() if states[state]],
        simulated=_simulated(cells),
    )


def _simulated(cells: Iterable[Mapping[str, Any]]) -> str:
    known = [cell.get("simulated") is True for cell in cells if cell.get("folder")]
    if not any(known):
        return ""
    what = "All targets are simulations" if all(known) else "Some targets are simulations"
    return f"{what}: no figure of theirs is one of a real server."


def _panels(index: Mapping[str, Any], cells: list[dict[str, Any]]) -> Iterator[tuple[str, Panel]]:
    about = f"{text(index.get('about'), 1_000)} Each row is a run with a report of its own; latencies in ms."
    yield "runs", Panel("Runs", about.strip(), [_table(cells)])
    figures = [
        found
        for metric, label in (("ttft_p50_ms", "TTFT p50, ms"), ("tpot_p50_ms", "TPOT p50, ms"))
        if (found := _against_throughput(cells, metric, label)) is not None
    ]
    if figures:
        about = "Median latency against output tokens per second, a line for each engine and workload. VALID runs only."
        yield "tradeoff", Panel("Latency against throughput", about, figures)
    reasons = [
        [Cell(_word(cell), _TONES.get(_state(cell), "")), Cell(text(cell.get("id"), 300)), Cell(reason)]
        for cell in cells
        if (reason := text(cell.get("reason"), 2_000))
    ]
    if reasons:
        said = Table(("", "cell", "why"), reasons, numbers_from=3)
        yield "reasons", Panel("What does not count", "Why these cells have no VALID run.", [said])
    plan = part(index, "plan").get("text")
    body = Verbatim(plan[:200_000]) if isinstance(plan, str) and plan else Note("The index holds no plan.", "dim")
    yield "plan", Panel("Plan", "The plan, word for word.", [body])


def _state(cell: Mapping[str, Any]) -> str:
    return text(cell.get("state"), 20)


def _word(cell: Mapping[str, Any]) -> str:
    return WORDS.get(_state(cell), _state(cell))


def _table(cells: Iterable[Mapping[str, Any]]) -> Table:
    head = ("", "engine", "workload", "load", "report", *(label for _, label in _FIGURES))
    return Table(head, [_row(cell) for cell in cells], numbers_from=5)


def _row(cell: Mapping[str, Any]) -> list[Cell]:
    found, folder = part(cell, "figures"), text(cell.get("folder"), 300)
    names = [Cell(text(cell.get(key), 200)) for key in ("engine", "workload", "load")]
    report = Cell("report", link=f"{quote(folder)}/{PAGE}") if folder else Cell("")
    return [
        Cell(_word(cell), _TONES.get(_state(cell), "")),
        *names,
        report,
        *(Cell(_shown(found, name)) for name, _ in _FIGURES),
    ]


def _against_throughput(cells: Iterable[Mapping[str, Any]], metric: str, label: str) -> Figure | None:
    lines: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
    for cell in cells:
        figures = part(cell, "figures")
        x, y = number(figures.get("output_tps")), number(figures.get(metric))
        if _state(cell) == "valid" and x is not None and y is not None:
            name = (text(cell.get("engine"), 80), text(cell.get("workload"), 60))
            lines.setdefault(name, []).append((x, y, text(cell.get("load"), 120)))
    if not lines:
        return None
    traces = [_line(f"{e}  {w}", sorted(points), place) for place, ((e, w), points) in enumerate(lines.items())]
    layout = {"xaxis": plots.axis("output tok/s", rangemode="tozero"), "yaxis": plots.axis(label, rangemode="tozero")}
    return Figure(label.partition(",")[0], traces, layout, 340, half=True)


def _line(name: str, points: list[tuple[float, float, str]], place: int) -> plots.Trace:
    """Engines beyond the colours there are get other dashes."""
    return plots.line(
        plots.numbers([x for x, _, _ in points]),
        plots.numbers([y for _, y, _ in points]),
        name,
        _ROLES[place % len(_ROLES)],
        mode="lines+markers",
        text=[load for _, _, load in points],
        marker={"size": 7},
        line={"dash": ("solid", "dash", "dot")[place // len(_ROLES) % 3]},
    )
