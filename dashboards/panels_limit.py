"""The panel of the limit: how far the run is from what its hardware allows, what binds it, and what that suggests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from servemark.dashboards import hardware as words
from servemark.dashboards import roofline
from servemark.dashboards.hardware import sentence, times
from servemark.dashboards.panels import PANELS, Cell, Data, Note, Panel, Part, Table
from servemark.dashboards.words import figure, name_of, seconds, share
from servemark.harness.efficiency.thresholds import THRESHOLDS
from servemark.results.schema import items, number, part, text

_MOST = 30
_LONG = 400
_UNCLEAR = "No resource clearly binds this run."
_BOUNDS = (("bound", "at the batch that ran"), ("bound_at_largest_batch", "at the largest batch that memory holds"))
_COUNTS = ("batch", "requests", "offered", "client checks", "checks")
_RATIOS = ("floor", "p50")


@PANELS.register("limit")
def limit(data: Data) -> Panel | None:
    hardware = part(data.run, "hardware")
    parts = [*_said(hardware), *_floors(hardware), *_roofline(hardware), *_evidence(hardware), *_suggestions(hardware)]
    about = (
        "What the hardware allows at best, from the model's arithmetic and published peaks, beside what was reached."
    )
    return Panel("The limit", about, parts) if parts else None


def _said(hardware: Mapping[str, Any]) -> Iterator[Part]:
    said = [over for name in ("tpot", "ttft") if (over := words.over_floor(hardware, name))]
    if bound := words.bound_by(hardware):
        said.append(bound)
    elif text(part(hardware, "binding").get("resource"), 40):
        said.append(_UNCLEAR)
    if said:
        yield Note(" ".join(map(sentence, said)))


def _floors(hardware: Mapping[str, Any]) -> Iterator[Part]:
    rows = [row for name in ("tpot", "ttft") if (row := _floor(hardware, name)) is not None]
    found = part(hardware, "limits", "throughput")
    measured = number(found.get("measured"))
    for name, about in _BOUNDS:
        if measured is not None and (bound := number(found.get(name))):
            tone = "bad" if measured / bound > THRESHOLDS.possible else ""
            rows.append(_row("output tok/s", about, figure(measured), figure(bound), share(measured / bound), tone))
    batch = part(hardware, "limits", "batch")
    running, largest = number(batch.get("running_mean")), number(batch.get("largest"))
    if largest is not None:
        reached = share(running / largest) if running is not None and largest > 0 else ""
        tokens = number(batch.get("kv_tokens"))
        basis = text(batch.get("assumed"), _LONG) if tokens is None else f"{tokens:,.0f} tokens, as the server says"
        room = ": ".join(filter(None, ("those whose KV cache the memory holds", basis)))
        rows.append(_row("requests running", room, figure(running), f"{largest:,.0f}", reached))
    if rows:
        yield Table(("", "bound by", "measured", "at best", ""), rows, numbers_from=2)
    notes = (text(part(hardware, "limits", name).get("note"), _LONG) for name in ("tpot", "ttft", "throughput"))
    yield from (Note(sentence(said), "warn") for said in dict.fromkeys(notes) if said)


def _floor(hardware: Mapping[str, Any], name: str) -> list[Cell] | None:
    found = part(hardware, "limits", name)
    measured, floor = (number(found.get(key)) for key in ("measured_s", "floor_s"))
    if not floor:
        return None
    ratio = None if measured is None else measured / floor
    tone = "bad" if ratio is not None and ratio * THRESHOLDS.possible < 1 else ""
    return _row(name_of(name), text(found.get("binding"), 40), seconds(measured), seconds(floor), times(ratio), tone)


def _row(label: str, about: str, measured: str, best: str, ratio: str, tone: str = "") -> list[Cell]:
    return [Cell(label), Cell(about, "dim"), Cell(measured), Cell(best), Cell(ratio, tone)]


def _roofline(hardware: Mapping[str, Any]) -> Iterator[Part]:
    drawn = roofline.figure(part(hardware, "limits", "roofline"), part(hardware, "efficiency", "per_phase"))
    if drawn is not None:
        yield drawn


def _evidence(hardware: Mapping[str, Any]) -> Iterator[Part]:
    found = items(hardware, "binding", "evidence")[:_MOST]
    if found:
        rows = [
            [
                Cell(_name(each)),
                Cell(text(each.get("text"), _LONG), "dim"),
                Cell(_value(each, "value")),
                Cell(_value(each, "threshold")),
            ]
            for each in found
        ]
        named = words.resource(hardware)
        caption = f"Evidence for {named}" if named else "Evidence"
        yield Table(("figure", "", "value", "threshold"), rows, numbers_from=2, caption=caption)
    if said := [_other(each) for each in items(hardware, "binding", "others")[:10]]:
        yield Note("There is evidence for others too. " + " ".join(said), "soft")


def _other(found: Mapping[str, Any]) -> str:
    named = text(found.get("resource"), 40)
    why = "; ".join(words.reasons(items(found, "evidence")))
    return sentence(": ".join(filter(None, (words.RESOURCES.get(named, named), why))))


def _suggestions(hardware: Mapping[str, Any]) -> Iterator[Part]:
    found = items(hardware, "suggestions")[:_MOST]
    if found:
        rows = [
            [
                Cell(_name(each)),
                Cell(text(each.get("text"), 600)),
                Cell(text(each.get("source"), 300), "dim"),
                Cell(_value(each, "value")),
            ]
            for each in found
        ]
        caption = "What the literature suggests for that, with the figure that says so here"
        yield Table(("because of", "suggestion", "shown by", ""), rows, numbers_from=3, caption=caption)


def _name(found: Mapping[str, Any]) -> str:
    return text(found.get("figure"), 80)


def _value(found: Mapping[str, Any], key: str) -> str:
    """Counts and ratios are told by the figure's name; what is left are shares, if it or its threshold is up to 1."""
    value, name = number(found.get(key)), _name(found)
    if value is None:
        return ""
    if name.endswith(_RATIOS):
        return times(value)
    lower = min(value, number(found.get("threshold")) or value)
    return share(value) if 0 <= lower <= 1 and not name.startswith(_COUNTS) else figure(value)
