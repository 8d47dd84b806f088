"""The panel of the GPUs: what each of them told while the load ran, and what its source could not tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from servemark.dashboards import gpu_plots
from servemark.dashboards.gpu_plots import MOST_GPUS, UTILISATION
from servemark.dashboards.hardware import decimal, sentence, texts
from servemark.dashboards.panels import PANELS, Cell, Data, Figure, Note, Panel, Part, Table
from servemark.dashboards.words import NOTHING, figure, seconds, share, size
from servemark.results.schema import items, number, part, text

_HEAD = (
    "GPU", "", "DRAM", "tensor", "SMs", "utilisation", "power", "SM clock", "held down", "memory", "°C", "energy",
)  # fmt: skip
HELD = "Red: the clocks were held down by power or heat."


@PANELS.register("gpu")
def gpu(data: Data) -> Panel | None:
    telemetry = part(data.run, "hardware", "telemetry")
    told = items(telemetry, "gpus")[:MOST_GPUS]
    table, drawn = list(_table(told)), list(gpu_plots.figures(data, gpu_plots.names(told)))
    if not table and not drawn:  # that there is no GPU to read is nothing to show
        return None
    warned = [] if any(isinstance(each, Figure) and each.note for each in drawn) else [Note(UTILISATION, "soft")]
    parts = [*table, *warned, *drawn, *_said(telemetry)]
    source, period = text(telemetry.get("source"), 60), number(telemetry.get("period_s"))
    every = "" if period is None else f", read every {seconds(period)}"
    about = f"What the GPUs tell of themselves (source: {source or 'not known'}{every}). {HELD}"
    return Panel("GPUs", about, parts)


# -- over the steady window


def _table(told: Sequence[Mapping[str, Any]]) -> Iterator[Part]:
    names = gpu_plots.names(told)
    rows = [_row(each, names[text(each.get("gpu"), 200)]) for each in told]
    if rows:
        yield Table(_HEAD, rows, numbers_from=2, caption="Over the steady window: means, and the most memory and heat")


def _row(found: Mapping[str, Any], called: str) -> list[Cell]:
    held = number(found.get("throttled_share"))
    return [
        Cell(called, note=text(found.get("gpu"), 100)),
        Cell(text(found.get("name"), 80), "dim"),
        *(Cell(share(_level(found, name))) for name in ("dram_active", "tensor_active", "sm_active", "utilisation")),
        Cell(_unit(_level(found, "power"), "W")),
        Cell(_unit(_level(found, "sm_clock"), "MHz")),
        Cell(share(held), "bad" if held else ""),
        Cell(size(_level(found, "memory_used", "max"))),
        Cell(figure(_level(found, "temperature", "max"))),
        Cell(decimal(number(found.get("energy_j")), "J")),
    ]


def _level(found: Mapping[str, Any], name: str, which: str = "mean") -> float | None:
    return number(part(found, which).get(name))


def _unit(value: float | None, unit: str) -> str:
    return NOTHING if value is None else f"{figure(value)} {unit}"


# -- what the source says of itself


def _said(telemetry: Mapping[str, Any]) -> Iterator[Part]:
    for said in texts(telemetry.get("notes")):
        yield Note(sentence(said), "warn")
    if missing := _missing(telemetry):
        yield Note("Not told: " + "; ".join(missing) + ".", "soft")
    for each in items(telemetry, "clocks")[:MOST_GPUS]:
        if said := _clock(each):
            yield Note(said, "soft")


def _missing(telemetry: Mapping[str, Any]) -> list[str]:
    """Fields by why they are missing."""
    by_why: dict[str, list[str]] = {}
    for field, why in list(part(telemetry, "missing").items())[:60]:
        by_why.setdefault(text(why, 300).rstrip("."), []).append(text(field, 40).replace("_", " "))
    return [", ".join(fields) + (f" ({why})" if why else "") for why, fields in by_why.items()]


def _clock(found: Mapping[str, Any]) -> str:
    """How its clock stands to ours."""
    url, offset = text(found.get("url"), 200), number(found.get("offset_s"))
    if offset is None:
        why = text(found.get("why"), 300)
        return sentence(f"the clock of {url} is not known" + (f": {why}" if why else "")) if url else ""
    unsure, drift = number(found.get("uncertainty_ms")), number(found.get("drift_ppm"))
    bound = "" if unsure is None else f", known to {figure(unsure)} ms"
    drifting = "" if drift is None else f", drifting by {figure(drift)} ppm"
    return f"Readings of {url} were brought to this machine's clock: theirs is {offset:+,.6g} s off{bound}{drifting}."
