"""The panel of a mix: its classes by themselves, each held to its own SLO."""

from __future__ import annotations

from servemark.dashboards import classes as found
from servemark.dashboards.panels import PANELS, Cell, Data, Panel, Part, Table

TONES = {"met": "good", "missed": "bad"}


@PANELS.register("classes")
def classes(data: Data) -> Panel | None:
    rows = [[*map(Cell, row[:-1]), Cell(row[-1], TONES.get(row[-1], "dim"))] for row in found.rows(data.run)]
    if not rows:
        return None
    parts: list[Part] = [Table(found.HEADS, rows)]
    lines = [
        [Cell(line.word, TONES.get(line.word, "dim")), Cell(name), Cell(line.limit), Cell(line.said)]
        for name, line in found.objectives(data.run)
    ]
    if lines:
        parts.append(Table(("", "class", "limit", "result"), lines, numbers_from=4))
    about = (
        "Kinds of requests that one load mixes; latencies in ms. Good are those that meet the limits of their own "
        "class, beside how many were due in the window."
    )
    return Panel("Classes", about, parts)
