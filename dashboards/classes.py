"""The classes of a mix side by side: who was answered how fast, and whether each met its own SLO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from servemark.dashboards.facts import SloLine, marked, slo_lines
from servemark.dashboards.words import figure, share
from servemark.results.schema import items, number, part, text

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADS = ("class", "answered", "TTFT p50", "p99", "TPOT p50", "p99", "good req/s", "good share", "SLO")
_MOST = 32
_CHARS = 40


def rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row for each class, by `HEADS`; latencies in ms. None where all requests are of one class."""
    groups = ((part(group, "by").get("class"), part(group, "metrics")) for group in items(run, "groups"))
    return [_row(run, str(name), metrics) for name, metrics in groups if name is not None][:_MOST]


def _row(run: Mapping[str, Any], name: str, metrics: Mapping[str, Any]) -> tuple[str, ...]:
    ttft, tpot = part(metrics, "ttft"), part(metrics, "tpot")
    own = part(run, "slo", "classes", name)
    met = "met" if own.get("met") is True else "missed" if own.get("met") is False else "–"
    return (
        text(name, _CHARS),
        f"{number(ttft.get('n')) or 0:,.0f}",
        *(marked(entry, p) for entry in (ttft, tpot) for p in ("p50", "p99")),
        goodput(metrics),
        share(number(part(metrics, "goodput_share").get("value"))),
        met,
    )


def goodput(metrics: Mapping[str, Any]) -> str:
    """`3.2 of 4.0`: of the requests that were due in the window, those that met their limits, per second."""
    entry = part(metrics, "goodput")
    good, offered = number(entry.get("value")), number(entry.get("offered"))
    return figure(good) + (f" of {figure(offered)}" if good is not None and offered is not None else "")


def objectives(run: Mapping[str, Any]) -> list[tuple[str, SloLine]]:
    """Each class's limits with what became of them."""
    found = {text(name, _CHARS): part(run, "slo", "classes", name) for name in part(run, "slo", "classes")}
    metrics = {
        text(part(group, "by").get("class"), _CHARS): part(group, "metrics")
        for group in items(run, "groups")
        if "class" in part(group, "by")
    }
    all_in_one = part(run, "metrics")
    lines = ((name, slo_lines(metrics.get(name, all_in_one), own)) for name, own in list(found.items())[:_MOST])
    return [(name, line) for name, own in lines for line in own]


def table(run: Mapping[str, Any]) -> RenderableType | None:
    """None where there is one class."""
    from rich.table import Table
    from rich.text import Text

    found = rows(run)
    if not found:
        return None
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=12, overflow="fold")
    for _ in HEADS[1:]:
        grid.add_column(justify="right", no_wrap=True)
    grid.add_row(*(Text(head, style="dim") for head in ("", *HEADS[1:])))
    tones = {"met": "green", "missed": "red"}
    for name, *cells, met in found:
        grid.add_row(Text(name, style="bold"), *map(Text, cells), Text(met, style=tones.get(met, "dim")))
    return grid
