"""An estimate in the terminal: memory, bounds, predictions, what the SLO leaves of them, and what a rate needs."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

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
from servemark.dashboards.estimate_words import asked_line, model_line, notes, objectives
from servemark.results.schema import items, part

WIDTH, LEAST_WIDTH, MOST_WIDTH = 100, 80, 160
BOUNDS = "what no engine can beat without cached prompts or speculative decoding"
NOWHERE = "Nothing fits: none of these deployments holds one such request."
_TIMES = "times in ms, tok/s of output, `by` is what binds"


def terminal_width() -> int:
    """COLUMNS, else the terminal's; 100 where there is none."""
    return max(LEAST_WIDTH, min(MOST_WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def estimate_text(found: Mapping[str, Any], width: int = WIDTH) -> str:
    """All of it as plain text."""
    return "\n".join(line.rstrip() for line in _lines(found, width))


def _lines(found: Mapping[str, Any], width: int) -> Iterator[str]:
    for paragraph in (model_line(found), asked_line(found)):
        yield from _wrapped(paragraph, width)
    yield from _table("Memory, in GB per GPU", MEMORY_HEAD, memory_rows(found), width)
    yield from _sentences(short(found), width)
    if fits_nowhere(found):
        yield from _sentences(["", NOWHERE], width)
        return
    yield from _table(f"Bounds: {BOUNDS}; {_TIMES}", HEAD, point_rows(found, "bound"), width)
    if predicted := list(point_rows(found, "predicted")):
        yield from _table(f"{predictions_title(found)}; {_TIMES}", HEAD, predicted, width)
    if said := objectives(found):
        yield from _slo(found, said, width)
    if title := rate_title(found):
        yield from _sentences(["", title, *needs(found), *choice(found), FULL], width)
    yield ""
    yield from _sentences([*ties(found), *notes(found)], width)


def _slo(found: Mapping[str, Any], said: str, width: int) -> Iterator[str]:
    if any(part(each, "at_slo", kind) for each in items(found, "deployments") for kind in ("bound", "predicted")):
        yield from _table(f"At the SLO {said}: the largest batch that meets it", SLO_HEAD, slo_rows(found), width)
    else:
        yield from _sentences(["", f"At the SLO {said}: no batch of any deployment meets it"], width)
    yield from _sentences([*misses(found), NO_QUEUEING], width)


def predictions_title(found: Mapping[str, Any]) -> str:
    """Whose efficiency it is."""
    points = [part(row, "predicted") for each in items(found, "deployments") for row in items(each, "rows")]
    if not any(point.get("assumed") for point in points):
        return "Predictions, at the efficiency of the runs below"
    if not any(point.get("runs") for point in points):
        return "Predictions, at an efficiency that is assumed, not measured"
    return "Predictions, at an efficiency that is measured in part, the rest assumed"


def _sentences(sentences: Iterable[str], width: int) -> Iterator[str]:
    for each in sentences:
        yield from _wrapped(each, width)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> Iterator[str]:
    yield ""
    yield from _wrapped(title, width)
    yield from _fitting(*shown(head, rows), width)


def _fitting(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The names before the figures; where that is too wide, on lines of their own."""
    upper, lower = zip(*((cell.rpartition(" ")[0], cell.rpartition(" ")[2]) for cell in head), strict=True)
    apart = [upper, lower, *rows] if any(upper) else [lower, *rows]
    words = [not cell for cell in head]
    beside = _columns(apart, words, 2)
    if max(map(len, beside)) <= width:
        return beside
    wide, narrow = (_columns([row[1:] for row in apart], words[1:], gap) for gap in (2, 1))
    figures = wide if max(map(len, wide)) + 2 <= width else narrow
    named = ([*([name] if name else []), f"  {line}"] for (name, *_), line in zip(apart, figures, strict=True))
    return [line for lines in named for line in lines]


def _columns(rows: Sequence[Sequence[str]], words: Sequence[bool], gap: int) -> list[str]:
    """`words` says which columns are set to the left; figures are set to the right."""
    columns = []
    for column, left in zip(zip(*rows, strict=True), words, strict=True):
        most = max(map(len, column))
        columns.append([cell.ljust(most) if left else cell.rjust(most) for cell in column])
    return [(" " * gap).join(cells) for cells in zip(*columns, strict=True)]
