"""The panel of cost and energy: dollars by what is counted, joules, and where the price is from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from servemark.dashboards.hardware import assumed, dollars
from servemark.dashboards.panels import PANELS, Cell, Data, Facts, Note, Panel, Part, Table
from servemark.dashboards.words import figure
from servemark.results.schema import number, part, text

_COSTS = (
    ("usd_per_hour", "an hour of all GPUs", ""),
    ("usd_per_1m_output", "1M output tokens", "all cost on the output"),
    ("usd_per_1m_output_at_slo", "1M output tokens at the SLO", "all cost on the output of requests that met the SLO"),
    ("usd_per_1m_total", "1M tokens, input and output", "every token costs the same"),
    ("usd_per_1m_input_split", "1M input tokens", "split"),
    ("usd_per_1m_output_split", "1M output tokens", "split"),
    ("usd_per_request", "1,000 requests", "those that succeeded"),
    ("usd_per_good_request", "1,000 requests that met the SLO", "all cost on them"),
)
_EACH = 1000
"""Requests that are priced together: one alone costs a fraction of a cent."""
_ENERGY = (
    ("watts", "drawn by all GPUs", "W"),
    ("joules_per_output_token", "per output token", "J"),
    ("joules_per_output_token_at_slo", "per output token at the SLO", "J"),
    ("joules_per_token", "per token, input and output", "J"),
    ("output_tokens_per_s_per_watt", "output", "tok/s/W"),
    ("tokens_per_s_per_watt", "input and output", "tok/s/W"),
    ("kwh", "in the steady window", "kWh"),
)


@PANELS.register("cost")
def cost(data: Data) -> Panel | None:
    hardware = part(data.run, "hardware")
    parts = [*_dollars(hardware), *_joules(part(hardware, "energy"))]
    about = "At the throughput of the steady window. A cost at the SLO is all of it over the share that met it."
    return Panel("Cost and energy", about, parts) if parts else None


def _dollars(hardware: Mapping[str, Any]) -> Iterator[Part]:
    found = part(hardware, "cost")
    split = text(found.get("split"), 200)
    rows = [
        [
            Cell(label),
            Cell(split if basis == "split" else basis, "dim"),
            Cell(dollars(value * (_EACH if "request" in name else 1))),
        ]
        for name, label, basis in _COSTS
        if (value := number(found.get(name))) is not None
    ]
    if not rows:
        return
    yield Table(("cost of", "how it is shared out", ""), rows, numbers_from=2)
    each, gpus = number(found.get("usd_per_gpu_hour")), number(found.get("gpus"))
    if each is not None:
        count = (
            f", {assumption}" if (assumption := assumed(hardware)) else "" if gpus is None else f", {gpus:,.0f} of them"
        )
        source = text(found.get("price_source"), 300)
        yield Note(f"{dollars(each)} per GPU and hour{count}" + (f"; price: {source}." if source else "."), "soft")


def _joules(found: Mapping[str, Any]) -> Iterator[Part]:
    rows = [(label, f"{figure(value)} {unit}") for name, label, unit in _ENERGY
            if (value := number(found.get(name))) is not None]  # fmt: skip
    if (usd := number(found.get("usd"))) is not None:
        rows.append(("electricity in the window", dollars(usd)))
    if rows:
        source = text(found.get("source"), 60)
        yield Facts(rows, "Energy of the GPUs" + (f" ({source})" if source else ""))
