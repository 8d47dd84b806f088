"""A matrix for people: a table in the terminal, and a page with a row for each cell and a link to its report."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from servemark.dashboards import curves as drawn
from servemark.dashboards.curves import STAR
from servemark.dashboards.facts import UNCERTAIN
from servemark.dashboards.hardware_columns import OF_HARDWARE, columns_of, worded
from servemark.dashboards.page import moment, rendered
from servemark.dashboards.panels import Cell, Note, Panel, Table, Verbatim
from servemark.dashboards.words import NOTHING
from servemark.results.curves import Curve, curves
from servemark.results.schema import PAGE, items, number, part, text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Rows

WORDS = {
    "valid": "VALID",
    "invalid": "INVALID",
    "interrupted": "CUT SHORT",
    "failed": "FAILED",
    "skipped": "skipped",
    "pending": "to run",
}
COLOURS = {"valid": "green", "invalid": "red", "interrupted": "yellow", "failed": "red"}
TONES = {"valid": "good", "invalid": "bad", "interrupted": "warn", "failed": "bad"}
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
_REASON = 160
CERTIFIED = f"{UNCERTAIN} too few requests to certify this percentile"
UNSTEADY = f"{STAR} too little was measured for a steady throughput: it, and what stands on it (~), may be far off"


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
            word = Text(_word(cell), style="yellow" if shaky(cell) else COLOURS.get(state, "dim"))
            rows.add_row(word, _what(cell), *(_shown(cell, name) for name, _ in _FIGURES))
        console.print(rows, markup=False, highlight=False)
        if (hardware := _hardware_rows(cells)) is not None:
            console.print(hardware, markup=False, highlight=False)
        for reason, concerned in reasons(cells).items():
            console.print(Text(f"  {', '.join(map(_what, concerned))}: {reason}", style="dim"), highlight=False)
    first = CERTIFIED if any(map(_uncertain, items(index, "cells"))) else ""
    footnotes(items(index, "cells"), first, lambda cell: text(cell.get("id"), 300), console)


def footnotes(
    cells: Iterable[Mapping[str, Any]], first: str, name_of: Callable[[Mapping[str, Any]], str], console: Console
) -> None:
    """What the marks in a table mean, and of each run that is not steady why."""
    from rich.text import Text

    starred = [f"{STAR} {name_of(cell)}: {said}" for cell in cells if (said := shaky(cell))]
    lines = [*filter(None, [first]), *([UNSTEADY] if starred else []), *starred]
    if lines:
        console.print(Text("\n" + "\n".join(lines), style="dim"), highlight=False)


def shaky(cell: Mapping[str, Any]) -> str:
    """Why the throughput of a VALID run is nothing to lean on; empty where it is steady."""
    said = cell.get("unsteady")
    return " ".join(text(each, 600) for each in said) if isinstance(said, list) and _state(cell) == "valid" else ""


def _hardware_rows(cells: Sequence[Mapping[str, Any]]) -> Rows | None:
    """Below the others, as they would not fit beside them; None where nothing is known of the hardware."""
    columns = _columns(cells)
    rows = ((STAR if shaky(cell) else "", _what(cell), *(_shown(cell, name) for name, _ in columns)) for cell in cells)
    return drawn.grid((9, 18), ("", "", *(label for _, label in columns)), rows) if columns else None


def _columns(cells: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    figures = [part(cell, "figures") for cell in cells]
    return columns_of(lambda name: any(number(each.get(name)) is not None for each in figures))


def _shown(cell: Mapping[str, Any], name: str) -> str:
    """The share is of requests that met every limit on a request, where the workload has any."""
    value = number(part(cell, "figures").get(name))
    if value is None:
        return NOTHING
    said, names = worded(name, value), cell.get("uncertain")
    return f"{UNCERTAIN}{said}" if isinstance(names, list) and name in names else said


def _uncertain(cell: Mapping[str, Any]) -> list[str]:
    """The percentiles shown here that the cell's sample does not certify."""
    names = cell.get("uncertain")
    return [name for name, _ in _FIGURES if isinstance(names, list) and name in names and name.endswith("_ms")]


def reasons(cells: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
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


def render_matrix(index: Mapping[str, Any]) -> str:
    """The page as HTML; links lead from the folder of the index."""
    cells = items(index, "cells")
    states = Counter(text(cell.get("state"), 20) for cell in cells)
    return rendered(
        "matrix.html.j2",
        list(_panels(index, cells)),
        title=text(index.get("name"), 200),
        created=moment(index.get("created")),
        counts=counts(states),
        simulated=simulated(cells),
    )


def counts(states: Mapping[str, int]) -> list[tuple[int, str, str]]:
    """How many runs came to what, with the word and the tone for it."""
    return [(states[state], word, TONES.get(state, "")) for state, word in WORDS.items() if states.get(state)]


def simulated(cells: Iterable[Mapping[str, Any]]) -> str:
    known = [cell.get("simulated") is True for cell in cells if cell.get("folder")]
    if not any(known):
        return ""
    what = "All targets are simulations" if all(known) else "Some targets are simulations"
    return f"{what}: no figure of theirs is one of a real server."


def _panels(index: Mapping[str, Any], cells: list[dict[str, Any]]) -> Iterator[tuple[str, Panel]]:
    about = f"{text(index.get('about'), 1_000)} Each row is a run with a report of its own; latencies in ms."
    marks = [Note(f"{CERTIFIED}.", "dim")] if any(map(_uncertain, cells)) else []
    yield "runs", Panel("Runs", about.strip(), [runs_table(cells), *_hardware_table(cells), *marks])
    found = curves(cells)
    figures = [
        chart
        for metric, label in (("ttft_p50_ms", "TTFT p50"), ("tpot_p50_ms", "TPOT p50"))
        if (chart := drawn.chart(found, drawn.OUTPUT, drawn.of_figure(metric, f"{label}, ms"), label)) is not None
    ]
    if (per_gpu := drawn.pareto_chart(found)) is not None:
        figures.append(per_gpu)
    if figures:
        about = (
            "Median latency against output tokens per second, a line for each engine and workload. Lines go through "
            f"VALID runs only, open circles are unsteady ones (VALID{STAR}); x is an INVALID one, whose figures are no "
            "measurement."
        )
        yield "tradeoff", Panel("Latency against throughput", about, [*_knees(found), *figures])
    if unsteady := unsteady_panel(cells):
        yield "unsteady", unsteady
    if said := reasons_panel(cells):
        yield "reasons", said
    yield "plan", plan_panel(index)


def _knees(found: Sequence[Curve]) -> list[Note]:
    """Of the curves that have one."""
    return [Note(f"{drawn.name_of(curve)}: {drawn.knee_sentence(curve)}.") for curve in found if curve.at_knee]


def reasons_panel(cells: Iterable[Mapping[str, Any]]) -> Panel | None:
    rows = [
        [Cell(_word(cell), TONES.get(_state(cell), "")), Cell(text(cell.get("id"), 300)), Cell(reason)]
        for cell in cells
        if (reason := text(cell.get("reason"), 2_000))
    ]
    if not rows:
        return None
    said = Table(("", "run", "why"), rows, numbers_from=3)
    return Panel("What does not count", "Why there is no VALID run of these.", [said])


def unsteady_panel(cells: Iterable[Mapping[str, Any]]) -> Panel | None:
    rows = [
        [Cell(_word(cell), "warn"), Cell(text(cell.get("id"), 300)), Cell(said)]
        for cell in cells
        if (said := shaky(cell))
    ]
    about = "Too little was measured: throughput, and what stands on it, may be far off. Knees are found without these."
    return Panel("Not steady", about, [Table(("", "run", "why"), rows, numbers_from=3)]) if rows else None


def plan_panel(index: Mapping[str, Any]) -> Panel:
    plan = part(index, "plan").get("text")
    body = Verbatim(plan[:200_000]) if isinstance(plan, str) and plan else Note("The index holds no plan.", "dim")
    about = "The plan, word for word." if index.get("kind") != "sweep" else "The same as a plan for `bench matrix`."
    return Panel("Plan", about, [body])


def _state(cell: Mapping[str, Any]) -> str:
    return text(cell.get("state"), 20)


def _word(cell: Mapping[str, Any]) -> str:
    return WORDS.get(_state(cell), _state(cell)) + (STAR if shaky(cell) else "")


def _tone(cell: Mapping[str, Any]) -> str:
    return "warn" if shaky(cell) else TONES.get(_state(cell), "")


def runs_table(cells: Iterable[Mapping[str, Any]]) -> Table:
    head = ("", "engine", "workload", "load", "report", *(label for _, label in _FIGURES))
    return Table(head, [_row(cell) for cell in cells], numbers_from=5)


def _hardware_table(cells: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    if columns := _columns(cells):
        head = ("", "engine", "workload", "load", *(label for _, label in columns))
        rows = [[*_named(cell), *(Cell(_shown(cell, name)) for name, _ in columns)] for cell in cells]
        yield Table(head, rows, numbers_from=4, caption=OF_HARDWARE)


def _named(cell: Mapping[str, Any]) -> list[Cell]:
    names = (Cell(text(cell.get(key), 200)) for key in ("engine", "workload", "load"))
    return [Cell(_word(cell), _tone(cell)), *names]


def _row(cell: Mapping[str, Any]) -> list[Cell]:
    folder = text(cell.get("folder"), 300)
    report = Cell("report", link=f"{quote(folder)}/{PAGE}") if folder else Cell("")
    return [*_named(cell), report, *(Cell(_shown(cell, name)) for name, _ in _FIGURES)]
