"""An estimate in the terminal: memory, bounds, predictions, and what the SLO leaves of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from servemark.dashboards.estimate_words import (
    SHARES,
    asked_line,
    gigabytes,
    least,
    milli,
    model_line,
    name_of,
    notes,
    objectives,
)
from servemark.dashboards.words import NOTHING, figure
from servemark.results.schema import items, number, part, text

WIDTH = 100
BOUNDS = "what no engine can beat without cached prompts or speculative decoding"
MEMORY_HEAD = ("GB per GPU", "GPUs", "weights", "KV room", "fits", "largest batch", "prefill tok/s", "$/h")
HEAD = ("", "batch", "step", "by", "TPOT", "TTFT", "tok/s", "by", "/user", "/GPU", "$/1M out")
SLO_HEAD = ("", "", "batch", "TPOT", "TTFT", "tok/s", "/user", "/GPU", "$/1M out")
_FIGURES = ("output_tps", "output_tps_per_user", "output_tps_per_gpu", "usd_per_1m_output")
_BY = {"bandwidth": "bandw.", "compute": "compute"}


def estimate_text(found: Mapping[str, Any], width: int = WIDTH) -> str:
    """All of it as plain text."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False)
    for paragraph in (model_line(found), asked_line(found)):
        console.print(paragraph, markup=False)
    _print(console, "Memory", MEMORY_HEAD, memory_rows(found))
    _print(console, f"Bounds: {BOUNDS}; times in ms", HEAD, point_rows(found, "bound"))
    if predicted := list(point_rows(found, "predicted")):
        _print(console, "Predictions, at the efficiency of the runs below; times in ms", HEAD, predicted)
    if said := objectives(found):
        _print(console, f"At the SLO {said}: the largest batch that meets it", SLO_HEAD, slo_rows(found))
    console.print()
    for note in notes(found):
        console.print(note, markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _print(console: Any, title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for place, _ in enumerate(head):
        grid.add_column(justify="left" if place == 0 else "right", no_wrap=place > 0)
    grid.add_row(*head)
    for row in rows:
        grid.add_row(*row)
    console.print(f"\n{title}", markup=False)
    console.print(grid, markup=False)


# -- rows


def memory_rows(found: Mapping[str, Any]) -> Iterator[list[str]]:
    for each in items(found, "deployments"):
        memory, layout = part(each, "memory"), part(each, "layout")
        yield [
            name_of(each),
            f"{number(layout.get('gpus')) or 1:.0f}",
            gigabytes(memory.get("weights_bytes")),
            gigabytes(memory.get("kv_room_bytes")),
            fits(memory),
            f"{number(memory.get('largest_batch')) or 0:,.0f}",
            figure(number(each.get("prefill_tps_bound"))),
            figure(number(each.get("usd_per_hour"))),
        ]


def fits(memory: Mapping[str, Any]) -> str:
    """`yes`, or `72.7 short; TP4 fits`."""
    if memory.get("fits") is True:
        return "yes"
    return f"{gigabytes(memory.get('short_by_bytes'))} short; {least(memory.get('least_tensor'))}"


def point_rows(found: Mapping[str, Any], kind: str) -> Iterator[list[str]]:
    """A line for each batch that fits, the deployment's name on its first."""
    for each in items(found, "deployments"):
        name = name_of(each)
        for row in items(each, "rows"):
            point = part(row, kind)
            if point:
                yield [name, *point_cells(row, point, number(part(each, "memory").get("largest_batch")))]
                name = ""


def point_cells(row: Mapping[str, Any], point: Mapping[str, Any], most: float | None) -> list[str]:
    """`most` is the largest batch, which is marked."""
    batch = number(point.get("batch")) or 0
    rate, *rest = (figure(number(point.get(name))) for name in _FIGURES)
    return [
        f"{batch:,.0f}{' max' if batch == most else ''}",
        milli(point.get("step_s")),
        _BY.get(text(part(row, "step_floor").get("binding"), 20), NOTHING),
        milli(point.get("tpot_s")),
        milli(point.get("ttft_s")),
        rate,
        _BY.get(text(row.get("throughput_binding"), 20), NOTHING),
        *rest,
    ]


def slo_rows(found: Mapping[str, Any]) -> Iterator[list[str]]:
    like = items(found, "like")
    complete = all(any(number(run.get(name)) for run in like) for _, name in SHARES)
    kinds = ("bound", "predicted") if complete else ("bound",)
    for each in items(found, "deployments"):
        for kind in kinds:
            point = part(part(each, "at_slo"), kind)
            if not point:
                yield [name_of(each), kind, "none", *[NOTHING] * (len(SLO_HEAD) - 3)]
                continue
            figures = (figure(number(point.get(name))) for name in _FIGURES)
            batch = f"{number(point.get('batch')) or 0:,.0f}"
            yield [name_of(each), kind, batch, milli(point.get("tpot_s")), milli(point.get("ttft_s")), *figures]
