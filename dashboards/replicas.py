"""The replicas of a run side by side, for the terminal: who answered how much, how fast, and how much failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from servemark.dashboards.facts import marked
from servemark.dashboards.words import figure, share
from servemark.results.schema import items, number, part, text

if TYPE_CHECKING:
    from rich.console import RenderableType

_MOST = 16
_URL_CHARS = 44


def replicas(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row each: address, measured requests that were answered, TTFT p50 and p99 in ms, output tok/s, share failed."""
    found: list[tuple[str, ...]] = []
    for group in items(run, "groups"):
        url = part(group, "by").get("url")
        if url is None:
            continue
        metrics = part(group, "metrics")
        ttft, failed = part(metrics, "ttft"), number(part(metrics, "error_rate").get("value"))
        found.append(
            (
                text(url, _URL_CHARS),
                f"{number(ttft.get('n')) or 0:,.0f}",
                marked(ttft, "p50"),
                marked(ttft, "p99"),
                figure(number(part(metrics, "output_tps").get("value"))),
                "none" if not failed else share(failed),
            )
        )
    return found[:_MOST]


def table(run: Mapping[str, Any]) -> RenderableType | None:
    """None where there is one server."""
    from rich.table import Table
    from rich.text import Text

    rows = replicas(run)
    if not rows:
        return None
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=18, overflow="fold")
    for _ in rows[0][1:]:
        grid.add_column(justify="right", no_wrap=True, min_width=8)
    heads = ("", "answered", "TTFT p50", "TTFT p99", "tok/s", "failed")
    grid.add_row(*(Text(head, style="dim") for head in heads))
    for url, *cells in rows:
        grid.add_row(Text(url, style="bold"), *(Text(cell) for cell in cells))
    return grid
