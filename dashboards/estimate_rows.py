"""An estimate's tables, row by row: memory, bounds and predictions, and what the SLO leaves of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from servemark.dashboards.estimate_words import gigabytes, milli, name_of
from servemark.dashboards.words import NOTHING, figure
from servemark.results.schema import items, number, part, text

MEMORY_HEAD = ("", "GPUs", "weights", "KV room", "fits", "largest batch", "prefill tok/s", "$/h")
HEAD = (
    *("", "batch", "step", "step by", "TPOT", "TTFT", "tok/s", "tok/s by"),
    *("tok/s /user", "tok/s /GPU", "$/1M out"),
)
SLO_HEAD = ("", "", "batch", "TPOT", "TTFT", "req/s", "tok/s", "tok/s /user", "tok/s /GPU", "$/1M out")
_EACH = ("output_tps_per_user", "output_tps_per_gpu", "usd_per_1m_output")
Shown = tuple[tuple[str, ...], list[list[str]]]


def shown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Shown:
    """Without the columns in which no row has anything, as dollars where no price is known."""
    known = [list(row) for row in rows]
    kept = [place for place in range(len(head)) if place == 0 or any(row[place] != NOTHING for row in known)]
    return tuple(head[place] for place in kept), [[row[place] for place in kept] for row in known]


def memory_rows(found: Mapping[str, Any]) -> Iterator[list[str]]:
    for each in items(found, "deployments"):
        memory, layout = part(each, "memory"), part(each, "layout")
        room = number(memory.get("kv_room_bytes")) or 0
        yield [
            name_of(each),
            f"{number(layout.get('gpus')) or 1:.0f}",
            gigabytes(memory.get("weights_bytes")),
            gigabytes(room) if room > 0 else "none",
            "yes" if memory.get("fits") is True else "no",
            f"{number(memory.get('largest_batch')) or 0:,.0f}",
            figure(number(each.get("prefill_tps_bound"))),
            figure(number(each.get("usd_per_hour"))),
        ]


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
    return [
        f"{batch:,.0f}{' max' if batch == most else ''}",
        milli(point.get("step_s")),
        text(part(row, "step_floor").get("binding"), 20) or NOTHING,
        milli(point.get("tpot_s")),
        milli(point.get("ttft_s")),
        figure(number(point.get("output_tps"))),
        text(point.get("binding"), 20) or NOTHING,
        *(figure(number(point.get(name))) for name in _EACH),
    ]


def slo_rows(found: Mapping[str, Any]) -> Iterator[list[str]]:
    for each in items(found, "deployments"):
        at_slo, name = part(each, "at_slo"), name_of(each)
        why = part(at_slo, "why")
        for kind in ("bound", "predicted"):
            point = part(at_slo, kind)
            if point:
                yield [name, "assumed" if point.get("assumed") else kind, *_slo_cells(point)]
            elif kind in why:
                yield [name, kind, "none", *[NOTHING] * (len(SLO_HEAD) - 3)]
            else:
                continue
            name = ""


def _slo_cells(point: Mapping[str, Any]) -> list[str]:
    return [
        f"{number(point.get('batch')) or 0:,.0f}",
        milli(point.get("tpot_s")),
        milli(point.get("ttft_s")),
        *(figure(number(point.get(name))) for name in ("rps", "output_tps", *_EACH)),
    ]
